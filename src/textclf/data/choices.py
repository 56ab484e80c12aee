"""A question's choices: checked, as a model reads them, and scored by what it says. No arrow: predict starts here."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from textclf.errors import DataError

CORRECT = "correct"
VERDICTS = ("incorrect", CORRECT)
"""Labels of the binary form."""
LETTERS = string.ascii_uppercase


def shown(choices: Sequence[str]) -> str:
    """Choices as a multiclass model reads them: `A. one`, `B. other`, a line each."""
    return "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))


def checked_choices(values: Any, where: str, *, padded: bool = False) -> tuple[str, ...]:
    """The choices of a question as texts. padded: what is empty at the end is no choice.

    Raises DataError, beginning with `where`, unless they are two or more texts.
    """
    if values is None or (isinstance(values, list) and not values):
        raise DataError(f"{where}: the question has no choices", hint="a question needs two choices or more")
    if isinstance(values, (str, bytes)) or not isinstance(values, (list, tuple, np.ndarray)):
        raise DataError(
            f"{where}: choices are {kind_of(values)}, not a list",
            hint='write them as a list, ["one", "two"], or in columns of their own: choice1, choice2, ...',
        )
    found = list(values)
    while padded and found and (found[-1] is None or found[-1] == ""):
        found.pop()
    for number, choice in enumerate(found, start=1):
        if choice is None or isinstance(choice, (list, dict)) or (padded and choice == ""):
            what = "missing" if choice is None or choice == "" else f"{kind_of(choice)}, not a text"
            raise DataError(f"{where}: choice {number} of {len(found)} is {what}", hint="give every choice a text")
    if len(found) < 2:
        raise DataError(
            f"{where}: the question has {'one choice only' if found else 'no choices'}",
            hint="a question needs two choices or more; leave the row out",
        )
    if len(found) > len(LETTERS):
        raise DataError(f"{where}: {len(found)} choices; up to {len(LETTERS)} can be told apart by letters")
    return tuple(str(choice) for choice in found)


def choice_scores(probs_NC: np.ndarray, count_Q: np.ndarray, labels: Mapping[str, int], *, binary: bool) -> np.ndarray:
    """How probable each choice is to be the answer: (questions, most choices) float64, rows sum to 1, 0 where a
    question has no such choice.

    probs_NC: of rows as `formed` makes them, for questions of so many choices. labels: names of its columns.
    Binary: one choice is right, and each was judged by itself, so their odds are compared.
    """
    most = int(count_Q.max(initial=0))
    there_QK = np.arange(most) < count_Q[:, np.newaxis]
    scores_QK = np.zeros(there_QK.shape)
    if binary:
        right_N = probs_NC[:, labels[CORRECT]].astype(np.float64)
        tiny = np.finfo(np.float32).tiny
        scores_QK[there_QK] = np.maximum(right_N, tiny) / np.maximum(1 - right_N, np.finfo(np.float32).eps / 2)
    else:
        for place, letter in enumerate(LETTERS[:most]):
            if letter in labels:
                scores_QK[:, place] = probs_NC[:, labels[letter]]
        scores_QK = np.where(there_QK, np.maximum(scores_QK, np.finfo(np.float32).tiny), 0.0)
    return scores_QK / scores_QK.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]


def kind_of(value: Any) -> str:
    """What a value is, for messages."""
    kinds = {str: "a text", list: "a list", dict: "an object", bool: "true or false"}
    return kinds.get(type(value), "a number")
