"""What a model said to the rows of a split, beside what is true."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from textclf.labels import LabelSet
from textclf.metrics import AnyMetrics, Metrics, measure


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What a split's metrics are made of.

    targets: as of the label set; probs_NC: (rows, num_labels) float32.
    question_N: (rows,) int64, the question that each row belongs to, not falling; right_Q: (questions,) bool, whether
    it was answered rightly; score_Q: (questions,) the probability of its best choice. None where rows are no questions.
    """

    targets: np.ndarray
    probs_NC: np.ndarray
    label_set: LabelSet
    question_N: np.ndarray | None = None
    right_Q: np.ndarray | None = None
    score_Q: np.ndarray | None = None

    @property
    def right(self) -> np.ndarray:
        """Whether each row, or question, was answered rightly: (rows,) or (questions,) bool."""
        if self.right_Q is not None:
            return self.right_Q
        same = self.label_set.decide(self.probs_NC) == self.targets
        return same.reshape(len(same), -1).all(axis=1)  # type: ignore[no-any-return]

    @property
    def confidence(self) -> np.ndarray:
        """The probability of the answer to each row, or question, where it is one label: (rows,) or (questions,)."""
        return self.probs_NC.max(axis=1) if self.score_Q is None else self.score_Q  # type: ignore[no-any-return]

    @property
    def clustered(self) -> bool:
        """Whether several rows belong to one question, so that they are drawn together."""
        return self.right_Q is not None and len(self.right_Q) != len(self.targets)

    def measure(self) -> AnyMetrics:
        """The metrics of the rows, and of the questions that they make up."""
        metrics = measure(self.targets, self.probs_NC, self.label_set)
        if self.right_Q is not None and isinstance(metrics, Metrics):
            metrics = replace(metrics, question_accuracy=float(self.right_Q.mean()))
        return metrics
