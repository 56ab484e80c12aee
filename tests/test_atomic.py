"""Durable writes: the old content or the new, whole."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

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
