"""From which probability on a label is given: chosen on validation, where a text may have any number of labels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from textclf.labels import HALF, LabelSet
from textclf.metrics import LOWER_IS_BETTER, measure

FOLDS = 5
GRID = np.arange(0.05, 0.96, 0.025).round(3)
"""Thresholds that are tried. Beyond them a threshold rests on a handful of texts."""
LEAST_GAIN = 0.002
"""What a rule must gain over a simpler one in cross-validation: less is chance."""
SHRINK = 4.0
"""Texts that the common threshold counts for where a label's own is fitted: a label of two texts keeps near it."""

Fit = Callable[[np.ndarray, np.ndarray], np.ndarray]


def fit_thresholds(
    targets: np.ndarray, probs_NC: np.ndarray, label_set: LabelSet, *, metric: str, seed: int
) -> tuple[LabelSet, str]:
    """The multi-label set with the decision rule that is best on these rows, and a sentence about the choice.

    A threshold of 0.5 for all labels, one fitted for all, or one fitted for each (by F1) are compared by `metric` in
    cross-validation: on rows that they were not fitted on, as more thresholds always look better on rows that they
    were.
    """
    rules: dict[str, Fit] = {
        "0.5 for every label": lambda targets_NC, _: np.full(targets_NC.shape[1], HALF),
        "one for all labels": _common,
        "one for each label": _own,
    }
    scores = {
        name: _held_out(fit, targets, probs_NC, label_set, metric=metric, seed=seed) for name, fit in rules.items()
    }
    chosen = "0.5 for every label"
    for name in rules:
        if scores[name] > scores[chosen] + LEAST_GAIN:
            chosen = name
    thresholds_C = rules[chosen](targets, probs_NC)
    found = ", ".join(f"{name} {abs(score):.4f}" for name, score in scores.items())
    span = f"{thresholds_C.min():.3g}" + (f" to {thresholds_C.max():.3g}" if np.ptp(thresholds_C) else "")
    said = f"thresholds: {chosen} ({span}); {metric} on held-out validation: {found}"
    return replace(label_set, thresholds=tuple(float(one) for one in thresholds_C)), said


def _held_out(
    fit: Fit, targets_NC: np.ndarray, probs_NC: np.ndarray, label_set: LabelSet, *, metric: str, seed: int
) -> float:
    """The metric, higher being better, of thresholds that were fitted on other rows; the mean of the folds."""
    folds = np.array_split(np.random.default_rng([seed, 3]).permutation(len(targets_NC)), FOLDS)
    scores = []
    for number, rows in enumerate(folds):
        if not len(rows):
            continue
        others = np.concatenate([fold for place, fold in enumerate(folds) if place != number])
        fitted = replace(label_set, thresholds=tuple(fit(targets_NC[others], probs_NC[others]).tolist()))
        scores.append(measure(targets_NC[rows], probs_NC[rows], fitted).as_dict()[metric])
    return float(np.mean(scores)) * (-1 if metric in LOWER_IS_BETTER else 1)


def _common(targets_NC: np.ndarray, probs_NC: np.ndarray) -> np.ndarray:
    """The threshold with the best micro-F1, for every label."""
    counts_G3 = _counts(targets_NC, probs_NC).sum(axis=1)
    return np.full(targets_NC.shape[1], GRID[_best(_f1(counts_G3))])


def _own(targets_NC: np.ndarray, probs_NC: np.ndarray) -> np.ndarray:
    """For each label the threshold with the best F1, drawn to the common one by what all labels show."""
    counts_GC3 = _counts(targets_NC, probs_NC)
    all_G3 = counts_GC3.sum(axis=1)
    support = max(1.0, float(targets_NC.sum()))
    f1_GC = _f1(counts_GC3 + SHRINK * all_G3[:, np.newaxis] / support)
    return GRID[[_best(f1_GC[:, label]) for label in range(targets_NC.shape[1])]]


def _counts(targets_NC: np.ndarray, probs_NC: np.ndarray) -> np.ndarray:
    """Right, wrongly added and missed answers of each label at each threshold: (GRID, num_labels, 3)."""
    counts = []
    for threshold in GRID.astype(np.float32):
        given_NC = probs_NC >= threshold
        right_C = (given_NC & (targets_NC == 1)).sum(axis=0)
        counts.append(np.stack([right_C, given_NC.sum(axis=0) - right_C, targets_NC.sum(axis=0) - right_C], axis=-1))
    return np.array(counts, dtype=np.float64)


def _f1(counts: np.ndarray) -> np.ndarray:
    right, added, missed = np.moveaxis(counts, -1, 0)
    return 2 * right / np.maximum(2 * right + added + missed, 1e-12)  # type: ignore[no-any-return]


def _best(f1_G: np.ndarray) -> int:
    """The best place, of equal ones that which is nearest to 0.5."""
    best = np.flatnonzero(f1_G >= f1_G.max() - 1e-12)
    return int(best[np.abs(GRID[best] - HALF).argmin()])
