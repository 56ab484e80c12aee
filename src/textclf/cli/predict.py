"""`textclf predict`."""

from __future__ import annotations

import dataclasses
import itertools
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from textclf import __version__
from textclf.cli import answers, terminal
from textclf.cli.command import register
from textclf.cli.options import (
    AbstainBelowOpt,
    DeviceOpt,
    HeadCodeOpt,
    OutOfScopeOpt,
    RuntimeOpt,
    TargetAccuracyOpt,
    TextColumnOpt,
    TextPairColumnOpt,
)
from textclf.errors import UsageError

if TYPE_CHECKING:
    from textclf.atomic import Growing
    from textclf.inference.prediction import Prediction

SYNC_SECONDS = 5.0
"""Between two moments from which on answers in a file outlast the process."""


def predict(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="Run, model folder or Hub id. Default: the latest run.", show_default=False
        ),
    ] = None,
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="FILE", help="Files of texts; - is standard input.", show_default=False),
    ] = None,
    named_model: Annotated[
        str | None,
        typer.Option("--model", "-m", metavar="MODEL", help="MODEL; every argument is a FILE.", show_default=False),
    ] = None,
    text_column: TextColumnOpt = None,
    text_pair_column: TextPairColumnOpt = None,
    format: Annotated[
        str | None,
        typer.Option(metavar="|".join(answers.FORMATS), help="Default: see above.", show_default=False),
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Give the N best labels of each text.", show_default=False)
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, metavar="SCORE", help="Below it a label is not given.", show_default=False),
    ] = None,
    abstain_below: AbstainBelowOpt = None,
    target_accuracy: TargetAccuracyOpt = None,
    out_of_scope: OutOfScopeOpt = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say which words the best label rests on: table, jsonl or json.")
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write a file, whole or not at all; go on with a killed one.",
            show_default=False,
        ),
    ] = None,
    device: DeviceOpt = None,
    runtime: RuntimeOpt = None,
    head: HeadCodeOpt = None,
) -> None:
    r"""Predict the label of every text: one answer per text, in order.

    Texts come from standard input, one per line, an empty line being an
    empty text; or from files: txt (one per line), csv, tsv, jsonl, json,
    parquet, arrow, also with .gz or .zst.

    A model of text pairs reads two texts a line with a tab between them, or
    two columns. A model that answers questions reads lines of JSON,
    {"question": ..., "choices": [...]}, or columns of these names (choices
    also as choice1, choice2, ... or A, B, ...).

    MODEL may be left out. The first argument is a FILE when it is -, is the
    name of an existing file, or ends as data files do (.csv, .txt, ...).

    Formats. Default: by the extension of --output, else a table on a
    terminal and tsv elsewhere.

      tsv    label, score, text; with --top-k label, score, label, score, ...
             and the text last. Tabs, line breaks, backslashes and control
             characters are written \t \n \r \\ \x1b \u2028: always one line
             per text, and nothing is lost.
      csv    the same with a header, for spreadsheets: an apostrophe is put
             before a text or label that begins with = + - or @.
      jsonl  {"text", "label", "score"}, with --top-k
             {"text", "scores": [{"label", "score"}, ...]}.
      json   one document: {"model", "predictions": [...]}.

    Beside "text" stands "text_pair" where there is one. A question gets
    {"question", "choices", "answer", "index", "choice", "score", "scores"}:
    the letter, position from 0 and text of its best choice, and the
    probabilities of all in their order. In tsv and csv: letter, score,
    choice, question.

    Runtimes. onnx and torch give the same labels; auto takes torch on a
    GPU, else onnx where the model has its graph. int8 (after textclf export
    --int8), bf16 and openvino (an extra) are faster and round; on a CPU an
    answer that is close to another is computed again exactly, so that hardly
    a label differs.

    Where the score is below --threshold, the label is empty (null in json)
    and the score stays.

    --abstain-below and --target-accuracy do so too, and say why: in tsv and
    csv a column after the score, empty where there is an answer; in json
    "reason", null where there is one. --target-accuracy chooses the score by
    what the model file says of its answers to validation texts.

    --out-of-scope 0.05 gives no answer to a text that looks less like those of
    training than all but 5 % of the validation texts did, and says how much
    each is in scope, 0 to 1: in tsv and csv in a column after the reason, in
    json "in_scope". 0 only says it.

    A model that gives a text any number of labels, none included, writes them
    and their scores with | between them in tsv and csv (\x7c is a | in a name),
    and in json {"text", "labels": [...], "scores": {label: score}}. A label is
    given from the model's own threshold on, or from --threshold. --top-k gives
    the N best scores whatever the threshold; `labels` in json stays the answer.

    With --explain each word of a text (up to 64 parts) is left out in turn;
    its weight is what the probability of the best label loses by that. In
    json "words": [{"text", "start", "end", "weight"}]; in the table words that
    speak for the label are shaded. Each text takes as many answers as it has
    words.
    """
    device = device or "auto"
    _check_device(device)
    wanted = _format(format, output)
    if explain and wanted in ("tsv", "csv"):
        if format is not None or output not in (None, "-"):
            raise UsageError(f"--explain does not fit into {wanted}", hint="give --format jsonl, json or table")
        wanted = "jsonl"
    reference, paths = _model_and_files(named_model, [*([] if model is None else [model]), *(files or [])])
    destination = _destination(output, paths)

    from textclf.artifact import folder, hub
    from textclf.inference import reading, runtimes

    runtimes.check(runtime or "auto", device)
    abstains = abstain_below is not None or target_accuracy is not None or out_of_scope is not None
    for flag, other in (("--threshold", threshold), ("--top-k", top_k)):
        if abstains and other is not None:
            raise UsageError(
                f"{flag} does not go with --abstain-below, --target-accuracy or --out-of-scope", hint="leave one out"
            )
    stdin = sys.stdin.buffer if sys.stdin is not None else None
    # Input first: what is wrong with it is said at once, not after seconds of loading a model.
    columns = reading.Wanted(text_column=text_column, text_pair_column=text_pair_column)
    reading.check_inputs(paths, columns, stdin=stdin)
    artifact = folder.read(hub.locate(reference))
    floor = artifact.threshold(abstain_below=abstain_below, target_accuracy=target_accuracy)
    if out_of_scope is not None:
        artifact.scope()  # said before the model is loaded
    if target_accuracy is not None:
        terminal.say(f"answers from a score of {floor:.4f} on, which {target_accuracy:g} on validation asks for")
    if text_pair_column is not None and artifact.form != "pair":
        raise UsageError("--text-pair-column was given, but this model reads no pairs of texts")
    trained_on = artifact.facts.columns if artifact.facts is not None else {}
    windows = reading.file_windows(
        paths, dataclasses.replace(columns, form=artifact.form, trained_on=trained_on), stdin=stdin
    )

    from textclf.inference.prediction import Predictor

    predictor = Predictor(
        artifact, runtimes.open_runtime(artifact, device=device, runtime=runtime or "auto", head=head)
    )
    if reading.STDIN in paths and stdin is not None and stdin.isatty():
        terminal.say("reading texts from the terminal, one per line; Ctrl-D ends")
    count = _Count()
    layout = answers.Layout(
        format=wanted,
        labels=list(predictor.classes_),
        pairs=top_k,
        threshold=threshold,
        model=predictor.name,
        abstains=abstains,
        scoped=out_of_scope is not None,
        several=predictor.artifact.label_set.multi,
        form=predictor.artifact.form,
    )
    encoding = sys.stdout.encoding if wanted == "table" and destination is None and sys.stdout is not None else "utf-8"
    how = [dataclasses.asdict(layout), dataclasses.asdict(columns), runtime, device, floor, explain, __version__]
    how += [out_of_scope] if out_of_scope is not None else []
    can_resume = reading.STDIN not in paths and wanted != "table"
    of = [how, _stamps([*map(Path, paths), *sorted(artifact.folder.rglob("*"))])] if can_resume else None
    with _file(destination, of) as file:
        count.go_on(file.state)
        rest = itertools.islice(windows, count.windows, None)
        predictions = count.counted(
            predictor.window_predictions(
                rest, top_k=top_k, threshold=threshold, abstain_below=floor, out_of_scope=out_of_scope, explain=explain
            )
        )
        synced_at = time.monotonic()
        try:
            for chunk in answers.written(predictions, layout, begun=count.windows > 0):
                file.write(chunk.encode(encoding, "backslashreplace"))
                if count.windows > file.state.get("windows", 0):  # not after what closes a document
                    file.mark(**vars(count))
                if time.monotonic() - synced_at > SYNC_SECONDS:
                    file.sync()
                    synced_at = time.monotonic()
        except (SystemExit, KeyboardInterrupt):
            if of is not None and destination is not None:
                file.sync()
                terminal.say(f"stopped after {file.state.get('texts', 0):,} texts; the same command goes on from there")
            raise
    count.say(predictor.artifact.max_length, predictor.artifact.overflow)


def add_to(app: typer.Typer) -> None:
    """Add `predict` to the command line."""
    register(app, example="cat queries.txt | textclf predict > answers.tsv")(predict)


class _Count:
    """How many texts went by, and how many of them the model could not read to their end."""

    def __init__(self) -> None:
        self.windows = 0
        self.texts = 0
        self.truncated = 0

    def go_on(self, state: Mapping[str, int]) -> None:
        """Count on from an earlier state, and say so."""
        vars(self).update(state)
        if self.texts:
            terminal.say(f"going on after {self.texts:,} texts that were answered before")

    def counted(self, windows: Iterable[list[Prediction]]) -> Iterator[list[Prediction]]:
        for window in windows:
            self.windows += 1
            self.texts += len(window)
            self.truncated += sum(prediction.truncated for prediction in window)
            yield window

    def say(self, max_length: int, overflow: str) -> None:
        if self.truncated and (terminal.settings.verbose or (sys.stderr is not None and sys.stderr.isatty())):
            from textclf.cli.render import FATES

            terminal.say(
                f"{self.truncated:,} of {self.texts:,} texts are longer than the {max_length:,} tokens "
                f"that the model reads at once and {FATES[overflow]}"
            )


def _check_device(name: str) -> None:
    # Whether it is there is for torch to say; a misspelt one need not wait for torch.
    if not re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name):
        raise UsageError(f"device {name!r} is not known", hint="use auto, cpu, mps, cuda or cuda:N")


def _format(wanted: str | None, output: str | None) -> str:
    """The format that was asked for: by name, by --json, or by the extension of the output file."""
    if wanted is not None and wanted not in answers.FORMATS:
        raise UsageError(f"--format {wanted} is not known", hint=f"one of {', '.join(answers.FORMATS)}")
    if terminal.settings.json:
        if wanted not in (None, "json"):
            raise UsageError(f"--json and --format {wanted} ask for different things", hint="give one of them")
        return "json"
    if wanted is not None:
        return wanted
    if output in (None, "-"):
        return "table" if sys.stdout is not None and sys.stdout.isatty() else "tsv"
    suffix = Path(str(output)).suffix.lower()
    if suffix not in answers.EXTENSIONS:
        raise UsageError(
            f"--output {output}: {suffix} names no format of answers",
            hint=f"give --format, or an extension: {', '.join(filter(None, answers.EXTENSIONS))}",
        )
    return answers.EXTENSIONS[suffix]


def _model_and_files(model: str | None, inputs: list[str]) -> tuple[str | None, list[str]]:
    from textclf.inference.reading import STDIN, is_data_file

    if model is None and inputs and not is_data_file(inputs[0]):
        model, inputs = inputs[0], inputs[1:]
    return model, inputs or [STDIN]


def _destination(output: str | None, inputs: list[str]) -> Path | None:
    """The file to write, None for standard output. Raises UsageError where writing would destroy the input."""
    if output in (None, "-"):
        return None
    path = Path(str(output))
    if path.is_dir():
        raise UsageError(f"--output {output} is a folder", hint=f"name a file in it: {path / 'answers.tsv'}")
    if path.is_file() and any(Path(name).is_file() and path.samefile(name) for name in inputs):
        raise UsageError(f"--output {output} is also an input; its texts would be lost", hint="name another file")
    return path


class _Stream:
    """Where answers go that nobody can go on with: standard output, a pipe, a file made of standard input."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self.write = write
        self.state: dict[str, int] = {}

    def mark(self, **state: int) -> None:
        self.state = state

    def sync(self) -> None:
        pass


@contextmanager
def _file(destination: Path | None, of: object) -> Iterator[_Stream | Growing]:
    """What takes the bytes of answers: standard output, or a file that gets its name when all is written.

    of: what the answers are of, where they can be gone on with by another process; else None.
    """
    from textclf import atomic

    if destination is None:
        yield _Stream(terminal.write)
    elif destination.exists() and not destination.is_file():  # a named pipe or /dev/null is written to, not replaced
        with destination.open("wb", buffering=0) as stream:
            yield _Stream(stream.write)
    elif of is None:
        with atomic.new_file(destination) as file:
            yield _Stream(file.write)
    else:
        with atomic.growing_file(destination, of=of) as growing:
            yield growing


def _stamps(files: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Path, size and time of change: what tells inputs and a model from those of another day."""
    found = [(str(path.absolute()), path.stat()) for path in files if path.exists()]  # not a link to nothing
    return [(name, facts.st_size, facts.st_mtime_ns) for name, facts in found]
