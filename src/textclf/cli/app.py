"""The Typer app and main(): logging, the only catch, exit codes."""

from __future__ import annotations

import errno
import gc
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from textclf import __version__, signals
from textclf.cli import terminal
from textclf.errors import TextclfError
from textclf.redaction import redact

COLLECT_EVERY = 5000
"""Objects between two looks for cycles. Python's 700 would be a fifth of the time that torch and transformers take to
be imported."""


class _Commands(TyperGroup):
    """Typer quotes the command line in its errors, where a file's name may stand: it is made harmless first."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _harmless_errors():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        with _harmless_errors():
            return super().invoke(ctx)


@contextmanager
def _harmless_errors() -> Iterator[None]:
    try:
        yield
    except Exception as err:
        # By what they have: newer Typers bring these classes themselves, older ones have them from Click.
        if hasattr(err, "format_message") and isinstance(getattr(err, "message", None), str):
            err.message = terminal.safe_lines(redact(err.message))  # type: ignore[attr-defined]
        raise


app = typer.Typer(
    name="textclf",
    cls=_Commands,
    help="Turn labelled text into a served classifier.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"textclf {__version__}")
        raise typer.Exit


@app.callback(epilog="Example:  textclf finetune --dataset tickets.csv")
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


from textclf.cli import (  # noqa: E402
    audit,
    compare,
    evaluate,
    export,
    finetune,
    predict,
    prepare,
    push,
    report,
    runs,
)

for _room in (prepare, audit, finetune, evaluate, compare, report, predict, export, push):
    _room.add_to(app)
runs.add_to(app)


def main() -> NoReturn:
    """Run the command line and exit with the code of what happened."""
    gc.set_threshold(COLLECT_EVERY)
    try:
        _main()
    except SystemExit as end:
        signals.end_at_once(end.code)
        gc.freeze()  # Python would look through all objects for cycles again before it ends: a second, with torch
        raise


def _main() -> NoReturn:
    terminal.make_streams_safe()
    # Typer checks values with pydantic, which would first look for plug-ins in every package that is installed.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # Threads of OpenMP that wait for work, as long as they do by themselves, would keep a core busy: beside any other
    # process, torch's two threads on two cores are then up to four times slower. Asleep at once, they lose a quarter
    # on a machine that does nothing else; looking about for some 25 microseconds first, a tenth.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    signals.own_process()
    # Kernels of the Hub are code; transformers would fetch some for models that name none.
    os.environ.setdefault("USE_HUB_KERNELS", "NO")
    log = logging.StreamHandler(sys.stderr)
    log.setFormatter(terminal.LogFormatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[log], level=logging.WARNING)
    logging.captureWarnings(True)  # they may quote foreign text
    try:
        app()
    except TextclfError as err:
        _report(err.message, err.hint)
        sys.exit(err.exit_code)
    except MemoryError as err:
        _report(f"out of memory: {err}" if str(err) else "out of memory", None)
        sys.exit(6)
    except OSError as err:
        if err.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            _report(f"{err.strerror}: {err.filename!s:.200}", "give a shorter path, or one without links")
            sys.exit(2)
        if err.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.ENFILE, errno.EROFS):
            _report_bug(err)
            sys.exit(1)
        _report(redact(str(err)), None)
        terminal.abandon_output()
        sys.exit(6)
    except Exception as err:  # noqa: BLE001  # the one place that turns a bug into a message
        _report_bug(err)
        sys.exit(1)
    sys.exit(0)


def _report_bug(err: Exception) -> None:
    _report(
        redact(f"a bug of textclf: {type(err).__name__}: {err}"),
        "run the command again with --debug, and report what it prints",
    )


def _report(message: str, hint: str | None) -> None:
    if terminal.settings.debug:
        logging.getLogger("textclf").exception("traceback, because of --debug")
    with suppress(OSError):  # the exit code still tells
        console = terminal.err()
        console.print("error:", style="bold red", end=" ")
        console.print(terminal.safe_lines(message), soft_wrap=True)
        if hint:
            console.print("  " + terminal.safe_lines(hint).replace("\n", "\n  "), soft_wrap=True)
