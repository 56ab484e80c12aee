"""Results as tables for a terminal. Foreign text passes through `terminal.safe` and is never read as markup."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from textclf.cli import terminal

if TYPE_CHECKING:
    from rich.table import Table

    from textclf.abstention import Abstention
    from textclf.artifact.runs import Group
    from textclf.evaluation.evaluation import EvalReport
    from textclf.evaluation.questions import QuestionReport
    from textclf.evaluation.slices import Slice
    from textclf.intervals import Interval
    from textclf.metrics import Confusion, LabelErrors
    from textclf.scope import ScopeReport
    from textclf.training.estimate import Estimate

SHOWN_METRICS = {
    "question_accuracy": "question accuracy",
    "accuracy": "accuracy",
    "micro_f1": "micro-F1",
    "macro_f1": "macro-F1",
    "samples_f1": "samples F1",
    "weighted_f1": "weighted F1",
    "micro_precision": "micro precision",
    "micro_recall": "micro recall",
    "macro_precision": "macro precision",
    "macro_recall": "macro recall",
    "weighted_precision": "weighted precision",
    "weighted_recall": "weighted recall",
    "mcc": "MCC",
    "subset_accuracy": "subset accuracy",
    "hamming_loss": "Hamming loss",
    "lrap": "ranking average precision",
    "ranking_loss": "ranking loss",
    "coverage_error": "coverage error",
    "loss": "loss",
    "ece": "calibration error",
    "brier": "Brier score",
    "roc_auc": "ROC-AUC",
    "average_precision": "average precision",
    "labels_per_text": "labels a text",
    "predicted_per_text": "labels given a text",
}
"""Metrics in the order of their interest, and what they are called."""

FATES = {
    "truncate": "lost their end",
    "head-tail": "lost their middle",
    "window": "were read in overlapping windows",
}
"""What became of texts that are longer than the model reads, by model.overflow."""

MOST_ROWS = 25
"""Rows of a table on a terminal; the rest is counted, and `--json` holds all."""


def baselines_table(
    baselines: Sequence[Mapping[str, Any]], metrics: Mapping[str, Mapping[str, Any]], seconds: float | None = None
) -> Table:
    """A row per baseline, and the model last; a column per leading metric and split, and the time."""
    from textclf.artifact.figures import BASELINES

    measured = baselines[0]["metrics"]
    cells = [(split, name) for split, of in measured.items() if split in metrics for name in of]
    table = new_table("beside it", *(f"{split}\n{SHOWN_METRICS[name]}" for split, name in cells), "time")
    rows = [(BASELINES[one["name"]], one["metrics"], one["seconds"]) for one in baselines]
    for title, values, spent in (*rows, ("this model", metrics, seconds)):
        shown = [f"{values[split][name]:.4f}" for split, name in cells]
        table.add_row(title, *shown, "-" if spent is None else "<1s" if spent < 1 else terminal.duration(spent))
    return table


def metrics_table(
    metrics: Mapping[str, Mapping[str, Any]], intervals: Mapping[str, Mapping[str, Interval]] | None = None
) -> Table:
    """A column per split, a row per metric, and with `intervals` of each split a column of these after it."""
    columns = [name for split in metrics for name in ([split, "95 % interval"] if intervals else [split])]
    table = new_table("metric", *columns)
    for key, name in SHOWN_METRICS.items():
        values = [value if isinstance(value := one.get(key), (int, float)) else None for one in metrics.values()]
        if all(value is None for value in values):
            continue
        cells = []
        for split, value in zip(metrics, values, strict=True):
            cells.append("-" if value is None else f"{value:.4f}")
            if intervals:
                interval = intervals[split].get(key)
                cells.append("" if interval is None else f"{interval.low:.4f} to {interval.high:.4f}")
        table.add_row(name, *cells)
    blank = [""] if intervals else []
    table.add_row("texts", *(cell for one in metrics.values() for cell in (f"{one['rows']:,}", *blank)))
    return table


def seeds_table(group: Group) -> Table:
    """A row per run of a group, with what it is chosen by first; then their mean and its spread."""
    from textclf.artifact.runs import seed_of

    shown = [group.metric, *(name for name in ("accuracy", "micro_f1", "macro_f1", "loss") if name != group.metric)]
    spread = group.spread
    cells = [
        (split, name)
        for split in ("validation", "test")
        for name in shown
        if name in SHOWN_METRICS and name in spread.get(split, {})
    ]
    table = new_table("run", "seed", *(f"{split}\n{SHOWN_METRICS[name]}" for split, name in cells))
    best = group.best
    for run in group.runs:
        values = [run.metrics.get(split, {}).get(name) if run.state == "done" else None for split, name in cells]
        name = f"{run.name} *" if run is best and run.state == "done" else run.name
        shown_values = [f"{value:.4f}" if isinstance(value, (int, float)) else "-" for value in values]
        if run.state != "done":
            name = f"{run.name} ({run.state})"
        table.add_row(foreign(name), f"{seed_of(run)}", *shown_values)
    table.add_section()
    table.add_row("mean", "", *(f"{spread[split][name][0]:.4f}" for split, name in cells))
    deviations = [spread[split][name][1] for split, name in cells]
    if None not in deviations:
        table.add_row("standard deviation", "", *(f"{one:.4f}" for one in deviations))
    if cells:
        table.caption = f"* best {SHOWN_METRICS[group.metric]} on validation"
    return table


def seeds_document(group: Group) -> dict[str, Any]:
    """A group of runs as plain values, ready for JSON."""
    from textclf.artifact.runs import seed_of

    return {
        "name": group.name,
        "folder": str(group.folder),
        "metric": group.metric,
        "best": group.best.name if group.best.state == "done" else None,
        "runs": [
            {
                "run": run.name,
                "folder": str(run.folder),
                "seed": seed_of(run),
                "state": run.state,
                "metrics": run.metrics,
            }
            for run in group.runs
        ],
        "metrics": {
            split: {name: {"mean": mean, "deviation": deviation} for name, (mean, deviation) in found.items()}
            for split, found in group.spread.items()
        },
    }


def show_report(report: EvalReport) -> None:
    """An evaluation on stdout: metrics, labels from the worst, the largest confusions."""
    console = terminal.out()
    if report.questions is not None:
        console.print(_questions_table(report.questions))
        _say_rest(len(report.questions.subjects), "subjects")
    console.print(metrics_table({report.split: report.metrics.as_dict()}, {report.split: report.intervals}))
    if report.baselines:
        console.print(baselines_table(report.baselines, {report.split: report.metrics.as_dict()}))
    if report.abstention is not None:
        console.print(_abstention_table(report.abstention))
    if report.scope is not None:
        _show_scope(report.scope)
    labels = new_table("label", "precision", "recall", "F1", "texts", "predicted", caption="labels, lowest F1 first")
    ranked = sorted(report.per_label, key=lambda one: (one.f1 is None, one.f1 or 0.0, one.label))
    for one in ranked[:MOST_ROWS]:
        cells = ("-" if value is None else f"{value:.3f}" for value in (one.precision, one.recall, one.f1))
        labels.add_row(foreign(one.label), *cells, f"{one.support:,}", f"{one.predicted:,}")
    console.print(labels)
    _say_rest(len(ranked), "labels")
    if report.confusions:
        console.print(confusions_table(report.confusions[:10]))
    for column, slices in report.slices.by_column.items():
        console.print(_slices_table(column, slices))
    if report.label_errors:
        _show_label_errors(report.label_errors)
    absent = report.metrics.absent_labels
    if absent:
        total = len(report.per_label)
        names = ", ".join(terminal.safe(name) for name in absent[:5])
        terminal.say(
            f"macro averages are over {total - len(absent)} of {total} labels; these do not occur in {report.split}: "
            f"{names}{' ...' if len(absent) > 5 else ''}"
        )
    if report.truncated:
        terminal.say(
            f"{report.truncated:,} of {report.metrics.rows:,} texts are longer than the model reads at once "
            f"and {FATES[report.overflow]}"
        )


def confusions_table(confusions: Sequence[Confusion]) -> Table:
    """Confused pairs, as they come."""
    pairs = new_table("true label", "answered", "texts", "share of label", caption="largest confusions")
    for pair in confusions:
        pairs.add_row(foreign(pair.target), foreign(pair.predicted), f"{pair.count:,}", f"{pair.share:.1%}")
    return pairs


def history_table(history: Sequence[Mapping[str, Any]], metric: str) -> Table | None:
    """The course of the training loss and of a validation metric as sparklines; None where nothing was trained."""
    from textclf.artifact.charts import sparkline

    losses = [float(line["loss"]) for line in history if isinstance(line.get("loss"), (int, float))]
    measured = [line["validation"] for line in history if isinstance(line.get("validation"), dict)]
    values = [float(one[metric]) for one in measured if isinstance(one.get(metric), (int, float))]
    if not losses:
        return None
    table = new_table("over the run", "", "first", "last")
    for name, course in (("train loss", losses), (f"validation {SHOWN_METRICS[metric]}", values)):
        if course:
            table.add_row(name, sparkline(course), f"{course[0]:.4f}", f"{course[-1]:.4f}")
    return table


def _slices_table(column: str, slices: Sequence[Slice]) -> Table:
    table = new_table(terminal.safe(column), "texts", "answered rightly", "95 % interval", "macro-F1")
    for one in slices:
        interval = f"{one.low:.3f} to {one.high:.3f}"
        table.add_row(foreign(one.name), f"{one.rows:,}", f"{one.accuracy:.4f}", interval, f"{one.macro_f1:.4f}")
    return table


def _show_label_errors(errors: Sequence[LabelErrors]) -> None:
    missed = sorted((one for one in errors if one.missed), key=lambda one: -one.missed)[:10]
    added = sorted((one for one in errors if one.added), key=lambda one: -one.added)[:10]
    if missed:
        table = new_table("label", "missed in", "share of its texts", caption="most missed labels")
        for one in missed:
            table.add_row(foreign(one.label), f"{one.missed:,}", f"{one.missed_share or 0:.1%}")
        terminal.out().print(table)
    if added:
        table = new_table("label", "wrongly added to", "share of its answers", caption="most wrongly added labels")
        for one in added:
            table.add_row(foreign(one.label), f"{one.added:,}", f"{one.added_share or 0:.1%}")
        terminal.out().print(table)


def _questions_table(report: QuestionReport) -> Table:
    """Question accuracy beside chance: of all questions, and of each subject, the worst first."""
    table = new_table(
        "questions",
        "accuracy",
        "95 % interval",
        "chance",
        "questions",
        caption="questions answered by their best choice",
    )
    ranked = sorted(report.subjects.items(), key=lambda item: (item[1].accuracy, item[0]))
    for name, one in (("all", report.all), *ranked[:MOST_ROWS]):
        interval = f"{one.low:.3f} to {one.high:.3f}"
        table.add_row(foreign(name), f"{one.accuracy:.4f}", interval, f"{one.chance:.3f}", f"{one.questions:,}")
    return table


def _abstention_table(one: Abstention) -> Table:
    accuracy = "-" if one.accuracy is None else f"{one.accuracy:.4f} ({one.low:.4f} to {one.high:.4f})"
    table = new_table("abstention", "value", caption="of texts whose best score reaches the threshold")
    table.add_row("threshold", f"{one.threshold:.4f}")
    if one.target is not None:
        table.add_row("accuracy aimed at", f"{one.target:.4f}")
    table.add_row("answered", f"{one.answered:,} ({one.coverage:.1%})")
    table.add_row("accuracy of answers", accuracy)
    return table


def _show_scope(one: ScopeReport) -> None:
    """How texts out of scope are told, and what some thresholds would do; the one that was asked for first."""
    console = terminal.out()
    if one.auroc is not None:
        table = new_table("out of scope", "value", caption="how texts out of scope are told, by their energy")
        table.add_row("texts in scope, and out", f"{one.rows:,}, {one.outside:,}")
        table.add_row("ROC-AUC", f"{one.auroc:.4f} ({one.low:.4f} to {one.high:.4f})")
        table.add_row("taken for in scope where 95 % of these are", f"{one.fpr95:.1%}")
        if one.refused_low is not None and one.asked is not None:
            refused = f"{one.asked.refused:.1%} ({one.refused_low:.1%} to {one.refused_high:.1%})"
            table.add_row(f"refused by --out-of-scope {one.asked.threshold:g}", refused)
        console.print(table)
    points = [*([] if one.asked is None else [one.asked]), *one.points]
    columns = ["refused out of scope"] if one.outside else []
    table = new_table("--out-of-scope", "answered in scope", "accuracy of answers", *columns)
    for point in points:
        accuracy = "-" if point.accuracy is None else f"{point.accuracy:.4f}"
        refused_cell = [] if point.refused is None else [f"{point.refused:.1%}"]
        table.add_row(f"{point.threshold:g}", f"{point.answered:.1%}", accuracy, *refused_cell)
    console.print(table)


def show_estimate(estimate: Estimate) -> None:
    """A dry run on stdout."""
    table = new_table("expected", "value")
    table.add_row("texts", ", ".join(f"{split} {rows:,}" for split, rows in estimate.rows.items()))
    table.add_row("labels", f"{estimate.labels:,}")
    table.add_row("parameters", f"{estimate.parameters / 1e6:.1f} M")
    table.add_row(
        "tokens per epoch", f"{estimate.tokens:,}, {estimate.padding_waste:.1%} of the computed ones are padding"
    )
    table.add_row(
        "steps", f"{estimate.steps:,} in {estimate.epochs:g} epochs, {estimate.micro_batches:,} forward passes an epoch"
    )
    for_all = f", for {estimate.seeds} seeds one after another" if estimate.seeds > 1 else ""
    table.add_row("time", f"about {terminal.duration(estimate.seconds)}{for_all}")
    table.add_row("memory", "not known here" if estimate.memory is None else f"about {size(estimate.memory)}")
    table.add_row("disk", f"about {size(estimate.disk)} while training")
    terminal.out().print(table)


def new_table(first: str, *others: str, caption: str | None = None) -> Table:
    """A table whose first column is left, whose others are right."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify="left", pad_edge=False)
    table.add_column(first, overflow="fold")
    for name in others:
        table.add_column(name, justify="right", overflow="fold")
    return table


def foreign(text: str) -> Any:
    """Foreign text as a cell: one line, harmless, no markup."""
    from rich.text import Text

    return Text(terminal.safe(text))


def size(count: int) -> str:
    """Bytes as a person says them."""
    value = float(count)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000 or unit == "GB":
            return f"{value:.0f} {unit}" if value >= 10 or unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError("unreachable")


def _say_rest(total: int, what: str) -> None:
    if total > MOST_ROWS:
        terminal.say(f"{total - MOST_ROWS} more {what}; --json has all")
