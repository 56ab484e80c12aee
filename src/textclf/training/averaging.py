"""The weights that a run is judged by and ends with: an exponential mean over its last steps.

Steps of a high learning rate circle around a good place; their mean lies nearer to it than any of them (Polyak and
Juditsky 1992; Izmailov et al. 2018, "Averaging Weights Leads to Wider Optima and Better Generalization").
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from textclf.model.classifier import Classifier

ADDITIONS = 32
"""Additions to the mean within its share of the run, at least where there are so many steps: adding after each step of
a long run would cost a twentieth of its time on a CPU."""


class WeightAverage:
    """The mean of a classifier's trained weights, beside the weights that learn. share: see `TrainConfig.averaging`."""

    def __init__(self, classifier: Classifier, *, share: float) -> None:
        named = [(name, one) for name, one in classifier.named_parameters() if one.requires_grad]
        self._names = [name for name, _ in named]
        self._live = [one.detach() for _, one in named]
        self._mean = [one.clone() for one in self._live]
        self._share = share

    def step_done(self, step: int, position: float) -> None:
        """Take the weights after this step into the mean. position: how much of the run is over, 0 to 1."""
        horizon = self._share * step / position
        every = max(1, int(horizon) // ADDITIONS)
        if step % every == 0:
            torch._foreach_lerp_(self._mean, self._live, min(1.0, every / horizon))

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The classifier answers with the mean weights inside, and goes on learning from its own after it."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def swap(self) -> None:
        """Exchange the classifier's weights and their mean."""
        for live, mean in zip(self._live, self._mean, strict=True):
            held = live.clone()
            live.copy_(mean)
            mean.copy_(held)

    def tensors(self) -> dict[str, Tensor]:
        """The mean by the names of the classifier's parameters."""
        return dict(zip(self._names, self._mean, strict=True))
