"""What a benchmark is made of: lines of contenders, and which of them are compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True)
class Setting:
    """How large, where and on what to measure.

    small: seconds instead of minutes, with texts that textclf brings itself. device: cpu or cuda.
    data: folder of the real data sets; None where there is none. scratch: a folder for what the lines make.
    """

    small: bool
    device: Literal["cpu", "cuda"]
    data: Path | None
    scratch: Path


@dataclass(frozen=True)
class Contender:
    """One side of a line: `module:function` of this package, called with `arguments` in a process of its own.

    The function returns figures by name: numbers, and under `answers`, if it gives any, one label per text.
    """

    name: str
    function: str
    arguments: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Comparison:
    """How many times better ours is than the peer by one figure. goal: the least that is wanted, if any."""

    ours: str
    peer: str
    figure: str
    better: Literal["more", "less"] = "more"
    goal: float | None = None


@dataclass(frozen=True)
class Line:
    """One line of the table: its contenders take turns, round by round.

    setup: run once before the rounds, each in a process of its own, to make what the contenders read.
    reference: the contender whose answers the others' are compared with, as the figure `agreement`.
    seeded: the contenders take a `seed`, the number of the round; finished rounds are kept and not run again.
    needs_data: whether it needs the real data sets.
    """

    name: str
    title: str
    contenders: tuple[Contender, ...]
    comparisons: tuple[Comparison, ...] = ()
    setup: tuple[Contender, ...] = ()
    reference: str | None = None
    seeded: bool = False
    needs_data: bool = True
