"""JSON files: one object a line, or one list of objects."""

from __future__ import annotations

import array
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from textclf.data import mapped
from textclf.data.files import BLOCK, Column, DataFile, Records, check_utf8, checked_start, not_utf8, opened, translated
from textclf.errors import DataError

_PACK = 1 << 14
"""Rows after which values are packed into arrow, which takes a third of what Python's do; or bytes of `BLOCK`."""


def read_json(file: DataFile) -> Records:
    """The whole file. Either form may stand in .json as in .jsonl."""
    with opened(file) as stream:
        start = checked_start(file, stream.read(BLOCK))
        if _are_lines(file, start):
            columns = _Columns()
            for number, line in _lines(start, stream):
                columns.add(_row(file, number, line), number, len(line))
            return columns.records(file)
        data = start + stream.read()
    document = _json_document(file, data)
    return _json_list(file, document if isinstance(document, list) else _rows_within(file, document))


def stream_json(file: DataFile, choose: Callable[[Records], tuple[str, ...]]) -> Iterator[Records]:
    """The file block by block where it has one object a line, else whole. The first block shows the columns."""
    with translated(file), opened(file) as stream:
        start = checked_start(file, stream.read(BLOCK))
        if _are_lines(file, start):
            yield from _streamed(file, _lines(start, stream), choose)
            return
    records = read_json(file)
    choose(records)
    yield records


def _streamed(
    file: DataFile, lines: Iterator[tuple[int, bytes]], choose: Callable[[Records], tuple[str, ...]]
) -> Iterator[Records]:
    names: tuple[str, ...] | None = None
    columns, size = _Columns(), 0
    for number, line in lines:
        row = _row(file, number, line)
        columns.add(row if names is None else {name: row.get(name) for name in names}, number, len(line))
        size += len(line)
        if size >= BLOCK:
            part = columns.records(file)
            names = names or choose(part)
            yield part
            columns, size = _Columns(), 0
    if columns.numbers or names is None:
        part = columns.records(file)
        if names is None:
            choose(part)
        yield part


def _are_lines(file: DataFile, start: bytes) -> bool:
    """Whether the file has one object a line, going by its first bytes."""
    sign = start.lstrip()[:1]
    if sign == b"[":
        return False
    if file.format == "json" and sign == b"{":
        first, _, rest = start.lstrip().partition(b"\n")
        # One object, on one line or over several, is no row: the rows are in it.
        return bool(rest.strip()) and _is_object(first)
    return True


def _lines(start: bytes, stream: io.BufferedIOBase | Any) -> Iterator[tuple[int, bytes]]:
    """Lines that are not blank with their numbers; a line ends at \\n only, never at U+0085 or U+2028."""
    number, rest, piece = 0, b"", start
    while piece:
        *ends, rest = (rest + piece).split(b"\n")
        for number, line in enumerate(ends, start=number + 1):  # noqa: B020
            if line.strip():
                yield number, line
        piece = stream.read(max(BLOCK, len(rest)))
    if rest.strip():
        yield number + 1, rest


def _row(file: DataFile, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as err:
        raise not_utf8(file, f"line {number}, byte {err.start + 1} of the line") from err
    except (ValueError, RecursionError) as err:
        reason = err.msg if isinstance(err, json.JSONDecodeError) else "too deep or too long a number"
        raise DataError(
            f"{file.path}, line {number}: not JSON ({reason})",
            hint='each line is one object: {"text": "...", "label": "..."}',
        ) from err
    if not isinstance(row, dict):
        raise DataError(
            f"{file.path}, line {number}: {_json_kind(row)} where an object should be",
            hint='each line is one object: {"text": "...", "label": "..."}',
        )
    return row


def _json_list(file: DataFile, rows: list[Any]) -> Records:
    columns = _Columns()
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(
                f"{file.path}, row {number}: {_json_kind(row)} where an object should be",
                hint='the file is a list of objects: [{"text": "...", "label": "..."}, ...]',
            )
        columns.add(row, number, 0)
    return columns.records(file)


def _json_document(file: DataFile, data: bytes) -> Any:
    check_utf8(file, data)
    try:
        return json.loads(data.decode("utf-8"))
    except json.JSONDecodeError as err:
        raise DataError(
            f"{file.path}, line {err.lineno}, column {err.colno}: not JSON ({err.msg})",
            hint="was the file cut off, or edited by hand?",
        ) from err
    except (ValueError, RecursionError) as err:
        raise DataError(f"{file.path}: not JSON that can be read (too deep or too long a number)") from err


def _rows_within(file: DataFile, document: Any) -> list[Any]:
    """The one list of objects in an object, as in {"data": [...]}."""
    lists = [value for value in document.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
    if len(lists) == 1:
        return lists[0]
    raise DataError(
        f"{file.path}: an object with {len(document):,} keys, not a list of rows",
        hint='write a list of objects, [{"text": "...", "label": "..."}, ...], or one object a line',
    )


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode("utf-8")), dict)
    except (ValueError, RecursionError):
        return False


def _json_kind(value: object) -> str:
    kinds = {list: "a list", str: "a text", bool: "true or false", type(None): "null"}
    return kinds.get(type(value), "a number")


class _Columns:
    """Rows with whatever keys they have, gathered into columns of one length; what a row lacks is None."""

    def __init__(self) -> None:
        self.numbers = array.array("q")
        self._values: dict[str, list[Any]] = {}
        self._packed: dict[str, list[mapped.Gathering | list[Any]]] = {}
        self._count = 0  # rows that are packed
        self._size = 0  # bytes of those that are not

    def add(self, row: dict[str, Any], number: int, size: int) -> None:
        if row.keys() != self._values.keys():
            for name in row:
                self._values.setdefault(name, [None] * (len(self.numbers) - self._count))
            row = {**dict.fromkeys(self._values), **row}
        for name, value in row.items():
            self._values[name].append(value)
        self.numbers.append(number)
        self._size += size
        if len(self.numbers) - self._count >= _PACK or self._size >= BLOCK:
            self._pack()

    def records(self, file: DataFile) -> Records:
        """All that was added; nothing can be added after it."""
        self._pack()
        columns = {
            name: [part.table().column(0) if isinstance(part, mapped.Gathering) else part for part in parts]
            for name, parts in self._packed.items()
        }
        return Records(file.name, tuple(columns), lambda name: _joined(columns[name]), {}, self.numbers)

    def _pack(self) -> None:
        for name, values in self._values.items():
            before = [pa.nulls(self._count, pa.large_string())] if name not in self._packed else []
            parts = self._packed.setdefault(name, [])
            for packed in (*before, _packed(values)):
                if isinstance(packed, list):
                    parts.append(packed)
                    continue
                last = parts[-1] if parts else None
                if not isinstance(last, mapped.Gathering):
                    last = mapped.Gathering()
                    parts.append(last)
                last.add(pa.table({"value": packed}))
            values.clear()
        self._count, self._size = len(self.numbers), 0


def _joined(parts: list[Column]) -> Column:
    """In arrow where all values are texts, else as Python's values."""
    in_arrow = [part for part in parts if not isinstance(part, list)]
    if len(in_arrow) < len(parts):
        return [value for part in parts for value in (part if isinstance(part, list) else part.to_pylist())]
    return pa.chunked_array([chunk for part in in_arrow for chunk in part.chunks], pa.large_string())


def _packed(values: list[Any]) -> pa.Array | list[Any]:
    if all(value is None or isinstance(value, str) for value in values):
        try:
            return pa.array(values, pa.large_string())
        except UnicodeEncodeError:  # half a surrogate pair
            pass
    return list(values)
