"""Durable writes: a reader sees the old content or the new one, whole, whatever happens in between."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from textclf.errors import BusyError, ResourceError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

MANIFEST = "MANIFEST.json"


def write_text(path: Path, text: str) -> None:
    """Write `text` (UTF-8) under its final name in one step. Raises ResourceError (disk full, no permission)."""
    with new_file(path) as file:
        file.write(text.encode("utf-8"))


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Fill the yielded temporary file; at the end of the block it becomes `path`, replacing what was there.

    If the block fails, `path` is as it was. A named pipe or a device is written to instead, as it comes. Raises
    ResourceError (disk full, no permission).
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        with translated(path), path.open("wb") as stream:
            yield stream
        return
    path = path.resolve()  # a link goes on pointing where it did
    with translated(path):
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


class Growing:
    """A file on its way: see `growing_file`. state: of its last mark, {} at its beginning."""

    def __init__(self, file: BinaryIO, notes: Path, of: Any, state: dict[str, Any]) -> None:
        self.state = state
        self.write = file.write
        self._file, self._notes, self._of = file, notes, of
        self._size = file.tell()

    def mark(self, **state: Any) -> None:
        """What was written up to here is a whole, and who writes it is in this state."""
        self._size, self.state = self._file.tell(), state

    def sync(self) -> None:
        """From now on what was written up to the last mark, and the state then, outlasts the process."""
        self._file.flush()
        os.fsync(self._file.fileno())
        write_json(self._notes, {"of": self._of, "size": self._size, "state": self.state})


@contextmanager
def growing_file(path: Path, *, of: Any) -> Iterator[Growing]:
    """As `new_file`, where filling takes long: what was synced outlasts a killed process or an interrupted block.

    The next block for this path goes on behind it, if it is `of` the same, any JSON value; else it begins anew. If the
    block fails, nothing stays. Raises ResourceError, and BusyError while another process fills the same file.
    """
    path = path.resolve()
    draft = path.with_name(f".{path.name[:200]}.partial")
    notes = draft.with_name(f"{draft.name}.json")
    with translated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _only_one(draft) as file:
            size, state = _noted(notes, of, at_most=file.seek(0, os.SEEK_END))
            file.truncate(size)
            file.seek(size)
            try:
                yield Growing(file, notes, of, state)
                file.flush()
                os.fsync(file.fileno())
                draft.chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())
                draft.replace(path)
                notes.unlink(missing_ok=True)
                _fsync_dir(path.parent)
            except Exception:
                for left in (draft, notes):
                    left.unlink(missing_ok=True)
                raise


@contextmanager
def _only_one(path: Path) -> Iterator[BinaryIO]:
    """The file open for reading and writing, made where it is not there, and for no other process."""
    while True:
        handle = os.open(
            path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0), 0o600
        )
        with os.fdopen(handle, "r+b") as file:
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError as err:
                    raise BusyError(
                        f"{path} is being written by another process", hint="wait for it, or name another file"
                    ) from err
                except OSError:  # a disk without locks
                    pass
            try:
                is_this = path.stat().st_ino == os.fstat(file.fileno()).st_ino
            except FileNotFoundError:
                is_this = False
            if is_this:  # else another process finished it between our opening and our locking
                yield file
                return


def _noted(notes: Path, of: Any, *, at_most: int) -> tuple[int, dict[str, Any]]:
    try:
        document = json.loads(notes.read_text(encoding="utf-8"))
        if document["of"] == json.loads(json.dumps(of)) and 0 <= document["size"] <= at_most:
            return document["size"], dict(document["state"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return 0, {}


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
    with translated(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent))
        try:
            draft.chmod(0o777 & ~_umask())  # mkdtemp gives 0700; the folder is no secret
            yield draft
            for file in sorted(draft.rglob("*")):
                if file.is_file():
                    file.chmod(0o666 & ~_umask())  # safetensors writes 0600
                    _fsync_file(file)
                else:
                    _fsync_dir(file)
            if manifest:
                write_json(draft / MANIFEST, {"files": digests(draft)})
            _fsync_dir(draft)
            _put_in_place(draft, path)
            _fsync_dir(path.parent)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise


def verify(folder: Path) -> str | None:
    """What is wrong with a folder that was written with a manifest, in words; None when every file is as written."""
    if not (folder / MANIFEST).exists():
        return f"{MANIFEST} is missing"
    try:
        files = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["files"]
        for name, facts in files.items():
            path = folder / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != facts["size"] or sha256(path) != facts["sha256"]:
                return f"{name} is not as it was written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{MANIFEST} cannot be read"
    return None


def sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(folder: Path) -> dict[str, dict[str, Any]]:
    """`{"size": bytes, "sha256": hex}` of every file below a folder but its manifest, by relative name."""
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.name != MANIFEST)
    return {f.relative_to(folder).as_posix(): {"size": f.stat().st_size, "sha256": sha256(f)} for f in files}


def _put_in_place(draft: Path, path: Path) -> None:
    """Give a folder its name; what had the name is deleted. Others may be doing the same at this moment."""
    taken = (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR)
    for _ in range(100):
        try:
            draft.rename(path)
            return
        except OSError as err:
            if err.errno not in taken:
                raise
        if _exchange(draft, path):
            shutil.rmtree(draft, ignore_errors=True)
            return
        # Without an exchange, two renames: between them `path` is missing, never half written.
        retired = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
        try:
            with suppress(FileNotFoundError):  # another process was faster
                path.rename(retired / path.name)
            draft.rename(path)
            return
        except OSError as err:
            if err.errno not in taken:
                raise
        finally:
            if not path.exists():
                with suppress(OSError):
                    (retired / path.name).rename(path)
            shutil.rmtree(retired, ignore_errors=True)
    raise OSError(errno.EBUSY, "other processes keep replacing it")


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders trade names in one step; False where the system or its disk cannot."""
    import ctypes

    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):  # not Linux
        return False
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE: linux/fcntl.h, linux/fs.h
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), swap) == 0)


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
def translated(path: Path) -> Iterator[None]:
    """Errors in writing `path`, of the system or of a library, as ResourceError."""
    try:
        yield
    except (ResourceError, BrokenPipeError):
        raise
    except OSError as err:
        raise _unwritable(path, err.errno, err.strerror) from err
    except Exception as err:
        # Rust libraries (safetensors) word the operating system's error in an exception of their own.
        worded = re.search(r"\(os error (\d+)\)", str(err))
        if worded is None:
            raise
        raise _unwritable(path, int(worded[1]), os.strerror(int(worded[1]))) from err


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _unwritable(path: Path, number: int | None, reason: str | None) -> ResourceError:
    if number in _FULL:
        return ResourceError(
            f"{path}: the disk is full (or its quota, or its inodes); nothing was left half-written",
            hint="free some space, or choose another disk with --out or TEXTCLF_HOME",
        )
    return ResourceError(
        f"{path} cannot be written: {reason}", hint="choose a folder you may write to with --out or TEXTCLF_HOME"
    )
