"""How many of the labels that were flipped on purpose `audit` puts first."""

from __future__ import annotations

import csv
import tempfile
import time
from pathlib import Path

import numpy as np

from .lines import Contender, Line, Setting
from .materials import minilm

RATES = (5, 10)
"""Percent of the training labels that are flipped, each to any other label alike."""
FIRST = 500
"""What a person is taken to review."""


def lines(setting: Setting) -> list[Line]:
    """A line for each share of flipped labels in banking77's train. Not small, and not on CUDA."""
    if setting.small or setting.device == "cuda":
        return []
    return [_line(setting, rate) for rate in RATES]


def _line(setting: Setting, rate: int) -> Line:
    source = {"dataset": str((setting.data or Path()) / "banking77"), "rate": rate}
    return Line(
        name=f"audit-{rate}",
        title=f"Labels found by audit, {rate} % of banking77's train flipped",
        contenders=tuple(
            Contender(name, "auditing:of_audit", {**source, "model": model})
            for name, model in (
                ("textclf audit", None),
                ("textclf audit --model textclf-mini", "textclf-mini"),
                ("textclf audit --model MiniLM", str(minilm())),
            )
        ),
        seeded=True,
    )


def of_audit(dataset: str, rate: int, model: str | None, seed: int) -> dict[str, float]:
    """The whole of `textclf.audit`, of a csv. average_precision: over all rows, those that are not reported last."""
    from sklearn.metrics import average_precision_score

    import textclf

    rows = textclf.prepare(dataset).rows("train")
    labels = np.array(list(rows.labels))
    names, random = np.unique(labels), np.random.default_rng(seed)
    flipped = np.zeros(len(labels), dtype=bool)
    flipped[random.permutation(len(labels))[: round(len(labels) * rate / 100)]] = True
    places = np.searchsorted(names, labels[flipped])
    labels[flipped] = names[(places + random.integers(1, len(names), flipped.sum())) % len(names)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.csv"
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *zip(rows.texts, labels, strict=True)])
        started = time.perf_counter()
        found = textclf.audit(path, model=model, seed=seed)
        seconds = time.perf_counter() - started
    reported = np.array([doubt.row - 1 for doubt in found.doubts])
    worth = np.full(len(labels), -1.0)
    worth[reported] = -np.arange(len(reported)) / len(reported)
    return {
        "reported": len(reported),
        "precision_of_500": float(flipped[reported[:FIRST]].mean()),
        "found_by_all": float(flipped[reported].sum() / flipped.sum()),
        "average_precision": float(average_precision_score(flipped, worth)),
        "seconds": seconds,
    }
