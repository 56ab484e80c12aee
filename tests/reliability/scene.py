"""What the campaigns share: a tiny run by the command line in a forked process, and what is left of it, as digests.

The parent has imported everything once, so that a run takes one second instead of four. Nothing but imports and two
patches separates it from the command: no ONNX graph is made, and a child notes the digest of the optimizer's state,
which goes with the checkpoints when the run is done.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import textclf
import tiny_models
from textclf.artifact import runs
from textclf.cli import app
from textclf.model import exporting
from textclf.training import finetuning

TEXTS = ["my card is the letter", "refund the charge now please", "", "password " * 50]
PATIENCE = 300.0
"""Seconds after which a child is taken for hanging."""


@dataclass(frozen=True)
class Outcome:
    """What a finished run came to, as SHA-256 of weights, optimizer state, figures and probabilities."""

    weights: str
    optimizer: str
    figures: str
    predictions: str


@dataclass(frozen=True)
class Scene:
    """A tiny model, a data set of 120 rows, and the command that makes 18 steps of them with an evaluation every 4."""

    folder: Path
    base: Path
    data: Path

    def arguments(self, place: Path) -> list[str]:
        """The command line of a run whose folder lies in `place`."""
        settings = ["--epochs", "3", "--batch-size", "16", "--precision", "fp32", "--set", "train.eval_every=4"]
        settings.append("--no-baselines")  # the phases are counted by passes of the model
        return ["finetune", "-m", str(self.base), "-d", str(self.data), "-o", str(place / "run"), *settings, "--quiet"]

    def start(self, place: Path, before: Callable[[], None] | None = None) -> int:
        """Fork a process that gives the command. Everything it writes lies in `place`, its cache too. Returns its id.

        before: called in the child first.
        """
        place.mkdir(parents=True, exist_ok=True)
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            with (place / "output.txt").open("ab", buffering=0) as output:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
            os.environ["TEXTCLF_HOME"] = str(place / "home")
            sys.argv = ["textclf", *self.arguments(place)]
            if before is not None:
                before()
            try:
                app.main()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
            if code == 0:
                probs = textclf.load(place / "run", runtime="torch").predict_proba(TEXTS)
                (place / "predictions.txt").write_text(hashlib.sha256(probs.tobytes()).hexdigest())
        finally:
            os._exit(code)

    def finish(self, place: Path) -> Outcome:
        """Give the command to its end, and say what came of it."""
        code = wait(self.start(place))
        if code != 0:
            raise AssertionError(f"exit {code} in {place}: {(place / 'output.txt').read_text()[-2000:]}")
        run = runs.read(place / "run")
        assert run is not None and run.state == "done"
        figures = (place / "run/metrics.jsonl").read_text()
        return Outcome(
            hashlib.sha256((place / "run/model/model.safetensors").read_bytes()).hexdigest(),
            (place / "optimizer.txt").read_text(),
            hashlib.sha256((figures + json.dumps(run.metrics, sort_keys=True)).encode()).hexdigest(),
            (place / "predictions.txt").read_text(),
        )


@contextlib.contextmanager
def scene() -> Iterator[Scene]:
    """A scene in a folder of its own, gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="textclf-reliability-"))
    most, finish = exporting.MAX_BYTES, finetuning._finish
    exporting.MAX_BYTES = 0
    finetuning._finish = _noting(finish)  # type: ignore[assignment]
    try:
        base = tiny_models.pretrained(folder / "base")
        data = folder / "tickets.csv"
        data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in tiny_models.rows(120)))
        yield Scene(folder, base, data)
    finally:
        exporting.MAX_BYTES, finetuning._finish = most, finish
        shutil.rmtree(folder, ignore_errors=True)


def wait(child: int) -> int:
    """The exit code of a process, negative of the signal that killed it."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"process {child} hangs")


def _noting(finish: Callable[..., Any]) -> Callable[..., Any]:
    def note_and_finish(run: runs.Run, bench: Any, progress: Any, observe: Any) -> Any:
        state = run.folder / runs.CHECKPOINTS / f"step-{progress.step}" / "optimizer.safetensors"
        (run.folder.parent / "optimizer.txt").write_text(hashlib.sha256(state.read_bytes()).hexdigest())
        return finish(run, bench, progress, observe)

    return note_and_finish
