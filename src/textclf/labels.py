"""The label set: names to ids, logits to probabilities, probabilities to decisions. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from textclf.errors import DataError, ModelError


@dataclass(frozen=True)
class LabelSet:
    """The label names of a model in the order of its logits.

    names: (num_labels,) unique, in the source's order (ClassLabel) or sorted.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(set(self.names)) != len(self.names):
            doubled = sorted({name for name in self.names if self.names.count(name) > 1})
            raise DataError(f"label names occur twice: {', '.join(map(repr, doubled[:5]))}")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def problem_type(self) -> str:
        """What transformers calls this kind of label set in config.json."""
        return "single_label_classification"

    @cached_property
    def label2id(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.names)}

    @property
    def id2label(self) -> dict[int, str]:
        return dict(enumerate(self.names))

    @classmethod
    def from_config(cls, config: dict[str, Any], *, where: str) -> LabelSet:
        """Read the names from the `id2label` of a model's config.json. Raises ModelError without usable names."""
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
        return cls(tuple(names[index] for index in range(len(names))))

    def targets(self, labels: Iterable[str]) -> np.ndarray:
        """Names to ids: (rows,) int64. Raises KeyError for a name that is not in the set."""
        return np.fromiter((self.label2id[label] for label in labels), dtype=np.int64)

    def probabilities(self, logits_NC: np.ndarray) -> np.ndarray:
        """Logits to probabilities, row by row: (rows, num_labels) float32, in float64 inside."""
        shifted_NC = logits_NC.astype(np.float64)
        shifted_NC -= shifted_NC.max(axis=-1, keepdims=True, initial=-np.inf) if shifted_NC.size else 0
        exp_NC = np.exp(shifted_NC)
        return (exp_NC / exp_NC.sum(axis=-1, keepdims=True)).astype(np.float32)  # type: ignore[no-any-return]

    def decide(self, probs_NC: np.ndarray) -> np.ndarray:
        """The most probable label of each row: (rows,) int64. Ties go to the lower id, as in transformers."""
        return probs_NC.argmax(axis=-1).astype(np.int64)  # type: ignore[no-any-return]

    def ranked(self, probs_NC: np.ndarray, top_k: int) -> np.ndarray:
        """The `top_k` most probable labels of each row, best first, or all if there are fewer: (rows, top_k) int64."""
        if top_k == 1:
            return self.decide(probs_NC)[:, np.newaxis]
        return np.argsort(-probs_NC, axis=-1, kind="stable")[:, :top_k].astype(np.int64)


def in_natural_order(names: Sequence[str]) -> tuple[str, ...]:
    """Sort label names: as numbers when every one of them is a whole number, else by name."""
    if all(name.lstrip("-").isdecimal() and name.isascii() for name in names):
        return tuple(sorted(names, key=int))
    return tuple(sorted(names))
