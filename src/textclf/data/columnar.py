"""Parquet and arrow files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from textclf.data import mapped
from textclf.data.files import DataFile, Records, translated, whole
from textclf.errors import DataError

if TYPE_CHECKING:
    from pyarrow import parquet


def read_parquet(file: DataFile) -> Records:
    """The file opened; a column is read when it is asked for."""
    reader = open_parquet(_source(file))
    schema = reader.schema_arrow

    def column(name: str) -> pa.ChunkedArray:
        with translated(file):
            return _checked(parquet_table(reader, [name]).column(name))

    return Records(file.name, tuple(schema.names), column, class_names(schema))


def stream_parquet(file: DataFile, choose: Callable[[Records], tuple[str, ...]]) -> Iterator[Records]:
    """The chosen columns, so many rows at a time."""
    reader = open_parquet(_source(file))
    head = read_parquet(file)
    names = choose(head)
    if any(head.names.count(name) != 1 for name in names) or not reader.metadata.num_rows:
        yield head  # which says what is wrong
        return
    start = 0
    for batch in _batches(reader, list(names), most=mapped.ROWS):
        yield _part(file, head, pa.Table.from_batches([batch]), start)
        start += len(batch)


def open_parquet(source: object) -> parquet.ParquetFile:
    """A parquet file, by path or as arrow reads files, of which a page at a time is in memory."""
    from pyarrow import parquet

    # Not memory-mapped: mapped pages would count as memory of this process. A buffer ahead holds whole columns.
    return parquet.ParquetFile(source, buffer_size=1 << 16, pre_buffer=False)


def parquet_table(file: parquet.ParquetFile, columns: list[str] | None = None) -> pa.Table:
    """The chosen columns of a parquet file, or all: memory-mapped where they are large."""
    if not file.metadata.num_rows:
        return file.read(columns=columns, use_pandas_metadata=False)
    # Few rows at a time: a value that the file holds once for many rows stands in each of them.
    return mapped.gathered(pa.Table.from_batches([batch]) for batch in _batches(file, columns, most=1 << 10))


def _batches(file: parquet.ParquetFile, columns: list[str] | None, most: int) -> Iterator[pa.RecordBatch]:
    size = sum(file.metadata.row_group(group).total_byte_size for group in range(file.metadata.num_row_groups))
    rows = min(most, mapped.rows_together(file.metadata.num_rows, size))
    return file.iter_batches(batch_size=rows, columns=columns, use_pandas_metadata=False)  # type: ignore[no-any-return]


def read_arrow(file: DataFile) -> Records:
    """The file memory-mapped."""
    table = _open_arrow(file).read_all()

    def column(name: str) -> pa.ChunkedArray:
        with translated(file):
            return _checked(table.column(name))

    return Records(file.name, tuple(table.schema.names), column, class_names(table.schema))


def stream_arrow(file: DataFile, choose: Callable[[Records], tuple[str, ...]]) -> Iterator[Records]:
    """The chosen columns, so many rows at a time."""
    head = read_arrow(file)  # mapped: its pages come and go
    names = choose(head)
    table = _open_arrow(file).read_all()
    if any(head.names.count(name) != 1 for name in names) or not table.num_rows:
        yield head
        return
    table = table.select(list(names))
    rows = mapped.rows_together(table.num_rows, table.nbytes)
    for start in range(0, table.num_rows, rows):
        yield _part(file, head, table.slice(start, rows), start)


def _part(file: DataFile, head: Records, table: pa.Table, start: int) -> Records:
    def column(name: str) -> pa.ChunkedArray:
        with translated(file):
            return _checked(table.column(name))

    numbers = range(start + 1, start + 1 + table.num_rows)
    return Records(head.file, head.names, column, head.class_names, numbers)


def _source(file: DataFile) -> object:
    return pa.BufferReader(whole(file)) if file.compression else file.path


def _open_arrow(file: DataFile) -> pa.ipc.RecordBatchReader | pa.ipc.RecordBatchFileReader:
    source = pa.BufferReader(whole(file)) if file.compression else pa.memory_map(str(file.path))
    if source.size() == 0:
        raise DataError(f"{file.path} is empty")
    is_file = source.read(6) == b"ARROW1"
    source.seek(0)
    return pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)


def class_names(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """The columns of ClassLabels, or of lists of them, that `datasets` noted in a schema's metadata, with the names in
    the order of their ids."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        inner = {column: _element(feature) for column, feature in features.items()}
        return {
            column: tuple(map(str, feature["names"]))
            for column, feature in inner.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _element(feature: Any) -> Any:
    """What a feature is a list of, or the feature itself. Versions of datasets write lists in three ways."""
    if isinstance(feature, list) and len(feature) == 1:
        return feature[0]
    if isinstance(feature, dict) and feature.get("_type") in ("List", "LargeList", "Sequence"):
        return feature.get("feature")
    return feature


def _checked(column: pa.ChunkedArray) -> pa.ChunkedArray:
    # Offsets and UTF-8 of a foreign file are not to be trusted: reading past them would end the process.
    column.validate(full=True)
    return column
