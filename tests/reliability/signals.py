"""Send signals to a run in every one of its phases; look at the exit code, and at what the same command makes of it."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from typing import Any

from textclf.artifact import runs
from textclf.data import preparation
from textclf.model.classifier import Classifier
from textclf.training import checkpoint, finishing, learning, loop, workbench
from textclf.training.probe import Regression

from .scene import scene, wait

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PHASES: dict[str, tuple[Any, str, int]] = {
    "reading the data": (preparation, "open_source", 1),
    "fetching the model": (workbench, "_fetch", 2),
    "tokenising": (workbench, "encode_kept", 1),
    "fitting the probe": (Regression, "fit", 1),
    "a forward pass of a step": (Classifier, "forward", 8),
    "between passes of a step": (loop, "clip", 3),
    "evaluating": (learning, "score", 2),
    "writing a checkpoint": (checkpoint, "_write", 4),
    "measuring the result": (finishing, "split_logits", 1),
    "exporting": (finishing, "write_graph", 1),
    "writing run.json": (runs.Run, "update", 3),
}
"""Phase -> the function that a signal comes in, at its nth call."""
WAYS = ("once", "twice", "once, then another")


def campaign(*, phases: list[str] | None = None, numbers: tuple[signal.Signals, ...] = STOPPING) -> dict[str, object]:
    """Every phase, signal and way. Returns how many did as specified, and a line for each that did not."""
    wrong, tried = [], 0
    with scene() as stage:
        wanted = stage.finish(stage.folder / "undisturbed")
        for phase in phases or PHASES:
            for number in numbers:
                for way in WAYS:
                    place = stage.folder / "place"
                    second = {"once": None, "twice": number}.get(way, _other(number))
                    code = wait(stage.start(place, _within(phase, number, second)))
                    tried += 1
                    # With a second, different signal the process ends by whichever it obeyed.
                    right = {128 + number} | ({128 + second} if second is not None else set())
                    said = f"{phase}, {number.name} {way}"
                    if code not in right:
                        wrong.append(f"{said}: exit {code}")
                    if stage.finish(place) != wanted:
                        wrong.append(f"{said}: another result")
                    shutil.rmtree(place)
    return {"tried": tried, "wrong": wrong}


def at_step(step: int, number: signal.Signals) -> Callable[[], None]:
    """For a child: a signal in that optimizer step."""
    return lambda: _send_in(loop, "clip", step, number, None)


def _other(number: signal.Signals) -> signal.Signals:
    return STOPPING[(STOPPING.index(number) + 1) % len(STOPPING)]


def _within(phase: str, number: signal.Signals, second: signal.Signals | None) -> Callable[[], None]:
    return lambda: _send_in(*PHASES[phase], number, second)


def _send_in(room: Any, name: str, nth: int, number: signal.Signals, second: signal.Signals | None) -> None:
    function, calls = getattr(room, name), 0

    def signalled(*arguments: Any, **settings: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth:
            try:
                os.kill(os.getpid(), number)
            finally:
                if second is not None:
                    os.kill(os.getpid(), second)
        return function(*arguments, **settings)

    setattr(room, name, signalled)
