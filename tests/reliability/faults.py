"""Let each system call of a save fail, or the process die at it, by strace's fault injection."""

from __future__ import annotations

import collections
import re
import shutil
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
ENDS = {saver.DONE: "announced", saver.REFUSED: "refused", -9: "killed"}


def campaign(*, every: int = 1) -> dict[str, object]:
    """Two saves, of a new checkpoint and of one that replaces its namesake; each of their calls, with each fault.

    every: take only each so manieth point. Returns how many points were tried and hit, how the saves ended, and what
    is wrong: none of the checkpoints loaded that had been announced before, a save said that it was done and was not,
    or ended otherwise than announced, refused or killed.
    """
    if shutil.which("strace") is None:
        return {"skipped": "strace is not installed"}
    wrong: list[str] = []
    missed: list[str] = []
    number = 0
    ends: collections.Counter[str] = collections.Counter()
    with tempfile.TemporaryDirectory(prefix="textclf-faults-") as scratch:
        place = Path(scratch) / "checkpoints"
        for step in (2, 1):  # 1 is there already: it is replaced
            for _ in range(2):  # the first warms what the process allocates
                _begin(place)
                code, trace = saver.save_watched(place, step, ["-e", f"trace={CALLS}"])
                if code is None:
                    return {"skipped": "processes may not be traced here"}
                assert code == saver.DONE, trace
            for name, nth in _calls_of_save(trace):
                for fault in FAULTS:
                    number += 1
                    if number % every:
                        continue
                    _begin(place)
                    code, seen = saver.save_watched(place, step, ["-e", f"inject={name}:{fault}:when={nth}"])
                    point = f"step {step}, {name} number {nth}, {fault}"
                    if "INJECTED" not in seen and code != -9:
                        missed.append(point)
                    end = ENDS.get(code or 0, f"exit {code}")
                    ends[end] += 1
                    problem = _judge(place, step, announced=code == saver.DONE)
                    if problem or end not in ENDS.values():
                        wrong.append(f"{point}: {problem or end}")
                    if sum(ends.values()) % 100 == 0:
                        print(f"{sum(ends.values())} points, {len(wrong)} wrong", file=sys.stderr, flush=True)
    return {"points": sum(ends.values()), "missed": missed, "ended": dict(ends), "wrong": wrong}


def _begin(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    saver.save(place, 1)


def _judge(place: Path, step: int, *, announced: bool) -> str | None:
    """What is wrong: neither the old nor the new checkpoint is whole, or the one that was announced is not."""
    whole = [path.name for path in place.glob("step-*") if atomic.verify(path) is None]
    if announced:
        return None if f"step-{step}" in whole else "announced, and not whole"
    return None if "step-1" in whole else "the last checkpoint is gone"


def _calls_of_save(trace: str) -> list[tuple[str, int]]:
    """Name and number, among its namesakes since the watch began, of every call between the two marks."""
    seen: collections.Counter[str] = collections.Counter()
    found, inside = [], False
    for line in trace.splitlines():
        call = re.match(r"(\w+)\(", line)
        if call is None:
            continue
        seen[call[1]] += 1
        if saver.END in line:
            break
        if inside:
            found.append((call[1], seen[call[1]]))
        inside = inside or saver.BEGIN in line
    return found
