"""Who learns at which rate, who decays, and how the rate goes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tiny_models
from textclf.config import TrainConfig
from textclf.labels import LabelSet
from textclf.model.classifier import Classifier
from textclf.model.tokenizer import load_tokenizer
from textclf.training.optim import make_optimizer, rate_factor, set_rate
from textclf.training.plan import default_learning_rate, make_plan


@pytest.mark.parametrize("architecture", ["bert", "distilbert", "modernbert", "gpt2", "llama"])
def test_decay_spares_biases_and_norms_and_the_head_has_its_own_rate(architecture: str, tmp_path: Path) -> None:
    base = tiny_models.pretrained(tmp_path / architecture, architecture)
    classifier = Classifier.from_pretrained(base, LabelSet(("a", "b", "c")), load_tokenizer(base))
    config = TrainConfig(learning_rate=1e-4, head_learning_rate=1e-3, weight_decay=0.1)
    optimizer = make_optimizer(classifier, config)
    set_rate(optimizer, 0.5)
    place = {parameter: group for group in optimizer.param_groups for parameter in group["params"]}
    assert len(place) == len(list(classifier.parameters()))
    for name, parameter in classifier.named_parameters():
        group = place[parameter]
        spared = name.endswith("bias") or "norm" in name.lower() or "ln_" in name
        spared |= any(table in name for table in ("_embeddings.", "tok_emb", "embed_tokens", ".wte.", ".wpe."))
        assert group["weight_decay"] == (0.0 if spared else 0.1), name
        in_head = name.split(".")[1] in ("classifier", "pre_classifier", "score", "head")
        assert group["lr"] == pytest.approx(5e-4 if in_head else 5e-5), name


@given(st.floats(0, 0.9), st.sampled_from(["linear", "cosine", "constant"]))
def test_the_rate_rises_once_and_never_after(warmup: float, schedule: str) -> None:
    factors = [rate_factor(step / 100, warmup=warmup, schedule=schedule) for step in range(101)]
    assert all(0 <= factor <= 1 for factor in factors)
    peak = factors.index(max(factors))
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)
    assert factors[-1] == (1 if schedule == "constant" else pytest.approx(0, abs=1e-9))


LABELS = LabelSet(("a", "b"))


@given(st.integers(1, 100_000), st.integers(1, 256), st.integers(8, 16_384), st.booleans())
def test_a_plan_leaves_nothing_open(rows: int, batch_size: int, width: int, probed: bool) -> None:
    plan = make_plan(
        TrainConfig(batch_size=batch_size), LABELS, rows=rows, width=width, pass_tokens=4096, probed=probed
    )
    resolved = plan.config
    assert resolved.epochs is not None and 3 <= resolved.epochs <= 15
    assert plan.steps == resolved.epochs * plan.steps_per_epoch
    assert resolved.learning_rate == default_learning_rate(width, probed=probed)
    assert resolved.head_learning_rate is not None and resolved.head_learning_rate >= resolved.learning_rate
    assert len(plan.reasons) == (2 if probed else 3)


def test_what_is_given_is_kept() -> None:
    given_config = TrainConfig(
        epochs=0.5, learning_rate=1e-3, head_learning_rate=1e-5, eval_every=7, metric="mcc", label_smoothing=0
    )
    plan = make_plan(given_config, LABELS, rows=1000, width=768, pass_tokens=4096, probed=False)
    assert plan.config == replace(given_config, micro_batch_tokens=4096) and plan.reasons == ()
    assert plan.steps == 16
