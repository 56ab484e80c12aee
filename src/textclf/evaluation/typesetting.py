"""The report as PDF or PNG, typeset by Typst (extra `report`): the figures and plots, and no text of the data."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree as Tree  # of our own plots

from textclf.artifact import charts
from textclf.artifact.markdown import plain
from textclf.errors import MissingExtraError

_TEMPLATE = Path(__file__).parent / "page" / "report.typ"
_LONGEST = 48
"""Characters of a name, as in the plots."""
_PAIRS = 20
_PPI = 144.0

_WIDTH = 504.0
"""Of the page between its margins, in points."""
_GAP = 20.0

Block = dict[str, Any]


def typeset(content: Mapping[str, Any], *, format: Literal["pdf", "png"]) -> bytes:
    """The report's content as a document of A4 pages, or as one picture of that width. The same content gives the same
    bytes where the same fonts are installed. Raises MissingExtraError without typst."""
    typst = require_typst()
    document = {
        "name": _short(content["name"]),
        "about": _about(content),
        "footer": f"Written by textclf {content['version']}. No text of the data is in it; labels are.",
        "one_page": format == "png",
        "blocks": [*_summary(content), *_training(content), *_confusions(content), *_scores(content),
                   *_labels(content), *_slices(content), *_data(content), *_again(content)],
    }  # fmt: skip
    made: bytes = typst.compile(
        _TEMPLATE.read_bytes(), format=format, ppi=_PPI, sys_inputs={"report": json.dumps(document)}
    )
    return made


def require_typst() -> Any:
    """The package typst. Raises MissingExtraError without it."""
    try:
        import typst
    except ImportError as err:
        raise MissingExtraError(
            "a report as pdf or png needs the package typst",
            hint='install it: pip install "textclf[report]"; or print the page (--format html) from a browser',
        ) from err
    return typst


def number(value: float | None, digits: int = 4) -> str:
    """A figure as all formats of the report show it: a count with its thousands apart, a dash for none."""
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def _about(content: Mapping[str, Any]) -> str:
    document, run = content["document"], content["run"]
    return (
        f"{_short(run['model'])}, fine-tuned on {_short(document['dataset'])}, measured on "
        f"{number(document['metrics']['rows'])} texts of {content['split']}. Finished {run['updated'][:10]}."
    )


def _summary(content: Mapping[str, Any]) -> list[Block]:
    low, high = content["interval"]
    chance = "" if content["chance"] is None else f"; by chance {number(content['chance'], 3)}"
    blocks = [
        _heading("Summary"),
        _text(
            f"{number(content['right'])} of {number(content['total'])} {content['asked']} were answered rightly: "
            f"95 % interval {number(low, 3)} to {number(high, 3)} (Wilson){chance}."
        ),
        *(_text(f"Note: {plain(note)}") for note in content["run"].get("notes") or []),
    ]
    heads = [head for split in content["splits"] for head in (split, "95 % interval")]
    metrics = [[words, *(cell for pair in values for cell in _measured(*pair))] for words, values in content["metrics"]]
    blocks.append(_table(["metric", *heads], metrics))
    beside = content["beside"]
    if beside["columns"]:
        heads = [f"{words}, {split}" for split, words in beside["columns"]]
        rows = [
            [one["title"], *map(number, one["values"]), number(one["rows"]), number(one["seconds"], 1)]
            for one in beside["rows"]
        ]
        blocks.append(_text("Beside simpler answers to the same texts:"))
        blocks.append(_table(["answered by", *heads, "learnt from", "seconds"], rows))
    return blocks


def _measured(value: float | None, interval: Mapping[str, float] | None) -> tuple[str, str]:
    if not interval:
        return number(value), ""
    return number(value), f"{number(interval['low'], 3)} to {number(interval['high'], 3)}"


def _training(content: Mapping[str, Any]) -> list[Block]:
    if not content["curves"]:
        return []
    return [_heading("Training"), _plots(*((drawn, "") for drawn in content["curves"]))]


def _confusions(content: Mapping[str, Any]) -> list[Block]:
    errors = content["document"].get("label_errors")
    if errors is not None:
        rows = [
            [_short(one["label"]), number(one["missed"]), number(one["missed_share"], 3), number(one["added"]),
             number(one["added_share"], 3)]
            for one in errors[:_PAIRS]
        ]  # fmt: skip
        heads = ["label", "missed in", "share of its texts", "wrongly added to", "share of its answers"]
        return [_heading("Labels missed or wrongly added"), _table(heads, rows)]
    if not content["pairs"]:
        return [_heading("Confusions"), _text("No label was confused with another.")]
    reads = "Rows are true labels, columns the answers; the stronger the colour, the larger the share of the row."
    blocks = [_heading("Confusions")]
    if content["zoomed"]:
        which = "The labels that are confused most often. " if content["labels"] > charts.ZOOMED else ""
        blocks.append(_plots((content["zoomed"], which + reads)))
    if content["whole"]:
        blocks.append(_plots((content["whole"], f"All {number(content['labels'])} labels, similar ones side by side.")))
    rows = [
        [_short(pair.target), _short(pair.predicted), number(pair.count), number(pair.share, 3)]
        for pair, _ in content["pairs"][:_PAIRS]
    ]
    return [*blocks, _table(["true label", "answered", "texts", "share"], rows, left=2)]


def _scores(content: Mapping[str, Any]) -> list[Block]:
    off = f"Scores are {number(content['document']['metrics']['ece'])} off on average (expected calibration error)."
    plots = [(content["reliability"], "On the dashed line scores mean what they say.")]
    if content["coverage"]:
        plots.append((content["coverage"], "How right the model is where only its surest answers are taken."))
    return [_heading("Scores"), _text(off), _plots(*plots)]


def _labels(content: Mapping[str, Any]) -> list[Block]:
    rows = [
        [_short(one["label"]), {"bar": one["f1"] or 0.0}, number(one["f1"], 3), number(one["precision"], 3),
         number(one["recall"], 3), number(one["support"]), number(one["predicted"])]
        for one in content["labelled"]
    ]  # fmt: skip
    heads = ["label", "", "F1", "precision", "recall", "texts", "predicted"]
    return [_heading("Labels, lowest F1 first"), _table(heads, rows)]


def _slices(content: Mapping[str, Any]) -> list[Block]:
    blocks = [_heading("Slices")]
    for title, slices in {"length in tokens": content["lengths"], **content["columns"]}.items():
        rows = [
            [_short(one["name"]), number(one["rows"]), number(one["accuracy"]),
             f"{number(one['low'], 3)} to {number(one['high'], 3)}", number(one["macro_f1"])]
            for one in slices
        ]  # fmt: skip
        blocks.append(_table([_short(title), "texts", "answered rightly", "95 % interval", "macro F1"], rows))
    if content["frequencies"]:
        rows = [
            [one["name"], number(one["labels"]), number(one["rows"]), number(one["recall"]), number(one["f1"])]
            for one in content["frequencies"]
        ]
        blocks.append(_table(["label has rows in train", "labels", "texts", "recall", "F1"], rows))
    return blocks


def _data(content: Mapping[str, Any]) -> list[Block]:
    splits = ", ".join(f"{number(rows)} {split}" for split, rows in content["facts"]["splits"].items())
    found = [plain(message) for message, _ in content["findings"]]
    said = [content["data_note"]] if content["data_note"] else found
    return [_heading("Data"), _text(f"{splits} texts."), *map(_text, said)]


def _again(content: Mapping[str, Any]) -> list[Block]:
    made = ", ".join(f"{name} {value}" for name, value in content["environment"].items())
    fingerprint = content["facts"]["fingerprint"] or "not recorded"
    return [
        _heading("Make it again"),
        _text("textclf finetune --config run.yaml, with the model and the data set of this run.yaml in their folders:"),
        {"code": content["configuration"]},
        _text(f"Made with {plain(made)}. Fingerprint of the data: {fingerprint}."),
    ]  # fmt: skip


def _heading(words: str) -> Block:
    return {"heading": words}


def _text(words: str) -> Block:
    return {"text": words}


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]], *, left: int = 1) -> Block:
    """left: columns from the first on that stand to the left."""
    return {"table": {"head": list(head), "rows": [list(row) for row in rows], "left": left}}


def _plots(*drawn: tuple[str, str]) -> Block:
    """Plots side by side, each with its caption, as large as on the page or as they find room."""
    room = (_WIDTH - _GAP * (len(drawn) - 1)) / len(drawn)
    return {"plots": [_plot(svg, says, room=room) for svg, says in drawn]}


def _plot(svg: str, caption: str, *, room: float) -> dict[str, Any]:
    said = Tree.fromstring(svg)  # noqa: S314
    width = min(room, 0.75 * float(said.get("width", "0")))  # a pixel is 3/4 of a point
    return {"drawn": charts.standalone(svg), "caption": caption, "alt": said.get("aria-label"), "width": width}


def _short(name: str) -> str:
    name = plain(name)
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
