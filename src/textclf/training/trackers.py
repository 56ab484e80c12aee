"""Where the figures of a run go: the JSONL file that is always written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from textclf import atomic
from textclf.training.events import Notice, Observer


class Tracker(Protocol):
    """Takes the figures of a run, inside a `with`."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """Keep figures that hold after `step` optimizer steps."""

    def sync(self) -> None:
        """See to it that what was logged outlasts a loss of power; called before a checkpoint is written."""


class JsonlTracker:
    """One JSON object per line, `{"step": ..., ...}`. A resumed run continues after what its checkpoint had seen.

    resume_at, evaluated_at: steps done, and last evaluated, in that checkpoint.
    """

    def __init__(self, path: Path, *, resume_at: int = 0, evaluated_at: int = -1) -> None:
        self._path = path
        self._resume_at = resume_at
        self._evaluated_at = evaluated_at

    def __enter__(self) -> Self:
        kept = []
        if self._path.exists():
            for line in self._path.read_text(encoding="utf-8").split("\n"):
                try:
                    entry = json.loads(line)
                    if entry["step"] <= (self._evaluated_at if "validation" in entry else self._resume_at):
                        kept.append(line + "\n")
                except (ValueError, KeyError, TypeError):
                    continue  # the last line of a killed run
        atomic.write_text(self._path, "".join(kept))
        self._file = self._path.open("a", encoding="utf-8", newline="\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def log(self, metrics: dict[str, Any], step: int) -> None:
        self._file.write(json.dumps({"step": step, **metrics}, ensure_ascii=False) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """As `Tracker.sync`."""
        os.fsync(self._file.fileno())


class Tolerant:
    """A tracker whose failures stop nothing: the first is said, and from then on it is left alone."""

    def __init__(self, tracker: Tracker, observe: Observer) -> None:
        self._tracker = tracker
        self._observe = observe
        self._is_well = True

    def __enter__(self) -> Self:
        self._try(self._tracker.__enter__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._try(self._tracker.__exit__, kind, error, trace, even_ill=True)

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """As `Tracker.log`."""
        self._try(self._tracker.log, metrics, step)

    def sync(self) -> None:
        """As `Tracker.sync`."""
        self._try(self._tracker.sync)

    def _try(self, act: Callable[..., object], *arguments: Any, even_ill: bool = False) -> None:
        if not self._is_well and not even_ill:
            return
        try:
            act(*arguments)
        except Exception as err:  # noqa: BLE001  # whatever a tracker raises, the run is worth more
            was_well, self._is_well = self._is_well, False
            if not was_well:
                return
            self._observe(Notice(f"no more figures are kept, training goes on: {type(err).__name__}: {err}"))
