"""Texts as they arrive, from a stream or from files, in windows that fit in memory and make good batches."""

from __future__ import annotations

import gzip
import itertools
import select
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from textclf.data import files
from textclf.data.files import Records
from textclf.errors import DataError, TextclfError, UsageError

STDIN = "-"
PLAIN = ".txt"

FIRST_TEXTS = 64
"""Texts of the first window: an answer comes soon. Each window is twice as long as the one before it, ..."""
MAX_TEXTS = 4096
"""... up to this: longer ones save no more padding."""
MAX_CHARS = 1 << 24
"""Characters (of a stream: bytes) after which a window is closed, however few its texts."""

_READ = 1 << 20
_BOM = b"\xef\xbb\xbf"
_UTF16 = (b"\xff\xfe", b"\xfe\xff")
_NO_LABEL = "\0"
"""No column is named so: rows are read without labels."""


def windows(texts: Iterable[str]) -> Iterator[list[str]]:
    """All texts, in order, in windows. When reading fails, what came before is handed out first."""
    window = _Window()
    try:
        for text in texts:
            if window.add(text, len(text)):
                yield window.take()
    except Exception:
        if window.texts:
            yield window.take()
        raise
    if window.texts:
        yield window.take()


def lines(stream: BinaryIO, *, is_ready: Callable[[], bool] | None = None) -> Iterator[list[str]]:
    r"""One text per line, in windows of what can be read without waiting.

    A line ends at "\n" and nowhere else; a "\r" before it is dropped, as is a byte order mark at the very
    start. An empty line is an empty text. Bytes that are not UTF-8 become U+FFFD.
    is_ready: whether more can be read at once; None asks the operating system.
    """
    ready = is_ready or (lambda: _is_ready(stream))
    window = _Window()
    begun: list[bytes] = []  # the line whose end has not been read yet, in pieces
    prefix = _BOM
    while True:
        try:
            piece: bytes = stream.read1(_READ)  # type: ignore[attr-defined]  # buffered streams have it
        except Exception:
            if window.texts:
                yield window.take()
            raise
        if not piece:
            break
        *ends, rest = piece.split(b"\n")
        for end in ends:
            line = b"".join((*begun, end)).removeprefix(prefix).removesuffix(b"\r")
            begun, prefix = [], b""
            if window.add(line.decode("utf-8", "replace"), len(line)):
                yield window.take()
        if rest:
            begun.append(rest)
        if window.texts and not ready():
            yield window.take()
    if last := b"".join(begun).removeprefix(prefix):
        window.add(last.removesuffix(b"\r").decode("utf-8", "replace"), len(last))
    if window.texts:
        yield window.take()


def file_windows(
    paths: list[str], *, text_column: str | None = None, stdin: BinaryIO | None = None
) -> Iterator[list[str]]:
    """The texts of files, in order, in windows; `-` stands for `stdin`.

    All names are checked, and the first file is opened, before the first window is asked for. Raises DataError
    for a file that is missing, damaged or without the column, UsageError when `text_column` can apply to none.
    """
    opened = [_opener(path, text_column, stdin) for path in paths]
    if text_column is not None and all(path == STDIN or _is_plain(Path(path)) for path in paths):
        raise UsageError(
            "--text-column was given, but these texts have no columns: every line is a text",
            hint="give a file with columns: csv, tsv, jsonl, json, parquet or arrow",
        )
    first = opened[0]()

    def chain() -> Iterator[list[str]]:
        yield from first
        for source in opened[1:]:
            yield from source()

    return chain()


def is_data_file(name: str) -> bool:
    """Whether a name on the command line means a file of texts rather than a model."""
    path = Path(name)
    if name == STDIN:
        return True
    return not path.is_dir() and (path.is_file() or files.looks_like_file(name) or _is_plain(path))


class _Window:
    """Texts gathered until there are enough of them."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._chars = 0
        self._limit = FIRST_TEXTS

    def add(self, text: str, chars: int) -> bool:
        """Take one more text; true when the window is full."""
        self.texts.append(text)
        self._chars += chars
        return len(self.texts) >= self._limit or self._chars >= MAX_CHARS

    def take(self) -> list[str]:
        """Hand out the window and begin another."""
        texts, self.texts, self._chars = self.texts, [], 0
        if len(texts) >= self._limit:
            self._limit = min(2 * self._limit, MAX_TEXTS)
        return texts


def _is_ready(stream: BinaryIO) -> bool:
    try:
        return bool(select.select([stream], [], [], 0)[0])
    except (OSError, ValueError):  # Windows asks about sockets only; then what one read gave is the window
        return False


def _is_plain(path: Path) -> bool:
    suffix = path.suffix.lower()
    return (Path(path.stem).suffix.lower() if suffix in files.COMPRESSIONS else suffix) == PLAIN


def _opener(name: str, text_column: str | None, stdin: BinaryIO | None) -> Callable[[], Iterator[list[str]]]:
    """What will open this input. Raises DataError at once for a file that is missing or of an unknown kind."""
    if name == STDIN:
        if stdin is None:
            raise UsageError("standard input is closed", hint="give a file, or pipe texts in")
        return lambda: _standard_input(stdin)
    path = Path(name)
    if path.is_dir():
        raise DataError(f"{name} is a folder; a file of texts is needed")
    if not path.exists():
        raise DataError(f"{name}: there is no such file", hint="check the name, or pipe texts in on standard input")
    if _is_plain(path):
        return lambda: _plain_file(path)
    file = files.data_file(path, name=name)
    if file is None:
        raise DataError(
            f"{name}: a file of unknown kind",
            hint=f"textclf reads txt, {files.READABLE}; plain text of another name: textclf predict < {name}",
        )
    return lambda: windows(_column(file, text_column))


def _standard_input(stream: BinaryIO) -> Iterator[list[str]]:
    with _translated("standard input"):
        yield from lines(stream)


def _plain_file(path: Path) -> Iterator[list[str]]:
    with _translated(str(path)), _open(path) as stream:
        head = stream.peek(2)[:2] if hasattr(stream, "peek") else b""
        if head in _UTF16:
            raise DataError(
                f"{path} is UTF-16 text; textclf reads UTF-8",
                hint=f"convert it: iconv -f UTF-16 -t UTF-8 {path.name} > utf8-{path.name}",
            )
        yield from lines(stream, is_ready=lambda: True)


def _open(path: Path) -> Any:
    suffix = path.suffix.lower()
    if suffix == ".gz":
        return gzip.open(path)
    if suffix == ".zst":
        import pyarrow as pa

        return pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")
    return path.open("rb")


@contextmanager
def _translated(name: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as err:
        raise DataError(f"{name} cannot be read: permission denied", hint=f"try: chmod +r {name}") from err
    except (gzip.BadGzipFile, EOFError, zlib.error) as err:
        raise DataError(f"{name} is not a whole gzip file ({err})", hint="was it cut off in copying?") from err
    except (files.arrow_error(), OSError) as err:
        if isinstance(err, TextclfError):
            raise
        reason = getattr(err, "strerror", None) or str(err).split("\n")[0].rstrip(".")
        raise DataError(f"{name} cannot be read: {reason}") from err


def _column(file: files.DataFile, wanted: str | None) -> Iterator[str]:
    """The texts of one file, read as they are asked for; what is null is an empty text. The first are read at once."""
    from textclf.data import columns
    from textclf.data.records import stream_records

    parts = stream_records(file, lambda first: wanted or _text_column(first))
    first = next(parts)
    choice = columns.Choice(wanted or _text_column(first), _NO_LABEL)

    def texts(part: Records) -> Iterator[str]:
        column = columns.read_rows([part], choice, None)[0].table.column("text")
        slices = (column.slice(start, MAX_TEXTS) for start in range(0, len(column), MAX_TEXTS))
        return (text or "" for piece in slices for text in piece.to_pylist())

    return itertools.chain(texts(first), (text for part in parts for text in texts(part)))


def _text_column(first: Records) -> str:
    from textclf.data import columns

    by_lower = {name.strip().lower(): name for name in reversed(first.names)}
    known = [by_lower[name] for name in columns.TEXT_NAMES if name in by_lower]
    # The one column beside a label is the text. A column that stands alone is not taken for it: in a file
    # without a header line, its name would be the first text.
    others = [name for name in first.names if name.strip().lower() not in columns.LABEL_NAMES]
    if not known and len(others) == 1 < len(first.names):
        known = others
    if not known:
        raise DataError(
            f"{first.file}: cannot tell which of its columns holds the texts",
            hint=f"say it with --text-column; the columns are: {', '.join(map(_shown, first.names[:12]))}",
        )
    return known[0]


def _shown(name: str) -> str:
    # A name as long as that is a text, in a file without a header line; texts stay out of messages.
    return repr(name) if len(name) <= 40 else f"({len(name):,} characters)"
