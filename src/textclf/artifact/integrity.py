"""Whether a model folder is as it was written: sizes and SHA-256 in its manifest, looked at whenever it is opened.

To read 90 MB anew at every start would cost a third of it. A file whose content was found right once is not read again
while its size, its times and its place on the disk stay: whatever writes to a file changes the time of its inode.
Damage below the file system, which changes no time, shows when the cache is deleted or the folder copied.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import time
from contextlib import suppress
from pathlib import Path

from textclf import atomic, paths
from textclf.artifact import folder as names
from textclf.errors import ModelError, ResourceError

SEALED = tuple(name for name in names.LOADED if not name.startswith("onnx/"))
"""Patterns of files in the manifest, beside the weights. Graphs have their SHA-256 in onnx/graph.json, because they are
written later; the card and its plots are the user's to edit."""
_SETTLED_SECONDS = 2.0
"""A file younger than this may be written to again without its time changing, where the clock of the disk is coarse."""


def seal(folder: Path) -> None:
    """Write the manifest of a model folder."""
    patterns = (*SEALED, names.WEIGHTS, names.WEIGHTS_INDEX, names.WEIGHT_SHARDS)
    files = {
        name: facts
        for name, facts in atomic.digests(folder).items()
        if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    }
    atomic.write_json(folder / atomic.MANIFEST, {"files": files})


def check(folder: Path) -> None:
    """Raises ModelError naming what is not as the manifest says. A folder without one is taken as it is."""
    if not (folder / atomic.MANIFEST).exists():
        return
    hint = "copy the model folder again or fine-tune again; if the change is yours, delete its MANIFEST.json"
    try:
        files = json.loads((folder / atomic.MANIFEST).read_text(encoding="utf-8"))["files"]
        wanted = {str(name): (int(facts["size"]), str(facts["sha256"])) for name, facts in files.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as err:
        raise ModelError(f"{folder}: its {atomic.MANIFEST} cannot be read", hint=hint) from err
    for name in wanted:
        if not (folder / name).is_file():
            raise ModelError(f"{folder}: {name} is missing", hint=hint)
    found = digests(folder, tuple(wanted))
    for name, (size, digest) in wanted.items():
        if (folder / name).stat().st_size != size or found[name] != digest:
            raise ModelError(f"{folder}: {name} is not as it was written", hint=hint)


def digests(folder: Path, files: tuple[str, ...]) -> dict[str, str]:
    """SHA-256 of files in a folder by name, computed anew only for those that have changed since it was last asked."""
    home = hashlib.sha256(str(folder.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:24]
    memory = paths.cache_dir() / "digests" / f"{home}.json"
    try:
        known = dict(json.loads(memory.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        known = {}
    found, stays = {}, {}
    for name in files:
        facts = (folder / name).stat()
        stamp = [facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns]
        before = known.get(name)
        if isinstance(before, list) and before[:-1] == stamp:
            found[name] = str(before[-1])
        else:
            found[name] = atomic.sha256(folder / name)
        if time.time() - max(facts.st_mtime, facts.st_ctime) > _SETTLED_SECONDS:
            stays[name] = [*stamp, found[name]]
    if any(known.get(name) != line for name, line in stays.items()):
        with suppress(ResourceError):  # a home that may not be written to
            atomic.write_json(memory, {**known, **stays})
    return found
