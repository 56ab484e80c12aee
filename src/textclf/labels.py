"""The label set: names to ids, logits to probabilities, probabilities to decisions. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np

from textclf.errors import DataError, ModelError

Kind: TypeAlias = Literal["single", "multi"]
Label: TypeAlias = str | tuple[str, ...]
"""What a row is labelled with: one name, or in a multi-label set any number of them."""

HALF = 0.5
"""The threshold of a label that has none of its own."""


@dataclass(frozen=True)
class LabelSet:
    """The label names of a model in the order of its logits.

    names: (num_labels,) unique, in the source's order (ClassLabel) or sorted.
    kind: "single", one label a text; "multi", any number of labels a text, none included.
    thresholds: (num_labels,) probabilities from which a label is given, in a multi-label set; None: 0.5 for all.
    """

    names: tuple[str, ...]
    kind: Kind = "single"
    thresholds: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            doubled = sorted({name for name in self.names if self.names.count(name) > 1})
            raise DataError(f"label names occur twice: {', '.join(map(repr, doubled[:5]))}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def multi(self) -> bool:
        """Whether a text may have any number of these labels."""
        return self.kind == "multi"

    @property
    def problem_type(self) -> str:
        """What transformers calls this kind of label set in config.json."""
        return f"{self.kind}_label_classification"

    def with_threshold(self, threshold: float) -> LabelSet:
        """The same labels, each of a multi-label set given from this probability on; a single-label set as it is."""
        return replace(self, thresholds=(threshold,) * len(self)) if self.multi else self

    @cached_property
    def label2id(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    @property
    def id2label(self) -> dict[int, str]:
        return dict(enumerate(self.names))

    @classmethod
    def from_config(cls, config: dict[str, Any], *, where: str, thresholds: Sequence[float] | None = None) -> LabelSet:
        """Read names and kind from `id2label` and `problem_type` of a model's config.json.

        thresholds: of a multi-label model, in the order of its labels. Raises ModelError without usable names, or
        where the thresholds are not one for each.
        """
        id2label = config.get("id2label")
        try:
            names = {int(key): str(name) for key, name in id2label.items()}  # type: ignore[union-attr]
        except (AttributeError, TypeError, ValueError):
            names = {}
        if not names or sorted(names) != list(range(len(names))):
            raise ModelError(
                f"{where}: config.json names no labels (id2label)",
                hint="this is a base model; fine-tune it first: textclf finetune --model ... --dataset ...",
            )
        kind: Kind = "multi" if config.get("problem_type") == "multi_label_classification" else "single"
        if kind == "single" or thresholds is None:
            return cls(tuple(names[index] for index in range(len(names))), kind)
        try:
            floors = tuple(float(one) for one in thresholds)
        except (TypeError, ValueError):
            floors = ()
        if len(floors) != len(names) or not all(0 <= floor <= 1 for floor in floors):
            raise ModelError(
                f"{where}: the thresholds in textclf.json are not one number, 0 to 1, for each of {len(names)} labels",
                hint="copy the model folder again",
            )
        return cls(tuple(names[index] for index in range(len(names))), kind, floors)

    def unknown(self, labels: Sequence[Label | None]) -> tuple[int, str] | None:
        """Position and name of the first label that is not in the set."""
        for index, label in enumerate(labels):
            for name in self._named(label):
                if name not in self.label2id:
                    return index, name
        return None

    def targets(self, labels: Sequence[Label | None]) -> np.ndarray:
        """Names to ids: (rows,) int64; of a multi-label set (rows, num_labels) uint8, 1 for each label of a row.

        Raises KeyError for a name that is not in the set.
        """
        if not self.multi:
            return np.fromiter((self.label2id[label] for label in labels), dtype=np.int64)  # type: ignore[index]
        targets_NC = np.zeros((len(labels), len(self)), dtype=np.uint8)
        for row, label in enumerate(labels):
            targets_NC[row, [self.label2id[name] for name in self._named(label)]] = 1
        return targets_NC

    def labels(self, targets: np.ndarray) -> list[Label]:
        """Ids to names, the inverse of `targets`: a name a row, or a tuple of them in a multi-label set."""
        if not self.multi:
            return [self.names[index] for index in targets.tolist()]
        return [tuple(self.names[index] for index in np.flatnonzero(row_C)) for row_C in targets]

    def _named(self, label: Label | None) -> Sequence[str]:
        return (label,) if isinstance(label, str) else label or ()

    def counts(self, targets: np.ndarray) -> np.ndarray:
        """How many rows have each label, by `targets` or decisions: (num_labels,) int64."""
        if self.multi:
            return targets.sum(axis=0, dtype=np.int64)  # type: ignore[no-any-return]
        return np.bincount(targets, minlength=len(self))

    def probabilities(self, logits_NC: np.ndarray) -> np.ndarray:
        """Logits to probabilities by softmax, or sigmoid in a multi-label set: (rows, num_labels) float32.

        In float64 inside.
        """
        if self.multi:
            with np.errstate(over="ignore"):  # exp of a large number is infinite, and its probability 0
                return (1 / (1 + np.exp(-logits_NC.astype(np.float64)))).astype(np.float32)  # type: ignore[no-any-return]
        shifted_NC = logits_NC.astype(np.float64)
        shifted_NC -= shifted_NC.max(axis=-1, keepdims=True, initial=-np.inf) if shifted_NC.size else 0
        exp_NC = np.exp(shifted_NC)
        return (exp_NC / exp_NC.sum(axis=-1, keepdims=True)).astype(np.float32)  # type: ignore[no-any-return]

    def decide(self, probs_NC: np.ndarray) -> np.ndarray:
        """The most probable label of each row: (rows,) int64. Ties go to the lower id, as in transformers.

        Of a multi-label set, which labels reach their threshold: (rows, num_labels) uint8.
        """
        if self.multi:
            floor_C = np.array(self.thresholds or (HALF,) * len(self), dtype=np.float32)
            return (probs_NC >= floor_C).astype(np.uint8)  # type: ignore[no-any-return]
        return probs_NC.argmax(axis=-1).astype(np.int64)  # type: ignore[no-any-return]

    def given(self, probs_NC: np.ndarray) -> list[list[int]]:
        """The ids of the labels that each row is given, most probable first; one in a single-label set."""
        if not self.multi:
            return self.decide(probs_NC)[:, np.newaxis].tolist()  # type: ignore[no-any-return]
        decided_NC = self.decide(probs_NC)
        order_NC = np.argsort(-probs_NC, axis=-1, kind="stable")
        return [[int(label) for label in order if row[label]] for row, order in zip(decided_NC, order_NC, strict=True)]

    def ranked(self, probs_NC: np.ndarray, top_k: int) -> np.ndarray:
        """The `top_k` most probable labels of each row, best first, or all if there are fewer: (rows, top_k) int64."""
        if top_k == 1:
            return probs_NC.argmax(axis=-1).astype(np.int64)[:, np.newaxis]  # type: ignore[no-any-return]
        return np.argsort(-probs_NC, axis=-1, kind="stable")[:, :top_k].astype(np.int64)

    def margins(self, logits_NC: np.ndarray) -> np.ndarray:
        """How far each row's answer is from another one, in logits: (rows,) float32.

        By how much the first label leads the second. Where a text has several labels, the least distance of one from
        its threshold.
        """
        if self.multi:
            floor_C = np.array(self.thresholds or (HALF,) * len(self))
            with np.errstate(divide="ignore"):  # a threshold of 0 or 1 is infinitely far
                needed_C = np.log(floor_C) - np.log1p(-floor_C)
            return np.abs(logits_NC - needed_C.astype(np.float32)).min(axis=-1)  # type: ignore[no-any-return]
        if len(self) == 1:
            return np.full(len(logits_NC), np.inf, dtype=np.float32)
        best_N2 = np.partition(logits_NC, -2, axis=-1)[:, -2:]
        return best_N2[:, 1] - best_N2[:, 0]  # type: ignore[no-any-return]

    def agreement(self, probs_NC: np.ndarray, other_NC: np.ndarray) -> float:
        """Share of the rows that are given the same label, or the very same labels, by both: 0 to 1."""
        same = self.decide(probs_NC) == self.decide(other_NC)
        return float(same.reshape(len(same), -1).all(axis=1).mean())


def in_natural_order(names: Sequence[str]) -> tuple[str, ...]:
    """Sort label names: as numbers when every one of them is a whole number, else by name."""
    if all(name.lstrip("-").isdecimal() and name.isascii() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))
