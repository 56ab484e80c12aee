"""Models beside each other: the tests are scipy's, and a verdict says no more than the rows do."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy import stats

import textclf
import tiny_models
from textclf import atomic
from textclf.errors import DataError, UsageError
from textclf.evaluation.comparison import mcnemar

Cli = Callable[..., subprocess.CompletedProcess[str]]
FAST: dict[str, Any] = {"epochs": 3, "learning_rate": 2e-3, "batch_size": 16, "precision": "fp32"}


@pytest.fixture(scope="module")
def models(alone: None, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three runs on the same data: two that differ in their seed only, and one that learnt next to nothing."""
    folder = tmp_path_factory.mktemp("compared")
    data = folder / "tickets.csv"
    data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in tiny_models.rows(300)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("textclf.model.exporting.MAX_BYTES", 0)
        for seed in (0, 1):
            textclf.finetune(tiny_base, data, out=folder / f"good-{seed}", seed=seed, **FAST)
        textclf.finetune(
            tiny_base, data, out=folder / "poor", probe=False, **{**FAST, "learning_rate": 1e-9, "epochs": 1}
        )
    return folder


@given(st.integers(0, 12), st.integers(0, 12), st.integers(0, 30))
@settings(max_examples=80)
def test_few_unlike_answers_are_counted_exactly(first: int, second: int, both: int) -> None:
    first_right = np.repeat([True, False, True], [first, second, both])
    second_right = np.repeat([False, True, True], [first, second, both])
    found = mcnemar(first_right, second_right)
    assert (found.first_only, found.second_only, found.exact) == (first, second, True)
    expected = stats.binomtest(first, first + second).pvalue if first + second else 1.0
    assert found.p == pytest.approx(expected)


@pytest.mark.parametrize(("first", "second", "p"), [(59, 6, 1.1e-10), (40, 20, 0.01416), (30, 28, 0.89551)])
def test_many_are_compared_by_chi_squared(first: int, second: int, p: float) -> None:
    # The p-values of (|b - c| - 1)^2 / (b + c), as R's mcnemar.test and statsmodels give them.
    first_right = np.repeat([True, False], [first, second])
    found = mcnemar(first_right, ~first_right)
    assert not found.exact and found.p == pytest.approx(p, rel=0.02)
    exact = stats.binomtest(first, first + second).pvalue
    assert found.p == pytest.approx(exact, rel=0.5, abs=1e-9)


def test_a_clear_difference_is_named_and_two_seeds_are_one_model(models: Path, cli: Cli) -> None:
    done = cli("compare", models / "poor", models / "good-0", models / "good-1", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert list(found) == ["dataset", "split", "rows", "metric", "models", "differences"]
    assert (found["split"], found["rows"], found["metric"]) == ("test", 30, "accuracy")
    good, poor = found["models"]
    assert (good["name"], good["runs"]) == ("good-0 (2 runs)", ["good-0", "good-1"]) and poor["runs"] == ["poor"]
    alone = [textclf.evaluate(models / name).as_dict() for name in ("good-0", "good-1", "poor")]
    accuracies = [one["metrics"]["accuracy"] for one in alone]
    assert good["metrics"]["accuracy"] == pytest.approx(np.mean(accuracies[:2]))
    assert good["spread"]["accuracy"] == pytest.approx(np.std(accuracies[:2], ddof=1)) and poor["spread"] is None
    assert poor["metrics"]["accuracy"] == accuracies[2] and poor["intervals"] == alone[2]["intervals"]
    (one,) = found["differences"]
    assert one["value"] == pytest.approx(good["metrics"]["accuracy"] - accuracies[2]) and one["mcnemar"] is None
    assert 0 < one["low"] < one["value"] < one["high"]
    assert one["verdict"].startswith("good-0 (2 runs) is better than poor by ")


def test_a_model_and_its_copy_do_not_differ(models: Path, tmp_path: Path, cli: Cli) -> None:
    shutil.copytree(models / "good-0" / "model", tmp_path / "copy")
    (tmp_path / "copy" / atomic.MANIFEST).unlink()  # as someone would who changes a model folder
    facts = json.loads((tmp_path / "copy" / "textclf.json").read_text())
    facts["config"]["train"]["epochs"] = 99  # as another configuration would have made it
    (tmp_path / "copy" / "textclf.json").write_text(json.dumps(facts))
    done = cli("compare", models / "good-0", tmp_path / "copy", "--dataset", models / "tickets.csv")
    assert done.returncode == 0, done.stderr
    assert "the accuracy difference of 0.0 points is within noise" in done.stdout
    assert "McNemar p = 1" in done.stdout


def test_what_cannot_be_compared_is_refused(models: Path, tiny_csv: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one model alone"):
        textclf.compare([models / "poor"])
    with pytest.raises(UsageError, match="named twice"):
        textclf.compare([models / "poor", models / "poor"])
    shutil.copytree(models / "good-1", tmp_path / "again")
    with pytest.raises(UsageError, match="again has the data, the settings and the seed of good-1"):
        textclf.compare([models / "good-0", models / "good-1", tmp_path / "again"])
    with pytest.raises(UsageError, match="--metric speed"):
        textclf.compare([models / "poor", models / "good-0"], metric="speed")


@pytest.mark.parametrize("rank", range(4))
def test_a_difference_with_its_interval_is_one_that_can_be(rank: int, tmp_path: Path, cli: Cli) -> None:
    """One label is so rare that many draws lack it, and what one model finds first the other finds last."""
    models = [tiny_models.artifact(tmp_path / name, ("a", "b")) for name in ("right", "mirrored")]
    weights = load_file(models[1] / "model.safetensors")
    turned = {name: -value if name.startswith("classifier.") else value for name, value in weights.items()}
    save_file(turned, models[1] / "model.safetensors", metadata={"format": "pt"})
    texts = [text for text, _ in tiny_models.rows(19)]
    found = np.argsort(-textclf.load(models[0]).predict_proba(texts)[:, 1])[rank]
    data = tmp_path / "rare.csv"
    data.write_text("text,label\n" + "".join(f"{text},{'ab'[int(row == found)]}\n" for row, text in enumerate(texts)))
    done = cli("compare", *models, "--dataset", data, "--metric", "roc_auc", "--json")
    assert done.returncode == 0, done.stderr
    (one,) = json.loads(done.stdout)["differences"]
    assert one["value"] == pytest.approx(1 - rank / 9) and "nan" not in one["verdict"]
    assert -1 <= one["low"] <= one["value"] <= one["high"] <= 1


def test_models_of_unlike_labels_are_compared_by_what_both_have(tmp_path: Path) -> None:
    models = [tiny_models.artifact(tmp_path / str(len(names)), names) for names in (("b", "a"), ("a", "b", "c"))]
    data = tmp_path / "two.csv"
    data.write_text("text,label\n" + "".join(f"text number {row},{'ab'[row % 2]}\n" for row in range(40)))
    found = textclf.compare(models, dataset=data)
    assert {one.name for one in found.models} == {"2", "3"} and found.metric == "accuracy"
    for pair in (models, models[::-1]):
        with pytest.raises(UsageError, match="--metric roc_auc"):
            textclf.compare(pair, dataset=data, metric="roc_auc")


def test_other_rows_are_an_error(models: Path, tiny_base: Path, tiny_csv: Path, no_graph: None) -> None:
    other = textclf.finetune(tiny_base, tiny_csv, **{**FAST, "epochs": 1})
    with pytest.raises(DataError, match="has other rows or labels"):
        textclf.compare([models / "poor", other])


def test_questions_of_unlike_forms_are_not_compared(models: Path, tmp_path: Path) -> None:
    other = shutil.copytree(models / "good-0" / "model", tmp_path / "binary")
    (other / "MANIFEST.json").unlink()
    facts = json.loads((other / "textclf.json").read_text())
    (other / "textclf.json").write_text(json.dumps({**facts, "form": "binary"}))
    with pytest.raises(UsageError, match="binary is of form binary, poor of form text") as caught:
        textclf.compare([models / "poor", other], dataset=models / "tickets.csv")
    assert "--dataset" not in (caught.value.hint or "")


def test_columns_are_of_a_data_set_that_is_named(models: Path, cli: Callable[..., Any]) -> None:
    for command in (["compare", models / "good-0", models / "poor"], ["eval", models / "poor"]):
        done = cli(*command, "--label-column", "label")
        assert done.returncode == 2 and "--label-column was given without --dataset" in done.stderr, done.stderr
        assert cli(*command, "--label-column", "label", "--dataset", models / "tickets.csv").returncode == 0
