"""Ratios against the stored ones: a loss of more than 30 % is a failure. Ratios to a peer, never to a clock."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

STORED = Path(__file__).with_name("ratios.json")
"""Kind of machine -> comparison -> median ratio, as `--store` wrote it."""
ALLOWED_LOSS = 0.3
ALLOWED_ELSEWHERE = 0.5
"""Of the least ratio of other kinds, on a kind of machine that nothing is stored for."""


@dataclass(frozen=True)
class Verdict:
    """What became of one comparison. outcome: `unknown` where nothing is stored for it."""

    outcome: Literal["kept", "lost", "unknown"]
    message: str


def identity(line: str, comparison: Mapping[str, Any]) -> str:
    """The name that a comparison of a report is stored under."""
    return f"{line}: {comparison['ours']} to {comparison['peer']}, {comparison['figure']}"


def judge(name: str, found: Mapping[str, Any] | None, stored: float | None, *, elsewhere: bool = False) -> Verdict:
    """Compare one ratio with the stored one. elsewhere: that was measured on other kinds of machine.

    found: `median`, `low`, `high` over rounds, or None where no round gave both figures, which counts as lost.
    Lost only if every round is below: one round during which the machine did something else proves nothing.
    """
    where = " as the least of other kinds of machine" if elsewhere else ""
    if stored is None:
        now = f"{found['median']:.2f}" if found else "no ratio"
        return Verdict("unknown", f"{name}: {now}; none is stored")
    if found is None:
        return Verdict("lost", f"{name}: no round gave a ratio; {stored:.2f} is stored{where}")
    least = stored * (1 - (ALLOWED_ELSEWHERE if elsewhere else ALLOWED_LOSS))
    if found["high"] < least:
        return Verdict(
            "lost",
            f"{name}: {found['median']:.2f}, at best {found['high']:.2f}; {stored:.2f} is stored{where}, "
            f"so at least {least:.2f} is wanted",
        )
    return Verdict("kept", f"{name}: {found['median']:.2f}; {stored:.2f} is stored{where}")


def check(report: Mapping[str, Any], stored: Path = STORED) -> list[Verdict]:
    """A verdict on each comparison of a report's lines.

    On a kind of machine that nothing is stored for, half of the least ratio of any other kind is wanted: a check that
    judges nothing is none.
    """
    content, kind = _read(stored), report["machine"]["kind"]
    verdicts = []
    for name, one in _comparisons(report):
        known = content.get(kind, {}).get(name)
        least = min((ratios[name] for ratios in content.values() if name in ratios), default=None)
        verdicts.append(judge(name, one["ratio"], least if known is None else known, elsewhere=known is None))
    return verdicts


def store(report: Mapping[str, Any], stored: Path = STORED) -> None:
    """Keep the report's ratios for its kind of machine, beside what is there of others."""
    content = _read(stored)
    ratios = {name: round(one["ratio"]["median"], 3) for name, one in _comparisons(report) if one["ratio"]}
    kind = report["machine"]["kind"]
    content[kind] = {**content.get(kind, {}), **ratios}
    stored.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _comparisons(report: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    for name, line in report["lines"].items():
        for comparison in line["comparisons"]:
            yield identity(name, comparison), comparison


def _read(stored: Path) -> dict[str, dict[str, float]]:
    return json.loads(stored.read_text(encoding="utf-8")) if stored.exists() else {}
