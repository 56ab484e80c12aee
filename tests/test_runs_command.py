"""`textclf runs`: listing, showing and removing runs."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from textclf.artifact import runs
from textclf.config import RunConfig, as_dict
from textclf.errors import BusyError

Textclf = Callable[..., "subprocess.CompletedProcess[str]"]


def make(home: Path, name: str, **changes: object) -> runs.Run:
    run = runs.create(home / "runs" / name, as_dict(RunConfig()))
    (run.folder / "checkpoints").mkdir()
    (run.folder / "checkpoints" / "weights").write_bytes(b"x" * 2_000_000)
    return run.update(**changes)


def test_list_shows_runs_newest_first(cli: Textclf, home: Path) -> None:
    make(home, "first", started="2026-01-01T10:00:00+00:00", state="failed", message="diverged")
    results = {"validation": {"accuracy": 0.95, "rows": 9}, "test": {"accuracy": 0.925, "macro_f1": 0.9, "rows": 9}}
    facts = {"dataset": "banking77", "model": "distilbert-base-uncased", "metrics": results}
    make(home, "second", started="2026-01-02T10:00:00+00:00", state="done", **facts)
    make(home, "third", started="2026-01-03T10:00:00+00:00", state="running")
    done = cli("runs")
    assert done.returncode == 0
    lines = [line for line in done.stdout.splitlines() if "2026-01" in line]
    assert [line.split()[0] for line in lines] == ["third", "second", "first"]
    for expected in ("done", "banking77", "distilbert-base-uncased", "test accuracy 0.9250", "2.0 MB"):
        assert expected in lines[1]
    assert "interrupted" in lines[0], "a run whose process is gone is not running"
    documents = json.loads(cli("runs", "list", "--json").stdout)
    assert [document["name"] for document in documents] == ["third", "second", "first"]
    assert json.loads(cli("runs", "--json").stdout) == documents
    assert documents[1]["metrics"] == results
    assert documents[1]["bytes"] > 2_000_000


@pytest.mark.parametrize("request_of", ["{}", '{"train": {"seed": SEED}}', '{"model": null}', '"text"', '{"x": {}}'])
def test_a_run_without_settings_is_told_or_told_of(cli: Textclf, home: Path, request_of: str) -> None:
    for seed in "01":
        folder = home / "runs" / f"cut-seed{seed}"
        folder.mkdir(parents=True)
        request = request_of.replace("SEED", seed)
        (folder / "run.json").write_text(f'{{"format": "{runs.FORMAT}", "state": "new", "request": {request}}}')
    for words in (["runs", "show", "cut"], ["runs", "show", "cut-seed0"], ["audit", "cut-seed0"], ["report", "cut"]):
        done = cli(*words)
        assert done.returncode in (0, 2, 4), done.stderr
        assert "Traceback" not in done.stderr and "a bug" not in done.stderr


def test_no_runs_is_no_error(cli: Textclf) -> None:
    done = cli("runs")
    assert (done.returncode, done.stdout) == (0, "")
    assert "textclf finetune" in done.stderr
    assert cli("runs", "--json").stdout == "[]\n"


def test_foreign_text_in_a_run_is_harmless(cli: Textclf, home: Path) -> None:
    make(
        home,
        "odd",
        dataset="[red]x[/red]\x1b[31m\nnext \u202e",
        model=["not", "a", "name"],
        state=5,
        started="yesterday",
    )
    (home / "runs" / "broken").mkdir()
    (home / "runs" / "broken" / "run.json").write_text("{")
    (home / "runs" / "file").write_text("")
    for arguments in (("runs",), ("runs", "show", "odd")):
        done = cli(*arguments)
        assert done.returncode == 0, done.stderr
        assert "[red]x" in done.stdout
        assert "\x1b" not in done.stdout and "\u202e" not in done.stdout


def test_show_tells_one_run(cli: Textclf, home: Path) -> None:
    metrics = {"test": {"accuracy": 0.9, "rows": 9}}
    run = make(home, "mine", state="done", dataset="tickets", model="tiny", step=40, steps=50, metrics=metrics)
    for name in ("mine", str(run.folder)):
        done = cli("runs", "show", name)
        assert done.returncode == 0
        for expected in ("tickets", "40 of 50", "0.9000", "train.batch_size = 32"):
            assert expected in done.stdout
    document = json.loads(cli("runs", "show", "mine", "--json").stdout)
    assert document["config"]["train"]["batch_size"] == 32


@pytest.mark.parametrize("command", ["show", "path", "remove"])
def test_an_unknown_run_gets_the_nearest_name(cli: Textclf, home: Path, command: str) -> None:
    make(home, "banking77-minilm")
    done = cli("runs", command, "banking77-minlm")
    assert done.returncode == 4
    assert "did you mean banking77-minilm?" in done.stderr
    assert cli("runs", command, "..").returncode == 4


def test_path_is_for_the_shell(cli: Textclf, home: Path) -> None:
    run = make(home, "mine")
    assert cli("runs", "path", "mine").stdout == f"{run.folder}\n"
    assert json.loads(cli("runs", "path", "mine", "--json").stdout) == {"path": str(run.folder)}


def test_remove_needs_a_yes(cli: Textclf, home: Path) -> None:
    run = make(home, "mine")
    asked = cli("runs", "remove", "mine")
    assert asked.returncode == 2
    assert "--yes" in asked.stderr
    assert run.folder.is_dir()
    done = cli("runs", "remove", "mine", "--yes")
    assert done.returncode == 0
    assert "removed mine: 2.0 MB" in done.stderr
    assert list((home / "runs").iterdir()) == []


@pytest.mark.parametrize(("answer", "stays"), [(b"n\n", True), (b"\n", True), (b"y\n", False)])
def test_remove_asks_on_a_terminal(home: Path, answer: bytes, stays: bool) -> None:
    run = make(home, "mine")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "textclf", "runs", "remove", "mine"], stdin=theirs, stderr=subprocess.PIPE
    )
    os.write(ours, answer)
    _, said = process.communicate(timeout=60)
    os.close(ours)
    os.close(theirs)
    assert b"Delete" in said
    assert process.returncode == (1 if stays else 0)
    assert run.folder.exists() == stays


def test_a_run_at_work_is_not_removed(cli: Textclf, home: Path) -> None:
    run = make(home, "mine", state="running")
    with runs.locked(run):
        done = cli("runs", "remove", "mine", "--yes")
        assert done.returncode == 9
        assert "another process" in done.stderr
        assert json.loads(cli("runs", "--json").stdout)[0]["state"] == "running"
        with pytest.raises(BusyError):
            runs.remove(run)
    assert run.folder.is_dir()
    assert cli("runs", "remove", "mine", "--yes").returncode == 0, "a run whose process died can go"


def test_runs_starts_without_torch(home: Path) -> None:
    code = "import sys, textclf.cli.app as a\na.app(['runs'], standalone_mode=False)\nassert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
