"""`textclf runs`: what was fine-tuned on this machine, and making room."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from textclf.cli import terminal
from textclf.cli.command import register
from textclf.cli.render import SHOWN_METRICS, foreign, metrics_table, new_table, seeds_document, seeds_table, size
from textclf.errors import UsageError

if TYPE_CHECKING:
    from textclf.artifact.runs import Group, Run

RunArg = Annotated[str, typer.Argument(metavar="RUN", help="Name of a run, or path of its folder.", show_default=False)]


class _ListByDefault(TyperGroup):
    """`textclf runs` and `textclf runs --json` are `textclf runs list`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("-h", "--help")):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def add_to(app: typer.Typer) -> None:
    """Register the group and its commands."""
    group = typer.Typer(
        cls=_ListByDefault,
        help="List, show and remove runs; alone, it lists them.",
        epilog="Example:  textclf runs show my-run",
        rich_markup_mode="rich",
    )
    app.add_typer(group, name="runs")

    @register(group, name="list", example="textclf runs")
    def list_runs() -> None:
        """All runs, newest first."""
        from textclf.artifact import runs

        found = runs.all_runs()
        if terminal.settings.json:
            terminal.show_json([_summary(run) for run in found])
        elif found:
            _show_list(found)
        else:
            terminal.say("no runs yet; make one: textclf finetune --preset quickstart")

    @register(group, name="show", example="textclf runs show my-run")
    def show(run: RunArg) -> None:
        """One run: its state, data, results and configuration; of several seeds the results."""
        from textclf.artifact import runs

        of_seeds = runs.find_group(run)
        if of_seeds is not None:
            if terminal.settings.json:
                terminal.show_json(seeds_document(of_seeds))
            else:
                terminal.out().print(seeds_table(of_seeds))
            return
        found = runs.named(run)
        if terminal.settings.json:
            terminal.show_json(_summary(found) | {"config": found.config})
        else:
            _show(found)

    @register(group, name="remove", example="textclf runs remove my-run")
    def remove(run: RunArg, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False) -> None:
        """Delete a run with its checkpoints, its model and its results; of several seeds all runs."""
        from textclf.artifact import runs

        of_seeds = runs.find_group(run)
        doomed = [runs.named(run)] if of_seeds is None else list(of_seeds.runs)
        found = doomed[0] if of_seeds is None else of_seeds
        freed = sum(map(runs.size, doomed))
        if not yes and not _agreed(found, freed):
            raise typer.Exit(1)
        for one in doomed:
            runs.remove(one)
        if terminal.settings.json:
            terminal.show_json({"removed": found.name, "path": str(found.folder), "bytes": freed})
        else:
            terminal.say(f"removed {found.name}: {size(freed)} are free again")

    @register(group, name="path", example="cd $(textclf runs path my-run)")
    def path(run: RunArg) -> None:
        """The folder of a run."""
        from textclf.artifact import runs

        folder = str(runs.named(run).folder.absolute())
        if terminal.settings.json:
            terminal.show_json({"path": folder})
        else:
            # As it is, for $(...): what a terminal shows of it, the user named himself.
            sys.stdout.write(folder + "\n")


def _agreed(run: Run | Group, freed: int) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(
            f"to remove the run {run.name} without being asked needs --yes",
            hint=f"textclf runs remove {run.name} --yes",
        )
    those = "" if not hasattr(run, "runs") else f" ({len(run.runs)} runs)"
    return typer.confirm(f"Delete {terminal.safe(str(run.folder))}{those} with all it holds ({size(freed)})?", err=True)


def _summary(run: Run) -> dict[str, Any]:
    from textclf.artifact import runs

    known = ("dataset", "model", "started", "updated", "step", "steps", "message")
    return {
        "name": run.name,
        "path": str(run.folder),
        "state": _state(run),
        **{key: run.document.get(key) for key in known},
        "metrics": run.metrics,
        "bytes": runs.size(run),
    }


def _show_list(found: list[Run]) -> None:
    from textclf.artifact import runs

    table = new_table("run", "state", "data set", "model", "result", "size", "started")
    for column in table.columns[1:4]:
        column.justify = "left"
    for column in table.columns[4:]:
        column.no_wrap = True
    for run in found:
        model = str(run.document.get("model") or "").rpartition("/")[2]  # the owner is in `runs show`
        texts = (_state(run), run.document.get("dataset"), model, _result(run))
        cells = [foreign(str(text or "-")) for text in texts]
        table.add_row(foreign(run.name), *cells, size(runs.size(run)), foreign(_when(run)))
    terminal.out().print(table)


def _show(run: Run) -> None:
    from textclf.artifact import runs

    table = new_table("run", terminal.safe(run.name))
    table.columns[1].justify = "left"
    document = run.document
    facts = {
        "state": _state(run),
        "step": f"{document.get('step')} of {document.get('steps')}" if document.get("steps") else None,
        "data set": document.get("dataset"),
        "model": document.get("model"),
        "fingerprint": document.get("fingerprint"),
        "started": _when(run),
        "size": size(runs.size(run)),
        "folder": run.folder,
        "message": document.get("message"),
    }
    for name, value in facts.items():
        if value:
            table.add_row(name, foreign(str(value)))
    console = terminal.out()
    console.print(table)
    if run.metrics:
        console.print(metrics_table(run.metrics))
    changed = [f"{section}.{key} = {value}" for section, key, value in _settings(run.config)]
    if changed:
        console.print("configuration")
    for line in changed:
        console.print("  " + terminal.safe(line), soft_wrap=True)


def _settings(config: dict[str, Any]) -> list[tuple[str, str, Any]]:
    sections = [(name, values) for name, values in config.items() if isinstance(values, dict)]
    return [(name, key, value) for name, values in sections for key, value in values.items() if value is not None]


def _state(run: Run) -> str:
    """As written, but a run whose process is gone is not running."""
    from textclf.artifact import runs

    return "interrupted" if run.state == "running" and not runs.is_busy(run) else run.state


def _result(run: Run) -> str:
    """The metric that the run was chosen by, on test where there is one, else on validation."""
    request = run.document.get("request")
    train = request.get("train") if isinstance(request, dict) else None
    wanted = train.get("metric") if isinstance(train, dict) else None
    for split in ("test", "validation"):
        values = run.metrics.get(split) or {}
        for name in (str(wanted), "accuracy", "micro_f1"):
            value = values.get(name)
            if name in SHOWN_METRICS and isinstance(value, (int, float)):
                return f"{split} {SHOWN_METRICS[name]} {value:.4f}"
    return "-"


def _when(run: Run) -> str:
    """To the minute, in the user's own time zone."""
    from datetime import datetime

    started = str(run.document.get("started") or "")
    try:
        return datetime.fromisoformat(started).astimezone().strftime("%Y-%m-%d %H:%M")
    except (ValueError, OverflowError):
        return started
