"""`textclf eval`."""

from __future__ import annotations

from typing import Annotated

import typer

from textclf.cli import terminal
from textclf.cli.command import register
from textclf.cli.options import (
    AbstainBelowOpt,
    ColumnOptions,
    DeviceOpt,
    HeadCodeOpt,
    MeasuredDatasetOpt,
    MeasuredSplitOpt,
    OutOfScopeOpt,
    RuntimeOpt,
    TargetAccuracyOpt,
)


def evaluate(
    model: Annotated[
        str | None, typer.Argument(help="Run, model folder or Hub id. Default: the latest run.", show_default=False)
    ] = None,
    dataset: MeasuredDatasetOpt = None,
    split: MeasuredSplitOpt = None,
    *,
    columns: ColumnOptions,
    slice_by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN", help="Results by the values of this column too. Repeatable.", show_default=False
        ),
    ] = None,
    fail_under: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=NUMBER",
            help="Exit with 10 if a metric is worse, as accuracy=0.9. Repeatable.",
            show_default=False,
        ),
    ] = None,
    abstain_below: AbstainBelowOpt = None,
    target_accuracy: TargetAccuracyOpt = None,
    out_of_scope: OutOfScopeOpt = None,
    out_of_scope_label: Annotated[
        str | None,
        typer.Option(
            metavar="LABEL",
            help="Rows of this label are none of the model's: say how well they are told from the others.",
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
            **columns,
            abstain_below=abstain_below,
            target_accuracy=target_accuracy,
            out_of_scope=out_of_scope,
            out_of_scope_label=out_of_scope_label,
            slice_by=tuple(dict.fromkeys(slice_by or ())),
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
