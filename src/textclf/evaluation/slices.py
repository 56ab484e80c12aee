"""How a model does on parts of a split: by length, by how often a label was seen, by any column of the data."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from textclf.labels import LabelSet
from textclf.metrics import LabelMetrics, measure
from textclf.proportions import wilson

MOST = 20
"""Values of a column that have a slice of their own; the rarer ones share one."""
BANDS = 5
"""Parts of about equal size that lengths, and columns of many numbers, are cut into."""
_ABSENT = "(none)"
"""The slice of rows without a value; a value that is called so stands in quotes."""
_FREQUENCIES = (0, 1, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 100_000, 1_000_000)


@dataclass(frozen=True)
class Slice:
    """Results on the rows of a split that have something in common.

    accuracy: share of the rows that were answered rightly, with all their labels; low, high: its 95 % interval
    (Wilson). macro_f1: over the labels that occur in the slice.
    """

    name: str
    rows: int
    accuracy: float
    low: float
    high: float
    macro_f1: float


@dataclass(frozen=True)
class FrequencyBand:
    """Results on labels that train has about equally often. recall, f1: means over those `labels` that the split has,
    of `rows` rows altogether."""

    name: str
    labels: int
    rows: int
    recall: float
    f1: float


@dataclass(frozen=True)
class Slices:
    """A split in parts. by_length: in tokens as the model read them. by_label_frequency: by rows in train; none where
    they are not recorded. by_column: column -> slices."""

    by_length: tuple[Slice, ...]
    by_label_frequency: tuple[FrequencyBand, ...]
    by_column: dict[str, tuple[Slice, ...]]


def slice_by(names: Sequence[str], targets: np.ndarray, probs_NC: np.ndarray, label_set: LabelSet) -> tuple[Slice, ...]:
    """Results on the rows of each name, in the order in which the names first come; names: (rows,)."""
    found = []
    order = {name: number for number, name in enumerate(dict.fromkeys(names))}
    number_N = np.fromiter((order[name] for name in names), np.int64, len(names))
    for name, number in order.items():
        chosen = np.flatnonzero(number_N == number)
        metrics = measure(targets[chosen], probs_NC[chosen], label_set)
        low, high = wilson(round(metrics.right * len(chosen)), len(chosen))
        found.append(Slice(name, len(chosen), metrics.right, low, high, metrics.macro_f1))
    return tuple(found)


def slice_by_number(
    values_N: np.ndarray, unit: str, targets: np.ndarray, probs_NC: np.ndarray, label_set: LabelSet
) -> tuple[Slice, ...]:
    """Results on bands of about equal size, the lowest values first; values_N: (rows,), of which none is NaN."""
    edges = np.unique(np.percentile(values_N, np.linspace(0, 100, BANDS + 1)[1:], method="higher"))
    band_N = np.searchsorted(edges, values_N)
    order = np.argsort(band_N, kind="stable")
    names = []
    for band in range(len(edges)):
        inside = values_N[band_N == band]
        low, high = inside.min(), inside.max()
        span = f"{low:g}" if low == high else f"{low:g} to {high:g}"
        names.append(f"{span} {unit}".strip())
    return slice_by([names[band] for band in band_N[order]], targets[order], probs_NC[order], label_set)


def slice_by_column(
    values: Sequence[Any], targets: np.ndarray, probs_NC: np.ndarray, label_set: LabelSet
) -> tuple[Slice, ...]:
    """Results by the values of a column, (rows,): many different numbers in bands, anything else by value, the most
    frequent first. Rows without a value are a slice of their own."""
    texts = ["" if value is None or value != value else str(value).strip() for value in values]  # NaN is no value
    counts = Counter(text for text in texts if text)
    numbers = {text: _number(text) for text in counts}
    if len(counts) > MOST and all(number is not None for number in numbers.values()):
        known = np.flatnonzero([bool(text) for text in texts])
        lacking = np.setdiff1d(np.arange(len(texts)), known)
        bands = slice_by_number(
            np.array([numbers[texts[row]] for row in known]), "", targets[known], probs_NC[known], label_set
        )
        absent = slice_by([_ABSENT] * len(lacking), targets[lacking], probs_NC[lacking], label_set)
        return (*bands, *absent)
    own = {text for text, _ in counts.most_common(MOST)}
    rest = f"({len(counts) - MOST:,} other values)"
    named = {text: repr(text) if text in (_ABSENT, rest) else text for text in own}
    names = [named.get(text, rest) if text else _ABSENT for text in texts]
    found = slice_by(names, targets, probs_NC, label_set)
    return tuple(sorted(found, key=lambda one: (one.name in (_ABSENT, rest), -one.rows)))


def by_label_frequency(per_label: Sequence[LabelMetrics], seen: Mapping[str, int]) -> tuple[FrequencyBand, ...]:
    """The labels that occur in a split by how many rows of train have them (`seen`), the rarest first."""
    found: list[FrequencyBand] = []
    if not seen:
        return ()
    for floor, ceiling in zip(_FREQUENCIES, (*_FREQUENCIES[1:], math.inf), strict=True):
        inside = [one for one in per_label if one.support and floor <= seen.get(one.label, 0) < ceiling]
        if inside:
            span = f"{floor:,}" if ceiling == floor + 1 else f"{floor:,} or more" if ceiling == math.inf else ""
            found.append(
                FrequencyBand(
                    name=span or f"{floor:,} to {ceiling - 1:,}",
                    labels=len(inside),
                    rows=sum(one.support for one in inside),
                    recall=float(np.mean([one.recall for one in inside])),
                    f1=float(np.mean([one.f1 for one in inside])),
                )
            )
    return tuple(found)


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
