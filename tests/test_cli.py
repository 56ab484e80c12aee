"""The command line as a whole: help, flags that all commands share, documents for machines, errors."""

from __future__ import annotations

import json
import os
import pty
import resource
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import safetensors.numpy
from typer.testing import CliRunner

from textclf import __version__
from textclf.cli.app import app

Cli = Callable[..., CompletedProcess[str]]
COMMANDS = (
    ["prepare"],
    ["finetune"],
    ["eval"],
    ["predict"],
    ["push"],
    ["runs"],
    ["runs", "list"],
    ["runs", "show"],
    ["runs", "remove"],
    ["runs", "path"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help_with_an_example_and_the_shared_flags(command: list[str]) -> None:
    shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert shown.exit_code == 0
    assert f"textclf {command[0]}" in shown.output.split("Example")[1]
    if command == ["runs"]:
        return  # a group; its commands have the flags
    for flag in ("--json", "--quiet", "--verbose", "--debug"):
        assert flag in shown.output


def test_version_and_module(cli: Cli) -> None:
    assert cli("--version").stdout == f"textclf {__version__}\n"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="torch brings GNU's OpenMP on Linux")
@pytest.mark.parametrize(
    ("said", "policy", "turns"),
    [
        ({}, "PASSIVE", "1000"),
        ({"GOMP_SPINCOUNT": "7"}, "PASSIVE", "7"),
        ({"OMP_WAIT_POLICY": "active"}, "ACTIVE", None),
    ],
)
def test_threads_wait_awake_for_a_moment_unless_told_otherwise(
    said: dict[str, str], policy: str, turns: str | None
) -> None:
    program = """
import sys
from textclf.cli.app import main
sys.argv = ["textclf", "--version"]
try:
    main()
except SystemExit:
    import torch
"""
    unsaid = {name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")}
    environment = {**unsaid, **said, "OMP_DISPLAY_ENV": "verbose"}
    shown = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True).stderr
    assert f"OMP_WAIT_POLICY = '{policy}'" in shown
    assert turns is None or f"GOMP_SPINCOUNT = '{turns}'" in shown


@pytest.mark.parametrize(("line", "code"), [("--version", 0), ("predict --no-such-option", 2)])
def test_a_command_ends_without_a_last_look_for_cycles(line: str, code: int) -> None:
    program = (
        "import atexit, gc, sys; atexit.register(lambda: print(gc.get_freeze_count() > 1000, gc.get_threshold()[0]));"
        f"sys.argv = ['textclf', *{line.split()!r}]; from textclf.cli.app import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == code and done.stdout.splitlines()[-1] == "True 5000"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_the_commands(shell: str) -> None:
    program = [sys.executable, "-c", "import sys; sys.argv[0] = 'textclf'; from textclf.cli.app import main; main()"]
    words = {
        "bash": ("textclf ", "COMP_WORDS"),
        "zsh": ("textclf ", "_TYPER_COMPLETE_ARGS"),
        "fish": ("textclf ", "_TYPER_COMPLETE_ARGS"),
    }
    line, variable = words[shell]
    environment = {
        **os.environ,
        "_TEXTCLF_COMPLETE": f"complete_{shell}",
        variable: line,
        "COMP_CWORD": "1",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60)
    for command in ("prepare", "finetune", "eval", "predict", "push", "runs"):
        assert command in done.stdout, (done.stdout, done.stderr)


def test_finetune_without_anything_says_what_it_needs(cli: Cli) -> None:
    for arguments in ([], ["--model", "x"]):
        done = cli("finetune", *arguments)
        assert done.returncode == 2
        assert "textclf finetune --dataset tickets.csv" in done.stderr


def test_usage_errors_are_2_and_name_the_nearest(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("train:\n  epoch: 3\n")
    cases = {
        ("fintune",): "finetune",
        ("finetune", "--epohcs", "3"): "--epochs",
        ("finetune", "--set", "train.warmpu=0.1"): "did you mean train.warmup?",
        ("finetune", "--set", "warmup=0.1"): "section.field=value",
        ("finetune", "--set", "train.warmup=2"): "from 0 up to 1",
        ("finetune", "--config", str(config)): "did you mean train.epochs?",
        ("finetune", "--preset", "quickstrat"): "quickstart",
        ("finetune", "--epochs", "many"): "--epochs",
    }
    for arguments, said in cases.items():
        done = cli(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), (arguments, done.stderr)
        assert said in done.stderr, (arguments, done.stderr)


def test_precedence_is_preset_config_flags_set(cli: Cli, tiny_base: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text("train:\n  epochs: 2\n  batch_size: 64\n  seed: 7\n")
    done = cli(
        "finetune", "--preset", "quickstart", "--config", config, "--model", tiny_base, "--batch-size", "48",
        "--set", "train.seed=9", "--dry-run", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    resolved = json.loads(done.stdout)["config"]
    assert resolved["data"]["dataset"] == "quickstart"
    assert (resolved["train"]["epochs"], resolved["train"]["batch_size"], resolved["train"]["seed"]) == (2, 48, 9)


@pytest.mark.usefixtures("no_graph")
def test_json_documents_are_pinned(cli: Cli, tiny_base: Path, tiny_csv: Path, tmp_path: Path) -> None:
    metrics = [
        "rows", "loss", "accuracy", "macro_f1", "weighted_f1", "macro_precision", "weighted_precision", "macro_recall",
        "weighted_recall", "mcc", "roc_auc", "average_precision", "ece", "brier", "absent_labels",
        "question_accuracy",
    ]  # fmt: skip
    estimate = json.loads(cli("finetune", "-m", tiny_base, "-d", tiny_csv, "--dry-run", "--json").stdout)
    assert list(estimate) == [
        "rows", "labels", "parameters", "max_length", "tokens", "padding_waste", "epochs", "steps", "micro_batches",
        "seconds", "memory", "disk", "device", "config", "seeds",
    ]  # fmt: skip
    assert estimate["rows"] == {"train": 96, "validation": 12, "test": 12} and estimate["steps"] == 45
    assert 0 <= estimate["padding_waste"] < 0.3 and estimate["seconds"] > 0 and estimate["memory"] > 1e8
    weights = safetensors.numpy.load_file(tiny_base / "model.safetensors")
    # All words, though only those of the texts are trained; the pretrained model lacks a head of 3 labels alone.
    assert estimate["parameters"] >= sum(one.size for one in weights.values())

    done = cli("finetune", "-m", tiny_base, "-d", tiny_csv, "--epochs", "1", "--json")
    run = json.loads(done.stdout)
    assert list(run) == [
        "run", "folder", "artifact", "dataset", "model", "steps", "step", "best_step", "share", "stopped_early",
        "seconds", "metrics", "baselines", "notes",
    ]  # fmt: skip
    assert list(run["metrics"]) == ["validation", "test"] and list(run["metrics"]["test"]) == metrics

    report = json.loads(cli("eval", "--json").stdout)
    assert list(report) == [
        "model", "dataset", "split", "metrics", "intervals", "baselines",
        "per_label", "confusions", "reliability", "coverage",
        "abstention", "scope", "questions", "slices", "wrong", "mistakes",
        "truncated", "overflow", "seconds",
    ]  # fmt: skip
    assert list(report["metrics"]) == metrics
    assert list(report["per_label"][0]) == ["label", "precision", "recall", "f1", "support", "predicted"]


def test_quiet_says_nothing_but_results(cli: Cli, tiny_base: Path, tiny_csv: Path) -> None:
    done = cli("finetune", "-m", tiny_base, "-d", tiny_csv, "--epochs", "1", "--quiet")
    assert done.returncode == 0 and done.stderr == "" and "accuracy" in done.stdout


def test_debug_shows_the_traceback_and_nothing_else_does(cli: Cli, tmp_path: Path) -> None:
    plain = cli("prepare", "--dataset", tmp_path / "none.csv")
    assert plain.returncode == 3 and "Traceback" not in plain.stderr
    told = cli("prepare", "--dataset", tmp_path / "none.csv", "--debug")
    assert told.returncode == 3 and "Traceback" in told.stderr


@pytest.mark.usefixtures("no_graph")
def test_foreign_text_is_never_markup_or_control(cli: Cli, tiny_base: Path, tmp_path: Path) -> None:
    labels = ["[bold red]a[/foo]", "b\x1b[31m\x1b]0;owned\x07", "=1+1|`c`<script>"]
    path = tmp_path / "nasty [red].csv"
    rows = "".join(f'"text number {n}","{labels[n % 3]}"\n' for n in range(60))
    path.write_text("text,label\n" + rows)
    for arguments in (
        ["prepare", "-d", path],
        ["finetune", "-m", tiny_base, "-d", path, "--epochs", "1"],
        ["eval"],
        ["runs", "list"],
    ):
        done = cli(*arguments)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout + done.stderr and "\x07" not in done.stdout + done.stderr
    assert "[bold red]a[/foo]" in cli("eval").stdout
    assert "b\\x1b[31m" in cli("eval").stdout


def test_a_full_disk_leaves_nothing_half_written(tiny_base: Path, tiny_csv: Path, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    command = [
        sys.executable,
        "-m",
        "textclf",
        "finetune",
        "-m",
        tiny_base,
        "-d",
        tiny_csv,
        "--epochs",
        "1",
        "--out",
        tmp_path / "run",
    ]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, preexec_fn=limit, timeout=120)
    assert done.returncode == 6, done.stderr
    assert "disk is full" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run/model").exists()
    assert not list((tmp_path / "run").rglob("*.tmp")) and not list((tmp_path / "run/checkpoints").glob("step-*"))


def test_ctrl_c_keeps_a_checkpoint_and_the_command_goes_on(
    cli: Cli, tiny_base: Path, tiny_csv: Path, tmp_path: Path
) -> None:
    import signal

    command = [
        "finetune",
        "-m",
        tiny_base,
        "-d",
        tiny_csv,
        "--epochs",
        "2000",
        "--set",
        "train.eval_every=50",
        "--out",
        tmp_path / "run",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "textclf", *map(str, command)], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 50"):
            process.send_signal(signal.SIGINT)
            break
    said = process.stderr.read()
    assert process.wait(timeout=60) == 130
    assert "kept: step-" in said and "same command" in said and "Traceback" not in said
    kept = json.loads(cli("runs", "show", tmp_path / "run", "--json").stdout)
    assert kept["state"] == "paused"


class TestStreams:
    """Closed, full or narrow standard streams end nothing that went well, and hide no exit code."""

    def _run(self, tail: str, *arguments: Any, **environment: str) -> CompletedProcess[str]:
        command = f'exec "$0" -m textclf "$@" {tail}'
        words = ["bash", "-c", command, sys.executable, *map(str, arguments)]
        return subprocess.run(words, capture_output=True, text=True, env={**os.environ, **environment}, timeout=120)

    def test_messages_that_nobody_can_read(self, tiny_csv: Path, tmp_path: Path) -> None:
        for tail in ("2>&-", "2>/dev/full"):
            assert self._run(tail, "prepare", "-d", tiny_csv).returncode == 0
            assert self._run(tail, "prepare", "-d", tmp_path / "none.csv").returncode == 3

    def test_results_that_cannot_be_written(self, tiny_csv: Path) -> None:
        for tail in (">&-", ">/dev/full"):
            for flags in ([], ["--json"]):
                done = self._run(tail, "prepare", "-d", tiny_csv, *flags)
                assert done.returncode == 6, (tail, flags, done.stderr)
                assert "Traceback" not in done.stderr and "a bug" not in done.stderr

    def test_a_locale_that_knows_ascii_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "wide.csv"
        path.write_text("text,label\n" + "".join(f"text {n},{'ü…🙂'[n % 3] * 50}\n" for n in range(60)))
        done = self._run("", "prepare", "-d", path, LC_ALL="C", PYTHONIOENCODING="ascii", PYTHONUTF8="0")
        assert done.returncode == 0, done.stderr

    def test_a_home_that_cannot_be_written(self, tiny_csv: Path) -> None:
        done = self._run("", "prepare", "-d", tiny_csv, TEXTCLF_HOME="/proc/nowhere")
        assert done.returncode == 6 and "cannot be written" in done.stderr

    def test_an_empty_name_is_a_usage_error(self) -> None:
        assert self._run("", "prepare", "--dataset", "").returncode == 2
        assert self._run("", "finetune", "--dataset", "x", "--model", "").returncode == 2


class TestOnATerminal:
    """What a person sees: drawn on a pseudo-terminal of 80 columns."""

    def _run(self, arguments: list[Any], *, environment: dict[str, str] | None = None) -> tuple[int, str]:
        controller, terminal = pty.openpty()
        size = {"COLUMNS": "80", "LINES": "24", "TERM": "xterm"}
        process = subprocess.Popen(
            [sys.executable, "-m", "textclf", *map(str, arguments)],
            stdin=terminal, stdout=terminal, stderr=terminal, env={**os.environ, **size, **(environment or {})},
        )  # fmt: skip
        os.close(terminal)
        seen, end = b"", time.monotonic() + 120
        while time.monotonic() < end:
            if select.select([controller], [], [], 0.1)[0]:
                try:
                    seen += os.read(controller, 65536)
                except OSError:
                    break
            elif process.poll() is not None:
                break
        os.close(controller)
        return process.wait(timeout=10), seen.decode("utf-8", "replace")

    def test_training_draws_a_bar_with_loss_rate_and_time(self, tiny_base: Path, tiny_csv: Path) -> None:
        code, seen = self._run(["finetune", "-m", tiny_base, "-d", tiny_csv, "--epochs", "30"])
        assert code == 0, seen
        for part in (
            "loss",
            "texts/s",
            "left",
            "validation: loss",
            "accuracy",
            "write the model",
            "ONNX graph",
            "next:",
        ):
            assert part in seen, part

    def test_no_color_is_honoured(self, tmp_path: Path) -> None:
        code, seen = self._run(["prepare", "-d", tmp_path / "none.csv"], environment={"NO_COLOR": "1"})
        assert code == 3 and "\x1b[31m" not in seen and "\x1b[1;31m" not in seen
