"""How sure a metric is: its 95 % interval, by drawing the measured rows again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from textclf.labels import LabelSet
from textclf.metrics import AnyMetrics, confidence_gaps, label_ranking, row_losses, wilson

DRAWS = 1000
SEED = 0
LEVEL = 0.95
FEW_ROWS = 20
"""Labels of fewer rows than this are drawn together. Drawn by itself, a label of n rows varies by (n - 1) / n of what
it should, and one of a single row not at all."""
_MOST_CELLS = 4_000_000
"""Numbers in a block of draws: 32 MB."""
_RANGES = {"mcc": (-1.0, 1.0), "loss": (0.0, np.inf), "brier": (0.0, 2.0), "coverage_error": (0.0, np.inf)}
_SHARES = ("accuracy", "subset_accuracy", "question_accuracy")


@dataclass(frozen=True)
class Interval:
    """Where the metric would lie in 95 of 100 samples of rows like these."""

    low: float
    high: float


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


def intervals(answers: Answers, metrics: AnyMetrics, *, draws: int = DRAWS, seed: int = SEED) -> dict[str, Interval]:
    """The 95 % interval of every metric that is defined, by name; `metrics` are those of the same answers.

    Rows are drawn with replacement, as many of each label as there are; rows of rare labels, of several labels a text,
    and the questions of form binary, without regard to labels. Percentiles of the draws, less the draws' bias (the mean
    of the draws minus the metric, which for the calibration error is large). The share of right answers has Wilson's
    interval instead, as draws of nothing but right answers would say that it is certain.
    """
    statistics = Statistics(answers)
    blocks = [statistics.under(weights_DN) for weights_DN in weights(answers, draws=draws, seed=seed)]
    points = metrics.as_dict()
    found = {}
    for name in blocks[0]:
        if points.get(name) is None:
            continue
        if name in _SHARES and (name == "question_accuracy" or not answers.clustered):
            rows = len(answers.targets) if answers.right_Q is None or name == "accuracy" else len(answers.right_Q)
            found[name] = Interval(*wilson(round(points[name] * rows), rows))
            continue
        values_D = np.concatenate([block[name] for block in blocks])
        values_D = values_D[np.isfinite(values_D)]  # a draw without one of two labels has no ROC AUC
        if not len(values_D):
            continue
        least, most = _RANGES.get(name, (0.0, 1.0))
        low, high = percentiles(values_D, points[name])
        found[name] = Interval(max(low, least), min(high, most))
    return found


def percentiles(values_D: np.ndarray, point: float, *, level: float = LEVEL) -> tuple[float, float]:
    """Between which values this share of the draws lies, less the draws' bias; `point` is always among them."""
    bias = float(values_D.mean()) - point
    low, high = np.quantile(values_D, [(1 - level) / 2, (1 + level) / 2]) - bias
    return min(float(low), point), max(float(high), point)


def weights(answers: Answers, *, draws: int, seed: int) -> Iterator[np.ndarray]:
    """How often each row was drawn: (draws, rows) float64, in blocks that add up to so many draws."""
    rows = len(answers.targets)
    units = len(answers.right_Q) if answers.clustered and answers.right_Q is not None else rows
    stratum_U = np.zeros(units, dtype=np.int64)
    if not answers.label_set.multi and not answers.clustered:
        common_C = np.bincount(answers.targets, minlength=len(answers.label_set)) >= FEW_ROWS
        stratum_U = np.where(common_C[answers.targets], answers.targets + 1, 0)
    order_U = np.argsort(stratum_U, kind="stable")
    sizes = np.bincount(stratum_U)
    size_U = sizes[stratum_U[order_U]]
    start_U = (np.cumsum(sizes) - sizes)[stratum_U[order_U]]
    random = np.random.default_rng(seed)
    block = max(1, _MOST_CELLS // max(rows, units))
    for done in range(0, draws, block):
        count = min(block, draws - done)
        place_DU = start_U + (random.random((count, units)) * size_U).astype(np.int64)
        drawn_DU = order_U[place_DU] + units * np.arange(count)[:, np.newaxis]
        weights_DU = np.bincount(drawn_DU.ravel(), minlength=count * units).reshape(count, units).astype(np.float64)
        yield weights_DU[:, answers.question_N] if answers.clustered else weights_DU


class Statistics:
    """The metrics of answers, as functions of how often each row counts: sums over rows, and what is made of sums."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        targets, probs_NC, label_set = answers.targets, answers.probs_NC, answers.label_set
        rows, labels = len(targets), len(label_set)
        decided = label_set.decide(probs_NC)
        if label_set.multi:
            counted = [sparse.csr_array(one.astype(np.float64)) for one in (targets, decided, targets & decided)]
            self._means = label_ranking(targets, probs_NC) | {
                "samples_f1": _f1(2.0 * (targets & decided).sum(axis=1), targets.sum(axis=1) + decided.sum(axis=1)),
                "subset_accuracy": (targets == decided).all(axis=1).astype(np.float64),
                "hamming_loss": (targets != decided).mean(axis=1),
            }
        else:
            ones, places = np.ones(rows), np.arange(rows)
            counted = [
                sparse.csr_array((value, (places, ids)), shape=(rows, labels))
                for value, ids in ((ones, targets), (ones, decided), ((targets == decided) * 1.0, decided))
            ]
            self._means = {"accuracy": (targets == decided).astype(np.float64)}
        self._means |= row_losses(targets, probs_NC, label_set)
        self._counted = sparse.hstack(counted, format="csr")
        self._gaps_NB = confidence_gaps(targets, probs_NC, label_set)
        self._curve = _Curve(targets, probs_NC[:, 1]) if labels == 2 and not label_set.multi else None

    def under(self, weights_DN: np.ndarray) -> dict[str, np.ndarray]:
        """Every metric under these weights (draws, rows): name -> (draws,) float64."""
        answers = self._answers
        total_D1 = weights_DN.sum(axis=1, keepdims=True)
        means_DM = weights_DN @ np.stack(list(self._means.values()), axis=1) / total_D1
        found = dict(zip(self._means, means_DM.T, strict=True))
        found["ece"] = np.abs(weights_DN @ self._gaps_NB / total_D1).sum(axis=1)
        support_DC, predicted_DC, right_DC = np.split(weights_DN @ self._counted, 3, axis=1)
        present_DC = support_DC > 0
        of_label = {
            "precision": right_DC / np.maximum(predicted_DC, 1),
            "recall": right_DC / np.maximum(support_DC, 1),
            "f1": 2 * right_DC / np.maximum(support_DC + predicted_DC, 1),
        }
        supports_D = np.maximum(support_DC.sum(axis=1), 1)
        for name, value_DC in of_label.items():
            found[f"macro_{name}"] = (value_DC * present_DC).sum(axis=1) / np.maximum(present_DC.sum(axis=1), 1)
            if name == "f1" or not answers.label_set.multi:
                found[f"weighted_{name}"] = (value_DC * support_DC).sum(axis=1) / supports_D
        right_D, predicted_D = right_DC.sum(axis=1), np.maximum(predicted_DC.sum(axis=1), 1)
        if answers.label_set.multi:
            found["micro_precision"], found["micro_recall"] = right_D / predicted_D, right_D / supports_D
            found["micro_f1"] = 2 * right_D / np.maximum(support_DC.sum(axis=1) + predicted_DC.sum(axis=1), 1)
        else:
            total_D = total_D1[:, 0]
            spread_D = (total_D**2 - (predicted_DC**2).sum(axis=1)) * (total_D**2 - (support_DC**2).sum(axis=1))
            covariance_D = right_D * total_D - (predicted_DC * support_DC).sum(axis=1)
            found["mcc"] = np.where(spread_D > 0, covariance_D / np.sqrt(np.maximum(spread_D, 1)), 0.0)
        if self._curve is not None:
            found |= self._curve.under(weights_DN)
        if answers.right_Q is not None:
            weights_DQ = weights_DN
            if answers.clustered and answers.question_N is not None:
                weights_DQ = weights_DN[:, np.searchsorted(answers.question_N, np.arange(len(answers.right_Q)))]
            found["question_accuracy"] = weights_DQ @ answers.right_Q / weights_DQ.sum(axis=1)
        return found


class _Curve:
    """ROC AUC and average precision of the second of two labels; nan where a draw has rows of one label only."""

    def __init__(self, targets_N: np.ndarray, score_N: np.ndarray) -> None:
        self._order_N = np.argsort(-score_N, kind="stable")
        ranked_N = score_N[self._order_N]
        self._ends = np.append(np.flatnonzero(np.diff(ranked_N)), len(ranked_N) - 1)  # rows of one score count together
        self._positive_N = targets_N[self._order_N] == 1

    def under(self, weights_DN: np.ndarray) -> dict[str, np.ndarray]:
        ranked_DN = weights_DN[:, self._order_N]
        true_DK = np.cumsum(ranked_DN * self._positive_N, axis=1)[:, self._ends]
        false_DK = np.cumsum(ranked_DN * ~self._positive_N, axis=1)[:, self._ends]
        gained_DK = np.diff(true_DK, axis=1, prepend=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            before_DK = false_DK[:, -1:] - (false_DK + np.diff(false_DK, axis=1, prepend=0) * -0.5)
            roc_auc_D = (gained_DK * before_DK).sum(axis=1) / (true_DK[:, -1] * false_DK[:, -1])
            precision_DK = true_DK / np.maximum(true_DK + false_DK, 1)
            average_D = (gained_DK * precision_DK).sum(axis=1) / true_DK[:, -1]
        both_D = (true_DK[:, -1] > 0) & (false_DK[:, -1] > 0)
        return {name: np.where(both_D, value_D, np.nan) for name, value_D in
                (("roc_auc", roc_auc_D), ("average_precision", average_D))}  # fmt: skip


def _f1(twice_right: np.ndarray, together: np.ndarray) -> np.ndarray:
    """A text without labels that was given none counts 1."""
    return np.where(together > 0, twice_right / np.maximum(together, 1), 1.0)
