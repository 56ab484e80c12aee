"""R-Drop: a text twice in a pass, and what both answers differ by in the loss."""

from __future__ import annotations

import json
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
from textclf.errors import InterruptedRun
from textclf.labels import LabelSet
from textclf.model.classifier import Classifier
from textclf.model.losses import make_loss, with_r_drop
from textclf.training import plan as plan_module

pytestmark = pytest.mark.usefixtures("no_graph")

NAMES = ("a", "b", "c")


def test_the_loss_is_that_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 5, 3, generator=generator) * 3
    logits = torch.cat([one, other])
    labels = LabelSet(NAMES)
    targets = torch.tensor([0, 1, 2, 1, 0]).repeat(2)
    p, q = Categorical(logits=one), Categorical(logits=other)
    apart = (kl_divergence(p, q) + kl_divergence(q, p)) / 2
    entropy = make_loss(labels)(logits, targets)
    found = with_r_drop(make_loss(labels), labels, 5.0)(logits, targets)
    # Equation 4, of each text; ours is the mean over both of its passes, which is half of that.
    assert torch.allclose(found[:5] + found[5:], entropy[:5] + entropy[5:] + 5.0 * apart, atol=1e-5)


def test_the_loss_of_several_labels_compares_yes_and_no_of_each() -> None:
    generator = torch.Generator().manual_seed(0)
    one, other = torch.randn(2, 5, 3, generator=generator) * 3
    several = LabelSet(NAMES, "multi")
    targets = torch.randint(0, 2, (5, 3), generator=generator).repeat(2, 1)
    p, q = Bernoulli(logits=one), Bernoulli(logits=other)
    apart = ((kl_divergence(p, q) + kl_divergence(q, p)) / 2).mean(dim=1)
    logits = torch.cat([one, other])
    more = with_r_drop(make_loss(several), several, 5.0)(logits, targets) - make_loss(several)(logits, targets)
    assert torch.allclose(more[:5] + more[5:], 5.0 * apart, atol=1e-5)


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
        straight = textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "straight", **settings)
        with pytest.raises(InterruptedRun):
            finetune_until(tiny_base, tiny_csv, tmp_path / "stopped", step=30, **settings)
    with monkeypatch.context() as later:
        later.setattr(plan_module, "STEPS_WANTED", (10, 10))
        resumed = textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "stopped", **settings)
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
