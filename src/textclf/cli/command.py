"""What every command shares: --json, --quiet, --verbose, --debug, said once."""

from __future__ import annotations

import functools
import inspect
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from textclf.cli import terminal

Command = Callable[..., None]


@dataclass(frozen=True)
class Together:
    """Marks a parameter that stands for several options, by their names, as `Annotated[dict[str, Any], Together(...)]`.

    It gets their values by name, None for one that was not given.
    """

    options: Mapping[str, Any]


_SHARED: dict[str, Any] = {
    "json": Annotated[bool, typer.Option("--json", help="One JSON document on stdout.", rich_help_panel="Output")],
    "quiet": Annotated[bool, typer.Option("--quiet", "-q", help="Only results and errors.", rich_help_panel="Output")],
    "verbose": Annotated[bool, typer.Option("--verbose", "-v", help="Say more.", rich_help_panel="Output")],
    "debug": Annotated[bool, typer.Option("--debug", help="Show tracebacks.", rich_help_panel="Output")],
}


def register(app: typer.Typer, *, name: str | None = None, example: str) -> Callable[[Command], Command]:
    """Register a function as a command that also takes the shared flags; `example` closes its help page."""

    def decorate(function: Command) -> Command:
        signature = inspect.signature(function, eval_str=True)
        groups = {name: options for name, one in signature.parameters.items() if (options := _options(one))}

        @functools.wraps(function)
        def command(*args: Any, **kwargs: Any) -> None:
            for flag in _SHARED:
                setattr(terminal.settings, flag, kwargs.pop(flag))
            for group, members in groups.items():
                kwargs[group] = {option: kwargs.pop(option) for option in members}
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
        ours: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            options = groups.get(parameter.name, {})
            ours += [parameter.replace(name=one, annotation=hint, default=None) for one, hint in options.items()]
            ours += [] if options else [parameter]
        command.__signature__ = signature.replace(parameters=[*ours, *shared])  # type: ignore[attr-defined]
        command.__annotations__ = {}  # the signature has them; Typer would evaluate these too, twice a command
        app.command(name, epilog=f"Example:  {example}")(command)
        return function

    return decorate


def _options(parameter: inspect.Parameter) -> Mapping[str, Any]:
    """The options that a parameter stands for; none for one that stands for itself."""
    marks = getattr(parameter.annotation, "__metadata__", ())
    return next((mark.options for mark in marks if isinstance(mark, Together)), {})
