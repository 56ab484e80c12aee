"""Data files: which can be read, and their bytes, unpacked and checked to be what the name says."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

from textclf.errors import DataError, ResourceError

if TYPE_CHECKING:
    import pyarrow as pa

Column: TypeAlias = "pa.ChunkedArray | list[Any]"

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
BLOCK = 1 << 22
"""Bytes of a text file that are read at a time."""


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
    numbers: Sequence[int] | None = None
    notes: tuple[str, ...] = ()

    def number(self, index: int) -> int:
        """The record number of the row at this position."""
        return self.numbers[index] if self.numbers is not None else index + 1

    def values(self, name: str) -> list[Any]:
        """One column as plain Python values."""
        column = self.column(name)
        return column if isinstance(column, list) else column.to_pylist()  # type: ignore[no-any-return]


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


# --- bytes ------------------------------------------------------------------------------------------------------


@contextmanager
def opened(file: DataFile) -> Iterator[BinaryIO]:
    """The file's bytes as a stream, unpacked."""
    if file.compression == ".gz":
        with gzip.open(file.path) as unpacked:
            yield unpacked  # type: ignore[misc]
    elif file.compression == ".zst":
        import pyarrow as pa

        with pa.CompressedInputStream(pa.OSFile(str(file.path)), "zstd") as unpacked:
            yield io.BufferedReader(unpacked)
    else:
        with file.path.open("rb") as stream:
            yield stream


def whole(file: DataFile) -> bytes:
    """All bytes of the file, unpacked."""
    with opened(file) as stream:
        return stream.read()


def checked_start(file: DataFile, data: bytes) -> bytes:
    """The first bytes of a text file without byte order mark. Raises DataError when they are another kind of file."""
    for magic, kind in _MAGIC.items():
        if data.startswith(magic):
            raise DataError(f"{file.path} does not hold {file.format}: it is {kind}")
    check_not_utf16(file, data)
    data = data.removeprefix(_BOM)
    if not data.strip():
        raise DataError(f"{file.path} is empty", hint="a file of rows begins with a header line, such as text,label")
    return data


def check_not_utf16(file: DataFile, data: bytes) -> None:
    """Raise DataError where these first bytes of a text file begin as UTF-16 does."""
    if data.startswith(_UTF16):
        name = file.path.name
        raise DataError(
            f"{file.path} is UTF-16 text; textclf reads UTF-8",
            hint=f"convert it: iconv -f UTF-16 -t UTF-8 {name} > utf8-{name}",
        )


def check_utf8(file: DataFile, data: bytes, *, lines: int = 0, position: int = 0) -> None:
    """Raise DataError where these bytes, behind so many lines and bytes of the file, are not UTF-8."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as err:
        line = lines + data.count(b"\n", 0, err.start) + 1
        raise not_utf8(file, f"line {line}, byte {position + err.start + 1:,} of the file") from err


def not_utf8(file: DataFile, where: str) -> DataError:
    """The error for bytes at this place that are not UTF-8."""
    name = file.path.name
    return DataError(
        f"{file.path}, {where}: not UTF-8",
        hint=f"convert it from the encoding it has: iconv -f WINDOWS-1252 -t UTF-8 {name} > utf8-{name}",
    )


@contextmanager
def translated(file: DataFile) -> Iterator[None]:
    """Errors of the file system and of the libraries that read, as DataError."""
    try:
        yield
    except ResourceError:  # of a file of our own
        raise
    except PermissionError as err:
        raise DataError(f"{file.path} cannot be read: permission denied", hint=f"try: chmod +r {file.path}") from err
    except (gzip.BadGzipFile, EOFError, zlib.error) as err:
        raise DataError(
            f"{file.path} is not a whole gzip file ({err})",
            hint="was it cut off in copying, or is it not compressed at all and only named .gz?",
        ) from err
    except UnicodeDecodeError as err:
        raise not_utf8(file, "a column's values") from err
    except (arrow_error(), OSError) as err:
        if isinstance(err, OSError) and err.errno is not None:
            raise DataError(f"{file.path} cannot be read: {err.strerror}") from err
        reason = str(err).split("\n")[0].rstrip(".")
        raise DataError(
            f"{file.path} is not a whole {file.kind} file ({reason[:160]})",
            hint="was it cut off in copying, or is it of another kind than its name says?",
        ) from err


def arrow_error() -> type[Exception]:
    """What arrow raises. Asked for only when something was raised: loading arrow takes longer than a short answer."""
    import pyarrow as pa

    error: type[Exception] = pa.ArrowException
    return error
