"""Where the figures of a run go: the JSONL file that is always written."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self


class Tracker(Protocol):
    """Takes the figures of a run, inside a `with`."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def log(self, metrics: dict[str, Any], step: int) -> None:
        """Keep figures that hold after `step` optimizer steps."""


class JsonlTracker:
    """One JSON object per line, `{"step": ..., ...}`. A resumed run continues after the step it resumed from."""

    def __init__(self, path: Path, *, resume_at: int = 0) -> None:
        self._path = path
        self._resume_at = resume_at

    def __enter__(self) -> Self:
        kept = []
        if self._resume_at and self._path.exists():
            for line in self._path.read_text(encoding="utf-8").split("\n"):
                try:
                    if json.loads(line)["step"] <= self._resume_at:
                        kept.append(line + "\n")
                except (ValueError, KeyError, TypeError):
                    continue  # the last line of a killed run
        self._path.write_text("".join(kept), encoding="utf-8")
        self._file = self._path.open("a", encoding="utf-8", newline="\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def log(self, metrics: dict[str, Any], step: int) -> None:
        self._file.write(json.dumps({"step": step, **metrics}, ensure_ascii=False) + "\n")
        self._file.flush()
