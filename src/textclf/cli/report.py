"""`textclf report`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from textclf.cli import terminal
from textclf.cli.command import register
from textclf.errors import UsageError


def report(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="Run. Default: the latest finished one.", show_default=False)
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(help="train, validation or test. Default: test where there is one.", show_default=False),
    ] = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format", "-f", help="html, md, pdf or png. Default: by the output's extension.", show_default=False
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="- is standard output. Default: eval/SPLIT.html in the run folder.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Write one page on a run: figures, confusions, mistakes, data. As html and md it holds texts of the data."""
    from textclf.evaluation.report import compose
    from textclf.evaluation.report import report as run_report

    if output == "-":
        if terminal.settings.json:
            raise UsageError("--json and --output - both ask for standard output", hint="give one of them")
        if format in ("pdf", "png") and sys.stdout.isatty():
            raise UsageError(f"a {format} is nothing for a terminal", hint="name a file, or redirect standard output")
        _, _, page = compose(run, split=split, format=format or "html")  # type: ignore[arg-type]  # checked there
        terminal.write(page)
        return
    written = run_report(run, split=split, format=format, output=output)  # type: ignore[arg-type]  # checked there
    path = str(written.path.absolute())
    if terminal.settings.json:
        terminal.show_json({"run": written.run, "split": written.split, "format": written.format, "path": path})
    else:
        terminal.say(f"{written.run}, {written.split}:")
        terminal.out().print(terminal.safe(path), soft_wrap=True)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    register(app, name="report", example="textclf report my-run --output report.html")(report)
