"""Kill a run at random moments by SIGKILL, give the same command again, and compare what comes of it."""

from __future__ import annotations

import collections
import os
import random
import shutil
import signal
import sys
import time
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from .scene import FailedError, scene, wait


class Stage(Protocol):
    """Where runs are played: scene.py has ours, trainer.py that of transformers.

    folder: for their places. start: begin a run in a place, or go on with it, in a forked process; its id. finish: the
    same to its end; what came of it, or FailedError. where: how far a killed run had come, in words.
    """

    @property
    def folder(self) -> Path: ...
    def start(self, place: Path) -> int: ...
    def finish(self, place: Path) -> object: ...
    def where(self, place: Path) -> str: ...


def campaign(*, count: int, seed: int = 0, stage: AbstractContextManager[Stage] | None = None) -> dict[str, object]:
    """`count` runs, each killed once at a moment drawn evenly from an undisturbed run's duration, then finished.

    Returns how many were killed, how many ended as the undisturbed one, which did not, and where the kills fell.
    """
    draw = random.Random(seed)
    with stage or scene() as played:
        wanted = played.finish(played.folder / "undisturbed")
        started = time.monotonic()
        assert played.finish(played.folder / "again") == wanted, "two undisturbed runs differ: nothing can be compared"
        duration = time.monotonic() - started
        ends: collections.Counter[str] = collections.Counter()
        fell: collections.Counter[str] = collections.Counter()
        wrong = []
        while (killed := sum(fell.values())) < count:
            place = played.folder / "place"
            delay = draw.uniform(0, duration)
            child = played.start(place)
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
            if wait(child) != -signal.SIGKILL:  # it had ended before; not counted, drawn anew
                shutil.rmtree(place)
                continue
            where = played.where(place)
            fell[where] += 1
            try:
                end = "equal" if played.finish(place) == wanted else "different"
            except FailedError as err:
                end = "failed"
                where += f": {err}"
            ends[end] += 1
            if end != "equal":
                wrong.append(f"{end} after {delay:.4f} s, {where}")
            if (killed + 1) % 10 == 0:
                print(f"{ends['equal']} of {killed + 1} equal", file=sys.stderr, flush=True)
            shutil.rmtree(place)
    return {"killed": count, "seconds_of_a_run": round(duration, 2), **ends, "wrong": wrong, "kills_fell": dict(fell)}
