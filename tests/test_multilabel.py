"""Texts with any number of labels, from raw rows to answers; rare labels gathered, frequent ones capped."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference
from sklearn.linear_model import LogisticRegression
from torch.nn import functional as F

import textclf
import tiny_models
from textclf.data import cleaning
from textclf.data.preparation import prepare
from textclf.data.prepared import Prepared
from textclf.data.rows import make_rows
from textclf.errors import ConfigError, DataError, ModelError, UsageError
from textclf.inference.prediction import load
from textclf.labels import LabelSet
from textclf.metrics import label_errors, measure, measure_labels
from textclf.model.losses import balanced_weights, make_loss
from textclf.training.probe import Regression
from textclf.training.thresholds import fit_thresholds

NAMES = ("a", "b", "c")
ABC = LabelSet(NAMES, "multi")


def tickets(count: int) -> list[tuple[str, list[str]]]:
    """Texts with the words of none, one or two labels."""
    made = []
    for number in range(count):
        labels = [[], ["a"], ["b"], ["c"], ["a", "b"], ["b", "c"]][number % 6]
        words = [word for label in labels for word in tiny_models.WORDS[label].split()[number % 2 : number % 2 + 3]]
        made.append((" ".join(["please", *words, str(number)]), labels))
    return made


def jsonl(path: Path, rows: list[tuple[str, Any]], label: str = "labels") -> Path:
    path.write_text("".join(json.dumps({"text": text, label: labels}) + "\n" for text, labels in rows))
    return path


def write_csv(path: Path, header: list[str], rows: list[list[str]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


# --- reading ----------------------------------------------------------------------------------------------------


@given(st.lists(st.frozensets(st.sampled_from(["late", "bad, very", "Ünlü", "3"])), min_size=30, max_size=40))
@settings(max_examples=10, deadline=None)
def test_all_ways_to_write_several_labels_read_alike(
    tmp_path_factory: pytest.TempPathFactory, sets: list[frozenset[str]]
) -> None:
    folder, names = tmp_path_factory.mktemp("data"), ["late", "bad, very", "Ünlü", "3"]
    rows = [("all", sorted(names)), ("all again", sorted(names))]
    rows += [(f"text {number}", sorted(labels)) for number, labels in enumerate(sets)]
    parquet = folder / "t.parquet"
    features = {"labels": {"feature": {"names": names, "_type": "ClassLabel"}, "_type": "Sequence"}}
    ids = [[names.index(name) for name in labels] for _, labels in rows]
    table = pa.table({"text": [text for text, _ in rows], "labels": pa.array(ids, pa.list_(pa.int64()))})
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(metadata), parquet)
    columns = [name.split(",")[0] for name in names]
    zero_one = write_csv(
        folder / "c.csv", ["text", *columns], [[t, *(str(int(name in ls)) for name in names)] for t, ls in rows]
    )
    prepared = [
        prepare(jsonl(folder / "t.jsonl", rows)),
        prepare(parquet),
        prepare(write_csv(folder / "t.csv", ["text", "label"], [[t, " | ".join(ls)] for t, ls in rows]),
                label_delimiter="|"),
        prepare(zero_one, label_columns=tuple(columns)),
    ]  # fmt: skip
    read = [
        {
            split: [(text, sorted(name.split(",")[0] for name in labels or ())) for text, labels in
                    zip(one.rows(split).texts, one.rows(split).labels, strict=True)]
            for split in one.splits
        }
        for one in prepared
    ]  # fmt: skip
    assert read[0] == read[1] == read[2] == read[3]
    assert sum(len(part) for part in read[0].values()) == len(rows), "a row without labels is a row"
    assert [one.label_set.kind for one in prepared] == ["multi"] * 4
    assert prepared[1].label_set.names == tuple(names), "the order that the source declares"
    assert prepared[3].label_set.names == tuple(columns)
    again = prepare(parquet)
    assert again.from_cache and again.label_set == prepared[1].label_set


def test_lists_of_class_labels_that_datasets_saved_have_their_names(tmp_path: Path) -> None:
    import datasets

    inner = datasets.ClassLabel(names=["zebra", "ant", "bee"])
    features = datasets.Features({"text": datasets.Value("string"), "labels": datasets.List(inner)})
    made = {"text": [f"t{n}" for n in range(30)], "labels": [[0, 2], [1], []] * 10}
    datasets.Dataset.from_dict(made, features=features).save_to_disk(str(tmp_path / "saved"))
    prepared = prepare(tmp_path / "saved")
    assert prepared.label_set == LabelSet(("zebra", "ant", "bee"), "multi")
    assert set(prepared.rows("train").labels) == {("zebra", "bee"), ("ant",), ()}


def test_rows_that_hide_their_labels_are_no_rows_without_labels(tmp_path: Path) -> None:
    rows = [[f"t{n}", str(n % 2), str(n // 2 % 2)] for n in range(40)]
    (tmp_path / "d").mkdir()
    write_csv(tmp_path / "d" / "train.csv", ["text", "x", "y"], rows)
    write_csv(tmp_path / "d" / "test.csv", ["text", "x", "y"], [["u", "1", "0"], ["v", "-1", "-1"], ["w", "0", "0"]])
    prepared = prepare(tmp_path / "d", label_columns=("x", "y"))
    assert prepared.rows("test").labels == [("x",), ()]


@pytest.mark.parametrize(
    "wrong",
    [
        {"label_delimiter": ""},
        {"label_columns": ("a",)},
        {"label_columns": ("a", "a")},
        {"label_columns": ("a", "b"), "label_column": "c"},
        {"label_columns": ("a", "b"), "label_delimiter": "|"},
        {"balance": 0},
        {"balance": "max"},
        {"other_label": " "},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(wrong: dict[str, Any], tiny_csv: Path) -> None:
    with pytest.raises(ConfigError):
        prepare(tiny_csv, **wrong)


@given(st.lists(st.tuples(st.integers(0, 30), st.frozensets(st.sampled_from(NAMES))), min_size=20, max_size=60))
@settings(max_examples=40, deadline=None)
def test_a_cut_keeps_copies_together_and_a_text_of_every_label(rows: list[tuple[int, frozenset[str]]]) -> None:
    whole = make_rows(
        [f"t{number}" for number, _ in rows],
        pa.array([sorted(labels) for _, labels in rows], pa.large_list(pa.large_string())),
        file="t",
    )
    try:
        stays, cut = cleaning.cut(whole, 3, np.random.default_rng(0), split="test")
    except DataError as err:
        assert "too few rows" in err.message
        return
    assert 0 < len(cut) <= 3 and len(stays) + len(cut) == len(whole)
    assert not set(stays.texts) & set(cut.texts)
    assert set(cleaning.label_counts(stays)) == set(cleaning.label_counts(whole))


def _rows(prepared: Prepared) -> dict[str, Any]:
    """The labels of each text, of all splits."""
    parts = [prepared.rows(split) for split in prepared.splits]
    return {text: labels for part in parts for text, labels in zip(part.texts, part.labels, strict=True)}  # type: ignore[misc]


# --- rare and frequent labels -----------------------------------------------------------------------------------


def test_rare_labels_are_gathered_in_every_split(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    many = [[f"{label} {n}", label] for label in ("x", "y") for n in range(20)]
    write_csv(tmp_path / "d" / "train.csv", ["text", "label"], [*many, *([f"r{n}", f"rare{n}"] for n in range(7))])
    write_csv(tmp_path / "d" / "test.csv", ["text", "label"], [["1", "x"], ["2", "rare3"], ["3", "never seen"]])
    prepared = prepare(tmp_path / "d", min_label_count=5, other_label="other")
    assert prepared.label_set.names == ("x", "y", "other")
    assert prepared.rows("test").labels == ["x", "other", "other"]
    assert sum(prepared.label_counts[split]["other"] for split in ("train", "validation")) == 7
    assert prepared.dropped == ()
    assert any("gathered under 'other' 7 of 9 labels" in step for step in prepared.steps)
    with pytest.raises(UsageError, match="--min-label-count"):
        prepare(tmp_path / "d", other_label="other")


def test_of_several_labels_only_the_rare_ones_go(tmp_path: Path) -> None:
    rows = [(f"t{n}", ["x", "y"][: n % 3]) for n in range(60)] + [("u", ["x", "rare"]), ("v", ["rare"])]
    data = jsonl(tmp_path / "t.jsonl", rows)
    dropped = prepare(data, min_label_count=3)
    kept = _rows(dropped)
    assert kept["u"] == ("x",) and "v" not in kept and kept["t0"] == ()
    gathered = prepare(data, min_label_count=3, other_label="other")
    kept = _rows(gathered)
    assert kept["u"] == ("x", "other") and kept["v"] == ("other",) and kept["t0"] == ()


@pytest.mark.parametrize(("balance", "most"), [(5, 5), ("min", 8), (1000, 40)])
def test_balance_caps_labels_of_train_only(tmp_path: Path, balance: int | str, most: int) -> None:
    rows = [[f"{label} {n}", label] for label, count in (("x", 50), ("y", 10)) for n in range(count)]
    data = write_csv(tmp_path / "t.csv", ["text", "label"], rows)
    plain, capped = prepare(data), prepare(data, balance=balance)
    before, after = Counter(plain.rows("train").labels), Counter(capped.rows("train").labels)
    assert max(after.values()) == min(most, max(before.values())) and after["y"] == min(most, before["y"])
    assert capped.rows("test").texts == plain.rows("test").texts
    assert [text for text in plain.rows("train").texts if text in set(capped.rows("train").texts)] == (
        capped.rows("train").texts
    )


def test_balance_is_not_for_several_labels(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one label a row"):
        prepare(jsonl(tmp_path / "t.jsonl", tickets(60)), balance=5)


# --- deciding, measuring, learning --------------------------------------------------------------------------------


def _answers(seed: int, rows: int = 40) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return (generator.random((rows, 3)) < 0.4).astype(np.uint8), generator.random((rows, 3)).astype(np.float32)


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_metrics_are_scikit_learns(seed: int) -> None:
    targets, probs = _answers(seed)
    decided = (probs >= 0.5).astype(int)
    found = measure(targets, probs, ABC).as_dict()
    for name in ("micro", "macro", "weighted"):
        assert found[f"{name}_f1"] == pytest.approx(reference.f1_score(targets, decided, average=name))
    expected = {
        "samples_f1": reference.f1_score(targets, decided, average="samples", zero_division=1),
        "subset_accuracy": reference.accuracy_score(targets, decided),
        "hamming_loss": reference.hamming_loss(targets, decided),
        "lrap": reference.label_ranking_average_precision_score(targets, probs),
        "ranking_loss": reference.label_ranking_loss(targets, probs),
        "coverage_error": reference.coverage_error(targets, probs),
        "loss": np.mean(
            [reference.log_loss(targets[:, c], probs[:, c].astype(float), labels=[0, 1]) for c in range(3)]
        ),
        "labels_per_text": targets.sum(axis=1).mean(),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-6), name
    errors = {one.label: one for one in label_errors(targets, probs, ABC) or ()}
    for index, one in enumerate(measure_labels(targets, probs, ABC)):
        assert one.support == targets[:, index].sum() and one.predicted == decided[:, index].sum()
        missed = int((targets[:, index] & (1 - decided[:, index])).sum())
        assert (errors[one.label].missed if one.label in errors else 0) == missed


def test_labels_that_no_text_has_are_named_and_left_out_of_macro_means() -> None:
    targets, probs = _answers(1)
    targets[:, 1] = 0
    found, perfect = measure(targets, probs, ABC), measure(targets, targets.astype(np.float32), ABC)
    assert found.absent_labels == ("b",) == perfect.absent_labels
    assert perfect.macro_f1 == perfect.micro_f1 == perfect.samples_f1 == perfect.lrap == 1
    nothing = measure(np.zeros_like(targets), probs * 0, ABC)
    assert nothing.subset_accuracy == nothing.samples_f1 == 1 and nothing.micro_f1 == 0
    assert math.isfinite(nothing.loss)


def test_probabilities_are_sigmoids_without_overflow() -> None:
    probs = ABC.probabilities(np.array([[0.0, 800.0, -800.0]], dtype=np.float32))
    assert probs.tolist() == [[0.5, 1.0, 0.0]]
    assert ABC.given(probs) == [[1, 0]] and ABC.with_threshold(0.6).given(probs) == [[1]]
    assert ABC.given(np.full((1, 3), 0.1)) == [[]]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("balanced", [False, True])
def test_the_loss_is_binary_cross_entropy(smoothing: float, balanced: bool) -> None:
    targets, _ = _answers(2)
    logits = torch.randn(40, 3, generator=torch.Generator().manual_seed(0))
    weights = balanced_weights(ABC, targets) if balanced else None
    found = make_loss(ABC, weights_C=weights, label_smoothing=smoothing)(logits, torch.from_numpy(targets))
    smooth = torch.from_numpy(targets).float() * (1 - smoothing) + smoothing / 2
    positive = torch.from_numpy((1 - targets).sum(0) / targets.sum(0)).float() if balanced else None
    expected = F.binary_cross_entropy_with_logits(logits, smooth, pos_weight=positive)
    assert found.shape == (40,) and float(found.mean()) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("scale", [False, True])
def test_a_probe_is_a_logistic_regression_for_each_label(scale: bool, balanced: bool) -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(300, 6)).astype(np.float32) * (np.logspace(-1, 1, 6, dtype=np.float32) ** scale)
    targets = (features @ generator.normal(size=(6, 3)) + generator.normal(size=(300, 3)) > 1).astype(np.uint8)
    regression = Regression(features, targets, label_set=ABC, bias=True, scale=scale, balanced=balanced)
    chosen = regression.cross_validate(seed=0)
    probe = regression.fit(chosen)
    unit = (features - features.mean(0)) / features.std(0) if scale else features
    for label in range(3):
        weights = {0: 1.0, 1: (1 - targets[:, label]).sum() / targets[:, label].sum()} if balanced else None
        peer = LogisticRegression(C=chosen.c, class_weight=weights, tol=1e-8, max_iter=2000).fit(
            unit, targets[:, label]
        )
        assert features @ probe.weight[label] + probe.bias[label] == pytest.approx(
            peer.decision_function(unit), abs=0.05
        )
    assert 0.3 < chosen.right.mean() <= 1


def test_thresholds_are_fitted_only_where_they_help_on_other_rows() -> None:
    generator = np.random.default_rng(0)
    targets = (generator.random((600, 3)) < 0.3).astype(np.uint8)
    sure = np.where(targets, 0.8, 0.1).astype(np.float32)
    chosen, said = fit_thresholds(targets, sure, ABC, metric="micro_f1", seed=0)
    assert chosen.thresholds == (0.5, 0.5, 0.5) and said.startswith("thresholds: 0.5 for every label")
    shy, said = fit_thresholds(targets, sure / 2, ABC, metric="micro_f1", seed=0)
    assert shy.thresholds is not None and len(set(shy.thresholds)) == 1 and 0.05 < shy.thresholds[0] <= 0.4
    assert "one for all labels" in said
    uneven = sure * np.array([1, 0.5, 0.08], dtype=np.float32) + np.array([0.1, 0, 0], dtype=np.float32)
    own, said = fit_thresholds(targets, uneven, ABC, metric="micro_f1", seed=0)
    assert own.thresholds is not None and own.thresholds[0] > 0.2 and own.thresholds[1] <= 0.4
    assert measure(targets, uneven, own).micro_f1 == 1 and "one for each label" in said
    noise = generator.random((40, 3)).astype(np.float32)
    drawn, _ = fit_thresholds(targets[:40], np.where(targets[:40], 0.6, noise * 0.4), ABC, metric="lrap", seed=0)
    assert drawn.thresholds == (0.5, 0.5, 0.5), "no threshold changes a ranking"


# --- from rows to answers -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on tickets with several labels each; not to be written to."""
    folder = tmp_path_factory.mktemp("multilabel")
    data = jsonl(folder / "tickets.jsonl", tickets(240))
    base = tiny_models.pretrained(folder / "tiny-bert")
    run = textclf.finetune(base, data, out=folder / "run", epochs=12, batch_size=8, learning_rate=2e-3)
    assert run.metrics["test"]["micro_f1"] > 0.8, run.metrics["test"]
    return Path(run.folder)


TEXTS = [*(text for text, _ in tickets(30)), "", "x " * 200]


def test_plain_transformers_gives_the_same_scores(trained: Path) -> None:
    from transformers import pipeline

    config = json.loads((trained / "model" / "config.json").read_text())
    assert config["problem_type"] == "multi_label_classification"
    theirs = pipeline("text-classification", model=str(trained / "model"), device="cpu", truncation=True)
    for settings_ in ({"function_to_apply": "sigmoid"}, {}):
        answers = theirs(TEXTS, top_k=None, **settings_)
        expected = [[{one["label"]: one["score"] for one in answer}[name] for name in "abc"] for answer in answers]
        for runtime in ("onnx", "torch"):
            predictor = load(trained, runtime=runtime)
            assert np.allclose(predictor.predict_proba(TEXTS), expected, atol=1e-5)


def test_the_library_gives_a_list_of_names_for_each_text(trained: Path) -> None:
    predictor = load(trained)
    answers = predictor.predict(TEXTS)
    assert sum(set(found) == set(labels) for found, (_, labels) in zip(answers, tickets(30), strict=False)) > 20
    assert {len(found) for found in answers} >= {0, 1, 2}
    probs = predictor.predict_proba(TEXTS)
    facts = json.loads((trained / "model" / "textclf.json").read_text())
    assert len(facts["thresholds"]) == 3
    for labels, row in zip(answers, probs, strict=True):
        assert set(labels) == {n for n, p, t in zip("abc", row, facts["thresholds"], strict=True) if p >= t}
        assert labels == sorted(labels, key=lambda name: -row["abc".index(name)])
    every = list(predictor.predictions(TEXTS, threshold=0.0))
    assert all(len(one.labels) == 3 for one in every)
    best = list(predictor.predictions(TEXTS, top_k=2))
    assert all(len(one.scores) == 2 for one in best) and [list(one.labels) for one in best] == answers


def test_every_format_holds_any_number_of_labels(trained: Path, cli: Any) -> None:
    answers = load(trained).predict(TEXTS)
    several = next(text for text, labels in zip(TEXTS, answers, strict=True) if len(labels) == 2)
    none = next(text for text, labels in zip(TEXTS, answers, strict=True) if text and not labels)
    asked = f"{several}\n{none}\n"

    def said(*flags: str) -> str:
        done = cli("predict", trained, *flags, input=asked)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    objects = [json.loads(line) for line in said("--format", "jsonl").splitlines()]
    assert len(objects[0]["labels"]) == 2 and list(objects[0]["scores"]) == objects[0]["labels"]
    assert objects[1] == {"text": none, "labels": [], "scores": {}}
    names = "|".join(objects[0]["labels"])
    first, second = (line.split("\t") for line in said().splitlines())
    assert first[0] == names and [float(p) for p in first[1].split("|")] == pytest.approx(
        list(objects[0]["scores"].values()), abs=1e-4
    )
    assert second == ["", "", none]
    table = list(csv.DictReader(io.StringIO(said("--format", "csv"))))
    assert [row["labels"] for row in table] == [names, ""] and table[1]["text"] == none
    ranked = [json.loads(line) for line in said("--format", "jsonl", "--top-k", "3").splitlines()]
    assert [row["labels"] for row in ranked] == [row["labels"] for row in objects]
    assert all(len(row["scores"]) == 3 for row in ranked)
    every = [json.loads(line) for line in said("--format", "jsonl", "--threshold", "0").splitlines()]
    assert [sorted(row["labels"]) for row in every] == [["a", "b", "c"]] * 2
    shown = said("--format", "table").splitlines()
    assert len(shown) == 4 and shown[3].startswith("-") and none in shown[3]


def test_eval_json_is_as_documented(trained: Path, cli: Any) -> None:
    done = cli("eval", trained, "--json", "--fail-under", "micro_f1=0.8", "--fail-under", "hamming_loss=0.3")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert list(report) == [
        "model", "dataset", "split", "metrics", "intervals", "baselines",
        "per_label", "label_errors", "reliability", "coverage",
        "abstention", "scope", "questions", "slices", "wrong", "mistakes",
        "truncated", "overflow", "seconds",
    ]  # fmt: skip
    assert list(report["metrics"]) == [
        "rows", "labels_per_text", "predicted_per_text", "loss", "micro_f1", "macro_f1", "samples_f1", "weighted_f1",
        "micro_precision", "micro_recall", "macro_precision", "macro_recall", "subset_accuracy", "hamming_loss", "lrap",
        "ranking_loss", "coverage_error", "ece", "brier", "absent_labels",
    ]  # fmt: skip
    assert [set(one) for one in report["per_label"]] == [
        {"label", "precision", "recall", "f1", "support", "predicted"}
    ] * 3
    document = json.loads((trained / "run.json").read_text())
    for name, value in document["metrics"]["test"].items():
        assert report["metrics"][name] == (pytest.approx(value, abs=1e-3) if isinstance(value, float) else value)


def test_eval_says_what_is_missed_and_what_does_not_fit(trained: Path, cli: Any, tmp_path: Path) -> None:
    wrong = jsonl(
        tmp_path / "wrong.jsonl",
        [(text, [name for name in NAMES if name not in labels]) for text, labels in tickets(30)],
    )
    done = cli("eval", trained, "--dataset", wrong, "--fail-under", "micro_f1=0.8")
    assert done.returncode == 10 and "micro_f1 is 0." in done.stderr
    assert "most missed labels" in done.stdout and "most wrongly added labels" in done.stdout
    assert "confusions" not in done.stdout
    gate = cli("eval", trained, "--dataset", wrong, "--fail-under", "accuracy=0.5")
    assert gate.returncode == 2 and "not measured by it" in gate.stderr
    unknown = jsonl(tmp_path / "unknown.jsonl", [("x", ["b"]), ("y", ["a", "zebra"])])
    done = cli("eval", trained, "--dataset", unknown)
    assert done.returncode == 3 and "unknown.jsonl, row 2: label 'zebra'" in done.stderr
    single = write_csv(tmp_path / "single.csv", ["text", "label"], [["x", "a|b"], ["y", ""]])
    done = cli("eval", trained, "--dataset", single)
    assert done.returncode == 3 and "--label-delimiter" in done.stderr
    assert cli("eval", trained, "--dataset", single, "--label-delimiter", "|").returncode == 0
    columns = write_csv(tmp_path / "columns.csv", ["text", "a", "b"], [["x", "1", "0"], ["y", "0", "0"]])
    assert cli("eval", trained, "--dataset", columns, "--label-columns", "a,b").returncode == 0


def test_the_card_says_how_to_use_several_labels(trained: Path) -> None:
    card = (trained / "model" / "README.md").read_text()
    assert "which of 3 labels fit it: none, one or several" in card
    assert 'top_k=None, function_to_apply="sigmoid"' in card and "reaches a threshold" in card
    assert "still gets one" not in card and "micro F1" in card and "accuracy_loss" not in card


def test_prepare_says_how_many_labels_a_row_has(tmp_path: Path, cli: Any) -> None:
    data = jsonl(tmp_path / "t.jsonl", tickets(120))
    done = cli("prepare", "--dataset", data, "--json")
    document = json.loads(done.stdout)
    assert document["kind"] == "multi"
    total = sum(one["none"] for one in document["labels_per_row"].values())
    assert total == 20 and document["labels_per_row"]["train"]["max"] == 2
    shown = cli("prepare", "--dataset", data)
    assert "labels a row in train: 1." in shown.stdout and "without any" in shown.stdout


def test_a_metric_of_the_other_kind_is_refused(tmp_path: Path, tiny_base: Path, tiny_csv: Path) -> None:
    with pytest.raises(UsageError, match=r"train\.metric is micro_f1"):
        textclf.finetune(tiny_base, tiny_csv, metric="micro_f1")
    with pytest.raises(UsageError, match=r"train\.metric is accuracy"):
        textclf.finetune(tiny_base, jsonl(tmp_path / "t.jsonl", tickets(60)), metric="accuracy")


@pytest.mark.parametrize(
    "wrong", [[0.5], 0.5, ["x", 0.5, 0.5], [None] * 3, {"a": 0.5}, [2, 0.5, 0.5], [float("nan")] * 3]
)
def test_thresholds_that_do_not_fit_are_a_broken_model(trained: Path, tmp_path: Path, wrong: Any) -> None:
    copied = shutil.copytree(trained / "model", tmp_path / "model")
    path = copied / "textclf.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "thresholds": wrong}))
    with pytest.raises(ModelError, match="thresholds"):
        load(copied)


def test_int8_is_judged_by_whole_answers(trained: Path, tmp_path: Path) -> None:
    from textclf.evaluation.exporting import export

    copied = shutil.copytree(trained / "model", tmp_path / "model")
    data = jsonl(tmp_path / "validation.jsonl", tickets(60))
    facts = export(copied, int8=True, dataset=data, force=True).graphs["int8"]
    exact, rough = load(copied, runtime="onnx"), load(copied, runtime="int8")
    texts = [text for text, _ in tickets(60)]
    same = [a == b for a, b in zip(map(set, exact.predict(texts)), map(set, rough.predict(texts)), strict=True)]
    assert facts["agreement"] == pytest.approx(np.mean(same)) and set(facts["micro_f1"]) == {"fp32", "int8"}
