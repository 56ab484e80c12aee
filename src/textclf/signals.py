"""Signals: the first that asks a process to end is obeyed at the next good place, a second at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
"""What asks a process to end. Windows has no SIGHUP."""
SAVING = getattr(signal, "SIGUSR1", None)
"""What asks a run for a checkpoint now."""


class Asked:
    """What signals have asked for since `watched` began.

    stop: the signal that asks for the end, None while there is none. save: a checkpoint is wanted now; who writes it
    sets this back.
    """

    def __init__(self) -> None:
        self.stop: signal.Signals | None = None
        self.save = False
        self._is_polled = False

    @contextmanager
    def polled(self) -> Iterator[None]:
        """Inside, the first signal only shows in `stop`, which the block looks at. Elsewhere it raises
        KeyboardInterrupt."""
        self._is_polled = True
        try:
            yield
        finally:
            self._is_polled = False

    def _handle(self, number: int) -> None:
        self.stop = signal.Signals(number)
        if not self._is_polled:
            raise KeyboardInterrupt


_seen = False


def own_process() -> None:
    """For a command line: a first signal leaves by SystemExit(128 + its number), a second ends the process there and
    then. What the process was told to ignore stays ignored (nohup)."""
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)


@contextmanager
def watched() -> Iterator[Asked]:
    """Take signals into what is yielded, and let the first of them interrupt the block by KeyboardInterrupt.

    A second goes to whoever handled signals before. In a thread other than the main one, nothing is caught.
    """
    asked = Asked()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.getsignal(number) for number in STOPPING}

    def stop(number: int, frame: FrameType | None) -> None:
        if asked.stop is None:
            asked._handle(number)
            return
        handler = before[signal.Signals(number)]
        if handler is _leave:
            _end(number)
        elif callable(handler):
            handler(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    def save(number: int, frame: FrameType | None) -> None:
        asked.save = True

    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, stop)
    saving_before = signal.signal(SAVING, save) if SAVING is not None else None
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if SAVING is not None:
            signal.signal(SAVING, saving_before if saving_before is not None else signal.SIG_DFL)


def _leave(number: int, frame: FrameType | None) -> None:
    global _seen
    if _seen:
        _end(number)
    _seen = True
    sys.exit(128 + number)


def _end(number: int) -> NoReturn:
    # A progress bar hides the cursor, and nobody will be there to show it again.
    with suppress(OSError, AttributeError, ValueError):
        if sys.stderr.isatty():
            os.write(sys.stderr.fileno(), b"\x1b[?25h\n")
    os._exit(128 + number)
