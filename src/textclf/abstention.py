"""When a model should rather not answer: how right its answers are from which confidence on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from textclf.errors import ModelError, UsageError
from textclf.proportions import wilson

POINTS = 200
"""Of a curve: steps of half a percent of the texts."""


@dataclass(frozen=True)
class CoveragePoint:
    """What answering from a confidence of `threshold` on means: the share of texts that get an answer (coverage), and
    the share of these answers that are right (accuracy). All 0 to 1."""

    threshold: float
    coverage: float
    accuracy: float


@dataclass(frozen=True)
class Abstention:
    """A split, answered from a confidence of `threshold` on.

    target: the accuracy on validation that chose the threshold, None where it was given. answered: texts, or
    questions, that get an answer; coverage: their share. accuracy: share of the answers that are right, None without
    any; low, high: its 95 % interval (Wilson).
    """

    threshold: float
    target: float | None
    answered: int
    coverage: float
    accuracy: float | None
    low: float | None
    high: float | None


def coverage_curve(confidence_N: np.ndarray, right_N: np.ndarray) -> tuple[CoveragePoint, ...]:
    """Coverage and accuracy by threshold, from all texts down to the surest half percent of them.

    confidence_N: (rows,) the probability of each answer; right_N: (rows,) bool, whether it is right.
    """
    order_N = np.argsort(-confidence_N, kind="stable")
    ranked_N, right_N = confidence_N[order_N], np.cumsum(right_N[order_N])
    rows = len(ranked_N)
    # Texts of one confidence are answered together or not at all: only where it falls may a point lie.
    ends = np.append(np.flatnonzero(np.diff(ranked_N)), rows - 1)
    wanted = np.ceil(rows * np.arange(POINTS, 0, -1) / POINTS).astype(np.int64) - 1
    chosen = np.unique(ends[np.searchsorted(ends, wanted)])[::-1]
    return tuple(
        CoveragePoint(float(ranked_N[end]), float((end + 1) / rows), float(right_N[end] / (end + 1)))
        for end in chosen.tolist()
    )


def threshold_for(curve: Sequence[CoveragePoint], target: float) -> CoveragePoint:
    """The point with the most answers of which this share is right, 0 to 1. Raises UsageError where none is."""
    reached = [point for point in curve if point.accuracy >= target]
    if not reached:
        best = max(curve, key=lambda point: (point.accuracy, point.coverage))
        raise UsageError(
            f"no threshold reaches an accuracy of {target:g} on validation; the best is {best.accuracy:.4f}, "
            f"for {best.coverage:.1%} of the texts",
            hint="ask for less, or give a threshold of your own by --abstain-below",
        )
    return max(reached, key=lambda point: point.coverage)


def abstain(
    confidence_N: np.ndarray, right_N: np.ndarray, threshold: float, *, target: float | None = None
) -> Abstention:
    """What becomes of texts that are answered from this confidence on only. Arrays as of `coverage_curve`."""
    answered_N = confidence_N >= np.float32(threshold)
    answered, right = int(answered_N.sum()), int(right_N[answered_N].sum())
    if not answered:
        return Abstention(threshold, target, 0, 0.0, None, None, None)
    return Abstention(
        threshold, target, answered, answered / len(answered_N), right / answered, *wilson(right, answered)
    )


def as_points(curve: Sequence[CoveragePoint]) -> list[dict[str, float]]:
    """Plain values, ready for JSON."""
    return [asdict(point) for point in curve]


def read_curve(document: Any, *, where: str) -> tuple[CoveragePoint, ...]:
    """The curve that `as_points` made. Raises ModelError, naming `where`, for anything else."""
    try:
        curve = tuple(
            CoveragePoint(*(float(one[name]) for name in ("threshold", "coverage", "accuracy"))) for one in document
        )
    except (TypeError, KeyError, ValueError):
        curve = ()
    if not curve or not all(0 <= value <= 1 for point in curve for value in asdict(point).values()):
        raise ModelError(f"{where}: the coverage curve in textclf.json is damaged", hint="copy the model folder again")
    return curve
