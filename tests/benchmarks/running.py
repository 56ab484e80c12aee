"""A line's rounds: every contender in turn, each in a fresh process, so that memory peaks are its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from .figures import agreement
from .lines import Contender, Line

ROOT = Path(__file__).parents[2]


class SetupError(Exception):
    """What a line needs could not be made."""


def run_line(
    line: Line, rounds: int, *, scratch: Path, kept: Path, say: Callable[[str], None]
) -> dict[str, list[dict[str, Any]]]:
    """The figures of every contender and round; those of a round that failed are `error`, what it last said.

    kept: a JSONL file that a seeded line's finished cells are read from and appended to.
    """
    for part in line.setup:
        say(f"{line.name}: {part.name}")
        result = call(part, scratch)
        if "error" in result:
            raise SetupError(f"{line.name}: {part.name}: {result['error']}")
    found: dict[str, list[dict[str, Any]]] = {contender.name: [] for contender in line.contenders}
    finished = _read(kept) if line.seeded else {}
    for number in range(rounds):
        for contender in line.contenders:
            if line.seeded:
                contender = replace(contender, arguments={**contender.arguments, "seed": number})
            key = json.dumps([line.name, contender.name, contender.function, contender.arguments], sort_keys=True)
            result = finished.get(key) or call(contender, scratch)
            if line.seeded and key not in finished and "error" not in result:
                _append(kept, key, result)
            say(f"{line.name}, round {number + 1} of {rounds}, {contender.name}: {_in_short(result)}")
            found[contender.name].append(result)
    _replace_answers(line, found)
    return found


def call(contender: Contender, scratch: Path) -> dict[str, Any]:
    """The figures of one contender in a fresh process, or `error` with the end of what it said."""
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        result = Path(folder) / "result.json"
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.child", contender.function, str(result)],
            input=json.dumps(contender.arguments),
            capture_output=True,
            text=True,
            cwd=ROOT,
            env={
                **os.environ,
                "TEXTCLF_HOME": str(scratch / "home"),
                "HF_DATASETS_CACHE": str(Path(folder) / "datasets"),
                "HF_HUB_OFFLINE": "1",
                "TMPDIR": folder,
            },
        )
        if done.returncode == 0:
            return json.loads(result.read_text())  # type: ignore[no-any-return]
        last = " ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-2:])
        return {"error": f"exit code {done.returncode}: {last[-300:] or 'it said nothing'}"}


def _replace_answers(line: Line, found: dict[str, list[dict[str, Any]]]) -> None:
    """Put how far each contender's answers are the reference's in the place of the answers."""
    for number in range(min(map(len, found.values()), default=0)):
        reference = found[line.reference][number].get("answers") if line.reference else None
        for results in found.values():
            answers = results[number].pop("answers", None)
            if answers and reference:
                results[number]["agreement"] = agreement(answers, reference)


def _in_short(result: dict[str, Any]) -> str:
    if "error" in result:
        return str(result["error"])
    return ", ".join(f"{name} {value:.4g}" for name, value in result.items() if isinstance(value, int | float))


def _read(kept: Path) -> dict[str, dict[str, Any]]:
    lines = kept.read_text(encoding="utf-8").splitlines() if kept.exists() else []
    # A line cut short by a crash is the last one; its cell is run again.
    return {cell["key"]: cell["result"] for cell in (json.loads(line) for line in lines if line.endswith("}"))}


def _append(kept: Path, key: str, result: dict[str, Any]) -> None:
    kept.parent.mkdir(parents=True, exist_ok=True)
    with kept.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"key": key, "result": result}) + "\n")
