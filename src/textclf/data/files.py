"""Data files of every kind as columns whose values are what the file has: nothing guessed, stripped or nulled."""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa

from textclf.errors import DataError

Column: TypeAlias = pa.ChunkedArray | list[Any]

FORMATS = {
    ".parquet": "parquet", ".arrow": "arrow", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json",
    ".csv": "csv", ".tsv": "tsv",
}  # fmt: skip
"""Extension to format, the most typed format first."""
COMPRESSIONS = (".gz", ".zst")
READABLE = "csv, tsv, json, jsonl, parquet or arrow, also with .gz or .zst"

_ELSEWHERE = {
    ".txt": "give each text a label: a csv with the columns text,label",
    ".xlsx": "save it as csv (UTF-8) in the spreadsheet program",
    ".xls": "save it as csv (UTF-8) in the spreadsheet program",
    ".zip": "unpack it first",
    ".bz2": "unpack it first: bunzip2 FILE",
    ".xz": "unpack it first: unxz FILE",
    ".feather": "it is an arrow file: rename it to .arrow",
    ".pkl": "pickle files can run code and are never opened; write the rows as csv or parquet",
}
_MAGIC = {
    b"\x1f\x8b": "gzip-compressed; name it with .gz at the end",
    b"\x28\xb5\x2f\xfd": "zstd-compressed; name it with .zst at the end",
    b"PK\x03\x04": "a zip archive or a spreadsheet; unpack it or save it as csv",
    b"PAR1": "a parquet file; name it with .parquet at the end",
}
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 26
"""Bytes that the csv reader takes at a time; a record lies within one."""
_LARGEST_BLOCK = (1 << 31) - 1


@dataclass(frozen=True)
class DataFile:
    """A file that can be read: where it is and how messages call it."""

    path: Path
    name: str
    format: str
    compression: str = ""

    @property
    def kind(self) -> str:
        """Format and compression, as `csv` or `csv.gz`."""
        return self.format + self.compression


@dataclass(frozen=True)
class Records:
    """What a file holds, before it is known which columns matter.

    file: how messages call it.
    column: reads one column, by name.
    class_names: names of integer classes, by column, where the file declares them.
    numbers: the record number of each row where they are not 1, 2, 3, ... (in jsonl they are line numbers).
    notes: what was decided in reading it, in words.
    """

    file: str
    names: tuple[str, ...]
    column: Callable[[str], Column]
    class_names: Mapping[str, tuple[str, ...]]
    numbers: list[int] | None = None
    notes: tuple[str, ...] = ()

    def number(self, index: int) -> int:
        """The record number of the row at this position."""
        return self.numbers[index] if self.numbers is not None else index + 1


def data_file(path: Path, *, name: str | None = None) -> DataFile | None:
    """The file as one that can be read, or None when its extension says that it cannot."""
    suffix, compression = path.suffix.lower(), ""
    if suffix in COMPRESSIONS:
        suffix, compression = Path(path.stem).suffix.lower(), suffix
    if suffix not in FORMATS:
        return None
    return DataFile(path, name or path.name, FORMATS[suffix], compression)


def looks_like_file(text: str) -> bool:
    """Whether a name ends as data files do, so that it is no Hub id."""
    path = Path(text)
    return data_file(path) is not None or path.suffix.lower() in (*_ELSEWHERE, *COMPRESSIONS)


def unsupported(path: Path) -> DataError:
    """The error for a file of a kind that is not read."""
    kind = f"a {path.suffix} file" if path.suffix else "a file without an extension"
    hint = _ELSEWHERE.get(path.suffix.lower(), f"textclf reads {READABLE}")
    return DataError(f"{path} is {kind}, which textclf does not read", hint=hint)


def read_records(file: DataFile, *, columns: tuple[str, ...] | None = None) -> Records:
    """Open one file. `columns` names the columns of a csv or tsv without a header line.

    Raises DataError (file, row or line, how to mend it) when the file is damaged or of another kind than its name says.
    """
    if columns is not None and file.format not in ("csv", "tsv"):
        raise DataError(
            f"{file.path}: column names were given, but a {file.format} file has its own",
            hint="leave --columns out; choose with --text-column and --label-column",
        )
    with _translated(file):
        if file.format == "parquet":
            return _parquet(file)
        if file.format == "arrow":
            return _arrow(file)
        data = _text_bytes(file)
        if file.format == "csv":
            return _csv(file, data, columns)
        if file.format == "tsv":
            return _tsv(file, data, columns)
        return _json(file, data)


# --- parquet and arrow ------------------------------------------------------------------------------------------


def _parquet(file: DataFile) -> Records:
    from pyarrow import parquet

    source = pa.BufferReader(_bytes(file)) if file.compression else file.path
    reader = parquet.ParquetFile(source)
    schema = reader.schema_arrow

    def column(name: str) -> pa.ChunkedArray:
        with _translated(file):
            return _checked(reader.read(columns=[name], use_pandas_metadata=False).column(name))

    return Records(file.name, tuple(schema.names), column, class_names(schema))


def _arrow(file: DataFile) -> Records:
    source = pa.BufferReader(_bytes(file)) if file.compression else pa.memory_map(str(file.path))
    if source.size() == 0:
        raise DataError(f"{file.path} is empty")
    is_file = source.read(6) == b"ARROW1"
    source.seek(0)
    table = (pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)).read_all()

    def column(name: str) -> pa.ChunkedArray:
        with _translated(file):
            return _checked(table.column(name))

    return Records(file.name, tuple(table.schema.names), column, class_names(table.schema))


def class_names(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """The ClassLabel columns that `datasets` noted in a schema's metadata, with the names in the order of their ids."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {
            column: tuple(map(str, feature["names"]))
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}


def _checked(column: pa.ChunkedArray) -> pa.ChunkedArray:
    # Offsets and UTF-8 of a foreign file are not to be trusted: reading past them would end the process.
    column.validate(full=True)
    return column


# --- csv and tsv ------------------------------------------------------------------------------------------------


def _csv(file: DataFile, data: bytes, columns: tuple[str, ...] | None) -> Records:
    told = re.match(rb'"?sep=([,;\t|])"?\r?\n', data)  # what spreadsheets write for each other
    data = data[told.end() :] if told else data
    delimiter = told[1].decode() if told else _delimiter(data, columns)
    notes = () if delimiter == "," else (f"{file.name}: columns are separated by {_spoken(delimiter)}",)
    return _separated(file, data, delimiter, columns, notes)


def _tsv(file: DataFile, data: bytes, columns: tuple[str, ...] | None) -> Records:
    """Tab-separated values, with csv's quotes or without any: a plain file may hold `"` at the start of a text."""
    if b'"' not in data:
        return _plain(file, data, columns, ())
    if _is_quoted(data):
        return _separated(file, data, "\t", columns, (f"{file.name}: quotes around texts are read as in csv",))
    return _plain(file, data, columns, (f"{file.name}: quotes are read as part of the texts",))


def _separated(
    file: DataFile, data: bytes, delimiter: str, columns: tuple[str, ...] | None, notes: tuple[str, ...]
) -> Records:
    data = _quote_returns(data.lstrip(b"\r\n"), delimiter)
    first = _first_record(data, delimiter)
    names = columns or tuple(first)
    _check_header(file, names, len(first), columns)
    skip = columns is None or tuple(first) == columns
    if columns is not None and skip:
        notes = (*notes, f"{file.name}: its first line is the header that --columns repeats")
    _check_quotes(file, data, delimiter, header=skip)
    table = _csv_table(file, data, delimiter, width=len(names), header=skip)
    return Records(file.name, names, lambda name: table.column(names.index(name)), {}, None, notes)


def _csv_table(file: DataFile, data: bytes, delimiter: str, *, width: int, header: bool) -> pa.Table:
    """All fields as text. pyarrow: fast, exact about newlines and quotes, and able to keep `NA` what it is."""
    from pyarrow import csv

    data = data if data.endswith(b"\n") else data + b"\n"
    ragged: list[tuple[int, int]] = []
    ids = [str(index) for index in range(width)]

    def note(row: Any) -> str:
        ragged.append((row.number - header, row.actual_columns))
        return "skip"

    def read(block_size: int) -> pa.Table:
        ragged.clear()
        return csv.read_csv(
            pa.BufferReader(data),
            # One thread, or the rows that are named in an error have no numbers.
            read_options=csv.ReadOptions(
                use_threads=False, block_size=block_size, column_names=ids, skip_rows_after_names=int(header)
            ),
            parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note),
            convert_options=csv.ConvertOptions(
                column_types=dict.fromkeys(ids, pa.large_string()), strings_can_be_null=False
            ),
        )

    try:
        try:
            table = read(min(_BLOCK, len(data)))
        except pa.ArrowInvalid as err:
            if "straddling" not in str(err) or len(data) <= _BLOCK:
                raise
            table = read(min(_LARGEST_BLOCK, len(data)))  # a record longer than a block
    except pa.ArrowInvalid:
        _check_utf8(file, data)
        raise
    if ragged:
        row, fields = ragged[0]
        more = f" (and {len(ragged) - 1:,} rows more)" if len(ragged) > 1 else ""
        raise DataError(
            f"{file.path}, row {row}: {_fields(fields)} where there are {width} columns{more}",
            hint=f'put double quotes around texts that hold {_spoken(delimiter)}: "one{delimiter} two"',
        )
    return table


def _plain(file: DataFile, data: bytes, columns: tuple[str, ...] | None, notes: tuple[str, ...]) -> Records:
    """Tab-separated values in which a quote is a character like any other, read line by line."""
    _check_utf8(file, data)
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


def _quote_returns(data: bytes, delimiter: str) -> bytes:
    """The csv with quotes around bare fields that hold a lone carriage return, as Python's csv and pandas write them.

    In a file of lines that end in `\\n` such a return belongs to the text, but the csv reader would end the row.
    """
    lone = re.compile(rb"\r(?!\n)")
    if b"\n" not in data or not lone.search(data):
        return data
    sign = re.escape(delimiter.encode())
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


def _check_quotes(file: DataFile, data: bytes, delimiter: str, *, header: bool) -> None:
    """Raise where a quote is not closed: the csv reader would swallow the rows behind it without a word."""
    if b'"' not in data:
        return
    match = _grammar(delimiter).match(data)
    position = match.end() if match else 0
    if position < len(data):
        row = _record_at(data, position) - header
        where = f"row {row}" if row else "header line"
        raise DataError(
            f"{file.path}, {where}: a field begins with a double quote that does not close at the field's end",
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


# --- json and jsonl ---------------------------------------------------------------------------------------------


def _json(file: DataFile, data: bytes) -> Records:
    """One object a line, or one list of objects; either may stand in .json as in .jsonl."""
    start = data.lstrip()[:1]
    if start == b"[":
        return _json_list(file, _json_document(file, data))
    if file.format == "json" and start == b"{":
        first, _, rest = data.lstrip().partition(b"\n")
        # One object, on one line or over several, is no row: the rows are in it.
        if not rest.strip() or not _is_object(first):
            return _json_list(file, _rows_within(file, _json_document(file, data)))
    return _json_lines(file, data)


def _json_lines(file: DataFile, data: bytes) -> Records:
    columns = _Columns()
    for number, line in enumerate(io.BytesIO(data), start=1):  # splits at \n only, never at U+0085 or U+2028
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as err:
            raise _not_utf8(file, f"line {number}, byte {err.start + 1} of the line") from err
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
        columns.add(row, number)
    return columns.records(file)


def _json_list(file: DataFile, rows: list[Any]) -> Records:
    columns = _Columns()
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise DataError(
                f"{file.path}, row {number}: {_json_kind(row)} where an object should be",
                hint='the file is a list of objects: [{"text": "...", "label": "..."}, ...]',
            )
        columns.add(row, number)
    return columns.records(file)


def _json_document(file: DataFile, data: bytes) -> Any:
    _check_utf8(file, data)
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
        self.values: dict[str, list[Any]] = {}
        self.numbers: list[int] = []

    def add(self, row: dict[str, Any], number: int) -> None:
        if row.keys() != self.values.keys():
            for name in row:
                self.values.setdefault(name, [None] * len(self.numbers))
            row = {**dict.fromkeys(self.values), **row}
        for name, value in row.items():
            self.values[name].append(value)
        self.numbers.append(number)

    def records(self, file: DataFile) -> Records:
        return Records(file.name, tuple(self.values), self.values.__getitem__, {}, self.numbers)


# --- bytes ------------------------------------------------------------------------------------------------------


def _bytes(file: DataFile) -> bytes:
    """The file's bytes, unpacked."""
    if file.compression == ".gz":
        with gzip.open(file.path) as stream:
            return stream.read()
    if file.compression == ".zst":
        with pa.CompressedInputStream(pa.OSFile(str(file.path)), "zstd") as stream:
            return bytes(stream.read())
    return file.path.read_bytes()


def _text_bytes(file: DataFile) -> bytes:
    """The bytes of a text file without byte order mark. Raises DataError when they are another kind of file."""
    data = _bytes(file)
    for magic, kind in _MAGIC.items():
        if data.startswith(magic):
            raise DataError(f"{file.path} does not hold {file.format}: it is {kind}")
    if data.startswith(_UTF16):
        raise DataError(
            f"{file.path} is UTF-16 text; textclf reads UTF-8",
            hint=f"convert it: iconv -f UTF-16 -t UTF-8 {file.path.name} > utf8-{file.path.name}",
        )
    data = data.removeprefix(_BOM)
    if not data.strip():
        raise DataError(f"{file.path} is empty", hint="a file of rows begins with a header line, such as text,label")
    return data


def _check_utf8(file: DataFile, data: bytes) -> None:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as err:
        line = data.count(b"\n", 0, err.start) + 1
        raise _not_utf8(file, f"line {line}, byte {err.start + 1:,} of the file") from err


def _not_utf8(file: DataFile, where: str) -> DataError:
    name = file.path.name
    return DataError(
        f"{file.path}, {where}: not UTF-8",
        hint=f"convert it from the encoding it has: iconv -f WINDOWS-1252 -t UTF-8 {name} > utf8-{name}",
    )


@contextmanager
def _translated(file: DataFile) -> Iterator[None]:
    try:
        yield
    except PermissionError as err:
        raise DataError(f"{file.path} cannot be read: permission denied", hint=f"try: chmod +r {file.path}") from err
    except (gzip.BadGzipFile, EOFError, zlib.error) as err:
        raise DataError(
            f"{file.path} is not a whole gzip file ({err})",
            hint="was it cut off in copying, or is it not compressed at all and only named .gz?",
        ) from err
    except UnicodeDecodeError as err:
        raise _not_utf8(file, "a column's values") from err
    except (pa.ArrowException, OSError) as err:
        if isinstance(err, OSError) and err.errno is not None:
            raise DataError(f"{file.path} cannot be read: {err.strerror}") from err
        reason = str(err).split("\n")[0].rstrip(".")
        raise DataError(
            f"{file.path} is not a whole {file.kind} file ({reason[:160]})",
            hint="was it cut off in copying, or is it of another kind than its name says?",
        ) from err
