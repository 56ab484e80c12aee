"""A model's figures: what metrics and baselines are called, and the tables and plots of its card that show them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from textclf.abstention import CoveragePoint
from textclf.artifact import charts, folder
from textclf.artifact.markdown import escaped
from textclf.metrics import Bin, Confusion

METRICS = {
    # ours: (in words, the Hub's type)
    "question_accuracy": ("accuracy of questions", "accuracy"),
    "accuracy": ("accuracy", "accuracy"),
    "macro_f1": ("macro F1", "f1"),
    "micro_f1": ("micro F1", "f1"),
    "samples_f1": ("samples F1", "f1"),
    "weighted_f1": ("weighted F1", "f1"),
    "micro_precision": ("micro precision", "precision"),
    "micro_recall": ("micro recall", "recall"),
    "subset_accuracy": ("subset accuracy (all labels of a text right)", "accuracy"),
    "hamming_loss": ("Hamming loss", "hamming_loss"),
    "lrap": ("label ranking average precision", "lrap"),
    "ranking_loss": ("ranking loss", "ranking_loss"),
    "coverage_error": ("coverage error (labels)", "coverage_error"),
    "mcc": ("Matthews correlation", "matthews_correlation"),
    "macro_precision": ("macro precision", "precision"),
    "macro_recall": ("macro recall", "recall"),
    "roc_auc": ("ROC AUC", "roc_auc"),
    "average_precision": ("average precision", "average_precision"),
    "loss": ("loss (cross-entropy, nats)", "loss"),
    "ece": ("expected calibration error", "ece"),
    "brier": ("Brier score", "brier_score"),
}
"""Metrics in the order of their interest, as the card and the report call them."""
_CHANCE = {"question_chance": ("accuracy of questions, answered at random", "")}
"""Beside the metrics in the card's table, and no metric of the model's."""
BASELINES = {
    "majority": "most frequent label",
    "tfidf": "TF-IDF + linear",
    "probe": "frozen features + linear",
}
"""What baselines are called, simplest first: on the card, in the report and on the terminal."""
_PLOTS = {
    "confusions": "Rows are true labels, columns the answers; the stronger the colour, the more of the row.",
    "reliability": "How often answers of a score are right: on the dashed line scores mean what they say.",
    "coverage": "How right it is where only its surest answers are taken.",
}
"""Pictures beside the card, by the names of their files, and what is said of them."""


def plots(
    support: Mapping[str, int],
    confusions: Sequence[Confusion] | None,
    reliability: Sequence[Bin],
    coverage: Sequence[CoveragePoint] | None,
) -> dict[str, str]:
    """The pictures of the card: file name in the model folder -> SVG. As in the report, of the same figures.

    support: label -> its rows in the split. confusions, coverage: None where a text may have several labels.
    """
    drawn = {
        "confusions": charts.confusion_matrices(support, confusions)[0] if confusions else "",
        "reliability": charts.reliability(reliability, pairs=coverage is None),
        "coverage": charts.coverage([(one.coverage, one.accuracy) for one in coverage]) if coverage else "",
    }
    return {_plot(name): charts.standalone(svg) for name, svg in drawn.items() if svg}


def _plot(name: str) -> str:
    return f"{folder.PLOTS}/{name}.svg"


def results(facts: folder.Facts, place: Path) -> str:
    """The section of the card on results. place: the model folder, whose plots are shown."""
    splits = [split for split in ("test", "validation") if finite(facts.metrics.get(split, {}))]
    if not splits:
        return "## Results\n\nNone are recorded for this model. Measure it on texts of your own before you rely on it."
    values = {split: finite(facts.metrics[split]) for split in splits}
    rows = [
        [words, *(_with_interval(facts, split, name, values[split].get(name)) for split in splits)]
        for name, (words, _) in {"question_accuracy": METRICS["question_accuracy"], **_CHANCE, **METRICS}.items()
        if any(name in values[split] for split in splits)
    ]
    if any(facts.splits.get(split) for split in splits):
        rows.append(["texts", *(thousands(facts.splits.get(split)) for split in splits)])
    chosen = (
        "\n\nThe weights were chosen by their validation result, so that column flatters; test had no part in it."
        if "test" in splits
        else "\n\nThe weights were chosen by these same validation texts, so new texts will fare somewhat worse."
    )
    sure = "\n\nIn brackets: 95 % intervals, for texts drawn like these." if facts.intervals else ""
    table = markdown_table(["", *splits], rows, numbers_from=1)
    besides = (chosen if "validation" in splits else "") + _beside(facts, values) + _confused(facts)
    besides += "".join(
        f"\n\n![{says}]({_plot(name)})\n\n{says}" for name, says in _PLOTS.items() if (place / _plot(name)).is_file()
    )
    return f"## Results\n\n{table}{sure}{besides}"


def _with_interval(facts: folder.Facts, split: str, name: str, value: float | None) -> str:
    """A metric as a cell, with its interval where it is known."""
    if value is None:
        return ""
    known = facts.intervals.get(split)
    interval = known.get(name) if isinstance(known, dict) else None
    ends = finite(interval) if isinstance(interval, dict) else {}
    if not {"low", "high"} <= set(ends):
        return f"{value:.4f}"
    return f"{value:.4f} ({ends['low']:.4f} to {ends['high']:.4f})"


def baselines(facts: folder.Facts, *splits: str) -> list[dict[str, Any]]:
    """What the model was measured against on all of these splits, as `Facts.baselines` without other splits; nothing
    where one of them was not measured on one of the splits."""
    known = [one for one in facts.baselines if isinstance(one, dict) and one.get("name") in BASELINES]
    known = [one for one in known if {"rows", "seconds"} <= set(finite(one))]
    measured = [one["metrics"] if isinstance(one.get("metrics"), dict) else {} for one in known]
    found = [{split: finite(of.get(split) or {}) for split in splits} for of in measured]
    if not all(numbers for of in found for numbers in of.values()):
        return []
    return [{**one, "metrics": of} for one, of in zip(known, found, strict=True)]


def _beside(facts: folder.Facts, values: dict[str, dict[str, float]]) -> str:
    """What simpler answers reach on the same texts; nothing where it was not measured."""
    split = next((split for split in values if baselines(facts, split)), None)
    if split is None:
        return ""
    measured = baselines(facts, split)
    names = [name for name in METRICS if name in measured[0]["metrics"][split]]
    scored = [(BASELINES[one["name"]], one["metrics"][split]) for one in measured]
    rows = [
        [title, *(f"{of[name]:.4f}" if name in of else "" for name in names)]
        for title, of in [*scored, ("this model", values[split])]
    ]
    table = markdown_table(["", *(METRICS[name][0] for name in names)], rows, numbers_from=1)
    return f"\n\nBeside it, on {escaped(split)}:\n\n{table}"


def _confused(facts: folder.Facts) -> str:
    """The most frequent confusions as a table; nothing where none is recorded."""
    rows = [
        [
            escaped(str(one.get("target"))),
            escaped(str(one.get("predicted"))),
            thousands(one.get("count")),
            f"{share:.1%}",
        ]
        for one in facts.confusions
        if isinstance(one, dict) and isinstance(share := one.get("share"), (int, float))
    ]
    heads = ["true label", "answered", "texts", "share of label"]
    said = f"\n\nMost often confused on {split_reported(facts)}:\n\n"
    return said + markdown_table(heads, rows, numbers_from=2) if rows else ""


def split_reported(facts: folder.Facts) -> str:
    """The split whose figures stand for the model: test, or validation where there is no test."""
    return "test" if facts.metrics.get("test") else "validation"


def finite(metrics: Any) -> dict[str, float]:
    """Those metrics that are one finite number; none where they are no values by name."""
    plain = {
        name: value
        for name, value in (metrics.items() if isinstance(metrics, dict) else ())
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    return {name: float(value) for name, value in plain.items() if math.isfinite(value)}


def markdown_table(head: list[str], rows: Iterable[list[str]], *, numbers_from: int = 1) -> str:
    """A table in Markdown; columns from `numbers_from` on are right."""
    rule = ["---" if column < numbers_from else "---:" for column in range(len(head))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *rows])


def thousands(value: object) -> str:
    """A whole number with its thousands apart; nothing for anything else."""
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else ""
