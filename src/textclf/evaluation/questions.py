"""How questions with choices were answered: accuracy with its interval beside chance, and by subject."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from textclf.data.forms import Questions
from textclf.labels import LabelSet
from textclf.proportions import wilson


@dataclass(frozen=True)
class Answered:
    """Questions that were answered by their best choice.

    accuracy: share of them that were answered rightly; low, high: its 95 % interval (Wilson). chance: the accuracy of
    answers at random. All 0 to 1.
    """

    questions: int
    right: int
    accuracy: float
    low: float
    high: float
    chance: float


@dataclass(frozen=True)
class QuestionReport:
    """All questions of a split, and those of each subject, by name; none where the data names no subjects."""

    all: Answered
    subjects: dict[str, Answered]


def report_questions(questions: Questions, probs_NC: np.ndarray, label_set: LabelSet) -> QuestionReport:
    """Judge the best choice of every question. probs_NC: (rows, num_labels), of the rows that the questions are."""
    right_Q = questions.right(probs_NC, label_set.label2id)
    subjects = np.array(questions.subjects, dtype=object)
    return QuestionReport(
        all=_answered(right_Q, questions.count_Q),
        subjects={
            name: _answered(right_Q[subjects == name], questions.count_Q[subjects == name])
            for name in sorted(set(questions.subjects))
            if name
        },
    )


def _answered(right_Q: np.ndarray, count_Q: np.ndarray) -> Answered:
    right, total = int(right_Q.sum()), len(right_Q)
    low, high = wilson(right, total)
    return Answered(total, right, right / total, low, high, float((1 / count_Q).mean()))
