"""Targets and probabilities to metrics, by scikit-learn."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from textclf.labels import LabelSet

LOWER_IS_BETTER = frozenset({"loss"})


@dataclass(frozen=True)
class Metrics:
    """How well probabilities meet their targets.

    rows: number of texts.
    loss: mean cross-entropy, in nats.
    macro_*: the plain mean over the labels that occur in the targets; `absent_labels` names the others,
        which no average includes. weighted_*: the mean weighted by each label's rows.
    mcc: Matthews correlation, -1 to 1; 0 for a model that always answers the same.
    roc_auc, average_precision: of the second label, with two labels that both occur; else None.
    """

    rows: int
    loss: float
    accuracy: float
    macro_f1: float
    weighted_f1: float
    macro_precision: float
    weighted_precision: float
    macro_recall: float
    weighted_recall: float
    mcc: float
    roc_auc: float | None
    average_precision: float | None
    absent_labels: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "absent_labels": list(self.absent_labels)}


@dataclass(frozen=True)
class LabelMetrics:
    """One label's row: `support` rows have it, `predicted` rows were given it.

    recall and f1 are None for a label without rows, precision for one never predicted.
    """

    label: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int
    predicted: int


@dataclass(frozen=True)
class Confusion:
    """`count` rows of label `target` were given label `predicted`; `share` of all rows of `target`."""

    target: str
    predicted: str
    count: int
    share: float


def measure(targets_N: np.ndarray, probs_NC: np.ndarray, label_set: LabelSet) -> Metrics:
    """All metrics of a split. targets_N: (rows,) int64, one row or more; probs_NC: (rows, num_labels)."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    decided_N = label_set.decide(probs_NC)
    scores = _precision_recall_f1(targets_N, decided_N, len(label_set))
    support_C = np.bincount(targets_N, minlength=len(label_set))
    present_C = support_C > 0
    macro = [float(values_C[present_C].mean()) for values_C in scores]
    weighted = [float(np.average(values_C, weights=support_C)) for values_C in scores]
    of_target_N = probs_NC[np.arange(len(targets_N)), targets_N].astype(np.float64)
    both = len(label_set) == 2 and bool(present_C.all())
    return Metrics(
        rows=len(targets_N),
        loss=float(-np.log(np.maximum(of_target_N, np.finfo(np.float32).tiny)).mean()),
        accuracy=float((decided_N == targets_N).mean()),
        macro_precision=macro[0],
        macro_recall=macro[1],
        macro_f1=macro[2],
        weighted_precision=weighted[0],
        weighted_recall=weighted[1],
        weighted_f1=weighted[2],
        mcc=_mcc(targets_N, decided_N),
        roc_auc=float(roc_auc_score(targets_N, probs_NC[:, 1])) if both else None,
        average_precision=float(average_precision_score(targets_N, probs_NC[:, 1])) if both else None,
        absent_labels=tuple(name for name, present in zip(label_set.names, present_C, strict=True) if not present),
    )


def measure_labels(targets_N: np.ndarray, probs_NC: np.ndarray, label_set: LabelSet) -> tuple[LabelMetrics, ...]:
    """One row per label, in the order of the label set."""
    decided_N = label_set.decide(probs_NC)
    precision_C, recall_C, f1_C = _precision_recall_f1(targets_N, decided_N, len(label_set))
    support_C = np.bincount(targets_N, minlength=len(label_set))
    predicted_C = np.bincount(decided_N, minlength=len(label_set))
    return tuple(
        LabelMetrics(
            label=name,
            precision=float(precision_C[index]) if predicted_C[index] else None,
            recall=float(recall_C[index]) if support_C[index] else None,
            f1=float(f1_C[index]) if support_C[index] else None,
            support=int(support_C[index]),
            predicted=int(predicted_C[index]),
        )
        for index, name in enumerate(label_set.names)
    )


def confusions(targets_N: np.ndarray, probs_NC: np.ndarray, label_set: LabelSet) -> tuple[Confusion, ...]:
    """Every pair of labels that was confused, most often first."""
    from sklearn.metrics import confusion_matrix

    ids = np.arange(len(label_set))
    matrix_CC = confusion_matrix(targets_N, label_set.decide(probs_NC), labels=ids)
    support_C = matrix_CC.sum(axis=1)
    np.fill_diagonal(matrix_CC, 0)
    pairs = [(int(target), int(predicted)) for target, predicted in np.argwhere(matrix_CC)]
    pairs.sort(key=lambda pair: (-matrix_CC[pair], pair))
    return tuple(
        Confusion(
            label_set.names[target],
            label_set.names[predicted],
            int(matrix_CC[target, predicted]),
            float(matrix_CC[target, predicted] / support_C[target]),
        )
        for target, predicted in pairs
    )


def _mcc(targets_N: np.ndarray, decided_N: np.ndarray) -> float:
    from sklearn.metrics import matthews_corrcoef

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a split of one label: 0, as documented
        return float(matthews_corrcoef(targets_N, decided_N))


def _precision_recall_f1(targets_N: np.ndarray, decided_N: np.ndarray, labels: int) -> tuple[np.ndarray, ...]:
    from sklearn.metrics import precision_recall_fscore_support

    scores: tuple[np.ndarray, ...] = precision_recall_fscore_support(
        targets_N, decided_N, labels=np.arange(labels), zero_division=0.0
    )
    return scores[:3]
