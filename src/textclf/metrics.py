"""Targets and probabilities to metrics, by scikit-learn."""

from __future__ import annotations

import warnings
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np

from textclf.labels import LabelSet

LOWER_IS_BETTER = frozenset({"loss", "hamming_loss", "ranking_loss", "coverage_error", "ece", "brier"})
BINS = 15
"""Of confidence, all as wide, as in Guo et al. 2017."""


@dataclass(frozen=True)
class Metrics:
    """How well probabilities meet their targets.

    rows: number of texts.
    loss: mean cross-entropy, in nats.
    macro_*: the plain mean over the labels that occur in the targets; `absent_labels` names the others,
        which no average includes. weighted_*: the mean weighted by each label's rows.
    mcc: Matthews correlation, -1 to 1; 0 for a model that always answers the same.
    roc_auc, average_precision: of the second label, with two labels that both occur; else None.
    ece: expected calibration error, 0 to 1: how far confidence, the probability of the answer, and the share of right
        answers lie apart, the mean over 15 bins of confidence weighted by their rows (Guo et al. 2017).
    brier: mean squared distance of probabilities and targets, summed over labels, 0 to 2.
    question_accuracy: share of questions whose best choice is the right one; None where rows are no questions.
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
    ece: float
    brier: float
    absent_labels: tuple[str, ...]
    question_accuracy: float | None = None

    HEADLINE: ClassVar = ("accuracy", "macro_f1")

    @property
    def right(self) -> float:
        """Share of the texts that were answered rightly, 0 to 1."""
        return self.accuracy

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "absent_labels": list(self.absent_labels)}


@dataclass(frozen=True)
class MultiLabelMetrics:
    """How well probabilities meet their targets where a text may have any number of labels.

    rows: number of texts. labels_per_text, predicted_per_text: labels that a text has, and was given, on average.
    loss: mean binary cross-entropy over texts and labels, in nats.
    micro_*: over all pairs of text and label. macro_*: the plain mean over the labels that occur in the targets;
        `absent_labels` names the others, which only the macro averages leave out. weighted_f1: weighted by rows.
    samples_f1: mean over texts; a text without labels that was given none counts 1.
    subset_accuracy: share of texts whose labels are all right. hamming_loss: share of pairs that are wrong.
    lrap: label ranking average precision; a text without labels counts 1.
    ranking_loss: share of pairs of a right and a wrong label that stand in the wrong order. coverage_error: how far
        down the ranking all labels of a text are found, in labels.
    ece: expected calibration error, 0 to 1: how far probability and the share of texts that have the label lie apart,
        the mean over 15 bins of the probabilities of all pairs. brier: mean squared distance of the two over all pairs.
    """

    rows: int
    labels_per_text: float
    predicted_per_text: float
    loss: float
    micro_f1: float
    macro_f1: float
    samples_f1: float
    weighted_f1: float
    micro_precision: float
    micro_recall: float
    macro_precision: float
    macro_recall: float
    subset_accuracy: float
    hamming_loss: float
    lrap: float
    ranking_loss: float
    coverage_error: float
    ece: float
    brier: float
    absent_labels: tuple[str, ...]

    HEADLINE: ClassVar = ("micro_f1", "macro_f1")

    @property
    def right(self) -> float:
        """Share of the texts that were answered rightly, 0 to 1."""
        return self.subset_accuracy

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {**asdict(self), "absent_labels": list(self.absent_labels)}


AnyMetrics = Metrics | MultiLabelMetrics


def metrics_of(label_set: LabelSet) -> type[AnyMetrics]:
    """The kind of metrics that a label set is measured by; the first of its HEADLINE is what it is judged by."""
    return MultiLabelMetrics if label_set.multi else Metrics


def judged_by(kind: type[AnyMetrics]) -> list[str]:
    """The metrics that are one number: those that a gate may bind."""
    described = {"rows", "labels_per_text", "predicted_per_text"}  # of the texts, not of the answers' worth
    return [name for name, of in kind.__annotations__.items() if "float" in str(of) and name not in described]


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


@dataclass(frozen=True)
class LabelErrors:
    """How often a label was not given to texts that have it, and given to texts that have it not.

    missed_share: of the texts that have it, None where none has. added_share: of those it was given to, likewise.
    """

    label: str
    missed: int
    missed_share: float | None
    added: int
    added_share: float | None


def measure(targets: np.ndarray, probs_NC: np.ndarray, label_set: LabelSet) -> AnyMetrics:
    """All metrics of a split of one row or more. targets: as of the label set; probs_NC: (rows, num_labels)."""
    return _measure_multi(targets, probs_NC, label_set) if label_set.multi else _measure(targets, probs_NC, label_set)


def _measure(targets_N: np.ndarray, probs_NC: np.ndarray, label_set: LabelSet) -> Metrics:
    from sklearn.metrics import average_precision_score, roc_auc_score

    decided_N = label_set.decide(probs_NC)
    scores = _precision_recall_f1(targets_N, decided_N, len(label_set))
    support_C = np.bincount(targets_N, minlength=len(label_set))
    present_C = support_C > 0
    macro = [float(values_C[present_C].mean()) for values_C in scores]
    weighted = [float(np.average(values_C, weights=support_C)) for values_C in scores]
    losses = _means(row_losses(targets_N, probs_NC, label_set))
    both = len(label_set) == 2 and bool(present_C.all())
    return Metrics(
        rows=len(targets_N),
        loss=losses["loss"],
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
        ece=expected_calibration_error(targets_N, probs_NC, label_set),
        brier=losses["brier"],
        absent_labels=tuple(name for name, present in zip(label_set.names, present_C, strict=True) if not present),
    )


def _measure_multi(targets_NC: np.ndarray, probs_NC: np.ndarray, label_set: LabelSet) -> MultiLabelMetrics:
    from sklearn import metrics

    decided_NC = label_set.decide(probs_NC)
    support_C = label_set.counts(targets_NC)
    present_C = support_C > 0
    of_label = _precision_recall_f1(targets_NC, decided_NC, len(label_set))
    macro = [float(values_C[present_C].mean()) if present_C.any() else 0.0 for values_C in of_label]
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        targets_NC, decided_NC, average="micro", zero_division=0.0
    )
    means = _means(row_losses(targets_NC, probs_NC, label_set) | label_ranking(targets_NC, probs_NC))
    return MultiLabelMetrics(
        rows=len(targets_NC),
        labels_per_text=float(support_C.sum() / len(targets_NC)),
        predicted_per_text=float(decided_NC.sum() / len(targets_NC)),
        loss=means["loss"],
        micro_precision=float(precision),
        micro_recall=float(recall),
        micro_f1=float(f1),
        macro_precision=macro[0],
        macro_recall=macro[1],
        macro_f1=macro[2],
        weighted_f1=float(np.average(of_label[2], weights=support_C)) if present_C.any() else 0.0,
        samples_f1=float(metrics.f1_score(targets_NC, decided_NC, average="samples", zero_division=1.0)),
        subset_accuracy=float((decided_NC == targets_NC).all(axis=1).mean()),
        hamming_loss=float((decided_NC != targets_NC).mean()),
        lrap=means["lrap"],
        ranking_loss=means["ranking_loss"],
        coverage_error=means["coverage_error"],
        ece=expected_calibration_error(targets_NC, probs_NC, label_set),
        brier=means["brier"],
        absent_labels=tuple(name for name, present in zip(label_set.names, present_C, strict=True) if not present),
    )


def measure_labels(targets: np.ndarray, probs_NC: np.ndarray, label_set: LabelSet) -> tuple[LabelMetrics, ...]:
    """One row per label, in the order of the label set."""
    decided = label_set.decide(probs_NC)
    precision_C, recall_C, f1_C = _precision_recall_f1(targets, decided, len(label_set))
    support_C, predicted_C = label_set.counts(targets), label_set.counts(decided)
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


def label_errors(targets_NC: np.ndarray, probs_NC: np.ndarray, label_set: LabelSet) -> tuple[LabelErrors, ...] | None:
    """Of a multi-label set, the labels that were missed or wrongly added, the most often wrong first; else None."""
    if not label_set.multi:
        return None
    decided_NC = label_set.decide(probs_NC)
    support_C, predicted_C = label_set.counts(targets_NC), label_set.counts(decided_NC)
    right_C = label_set.counts(targets_NC & decided_NC)
    missed_C, added_C = support_C - right_C, predicted_C - right_C
    order = np.argsort(-(missed_C + added_C), kind="stable")
    return tuple(
        LabelErrors(
            label_set.names[label],
            int(missed_C[label]),
            float(missed_C[label] / support_C[label]) if support_C[label] else None,
            int(added_C[label]),
            float(added_C[label] / predicted_C[label]) if predicted_C[label] else None,
        )
        for label in order.tolist()
        if missed_C[label] + added_C[label]
    )


def confusions(targets_N: np.ndarray, probs_NC: np.ndarray, label_set: LabelSet) -> tuple[Confusion, ...] | None:
    """Every pair of labels that was confused, most often first; None of a multi-label set."""
    if label_set.multi:
        return None
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


def row_losses(targets: np.ndarray, probs_NC: np.ndarray, label_set: LabelSet) -> dict[str, np.ndarray]:
    """The `loss` and the `brier` score of each row, whose means are the metrics: (rows,) float64 each."""
    if label_set.multi:
        of_target_NC = np.where(targets, probs_NC, 1 - probs_NC).astype(np.float64)
        log_NC = np.log(np.maximum(of_target_NC, np.finfo(np.float32).tiny))
        return {"loss": -log_NC.mean(axis=1), "brier": np.square(1 - of_target_NC).mean(axis=1)}
    of_target_N = probs_NC[np.arange(len(targets)), targets].astype(np.float64)
    squares_N = np.square(probs_NC.astype(np.float64)).sum(axis=1)
    return {
        "loss": -np.log(np.maximum(of_target_N, np.finfo(np.float32).tiny)),
        "brier": np.maximum(squares_N - 2 * of_target_N + 1, 0),
    }


def confidence_gaps(targets: np.ndarray, probs_NC: np.ndarray, label_set: LabelSet) -> np.ndarray:
    """Confidence minus truth (1 or 0) of each row, in the bin of its confidence: (rows, BINS) float64, 0 elsewhere.

    Of a multi-label set the mean of all its pairs of text and label.
    """
    if label_set.multi:
        confidence, truth = probs_NC.astype(np.float64), targets
    else:
        confidence = probs_NC.max(axis=1, keepdims=True).astype(np.float64)
        truth = (label_set.decide(probs_NC) == targets)[:, np.newaxis]
    place = bins_of(confidence) + BINS * np.arange(len(targets))[:, np.newaxis]
    gaps = np.bincount(place.ravel(), weights=(confidence - truth).ravel(), minlength=len(targets) * BINS)
    return gaps.reshape(-1, BINS) / confidence.shape[1]  # type: ignore[no-any-return]


def bins_of(confidence: np.ndarray) -> np.ndarray:
    """The number of the bin of each confidence, 0 to 1: of the same shape, int64 below BINS."""
    places: np.ndarray = np.minimum((np.nan_to_num(confidence) * BINS).astype(np.int64), BINS - 1)
    return places


def expected_calibration_error(targets: np.ndarray, probs_NC: np.ndarray, label_set: LabelSet) -> float:
    """How far confidence and truth lie apart, see `Metrics.ece`: 0 to 1."""
    return float(np.abs(confidence_gaps(targets, probs_NC, label_set).mean(axis=0)).sum())


@dataclass(frozen=True)
class Bin:
    """Answers of a confidence from `low` to `high`: their mean confidence, and the share of them that are right.

    Of a multi-label set, pairs of text and label: mean probability, and the share of texts that have the label.
    """

    low: float
    high: float
    rows: int
    confidence: float
    accuracy: float


def reliability(targets: np.ndarray, probs_NC: np.ndarray, label_set: LabelSet) -> tuple[Bin, ...]:
    """The bins of confidence that are not empty, the lowest first: what `ece` is the mean distance in."""
    if label_set.multi:
        confidence, truth = probs_NC.ravel().astype(np.float64), targets.ravel()
    else:
        confidence, truth = probs_NC.max(axis=1).astype(np.float64), label_set.decide(probs_NC) == targets
    place = bins_of(confidence)
    rows_B, sure_B, true_B = (
        np.bincount(place, weights=weight, minlength=BINS) for weight in (None, confidence, truth.astype(np.float64))
    )
    return tuple(
        Bin(number / BINS, (number + 1) / BINS, int(rows), float(sure_B[number] / rows), float(true_B[number] / rows))
        for number, rows in enumerate(rows_B.tolist())
        if rows
    )


def label_ranking(targets_NC: np.ndarray, probs_NC: np.ndarray) -> dict[str, np.ndarray]:
    """`lrap`, `ranking_loss` and `coverage_error` of each row, whose means are the metrics: (rows,) float64 each.

    As scikit-learn's, which gives the means alone: of equal probabilities the wrong label stands first.
    """
    labels = targets_NC.shape[1]
    order_NC = np.argsort(-probs_NC, axis=1, kind="stable")
    probs_NC, true_NC = np.take_along_axis(probs_NC, order_NC, 1), np.take_along_axis(targets_NC, order_NC, 1) > 0
    ends_NC = np.full(probs_NC.shape, labels - 1)  # of each group of equal probabilities
    ends_NC[:, :-1] = np.where(probs_NC[:, :-1] != probs_NC[:, 1:], np.arange(labels - 1), labels)
    ends_NC = np.minimum.accumulate(ends_NC[:, ::-1], axis=1)[:, ::-1]
    above_NC = np.take_along_axis(np.cumsum(true_NC, axis=1), ends_NC, 1)
    rank_NC = ends_NC + 1
    count_N = true_NC.sum(axis=1)
    trivial_N = (count_N == 0) | (count_N == labels)
    precision_N = (true_NC * above_NC / rank_NC).sum(axis=1) / np.maximum(count_N, 1)
    misplaced_N = (true_NC * (rank_NC - above_NC)).sum(axis=1) / np.maximum(count_N * (labels - count_N), 1)
    return {
        "lrap": np.where(trivial_N, 1.0, precision_N),
        "ranking_loss": np.where(trivial_N, 0.0, misplaced_N),
        "coverage_error": (true_NC * rank_NC).max(axis=1).astype(np.float64),
    }


def _means(values: dict[str, np.ndarray]) -> dict[str, float]:
    return {name: float(of_rows.mean()) for name, of_rows in values.items()}


def wrong_rows(targets: np.ndarray, probs_NC: np.ndarray, label_set: LabelSet) -> tuple[np.ndarray, np.ndarray]:
    """The positions of the rows that were answered wrongly, the surest mistakes first, and how sure they were.

    (wrong,) int64 and (wrong,) float32: the probability of the wrong label that was given, the highest of several;
    where a multi-label row was given none that is wrong, 1 less that of the label that was missed.
    """
    decided = label_set.decide(probs_NC)
    wrong_W = np.flatnonzero((decided != targets).reshape(len(targets), -1).any(axis=1))
    if label_set.multi:
        has, given, probs_WC = targets[wrong_W] == 1, decided[wrong_W] == 1, probs_NC[wrong_W]
        added_W = np.where(given & ~has, probs_WC, 0).max(axis=1, initial=0)
        missed_W = np.where(has & ~given, 1 - probs_WC, 0).max(axis=1, initial=0)
        score_W = np.where(added_W > 0, added_W, missed_W)
    else:
        score_W = probs_NC[wrong_W, decided[wrong_W]]
    order = np.argsort(-score_W, kind="stable")
    return wrong_W[order], score_W[order]


def _mcc(targets_N: np.ndarray, decided_N: np.ndarray) -> float:
    from sklearn.metrics import matthews_corrcoef

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a split of one label: 0, as documented
        return float(matthews_corrcoef(targets_N, decided_N))


def _precision_recall_f1(targets: np.ndarray, decided: np.ndarray, labels: int) -> tuple[np.ndarray, ...]:
    from sklearn.metrics import precision_recall_fscore_support

    scores: tuple[np.ndarray, ...] = precision_recall_fscore_support(
        targets, decided, labels=np.arange(labels), zero_division=0.0
    )
    return scores[:3]
