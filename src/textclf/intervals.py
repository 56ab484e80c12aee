"""How sure a metric is: its 95 % interval, by drawing the measured rows again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from textclf.answers import Answers
from textclf.metrics import AnyMetrics, confidence_gaps, label_ranking, row_losses
from textclf.proportions import wilson

DRAWS = 1000
SEED = 0
LEVEL = 0.95
_MOST_CELLS = 4_000_000
"""Numbers in a block of draws: 32 MB."""
RANGES = {"mcc": (-1.0, 1.0), "loss": (0.0, np.inf), "brier": (0.0, 2.0), "coverage_error": (0.0, np.inf)}
_TINY = 1e-9
"""What a loss is never below, where its logarithm is taken."""
_SHARES = ("accuracy", "subset_accuracy", "question_accuracy")


@dataclass(frozen=True)
class Interval:
    """Where the metric would lie in 95 of 100 samples of rows like these."""

    low: float
    high: float


def intervals(answers: Answers, metrics: AnyMetrics, *, draws: int = DRAWS, seed: int = SEED) -> dict[str, Interval]:
    """The 95 % interval of every metric that is defined, by name; `metrics` are those of the same answers.

    Rows are drawn with replacement, without regard to labels, and the rows of one question together. Percentiles of the
    draws on a scale without ends (logit, or log where there is no largest value), less the draws' bias there: near its
    end a metric spreads to one side only. The share of right answers has Wilson's interval instead, as draws of nothing
    but right answers would say that it is certain; for the calibration error see `calibration_interval`.
    """
    statistics = Statistics(answers)
    blocks, gaps = [], []
    for weights_DN in weights(answers, draws=draws, seed=seed):
        blocks.append(statistics.under(weights_DN))
        gaps.append(statistics.gaps(weights_DN))
    points = metrics.as_dict()
    gaps_B = statistics.gaps(np.ones((1, len(answers.targets))))[0]
    found = {}
    for name in blocks[0]:
        if points.get(name) is None:
            continue
        if name in _SHARES and (name == "question_accuracy" or not answers.clustered):
            rows = len(answers.targets) if answers.right_Q is None or name == "accuracy" else len(answers.right_Q)
            found[name] = Interval(*wilson(round(points[name] * rows), rows))
            continue
        if name == "ece":
            found[name] = Interval(*calibration_interval(gaps_B, np.concatenate(gaps)))
            continue
        values_D = np.concatenate([block[name] for block in blocks])
        if not np.isfinite(values_D).any():
            continue
        # Half a row from the ends, where the scale has no numbers any more.
        scale = _Scale(*RANGES.get(name, (0.0, 1.0)), spare=0.5 / len(answers.targets))
        ends = percentiles(scale.stretched(values_D), float(scale.stretched(points[name])))
        low, high = scale.shrunk(np.array(ends)).tolist()
        found[name] = Interval(min(low, points[name]), max(high, points[name]))
    return found


@dataclass(frozen=True)
class _Scale:
    """From the range of a metric to all numbers and back: the logit, or the logarithm where there is no largest value.

    spare: how near to an end a value is still told from it, as a share of the range.
    """

    least: float
    most: float
    spare: float

    def stretched(self, values: np.ndarray | float) -> np.ndarray:
        if np.isinf(self.most):
            return np.log(np.maximum(values - self.least, _TINY))  # type: ignore[no-any-return]
        share = np.clip((values - self.least) / (self.most - self.least), self.spare, 1 - self.spare)
        return np.log(share / (1 - share))  # type: ignore[no-any-return]

    def shrunk(self, values: np.ndarray) -> np.ndarray:
        if np.isinf(self.most):
            return self.least + np.exp(values)  # type: ignore[no-any-return]
        return self.least + (self.most - self.least) / (1 + np.exp(-values))  # type: ignore[no-any-return]


def calibration_interval(gaps_B: np.ndarray, drawn_DB: np.ndarray, *, level: float = LEVEL) -> tuple[float, float]:
    """The interval of the calibration error: of all multiples of the measured gaps between confidence and truth, those
    under which an error as large as the measured one is nothing rare, neither in the lower nor in the upper tail.

    gaps_B: (bins,) float64, mean confidence minus truth by bin; drawn_DB: (draws, bins) the same of draws. Chance alone
    makes gaps, so the error of draws is always larger than that of the rows, and this of the truth, by more than a
    shift mends; so the test is inverted (Carpenter 1999, "Test inversion bootstrap confidence intervals").
    """
    point = float(np.abs(gaps_B).sum())
    noise_DB = drawn_DB - gaps_B
    multiples = np.linspace(0, 3, 121)
    larger, smaller = [], []
    for multiple in multiples:
        error_D = np.abs(multiple * gaps_B + noise_DB).sum(axis=1)
        larger.append((error_D >= point).mean())
        smaller.append((error_D <= point).mean())
    tail = (1 - level) / 2
    low = multiples[np.array(larger) >= tail].min(initial=1.0)
    high = multiples[np.array(smaller) >= tail].max(initial=1.0)
    return float(low * point), min(float(high * point), 1.0)


def percentiles(values_D: np.ndarray, point: float, *, level: float = LEVEL) -> tuple[float, float]:
    """Between which values this share of the draws lies, less the draws' bias; `point` is always among them."""
    values_D = values_D[np.isfinite(values_D)]  # a draw without one of two labels has no ROC AUC
    if not len(values_D):
        return point, point
    bias = float(values_D.mean()) - point
    low, high = np.quantile(values_D, [(1 - level) / 2, (1 + level) / 2]) - bias
    return min(float(low), point), max(float(high), point)


def weights(answers: Answers, *, draws: int, seed: int) -> Iterator[np.ndarray]:
    """How often each row was drawn: (draws, rows) float64, in blocks that add up to so many draws."""
    rows = len(answers.targets)
    units = len(answers.right_Q) if answers.clustered and answers.right_Q is not None else rows
    random = np.random.default_rng(seed)
    block = max(1, _MOST_CELLS // max(rows, units))
    for done in range(0, draws, block):
        count = min(block, draws - done)
        drawn_DU = random.integers(units, size=(count, units)) + units * np.arange(count)[:, np.newaxis]
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

    def gaps(self, weights_DN: np.ndarray) -> np.ndarray:
        """Mean confidence minus truth by bin of confidence under these weights (draws, rows): (draws, bins) float64."""
        return weights_DN @ self._gaps_NB / weights_DN.sum(axis=1, keepdims=True)  # type: ignore[no-any-return]

    def under(self, weights_DN: np.ndarray) -> dict[str, np.ndarray]:
        """Every metric under these weights (draws, rows): name -> (draws,) float64."""
        answers = self._answers
        total_D1 = weights_DN.sum(axis=1, keepdims=True)
        means_DM = weights_DN @ np.stack(list(self._means.values()), axis=1) / total_D1
        found = dict(zip(self._means, means_DM.T, strict=True))
        found["ece"] = np.abs(self.gaps(weights_DN)).sum(axis=1)
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
