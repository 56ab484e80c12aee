"""Signals: the first that asks a process to end is obeyed at the next good place, a second at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn, TypeVar

Answer = TypeVar("Answer")

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


_is_own = False
_seen = False


def own_process() -> None:
    """For a command line: a first signal leaves by SystemExit(128 + its number), a second ends the process there and
    then. What the process was told to ignore stays ignored (nohup)."""
    global _is_own
    _is_own = True
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


def leavable(work: Callable[[], Answer]) -> Answer:
    """What `work` returns or raises. In a command line's own process a signal need not wait for it.

    For what waits on a network in threads of its own, as downloads do: who is interrupted there first waits for all of
    them. In a process of others `work` would go on behind its back, so that there it is simply called.
    """
    if not _is_own or threading.current_thread() is not threading.main_thread():
        return work()
    future: Future[Answer] = Future()

    def answer() -> None:
        try:
            future.set_result(work())
        except BaseException as err:  # noqa: BLE001  # it is raised where it is waited for
            future.set_exception(err)

    threading.Thread(target=answer, daemon=True).start()
    return future.result()


def end_at_once(code: object) -> None:
    """End the process if this exit code is that of a signal and threads still work: Python would wait for those of a
    pool, daemons too."""
    if threading.active_count() > 1 and code in [128 + number for number in STOPPING]:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, AttributeError, ValueError):
                stream.flush()
        os._exit(int(str(code)))


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
