"""What a run tells of itself while it goes on. Light: no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from textclf.metrics import AnyMetrics


@dataclass(frozen=True)
class Notice:
    """One line for the user: what was chosen and why, or what to know."""

    message: str


@dataclass(frozen=True)
class Phase:
    """Part of the work before or after the steps: `done` of `total` texts; total: None where nothing is counted."""

    name: str
    done: int = 0
    total: int | None = None


@dataclass(frozen=True)
class StepDone:
    """After an optimizer step. loss: mean of the last steps; seconds_left: as expected, evaluations included."""

    step: int
    steps: int
    epoch: float
    loss: float
    learning_rate: float
    texts_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class Evaluated:
    """After an evaluation on validation. best: whether this is the best so far."""

    step: int
    steps: int
    epoch: float
    loss: float
    metrics: AnyMetrics
    best: bool
    seconds: float


Event = Notice | Phase | StepDone | Evaluated
Observer = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The observer of a library call that wants no news."""
