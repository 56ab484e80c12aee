"""How the command line speaks: data on stdout, everything else on stderr, foreign text made harmless."""

from __future__ import annotations

import io
import json as jsonlib
import logging
import os
import re
import select
import sys
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textclf.characters import UNSEEN
from textclf.characters import field as field  # beside the rest of how foreign text is shown
from textclf.characters import safe as safe
from textclf.errors import ResourceError
from textclf.redaction import redact

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


@dataclass
class Settings:
    """What the flags that every command shares ask for."""

    json: bool = False
    quiet: bool = False
    verbose: bool = False
    debug: bool = False


settings = Settings()


def safe_lines(text: str) -> str:
    """As `safe`, keeping line breaks: for our own messages of several lines."""
    return "\n".join(safe(line) for line in text.split("\n"))


def json_line(document: Any) -> str:
    r"""A JSON document on one line; controls that JSON lets through are written as `\uXXXX`, which changes no value."""
    text = jsonlib.dumps(document, ensure_ascii=False, allow_nan=False)
    return UNSEEN.sub(_escape_in_json, text)


def out() -> Console:
    """The console of results."""
    return _console(stderr=False)


def err() -> Console:
    """The console of messages, progress and errors."""
    return _console(stderr=True)


def say(text: str) -> None:
    """One message on stderr, unless `--quiet`. The text is sanitised, never read as markup."""
    if not settings.quiet:
        with suppress(OSError):  # a full disk behind stderr
            err().print(safe_lines(text), markup=False, highlight=False, soft_wrap=True, emoji=False)


def show(renderable: RenderableType) -> None:
    """A table or text on stderr beside the result proper, unless `--quiet`."""
    if not settings.quiet:
        with suppress(OSError):
            err().print(renderable)


def show_json(document: Any) -> None:
    """The one JSON document of a command with `--json`, on stdout."""
    text = jsonlib.dumps(document, ensure_ascii=False, indent=2, allow_nan=False)
    write((UNSEEN.sub(_escape_in_layout, text) + "\n").encode("utf-8"))


def write(data: bytes) -> None:
    """Data on stdout, at once: nothing is left in a buffer, which at exit would meet a closed or stuck reader.

    Raises BrokenPipeError when the reader has gone, ResourceError when the data cannot be written.
    """
    if sys.stdout is None:
        raise ResourceError("standard output is closed", hint="send the answers to a file: --output FILE")
    sys.stdout.flush()
    stream = getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)
    rest = memoryview(data)
    try:
        while rest:
            count = stream.write(rest)
            if count is None:  # a pipe that another program made non-blocking is full
                select.select([], [stream], [])
            rest = rest[count or 0 :]
    except BrokenPipeError:
        raise
    except OSError as err:
        raise ResourceError(f"standard output cannot be written: {err.strerror}") from err


def abandon_output() -> None:
    """After the reader of a pipe has gone: let what is still buffered go nowhere, without a message at exit."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(nowhere, stream.fileno())


def is_live() -> bool:
    """Whether a live display may be drawn: stderr is a terminal that can move its cursor."""
    terminal = sys.stderr is not None and sys.stderr.isatty()
    return terminal and not settings.quiet and os.environ.get("TERM", "") not in ("", "dumb")


class LogFormatter(logging.Formatter):
    """Log records, tracebacks of other packages included, as messages: harmless on a terminal, without secrets."""

    def format(self, record: logging.LogRecord) -> str:
        return safe_lines(redact(super().format(record)))


def make_streams_safe() -> None:
    """Printing must not end a run: what the locale cannot say is escaped, and a closed stderr swallows messages."""
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115  # for as long as we live
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def duration(seconds: float) -> str:
    """Seconds as a person says them: `42 s`, `3 min 20 s`, `1 h 05 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def _console(*, stderr: bool) -> Console:
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    if stream is None:
        raise ResourceError("standard output is closed", hint="send it to a file, or to /dev/null")
    return Console(stderr=stderr, markup=False, highlight=False, emoji=False, width=None if stream.isatty() else 120)


def _escape_in_json(match: re.Match[str]) -> str:
    # JSON writes characters beyond U+FFFF as two surrogates.
    return jsonlib.dumps(match[0])[1:-1] if ord(match[0]) > 0xFFFF else f"\\u{ord(match[0]):04x}"


def _escape_in_layout(match: re.Match[str]) -> str:
    # json.dumps has escaped the newlines of values; those left are its own layout.
    return "\n" if match[0] == "\n" else _escape_in_json(match)
