"""Durable writes: the old content or the new, whole."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from safetensors import SafetensorError

from textclf import atomic, paths
from textclf.errors import ResourceError


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_failing_block_leaves_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with atomic.new_folder(target) as draft:
        (draft / "one").write_text("old")
    with pytest.raises(RuntimeError), atomic.new_folder(target) as draft:
        (draft / "one").write_text("new")
        raise RuntimeError
    assert (target / "one").read_text() == "old" and _names(tmp_path) == {"model"}


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for name in ("one", "two"):
        with atomic.new_folder(target) as draft:
            (draft / name).write_text(name)
    assert _names(target) == {"two"} and _names(tmp_path) == {"model"}


def test_files_can_be_read_by_others_as_the_umask_says(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with atomic.new_folder(tmp_path / "model") as draft:
            (draft / "secretive").touch(mode=0o600)
        atomic.write_text(tmp_path / "file", "x")
    finally:
        os.umask(before)
    for path in (tmp_path / "model/secretive", tmp_path / "file"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert stat.S_IMODE((tmp_path / "model").stat().st_mode) == 0o755


@pytest.mark.parametrize("damage", ["flip", "cut", "lose", "lose manifest", "break manifest"])
def test_verify_finds_every_damage(tmp_path: Path, damage: str) -> None:
    with atomic.new_folder(tmp_path / "step-1", manifest=True) as draft:
        (draft / "weights").write_bytes(bytes(range(256)))
        (draft / "deep").mkdir()
        (draft / "deep/state").write_text("{}")
    folder = tmp_path / "step-1"
    assert atomic.verify(folder) is None
    weights = folder / "weights"
    if damage == "flip":
        weights.write_bytes(bytes([1, *range(1, 256)]))
    elif damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-1])
    elif damage == "lose":
        (folder / "deep/state").unlink()
    elif damage == "lose manifest":
        (folder / atomic.MANIFEST).unlink()
    else:
        (folder / atomic.MANIFEST).write_text("[")
    assert atomic.verify(folder)


def test_what_cannot_be_written_is_a_resource_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="cannot be written"):
        atomic.write_text(tmp_path / "file" / "below", "x")


@given(st.text())
@example(".x")
@example("../a/..")
@example("A" * 300)
def test_a_slug_is_one_harmless_file_name(text: str) -> None:
    name = paths.slug(text)
    assert name and len(name) <= paths.SLUG_LENGTH
    assert not name.startswith((".", "-")) and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789._-")
    assert paths.slug(name) == name


@given(st.text(), st.text())
@example("A", "a")
def test_unlike_texts_have_unlike_slugs(one: str, other: str) -> None:
    if one != other:
        assert paths.slug(one) != paths.slug(other)


@pytest.fixture
def deeds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the disk is asked to do, in order."""
    told: list[str] = []
    fsync, replace, rename = os.fsync, Path.replace, Path.rename

    def flushed(handle: int) -> None:
        found = os.fstat(handle)
        size = f"{found.st_size} bytes of " if stat.S_ISREG(found.st_mode) else ""
        told.append(f"flush {size}{Path(f'/proc/self/fd/{handle}').readlink().name}")
        fsync(handle)

    def moved(move: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def told_of(path: Path, target: Path) -> Path:
            told.append(f"name {Path(target).name}")
            return move(path, target)

        return told_of

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Path, "replace", moved(replace))
    monkeypatch.setattr(Path, "rename", moved(rename))
    return told


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are looked up in /proc")
def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, deeds: list[str]) -> None:
    with atomic.new_file(tmp_path / "file") as file:
        file.write(b"x" * 10)
    assert deeds[0].startswith("flush 10 bytes of .file."), "what Python still held is written first"
    assert deeds[1:] == ["name file", f"flush {tmp_path.name}"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="open files are looked up in /proc")
def test_a_folder_is_on_the_disk_before_it_has_its_name(tmp_path: Path, deeds: list[str]) -> None:
    for _ in range(2):
        deeds.clear()
        with atomic.new_folder(tmp_path / "folder") as draft:
            (draft / "deep").mkdir()
            (draft / "deep/file").write_text("x")
    draft_name = deeds[2].removeprefix("flush ")
    assert deeds[:2] == ["flush deep", "flush 1 bytes of file"] and draft_name.startswith(".folder.")
    # The name is taken; the two folders trade names in one call of the system, and the old one is deleted.
    assert deeds[3:] == ["name folder", f"flush {tmp_path.name}"]


def test_where_folders_cannot_trade_names_the_old_one_makes_way(
    tmp_path: Path, deeds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic, "_exchange", lambda one, other: False)
    for name in ("one", "two"):
        deeds.clear()
        with atomic.new_folder(tmp_path / "folder") as draft:
            (draft / name).write_text("x")
    assert _names(tmp_path / "folder") == {"two"} and _names(tmp_path) == {"folder"}
    assert deeds[2:] == ["name folder"] * 3 + [f"flush {tmp_path.name}"]


def test_a_link_goes_on_pointing_where_it_did(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/file").write_text("old")
    (tmp_path / "link").symlink_to("deep/file")
    atomic.write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "deep/file").read_text() == "new"


def test_any_text_comes_back_from_json(tmp_path: Path) -> None:
    document = {"lone": "\ud800 \udcff", "pair": "🙂", "key \udfff": [1]}
    atomic.write_json(tmp_path / "file", document)
    assert json.loads((tmp_path / "file").read_text(encoding="utf-8")) == document


def test_no_number_that_json_has_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        atomic.write_json(tmp_path / "file", {"loss": float("nan")})
    assert _names(tmp_path) == set()


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("make", [atomic.new_file, atomic.new_folder])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, make: Callable[..., Any], number: int) -> None:
    (tmp_path / "old").write_text("old")
    with pytest.raises(ResourceError, match="the disk is full") as caught, make(tmp_path / "new"):
        raise OSError(number, os.strerror(number))
    assert caught.value.exit_code == 6 and _names(tmp_path) == {"old"}


@pytest.mark.parametrize("number", [errno.EIO, errno.EINTR, errno.ENOSPC])
def test_an_error_that_safetensors_words_is_one_of_the_disk(tmp_path: Path, number: int) -> None:
    worded = SafetensorError(f"Error while serializing: I/O error: {os.strerror(number)} (os error {number})")
    reason = "the disk is full" if number == errno.ENOSPC else os.strerror(number)
    with pytest.raises(ResourceError, match=reason) as caught, atomic.new_folder(tmp_path / "new"):
        raise worded
    assert caught.value.exit_code == 6 and _names(tmp_path) == set()
    with pytest.raises(SafetensorError, match="header"), atomic.new_folder(tmp_path / "new"):
        raise SafetensorError("invalid header")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_named_pipe_is_written_to_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        atomic.write_text(pipe, "all of it")
        assert os.read(reader, 100) == b"all of it" and pipe.is_fifo() and _names(tmp_path) == {"pipe"}
    finally:
        os.close(reader)
