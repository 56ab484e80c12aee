"""What the campaigns share: a tiny run by the command line in a forked process, and what is left of it, as digests.

The parent has imported what a run imports, so that a run takes two seconds instead of eight. Nothing but imports and
two patches separates it from the command: no ONNX graph is made, and a child notes the digest of the optimizer's state,
which goes with the checkpoints when the run is done.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
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
IMPORTED = "imported.txt"
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

        def give_command() -> int:
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
            return code

        return forked(place, give_command)

    def finish(self, place: Path) -> Outcome:
        """Give the command to its end, and say what came of it. Raises FailedError for another exit code than 0."""
        finished(self.start(place), place)
        run = runs.read(place / "run")
        assert run is not None and run.state == "done"
        figures = (place / "run/metrics.jsonl").read_text()
        return Outcome(
            hashlib.sha256((place / "run/model/model.safetensors").read_bytes()).hexdigest(),
            (place / "optimizer.txt").read_text(),
            hashlib.sha256((figures + json.dumps(run.metrics, sort_keys=True)).encode()).hexdigest(),
            (place / "predictions.txt").read_text(),
        )

    def where(self, place: Path) -> str:
        """How far a run had come, by what it left."""
        run = place / "run"
        if not (run / "run.json").exists():
            return "before the run folder"
        if (run / "model").exists():
            return "after the model"
        if drafts := list(run.rglob("*.tmp")):
            return f"within a write of {drafts[0].name.split('.')[1].rstrip('-0123456789')}"
        return "between steps" if list(run.glob("checkpoints/step-*")) else "before the first checkpoint"


@contextlib.contextmanager
def scene() -> Iterator[Scene]:
    """A scene in a folder of its own, gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="textclf-reliability-"))
    most, finish = exporting.MAX_BYTES, finetuning.finish
    exporting.MAX_BYTES = 0
    finetuning.finish = _noting(finish)  # type: ignore[assignment]
    try:
        base = tiny_models.pretrained(folder / "base")
        data = folder / "tickets.csv"
        data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in tiny_models.rows(120)))
        yield Scene(folder, base, data)
    finally:
        exporting.MAX_BYTES, finetuning.finish = most, finish
        shutil.rmtree(folder, ignore_errors=True)


class FailedError(Exception):
    """A run that was to end well did not; the message ends with the last line that it wrote."""


def forked(place: Path, work: Callable[[], int]) -> int:
    """Fork a process that works in `place`, ends with the exit code that `work` returns, and writes what it says to a
    file there. Returns its id."""
    place.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with (place / "output.txt").open("ab", buffering=0) as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        code = work()
        (place / IMPORTED).write_text("\n".join(sys.modules))
    except Exception:  # noqa: BLE001  # else the child would go on as its parent
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def finished(child: int, place: Path) -> None:
    """Wait for a forked process that shall end well. Raises FailedError where it does not.

    What it has imported is imported here too, so that the next has it from the start: half of a run's time.
    """
    code = wait(child)
    if code != 0:
        said = (place / "output.txt").read_text(errors="replace").splitlines() or [""]
        raise FailedError(f"exit {code}: {said[-1][:500]}")
    for name in (place / IMPORTED).read_text().splitlines():
        if name not in sys.modules:
            with contextlib.suppress(Exception):  # names of modules that were made, not imported
                importlib.import_module(name)


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
