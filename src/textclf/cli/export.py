"""`textclf export`."""

from __future__ import annotations

from typing import Annotated

import typer

from textclf.cli import terminal
from textclf.cli.command import register
from textclf.cli.options import ColumnOptions, DatasetOpt, HeadCodeOpt


def export(
    model: Annotated[
        str | None, typer.Argument(help="Run or model folder. Default: the latest run.", show_default=False)
    ] = None,
    int8: Annotated[bool, typer.Option("--int8", help="Also a graph in int8, and what it costs in answers.")] = False,
    dataset: DatasetOpt = None,
    split: Annotated[
        str | None, typer.Option(help="Texts to measure int8 on. Default: validation.", show_default=False)
    ] = None,
    *,
    columns: ColumnOptions,
    force: Annotated[bool, typer.Option("--force", help="Keep an int8 graph that changes many answers.")] = False,
    head: HeadCodeOpt = None,
) -> None:
    """Write the ONNX graph of a model, from which predict starts sooner."""
    from textclf.cli.render import SHOWN_METRICS
    from textclf.evaluation.exporting import export as run

    exported = run(
        model,
        int8=int8,
        dataset=dataset,
        split=split,
        **columns,
        force=force,
        head=head,
    )
    if terminal.settings.json:
        terminal.show_json({"model": exported.model, "written": list(exported.written), "graphs": exported.graphs})
        return
    for kind in exported.graphs:
        terminal.say(f"{kind} graph of {exported.model}: {'written' if kind in exported.written else 'was there'}")
    facts = exported.graphs.get("int8") if int8 else None
    if facts:
        measured = [
            f"{SHOWN_METRICS[name]} {facts[name]['int8']:.4f} (fp32 {facts[name]['fp32']:.4f})"
            for name in SHOWN_METRICS
            if name in facts
        ]
        terminal.say(
            f"int8 ({facts['level']}) on {facts['rows']:,} texts of {facts['split']} of {facts['dataset']}: "
            f"{facts['agreement']:.2%} the same answer as fp32, {', '.join(measured)}"
        )
        if "computed_again" in facts:  # not where nothing is, nor in graphs of early versions
            terminal.say(
                f"{facts['computed_again']:.1%} of them were close, and computed again in fp32; "
                f"without that {facts['agreement_alone']:.2%} the same"
            )
        terminal.say(f"use it:  textclf predict {exported.model} --runtime int8")


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    register(app, example="textclf export my-run --int8")(export)
