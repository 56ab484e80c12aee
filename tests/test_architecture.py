"""The floors of the house: who may import whom, and what stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "textclf"

FLOORS: list[set[str]] = [
    {"errors", "paths", "atomic", "cpus", "signals", "characters", "redaction"},
    {
        "labels",
        "config",
        "metrics",
        "answers",
        "intervals",
        "abstention",
        "scope",
        "proportions",
        "presets",
        "plugins",
        "pretrained",
    },
    {"data", "artifact"},
    {"model"},
    {"training", "inference"},
    {"evaluation"},
    {"cli"},
]
"""From the ground up. A room imports from floors below its own, and from its siblings on the two lowest only."""


def _room(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


def _files() -> list[Path]:
    return [path for path in sorted(SOURCE.rglob("*.py")) if _room(path) not in ("__init__", "__main__")]


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
            if node.module == "textclf":
                names = [f"textclf.{alias.name}" for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("textclf.")}
    return found - {"__version__"}


def _floor(room: str) -> int:
    return next(number for number, rooms in enumerate(FLOORS) if room in rooms)


@pytest.mark.parametrize("path", _files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_go_down(path: Path) -> None:
    room = _room(path)
    for imported in _imports(path) - {room}:
        below = _floor(imported) < _floor(room)
        beside = _floor(imported) == _floor(room) <= 1
        assert below or beside, f"{path.relative_to(SOURCE)} imports {imported}"


def test_every_room_stands_on_a_floor() -> None:
    assert {_room(path) for path in _files()} == set().union(*FLOORS)


def test_help_imports_neither_torch_nor_transformers() -> None:
    heavy = "torch transformers datasets sklearn pandas pyarrow numpy onnx onnxruntime huggingface_hub tokenizers"
    heavy += " safetensors yaml"
    heavy += " textclf.atomic textclf.paths"  # with hashlib and tempfile: milliseconds
    for arguments in (["--help"], ["finetune", "--help"], ["predict", "--no-such-option"], ["finetune"]):
        program = (
            "import sys\n"
            f"sys.argv = ['textclf', *{arguments!r}]\n"
            "from textclf.cli.app import main\n"
            "try:\n    main()\n"
            f"finally:\n    print('loaded:', sorted(set({heavy.split()!r}) & set(sys.modules)), file=sys.stderr)\n"
        )
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
        assert done.stderr.rstrip().endswith("loaded: []"), (arguments, done.stderr[-500:])


def test_only_the_command_line_prints_or_exits() -> None:
    for path in _files():
        if _room(path) == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("print", "exit"), path
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not any(name.split(".")[0] in ("rich", "typer") for name in names), path


def test_nothing_loads_pickles_or_runs_text() -> None:
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                assert not {"pickle", "joblib", "dill", "shelve", "marshal"} & {name.split(".")[0] for name in names}, (
                    path
                )
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                assert called not in ("eval", "exec", "torch.load", "yaml.load", "os.system"), (path, called)
                shell = [keyword for keyword in node.keywords if keyword.arg == "shell"]
                assert not shell, path


def test_only_the_model_folder_room_knows_its_file_names() -> None:
    for path in _files():
        if path.name in ("folder.py", "hub.py"):
            continue
        strings = {
            node.value
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.Constant)
        }
        assert not {"model.safetensors", "textclf.json"} & strings, path


def test_import_has_no_effect() -> None:
    heavy = ("torch", "numpy", "rich", "typer")
    program = f"import sys, textclf; print(sorted(m for m in sys.modules if m.split('.')[0] in {heavy}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_floors_of_packages_exclude_known_holes() -> None:
    """The oldest versions that pyproject.toml allows are beyond those whose holes would reach us."""
    floors = {"transformers": (5, 10), "torch": (2, 10), "onnx": (1, 21), "pyarrow": (14, 0), "accelerate": (1, 15)}
    text = (SOURCE.parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    allowed = {
        name: tuple(map(int, version.split(".")[:2])) for name, version in re.findall(r'"([\w-]+)>=([\d.]+)', text)
    }
    assert {name: allowed[name] for name in floors if allowed[name] < floors[name]} == {}
