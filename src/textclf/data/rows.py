"""The canonical columns of a data set, and where each row came from."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from textclf.data import mapped
from textclf.labels import Kind, Label

SPLITS = ("train", "validation", "test")
SPLIT_NAMES = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation", "eval": "validation",
    "test": "test", "testing": "test",
}  # fmt: skip
"""How sources call the splits, and how we do."""

PAIR = "text_pair"
QUESTION = "question"
"""Column of questions with choices, int64: which question of the split, from 0, a row belongs to."""

TEXT_ID = "text_id"
"""Column of `number_texts`, int32: equal texts have equal numbers. Not kept on disk."""


@dataclass(frozen=True)
class Rows:
    """Labelled texts in their source's order.

    table: columns `text` (large_string, null where the source has none), `label` (large_string, the label's
        *name*, or a large_list of any number of names; null where the source has none), `row` (int64, the 1-based
        record number in its file, not counting a header) and `file` (dictionary of strings, the file or Hub split it
        came from). Pairs have `text_pair` (large_string) too; questions with choices have what `questions` says.
    label_order: label names in the order that the source declares (ClassLabel), or None.
    """

    table: pa.Table
    label_order: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @property
    def texts(self) -> list[str | None]:
        """Every text as a Python string, about 60 bytes each on top of its characters; `text_column` has none."""
        return self.text_column.to_pylist()  # type: ignore[no-any-return]

    @property
    def text_column(self) -> pa.ChunkedArray:
        return self.table.column("text")

    @property
    def pair_column(self) -> pa.ChunkedArray | None:
        """The second texts of pairs; None for single texts."""
        return self.table.column(PAIR) if PAIR in self.table.column_names else None

    @property
    def text_names(self) -> tuple[str, ...]:
        """The columns of texts: one, or both of pairs."""
        return ("text",) if self.pair_column is None else ("text", PAIR)

    @property
    def has_questions(self) -> bool:
        """Whether the rows are questions with choices, or each a question with one choice."""
        return QUESTION in self.table.column_names

    @property
    def kind(self) -> Kind:
        """Whether a row has one label or any number of them."""
        return "multi" if types.is_large_list(self.table.schema.field("label").type) else "single"

    @property
    def labels(self) -> list[Label | None]:
        """Label names, or tuples of them; equal names are one Python string."""
        column = self.table.column("label")
        names = _as_objects(label_names(column))
        if self.kind == "single":
            return names
        ends = np.cumsum(pc.fill_null(pc.list_value_length(column), 0).to_numpy()).tolist()
        known = pc.is_valid(column).to_pylist()
        starts = [0, *ends[:-1]]
        return [
            tuple(names[start:end]) if valid else None  # type: ignore[arg-type]
            for start, end, valid in zip(starts, ends, known, strict=True)
        ]

    def where(self, index: int) -> str:
        """`file, row N` of one row, for messages."""
        return f"{self.table.column('file')[index].as_py()}, row {self.table.column('row')[index].as_py()}"

    def with_columns(self, **columns: pa.Array | pa.ChunkedArray) -> Rows:
        """The rows with other values in some of their columns, (rows,) each."""
        table = self.table
        for name, values in columns.items():
            table = table.set_column(table.schema.get_field_index(name), name, values)
        return replace(self, table=table)

    def take(self, indices: np.ndarray) -> Rows:
        """The rows at these positions (int64), in this order."""
        if (np.diff(indices) >= 0).all():
            return replace(self, table=mapped.taken(self.table, indices))
        return replace(self, table=self.table.take(pa.array(indices, type=pa.int64())))

    def keep(self, mask: np.ndarray) -> Rows:
        """The rows where the mask (rows,) bool is true."""
        if mask.all():
            return self  # a copy would double the memory

        def kept(piece: pa.Table, start: int) -> pa.Table:
            return piece.filter(pa.array(mask[start : start + len(piece)], type=pa.bool_()))

        return replace(self, table=mapped.changed(self.table, kept))


def make_rows(
    texts: Sequence[str | None] | pa.ChunkedArray | pa.Array,
    labels: Sequence[Label | None] | pa.ChunkedArray | pa.Array,
    *,
    pairs: Sequence[str | None] | pa.ChunkedArray | pa.Array | None = None,
    file: str,
    label_order: tuple[str, ...] | None = None,
    row_numbers: Sequence[int] | None = None,
) -> Rows:
    """Rows of one file. `row_numbers` where they are not 1, 2, 3, ..."""
    count = len(texts)
    numbers = pa.array(np.arange(1, count + 1) if row_numbers is None else np.asarray(row_numbers, dtype=np.int64))
    names = pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, dtype=np.int32)), pa.array([file]))
    table = pa.table({"text": _strings(texts), "label": _strings(labels), "row": numbers, "file": names})
    if pairs is not None:
        table = table.append_column(PAIR, _strings(pairs))
    return Rows(table, label_order)


def number_texts(splits: Mapping[str, Rows]) -> dict[str, Rows]:
    """The splits with a number for each text, or pair of texts, so that nothing else has to compare texts again."""
    numbers = [pa.array(numbered.astype(np.int32)) for numbered in codes(list(splits.values()), "text")]
    return {
        split: replace(rows, table=rows.table.append_column(TEXT_ID, column))
        for (split, rows), column in zip(splits.items(), numbers, strict=True)
    }


def codes(parts: Sequence[Rows], column: str) -> list[np.ndarray]:
    """Each value as a number from 0, equal values alike over all parts: one (rows,) int64 a part. Of `text`, pairs
    of texts are the values where there are pairs."""
    if column == "text" and all(TEXT_ID in part.table.column_names for part in parts):
        return [part.table.column(TEXT_ID).to_numpy().astype(np.int64) for part in parts]
    if column == "text" and all(PAIR in part.table.column_names for part in parts):
        first, second = (np.concatenate(_codes(parts, name)) for name in ("text", PAIR))
        _, numbers = np.unique(first * (second.max(initial=0) + 1) + second, return_inverse=True)
        return np.split(numbers, np.cumsum([len(part) for part in parts])[:-1])
    return _codes(parts, column)


def _codes(parts: Sequence[Rows], column: str) -> list[np.ndarray]:
    chunks = [chunk for part in parts for chunk in part.table.column(column).chunks]
    # Chunk by chunk, with one dictionary over all: a column in one piece would be a copy of all texts.
    if chunks and types.is_large_list(chunks[0].type):
        return _codes_of_lists(parts, column)
    numbers = number_strings(pa.chunked_array(chunks, pa.large_string()))
    return np.split(numbers, np.cumsum([len(part) for part in parts])[:-1])


def number_strings(column: pa.ChunkedArray) -> np.ndarray:
    """Each string as a number from 0, in the order of their first occurrence: (rows,) int64. None is null."""
    if mapped.is_large(pa.table([column], ["strings"])):  # they would be kept in memory
        column = _digests(column)
    indices = [chunk.indices.to_numpy(zero_copy_only=False) for chunk in column.dictionary_encode().chunks]
    return np.concatenate([np.zeros(0, np.int64), *indices]).astype(np.int64)


def _digests(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """16 bytes for each string, which no other string has."""

    def digests(strings: pa.Array) -> pa.Array:
        spelt = strings.cast(pa.large_binary()).to_pylist()
        data = b"".join(hashlib.blake2b(string, digest_size=16).digest() for string in spelt)
        return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(strings), [None, pa.py_buffer(data)])

    strings = (piece.column(0) for _, piece in mapped.pieces(pa.table([column], ["strings"])))
    return pa.chunked_array([digests(chunk) for piece in strings for chunk in piece.chunks], pa.binary(16))


def label_names(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The names in a `label` column, one after another: large_string."""
    return pc.list_flatten(column) if types.is_large_list(column.type) else column


def spelled(column: pa.ChunkedArray) -> Iterator[bytes | memoryview]:
    """The content of a column of strings, or of lists of them (none null), as bytes, however it is cut into chunks."""
    if types.is_large_list(column.type):
        yield pc.list_value_length(column).to_numpy().astype("<i8").tobytes()
        column = label_names(column)
    chunks = [chunk for chunk in column.chunks if len(chunk)]
    # Lengths before the characters: no text can pass for the end of one and the beginning of another.
    for values in chunks:
        yield pc.binary_length(values).to_numpy(zero_copy_only=False).astype("<i8").tobytes()
    for values in chunks:
        _, offsets, data = values.buffers()
        bounds = np.frombuffer(offsets, dtype=np.int64)[values.offset : values.offset + len(values) + 1]
        if data is not None:
            yield memoryview(data)[bounds[0] : bounds[-1]]


def concatenate(parts: Sequence[Rows]) -> Rows:
    """Rows of several files as one, in order; the first declared label order holds."""
    orders = [part.label_order for part in parts if part.label_order is not None]
    table = pa.concat_tables([part.table for part in parts]).unify_dictionaries()
    return Rows(table, orders[0] if orders else None)


def _codes_of_lists(parts: Sequence[Rows], column: str) -> list[np.ndarray]:
    numbers: dict[frozenset[str], int] = {}
    return [
        np.array(
            [
                numbers.setdefault(frozenset(names or ()), len(numbers))
                for names in part.table.column(column).to_pylist()
            ],
            dtype=np.int64,
        )
        for part in parts
    ]


def _as_objects(column: pa.ChunkedArray) -> list[Any]:
    encoded = column.dictionary_encode(null_encoding="encode").combine_chunks()
    names = encoded.dictionary.to_pylist()
    return [names[index] for index in encoded.indices.to_numpy(zero_copy_only=False).tolist()]


def _strings(values: Sequence[Label | None] | pa.ChunkedArray | pa.Array) -> pa.ChunkedArray | pa.Array:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values if types.is_large_list(values.type) else values.cast(pa.large_string())
    return pa.array(values, type=pa.large_string())
