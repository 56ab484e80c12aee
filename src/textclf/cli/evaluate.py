"""`textclf eval`."""

from __future__ import annotations

from typing import Annotated

import typer

from textclf.cli import terminal
from textclf.cli.command import register
from textclf.cli.options import (
    ColumnsOpt,
    DeviceOpt,
    HeadCodeOpt,
    LabelColumnOpt,
    LabelColumnsOpt,
    LabelDelimiterOpt,
    RuntimeOpt,
    TextColumnOpt,
    TextPairColumnOpt,
    names,
)


def evaluate(
    model: Annotated[
        str | None, typer.Argument(help="Run, model folder or Hub id. Default: the latest run.", show_default=False)
    ] = None,
    dataset: Annotated[
        str | None,
        typer.Option("--dataset", "-d", help="Another data set with the same label names.", show_default=False),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="train, validation or test. Default: test where there is one.", show_default=False),
    ] = None,
    text_column: TextColumnOpt = None,
    text_pair_column: TextPairColumnOpt = None,
    label_column: LabelColumnOpt = None,
    label_delimiter: LabelDelimiterOpt = None,
    label_columns: LabelColumnsOpt = None,
    columns: ColumnsOpt = None,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=NUMBER",
            help="Exit with 10 if a metric is worse, as accuracy=0.9. Repeatable.",
            show_default=False,
        ),
    ] = None,
    device: DeviceOpt = None,
    runtime: RuntimeOpt = None,
    head: HeadCodeOpt = None,
) -> None:
    """Measure a model on labelled texts."""
    from textclf.cli.progress import EventDisplay
    from textclf.cli.render import show_report
    from textclf.evaluation.evaluation import Gate, check
    from textclf.evaluation.evaluation import evaluate as run
    from textclf.training.events import Phase

    gates = [Gate.parse(text) for text in fail_under or []]
    with EventDisplay() as display:
        report = run(
            model,
            dataset=dataset,
            split=split,
            text_column=text_column,
            text_pair_column=text_pair_column,
            label_column=label_column,
            label_delimiter=label_delimiter,
            label_columns=names(label_columns),
            columns=names(columns),
            device=device or "auto",
            runtime=runtime or "auto",
            head=head,
            on_progress=lambda done, total: display(Phase("score", done, total)),
        )
    if terminal.settings.json:
        terminal.show_json(report.as_dict())
    else:
        terminal.say(f"{report.model} on {report.split} of {report.dataset}")
        show_report(report)
    check(report, gates)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    register(app, name="eval", example="textclf eval --split test --fail-under accuracy=0.9")(evaluate)
