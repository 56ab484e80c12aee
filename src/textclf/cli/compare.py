"""`textclf compare`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from textclf.cli import terminal
from textclf.cli.command import register
from textclf.cli.options import ColumnOptions, DeviceOpt, MeasuredDatasetOpt, MeasuredSplitOpt, RuntimeOpt

if TYPE_CHECKING:
    from textclf.evaluation.comparison import Comparison


def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN...", help="Runs, names of several seeds, model folders or Hub ids.", show_default=False
        ),
    ],
    metric: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What to compare by, as macro_f1. Default: accuracy; of texts with several labels micro_f1.",
            show_default=False,
        ),
    ] = None,
    dataset: MeasuredDatasetOpt = None,
    split: MeasuredSplitOpt = None,
    *,
    columns: ColumnOptions,
    device: DeviceOpt = None,
    runtime: RuntimeOpt = None,
) -> None:
    """Say whether models differ by more than chance on the same labelled texts.

    Every model is scored anew. Runs that differ in their seed only count as one
    model, whose result is their mean; finetune --seeds makes such runs, and their
    common name stands for all of them. Of every pair you get the difference, its
    95 % interval from a paired bootstrap of texts and seeds, McNemar's test where
    both are single runs, and a verdict.
    """
    from textclf.cli.progress import EventDisplay
    from textclf.evaluation.comparison import compare as run
    from textclf.training.events import Phase

    with EventDisplay() as display:
        found = run(
            models,
            metric=metric,
            dataset=dataset,
            split=split,
            **columns,
            device=device or "auto",
            runtime=runtime or "auto",
            on_progress=lambda name, done, total: display(Phase(f"score {name}", done, total)),
        )
    if terminal.settings.json:
        terminal.show_json(found.as_dict())
    else:
        terminal.say(f"{found.split} of {found.dataset}, {found.rows:,} rows")
        _show(found)


def _show(found: Comparison) -> None:
    from textclf.cli.render import SHOWN_METRICS, foreign, new_table

    console = terminal.out()
    table = new_table("model", "runs", SHOWN_METRICS[found.metric], "95 % interval", "spread of runs")
    for model in found.models:
        interval = model.intervals[found.metric]
        table.add_row(
            foreign(model.name),
            f"{len(model.runs)}",
            f"{model.metrics[found.metric]:.4f}",
            f"{interval.low:.4f} to {interval.high:.4f}",
            "-" if model.spread is None else f"{model.spread[found.metric]:.4f}",
        )
    console.print(table)
    if not found.differences:
        terminal.say(
            "these runs differ in nothing but their seed: they are one model, with nothing to be compared with"
        )
    for one in found.differences:
        test = one.mcnemar
        tested = (
            ""
            if test is None
            else f"; right alone in {test.first_only:,} and {test.second_only:,} rows, McNemar p = {test.p:.2g}"
        )
        if one.seeds is not None:
            tested += f"; {one.first} is better with {one.better} of {one.seeds} seeds"
        console.print(terminal.safe(one.verdict + tested), soft_wrap=True, markup=False)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    register(app, example="textclf compare small-run large-run --metric macro_f1")(compare)
