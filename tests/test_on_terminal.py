"""What reaches a terminal: no byte that it would obey, but for the colours and the cursor that are ours."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

import on_terminal

OURS = re.compile(r"\x1b\[[0-9;]*m|\x1b\[\?25[lh]|\x1b\[[0-9]*[AK]|\r\n?|\n|\t")
"""Colours, the cursor hidden and shown, lines erased by a progress display, and line ends."""


def test_no_foreign_text_reaches_a_terminal_as_a_command(tmp_path: Path) -> None:
    assert len(set(on_terminal.CODES)) >= 2000 and set(range(256)) <= set(on_terminal.CODES)
    behind, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", "COLUMNS": "120"}
    with subprocess.Popen(
        [sys.executable, on_terminal.__file__, str(tmp_path)],
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=terminal,
        env=environment,
    ) as child:
        os.close(terminal)
        shown = b""
        while True:
            try:
                piece = os.read(behind, 65536)
            except OSError:  # the child has closed its end
                break
            if not piece:
                break
            shown += piece
        os.close(behind)
    text = shown.decode("utf-8")
    assert child.returncode == 0 and text.rstrip().endswith("the end"), text[-2000:]
    assert len(text) > 100_000 and OURS.search(text)
    left = OURS.sub("", text)
    bad = {char for char in left if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp")}
    bad |= {char for char in left if char in "\u200b\u200e\u202e\u2066\ufeff\U000e0041"}
    places = [left[max(0, left.index(char) - 80) : left.index(char) + 40] for char in sorted(bad)[:5]]
    assert not bad, (sorted(map(ascii, bad)), places)
    assert "a bug of textclf" not in text, text[max(0, text.find("a bug of textclf") - 200) :][:600]
