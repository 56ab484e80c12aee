"""Questions with choices as the texts and labels of two forms.

binary: each choice is a row, the pair of question and choice, labelled `correct` or `incorrect`; the question's answer
is its best choice. multiclass: the question is one row, the pair of question and all choices, labelled with a letter.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import pyarrow as pa

from textclf.answers import Answers
from textclf.data.choices import CORRECT, LETTERS, VERDICTS, choice_scores, shown
from textclf.data.questions import CHOICES, LIST, SUBJECT
from textclf.data.rows import PAIR, QUESTION, Rows
from textclf.labels import LabelSet

Form: TypeAlias = Literal["binary", "multiclass"]


def formed(rows: Rows, form: Form, *, shuffle: np.random.Generator | None = None) -> Rows:
    """Questions, as `read_questions` gives them, in the rows of a form.

    shuffle: put the choices of each question into another order first.
    """
    table = rows.table
    choices: list[list[str]] = table.column(CHOICES).to_pylist()
    answers = [LETTERS.index(label) for label in rows.labels if isinstance(label, str)]
    if form == "multiclass":
        if shuffle is not None:
            orders = [shuffle.permutation(len(one)).tolist() for one in choices]
            choices = [[one[index] for index in order] for one, order in zip(choices, orders, strict=True)]
            answers = [order.index(answer) for order, answer in zip(orders, answers, strict=True)]
        return rows.with_columns(
            **{
                PAIR: pa.array(map(shown, choices), pa.large_string()),
                "label": pa.array([LETTERS[answer] for answer in answers], pa.large_string()),
                CHOICES: pa.array(choices, LIST),
                QUESTION: pa.array(np.arange(len(rows))),
            },
        )
    counts = np.fromiter(map(len, choices), dtype=np.int64, count=len(choices))
    repeated = rows.take(np.repeat(np.arange(len(rows)), counts))
    label = [
        VERDICTS[place == answer] for answer, one in zip(answers, choices, strict=True) for place in range(len(one))
    ]
    made = repeated.with_columns(
        **{
            PAIR: pa.array([choice for one in choices for choice in one], pa.large_string()),
            "label": pa.array(label, pa.large_string()),
            QUESTION: pa.array(np.repeat(np.arange(len(rows)), counts)),
        },
    )
    return replace(made, table=made.table.drop_columns(CHOICES), label_order=VERDICTS)


@dataclass(frozen=True)
class Questions:
    """How the rows of a split make up questions.

    number_N: (rows,) int64, the question of each row, not falling. count_Q: (questions,) int64, their choices.
    answer_Q: (questions,) int64, the index of the right choice. subjects: of each question, "" where not known.
    binary: every row is one choice; else every row is a question whose labels are letters.
    """

    number_N: np.ndarray
    count_Q: np.ndarray
    answer_Q: np.ndarray
    subjects: tuple[str, ...]
    binary: bool

    @property
    def chance(self) -> float:
        """Accuracy of an answer at random, 0 to 1."""
        return float((1 / self.count_Q).mean())

    def right(self, probs_NC: np.ndarray, labels: Mapping[str, int]) -> np.ndarray:
        """Which questions are answered rightly: (questions,) bool. labels: names of the columns of probs_NC."""
        scores_QK = choice_scores(probs_NC, self.count_Q, labels, binary=self.binary)
        return scores_QK.argmax(axis=1) == self.answer_Q  # type: ignore[no-any-return]

    def scores(self, probs_NC: np.ndarray, labels: Mapping[str, int]) -> np.ndarray:
        """The probability of each question's best choice: (questions,) float32. labels: as of `right`."""
        scores_QK = choice_scores(probs_NC, self.count_Q, labels, binary=self.binary)
        return scores_QK.max(axis=1).astype(np.float32)  # type: ignore[no-any-return]


def questions_of(rows: Rows) -> Questions | None:
    """The questions that the rows of a form make up; None for texts of another kind."""
    if not rows.has_questions:
        return None
    table, labels = rows.table, rows.labels
    number_N = table.column(QUESTION).to_numpy()
    subjects = table.column(SUBJECT).to_pylist() if SUBJECT in table.column_names else [""] * len(rows)
    if CHOICES in table.column_names:
        count_Q = table.column(CHOICES).combine_chunks().value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
        answer_Q = np.array([LETTERS.index(label) for label in labels if isinstance(label, str)], dtype=np.int64)
        return Questions(number_N, count_Q, answer_Q, tuple(one or "" for one in subjects), binary=False)
    count_Q = np.bincount(number_N)
    first_Q = np.cumsum(count_Q) - count_Q
    right_N = np.array([label == CORRECT for label in labels])
    answer_Q = np.flatnonzero(right_N) - first_Q
    return Questions(number_N, count_Q, answer_Q, tuple(subjects[index] or "" for index in first_Q), binary=True)


def answers_of(targets: np.ndarray, probs_NC: np.ndarray, label_set: LabelSet, questions: Questions | None) -> Answers:
    """What a model said to rows, and to the questions that they make up. probs_NC: (rows, num_labels) float32."""
    if questions is None:
        return Answers(targets=targets, probs_NC=probs_NC, label_set=label_set)
    return Answers(
        targets=targets,
        probs_NC=probs_NC,
        label_set=label_set,
        question_N=questions.number_N,
        right_Q=questions.right(probs_NC, label_set.label2id),
        score_Q=questions.scores(probs_NC, label_set.label2id),
    )
