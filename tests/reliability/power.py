"""Cut the power after every fsync of a few saves, and look at what the disk would hold.

A shim around os.fsync notes what each file and folder held when it was last synced. Two disks are rebuilt from that
after each sync: the one that forgets all that was not synced, and the one that keeps names but forgets contents.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from textclf import atomic

from . import saver

Content = bytes | dict[str, int]


def campaign() -> dict[str, object]:
    """Saves of steps 1, 2, 2 again and 3. Returns the points tried, and where an announced checkpoint was lost."""
    lost: list[str] = []
    points = 0
    with ExitStack() as held, tempfile.TemporaryDirectory(prefix="textclf-power-") as scratch:
        place = Path(scratch) / "checkpoints"
        place.mkdir()
        synced: dict[int, Content] = {place.stat().st_ino: {}}
        announced: list[int] = []
        fsync = os.fsync

        def judge(when: str) -> None:
            nonlocal points
            for kind, names in (("unsynced lost", synced), ("names kept", {**synced, **_folders(place)})):
                points += 1
                disk = Path(scratch) / "after"
                _rebuild(disk, place.stat().st_ino, {**_nothing(place), **synced, **names})
                if announced and atomic.verify(disk / f"step-{announced[-1]}") is not None:
                    # A save of the same step that is under way may have come through whole, nothing else.
                    lost.append(f"{when}, {kind}: step-{announced[-1]}")
                shutil.rmtree(disk)

        def noting(handle: int) -> None:
            fsync(handle)
            path = Path(f"/proc/self/fd/{handle}").readlink()
            # Held open, so that no inode that is noted is given to another file once its own is removed.
            for noted in [path, *path.iterdir()] if path.is_dir() else [path]:
                held.callback(os.close, os.open(noted, os.O_RDONLY))
            synced[os.fstat(handle).st_ino] = _listing(path) if path.is_dir() else path.read_bytes()
            judge(f"after the sync of {path.name}")

        os.fsync = noting
        try:
            for step in (1, 2, 2, 3):
                saver.save(place, step)
                announced.append(step)
                judge(f"after the save of step {step}")
        finally:
            os.fsync = fsync
    return {"points": points, "wrong": lost}


def _listing(folder: Path) -> dict[str, int]:
    return {child.name: child.stat().st_ino for child in folder.iterdir()}


def _folders(place: Path) -> dict[int, Content]:
    return {folder.stat().st_ino: _listing(folder) for folder in [place, *place.rglob("*")] if folder.is_dir()}


def _nothing(place: Path) -> dict[int, Any]:
    """What never was synced: an empty file, an empty folder."""
    return {path.stat().st_ino: {} if path.is_dir() else b"" for path in [place, *place.rglob("*")]}


def _rebuild(path: Path, inode: int, contents: dict[int, Any]) -> None:
    content = contents.get(inode, b"")
    if isinstance(content, bytes):
        path.write_bytes(content)
        return
    path.mkdir()
    for name, child in content.items():
        _rebuild(path / name, child, contents)
