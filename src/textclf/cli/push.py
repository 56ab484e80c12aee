"""`textclf push`: a fine-tuned model onto the Hub."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from textclf.cli import terminal
from textclf.cli.command import register
from textclf.cli.render import size
from textclf.errors import UsageError

if TYPE_CHECKING:
    from textclf.artifact.publishing import Pushed


def add_to(app: typer.Typer) -> None:
    """Register the command."""

    @register(app, example="textclf push my-run alice/bank-intents")
    def push(
        names: Annotated[
            list[str],
            typer.Argument(
                metavar="[MODEL] OWNER/NAME",
                show_default=False,
                help="Run, model folder or Hub id (left out: the latest run), and the repository it goes to.",
            ),
        ],
        public: Annotated[
            bool, typer.Option("--public", help="Make a new repository public. Without it: private.")
        ] = False,
        dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be pushed; write nothing.")] = False,
        message: Annotated[str | None, typer.Option("--message", "-m", metavar="TEXT", help="Of the commit.")] = None,
    ) -> None:
        """Publish a fine-tuned model on the Hugging Face Hub, with a model card."""
        from textclf.artifact.publishing import push as run

        if len(names) > 2:
            raise UsageError(f"push takes MODEL and OWNER/NAME, not {len(names)} names")
        model = names[0] if len(names) == 2 else None
        pushed = run(model, names[-1], public=public, dry_run=dry_run, message=message)
        if terminal.settings.json:
            document = dataclasses.asdict(pushed) | {"dry_run": dry_run}
            document["files"] = [{"path": path, "size": size} for path, size in pushed.files]
            terminal.show_json(document)
            return
        _render(pushed, dry_run)


def _render(pushed: Pushed, dry_run: bool) -> None:
    visibility = "private" if pushed.private else "public"
    total = size(sum(count for _, count in pushed.files))
    if dry_run:
        new = "a new" if pushed.created else "the existing"
        terminal.say(f"would push {len(pushed.files)} files, {total}, to {new} {visibility} repository:")
    elif not pushed.changed:
        terminal.say(f"nothing to do: {pushed.repo_id} ({visibility}) holds this model already")
    else:
        new = "a new" if pushed.created else "the"
        terminal.say(f"pushed {len(pushed.files)} files, {total}, to {new} {visibility} repository")
    if dry_run or terminal.settings.verbose:
        for path, count in pushed.files:
            terminal.say(f"  {size(count):>9}  {path}")
    if pushed.note:
        terminal.say(f"note: {pushed.note}")
    terminal.out().print(pushed.url, soft_wrap=True)
    if not dry_run:
        terminal.say(f"use it:  textclf predict {pushed.repo_id} texts.txt")
        if pushed.private:
            terminal.say("it is private: others need access and a log-in of their own")
