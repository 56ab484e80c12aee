"""`textclf prepare`: look at a data set, split it and keep it ready for training."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from textclf.cli import terminal
from textclf.cli.command import register
from textclf.cli.options import DataOptions, DatasetOpt, as_flags, given

if TYPE_CHECKING:
    import numpy as np
    from rich.table import Table
    from rich.text import Text

    from textclf.data.prepared import Prepared
    from textclf.data.quality import Lengths

ModelOpt = Annotated[
    str | None,
    typer.Option("--model", "-m", metavar="MODEL", help="Also count tokens, as this model does: a Hub id or folder."),
]

_ALL_SHOWN = 8
"""Labels up to which all are shown; of more, the most frequent and the rarest few."""
_FEW = 3
_LENGTHS = (32, 64, 128, 256, 512)


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    register(app, example="textclf prepare --dataset banking77")(prepare)


def prepare(
    dataset: DatasetOpt = None,
    *,
    data: DataOptions,
    model: ModelOpt = None,
) -> None:
    """Read a data set, check it, split it and keep it ready for training."""
    from textclf import config
    from textclf.data.preparation import prepare as run

    options = given(dataset=dataset, **data)
    prepared = run(config.build({"data": options}, where="prepare").data)
    lengths = _lengths(prepared, model) if model else None
    if terminal.settings.json:
        terminal.show_json(_document(prepared, lengths))
        return
    _say_notes(prepared)
    console = terminal.out()
    console.print(_table(prepared))
    for line in (
        *_several_lines(prepared),
        *_label_lines(prepared),
        *_character_lines(prepared),
        *_length_lines(lengths),
    ):
        console.print(line)
    terminal.say(f"\nkept in {prepared.folder}" + (" (prepared earlier)" if prepared.from_cache else ""))
    terminal.say(f"next:  {_next_command(options, model)}")


def _lengths(prepared: Prepared, model: str) -> np.ndarray:
    from textclf.artifact import hub
    from textclf.data.encoding import encode_rows
    from textclf.model.tokenizer import backend, load_tokenizer

    tokenizer = backend(load_tokenizer(hub.fetch_tokenizer(model)))
    return encode_rows(prepared.rows("train"), tokenizer).lengths


def _document(prepared: Prepared, lengths: np.ndarray | None) -> dict[str, Any]:
    """What --json prints. Names and kinds stay as they are; later versions may add some."""
    import dataclasses

    from textclf.data.quality import percentiles

    return {
        "dataset": prepared.name,
        "revision": prepared.revision,
        "folder": str(prepared.folder),
        "fingerprint": prepared.fingerprint,
        "from_cache": prepared.from_cache,
        "form": prepared.form,
        "text_column": prepared.text_column,
        "text_pair_column": prepared.text_pair_column,
        "label_column": prepared.label_column,
        "labels": list(prepared.label_set.names),
        "kind": prepared.label_set.kind,
        "splits": prepared.splits,
        "labels_per_row": _labels_per_row(prepared),
        "label_counts": prepared.label_counts,
        "dropped": [dataclasses.asdict(dropped) for dropped in prepared.dropped],
        "findings": [dataclasses.asdict(finding) for finding in prepared.findings],
        "lengths": {split: dataclasses.asdict(lengths) for split, lengths in prepared.lengths.items()},
        "shifts": prepared.shifts,
        "corrected": None if prepared.corrected is None else dataclasses.asdict(prepared.corrected),
        "steps": list(prepared.steps),
        "token_lengths": None if lengths is None else dataclasses.asdict(percentiles(lengths)),
    }


def _labels_per_row(prepared: Prepared) -> dict[str, Any] | None:
    import dataclasses

    from textclf.data.quality import labels_per_row

    if not prepared.label_set.multi:
        return None
    found = {split: labels_per_row(prepared.rows(split)) for split in prepared.splits}
    return {split: dataclasses.asdict(one) for split, one in found.items()}


def _say_notes(prepared: Prepared) -> None:
    for step in prepared.steps:
        terminal.say(f"- {terminal.safe(step)}")
    for dropped in prepared.dropped:
        rows = "row" if dropped.rows == 1 else "rows"
        terminal.say(f"- left out {dropped.rows:,} {rows} of {dropped.split}: {dropped.reason}")
    for finding in prepared.findings:
        terminal.say(f"note: {terminal.safe(finding.message)}")
        if finding.hint:
            terminal.say(f"      {terminal.safe(finding.hint)}")


def _table(prepared: Prepared) -> Table:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from textclf.data.quality import balance

    title = Text(terminal.safe(prepared.name), style="bold", overflow="ellipsis", no_wrap=True)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("split")
    for heading in ("rows", "labels", "fewest\na label", "median\na label", "most\na label", "largest\nshare"):
        table.add_column(heading, justify="right")
    for split, counts in prepared.label_counts.items():
        state = balance(counts, prepared.splits[split])
        numbers = (state.rows, state.labels, state.smallest, state.median, state.largest)
        table.add_row(split, *(f"{number:,.10g}" for number in numbers), f"{state.majority_share:.1%}")
    return table


def _label_lines(prepared: Prepared) -> list[Text]:
    counts = prepared.label_counts["train"]
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    if len(ordered) <= _ALL_SHOWN:
        return [_label_line("labels in train", ordered)]
    rarest = sorted(ordered[-_FEW:], key=lambda item: item[1])
    return [_label_line("most frequent in train", ordered[:_FEW]), _label_line("rarest in train", rarest)]


def _several_lines(prepared: Prepared) -> list[Text]:
    from rich.text import Text

    lines = []
    for split, one in (_labels_per_row(prepared) or {}).items():
        none = f"{one['none']:,} rows ({one['none'] / prepared.splits[split]:.1%}) without any"
        lines.append(
            Text.assemble((f"labels a row in {split}: ", "bold"), f"{one['mean']:.2f}, at most {one['max']}; {none}")
        )
    return lines


def _character_lines(prepared: Prepared) -> list[Text]:
    from rich.text import Text

    lines = []
    if "train" in prepared.lengths:
        lines.append(Text.assemble(("characters in train: ", "bold"), _percentiles(prepared.lengths["train"])))
    if prepared.shifts:
        told = ", ".join(f"{split} {area:.2f}" for split, area in prepared.shifts.items())
        lines.append(Text.assemble(("told apart from train (ROC-AUC): ", "bold"), told))
    return lines


def _percentiles(shape: Lengths) -> str:
    parts = f"half up to {shape.p50:,}, 90% {shape.p90:,}, 95% {shape.p95:,}, 99% {shape.p99:,}"
    return f"{parts}, longest {shape.max:,}"


def _label_line(heading: str, counts: list[tuple[str, int]]) -> Text:
    from rich.text import Text

    listed = "; ".join(f"{_short(name)} {count:,}" for name, count in counts)
    return Text.assemble((f"{heading}: ", "bold"), listed)


def _short(label: str) -> str:
    safe = terminal.safe(label)
    return safe if len(safe) <= 40 else safe[:39] + "…"


def _length_lines(lengths: np.ndarray | None) -> list[Text]:
    from rich.text import Text

    from textclf.data.quality import percentiles, share_cut

    if lengths is None or not len(lengths):
        return []
    shape = percentiles(lengths)
    lines = [Text.assemble(("tokens in train: ", "bold"), _percentiles(shape))]
    cut = ", ".join(f"{share_cut(lengths, length):.1%} at {length}" for length in _LENGTHS if length < shape.max)
    if cut:
        lines.append(Text.assemble(("texts cut by max_length: ", "bold"), cut))
    return lines


def _next_command(options: dict[str, Any], model: str | None) -> str:
    words = ["textclf", "finetune", *(["--model", model] if model else []), *as_flags(options)]
    return shlex.join(words)
