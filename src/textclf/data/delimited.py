"""Comma- and tab-separated files as columns of text, exact about quotes and newlines, block by block."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa

from textclf.data import mapped
from textclf.data.files import BLOCK, DataFile, Records, check_utf8, checked_start, opened, translated, whole
from textclf.errors import DataError

_LARGEST_BLOCK = (1 << 31) - 1
"""Bytes that the csv reader takes; a record lies within."""


def read_csv(file: DataFile, columns: tuple[str, ...] | None) -> Records:
    """The whole file. `columns` names its columns where it has no header line."""
    with opened(file) as stream:
        layout, blocks = _opened_csv(file, stream, columns)
        return _joined(layout, _tables(layout, blocks))


def stream_csv(file: DataFile, choose: Callable[[Records], tuple[str, ...]]) -> Iterator[Records]:
    """The file block by block."""
    with translated(file), opened(file) as stream:
        layout, blocks = _opened_csv(file, stream, None)
        choose(_joined(layout, iter([])))
        for table in _tables(layout, blocks):
            yield _joined(layout, iter([table]))


def read_tsv(file: DataFile, columns: tuple[str, ...] | None) -> Records:
    """Tab-separated values, with csv's quotes or without any: a plain file may hold `"` at the start of a text."""
    data = checked_start(file, whole(file))
    if b'"' not in data:
        return _plain(file, data, columns, ())
    if _is_quoted(data):
        note = f"{file.name}: quotes around texts are read as in csv"
        layout = _layout(file, data.lstrip(b"\r\n"), "\t", columns, (note,))
        return _joined(layout, _tables(layout, iter([(data.lstrip(b"\r\n"), False)])))
    return _plain(file, data, columns, (f"{file.name}: quotes are read as part of the texts",))


@dataclass(frozen=True)
class _Layout:
    """How a file is to be read.

    header: whether its first record names the columns. newline: what ends a line.
    """

    file: DataFile
    delimiter: str
    names: tuple[str, ...]
    header: bool
    notes: tuple[str, ...]
    newline: bytes


def _opened_csv(
    file: DataFile, stream: BinaryIO, columns: tuple[str, ...] | None
) -> tuple[_Layout, Iterator[tuple[bytes, bool]]]:
    """The layout of a csv, and its bytes as `_blocks` cuts them."""
    start = checked_start(file, stream.read(BLOCK))
    told = re.match(rb'"?sep=([,;\t|])"?\r?\n', start)  # what spreadsheets write for each other
    start = start[told.end() :] if told else start
    delimiter = told[1].decode() if told else _delimiter(start, columns)
    notes = () if delimiter == "," else (f"{file.name}: columns are separated by {_spoken(delimiter)}",)
    start = start.lstrip(b"\r\n")
    layout = _layout(file, start, delimiter, columns, notes)
    return layout, _blocks(layout, start, stream)


def _layout(
    file: DataFile, start: bytes, delimiter: str, columns: tuple[str, ...] | None, notes: tuple[str, ...]
) -> _Layout:
    newline = b"\n" if b"\n" in start else b"\r"
    first = _first_record(start, delimiter)
    names = columns or tuple(first)
    _check_header(file, names, len(first), columns)
    header = columns is None or tuple(first) == columns
    if columns is not None and header:
        notes = (*notes, f"{file.name}: its first line is the header that --columns repeats")
    return _Layout(file, delimiter, names, header, notes, newline)


def _blocks(layout: _Layout, start: bytes, stream: BinaryIO) -> Iterator[tuple[bytes, bool]]:
    """The bytes of a csv in blocks of whole records, and whether the quotes of each are known to be sound."""
    pending = start
    while piece := stream.read(max(BLOCK, len(pending))):
        end = _end_of_records(pending, layout)
        if end:
            yield pending[:end], True
        pending = pending[end:] + piece
    if pending:
        yield pending, False


def _end_of_records(data: bytes, layout: _Layout) -> int:
    """Where the last whole, well-quoted record ends; 0 where the first one goes on."""
    newline = layout.newline
    if b'"' not in data:
        return data.rfind(newline) + 1
    sign = re.escape(layout.delimiter.encode())
    quoted = rb'"[^"]*+(?:""[^"]*+)*+"(?=[' + sign + rb"\r\n])"
    bare = rb'[^"' + sign + newline + rb"][^" + sign + newline + rb"]*+"
    match = re.compile(rb"(?:(?:" + sign + rb"|" + quoted + rb"|" + bare + rb")*+" + newline + rb")*+").match(data)
    return match.end() if match else 0


def _tables(layout: _Layout, blocks: Iterator[tuple[bytes, bool]]) -> Iterator[pa.Table]:
    """All fields of each block as text, the columns called 0, 1, 2, ..."""
    rows = lines = position = 0
    for block, is_sound in blocks:
        data = _quote_returns(block, layout)
        header = layout.header and not position
        if not is_sound:
            _check_quotes(layout, data, rows - header)
        try:
            table = _csv_table(layout, data, header=header, rows=rows)
        except pa.ArrowInvalid:
            check_utf8(layout.file, data, lines=lines, position=position)
            # Only now: pyarrow prints a traceback where a row that it should name is not UTF-8.
            table = _csv_table(layout, data, header=header, rows=rows, name_ragged=True)
        yield table
        rows += table.num_rows
        lines += block.count(b"\n")
        position += len(block)


def _joined(layout: _Layout, tables: Iterator[pa.Table]) -> Records:
    schema = pa.schema([(str(index), pa.large_string()) for index in range(len(layout.names))])
    table = mapped.gathered(itertools.chain([schema.empty_table()], tables))
    return Records(
        layout.file.name, layout.names, lambda name: table.column(layout.names.index(name)), {}, None, layout.notes
    )


def _csv_table(layout: _Layout, data: bytes, *, header: bool, rows: int, name_ragged: bool = False) -> pa.Table:
    """All fields as text. pyarrow: fast, exact about newlines and quotes, and able to keep `NA` what it is.

    rows: how many come before these. name_ragged: raise DataError that names the first row of another width, not
    ArrowInvalid.
    """
    from pyarrow import csv

    ids = [str(index) for index in range(len(layout.names))]
    schema = pa.schema([(name, pa.large_string()) for name in ids])
    if not data.strip(b"\r\n"):
        return schema.empty_table()
    data = data if data.endswith(b"\n") else data + b"\n"
    ragged: list[tuple[int, int]] = []

    def note(row: Any) -> str:
        ragged.append((row.number - header, row.actual_columns))
        return "skip"

    table = csv.read_csv(
        pa.BufferReader(data),
        # One thread, or the rows that are named in an error have no numbers.
        read_options=csv.ReadOptions(
            use_threads=False,
            block_size=min(len(data), _LARGEST_BLOCK),
            column_names=ids,
            skip_rows_after_names=int(header),
        ),
        parse_options=csv.ParseOptions(
            delimiter=layout.delimiter, newlines_in_values=True, invalid_row_handler=note if name_ragged else None
        ),
        convert_options=csv.ConvertOptions(
            column_types=dict.fromkeys(ids, pa.large_string()), strings_can_be_null=False
        ),
    )
    if ragged:
        row, fields = ragged[0]
        more = f" (and {len(ragged) - 1:,} rows more)" if len(ragged) > 1 else ""
        sign = layout.delimiter
        raise DataError(
            f"{layout.file.path}, row {rows + row}: {_fields(fields)} where there are {len(ids)} columns{more}",
            hint=f'put double quotes around texts that hold {_spoken(sign)}: "one{sign} two"',
        )
    return table


def _plain(file: DataFile, data: bytes, columns: tuple[str, ...] | None, notes: tuple[str, ...]) -> Records:
    """Tab-separated values in which a quote is a character like any other, read line by line."""
    check_utf8(file, data)
    lines = data.decode("utf-8").split("\n")
    if lines[0].endswith("\r"):
        lines = [line.removesuffix("\r") for line in lines]
    cells = [line.split("\t") for line in lines if line]
    first = cells[0] if cells else []
    names = columns or tuple(first)
    _check_header(file, names, len(first), columns)
    header = columns is None or tuple(first) == columns
    del cells[: int(header)]
    for row, fields in enumerate(cells, start=1):
        if len(fields) != len(names):
            raise DataError(
                f"{file.path}, row {row}: {_fields(len(fields))} where there are {len(names)} columns",
                hint="a tab within a text needs double quotes around the text, and every quote within doubled",
            )
    values = list(map(list, zip(*cells, strict=True))) if cells else [[] for _ in names]
    return Records(file.name, names, lambda name: values[names.index(name)], {}, None, notes)


def _delimiter(data: bytes, columns: tuple[str, ...] | None) -> str:
    """What separates the columns: the comma, unless the first record falls apart better at another sign."""
    counts = {sign: len(_first_record(data, sign)) for sign in ",;\t|"}
    if columns is not None:
        return next((sign for sign, count in counts.items() if count == len(columns)), ",")
    return "," if counts[","] > 1 else max(counts, key=lambda sign: counts[sign])


def _first_record(data: bytes, delimiter: str) -> list[str]:
    """The fields of the first record, quotes undone."""
    sign = re.escape(delimiter.encode())
    field = re.compile(rb'(?:"([^"]*+(?:""[^"]*+)*+)"|([^' + sign + rb"\r\n]*+))(" + sign + rb"|\r?\n|\r|\Z|)")
    position = len(data) - len(data.lstrip(b"\r\n"))
    fields = []
    while match := field.match(data, position):
        quoted, bare, end = match.groups()
        raw = bare if quoted is None else quoted.replace(b'""', b'"')
        fields.append(raw.decode("utf-8", "replace"))
        if end != delimiter.encode():
            break
        position = match.end()
    return fields


def _check_header(file: DataFile, names: tuple[str, ...], fields: int, columns: tuple[str, ...] | None) -> None:
    if columns is not None:
        if fields != len(columns):
            raise DataError(
                f"{file.path}, row 1: {_fields(fields)}, but --columns names {len(columns)}",
                hint="name every column of the file in order: --columns text,label",
            )
        return
    if not any(name.strip() for name in names):
        raise DataError(f"{file.path} has no header line and no rows")


def _quote_returns(data: bytes, layout: _Layout) -> bytes:
    """The csv with quotes around bare fields that hold a lone carriage return, as Python's csv and pandas write them.

    In a file of lines that end in `\\n` such a return belongs to the text, but the csv reader would end the row.
    """
    lone = re.compile(rb"\r(?!\n)")
    if layout.newline != b"\n" or b"\r" not in data or not lone.search(data):
        return data
    sign = re.escape(layout.delimiter.encode())
    field = re.compile(rb'"[^"]*+(?:""[^"]*+)*+"|(?!\r?\n)[^"' + sign + rb"](?:(?!\r?\n)[^" + sign + rb"])*+")

    def quoted(match: re.Match[bytes]) -> bytes:
        value = match[0]
        if value.startswith(b'"') or not lone.search(value):
            return value
        return b'"' + value.replace(b'"', b'""') + b'"'

    return field.sub(quoted, data)


def _grammar(delimiter: str) -> re.Pattern[bytes]:
    """Matches as much of a csv as is well quoted: a quote that opens a field closes right before its end."""
    sign = re.escape(delimiter.encode())
    ends = rb"[" + sign + rb"\r\n]"
    quoted = rb'"[^"]*+(?:""[^"]*+)*+"(?=' + ends + rb"|\Z)"
    bare = rb'[^"' + sign + rb"\r\n][^" + sign + rb"\r\n]*+"
    return re.compile(rb"(?:" + ends + rb"++|" + quoted + rb"|" + bare + rb")*+")


def _check_quotes(layout: _Layout, data: bytes, rows: int) -> None:
    """Raise where a quote is not closed: the csv reader would swallow the rows behind it without a word.

    rows: how many come before these records; -1 where the first of them is the header.
    """
    if b'"' not in data:
        return
    match = _grammar(layout.delimiter).match(data)
    position = match.end() if match else 0
    if position < len(data):
        row = rows + _record_at(data, position)
        where = f"row {row}" if row else "header line"
        raise DataError(
            f"{layout.file.path}, {where}: a field begins with a double quote that does not close at the field's end",
            hint='write a quote within a quoted text twice: "she said ""yes"""',
        )


def _record_at(data: bytes, position: int) -> int:
    """Which record, from 1 and without blank ones, holds this byte; what lies before it is well quoted."""
    before = re.sub(rb'"[^"]*"', b"_", data[:position])
    return sum(1 for line in before.split(b"\n")[:-1] if line.strip(b"\r")) + 1


def _is_quoted(data: bytes) -> bool:
    """Whether a tsv with quotes in it uses them as csv does.

    It does when every cell that begins with a quote is well quoted, and quotes stand where a writer
    puts them: around the header too, or around a cell that needs them. A text that merely is a
    quotation gives no such sign.
    """
    match = _grammar("\t").match(data)
    if match is None or match.end() < len(data):
        return False
    if data.lstrip(b"\r\n").startswith(b'"'):
        return True
    needed = re.compile(rb'(?:\A|(?<=[\t\r\n]))"[^"]*+(?:""[^"]*+)*+"')
    return any(re.search(rb'[\t\r\n,]|""', cell[0][1:-1]) for cell in needed.finditer(data))


def _fields(count: int) -> str:
    return "1 field" if count == 1 else f"{count:,} fields"


def _spoken(delimiter: str) -> str:
    return {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}[delimiter]
