"""Kill a run at random moments by SIGKILL, give the same command again, and compare what comes of it."""

from __future__ import annotations

import collections
import os
import random
import shutil
import signal
import time

from .scene import scene, wait


def campaign(count: int, *, seed: int = 0, say: bool = False) -> dict[str, object]:
    """`count` runs, each killed once at a moment drawn evenly from an undisturbed run's duration, then finished.

    Returns how many were killed, how many ended as the undisturbed one, and where the kills fell.
    """
    draw = random.Random(seed)
    with scene() as stage:
        wanted = stage.finish(stage.folder / "undisturbed")
        started = time.monotonic()
        assert stage.finish(stage.folder / "again") == wanted, "two undisturbed runs differ: nothing can be compared"
        duration = time.monotonic() - started
        equal = killed = 0
        where: collections.Counter[str] = collections.Counter()
        different = []
        while killed < count:
            place = stage.folder / "place"
            delay = draw.uniform(0, duration)
            child = stage.start(place)
            time.sleep(delay)
            os.kill(child, signal.SIGKILL)
            if wait(child) != -signal.SIGKILL:  # it had ended before; not counted, drawn anew
                shutil.rmtree(place)
                continue
            killed += 1
            where[_where(place)] += 1
            if stage.finish(place) == wanted:
                equal += 1
            else:
                different.append(round(delay, 4))
            if say and killed % 10 == 0:
                print(f"{equal}/{killed} equal", flush=True)
            shutil.rmtree(place)
    return {"killed": killed, "equal": equal, "different_after_seconds": different, "kills_fell": dict(where)}


def _where(place: object) -> str:
    from pathlib import Path

    run = Path(str(place)) / "run"
    if not (run / "run.json").exists():
        return "before the run folder"
    if (run / "model").exists():
        return "after the model"
    steps = [path.name for path in (run / "checkpoints").glob("step-*")] if (run / "checkpoints").exists() else []
    drafts = list(run.rglob("*.tmp"))
    if drafts:
        return f"within a write of {drafts[0].name.split('.')[1].rstrip('-0123456789')}"
    return "between steps" if steps else "before the first checkpoint"
