"""Texts as they arrive, from a stream or from files, in windows that fit in memory and make good batches."""

from __future__ import annotations

import itertools
import json
import select
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

from textclf.data import files
from textclf.data.files import Records
from textclf.errors import DataError, UsageError

if TYPE_CHECKING:
    from textclf.data.questions import QuestionColumns

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
_NO_LABEL = "\0"
"""No column is named so: rows are read without labels."""


Item: TypeAlias = "str | tuple[str, str | tuple[str, ...]]"
"""What a model answers: a text, a pair of texts, or a question and its choices."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be read of inputs.

    form: `text`, `pair`, or for questions with choices `binary` or `multiclass`.
    text_column, text_pair_column: as the user says, or None.
    trained_on: what the columns were called in the model's training data, `text` and perhaps `text_pair`.
    """

    form: str = "text"
    text_column: str | None = None
    text_pair_column: str | None = None
    trained_on: Mapping[str, str] = field(default_factory=dict)


def windows(texts: Iterable[Item], *, first: int = FIRST_TEXTS) -> Iterator[list[Item]]:
    """All texts, in order, in windows, the first of so many texts. When reading fails, what came before is handed out
    first."""
    window = _Window(first)
    try:
        for text in texts:
            if window.add(text, len(text) if isinstance(text, str) else len(text[0]) + sum(map(len, text[1]))):
                yield window.take()
    except Exception:
        if window.texts:
            yield window.take()
        raise
    if window.texts:
        yield window.take()


def lines(stream: BinaryIO, *, is_ready: Callable[[], bool] | None = None) -> Iterator[list[Item]]:
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


def check_inputs(paths: list[str], wanted: Wanted | None = None, *, stdin: BinaryIO | None = None) -> None:
    """Raise what can be said of inputs before it is known what the model reads: files that are missing or of unknown
    kind, and columns that are named and not there in the first."""
    wanted = wanted or Wanted()
    for path in paths:
        _opener(path, wanted, stdin)
    named = wanted.text_column or wanted.text_pair_column
    if named is not None and all(path == STDIN or _is_plain(Path(path)) for path in paths):
        raise UsageError(
            f"{'--text-column' if wanted.text_column else '--text-pair-column'} was given, but these texts have no "
            "columns: every line is a text",
            hint="give a file with columns: csv, tsv, jsonl, json, parquet or arrow",
        )
    first = None if paths[0] == STDIN else files.data_file(Path(paths[0]), name=paths[0])
    if named is not None and first is not None:
        _check_columns(first, wanted)


def _check_columns(file: files.DataFile, wanted: Wanted) -> None:
    from textclf.data import columns
    from textclf.data.records import stream_records

    told = {"--text-column": wanted.text_column, "--text-pair-column": wanted.text_pair_column}

    def named(head: Records) -> tuple[str, ...]:
        for flag, name in told.items():
            if name is not None:
                columns.require(head, name, flag)
        return tuple(name for name in told.values() if name is not None)

    named(next(stream_records(file, named)))


def file_windows(
    paths: list[str], wanted: Wanted | None = None, *, stdin: BinaryIO | None = None
) -> Iterator[list[Item]]:
    """The texts of files, in order, in windows; `-` stands for `stdin`. `wanted`: None for single texts.

    Lines of standard input and of text files are texts; pairs are two texts with a tab between them, and questions
    objects of JSON: {"question": ..., "choices": [...]}.

    All names are checked, and the first file is opened, before the first window is asked for. Raises DataError
    for a file that is missing, damaged or without the columns, or for a line that is no pair or question; UsageError
    when a column is named that can apply to none.
    """
    wanted = wanted or Wanted()
    check_inputs(paths, wanted, stdin=stdin)
    opened = [_opener(path, wanted, stdin) for path in paths]
    first = opened[0]()

    def chain() -> Iterator[list[Item]]:
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

    def __init__(self, limit: int = FIRST_TEXTS) -> None:
        self.texts: list[Item] = []
        self._chars = 0
        self._limit = limit

    def add(self, text: Item, chars: int) -> bool:
        """Take one more text; true when the window is full."""
        self.texts.append(text)
        self._chars += chars
        return len(self.texts) >= self._limit or self._chars >= MAX_CHARS

    def take(self) -> list[Item]:
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


def _opener(name: str, wanted: Wanted, stdin: BinaryIO | None) -> Callable[[], Iterator[list[Item]]]:
    """What will open this input. Raises DataError at once for a file that is missing or of an unknown kind."""
    if name == STDIN:
        if stdin is None:
            raise UsageError("standard input is closed", hint="give a file, or pipe texts in")
        return lambda: _parsed(_standard_input(stdin), "standard input", wanted.form)
    path = Path(name)
    if path.is_dir():
        raise DataError(f"{name} is a folder; a file of texts is needed")
    if not path.exists():
        raise DataError(f"{name}: there is no such file", hint="check the name, or pipe texts in on standard input")
    if _is_plain(path):
        return lambda: _parsed(_plain_file(path), str(path), wanted.form)
    file = files.data_file(path, name=name)
    if file is None:
        raise DataError(
            f"{name}: a file of unknown kind",
            hint=f"textclf reads txt, {files.READABLE}; plain text of another name: textclf predict < {name}",
        )
    return lambda: windows(_columns(file, wanted))


def _parsed(windows: Iterator[list[Item]], name: str, form: str) -> Iterator[list[Item]]:
    """Lines as what the model reads."""
    if form == "text":
        return windows
    parse = _pair if form == "pair" else _question

    def parsed() -> Iterator[list[Item]]:
        number = 0
        for window in windows:
            ready: list[Item] = []
            try:
                for line in window:
                    number += 1
                    ready.append(parse(str(line), f"{name}, line {number}"))
            except DataError:
                if ready:
                    yield ready
                raise
            yield ready

    return parsed()


def _pair(line: str, where: str) -> Item:
    first, tab, second = line.partition("\t")
    if not tab:
        raise DataError(
            f"{where}: one text, but this model reads pairs of texts",
            hint="put a tab between the two, for example with paste; or give a csv or jsonl with two columns",
        )
    return first, second


def _question(line: str, where: str) -> Item:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or not isinstance(document.get("question"), str):
        raise DataError(
            f"{where}: no question with choices, which this model answers",
            hint='write each as a line of JSON: {"question": "...", "choices": ["...", "..."]}',
        )
    from textclf.data.choices import checked_choices

    return document["question"], checked_choices(document.get("choices"), where)


def _standard_input(stream: BinaryIO) -> Iterator[list[Item]]:
    try:
        yield from lines(stream)
    except OSError as err:
        raise DataError(f"standard input cannot be read: {err.strerror or err}") from err


def _plain_file(path: Path) -> Iterator[list[Item]]:
    suffix = path.suffix.lower()
    file = files.DataFile(path, str(path), "txt", suffix if suffix in files.COMPRESSIONS else "")
    with files.translated(file), files.opened(file) as stream:
        files.check_not_utf16(file, stream.peek(2))  # type: ignore[attr-defined]  # buffered streams have it
        yield from lines(stream, is_ready=lambda: True)


def _columns(file: files.DataFile, wanted: Wanted) -> Iterator[Item]:
    """What the model reads of one file, as it is asked for; a null is an empty text. The first are read at once."""
    from textclf.data.records import stream_records

    if wanted.form in ("binary", "multiclass"):
        parts = stream_records(file, lambda head: _question_columns(head, wanted).names)
        first = next(parts)
        columns = _question_columns(first, wanted)
        rest = (question for part in parts for question in _questions(part, columns))
        return itertools.chain(_questions(first, columns), rest)
    parts = stream_records(file, lambda head: _text_columns(head, wanted))
    first = next(parts)
    names = _text_columns(first, wanted)
    return itertools.chain(_texts(first, names), (text for part in parts for text in _texts(part, names)))


def _texts(part: Records, names: tuple[str, ...]) -> Iterator[Item]:
    from textclf.data import columns, values

    rows = values.read_rows([part], columns.Choice(names[0], _NO_LABEL, pair=names[1] if names[1:] else None), None)[0]
    for start in range(0, len(rows), MAX_TEXTS):
        texts = (text or "" for text in rows.text_column.slice(start, MAX_TEXTS).to_pylist())
        if rows.pair_column is None:
            yield from texts
        else:
            pairs = (text or "" for text in rows.pair_column.slice(start, MAX_TEXTS).to_pylist())
            yield from zip(texts, pairs, strict=True)


def _questions(part: Records, columns: QuestionColumns) -> Iterator[Item]:
    from textclf.data import questions

    table = questions.read_questions([part], columns).table
    for start in range(0, len(table), MAX_TEXTS):
        piece = table.slice(start, MAX_TEXTS)
        choices = map(tuple, piece.column(questions.CHOICES).to_pylist())
        yield from zip((text or "" for text in piece.column("text").to_pylist()), choices, strict=True)


def _question_columns(head: Records, wanted: Wanted) -> QuestionColumns:
    from textclf.data import questions

    found = questions.find_questions(head, text_column=wanted.text_column)
    if found is None or any(name not in head.names for name in found.names):
        raise DataError(
            f"{head.file}: no questions with choices, which this model answers",
            hint="name the columns question and choices (lists, or choice1, choice2, ...); "
            f"the columns are: {', '.join(map(_shown, head.names[:12]))}",
        )
    return replace(found, answer=None, subject=None)


def _text_columns(head: Records, wanted: Wanted) -> tuple[str, ...]:
    """The column of the texts, and that of the second texts where the model reads pairs."""
    if wanted.form != "pair":
        known = wanted.trained_on.get("text")
        return (wanted.text_column or (known if known in head.names else None) or _text_column(head),)
    from textclf.data import columns

    trained = (wanted.trained_on.get("text"), wanted.trained_on.get("text_pair"))
    found = trained if all(name in head.names for name in trained) else columns.find_pair(head.names)
    names = (wanted.text_column or found[0], wanted.text_pair_column or found[1])
    if names[0] is None or names[1] is None or names[0] == names[1]:
        raise DataError(
            f"{head.file}: cannot tell which of its columns hold the two texts of a pair",
            hint="say it with --text-column and --text-pair-column; the columns are: "
            f"{', '.join(map(_shown, head.names[:12]))}",
        )
    return names[0], names[1]


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
