"""What every command shares: --json, --quiet, --verbose, --debug, said once."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
import typing
from collections.abc import Callable
from typing import Annotated, Any

import typer

from textclf.cli import terminal

Command = Callable[..., None]

_SHARED: dict[str, Any] = {
    "json": Annotated[bool, typer.Option("--json", help="One JSON document on stdout.", rich_help_panel="Output")],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Only results and errors.", rich_help_panel="Output")],
    "verbose": Annotated[bool, typer.Option("--verbose", "-v", help="Say more.", rich_help_panel="Output")],
    "debug": Annotated[bool, typer.Option("--debug", help="Show tracebacks.", rich_help_panel="Output")],
}


def register(app: typer.Typer, *, name: str | None = None, example: str) -> Callable[[Command], Command]:
    """Register a function as a command that also takes the shared flags; `example` closes its help page."""

    def decorate(function: Command) -> Command:
        hints = typing.get_type_hints(function, include_extras=True)
        signature = inspect.signature(function)

        @functools.wraps(function)
        def command(*args: Any, **kwargs: Any) -> None:
            for flag in _SHARED:
                setattr(terminal.settings, flag, kwargs.pop(flag))
            quiet_level = logging.INFO if terminal.settings.verbose else logging.WARNING
            level = logging.DEBUG if terminal.settings.debug else quiet_level
            logging.getLogger("textclf").setLevel(level)
            if terminal.settings.quiet or terminal.settings.json:
                for library in ("HF_HUB", "HF_DATASETS"):  # read when they are imported, which is later
                    os.environ[f"{library}_DISABLE_PROGRESS_BARS"] = "1"
            try:
                function(*args, **kwargs)
                if sys.stdout is not None:
                    sys.stdout.flush()
            except BrokenPipeError:  # the reader has seen enough, as `head` does: no error of ours
                terminal.abandon_output()
                sys.exit(141)

        shared = [
            inspect.Parameter(flag, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=hint)
            for flag, hint in _SHARED.items()
        ]
        ours = [p.replace(annotation=hints.get(p.name, p.annotation)) for p in signature.parameters.values()]
        command.__signature__ = signature.replace(parameters=[*ours, *shared])  # type: ignore[attr-defined]
        command.__annotations__ = {**hints, **_SHARED}
        app.command(name, epilog=f"Example:  {example}")(command)
        return function

    return decorate
