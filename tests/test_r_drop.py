"""R-Drop: a text twice in a pass, and what both answers differ by in the loss."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributions import Bernoulli, Categorical, kl_divergence
from transformers import AutoTokenizer

import textclf
import tiny_models
from resuming import finetune_until, same_weights, stop_and_resume
from test_finetune import FAST, weights
from textclf.artifact import folder
from textclf.artifact.runs import Run
from textclf.config import TrainConfig
from textclf.errors import InterruptedRun
from textclf.labels import LabelSet
from textclf.model.classifier import Classifier
from textclf.model.device import Device
from textclf.model.losses import make_loss, with_r_drop
from textclf.training import plan as plan_module
from textclf.training.plan import make_plan

pytestmark = pytest.mark.usefixtures("no_graph")

NAMES = ("a", "b", "c")


def _parts(several: bool, apart: float) -> tuple[LabelSet, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A label set, logits of two readings that differ by so much, (5, 3) each, and targets of both."""
    generator = torch.Generator().manual_seed(0)
    one, noise = torch.randn(2, 5, 3, generator=generator)
    hard = torch.tensor([0, 1, 2, 1, 0]).repeat(2)
    soft = torch.randint(0, 2, (5, 3), generator=generator).repeat(2, 1)
    return LabelSet(NAMES, "multi") if several else LabelSet(NAMES), one, one + apart * noise, soft if several else hard


@pytest.mark.parametrize("several", [False, True])
def test_the_loss_is_that_of_the_paper_where_answers_differ_little(several: bool) -> None:
    labels, one, other, targets = _parts(several, apart=0.02)
    kind = Bernoulli if several else Categorical
    p, q = kind(logits=one), kind(logits=other)
    apart = (kl_divergence(p, q) + kl_divergence(q, p)) / 2
    if several:
        apart = apart.mean(dim=1)
    logits = torch.cat([one, other])
    found = (with_r_drop(make_loss(labels), labels, 5.0)(logits, targets) - make_loss(labels)(logits, targets)).double()
    # Equation 4, of each text; ours is the mean over both of its passes, which is half of that.
    assert torch.allclose(found[:5] + found[5:], 5.0 * apart.double(), rtol=0.02, atol=2e-6) and apart.min() > 0


@pytest.mark.parametrize("several", [False, True])
def test_answers_that_differ_much_are_jensen_and_shannons_divergence_apart(several: bool) -> None:
    labels, one, other, targets = _parts(several, apart=3.0)
    kind = Bernoulli if several else Categorical
    p, q = kind(logits=one), kind(logits=other)
    between = kind(probs=(p.probs + q.probs) / 2)
    apart = (kl_divergence(p, between) + kl_divergence(q, between)) / 2
    if several:
        apart = apart.mean(dim=1)
    logits = torch.cat([one, other])
    found = with_r_drop(make_loss(labels), labels, 5.0)(logits, targets) - make_loss(labels)(logits, targets)
    assert torch.allclose(found[:5] + found[5:], 5.0 * 4 * apart, atol=1e-4)


@pytest.mark.parametrize("several", [False, True])
def test_logits_far_from_zero_do_not_drown_the_loss(several: bool) -> None:
    labels, one, _, targets = _parts(several, apart=0.0)
    logits = torch.cat([one, -one]) * 1e4
    logits.requires_grad_()
    found = with_r_drop(make_loss(labels), labels, 5.0)(logits, targets) - make_loss(labels)(logits, targets)
    assert found.isfinite().all() and found.max() <= 2 * 5.0 * math.log(2) + 1e-3
    found.sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()


@pytest.mark.parametrize("way", [{}, {"gradient_checkpointing": True}], ids=["packed", "padded"])
@pytest.mark.parametrize("bounds", [{}, {"micro_batch_size": 3}, {"micro_batch_tokens": 40}])
def test_without_dropout_it_learns_what_one_pass_learns(
    way: dict[str, Any], bounds: dict[str, Any], tiny_csv: Path, tmp_path: Path
) -> None:
    base = tiny_models.pretrained(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    (base / "config.json").write_text(json.dumps(config))
    once, twice = (textclf.finetune(base, tiny_csv, r_drop=r, **FAST, **way, **bounds) for r in (0, 4))
    for name, tensor in weights(once).items():
        assert torch.allclose(tensor, weights(twice)[name], atol=2e-4), name


def test_labels_count_there_as_they_do_elsewhere() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, generator=generator) * 3
    labels, targets, counts = LabelSet(NAMES), torch.tensor([0, 2, 0, 2]), np.array([0.5, 1.0, 3.0])
    plain = with_r_drop(make_loss(labels), labels, 5.0)(logits, targets)
    counted = with_r_drop(make_loss(labels, weights_C=counts), labels, 5.0, weights_C=counts)(logits, targets)
    assert torch.allclose(counted, plain * torch.tensor([0.5, 3.0, 0.5, 3.0]), atol=1e-5)


@pytest.mark.parametrize("bound", ["micro_batch_tokens", "micro_batch_size"])
def test_both_readings_of_a_text_share_a_pass_however_small_it_is_to_be(
    bound: str, tiny_base: Path, tiny_csv: Path
) -> None:
    assert textclf.finetune(tiny_base, tiny_csv, r_drop=4, **FAST, **{bound: 1}).state == "done"


def test_a_run_ends_as_it_began_though_other_steps_would_be_chosen_now(
    tiny_base: Path, tiny_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"batch_size": 16, "precision": "fp32", "eval_every": 2}
    with monkeypatch.context() as before:
        before.setattr(plan_module, "STEPS_WANTED", (40, 40))
        before.setattr(plan_module, "R_DROP", 2.0)
        before.setattr(plan_module, "STEPS_FOR_R_DROP", 1)
        before.setattr(Device, "pass_tokens", 70)
        straight = textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "straight", **settings)
        with pytest.raises(InterruptedRun):
            finetune_until(tiny_base, tiny_csv, tmp_path / "stopped", step=30, **settings)
    with monkeypatch.context() as later:
        later.setattr(plan_module, "STEPS_WANTED", (10, 10))
        resumed = textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "stopped", **settings)
    assert straight.config["train"]["r_drop"] == 2.0
    assert resumed.config["train"] == straight.config["train"] and resumed.document["step"] == straight.document["step"]
    assert same_weights(straight, resumed)


def test_answers_depend_less_on_what_is_dropped(tiny_base: Path, tiny_csv: Path) -> None:
    settings = {"epochs": 12, "batch_size": 8, "learning_rate": 2e-3, "precision": "fp32", "probe": False}
    texts = [text for text, _ in tiny_models.rows(200)]

    def agreement(run: Run) -> float:
        """Share of texts that two passes with dropout give one label."""
        classifier = Classifier.from_artifact(folder.read(run.model_folder)).train()
        for module in classifier.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.3  # more than it learnt with, as it learns these texts by heart
        batch = AutoTokenizer.from_pretrained(run.model_folder)(texts, padding=True, return_tensors="pt")
        torch.manual_seed(0)
        with torch.no_grad():
            answers = [classifier.logits(batch["input_ids"], batch["attention_mask"]).argmax(dim=1) for _ in range(8)]
        return float(torch.stack([one == answers[0] for one in answers[1:]]).float().mean())

    plain, consistent = (textclf.finetune(tiny_base, tiny_csv, r_drop=r, **settings) for r in (0, 4))
    assert agreement(consistent) > agreement(plain)


def test_a_resumed_run_ends_with_the_same_bits(tiny_base: Path, tiny_csv: Path, tmp_path: Path) -> None:
    settings = {**FAST, "r_drop": 4}
    straight = textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "straight", **settings)
    _, resumed = stop_and_resume(tiny_base, tiny_csv, tmp_path / "stopped", stop_at=4, **settings)
    assert same_weights(straight, resumed)


PLAN: dict[str, Any] = {
    "rows": 1000, "tokens": 14_000, "width": 384, "pass_tokens": 4096, "probed": True, "has_dropout": True
}  # fmt: skip


@pytest.mark.parametrize(
    ("labels", "change", "weight"),
    [
        (3, {}, 4.0), (37, {}, 4.0), (38, {}, 0.0), (3, {"probed": False}, 0.0), (3, {"has_dropout": False}, 0.0),
        (3, {"tokens": 64_000}, 4.0), (3, {"tokens": 64_001}, 0.0), (3, {"tokens": 64_001, "pass_tokens": 16_384}, 0.0),
        (3, {"questions": True}, 0.0),
        (3, {"rows": 426, "tokens": 6_000}, 4.0), (3, {"rows": 400, "tokens": 6_000}, 0.0),
    ],
)  # fmt: skip
def test_it_is_for_few_labels_and_short_texts(labels: int, change: dict[str, Any], weight: float) -> None:
    label_set = LabelSet(tuple(f"label {number}" for number in range(labels)))
    plan = make_plan(TrainConfig(), label_set, **{**PLAN, **change})
    assert plan.config.r_drop == weight
    assert any("R-Drop" in reason for reason in plan.reasons) == bool(weight)
    assert make_plan(TrainConfig(r_drop=0.5), label_set, **{**PLAN, **change}).config.r_drop == 0.5
    several = LabelSet(("a", "b"), "multi")
    assert make_plan(TrainConfig(), several, **{**PLAN, **change}).config.r_drop == 0
    # One text a pass is asked for, and with no step nothing is read.
    for config in (TrainConfig(micro_batch_size=1), TrainConfig(epochs=0), TrainConfig(max_minutes=9)):
        assert make_plan(config, label_set, **{**PLAN, **change}).config.r_drop == 0


def test_a_run_says_and_keeps_what_was_chosen(tiny_base: Path, tiny_csv: Path, tmp_path: Path) -> None:
    said: list[str] = []
    settings = {"epochs": 3, "batch_size": 1}
    run = textclf.finetune(tiny_base, tiny_csv, on_event=lambda event: said.append(str(event)), **settings)
    assert run.config["train"]["r_drop"] == 4.0
    assert any("R-Drop" in line for line in said)
    still = tiny_models.pretrained(tmp_path / "still")
    config = json.loads((still / "config.json").read_text())
    config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    (still / "config.json").write_text(json.dumps(config))
    assert textclf.finetune(still, tiny_csv, **settings).config["train"]["r_drop"] == 0
    assert np.isfinite(run.metrics["validation"]["loss"])
