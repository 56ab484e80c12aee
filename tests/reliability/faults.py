"""Let each system call of a save fail, or the process die at it, by strace's fault injection."""

from __future__ import annotations

import collections
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from textclf import atomic

from . import saver

CALLS = (
    "openat,open,creat,read,pread64,write,pwrite64,writev,fsync,fdatasync,ftruncate,fallocate,lseek,close,chmod,fchmod,"
    "mkdir,rename,renameat,renameat2,unlink,unlinkat,rmdir,fstat,newfstatat,stat,lstat,statx,getdents64,mmap,fcntl"
)
FAULTS = ("signal=KILL", "error=EIO", "error=ENOSPC", "error=EDQUOT", "error=EINTR")


def campaign(*, every: int = 1) -> dict[str, object]:
    """Two saves, of a new checkpoint and of one that replaces its namesake; each of their calls, with each fault.

    every: take only each so manieth point. Returns how many points were tried and hit, and where none of the
    checkpoints loaded that had been announced before, or a save said that it was done and was not.
    """
    if shutil.which("strace") is None:
        return {"skipped": "strace is not installed"}
    corrupt: list[str] = []
    points = hit = 0
    outcomes: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="textclf-faults-") as scratch:
        place = Path(scratch) / "checkpoints"
        for step in (2, 1):  # 1 is there already: it is replaced
            _begin(place)
            trace = _traced(place, step, ["-e", f"trace={CALLS}"])
            if trace is None:
                return {"skipped": "processes may not be traced here"}
            numbers = _calls_of_save(trace)
            for name, nth in numbers:
                for fault in FAULTS:
                    points += 1
                    if points % every:
                        continue
                    _begin(place)
                    injected = _traced(place, step, ["-e", f"inject={name}:{fault}:when={nth}"])
                    assert injected is not None
                    hit += "INJECTED" in injected.stderr or injected.returncode == -9 or "killed" in injected.stderr
                    wrong = _judge(place, step, announced="announced" in injected.stdout)
                    outcomes["announced" if "announced" in injected.stdout else "refused or killed"] += 1
                    if wrong:
                        corrupt.append(f"step {step}, {name} number {nth}, {fault}: {wrong}")
    return {"points": sum(outcomes.values()), "hit": hit, "ended": dict(outcomes), "corrupt": corrupt}


def _begin(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    saver.save(place, 1)


def _judge(place: Path, step: int, *, announced: bool) -> str | None:
    """What is wrong: neither the old nor the new checkpoint is whole, or the one that was announced is not."""
    whole = [path.name for path in place.glob("step-*") if atomic.verify(path) is None]
    if announced:
        return None if f"step-{step}" in whole else "announced, and not whole"
    return None if "step-1" in whole else "the last checkpoint is gone"


def _traced(place: Path, step: int, options: list[str]) -> subprocess.CompletedProcess[str] | None:
    command = ["strace", "-f", "-qq", *options, sys.executable, "-m", "reliability.saver", str(place), str(step)]
    tests = Path(__file__).parents[1]
    path = os.pathsep.join([str(tests), os.environ.get("PYTHONPATH", "")])
    settings = {"PYTHONPATH": path, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **settings}, timeout=60)
    return None if "ptrace" in done.stderr and "not permitted" in done.stderr else done


def _calls_of_save(trace: subprocess.CompletedProcess[str]) -> list[tuple[str, int]]:
    """Name and number, among its namesakes since the process began, of every call between the two marks."""
    assert trace.returncode == 0, trace.stderr[-2000:]
    seen: collections.Counter[str] = collections.Counter()
    found, inside = [], False
    for line in trace.stderr.splitlines():
        call = re.match(r"(?:\[pid +\d+\] )?(\w+)\(", line)
        if call is None:
            continue
        seen[call[1]] += 1
        if saver.END in line:
            break
        if inside:
            found.append((call[1], seen[call[1]]))
        inside = inside or saver.BEGIN in line
    return found
