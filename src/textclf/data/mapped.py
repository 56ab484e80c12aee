"""Tables that are large lie in memory-mapped files, which nobody else sees.

So memory does not grow with the number of rows; the operating system takes mapped pages back as it likes.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from typing import BinaryIO

import numpy as np
import pyarrow as pa

from textclf import atomic, paths

LARGE = 1 << 26
"""Bytes from which on a table lies in a file."""
PIECE = 1 << 23
"""Bytes of a large table that are in memory together, about."""
ROWS = 1 << 14
"""And rows, at most."""


class Gathering:
    """Tables of one schema as one, as they come: in memory, and from `LARGE` bytes on in a file."""

    def __init__(self) -> None:
        self._parts: list[pa.Table] = []
        self._size = 0
        self._file: BinaryIO | None = None
        self._writer: pa.RecordBatchStreamWriter | None = None

    def add(self, part: pa.Table) -> None:
        """Take what comes next. Raises ResourceError (disk full, no permission)."""
        self._parts.append(part)
        self._size += _size(part)
        if self._size >= LARGE:
            self._write()

    def table(self) -> pa.Table:
        """All that was added, at least one table; nothing can be added after it. Raises ResourceError."""
        if self._file is None or self._writer is None:
            return pa.concat_tables(self._parts)
        self._write()
        with atomic.translated(paths.cache_dir()), self._file as file:
            self._writer.close()
            file.flush()
            content = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            return _with_own_dictionaries(pa.ipc.open_stream(content).read_all())

    def close(self) -> None:
        """Give up what was added."""
        if self._file is not None:
            self._file.close()

    def _write(self) -> None:
        folder = paths.cache_dir()
        if self._file is None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - `table` and `close` close it
            except OSError:  # a cache that is for reading only: then in memory
                return
            self._writer = pa.ipc.new_stream(self._file, self._parts[0].schema)
        assert self._writer is not None
        with atomic.translated(folder):
            for part in self._parts:
                self._writer.write_table(part, max_chunksize=ROWS)
        self._parts.clear()


def gathered(parts: Iterable[pa.Table]) -> pa.Table:
    """These tables of one schema, at least one, as one table, mapped where it is large. Raises ResourceError."""
    gathering = Gathering()
    with closing(gathering):
        for part in parts:
            gathering.add(part)
        return gathering.table()


def changed(table: pa.Table, change: Callable[[pa.Table, int], pa.Table]) -> pa.Table:
    """A table by a change that looks at no more than a row at a time: of a large one piece by piece, and mapped.

    change: called with some of the rows and the place of the first of them.
    """
    if not is_large(table):
        return change(table, 0)
    return gathered(change(piece, start) for start, piece in pieces(table))


def rows_together(rows: int, size: int) -> int:
    """How many of so many rows that take `size` bytes are to be in memory together."""
    return max(1, min(ROWS, rows * PIECE // max(1, size)))


def taken(table: pa.Table, indices: np.ndarray) -> pa.Table:
    """The rows at these places (int64), which rise."""
    return gathered(taking(table, indices)) if is_large(table) else table.take(pa.array(indices, type=pa.int64()))


def taking(table: pa.Table, indices: np.ndarray) -> Iterator[pa.Table]:
    """What `taken` gives, piece by piece; one piece at least."""
    for start, piece in pieces(table):
        begin, end = np.searchsorted(indices, [start, start + len(piece)])
        yield piece.take(pa.array(indices[begin:end] - start, type=pa.int64()))


def pieces(table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """A table in parts of some megabytes, each with the place of its first row; one part where it has none."""
    rows = rows_together(len(table), _size(table))
    batches: list[pa.RecordBatch] = []
    start = waiting = 0
    for batch in table.to_batches(max_chunksize=rows):
        if waiting and waiting + len(batch) > rows:
            yield start, _joined(batches)
            start, waiting, batches = start + waiting, 0, []
        waiting += len(batch)
        batches.append(batch)
    yield start, _joined(batches) if batches else table


def is_large(table: pa.Table) -> bool:
    """Whether a table is one for a file."""
    return _size(table) >= LARGE


def _size(table: pa.Table) -> int:
    """Bytes of a table without its dictionaries, which chunks share."""
    indices = (
        pa.chunked_array([chunk.indices for chunk in column.chunks], column.type.index_type)
        if pa.types.is_dictionary(column.type)
        else column
        for column in table.columns
    )
    return sum(column.nbytes for column in indices)


def _joined(batches: list[pa.RecordBatch]) -> pa.Table:
    table = pa.Table.from_batches(batches)
    return table if len(batches) == 1 else table.combine_chunks()  # many small ones take long


def _with_own_dictionaries(table: pa.Table) -> pa.Table:
    """A mapped table with its small dictionaries in memory: rows taken from it would keep its file by them."""
    for place, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            own: dict[int, pa.Array] = {}
            chunks = []
            for chunk in table.column(place).chunks:
                dictionary = chunk.dictionary
                data = dictionary.buffers()[-1]
                if dictionary.nbytes < PIECE and data is not None:
                    if data.address not in own:
                        own[data.address] = dictionary.take(pa.array(np.arange(len(dictionary))))
                    dictionary = own[data.address]
                chunks.append(pa.DictionaryArray.from_arrays(chunk.indices, dictionary))
            table = table.set_column(place, field, pa.chunked_array(chunks, field.type))
    return table
