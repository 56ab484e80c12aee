"""Who learns at which rate, who decays, and how the rate goes."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

import textclf
import tiny_models
from textclf.config import TrainConfig
from textclf.errors import UsageError
from textclf.labels import LabelSet
from textclf.model.classifier import Classifier
from textclf.model.layers import layers
from textclf.model.tokenizer import load_tokenizer
from textclf.training.optim import make_optimizer, rate_factor, set_rate
from textclf.training.plan import default_learning_rate, make_plan

RATES = TrainConfig(learning_rate=1e-4, head_learning_rate=1e-3)


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


@pytest.mark.parametrize(
    ("labels", "rows", "probed", "epochs"),
    [
        (2, 2862, True, 3), (10, 2400, True, 4), (77, 2700, True, 7), (50, 2700, True, 5), (2, 2862, False, 11),
        (2, 200, True, 15), (77, 9003, True, 3),
    ],
)  # fmt: skip
def test_epochs_follow_from_rows_and_labels(labels: int, rows: int, probed: bool, epochs: int) -> None:
    label_set = LabelSet(tuple(f"label {number}" for number in range(labels)))
    plan = make_plan(TrainConfig(), label_set, rows=rows, width=384, pass_tokens=4096, probed=probed)
    assert plan.config.epochs == epochs


def test_texts_with_several_labels_are_read_as_often_however_few_labels_there_are() -> None:
    several = LabelSet(("a", "b"), "multi")
    plan = make_plan(TrainConfig(), several, rows=2862, width=384, pass_tokens=4096, probed=True)
    assert plan.config.epochs == 7


def test_what_is_given_is_kept() -> None:
    given_config = TrainConfig(
        epochs=0.5, learning_rate=1e-3, head_learning_rate=1e-5, eval_every=7, metric="mcc", label_smoothing=0,
        r_drop=0.5,
    )  # fmt: skip
    plan = make_plan(given_config, LABELS, rows=1000, width=768, pass_tokens=4096, probed=False)
    assert plan.config == replace(given_config, micro_batch_tokens=4096) and plan.reasons == ()
    assert plan.steps == 16


LAYERED = [
    "bert",
    "distilbert",
    "roberta",
    "albert",
    "deberta-v2",
    "modernbert",
    "gpt2",
    "llama",
    "funnel",
    "t5",
    "mamba",
]
LAYERS = {"albert": 1, "t5": 4}
"""Layers of the tiny models that do not have two."""


@pytest.mark.parametrize("architecture", LAYERED)
def test_rates_fall_from_layer_to_layer(architecture: str, tmp_path: Path) -> None:
    base = tiny_models.pretrained(tmp_path / architecture, architecture)
    classifier = Classifier.from_pretrained(base, LabelSet(("a", "b", "c")), load_tokenizer(base))
    config = TrainConfig(learning_rate=1e-4, head_learning_rate=1e-3, layer_decay=0.5)
    optimizer = make_optimizer(classifier, config)
    assert set_rate(optimizer, 1.0) == pytest.approx(1e-4)
    rate = {parameter: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    stack = layers(classifier.network)
    assert len(stack) == LAYERS.get(architecture, 2)
    for below, layer in enumerate(reversed(stack)):
        assert all(rate[parameter] == pytest.approx(1e-4 * 0.5**below) for parameter in layer.parameters())
    embeddings = classifier.network.get_input_embeddings()
    assert rate[embeddings.weight] == pytest.approx(1e-4 * 0.5 ** len(stack))
    assert rate[classifier.output_layer.weight] == pytest.approx(1e-3)
    assert len(rate) == len(list(classifier.parameters()))


@pytest.mark.parametrize("architecture", LAYERED)
def test_what_is_frozen_gets_no_gradient(architecture: str, tmp_path: Path) -> None:
    base = tiny_models.pretrained(tmp_path / architecture, architecture)
    classifier = Classifier.from_pretrained(base, LabelSet(("a", "b", "c")), load_tokenizer(base))
    stack = layers(classifier.network)
    frozen = classifier.freeze("embeddings")
    assert not classifier.network.get_input_embeddings().weight.requires_grad
    assert all(parameter.requires_grad for parameter in stack[0].parameters())
    assert classifier.freeze(1) == frozen + sum(parameter.numel() for parameter in stack[0].parameters())
    learning = {parameter for group in make_optimizer(classifier, RATES).param_groups for parameter in group["params"]}
    assert learning == {parameter for parameter in classifier.parameters() if parameter.requires_grad}
    assert set(classifier.output_layer.parameters()) <= learning
    classifier.freeze(len(stack))
    with pytest.raises(UsageError, match=f"model has {len(stack)} layers"):
        classifier.freeze(len(stack) + 1)


@pytest.mark.parametrize("head", ["own", "mean"])
@pytest.mark.usefixtures("no_graph")
def test_frozen_weights_are_bit_for_bit_the_same_after_training(head: str, tiny_base: Path, tiny_csv: Path) -> None:
    settings = {"epochs": 1, "batch_size": 16, "precision": "fp32", "probe": False}
    run = textclf.finetune(tiny_base, tiny_csv, head=head, freeze="1", layer_decay=0.9, **settings)
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_base, run.model_folder))
    prefix = {"own": "bert.", "mean": "backbone."}[head]
    same = {name for name, tensor in before.items() if torch.equal(tensor, after.get(prefix + name, torch.zeros(1)))}
    expected = {name for name in before if name.startswith("embeddings.") or ".layer.0." in name}
    assert same == expected


def test_more_frozen_layers_than_there_are_is_said(
    cli: Callable[..., subprocess.CompletedProcess[str]], tiny_base: Path, tiny_csv: Path
) -> None:
    for value, said in (("9", "has 2 layers"), ("some", "a whole number, or one of embeddings"), ("0", "at least 1")):
        done = cli("finetune", "--model", tiny_base, "--dataset", tiny_csv, "--freeze", value)
        assert done.returncode == 2 and said in done.stderr, done.stderr
    done = cli("finetune", "--model", tiny_base, "--dataset", tiny_csv, "--layer-decay", "1.5")
    assert done.returncode == 2 and "layer_decay is 1.5" in done.stderr
