"""How often a 95 % interval holds the truth: python -m tests.benchmarks.intervals [SAMPLES [NAME...]]

Splits are drawn from models whose true metrics are known from a very large split; `textclf.intervals` sees one small
split at a time. Prints a row of docs/explanation/accuracy-honesty.md for each kind of split.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass

import numpy as np

from textclf.answers import Answers
from textclf.intervals import Statistics, intervals
from textclf.labels import LabelSet
from textclf.metrics import measure

DRAWS = 500
COLUMNS = (
    *("accuracy", "subset_accuracy", "macro_f1", "micro_f1", "macro_precision", "macro_recall", "mcc"),
    *("loss", "brier", "roc_auc", "average_precision", "ece"),
)


@dataclass(frozen=True)
class Kind:
    """Splits of `rows` texts whose labels have these shares.

    fixed: as many of each label every time. skill: how far the true label stands out; sharp: what logits are multiplied
    by, 1 for a calibrated model. multi: a text has each label with its share, by itself.
    """

    says: str
    rows: int
    shares: tuple[float, ...]
    skill: float
    sharp: float = 1.0
    fixed: bool = False
    multi: bool = False

    @property
    def label_set(self) -> LabelSet:
        return LabelSet(
            tuple(f"label {number}" for number in range(len(self.shares))), "multi" if self.multi else "single"
        )

    def answers(self, rows: int, random: np.random.Generator) -> Answers:
        share_C = np.array(self.shares)
        if self.multi:
            targets = (random.random((rows, len(share_C))) < share_C).astype(np.uint8)
            signal_NC = random.normal(size=targets.shape) + self.skill * targets
            # The posterior log-odds of one label.
            logits_NC = self.skill * signal_NC - self.skill**2 / 2 + np.log(share_C / (1 - share_C))
        else:
            if self.fixed:
                targets = np.repeat(np.arange(len(share_C)), np.round(share_C * rows).astype(int))
            else:
                targets = random.choice(len(share_C), rows, p=share_C / share_C.sum())
            signal_NC = random.normal(size=(len(targets), len(share_C)))
            signal_NC[np.arange(len(targets)), targets] += self.skill
            logits_NC = self.skill * signal_NC + np.log(share_C)
        probs_NC = self.label_set.probabilities((self.sharp * logits_NC).astype(np.float32))
        return Answers(targets=targets, probs_NC=probs_NC, label_set=self.label_set)


_UNEQUAL = (0.4, 0.3, 0.2, 0.1)
_LONG_TAIL = tuple((1 / np.arange(1, 21) / (1 / np.arange(1, 21)).sum()).tolist())
KINDS = {
    "small": Kind("100 rows, 2 labels (70 and 30 %), overconfident", 100, (0.7, 0.3), 1.5, sharp=1.5),
    "two": Kind("400 rows, 2 labels (85 and 15 %), calibrated", 400, (0.85, 0.15), 1.8),
    "four": Kind("300 rows, 4 labels (40 to 10 %), overconfident", 300, _UNEQUAL, 2.5, sharp=1.3),
    "good": Kind("300 rows, 4 labels, 98 % right, calibrated", 300, _UNEQUAL, 3.4),
    "fixed": Kind("800 rows, 20 labels of 40 each, overconfident", 800, (0.05,) * 20, 3.5, sharp=1.4, fixed=True),
    "tail": Kind("1,000 rows, 20 labels (28 to 1.4 %), calibrated", 1000, _LONG_TAIL, 3.0),
    "many": Kind("3,080 rows, 77 labels of 40 each, calibrated", 3080, (1 / 77,) * 77, 3.6, fixed=True),
    "several": Kind("300 rows with any of 6 labels (25 % each), calibrated", 300, (0.25,) * 6, 2.0, multi=True),
}  # fmt: skip


def held(kind: Kind, samples: int) -> dict[str, float]:
    """Metric -> share of the intervals that hold the truth, 0 to 1."""
    random = np.random.default_rng(0)
    large = kind.answers(400_000 // max(1, len(kind.shares) // 4), random)
    truth = {
        name: float(value_D[0]) for name, value_D in Statistics(large).under(np.ones((1, len(large.targets)))).items()
    }
    del large
    count: Counter[str] = Counter()
    for seed in range(samples):
        made = kind.answers(kind.rows, random)
        found = intervals(made, measure(made.targets, made.probs_NC, made.label_set), draws=DRAWS, seed=seed)
        count.update(name for name, one in found.items() if one.low <= truth[name] <= one.high)
    return {name: count[name] / samples for name in truth}


def main() -> None:
    samples = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    print("| simulated split |", " | ".join(COLUMNS), "|", flush=True)
    for name in sys.argv[2:] or KINDS:
        found = held(KINDS[name], samples)
        cells = (f"{100 * found[one]:.1f}" if one in found else "" for one in COLUMNS)
        print(f"| {KINDS[name].says} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    main()
