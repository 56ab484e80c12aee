"""A checkpoint holds the whole state, bit for bit; the newest whole one is taken, and the best one stays."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import nn

from textclf import atomic
from textclf.errors import ModelError
from textclf.training import checkpoint
from textclf.training.averaging import WeightAverage
from textclf.training.checkpoint import Progress


def state(seed: int, *, width: int = 3) -> tuple[Any, torch.optim.Optimizer, WeightAverage]:
    """A network that learns, what makes it learn, and its mean."""
    torch.manual_seed(seed)
    network: Any = nn.Sequential(nn.Linear(width, 4), nn.Linear(4, 2))
    return network, torch.optim.AdamW(network.parameters()), WeightAverage(cast(Any, network), share=0.5)


def learn(network: Any, optimizer: torch.optim.Optimizer, average: WeightAverage, *, steps: int) -> None:
    for step in range(1, steps + 1):
        network(torch.ones(1, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        average.step_done(step, step / steps)


def test_a_run_goes_on_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    unbroken = state(0)
    learn(*unbroken, steps=5)
    progress = Progress(step=5, loss=0.5, recent=[0.5], best_score=0.25, best_step=5, scaler={"scale": 2.0})
    checkpoint.save(tmp_path, progress, *unbroken, keep=2)
    path, damaged = checkpoint.newest(tmp_path)
    assert path == tmp_path / "step-5" and damaged == []
    resumed = state(1)
    assert checkpoint.load(path, *resumed) == progress
    for went_on in (unbroken, resumed):
        learn(*went_on, steps=3)
    for one, other in zip(unbroken[0].parameters(), resumed[0].parameters(), strict=True):
        assert torch.equal(one, other)
    for name, mean in unbroken[2].tensors().items():
        assert torch.equal(mean, resumed[2].tensors()[name])
    assert sorted(path.name for path in path.iterdir()) == sorted(
        [atomic.MANIFEST, checkpoint.WEIGHTS, checkpoint.AVERAGE, checkpoint.OPTIMIZER, checkpoint.STATE]
    )


def test_the_newest_two_the_best_and_the_first_are_kept_by_their_numbers(tmp_path: Path) -> None:
    parts = state(0)
    for step in (0, 2, 9, 10, 11, 100):
        checkpoint.save(tmp_path, Progress(step=step, best_step=9), *parts, keep=2)
    assert {path.name for path in tmp_path.iterdir()} == {checkpoint.START, "step-9", "step-11", "step-100"}
    assert checkpoint.newest(tmp_path)[0] == tmp_path / "step-100"


@pytest.mark.parametrize("damage", ["cut", "flip", "lose", "no manifest"])
def test_a_damaged_one_is_passed_over_and_told(tmp_path: Path, damage: str) -> None:
    parts = state(0)
    for step in (9, 10):
        checkpoint.save(tmp_path, Progress(step=step), *parts, keep=2)
    file = tmp_path / "step-10" / (atomic.MANIFEST if damage == "no manifest" else checkpoint.OPTIMIZER)
    data = file.read_bytes()
    if damage in ("lose", "no manifest"):
        file.unlink()
    else:
        file.write_bytes(data[:-1] if damage == "cut" else data[:-1] + bytes([data[-1] ^ 1]))
    path, damaged = checkpoint.newest(tmp_path)
    assert path == tmp_path / "step-9"
    assert len(damaged) == 1 and "step-10 is damaged" in damaged[0]


def test_the_best_weights_are_the_mean_they_were_judged_by(tmp_path: Path) -> None:
    parts = state(0)
    learn(*parts, steps=4)
    checkpoint.save(tmp_path, Progress(step=4), *parts, keep=2)
    other = state(1)
    checkpoint.load_best(tmp_path / "step-4", other[0])
    assert torch.equal(other[0][0].weight, parts[2].tensors()["0.weight"])
    assert not torch.equal(other[0][0].weight, parts[0][0].weight)


@pytest.mark.parametrize("document", ["[]", "{", "7", '{"step": 1, "evil": 2}', "[" * 100_000])
def test_a_state_that_is_none_is_a_model_error(tmp_path: Path, document: str) -> None:
    parts = state(0)
    checkpoint.save(tmp_path, Progress(step=1), *parts, keep=2)
    (tmp_path / "step-1" / checkpoint.STATE).write_text(document)
    with pytest.raises(ModelError, match="cannot be read"):
        checkpoint.load(tmp_path / "step-1", *parts)


def test_weights_of_another_shape_are_a_model_error(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, Progress(step=1), *state(0, width=5), keep=2)
    with pytest.raises(ModelError, match="does not fit"):
        checkpoint.load(tmp_path / "step-1", *state(0))


def test_what_is_no_step_is_no_checkpoint(tmp_path: Path) -> None:
    for name in ("step-", "step-x", "step--1", "step-1.5", ".step-9.x.tmp", "step-²"):
        (tmp_path / name).mkdir()
    assert checkpoint.newest(tmp_path) == (None, [])
    assert checkpoint.newest(tmp_path / "nowhere") == (None, [])
    checkpoint.save(tmp_path, Progress(step=1), *state(0), keep=2)
    assert json.loads((tmp_path / "step-1" / checkpoint.STATE).read_text())["step"] == 1
