"""No test, and no fixture that several share, touches the user's own folders or the network."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from textclf import paths


@pytest.fixture(scope="module")
def shared() -> dict[str, str]:
    """The environment that fixtures of a file, a class or the session have."""
    return dict(os.environ)


def test_shared_fixtures_have_a_home_of_their_own(
    shared: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert Path(shared["TEXTCLF_HOME"]).is_relative_to(tmp_path_factory.getbasetemp())
    assert shared["HF_HUB_OFFLINE"] == "1" and "HF_TOKEN" not in shared


def test_every_test_has_another_home(shared: dict[str, str], home: Path) -> None:
    assert paths.cache_dir() == home / "cache" and paths.runs_dir() == home / "runs"
    assert str(home) != shared["TEXTCLF_HOME"]


def test_a_command_sees_the_folder_and_the_variables_of_its_test(
    cli: Callable[..., subprocess.CompletedProcess[str]], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "few.csv").write_text("text,label\n" + "".join(f"text {n},{'ab'[n % 2]}\n" for n in range(40)))
    for name in ("one", "two"):
        monkeypatch.setenv("TEXTCLF_HOME", str(tmp_path / name))
        done = cli("prepare", "--dataset", "few.csv", cwd=tmp_path)
        assert (done.returncode, (tmp_path / name / "cache").is_dir()) == (0, True), done.stderr
    failed = cli("prepare", "--dataset", "none.csv", input=b"\xff")
    assert failed.returncode == 3 and failed.stdout == "" and "none.csv" in failed.stderr
