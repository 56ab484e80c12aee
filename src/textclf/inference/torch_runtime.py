"""Encoded texts to logits with torch."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from textclf.artifact.folder import Artifact
from textclf.data.encoding import Encoded
from textclf.model.classifier import Classifier
from textclf.model.device import pick_device
from textclf.model.scoring import score


class TorchRuntime:
    """A finished classifier on CUDA, MPS or the CPU: in fp32 with the scores of plain transformers but for rounding, or
    in bf16.

    head: the code of its head, where it is code.
    Raises ModelError where weights are missing, UsageError or ResourceError for a device that is not there,
    RefusedError for a head whose code is not allowed.
    """

    def __init__(
        self, artifact: Artifact, *, device: str = "auto", precision: str = "fp32", head: str | None = None
    ) -> None:
        self.device = pick_device(device, precision)
        self._classifier = Classifier.from_artifact(artifact, head=head).to(self.device.torch_device)
        if self.device.kind == "cpu":  # tried in fp32, where rounding does not hide what is wrong
            self._classifier.try_packing(max_length=artifact.max_length)
        if precision == "bf16":
            # All weights, not autocast: for texts of a dozen tokens, to convert them anew costs more than it gains.
            _to_bf16(self._classifier)

    def logits(self, encoded: Encoded, on_progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Logits in the order of the input: (rows, num_labels) float32."""
        return score(self._classifier, encoded, on_progress=on_progress)


def _to_bf16(classifier: Classifier) -> None:
    """Weights in bf16. The frequencies of rotary positions stay as they are, as in transformers: the angle of a far
    token is their product with its place, and three digits of it are none.
    """
    frequencies = {name: one for name, one in classifier.named_buffers(remove_duplicate=False) if "inv_freq" in name}
    classifier.to(torch.bfloat16)
    for name, frequency in frequencies.items():
        owner, _, own = name.rpartition(".")
        setattr(classifier.get_submodule(owner), own, frequency)
