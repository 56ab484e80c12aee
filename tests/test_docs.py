"""What README.md and docs/ say is so: links lead somewhere, commands exist, the README's examples run."""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.main
import yaml
from typer.testing import CliRunner

from textclf import config
from textclf.cli.app import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RUN_HERE = "<!-- run by tests/test_docs.py -->\n"

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_reference", ROOT / "docs" / "generate_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_reference_is_what_the_code_says(generator: ModuleType) -> None:
    for name, text in generator.pages().items():
        assert (ROOT / "docs" / "reference" / name).read_text(encoding="utf-8") == text, (
            f"docs/reference/{name} is out of date: python docs/generate_reference.py"
        )


def test_check_names_the_page_that_is_out_of_date(
    generator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(generator, "REFERENCE", tmp_path)
    assert generator.main([]) == 0
    assert generator.main(["--check"]) == 0
    (tmp_path / "config.md").write_text("old")
    capsys.readouterr()
    assert generator.main(["--check"]) == 1
    assert capsys.readouterr().out == "config.md is out of date\n"


def test_every_knob_and_command_has_its_place_in_the_reference(generator: ModuleType) -> None:
    pages = generator.pages()
    for section, values in config.as_dict(config.RunConfig()).items():
        for name in values:
            assert f"`{section}.{name}`" in pages["config.md"]
    for name in ("prepare", "finetune", "eval", "predict", "push", "runs list", "runs show", "runs remove"):
        assert f"# textclf {name}\n" in pages["cli.md"]


@each_page
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith(("http:", "https:")):
            continue
        name, _, anchor = target.partition("#")
        aimed = (page.parent / name).resolve() if name else page
        assert aimed.exists(), f"{target} leads nowhere"
        assert aimed.is_relative_to(ROOT)
        if anchor:
            headings = re.findall(r"^#+ (.*)$", aimed.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings], target


def test_every_page_is_reached_from_the_index() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / name).resolve() for name in re.findall(r"\]\(([^)#]+)", index.read_text())}
    assert set(PAGES) - linked <= {index, ROOT / "CHANGELOG.md"}


@each_page
def test_commands_are_ones_that_textclf_has(page: Path) -> None:
    for line in _shell_lines(page):
        for words in _commands(line):
            _check_command(words, line)


@each_page
def test_yaml_is_configuration_and_python_compiles(page: Path) -> None:
    for language, text in FENCE.findall(page.read_text(encoding="utf-8")):
        if language == "yaml":
            config.build(yaml.safe_load(text))
        if language == "python" and page.name != "library.md":  # there it shows signatures
            compile(text, str(page), "exec")


@each_page
def test_pages_name_no_place_of_the_machine_they_were_written_on(page: Path) -> None:
    for place in ("/home/", "/tmp/", "/root/", "/Users/"):
        assert place not in page.read_text(encoding="utf-8")


def test_the_readme_has_the_command_that_ci_runs() -> None:
    assert "<!-- test command -->\n```sh\npython -m pytest -n 2\n```\n" in (ROOT / "README.md").read_text()


def test_the_readmes_commands_run_in_order(
    tiny_base: Path, tiny_csv: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = "".join(text for language, text in _examples() if language == "sh")
    assert script.startswith("textclf finetune --preset quickstart\n")
    assert len(_commands(script)) >= 7
    # With a tiny model, for time; textclf is the one under test, wherever it is installed.
    script = script.replace("textclf finetune", f"textclf finetune --model {shlex.quote(str(tiny_base))}")
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", f'textclf() {{ "{sys.executable}" -m textclf "$@"; }}\n{script}'],
        cwd=tiny_csv.parent, env={**os.environ, "TEXTCLF_HOME": str(home)}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert len((tiny_csv.parent / "answers.jsonl").read_text().splitlines()) == 120
    runs = [folder.name.rpartition("-")[0] for folder in (home / "runs").iterdir()]
    assert sorted(runs) == ["quickstart-tiny-bert", "tickets-tiny-bert"]


def test_the_readmes_python_runs(tiny_base: Path, tiny_csv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = [text for language, text in _examples() if language == "python"]
    assert 'finetune(dataset="tickets.csv")' in text
    monkeypatch.chdir(tiny_csv.parent)
    names: dict[str, Any] = {}
    exec(text.replace("finetune(", f"finetune({str(tiny_base)!r}, "), names)
    clf, texts = names["clf"], names["texts"]
    assert clf.predict(texts).shape == (len(texts),)
    assert clf.predict_proba(texts).shape == (len(texts), 3)


@pytest.mark.usefixtures("no_graph")
def test_the_example_of_a_head_of_ones_own_runs(
    tiny_base: Path, tiny_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_csv.parent)
    examples = _examples(ROOT / "docs" / "how-to" / "own-head.md")
    (code,) = [text for language, text in examples if language == "python"]
    Path("head.py").write_text(code, encoding="utf-8")
    commands = _commands("".join(text for language, text in examples if language == "sh"))
    assert [words[0] for words in commands] == ["finetune", "predict", "eval"]
    for words in commands:
        words = [str(tiny_base) if word == "PATH" else word for word in words]
        done = CliRunner().invoke(app, words, input="where is my card\n", catch_exceptions=False)
        assert done.exit_code == 0, done.output


def _examples(page: Path = ROOT / "README.md") -> list[tuple[str, str]]:
    """The fenced blocks of a page that are marked as run here: language and text."""
    parts = page.read_text(encoding="utf-8").split(RUN_HERE)[1:]
    matches = [FENCE.match(part) for part in parts]
    return [(match[1], match[2]) for match in matches if match]


def _shell_lines(page: Path) -> list[str]:
    blocks = [text for language, text in FENCE.findall(page.read_text(encoding="utf-8")) if language == "sh"]
    return [line for text in blocks for line in text.replace("\\\n", " ").splitlines()]


def _commands(text: str) -> list[list[str]]:
    """The words behind each `textclf` of a shell script, up to the end of that command."""
    found = []
    for line in text.splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;()<>")
        lexer.whitespace_split = True
        words = list(lexer)
        for start, word in enumerate(words):
            # At the head of a command, that is, not as an argument: pipx install textclf.
            if word == "textclf" and (start == 0 or words[start - 1] in ("|", "&&", ";", "(") or "=" in words[0]):
                end = next((i for i in range(start, len(words)) if words[i][0] in "|&;()<>"), len(words))
                found.append(words[start + 1 : end])
    return found


def _check_command(words: list[str], line: str) -> None:
    command: Any = typer.main.get_command(app)
    parent = None
    while hasattr(command, "commands"):
        parent = command.make_context("textclf", list(words), parent=parent)
        # Parsed, not run: an unknown option, a value of the wrong kind and a missing argument all raise here.
        _, command, words = command.resolve_command(parent, [*parent._protected_args, *parent.args])
    context = command.make_context("textclf", list(words), parent=parent)
    layers = [config.assignment(text) for text in context.params.get("sets") or []]
    assert config.build(*layers), line
