"""The linear probe and the mean-pooled head: where training starts, and what it never falls below."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression

import plain_transformers
import textclf
import tiny_models
from resuming import same_weights, stop_and_resume
from textclf.errors import DataError, ModelError, UsageError
from textclf.evaluation.exporting import export
from textclf.labels import LabelSet
from textclf.model.backbone import pretrained_pooling
from textclf.training.events import Evaluated, Event, Notice
from textclf.training.probe import (
    CrossValidation,
    LinearProbe,
    Regression,
    clearly_better,
    rows_to_learn_from,
)

FAST: dict[str, Any] = {"epochs": 3, "batch_size": 16, "precision": "fp32"}

pytestmark = pytest.mark.usefixtures("no_graph")


def pooling_base(folder: Path, architecture: str = "bert") -> Path:
    """A tiny model that says, as sentence-transformers do, that it was pretrained with mean pooling."""
    base = tiny_models.pretrained(folder, architecture)
    (base / "1_Pooling").mkdir()
    modes = {"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}
    (base / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": 32, **modes}))
    return base


def blobs(labels: int, *, rows: int = 300, width: int = 8) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    targets = generator.integers(0, labels, rows)
    centres = generator.normal(size=(labels, width))
    return (centres[targets] + generator.normal(scale=0.7, size=(rows, width))).astype(np.float32), targets


def of(labels: int) -> LabelSet:
    return LabelSet(tuple(map(str, range(labels))))


def probed(features: np.ndarray, targets: np.ndarray, **how: Any) -> tuple[LinearProbe, CrossValidation]:
    regression = Regression(features, targets, **how)
    chosen = regression.cross_validate(seed=0)
    return regression.fit(chosen), chosen


@pytest.mark.parametrize("labels", [2, 5])
@pytest.mark.parametrize("scale", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_probe_labels_as_logistic_regression_does(labels: int, scale: bool, bias: bool) -> None:
    features, targets = blobs(labels)
    if scale:
        features = features * np.logspace(-2, 2, 8, dtype=np.float32) + (3 if bias else 0)
    probe, chosen = probed(features, targets, label_set=of(labels + 1), bias=bias, scale=scale, balanced=False)
    logits = features @ probe.weight.T + probe.bias
    unit = (features - (features.mean(0) if bias else 0)) / features.std(0) if scale else features
    peer = LogisticRegression(C=chosen.c, fit_intercept=bias, max_iter=1000).fit(unit, targets)
    assert (logits[:, :labels].argmax(axis=1) == peer.predict(unit)).mean() > 0.98
    assert probe.weight.shape == (labels + 1, 8) and (bias or not probe.bias.any())
    assert (logits.argmax(axis=1) == targets).mean() > 0.8, "the label that no row had is chosen"


def test_two_rows_of_each_label_are_enough_for_a_probe() -> None:
    features, _ = blobs(4, rows=8)
    probe, chosen = probed(features, np.arange(8) % 4, label_set=of(4), bias=True, scale=True, balanced=False)
    assert np.isfinite(probe.weight).all() and chosen.right.shape == (8,)


def test_balanced_probes_hear_the_rare_label() -> None:
    features, targets = blobs(2, rows=400)
    kept = (targets == 0) | (np.arange(400) % 20 == 0)
    features, targets = features[kept] * 0.5, targets[kept]
    plain, balanced = (
        probed(features, targets, label_set=of(2), bias=True, scale=False, balanced=balanced)[0]
        for balanced in (False, True)
    )
    chosen = [((features @ p.weight.T + p.bias).argmax(axis=1) == 1).sum() for p in (plain, balanced)]
    assert chosen[1] > chosen[0]


@pytest.mark.parametrize("bias", [True, False])
def test_a_feature_that_is_the_same_for_all_texts_has_no_weight(bias: bool) -> None:
    generator = np.random.default_rng(0)
    targets = np.arange(60) % 2
    features = generator.normal(size=(60, 5)).astype(np.float32)
    features[:, 0] += targets * 3
    features[:, 2] = 1.25 + generator.choice([0, 2e-7], size=60)  # LayerNorm with a dead scale: rounding is left
    features[:, 3] *= 1e-32
    features[:, 4] = 0.5
    probe, chosen = probed(features, targets, label_set=of(2), bias=bias, scale=True, balanced=False)
    assert not probe.weight[:, 2:4].any()
    assert np.abs(probe.weight).max() < 100
    assert chosen.right.mean() > 0.7


@pytest.mark.parametrize("multi", [False, True])
def test_the_fit_to_all_texts_is_the_same_wherever_it_begins(multi: bool) -> None:
    features, targets = blobs(4)
    label_set = LabelSet(("a", "b", "c", "d"), "multi" if multi else "single")
    how: dict[str, Any] = {"label_set": label_set, "bias": True, "scale": False, "balanced": False}
    seen = np.eye(4, dtype=bool)[targets] if multi else targets
    regression = Regression(features, seen, **how)
    chosen, elsewhere = (regression.cross_validate(seed=seed) for seed in (0, 1))
    probe = regression.fit(chosen)
    nowhere = np.zeros_like(chosen.near) if multi else None
    for near in (elsewhere.near, nowhere):
        other = regression.fit(replace(chosen, near=near))
        assert np.allclose(other.weight, probe.weight, atol=0.01 * np.abs(probe.weight).max())


@pytest.mark.filterwarnings("ignore:The least populated class")
@pytest.mark.parametrize("row", range(8))  # of each fold one at least
def test_a_label_that_a_fold_lacked_is_learnt_all_the_same(row: int) -> None:
    features, targets = blobs(3)
    targets = np.where(targets == 2, 0, targets)
    targets[row], features[row] = 2, 9
    probe, _ = probed(features, targets, label_set=of(3), bias=True, scale=False, balanced=False)
    assert (features @ probe.weight.T + probe.bias)[row].argmax() == 2


def test_clearly_better_means_more_than_chance() -> None:
    features, targets = blobs(4)
    how: dict[str, Any] = {"label_set": of(4), "bias": True, "scale": False, "balanced": False}
    good, poor = (probed(seen, targets, **how)[1] for seen in (features, features[:, :1]))
    assert clearly_better(good, poor) and not clearly_better(poor, good) and not clearly_better(good, good)


def test_labels_without_enough_rows_are_not_probed() -> None:
    every = {"width": 32, "seed": 0}
    assert rows_to_learn_from(np.arange(50), of(50), **every) is None
    assert rows_to_learn_from(np.zeros(50, dtype=int), of(2), **every) is None
    taken = rows_to_learn_from(np.arange(100_000) % 10, of(10), **every)
    assert taken is not None and 1000 < len(taken) < 100_000 and (np.diff(taken) > 0).all()


def test_the_result_is_never_below_the_probe(tiny_base: Path, tiny_csv: Path) -> None:
    seen: list[Event] = []
    # A rate that ruins the backbone: what the probe knew must survive.
    run = textclf.finetune(tiny_base, tiny_csv, learning_rate=0.5, on_event=seen.append, **FAST)
    first, *others = [event.metrics.accuracy for event in seen if isinstance(event, Evaluated)]
    assert max(others) < first
    assert run.document["best_step"] == 0 and run.metrics["validation"]["accuracy"] == pytest.approx(first)
    assert any("did not improve" in event.message for event in seen if isinstance(event, Notice))


def test_fast_is_the_probe_alone(cli: Callable[..., Any], tiny_base: Path, tiny_csv: Path, tmp_path: Path) -> None:
    done = cli("finetune", "--model", tiny_base, "--dataset", tiny_csv, "--fast", "--out", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    assert "linear probe on" in done.stderr and "learning rate" not in done.stderr
    base = load_file(tiny_base / "model.safetensors")
    learnt = load_file(tmp_path / "run/model/model.safetensors")
    kept = [name for name, tensor in base.items() if torch.equal(learnt[f"bert.{name}"], tensor)]
    assert len(kept) == len(base)
    assert json.loads(done.stdout)["metrics"]["test"]["accuracy"] > 0.4  # of three labels
    both = cli("finetune", "--model", tiny_base, "--dataset", tiny_csv, "--fast", "--epochs", "2")
    assert both.returncode == 2 and "--fast" in both.stderr
    lora = cli("finetune", "--model", tiny_base, "--dataset", tiny_csv, "--fast", "--lora", "4")
    assert lora.returncode == 2 and "so --lora says nothing" in lora.stderr


def test_fast_needs_enough_texts_for_the_labels(tiny_base: Path, tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    path.write_text("text,label\n" + "".join(f"text number {i},label {i % 40}\n" for i in range(60)))
    with pytest.raises(DataError, match="too few texts"):
        textclf.finetune(tiny_base, path, epochs=0, test_size=0)


MEAN = ("bert", "roberta", "albert", "mpnet", "deberta-v2", "modernbert", "llama", "openelm")
TEXTS = ["where is my card", "a", "I want my money back " * 30]


@pytest.fixture(scope="module")
def mean_heads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By architecture: a model with a mean head, without a graph; not to be written to."""
    folder = tmp_path_factory.mktemp("mean")
    data = folder / "tickets.csv"
    data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in tiny_models.rows(120)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("textclf.model.exporting.MAX_BYTES", 0)
        return {
            name: textclf.finetune(
                tiny_models.pretrained(folder / name, name), data, out=folder / f"{name}-run", head="mean", **FAST
            ).model_folder
            for name in MEAN
        }


def test_mean_heads_open_with_plain_transformers(mean_heads: dict[str, Path], tmp_path: Path) -> None:
    plain = plain_transformers.probabilities(list(mean_heads.values()), TEXTS, hub_cache=tmp_path / "hub")
    for (name, folder), expected in zip(mean_heads.items(), plain, strict=True):
        assert np.allclose(textclf.load(folder).predict_proba(TEXTS), expected, atol=1e-5), name
        assert "trust_remote_code=True" in (folder / "README.md").read_text(), name


@pytest.mark.parametrize("architecture", MEAN)
def test_a_mean_head_is_where_another_run_goes_on(
    architecture: str, mean_heads: dict[str, Path], tiny_csv: Path
) -> None:
    folder = mean_heads[architecture]
    again = textclf.finetune(folder, tiny_csv, **{**FAST, "epochs": 1, "learning_rate": 1e-9})
    assert again.config["model"]["head"] == "mean"
    assert np.allclose(textclf.load(again).predict_proba(TEXTS), textclf.load(folder).predict_proba(TEXTS), atol=1e-3)


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_a_mean_head_has_a_graph(architecture: str, mean_heads: dict[str, Path], tmp_path: Path, graph: None) -> None:
    place = shutil.copytree(mean_heads[architecture], tmp_path / "model")
    export(place)
    by_graph, by_torch = (textclf.load(place, runtime=name).predict_proba(TEXTS) for name in ("onnx", "torch"))
    assert np.allclose(by_graph, by_torch, atol=1e-5)


@pytest.mark.parametrize(
    ("said", "pooling"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "lasttoken"}, "last"),
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": ["mean", "max"]}, None),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": True}, None),
        ({"pooling_mode_weightedmean_tokens": True}, None),
        ({"word_embedding_dimension": 32}, None),
        (["mean"], None),
    ],
)
def test_a_folder_says_how_its_model_was_pretrained_to_pool(said: Any, pooling: str | None, tmp_path: Path) -> None:
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling/config.json").write_text(json.dumps(said))
    assert pretrained_pooling(tmp_path) == pooling


@pytest.mark.parametrize(
    ("architecture", "mode", "head", "notice"),
    [
        # What the first token of a causal model has seen is itself, and its last token is a poor sum of the rest.
        ("gpt2", "mean", "mean", "head: the mean of the hidden states (the model was pretrained with it"),
        ("gpt2", "max", "max", "head: the largest of the hidden states (the model was pretrained with it"),
        ("gpt2", "cls", "own", "is not clearly better); plain transformers loads the model as it is"),
        # Its own head reads the last token already.
        ("gpt2", "lasttoken", "own", "head: the architecture's own; plain transformers loads the model as it is"),
        ("gpt2", None, "own", "head: the architecture's own; plain transformers loads the model as it is"),
        ("t5", "mean", "own", "head: the architecture's own; plain transformers loads the model as it is"),
        ("funnel", "max", "own", "head: the architecture's own; plain transformers loads the model as it is"),
        ("openelm", None, "own", "head: the architecture's own; plain transformers then needs trust_remote_code=True"),
    ],
)
def test_auto_takes_the_pooling_of_pretraining_where_it_is_clearly_better(
    architecture: str, mode: str | None, head: str, notice: str, tmp_path: Path
) -> None:
    data = tmp_path / "tickets.csv"
    data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in tiny_models.rows(400)))
    base = tiny_models.pretrained(tmp_path / "base", architecture)
    if mode is not None:
        (base / "1_Pooling").mkdir()
        (base / "1_Pooling/config.json").write_text(json.dumps({"pooling_mode": mode}))
    said: list[str] = []
    run = textclf.finetune(
        base, data, epochs=0, on_event=lambda event: said.append(event.message) if isinstance(event, Notice) else None
    )
    assert run.config["model"]["head"] == head
    assert any(notice in line for line in said), said
    probed = next(line for line in said if line.startswith("linear probe"))
    assert "own head" in probed
    assert (f"{mode} head" in probed) == (mode is not None and "the architecture's own;" not in notice)
    brings_code = "auto_map" in json.loads((run.model_folder / "config.json").read_text())
    assert brings_code == ("trust_remote_code" in notice or head != "own")


@pytest.mark.parametrize("architecture", ["t5", "funnel"])
def test_a_pooled_head_is_refused_where_tokens_have_no_states(
    architecture: str, tiny_csv: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="no pooled head fits"):
        textclf.finetune(tiny_models.pretrained(tmp_path / "base", architecture), tiny_csv, head="max", **FAST)


def test_own_keeps_the_architectures_head(tmp_path: Path, tiny_csv: Path) -> None:
    run = textclf.finetune(pooling_base(tmp_path / "base"), tiny_csv, head="own", **FAST)
    assert json.loads((run.model_folder / "config.json").read_text())["model_type"] == "bert"


def test_a_run_with_a_mean_head_resumes_bit_for_bit(tmp_path: Path, tiny_csv: Path) -> None:
    base = pooling_base(tmp_path / "base")
    settings = {**FAST, "head": "mean", "eval_every": 4}
    unbroken = textclf.finetune(base, tiny_csv, out=tmp_path / "unbroken", **settings)
    _, resumed = stop_and_resume(base, tiny_csv, tmp_path / "stopped", stop_at=5, **settings)
    assert same_weights(unbroken, resumed)


def test_fast_has_nothing_to_teach_a_model_of_the_same_labels(tiny_artifact: Path, tiny_csv: Path) -> None:
    with pytest.raises(UsageError, match="knows these labels already"):
        textclf.finetune(tiny_artifact, tiny_csv, epochs=0)
