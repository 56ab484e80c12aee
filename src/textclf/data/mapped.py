"""Tables that are large lie in memory-mapped files, which nobody else sees.

So memory does not grow with the number of rows; the operating system takes mapped pages back as it likes.
"""

from __future__ import annotations

import mmap
import tempfile
from collections.abc import Callable, Iterable, Iterator
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
        self._size += part.nbytes
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
            return pa.ipc.open_stream(pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))).read_all()

    def _write(self) -> None:
        folder = paths.cache_dir()
        with atomic.translated(folder):
            if self._file is None:
                folder.mkdir(parents=True, exist_ok=True)
                self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - `table` closes it
                self._writer = pa.ipc.new_stream(self._file, self._parts[0].schema)
            assert self._writer is not None
            for part in self._parts:
                self._writer.write_table(part, max_chunksize=ROWS)
        self._parts.clear()


def gathered(parts: Iterable[pa.Table]) -> pa.Table:
    """These tables of one schema, at least one, as one table, mapped where it is large. Raises ResourceError."""
    gathering = Gathering()
    for part in parts:
        gathering.add(part)
    return gathering.table()


def changed(table: pa.Table, change: Callable[[pa.Table, int], pa.Table]) -> pa.Table:
    """A table by a change that looks at no more than a row at a time: of a large one piece by piece, and mapped.

    change: called with some of the rows and the place of the first of them.
    """
    if table.nbytes < LARGE:
        return change(table, 0)
    return gathered(change(piece, start) for start, piece in pieces(table))


def rows_together(rows: int, size: int) -> int:
    """How many of so many rows that take `size` bytes are to be in memory together."""
    return max(1, min(ROWS, rows * PIECE // max(1, size)))


def taken(table: pa.Table, indices: np.ndarray) -> pa.Table:
    """The rows at these places (int64), which rise."""

    def within(piece: pa.Table, start: int) -> pa.Table:
        begin, end = np.searchsorted(indices, [start, start + len(piece)])
        return piece.take(pa.array(indices[begin:end] - start))

    return changed(table, within)


def pieces(table: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    """A table in parts of some megabytes, each with the place of its first row; one part where it has none."""
    start = 0
    for batch in table.to_batches(max_chunksize=rows_together(len(table), table.nbytes)):
        yield start, pa.Table.from_batches([batch])
        start += len(batch)
    if not start:
        yield 0, table
