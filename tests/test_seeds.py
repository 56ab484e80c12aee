"""Several seeds as one model: `finetune --seeds`, what their common name stands for, and how they compare."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import textclf
import tiny_models
from resuming import same_weights
from textclf.artifact import runs
from textclf.errors import InterruptedRun, ModelError, UsageError
from textclf.evaluation.comparison import span
from textclf.training.events import Event, Notice, Phase, StepDone

Cli = Callable[..., subprocess.CompletedProcess[str]]
FAST: dict[str, Any] = {
    "epochs": 3,
    "learning_rate": 5e-3,
    "batch_size": 16,
    "precision": "fp32",
    "probe": False,
    "test_size": 0.3,
}
FLAGS = ("--epochs", "2", "--lr", "4e-3", "--batch-size", "8", "--precision", "fp32", "--set", "train.probe=false")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("seeds") / "tickets.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in tiny_models.rows(150)))
    return path


@pytest.fixture(scope="module")
def groups(alone: None, tiny_base: Path, data: Path) -> Path:
    """Two groups of three seeds each, one of which learnt next to nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("textclf.model.exporting.MAX_BYTES", 0)
        textclf.finetune_seeds(tiny_base, data, seeds=3, out=data.parent / "good", **FAST)
        poor = {**FAST, "learning_rate": 1e-9, "epochs": 1}
        textclf.finetune_seeds(tiny_base, data, seeds=3, out=data.parent / "poor", **poor)
    return data.parent


def test_each_seed_is_the_run_that_it_is_alone(
    groups: Path, tiny_base: Path, data: Path, tmp_path: Path, no_graph: None
) -> None:
    alone = textclf.finetune(tiny_base, data, seed=2, out=tmp_path / "alone", **FAST)
    group = runs.group(groups / "good")
    assert group is not None and [one.name for one in group.runs] == ["good-seed0", "good-seed1", "good-seed2"]
    assert same_weights(alone, group.runs[2]) and not same_weights(group.runs[0], group.runs[1])
    assert len({run.document["fingerprint"] for run in group.runs}) == 1, "the split is the same"
    ours, theirs = alone.document["baselines"], group.runs[2].document["baselines"]
    assert [one["metrics"] for one in ours] == [one["metrics"] for one in theirs]


def test_the_command_ends_with_a_table_and_the_best(cli: Cli, tiny_base: Path, data: Path, no_graph: None) -> None:
    arguments = ("finetune", "-m", tiny_base, "-d", data, "--seed", "5", "--seeds", "2", *FLAGS)
    done = cli(*arguments)
    assert done.returncode == 0, done.stderr
    first, second = (line for line in done.stdout.splitlines() if "-seed" in line)
    assert first.split()[-5:-4] == ["5"] or " 5 " in first
    assert " 6 " in second
    assert "mean" in done.stdout and "standard deviation" in done.stdout
    again = cli(*arguments, "--json")
    assert again.returncode == 0 and "finished already" not in again.stdout
    found = json.loads(again.stdout)
    assert [one["seed"] for one in found["runs"]] == [5, 6] and found["metric"] == "accuracy"
    accuracies = [one["metrics"]["test"]["accuracy"] for one in found["runs"]]
    mean = found["metrics"]["test"]["accuracy"]
    assert mean["mean"] == pytest.approx(statistics.fmean(accuracies))
    assert mean["deviation"] == pytest.approx(statistics.stdev(accuracies))
    best = max(found["runs"], key=lambda one: (one["metrics"]["validation"]["accuracy"], -one["seed"]))
    assert found["best"] == best["run"]
    assert f"textclf predict {found['name']}" in done.stderr and found["best"] in done.stderr
    # One more seed is one more run; the others stay.
    more = json.loads(cli(*arguments[: -len(FLAGS)], "--seeds", "3", *FLAGS, "--json").stdout)
    assert [one["seed"] for one in more["runs"]] == [5, 6, 7] and more["name"] == found["name"]
    assert more["runs"][:2] == found["runs"]
    # The name is the best of them where one model is asked for, and so is the latest run.
    assert textclf.load(found["name"]).name == more["best"] == textclf.load().name
    answered = cli("predict", found["name"], "--json", input="my card")
    assert answered.returncode == 0 and json.loads(answered.stdout)["model"] == more["best"], answered.stderr
    shown = json.loads(cli("runs", "show", found["name"], "--json").stdout)
    assert shown == more
    assert cli("runs", "remove", found["name"], "--yes").returncode == 0
    assert cli("runs").stdout == ""


def test_a_stopped_group_goes_on_with_the_seed_it_was_at(
    tiny_base: Path, data: Path, tmp_path: Path, groups: Path, no_graph: None
) -> None:
    seen: list[str] = []

    def stop(event: Event) -> None:
        if isinstance(event, Notice) and event.message.startswith("seed "):
            seen.append(event.message)
        if isinstance(event, StepDone) and event.step == 3 and len(seen) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    out = tmp_path / "group"
    with pytest.raises(InterruptedRun, match=r"seed 1, 2 of 3: stopped by SIGTERM after step") as caught:
        textclf.finetune_seeds(tiny_base, data, seeds=3, out=out, on_event=stop, **FAST)
    assert caught.value.exit_code == 143 and "the same command goes on" in str(caught.value)
    assert [run.state for run in runs.by_seed(out).values()] == ["done", "paused"]
    said: list[str] = []
    group = textclf.finetune_seeds(
        tiny_base, data, seeds=3, out=out, **FAST,
        on_event=lambda event: said.append(event.message) if isinstance(event, Notice) else None,
    )  # fmt: skip
    assert any("is finished already" in message for message in said)
    assert any(message.startswith("going on from step-") for message in said)
    for run, unbroken in zip(group.runs, runs.by_seed(groups / "good").values(), strict=True):
        assert same_weights(run, unbroken)


def test_features_are_computed_once_and_time_is_shared(
    tiny_base: Path, data: Path, tmp_path: Path, no_graph: None
) -> None:
    seen: list[str] = []

    def note(event: Event) -> None:
        if isinstance(event, Phase) and event.name in ("features", "baseline of words"):
            seen.append(event.name)

    group = textclf.finetune_seeds(
        tiny_base, data, seeds=2, out=tmp_path / "fast", epochs=0.0, max_minutes=5, on_event=note
    )
    assert [run.config["train"]["max_minutes"] for run in group.runs] == [2.5, 2.5], "the time is for all of them"
    once = len(seen)
    textclf.finetune(tiny_base, data, out=tmp_path / "alone", epochs=0.0, on_event=note)
    assert len(seen) == 2 * once > 0


def test_what_is_in_the_way_is_said_before_the_first_run(
    groups: Path, tiny_base: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="1 or more"):
        textclf.finetune_seeds(tiny_base, data, seeds=0)
    (tmp_path / "x-seed1").mkdir()
    (tmp_path / "x-seed1" / "mine.txt").write_text("")
    with pytest.raises(UsageError, match="holds something else"):
        textclf.finetune_seeds(tiny_base, data, seeds=2, out=tmp_path / "x")
    assert not (tmp_path / "x-seed0").exists()
    with pytest.raises(ModelError, match=r"train\.epochs"):
        textclf.finetune_seeds(tiny_base, data, seeds=1, seed=9, out=groups / "good", **{**FAST, "epochs": 7})
    assert not (groups / "good-seed9").exists()
    with pytest.raises(UsageError, match="runs of several seeds"):
        textclf.finetune(tiny_base, data, out=groups / "good", **FAST)
    assert not (groups / "good").exists()
    with pytest.raises(UsageError, match="a run by itself"):
        textclf.finetune_seeds(tiny_base, data, seeds=1, out=groups / "good-seed0", **FAST)
    assert not (groups / "good-seed0-seed0").exists(), "predict good-seed0 would answer by the other run"


def test_a_dry_run_is_of_all_seeds(cli: Cli, tiny_base: Path, data: Path, home: Path) -> None:
    budget = ("--max-minutes", "0.001")
    done = cli("finetune", "-m", tiny_base, "-d", data, "--seeds", "4", *FLAGS, *budget, "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["seeds"] == 4 and found["seconds"] == pytest.approx(0.06), "the time is for all of them"
    assert not (home / "runs").exists()
    assert cli("finetune", "-d", data, "--seeds", "0").returncode == 2


def test_groups_are_compared_by_their_names(groups: Path, cli: Cli) -> None:
    done = cli("compare", groups / "poor", groups / "good", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    good, poor = found["models"]
    assert (good["name"], poor["name"]) == ("good (3 runs)", "poor (3 runs)")
    (one,) = found["differences"]
    results = [
        [run.metrics["test"]["accuracy"] for run in runs.by_seed(groups / name).values()] for name in ("good", "poor")
    ]
    better = sum(ours > theirs for ours, theirs in zip(*results, strict=True))
    assert (one["first"], one["seeds"], one["better"], one["mcnemar"]) == ("good (3 runs)", 3, better, None)
    assert one["value"] == pytest.approx(statistics.fmean(results[0]) - statistics.fmean(results[1]))
    assert one["low"] < one["value"] < one["high"]  # of three seeds wide
    alone = cli("compare", groups / "good")
    assert alone.returncode == 0 and "good (3 runs)" in alone.stdout and "one model" in alone.stderr


@pytest.mark.parametrize(("runs_each", "paired"), [(5, True), (5, False), (3, True)])
@pytest.mark.parametrize("share", [0.1, 0.9])
def test_an_interval_holds_the_truth_as_often_as_it_says(runs_each: int, paired: bool, share: float) -> None:
    """Texts and seeds as independent normal effects: `share` of the variance of a mean comes from the seeds."""
    random, texts, held, times = np.random.default_rng(7), 200, 0, 300
    draws = random.multinomial(texts, [1 / texts] * texts, 500) / texts
    by_text, by_seed = np.sqrt((1 - share) * texts / 2), np.sqrt(share * runs_each / 2)
    for _ in range(times):
        both = []
        for sign in (1, -1):
            values_NR = sign * (by_text * random.normal(size=(texts, 1)) + by_seed * random.normal(size=runs_each))
            both.append((draws @ values_NR, values_NR.mean(axis=0)))
        parts = [(both[0][0] + both[1][0], both[0][1] + both[1][1])] if paired else both
        low, high = span(parts)
        held += low <= 0 <= high
    assert 0.9 <= held / times <= 0.995
