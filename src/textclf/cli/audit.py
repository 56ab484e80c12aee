"""`textclf audit`: rows whose label is doubtful, as a csv for a person to review."""

from __future__ import annotations

import csv
import io
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from textclf.cli import terminal
from textclf.cli.command import register
from textclf.cli.options import ColumnOptions, DeviceOpt, MinLabelCountOpt, as_flags, given
from textclf.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from textclf.evaluation.audit import Audit, Doubt

_MOST_ROWS = 20
"""Rows of the table on a terminal; the file holds all."""


def audit(
    reference: Annotated[
        str | None,
        typer.Argument(
            metavar="[DATA|RUN]", help="Data set or run. Default: the data of the latest run.", show_default=False
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            show_default=False,
            help="Pretrained model that reads the texts. Default: the run's; TF-IDF of words for a data set.",
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="train, validation or test. Default: all rows.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            show_default=False,
            help="The csv. Default: standard output; on a terminal, a table of the first rows.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the folds.")] = 0,
    *,
    columns: ColumnOptions,
    min_label_count: MinLabelCountOpt = None,
    device: DeviceOpt = None,
) -> None:
    """Find labels that are probably wrong, for a person to review."""
    from textclf.cli.progress import EventDisplay
    from textclf.evaluation.audit import audit as run

    _check(output, reference)
    settings = given(**columns, min_label_count=min_label_count)
    with EventDisplay() as display:
        found = run(
            reference, model=model, split=split, device=device or "auto", seed=seed, on_event=display, **settings
        )
    if output is not None:
        from textclf import atomic

        atomic.write_text(output, _csv(found))
    if terminal.settings.json:
        terminal.show_json(_document(found))
        return
    copies = sum(doubt.reason == "copy" for doubt in found.doubts)
    terminal.say(
        f"{len(found.doubts):,} of {found.rows:,} rows of {found.dataset} have a doubtful label, {copies:,} of them as "
        f"a copy has another; {found.features}, right on {found.accuracy:.1%} of rows not learnt from, "
        f"in {found.seconds:.0f} s"
    )
    if output is not None:
        terminal.say(f"review: {output}")
    elif sys.stdout is not None and not sys.stdout.isatty():
        terminal.write(_csv(found).encode("utf-8"))
        return
    else:
        terminal.out().print(_table(found))
        terminal.say("--output FILE writes them all, with their texts")
    terminal.say('next:  fill in the column "correction" (a label, or "(drop)"), then')
    terminal.say(f"       {_next_command(reference, settings, output)}")


def _next_command(reference: str | None, settings: dict[str, Any], output: Path | None) -> str:
    """What applies the review to the data that was audited."""
    from textclf.artifact import runs

    run = runs.latest() if reference is None else runs.find(reference)
    if run is None:
        words = ["prepare", *as_flags(given(dataset=reference, **settings))]
    else:
        words = ["finetune", "--config", str(run.folder / runs.CONFIG)]
    return shlex.join(["textclf", *words, "--corrections", str(output or "FILE")])


def _csv(found: Audit) -> str:
    from textclf.data.corrections import CORRECTION, shown
    from textclf.data.spreadsheets import guarded

    pairs = any(doubt.text_pair is not None for doubt in found.doubts)
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    texts = ["text", "text_pair"] if pairs else ["text"]
    writer.writerow(["file", "row", *texts, "label", "suggested", "score", "reason", "see", CORRECTION])
    for doubt in found.doubts:
        of_row = [terminal.field(guarded(text)) for text in (doubt.text, doubt.text_pair) if text is not None]
        labels = [shown(doubt.label), shown(doubt.suggested)]
        see = shown(doubt.see or "")
        writer.writerow([shown(doubt.file), doubt.row, *of_row, *labels, f"{doubt.score:.4f}", doubt.reason, see, ""])
    return buffer.getvalue()


def _check(output: Path | None, reference: str | None) -> None:
    """Raises UsageError where writing would destroy the data, or the work of who reviewed it."""
    if output is None:
        return
    from textclf.artifact import runs
    from textclf.data.corrections import is_reviewed

    if output.is_dir():
        raise UsageError(f"--output {output} is a folder", hint=f"name a file in it: {output / 'review.csv'}")
    run = runs.latest() if reference is None else runs.find(reference)
    source = Path(reference or "") if run is None else Path(str(run.config.get("data", {}).get("dataset")))
    if output.exists() and output.resolve().is_relative_to(source.resolve()):
        raise UsageError(f"--output {output} is part of the data; its rows would be lost", hint="name another file")
    if is_reviewed(output):
        raise UsageError(
            f"--output {output} is a review that was filled in; its corrections would be lost",
            hint="name another file, or delete this one",
        )


def _document(found: Audit) -> dict[str, Any]:
    """What --json prints. Names and kinds stay as they are; later versions may add some."""
    import dataclasses

    return dataclasses.asdict(found)


def _table(found: Audit) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("row", "label", "suggested", "why"):
        table.add_column(heading, overflow="fold")
    table.add_column("score", justify="right")
    for doubt in found.doubts[:_MOST_ROWS]:
        cells = (f"{doubt.file}, row {doubt.row}", _named(doubt.label), _named(doubt.suggested), _why(doubt))
        table.add_row(*map(terminal.safe, cells), f"{doubt.score:.2f}")
    if len(found.doubts) > _MOST_ROWS:
        table.add_row(f"… {len(found.doubts) - _MOST_ROWS:,} more", "", "", "", "")
    return table


def _named(label: Any) -> str:
    return label if isinstance(label, str) else json.dumps(list(label), ensure_ascii=False)


def _why(doubt: Doubt) -> str:
    return f"copy: {doubt.see}" if doubt.see is not None else "model"


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    register(app, example="textclf audit reviews.csv --output review.csv")(audit)
