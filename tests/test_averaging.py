"""The mean of the weights over the last part of a run."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from torch import nn

from textclf.training.averaging import ADDITIONS, WeightAverage


@pytest.mark.parametrize(("steps", "share"), [(100, 0.2), (50, 0.5), (5, 0.2)])
def test_the_mean_is_exponential_over_its_share_of_the_run(steps: int, share: float) -> None:
    layer = nn.Linear(1, 1, bias=False)
    average = WeightAverage(cast(Any, layer), share=share)
    expected = layer.weight.item()
    for step in range(1, steps + 1):
        layer.weight.data.fill_(step)
        average.step_done(step, position=step / steps)
        expected += (step - expected) * min(1.0, 1 / (share * steps))
    assert average.tensors()["weight"].item() == pytest.approx(expected, rel=1e-4)


def test_long_runs_add_less_often_and_reach_the_same_mean() -> None:
    layer, steps = nn.Linear(1, 1, bias=False), 5000
    average = WeightAverage(cast(Any, layer), share=0.2)
    means = set()
    for step in range(1, steps + 1):
        layer.weight.data.fill_(step / steps)
        average.step_done(step, position=step / steps)
        means.add(average.tensors()["weight"].item())
    assert len(means) <= steps / 0.2 / 1000 * ADDITIONS * 1.1
    assert average.tensors()["weight"].item() == pytest.approx(1 - 0.2, abs=0.02)


def test_weights_that_learn_come_back_as_they_were() -> None:
    layer = nn.Linear(3, 2)
    layer.bias.requires_grad_(False)
    average = WeightAverage(cast(Any, layer), share=0.2)
    before = average.tensors()["weight"].clone()
    layer.weight.data.add_(1)
    learnt = layer.weight.detach().clone()
    with average.applied():
        assert torch.equal(layer.weight, before)
    assert torch.equal(layer.weight, learnt)
    assert set(average.tensors()) == {"weight"}
