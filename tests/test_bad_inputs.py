"""Every named wrong input ends as it should: its exit code, a message that helps, nothing raw on the terminal, soon."""

from __future__ import annotations

import re
import shutil
import time
import unicodedata
from pathlib import Path

import pytest

import test_bad_data
from bad_inputs import CASES
from in_process import Done, run

LIMIT = 5.0
"""Seconds that any wrong input may take."""


def raw(text: str) -> list[str]:
    """Characters that a terminal would act on, or that are not seen."""
    kinds = ("Cc", "Cs", "Zl", "Zp")
    return [
        char
        for char in text
        if (char not in "\n\t" and unicodedata.category(char) in kinds) or char in "\u202e\u2066\u200b"
    ]


def check(done: Done, codes: tuple[int, ...], words: list[str], seconds: float, *, longest: int = 0) -> None:
    """What holds for every wrong input. longest: characters of its longest argument, which may be repeated."""
    said = f"exit {done.code}: {done.err[-1500:]}"
    assert "Traceback" not in done.err and "a bug of textclf" not in done.err, said
    assert done.code in codes, said
    assert raw(done.out) == [] and raw(done.err) == [], said
    assert [word for word in words if word not in done.err] == [], said
    if done.code:
        assert re.search(r"^error: .|^Usage: |^╭─ Error ", done.err, re.MULTILINE), said
        assert len(done.err) < 4000 + longest, said
    assert seconds < LIMIT, (seconds, said)


@pytest.mark.parametrize("name", CASES)
def test_wrong_input(
    name: str, tmp_path: Path, home: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    here = tmp_path / "here"
    here.mkdir()
    for file, content in case.files.items():
        path = home / file.removeprefix("../home/") if file.startswith("../home/") else here / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    places = {"{here}": str(here), "{bad}": str(here / "model"), "{home}": str(home)}
    if {"{model}", "{bad}"} & {*case.arguments}:
        good = request.getfixturevalue("tiny_artifact")
        places["{model}"] = str(good)
        if "{bad}" in case.arguments:
            shutil.copytree(good, here / "model")
    if case.spoil:
        case.spoil(here)
    arguments = []
    for argument in case.arguments:
        for name_of, value in places.items():
            argument = argument.replace(name_of, value)
        arguments.append(argument)
    monkeypatch.chdir(here)
    start = time.perf_counter()
    done = run(arguments, stdin=case.stdin)
    seconds = time.perf_counter() - start
    check(done, case.codes, list(case.words), seconds, longest=max(map(len, arguments)))


@pytest.mark.parametrize("name", [name for name, case in test_bad_data.CASES.items() if not case[2]])
def test_bad_data_on_the_command_line(name: str, tmp_path: Path) -> None:
    content, dataset, _, words = test_bad_data.CASES[name]
    if callable(content):
        content(tmp_path)
    else:
        for file, bytes_or_text in content.items():
            test_bad_data.write(tmp_path, file, bytes_or_text)
    start = time.perf_counter()
    done = run(["prepare", "--dataset", str(tmp_path / dataset)])
    check(done, (3,), [word for word in words if "\n" not in word], time.perf_counter() - start)
