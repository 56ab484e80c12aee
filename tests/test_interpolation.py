"""Between the first weights and the last: validation takes its own of those on the line."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import textclf
import tiny_models
from resuming import same_weights, stop_and_resume
from textclf.artifact import runs
from textclf.training import interpolation
from textclf.training.events import Event, Notice

LONG: dict[str, Any] = {
    "epochs": 15, "learning_rate": 3e-3, "batch_size": 16, "precision": "fp32", "baselines": False,
    "eval_every": 1000,  # at the start and the end
}  # fmt: skip

pytestmark = pytest.mark.usefixtures("no_graph")


@pytest.fixture(scope="module")
def noisy_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A third of the labels are drawn by lot, so that a tiny model learns too much by heart."""
    path = tmp_path_factory.mktemp("noisy") / "tickets.csv"
    lots = random.Random(0)
    made = [(text, lots.choice("abc") if lots.random() < 1 / 3 else label) for text, label in tiny_models.rows(300)]
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in made))
    return path


@pytest.fixture(scope="module")
def walked(tiny_base: Path, noisy_csv: Path) -> runs.Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("textclf.model.exporting.MAX_BYTES", 0)
        return textclf.finetune(tiny_base, noisy_csv, **LONG)


def weights(run: runs.Run) -> dict[str, torch.Tensor]:
    """Of the layers below the head's last, into which the temperature goes."""
    found = load_file(run.model_folder / "model.safetensors")
    return {name: tensor for name, tensor in found.items() if not name.startswith("classifier")}


def test_the_weights_lie_on_the_line(tiny_base: Path, noisy_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    end = textclf.finetune(tiny_base, noisy_csv, interpolate=False, **LONG)
    assert end.document["share"] is None and end.document["best_step"] == end.document["step"]
    start = textclf.finetune(tiny_base, noisy_csv, **{**LONG, "epochs": 0, "learning_rate": None})
    judged = iter([(0.9, 0.5), (0.9, 0.4), (0.9, 0.3), (0.9, 0.35)])
    monkeypatch.setattr(interpolation, "_judged", lambda *asked: (*next(judged), 30))
    between = textclf.finetune(tiny_base, noisy_csv, **LONG)
    assert between.document["share"] == 0.6
    first, last = weights(start), weights(end)
    assert any((last[name] - first[name]).abs().max() > 1e-3 for name in first)
    for name, tensor in weights(between).items():
        assert torch.allclose(tensor, torch.lerp(first[name], last[name], 0.6), atol=1e-6), name


def test_a_run_that_was_stopped_walks_back_alike(
    tiny_base: Path, noisy_csv: Path, walked: runs.Run, tmp_path: Path
) -> None:
    """Also where it stops after the last step, with the walk before it."""
    for step in (7, walked.document["step"]):
        _, run = stop_and_resume(tiny_base, noisy_csv, tmp_path / f"run-{step}", stop_at=step, **LONG)
        assert run.document["share"] == walked.document["share"] and same_weights(run, walked)


def test_where_no_place_has_less_loss_the_best_checkpoint_stays(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Labels of validation are drawn by lot: the surer the model gets, the more loss it has there."""
    lots = random.Random(0)
    for split, made in (
        ("train", tiny_models.rows(240)),
        ("validation", [(text, lots.choice("abc")) for text, _ in tiny_models.rows(60, seed=1)]),
    ):
        lines = "".join(f"{text},{label}\n" for text, label in made)
        (tmp_path / f"{split}.csv").write_text("text,label\n" + lines)
    early: dict[str, Any] = {**LONG, "eval_every": 15, "metric": "loss", "test_size": 0}
    plain = textclf.finetune(tiny_base, tmp_path, interpolate=False, **early)
    assert plain.document["best_step"] != plain.document["step"]
    losses = iter([0.5, 0.7, 0.6, 0.65])  # of the best; of the last and those before it
    monkeypatch.setattr(interpolation, "_judged", lambda *asked: (-(loss := next(losses)), loss, 30))
    run = textclf.finetune(tiny_base, tmp_path, **early)
    assert run.document["share"] is None and same_weights(run, plain) and next(losses, None) is None


def test_without_the_first_weights_the_best_stay(tiny_base: Path, noisy_csv: Path, tmp_path: Path) -> None:
    seen: list[Event] = []
    out = tmp_path / "run"

    def damage(event: Event) -> None:
        seen.append(event)
        start = out / "checkpoints/step-0/weights.safetensors"
        if start.is_file():
            start.write_bytes(start.read_bytes()[:-1] + b"x")

    run = textclf.finetune(tiny_base, noisy_csv, out=out, on_event=damage, **LONG)
    assert run.document["share"] is None and run.state == "done"
    said = [event.message for event in seen if isinstance(event, Notice)]
    assert any("step-0 is damaged" in line and "no going back" in line for line in said)


@pytest.mark.parametrize(
    ("judged", "share"),
    [  # metric and loss of the best checkpoint, which is the last, then of 80 %, 60 %, ... of the way
        ([(0.9, 0.5), (0.9, 0.4), (0.9, 0.3), (0.9, 0.2), (0.9, 0.1)], 0.2),  # ever less loss
        ([(0.9, 0.5), (0.9, 0.5)], None),  # no less
        ([(0.9, 0.5), (0.5, 0.4), (0.9, 0.45)], None),  # less, but the accuracy is gone
        ([(0.9, 0.5), (0.89, 0.4), (0.9, 0.45)], 0.8),  # within chance
        ([(0.3, 0.5), (0.29, 0.4), (0.3, 0.45)], None),  # within chance, but below the probe
    ],
)
def test_the_walk_ends_where_loss_or_metric_get_worse(
    judged: Sequence[tuple[float, float]],
    share: float | None,
    tiny_base: Path,
    noisy_csv: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = iter(judged)
    monkeypatch.setattr(interpolation, "_judged", lambda *asked: (*next(left), 30))
    seen: list[Event] = []
    run = textclf.finetune(tiny_base, noisy_csv, on_event=seen.append, **LONG)
    assert next(left, None) is None
    assert run.document["share"] == share == json.loads((run.folder / "run.json").read_text())["share"]
    (said,) = [one.message for one in seen if isinstance(one, Notice) and "best accuracy on validation" in one.message]
    assert share is None or f"taken are weights {share:.0%} of the way" in said
