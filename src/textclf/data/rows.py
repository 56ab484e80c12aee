"""The canonical columns of a data set, and where each row came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation", "eval": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
"""How sources call the splits, and how we do."""


@dataclass(frozen=True)
class Rows:
    """Labelled texts in their source's order.

    table: columns `text` (large_string, null where the source has none), `label` (large_string, the label's
        *name*, null where the source has none), `row` (int64, the 1-based record number in its file, not
        counting a header) and `file` (dictionary of strings, the file or Hub split it came from).
    label_order: label names in the order that the source declares (ClassLabel), or None.
    """

    table: pa.Table
    label_order: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def texts(self) -> list[str | None]:
        return self.table.column("text").to_pylist()  # type: ignore[no-any-return]

    @property
    def labels(self) -> list[str | None]:
        return self.table.column("label").to_pylist()  # type: ignore[no-any-return]

    def where(self, index: int) -> str:
        """`file, row N` of one row, for messages."""
        return f"{self.table.column('file')[index].as_py()}, row {self.table.column('row')[index].as_py()}"

    def take(self, indices: np.ndarray) -> Rows:
        """The rows at these positions (int64), in this order."""
        return replace(self, table=self.table.take(pa.array(indices, type=pa.int64())))

    def keep(self, mask: np.ndarray) -> Rows:
        """The rows where the mask (rows,) bool is true."""
        return replace(self, table=self.table.filter(pa.array(mask, type=pa.bool_())))


def make_rows(
    texts: Sequence[str | None] | pa.ChunkedArray | pa.Array,
    labels: Sequence[str | None] | pa.ChunkedArray | pa.Array,
    *,
    file: str,
    label_order: tuple[str, ...] | None = None,
    row_numbers: Sequence[int] | None = None,
) -> Rows:
    """Rows of one file. `row_numbers` where they are not 1, 2, 3, ..."""
    count = len(texts)
    numbers = pa.array(row_numbers if row_numbers is not None else np.arange(1, count + 1), type=pa.int64())
    names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, dtype=np.int32)), pa.array([file]))
    table = pa.table({"text": _strings(texts), "label": _strings(labels), "row": numbers, "file": names})
    return Rows(table, label_order)


def concatenate(parts: Sequence[Rows]) -> Rows:
    """Rows of several files as one, in order; the first declared label order holds."""
    orders = [part.label_order for part in parts if part.label_order is not None]
    table = pa.concat_tables([part.table for part in parts]).unify_dictionaries()
    return Rows(table, orders[0] if orders else None)


def _strings(values: Sequence[str | None] | pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values.cast(pa.large_string())
    return pa.array(values, type=pa.large_string())
