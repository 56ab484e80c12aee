"""Predictions as tsv, csv, jsonl, one json document, or a table: one record per text, whatever the text holds."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textclf.cli import terminal
from textclf.data.spreadsheets import guarded

if TYPE_CHECKING:
    from rich.text import Text

    from textclf.inference.prediction import Prediction

FORMATS = ("tsv", "csv", "jsonl", "json", "table")
EXTENSIONS = {
    ".tsv": "tsv",
    ".txt": "tsv",
    "": "tsv",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
}
"""What an output file's extension asks for."""

BETWEEN = "|"
"""Stands between the labels of one text."""
_TABLE_TEXT = 2000
"""Characters of a text that a table looks at; a terminal is narrower."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What an answer looks like.

    labels: all names that the model can give.
    pairs: labels per answer, or None for the one best label.
    threshold: an answer with a lower score has no label.
    model: how the json document names the model.
    several: an answer is any number of labels; the threshold has been applied already.
    abstains: the model may abstain, and an answer then says why. scoped: it says how much the text is in scope.
    form: what the model reads: `text`, `pair`, or for questions `binary` or `multiclass`.
    """

    format: str
    labels: Sequence[str]
    pairs: int | None = None
    threshold: float | None = None
    model: str = ""
    several: bool = False
    abstains: bool = False
    scoped: bool = False
    form: str = "text"

    @property
    def answers_questions(self) -> bool:
        """Whether texts are questions with choices."""
        return self.form in ("binary", "multiclass")

    def scores(self, prediction: Prediction) -> list[tuple[str | None, float]]:
        """Labels and scores, None in place of a label below the threshold, or where the model abstains."""
        if prediction.abstained is not None:
            return [(None, prediction.score)]
        floor = None if self.several else self.threshold
        return [(None if floor is not None and score < floor else label, score) for label, score in prediction.scores]


def written(windows: Iterable[Sequence[Prediction]], layout: Layout, *, begun: bool = False) -> Iterator[str]:
    """What is to be written for each window of predictions, as soon as the window is there.

    begun: windows before these were written already.
    """
    if layout.format == "json":
        return _document(windows, layout, begun=begun)
    if layout.format == "table":
        return _table(windows, layout)
    record = {"tsv": _tsv, "csv": _csv, "jsonl": _jsonl}[layout.format]
    chunks = ("".join(record(prediction, layout) for prediction in window) for window in windows)
    return _after(_csv_header(layout), chunks) if layout.format == "csv" and not begun else chunks


def _tsv(prediction: Prediction, layout: Layout) -> str:
    return "\t".join(_cells(prediction, layout, terminal.field)) + "\n"


def _csv(prediction: Prediction, layout: Layout) -> str:
    return _csv_record(_cells(prediction, layout, _guarded))


def _cells(prediction: Prediction, layout: Layout, field: Callable[[str], str]) -> list[str]:
    scores = layout.scores(prediction)
    if layout.several and layout.pairs is None:
        names = BETWEEN.join(field(label or "").replace(BETWEEN, r"\x7c") for label, _ in scores)
        return [names, BETWEEN.join(f"{score:.6g}" for _, score in scores), *_texts(prediction, field)]
    pairs = [cell for label, score in scores for cell in (field(label or ""), f"{score:.6g}")]
    if layout.abstains:
        pairs.append(prediction.abstained or "")
    if layout.scoped:
        pairs.append(f"{prediction.in_scope:.4g}")
    if prediction.choices is not None:
        # A question may have fewer choices than labels were asked for; columns stay where they are.
        if layout.pairs is not None:
            pairs += [""] * (2 * min(layout.pairs, len(layout.labels)) - len(pairs))
        return [*pairs, field(prediction.choice or "" if scores[0][0] else ""), field(prediction.text)]
    return [*pairs, *_texts(prediction, field)]


def _texts(prediction: Prediction, field: Callable[[str], str]) -> list[str]:
    return [field(text) for text in (prediction.text, prediction.text_pair) if text is not None]


def _csv_header(layout: Layout) -> str:
    label = "answer" if layout.answers_questions else "label"
    texts = ["choice", "question"] if layout.answers_questions else ["text"] + ["text_pair"] * (layout.form == "pair")
    if layout.pairs is None:
        scored = (
            ["labels", "scores"]
            if layout.several
            else [label, "score", *["reason"] * layout.abstains, *["in_scope"] * layout.scoped]
        )
        return _csv_record([*scored, *texts])
    count = min(layout.pairs, len(layout.labels))
    return _csv_record([f"{name}_{rank}" for rank in range(1, count + 1) for name in (label, "score")] + texts)


def _csv_record(cells: Sequence[str]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(cells)
    return buffer.getvalue()


def _guarded(text: str) -> str:
    return terminal.field(guarded(text))


def _jsonl(prediction: Prediction, layout: Layout) -> str:
    return terminal.json_line(_object(prediction, layout)) + "\n"


def _object(prediction: Prediction, layout: Layout) -> dict[str, Any]:
    texts = {"text": prediction.text}
    if prediction.text_pair is not None:
        texts["text_pair"] = prediction.text_pair
    # Eight digits are all that a float32 has to say.
    if layout.several:
        scores_of = {label: float(f"{score:.8g}") for label, score in prediction.scores}
        return {**texts, "labels": list(prediction.labels), "scores": scores_of, **_words(prediction)}
    scores = [{"label": label, "score": float(f"{score:.8g}")} for label, score in layout.scores(prediction)]
    if prediction.choices is not None:
        return _question_object(prediction, layout)
    if layout.pairs is None:
        return {**texts, **scores[0], **_reason(prediction, layout), **_words(prediction)}
    return {**texts, "scores": scores, **_words(prediction)}


def _words(prediction: Prediction) -> dict[str, Any]:
    """What the best label rests on, where that was asked for."""
    if prediction.words is None:
        return {}
    found = [
        {"text": one.text, "start": one.start, "end": one.end, "weight": round(one.weight, 6)}
        for one in prediction.words
    ]
    return {"words": found}


def _question_object(prediction: Prediction, layout: Layout) -> dict[str, Any]:
    label, score = layout.scores(prediction)[0]
    return {
        "question": prediction.text,
        "choices": prediction.choices,
        "answer": label,
        "index": None if label is None else prediction.index,
        "choice": None if label is None else prediction.choice,
        "score": float(f"{score:.8g}"),
        "scores": [float(f"{one:.8g}") for one in prediction.choice_scores or ()],
        **_reason(prediction, layout),
    }


def _reason(prediction: Prediction, layout: Layout) -> dict[str, str | float | None]:
    reason: dict[str, str | float | None] = {"reason": prediction.abstained} if layout.abstains else {}
    if prediction.in_scope is not None:
        reason["in_scope"] = float(f"{prediction.in_scope:.4g}")
    return reason


def _document(windows: Iterable[Sequence[Prediction]], layout: Layout, *, begun: bool) -> Iterator[str]:
    """One document, written piece by piece. After a failure it stays open, so that no reader takes it for whole."""
    lead = ",\n" if begun else f'{{"model": {terminal.json_line(layout.model)}, "predictions": [\n'
    for window in windows:
        objects = ",\n".join(terminal.json_line(_object(prediction, layout)) for prediction in window)
        if objects:
            yield lead + objects
            lead = ",\n"
    yield ("" if lead == ",\n" else lead) + "\n]}\n"


def _table(windows: Iterable[Sequence[Prediction]], layout: Layout) -> Iterator[str]:
    """Columns as wide as the longest label name, so that rows can be shown while texts are still being read."""
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    console = terminal.out()
    names = {label: terminal.safe(label) for label in layout.labels}
    width = max(len("label"), *(cell_len(name) for name in names.values()))

    def row(label: str, score: str, text: str | Text, style: str) -> str:
        column = min(width, max(8, console.width // 3))
        # A label that is cut ends in an ellipsis; set_cell_size counts wide characters as two.
        shown = label if cell_len(label) <= column else set_cell_size(label, column - 1) + "…"
        line = Text.assemble((set_cell_size(shown, column), style), "  ", (score, "dim"), "  ", text)
        with console.capture() as capture:
            console.print(line, no_wrap=True, overflow="ellipsis", crop=True)
        return capture.get()

    def rows(prediction: Prediction) -> Iterator[str]:
        text = _shaded(prediction) if prediction.words else terminal.safe(_in_table(prediction)[:_TABLE_TEXT])
        for label, score in layout.scores(prediction):
            name, style = ("-", "dim") if label is None else (names[label], "bold")
            share = f"  {prediction.in_scope:8.3f}" if layout.scoped else ""
            yield row(name, f"{score:.3f}{share}{_reason_cell(prediction.abstained, layout)}", text, style)
            text = ""  # once per text, beside its best label
        if not prediction.scores:
            yield row("-", "", text, "dim")

    chunks = ("".join(line for prediction in window for line in rows(prediction)) for window in windows)
    share = "  in scope" if layout.scoped else ""
    header = row("label", f"score{share}{_reason_cell('reason', layout)}", "text", "dim")
    return _after(header, chunks, even_alone=False)


def _reason_cell(reason: str | None, layout: Layout) -> str:
    """As wide whether there is an answer or not; nothing where the model always answers."""
    return f"  {reason or '':26}" if layout.abstains else ""


def _shaded(prediction: Prediction) -> Text:
    """A text whose words stand out by their weight, as far as a table shows it."""
    from rich.text import Text

    shown, done = Text(), 0
    text, found = prediction.text[:_TABLE_TEXT], prediction.words or ()
    most = max(abs(one.weight) for one in found) or 1.0
    for one in found:
        shown.append(terminal.safe(text[done : one.start]))
        share = one.weight / most
        style = "bold black on yellow" if share > 0.5 else "yellow" if share > 0.15 else "blue" if share < -0.15 else ""
        shown.append(terminal.safe(text[one.start : one.end]), style)
        done = one.end
    shown.append(terminal.safe(text[done:]))
    return shown


def _in_table(prediction: Prediction) -> str:
    """What stands beside a label: the text, both texts of a pair, or a question's best choice before it."""
    if prediction.choice is not None:
        return f"{prediction.choice}  <-  {prediction.text}"
    return prediction.text if prediction.text_pair is None else f"{prediction.text}  |  {prediction.text_pair}"


def _after(header: str, chunks: Iterable[str], *, even_alone: bool = True) -> Iterator[str]:
    """The header in one piece with what follows it first; `even_alone`: also when nothing follows."""
    for chunk in filter(None, chunks):
        yield header + chunk
        header = ""
    if header and even_alone:
        yield header
