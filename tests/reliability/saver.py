"""One save as a run makes it, without torch: a child of this process waits until strace watches it, saves and ends."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from textclf import atomic
from textclf.errors import ResourceError

BEGIN, END = "/textclf-save-begins", "/textclf-save-ends"
"""Paths that are asked after, so that a trace of system calls shows where the save is."""
DONE, REFUSED, CRASHED = 0, 6, 1
"""Exit codes of a child: the save is announced; ended by ResourceError, as a run would with this code; by another."""


def save(folder: Path, step: int) -> None:
    """What training/checkpoint.py writes, by the same functions, of three small tensors."""
    with atomic.new_folder(folder / f"step-{step}", manifest=True) as draft:
        for name in ("weights", "optimizer"):
            save_file({"values": np.full(3000, step, np.float32)}, draft / f"{name}.safetensors")
        atomic.write_json(draft / "state.json", {"step": step})


def save_watched(folder: Path, step: int, options: list[str]) -> tuple[int | None, str]:
    """Save in a child that strace watches with these options.

    Returns the child's exit code, negative of the signal that killed it, and what strace wrote; None where processes
    may not be traced. Starting Python anew would cost twenty times as much.
    """
    with mmap.mmap(-1, 1) as watched:  # shared with the child, which looks at it by no system call
        child = os.fork()
        if not child:
            _save_and_end(folder, step, watched)
        strace = subprocess.Popen(
            ["strace", "-p", str(child), *options], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert strace.stderr is not None
        first = strace.stderr.readline()
        if "attached" not in first:
            strace.kill()
            strace.communicate()
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            if "not permitted" in first:
                return None, first
            raise AssertionError(f"strace: {first}")
        watched[0] = 1
        _, status = os.waitpid(child, 0)
        _, trace = strace.communicate(timeout=60)
    return os.waitstatus_to_exitcode(status), trace


def _save_and_end(folder: Path, step: int, watched: mmap.mmap) -> None:
    code = CRASHED
    try:
        while not watched[0]:
            time.sleep(0.0005)  # a call that no fault is tried on
        os.path.exists(BEGIN)  # noqa: PTH110  # one system call, no more
        save(folder, step)
        os.path.exists(END)  # noqa: PTH110
        code = DONE
    except ResourceError:
        code = REFUSED
    finally:
        os._exit(code)
