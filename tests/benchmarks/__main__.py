"""Measure textclf beside what a user would take instead: JSON, Markdown, and a check against stored ratios."""

from __future__ import annotations

import argparse
import datetime
import json
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import (
    accuracy,
    auditing,
    backbones,
    checking,
    cold,
    machine,
    mini,
    prediction,
    presets,
    profile,
    report,
    running,
    tokenising,
    training,
)
from .lines import Contender, Line, Setting

FAMILIES: dict[str, Callable[[Setting], list[Line]]] = {
    "training": training.lines,
    "prediction": prediction.lines,
    "cold": cold.lines,
    "tokenising": tokenising.lines,
    "profile": profile.lines,
    "accuracy": accuracy.lines,
    "audit": auditing.lines,
    "backbones": backbones.lines,
    "presets": presets.lines,
    "mini": mini.lines,
}
"""A family is a module with `lines(setting)`; its name is how its lines' names begin."""
DATA = running.ROOT.parent / "shared" / "data"
OUT = Path("build", "benchmarks")
PAGE = running.ROOT / "docs" / "benchmarks.md"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        gpu = None
        if options.device == "cuda":
            gpu = running.call(Contender("gpu", "machine:gpu_name"), scratch).get("gpu")
            if gpu is None:
                print("no CUDA device here: nothing is measured")
                return 0
        data = None if options.small or not options.data.is_dir() else options.data.resolve()
        setting = Setting(small=options.small, device=options.device, data=data, scratch=scratch)
        chosen = _choose(setting, options.lines)
        if data is None and any(line.needs_data for line in chosen):
            return _refuse(f"the real data sets are not in {options.data}; give --data DIR, or --small")
        if not chosen:
            return _refuse(f"no line begins with {' or '.join(options.lines)}; families are {', '.join(FAMILIES)}")
        found = {"machine": machine.describe(gpu), "lines": {}}
        for line in chosen:
            found["lines"][line.name] = _measure(line, options, scratch, found["machine"])
            _write(found, options.out)  # after each line: the whole takes hours
    print((options.out / "report.md").read_text(encoding="utf-8"))
    if options.docs:
        report.put_into(PAGE, found["lines"])
    if options.store:
        checking.store(found)
    verdicts = checking.check(found) if options.check else []
    for verdict in verdicts:
        print(f"{verdict.outcome}: {verdict.message}")
    return int(_any_error(found) or any(verdict.outcome == "lost" for verdict in verdicts))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("lines", nargs="*", metavar="LINE", help="lines or families by the start of their name (all)")
    parser.add_argument("--rounds", type=int, metavar="N", default=3, help="turns of every contender (3)")
    parser.add_argument("--small", action="store_true", help="minutes instead of hours, without the real data sets")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--data", type=Path, default=DATA, metavar="DIR", help="the real data sets (%(default)s)")
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR", help="for reports and cells (%(default)s)")
    parser.add_argument("--docs", action="store_true", help="put the tables into docs/benchmarks.md")
    parser.add_argument("--store", action="store_true", help="keep these ratios as those that --check wants")
    parser.add_argument(
        "--check", action="store_true", help="fail where a ratio lost more than 30 %% of the stored one"
    )
    return parser


def _choose(setting: Setting, names: Sequence[str]) -> list[Line]:
    every = [line for make in FAMILIES.values() for line in make(setting)]
    return [line for line in every if not names or line.name.startswith(tuple(names))]


def _measure(line: Line, options: argparse.Namespace, scratch: Path, where: dict[str, Any]) -> dict[str, Any]:
    rounds = running.run_line(line, options.rounds, scratch=scratch, kept=options.out / "cells.jsonl", say=_say)
    words = ["python", "-m", "tests.benchmarks", line.name, "--rounds", str(options.rounds)]
    words += ["--small"] * options.small + ["--device", "cuda"] * (options.device == "cuda")
    today = datetime.datetime.now(datetime.UTC).date().isoformat()
    return report.line_report(line, rounds, date=today, command=shlex.join(words), machine=where)


def _write(found: dict[str, Any], out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (out / "report.md").write_text("\n".join(map(report.markdown, found["lines"].values())), encoding="utf-8")


def _any_error(found: dict[str, Any]) -> bool:
    lines = found["lines"].values()
    return any("error" in result for line in lines for results in line["rounds"].values() for result in results)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _refuse(message: str) -> int:
    _say(f"error: {message}")
    return 2


if __name__ == "__main__":
    sys.exit(main())
