"""The live display of a run, or of an evaluation: a bar on a terminal, a line per evaluation of a run elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from textclf.cli import terminal

if TYPE_CHECKING:
    from textclf.training.events import Event


class EventDisplay:
    """Shows events on stderr; used inside a `with`."""

    def __init__(self) -> None:
        self._live = terminal.is_live()
        self._progress: Any = None
        self._task: Any = None
        self._phase: str | None = None

    def __enter__(self) -> Self:
        if self._live:
            from rich.progress import BarColumn, Progress, TextColumn

            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                TextColumn("{task.fields[facts]}", markup=False),
                console=terminal.err(),
                transient=True,
                expand=True,
            )
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()

    def __call__(self, event: Event) -> None:
        from textclf.training.events import Evaluated, Notice, Phase, StepDone

        match event:
            case Notice(message):
                self._line(message)
            case Phase(name, done, total):
                self._bar(name, done, total, "" if total is None else f"{done:,}/{total:,} texts")
            case StepDone():
                # Short facts first: a narrow terminal cuts the line at its end.
                facts = (
                    f"{event.step}/{event.steps}  {terminal.duration(event.seconds_left)} left  loss {event.loss:.3f}"
                    f"  {event.texts_per_second:.0f} texts/s  rate {event.learning_rate:.1e}"
                )
                self._bar("train", event.step, event.steps, facts)
            case Evaluated():
                from textclf.cli.render import SHOWN_METRICS

                best = "  best so far" if event.best else ""
                metrics = event.metrics
                headline = "  ".join(f"{SHOWN_METRICS[name]} {getattr(metrics, name):.4f}" for name in metrics.HEADLINE)
                self._line(
                    f"step {event.step}/{event.steps}  epoch {event.epoch:.1f}  train loss {event.loss:.3f}"
                    f"  validation: loss {metrics.loss:.3f}  {headline}{best}"
                )

    def _line(self, message: str) -> None:
        if terminal.settings.quiet:
            return
        if self._progress is not None:
            from rich.text import Text

            self._progress.console.print(Text(terminal.safe_lines(message)))
        else:
            terminal.say(message)

    def _bar(self, name: str, done: int, total: int | None, facts: str) -> None:
        """total: None for a bar that only shows that something is being done."""
        if self._progress is None:
            return
        if name != self._phase:
            if self._task is not None:
                self._progress.remove_task(self._task)
            self._task, self._phase = self._progress.add_task(name, total=total, facts=""), name
        self._progress.update(self._task, completed=done, facts=facts)
