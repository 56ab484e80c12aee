"""Foreign text on its way to a terminal or a line-based reader: harmless, on one line, and nothing lost."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from textclf.characters import UNSEEN
from textclf.cli import terminal

ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=[]))
NASTY = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202egnp.exe\u2066\u2028\u2029\x85\x00\ud800\ufeff\r\n\t\\"


def unescaped(field: str) -> str:
    """The inverse of `terminal.field`, as its documentation promises it."""

    def char(match: re.Match[str]) -> str:
        code = match[1]
        return {"t": "\t", "n": "\n", "r": "\r", "\\": "\\"}.get(code) or chr(int(code[1:], 16))

    return re.sub(r"\\(x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8}|[tnr\\])", char, field)


def is_harmless(text: str) -> bool:
    """No control, line separator, surrogate or bidi control."""
    bidi = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return not any(
        unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(char) in bidi
        for char in text
    )


@given(ANY_TEXT)
def test_any_text_is_harmless_and_comes_back_from_a_field(text: str) -> None:
    field = terminal.field(text)
    assert is_harmless(field)
    assert len(field.splitlines()) <= 1
    assert unescaped(field) == text


@given(ANY_TEXT)
def test_any_text_shown_is_harmless_on_one_line(text: str) -> None:
    assert is_harmless(terminal.safe(text))
    assert is_harmless(terminal.safe_lines(text).replace("\n", ""))


@given(st.recursive(ANY_TEXT, lambda inner: st.lists(inner) | st.dictionaries(ANY_TEXT, inner), max_leaves=5))
def test_json_line_is_one_harmless_line_of_the_same_value(document: object) -> None:
    line = terminal.json_line(document)
    assert is_harmless(line)
    # Two halves of a surrogate pair that stand side by side are one character in JSON.
    joined = json.loads(json.dumps(document))
    assert json.loads(line) == joined


def test_known_attacks_on_a_terminal_are_spelt_out() -> None:
    assert terminal.safe("\x1b[31m") == r"\x1b[31m"
    assert terminal.safe("\x9b\u202e\u2028\ud800") == r"\x9b\u202e\u2028\ud800"
    assert is_harmless(terminal.field(NASTY))


def test_what_is_not_seen_is_spelt_out() -> None:
    assert terminal.safe("a\u200bb\u2060c\xadd") == r"a\u200bb\u2060c\xadd"
    assert terminal.safe("\U000e0041") == r"\U000e0041"
    assert terminal.safe("pay\u200dpal \u200c") == r"pay\u200dpal \u200c", "joiners that join nothing"
    assert terminal.json_line("\U000e0041\u200d") == r'"\udb40\udc41\u200d"'


def test_every_character_that_is_not_seen_is_known() -> None:
    marks = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    controls = {
        chr(code)
        for code in range(0x110000)
        if unicodedata.category(chr(code)) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(chr(code)) in marks
    }
    without_width = {"\u200b", "\u2060", "\ufeff", "\xad", "\u200e", "\u200f", "\u061c", "\U000e0001", "\U000e007f"}
    assert [ascii(char) for char in controls | without_width if not UNSEEN.fullmatch(char)] == []
    assert not UNSEEN.search("naïve Übergröße 你好 привет مرحبا 🙂 \u3000\xa0\u2009 e\u0301 \ue000")


def test_a_joiner_stays_only_where_it_joins() -> None:
    assert terminal.safe("é\u200dx") == r"é\u200dx"
    assert terminal.safe("x\u200cé") == r"x\u200cé"
    assert terminal.safe("é\u200d\u200dé") == r"é\u200d\u200dé"
    assert terminal.safe("é\u200dé") == "é\u200dé"


def test_joiners_and_accents_stay_as_they_are() -> None:
    for text in ("👩\u200d👩\u200d👧", "می\u200cخواهم", "cafe\u0301", "日本語", "[bold]not markup[/bold]"):
        assert terminal.safe(text) == text


def test_messages_are_never_markup_and_never_fail(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.say("[/nope] [red]x[/red] :smile: " + NASTY)
    shown = capsys.readouterr().err
    assert "[/nope] [red]x[/red] :smile:" in shown
    assert is_harmless(shown.replace("\n", ""))


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_message_reaches_a_terminal_of_any_encoding(encoding: str) -> None:
    program = "from textclf.cli import terminal; terminal.say('naïve 你好 🙂')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr.decode("ascii", "backslashreplace")
    assert b"na" in done.stderr


def test_logs_of_others_are_harmless_and_tell_no_secret() -> None:
    record = logging.LogRecord("x", logging.WARNING, "", 0, NASTY + " hf_%s", ("a" * 30,), None)
    shown = terminal.LogFormatter("%(message)s").format(record)
    assert is_harmless(shown.replace("\n", "")) and shown.endswith("***")
