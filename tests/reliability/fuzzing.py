"""Bytes that a fuzzer makes, guided by what they reach in our code: a reader answers with TextclfError or not at all.

    python -m tests.reliability.fuzzing TARGET [--seconds N] [--corpus FOLDER]

Needs atheris, which is no dependency of the tests. Stops at the first find, and leaves the bytes in a file; they
belong in tests/bad_inputs.py.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import atheris  # type: ignore[import-not-found]

with atheris.instrument_imports(include=["textclf"]):
    from textclf import config, presets
    from textclf.artifact import folder as names
    from textclf.artifact import graph, runs, screening
    from textclf.cli import terminal
    from textclf.data.sources import open_source
    from textclf.errors import TextclfError
    from textclf.labels import LabelSet

PLACE = Path(tempfile.mkdtemp())


def data(kind: str) -> Callable[[bytes], None]:
    """A data file of a kind."""

    def target(content: bytes) -> None:
        path = PLACE / f"t.{kind}"
        path.write_bytes(content)
        for parts in open_source(str(path)).records().values():
            for part in parts:
                for name in part.names:
                    part.column(name)

    return target


def config_file(kind: str) -> Callable[[bytes], None]:
    """A user's config."""

    def target(content: bytes) -> None:
        path = PLACE / f"c.{kind}"
        path.write_bytes(content)
        config.build(presets.read_config_file(path))

    return target


def model_folder(content: bytes) -> None:
    """The JSON files of a model folder, before transformers sees them."""
    for name in (names.CONFIG, names.TOKENIZER_CONFIG, names.WEIGHTS_INDEX, names.TEXTCLF):
        (PLACE / name).write_bytes(content)
    (PLACE / "onnx").mkdir(exist_ok=True)
    (PLACE / names.GRAPH_FACTS).write_bytes(content)
    (PLACE / runs.STATE).write_bytes(content)
    graph.read_facts(PLACE)
    if (run := runs.read(PLACE)) is not None:
        json.dumps([run.metrics, run.name])
    for check in (screening.check_config, screening.check_tokenizer_config, screening.check_weights):
        with contextlib.suppress(TextclfError):
            check(PLACE)
    document = names.read_json(PLACE / names.TEXTCLF)
    with contextlib.suppress(TextclfError):
        LabelSet.from_config(document, where="x")
    names.facts_of(document, where="x")


def sanitiser(content: bytes) -> None:
    """Foreign text on its way to a terminal."""
    text = content.decode("utf-8", "surrogateescape")
    for shown in (terminal.safe(text), terminal.field(text), terminal.json_line(text)):
        if any(char < " " or "\x7f" <= char <= "\x9f" or char in "\u202e\u2066\u2028" for char in shown):
            raise RuntimeError(ascii(shown))
    if json.loads(terminal.json_line(text)) != json.loads(json.dumps(text)):
        raise RuntimeError(ascii(text))


TARGETS: dict[str, Callable[[bytes], None]] = {
    **{kind: data(kind) for kind in ("csv", "tsv", "json", "jsonl", "parquet", "arrow")},
    **{f"config.{kind}": config_file(kind) for kind in ("yaml", "json")},
    "model": model_folder,
    "terminal": sanitiser,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Fuzz one target for so many seconds."""
    parser = argparse.ArgumentParser(prog="python -m tests.reliability.fuzzing")
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--corpus", default="", help="a folder of inputs to begin with, which grows")
    asked = parser.parse_args(arguments)
    target = TARGETS[asked.target]

    def one(content: bytes) -> None:
        with contextlib.suppress(TextclfError):
            target(content)

    limits = [
        f"-max_total_time={asked.seconds}",
        "-timeout=10",
        "-rss_limit_mb=4000",
        f"-artifact_prefix={asked.target}-",
    ]
    atheris.Setup([sys.argv[0], *limits, *filter(None, [asked.corpus])], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
