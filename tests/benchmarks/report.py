"""Reports: what was measured as JSON and as Markdown, and the tables of docs/benchmarks.md."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .figures import Rounds, figure_names, ratio, spread, values
from .lines import Line

UNITS = {
    "texts_per_second": "texts/s",
    "peak_mib": "peak MiB",
    "peak_gpu_mib": "peak GPU MiB",
    "seconds": "seconds",
    "tflops": "TFLOP/s on real tokens",
    "peak_tflops": "matmul peak, TFLOP/s",
    "peak_share": "share of the peak",
}
"""How a figure is called in a table; others go by their name with spaces."""


def line_report(line: Line, rounds: Rounds, *, date: str, command: str, machine: Mapping[str, Any]) -> dict[str, Any]:
    """All that is known of one line, ready for JSON."""
    comparisons = [(one, ratio(rounds, one)) for one in line.comparisons]
    return {
        "title": line.title,
        "date": date,
        "command": command,
        "machine": dict(machine),
        "contenders": {contender.name: contender.arguments for contender in line.contenders},
        "rounds": {name: list(results) for name, results in rounds.items()},
        "comparisons": [asdict(one) | {"ratio": asdict(found) if found else None} for one, found in comparisons],
    }


def markdown(line: Mapping[str, Any]) -> str:
    """A line as a heading, what it was measured on, a table of contenders and one of comparisons."""
    rounds: Rounds = line["rounds"]
    figures = figure_names(rounds)
    count = max(map(len, rounds.values()), default=0)
    parts = [
        f"### {line['title']}",
        f"{line['date']}; {_machine(line['machine'])}.",
        f"Median of {count} rounds, range in brackets: `{line['command']}`",
        _table(["contender", *(_name(figure) for figure in figures)], _contender_rows(rounds, figures)),
    ]
    if line["comparisons"]:
        rows = [_comparison_row(one) for one in line["comparisons"]]
        parts.append(_table(["ours", "peer", "figure", "times better", "goal"], rows))
    return "\n\n".join(parts) + "\n"


def put_into(page: Path, lines: Mapping[str, Mapping[str, Any]]) -> None:
    """Replace each line's block in a page by its new table; a line without a block gets one at the end."""
    text = page.read_text(encoding="utf-8")
    for name, line in lines.items():
        start, end = f"<!-- benchmark: {name} -->", "<!-- /benchmark -->"
        block = f"{start}\n{markdown(line)}{end}"
        known = re.compile(f"{re.escape(start)}.*?{re.escape(end)}", re.DOTALL)
        text = known.sub(lambda _, block=block: block, text) if known.search(text) else f"{text.rstrip()}\n\n{block}\n"
    page.write_text(text, encoding="utf-8")


def _contender_rows(rounds: Rounds, figures: Sequence[str]) -> list[list[str]]:
    rows = []
    for contender, results in rounds.items():
        errors = [result["error"] for result in results if "error" in result]
        name = f"{contender} (failed {len(errors)} of {len(results)} times: {errors[0]})" if errors else contender
        rows.append([name, *(_cell(values(rounds, contender, figure)) for figure in figures)])
    return rows


def _comparison_row(comparison: Mapping[str, Any]) -> list[str]:
    found, goal = comparison["ratio"], comparison["goal"]
    better = f"{found['median']:.2f} ({found['low']:.2f}-{found['high']:.2f})" if found else "not measured"
    wanted = "" if goal is None else f"{goal:.3g}: {'reached' if found and found['median'] >= goal else 'not reached'}"
    return [comparison["ours"], comparison["peer"], _name(comparison["figure"]), better, wanted]


def _cell(figures: Sequence[float]) -> str:
    found = spread(figures)
    if found is None:
        return ""
    if found.low == found.high:
        return _number(found.median)
    return f"{_number(found.median)} ({_number(found.low)}-{_number(found.high)})"


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) >= 1 else f"{value:.4f}"


def _name(figure: str) -> str:
    return UNITS.get(figure, figure.replace("_", " "))


def _machine(machine: Mapping[str, Any]) -> str:
    device = machine["gpu"] or machine["processor"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    return f"{device} ({machine['kind']}), {machine['cores']} cores, {machine['threads']} threads; {versions}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in [head, ["---"] * len(head), *rows]]
    return "\n".join(f"| {' | '.join(row)} |" for row in escaped)
