"""Texts of quite another kind than a model was made for: a score that tells them, from the logits alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from textclf.errors import ModelError
from textclf.proportions import Z, wilson

POINTS = 201
"""Of the scale: a point for each half percent of the validation texts."""
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2)
"""Thresholds that a report tries."""


def energy(logits_NC: np.ndarray) -> np.ndarray:
    """The negative free energy of each text (Liu et al. 2020): (rows,) float64, high for texts like those of training.

    It is the log of the sum of what softmax divides by: probabilities say which label is likelier than others, this
    says whether any is likely. logits_NC: (rows, num_labels), of one label a text.
    """
    return np.logaddexp.reduce(logits_NC.astype(np.float64), axis=1)  # type: ignore[no-any-return]


def scale_of(energy_N: np.ndarray) -> list[float]:
    """The scale on which `in_scope` reads energies: quantiles of those of validation, ready for JSON."""
    return [float(f"{value:.6g}") for value in np.quantile(energy_N, np.linspace(0, 1, POINTS))]


def read_scale(document: Any, *, where: str) -> np.ndarray:
    """The scale that `scale_of` made: (POINTS,) float64. Raises ModelError, naming `where`, for anything else."""
    try:
        scale = np.array(document, dtype=np.float64)
    except (TypeError, ValueError):
        scale = np.zeros(0)
    if scale.ndim != 1 or len(scale) < 2 or not np.isfinite(scale).all() or (np.diff(scale) < 0).any():
        raise ModelError(f"{where}: the scope in textclf.json is damaged", hint="copy the model folder again")
    return scale


def in_scope(energy_N: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Which share of the validation texts looked less like training than each text: (rows,) float64, 0 to 1.

    Near 0 for a text that is unlike them, as a p-value is.
    """
    return np.interp(energy_N, scale, np.linspace(0, 1, len(scale)))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ScopePoint:
    """What refusing texts whose `in_scope` is below `threshold` does.

    answered: share of the texts in scope that keep their answer. accuracy: share of these answers that are right, None
    without any. refused: share of the texts out of scope that get none, None where there are no such texts.
    """

    threshold: float
    answered: float
    accuracy: float | None
    refused: float | None


@dataclass(frozen=True)
class ScopeReport:
    """How well a model tells texts out of its scope.

    label: what those texts are labelled with, None where there are none. rows, outside: texts in and out of scope.
    auroc: how probable it is that a text in scope scores higher than one outside; low, high: its 95 % interval
    (Newcombe 2006). fpr95: share of the texts outside that would be answered where 95 % of those in scope are. All
    three are None without texts outside. asked: at the threshold that was asked for, None where none was. refused_low,
    refused_high: the 95 % interval of its `refused` (Wilson). points: at some thresholds.
    """

    label: str | None
    rows: int
    outside: int
    auroc: float | None
    low: float | None
    high: float | None
    fpr95: float | None
    asked: ScopePoint | None
    refused_low: float | None
    refused_high: float | None
    points: tuple[ScopePoint, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def measure_scope(
    inside_N: np.ndarray,
    right_N: np.ndarray,
    outside_M: np.ndarray,
    scale: np.ndarray,
    *,
    label: str | None = None,
    threshold: float | None = None,
) -> ScopeReport:
    """Measure energies of texts in scope and outside.

    right_N: (rows,) bool, whether each text in scope is answered rightly. threshold: what was asked for, 0 to 1.
    """
    shares_N, shares_M = in_scope(inside_N, scale), in_scope(outside_M, scale)

    def at(share: float) -> ScopePoint:
        kept_N = shares_N >= share
        return ScopePoint(
            share,
            float(kept_N.mean()),
            float(right_N[kept_N].mean()) if kept_N.any() else None,
            float((shares_M < share).mean()) if len(shares_M) else None,
        )

    auroc = low = high = fpr95 = refused_low = refused_high = None
    if len(outside_M):
        auroc = area(inside_N, outside_M)
        low, high = area_interval(auroc, len(inside_N), len(outside_M))
        fpr95 = float((outside_M >= np.quantile(inside_N, 0.05, method="lower")).mean())
        if threshold is not None:
            refused_low, refused_high = wilson(int((shares_M < threshold).sum()), len(shares_M))
    return ScopeReport(
        label,
        len(inside_N),
        len(outside_M),
        auroc,
        low,
        high,
        fpr95,
        None if threshold is None else at(threshold),
        refused_low,
        refused_high,
        tuple(at(share) for share in SHARES),
    )


def area(inside_N: np.ndarray, outside_M: np.ndarray) -> float:
    """How probable it is that a text in scope scores higher than one outside; equal scores count a half."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([inside_N, outside_M]))[: len(inside_N)]
    return float((ranks.mean() - (len(inside_N) + 1) / 2) / len(outside_M))


def area_interval(auroc: float, inside: int, outside: int) -> tuple[float, float]:
    """The 95 % interval of such an area, from so many texts in scope and outside.

    The areas from which this one is no more than 1.96 standard deviations away, these by Hanley and McNeil (Newcombe
    2006, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic", method 5): not certain
    of anything even where every text is told rightly.
    """
    from scipy.optimize import brentq

    def beyond(true: float) -> float:
        spread = 1 + ((inside + outside) / 2 - 1) * ((1 - true) / (2 - true) + true / (1 + true))
        return (auroc - true) ** 2 * inside * outside - Z**2 * true * (1 - true) * spread

    low = 0.0 if auroc <= 0 else float(brentq(beyond, 0.0, min(auroc, 1 - 1e-9)))
    high = 1.0 if auroc >= 1 else float(brentq(beyond, max(auroc, 1e-9), 1.0))
    return low, high
