"""Figures of several rounds: median and range, and how many times better one contender is than another."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .lines import Comparison

Rounds = Mapping[str, Sequence[Mapping[str, Any]]]
"""Contender -> the figures of each round; a round that failed has `error` in place of them."""


@dataclass(frozen=True)
class Spread:
    """Median and range of one figure over rounds."""

    median: float
    low: float
    high: float
    rounds: int


def spread(values: Sequence[float]) -> Spread | None:
    """None where no round gave the figure."""
    return Spread(statistics.median(values), min(values), max(values), len(values)) if values else None


def figure_names(rounds: Rounds) -> list[str]:
    """The names of the numbers that any contender gave, in the order in which they first came."""
    found: dict[str, None] = {}
    for results in rounds.values():
        for result in results:
            found |= dict.fromkeys(name for name, value in result.items() if isinstance(value, int | float))
    return list(found)


def values(rounds: Rounds, contender: str, figure: str) -> list[float]:
    """One figure of one contender, of the rounds that gave it."""
    return [result[figure] for result in rounds.get(contender, ()) if figure in result]


def ratio(rounds: Rounds, comparison: Comparison) -> Spread | None:
    """How many times better ours is, computed round by round, so that both sides saw the same state of the machine."""
    pairs = zip(rounds.get(comparison.ours, ()), rounds.get(comparison.peer, ()), strict=False)
    figures = [
        (ours[comparison.figure], peer[comparison.figure])
        for ours, peer in pairs
        if comparison.figure in ours and comparison.figure in peer
    ]
    if comparison.better == "less":
        figures = [(peer, ours) for ours, peer in figures]
    return spread([better / worse for better, worse in figures if worse])


def agreement(answers: Sequence[str], reference: Sequence[str]) -> float:
    """Share of texts with the same answer. Raises ValueError where the numbers of texts differ."""
    same = [one == other for one, other in zip(answers, reference, strict=True)]
    return sum(same) / len(same)
