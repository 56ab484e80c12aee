"""Durable writes: a reader sees the old content or the new one, whole, whatever happens in between."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from textclf.errors import ResourceError

MANIFEST = "MANIFEST.json"


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) under its final name in one step. Raises ResourceError (disk full, no permission)."""
    with new_file(path) as file:
        file.write(text.encode("utf-8"))


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Fill the yielded temporary file; at the end of the block it becomes `path`, replacing what was there.

    If the block fails, `path` is as it was. Raises ResourceError (disk full, no permission).
    """
    path = path.resolve()  # a link goes on pointing where it did
    with _translated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name[:200]}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            # mkstemp gives 0600; the file is no more secret than the one it replaces.
            Path(name).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
            Path(name).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
        _fsync_dir(path.parent)


def write_json(path: Path, document: Any) -> None:
    """Write a JSON document, indented, under its final name in one step."""
    text = json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n"
    with new_file(path) as file:
        # A lone surrogate, as of an argument that is not UTF-8, becomes JSON's own escape of it.
        file.write(text.encode("utf-8", "backslashreplace"))


@contextmanager
def new_folder(path: Path, *, manifest: bool = False) -> Iterator[Path]:
    """Fill the yielded temporary folder; at the end of the block it becomes `path`, replacing what was there.

    If the block fails, `path` is as it was. With `manifest`, sizes and SHA-256 of all files are
    written last, for `verify` to check. Raises ResourceError (disk full, no permission).
    """
    with _translated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        try:
            draft.chmod(0o777 & ~_umask())  # mkdtemp gives 0700; the folder is no secret
            yield draft
            if manifest:
                write_json(draft / MANIFEST, {"files": _digests(draft)})
            for file in sorted(draft.rglob("*")):
                if file.is_file():
                    file.chmod(0o666 & ~_umask())  # safetensors writes 0600
                    _fsync_file(file)
                else:
                    _fsync_dir(file)
            _fsync_dir(draft)
            if path.exists():
                # Two renames: between them `path` is missing, never half written.
                retired = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
                path.rename(retired / path.name)
                draft.rename(path)
                shutil.rmtree(retired, ignore_errors=True)
            else:
                draft.rename(path)
            _fsync_dir(path.parent)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise


def verify(folder: Path) -> str | None:
    """What is wrong with a folder that was written with a manifest, in words; None when every file is as written."""
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return f"{MANIFEST} is missing"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{MANIFEST} cannot be read"
    found = _digests(folder)
    for name, facts in files.items():
        if name not in found:
            return f"{name} is missing"
        if found[name] != facts:
            return f"{name} is not as it was written"
    return None


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digests(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.name != MANIFEST)
    return {f.relative_to(folder).as_posix(): {"size": f.stat().st_size, "sha256": sha256(f)} for f in files}


def _fsync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _fsync_dir(path: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder for fsync
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


@contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except (ResourceError, BrokenPipeError):
        raise
    except OSError as err:
        if err.errno in _FULL:
            raise _full(path) from err
        raise ResourceError(
            f"{path} cannot be written: {err.strerror}",
            hint="choose a folder you may write to with --out or TEXTCLF_HOME",
        ) from err
    except Exception as err:
        # Rust libraries (safetensors) word the operating system's error in an exception of their own.
        if any(f"(os error {number})" in str(err) for number in _FULL):
            raise _full(path) from err
        raise


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _full(path: Path) -> ResourceError:
    return ResourceError(
        f"{path}: the disk is full; nothing was left half-written",
        hint="free some space, or choose another disk with --out or TEXTCLF_HOME",
    )
