"""Which words an answer rests on: each is left out in turn, and its weight is what the answer's probability loses."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

MOST = 64
"""Parts of a text that are left out in turn; of a longer one, neighbouring words go together."""
# A character of scripts without blanks between words; a word; a run of other signs.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+|[^\w\s]+")


@dataclass(frozen=True)
class Word:
    """A part of a text: text[start:end], in characters. weight: the probability of the label that was answered, less
    what it is without this part; below 0 where the part speaks against the label."""

    text: str
    start: int
    end: int
    weight: float


def words(text: str) -> list[tuple[int, int]]:
    """Where the words of a text begin and end, at most MOST, so that an explanation costs at most as many answers."""
    spans = [match.span() for match in _WORD.finditer(text)]
    together = -(-len(spans) // MOST) or 1
    groups = [spans[first : first + together] for first in range(0, len(spans), together)]
    return [(group[0][0], group[-1][1]) for group in groups]


def without(text: str, spans: Sequence[tuple[int, int]]) -> Iterator[str]:
    """The text with each span left out in turn, and with it one of the blanks around it."""
    for start, end in spans:
        before, after = text[:start], text[end:]
        yield before + (after.lstrip() if not before or before[-1].isspace() else after)


def weighed(text: str, spans: Sequence[tuple[int, int]], whole: float, left_W: np.ndarray) -> tuple[Word, ...]:
    """The words of a text; whole: the probability of the label, left_W: (words,) without each word."""
    return tuple(
        Word(text[start:end], start, end, whole - float(left)) for (start, end), left in zip(spans, left_W, strict=True)
    )
