"""report(): one page on a finished run, that opens anywhere: its figures, errors, data and how to make it again."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from textclf import __version__, atomic
from textclf.artifact import charts, folder, runs
from textclf.artifact.card import configuration
from textclf.artifact.figures import BASELINES, METRICS, baselines
from textclf.artifact.markdown import escaped
from textclf.artifact.runs import Run
from textclf.errors import TextclfError, UsageError
from textclf.evaluation.evaluation import evaluate
from textclf.evaluation.typesetting import number, require_typst, typeset
from textclf.inference.prediction import load
from textclf.metrics import Bin, Confusion, metrics_of
from textclf.proportions import wilson

if TYPE_CHECKING:
    from textclf.data.quality import Finding

Format = Literal["html", "md", "pdf", "png"]

_EXTENSIONS: dict[str, Format] = {
    "": "html", ".html": "html", ".htm": "html", ".md": "md", ".markdown": "md", ".pdf": "pdf", ".png": "png",
}  # fmt: skip
_PAGE = Path(__file__).parent / "page"
_LONGEST = 600  # characters of a text
_PAIRS = 40
_EXAMPLES = 3
_MISTAKES = 100
"""What the page shows at most of each, so that it stays small; the evaluation's JSON has all."""
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")


@dataclass(frozen=True)
class Report:
    """A page that was written, on one split of a run's data."""

    run: str
    split: str
    format: Format
    path: Path


def report(
    run: str | Path | Run | None = None,
    *,
    split: str | None = None,
    format: Format | None = None,
    output: str | Path | None = None,
) -> Report:
    """Write one page on a finished run.

    run: a run, its name or folder; None is the latest finished one. split: None is test where there is one, else
    validation. Its last evaluation is taken, or made where there is none. format: `html` (no other file, no network) or
    `md`, `pdf` or `png` (one long picture); None goes by the extension of `output`, and is html without one. output:
    the file; None is eval/SPLIT.html in the run folder.

    As html and md the page holds texts of the split: those that were answered wrongly. As pdf and png it holds none.

    Raises ModelError where there is no such run or it is not finished, UsageError for a format or extension that is not
    known, MissingExtraError for pdf and png without the extra `report`, and what `evaluate` raises.
    """
    written = format or _format_of(output)
    found, chosen, page = compose(run, split=split, format=written)
    path = Path(output) if output is not None else found.folder / runs.EVALUATIONS / f"{chosen}.{written}"
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint=f"name a file in it: {path / f'report.{written}'}")
    with atomic.new_file(path) as file:
        file.write(page)
    return Report(found.name, chosen, written, path)


def compose(run: str | Path | Run | None, *, split: str | None, format: Format) -> tuple[Run, str, bytes]:
    """The run, the split that was chosen, and the page, which `report` writes. Raises as `report`."""
    if format not in get_args(Format):
        raise UsageError(f"format {format!r} is not known", hint=f"one of {', '.join(get_args(Format))}")
    if format in ("pdf", "png"):
        require_typst()  # before the work
    found = run if isinstance(run, Run) else runs.named(str(run)) if run is not None else runs.latest()
    artifact = folder.read(found.model_folder)
    chosen = split or ("test" if "test" in found.metrics else "validation")
    content = _content(found, artifact, _evaluation(found, chosen), explain=format == "html")
    if format in ("pdf", "png"):
        return found, chosen, typeset(content, format=format)
    text: str = _html(content) if format == "html" else _template("report.md", markdown=True).render(content)
    return found, chosen, text.encode()


def _format_of(output: str | Path | None) -> Format:
    path = Path(output) if output is not None else None
    if path is None or (path.exists() and not path.is_file()):  # a pipe, or a folder, which is refused later
        return "html"
    found = _EXTENSIONS.get(path.suffix.lower())
    if found is None:
        raise UsageError(
            f"--output {path}: {path.suffix} names no format of a page",
            hint=f"give --format, or an extension: {', '.join(filter(None, _EXTENSIONS))}",
        )
    return found


def _evaluation(run: Run, split: str) -> dict[str, Any]:
    """What `textclf eval --json` says of a split: as it was kept, or now."""
    path = run.folder / runs.EVALUATIONS / f"{split}.json"
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        kept = {}
    # One of an earlier version knew less.
    if not {"slices", "mistakes", "intervals", "reliability"} <= set(kept):
        kept = json.loads(json.dumps(evaluate(run, split=split).as_dict()))
    return dict(kept)


def _content(run: Run, artifact: folder.Artifact, document: Mapping[str, Any], *, explain: bool) -> dict[str, Any]:
    """All that the page says. Numbers are those of the documents; strings are made fit to be shown.

    explain: say which words the mistakes rest on.
    """
    facts = artifact.facts or folder.Facts(max_length=artifact.max_length)
    seen = _shown({"document": document, "run": run.document, "labels": facts.label_counts, "name": run.name})
    document, split = seen["document"], seen["document"]["split"]
    headline = metrics_of(artifact.label_set).HEADLINE
    questions = (document.get("questions") or {}).get("all")
    right, total = _right(document), _rows(document)
    if questions:  # in form binary a row is a choice, and of those a model that knows nothing has most right
        right, total = questions["right"], questions["questions"]
    values = {split: document["metrics"], **{name: of for name, of in run.metrics.items() if name != split}}
    intervals = {**facts.intervals, split: document["intervals"]}
    findings, data_note = _findings(run)
    return {
        "version": __version__,
        "name": seen["name"],
        "document": document,
        "run": seen["run"],
        "split": split,
        "headline": [
            (METRICS[name][0], document["metrics"][name])
            for name in (*(["question_accuracy"] if questions else []), *headline)
        ],
        "interval": wilson(right, total),
        "right": right,
        "total": total,
        "asked": "questions" if questions else "texts",
        "chance": questions["chance"] if questions else None,
        "splits": list(values),
        "metrics": [
            (words, [(of.get(name), intervals.get(one, {}).get(name)) for one, of in values.items()])
            for name, (words, _) in METRICS.items()
            if document["metrics"].get(name) is not None
        ],
        "beside": _beside(run, facts, values),
        "curves": _curves(run, headline[0]),
        "reliability": charts.reliability(
            [Bin(**one) for one in document["reliability"]], pairs=document["coverage"] is None
        ),
        "coverage": charts.coverage([(point["coverage"], point["accuracy"]) for point in document["coverage"]])
        if document["coverage"]
        else "",
        **_confusions(document),
        "labelled": sorted(document["per_label"], key=lambda one: (one["f1"] is None, one["f1"] or 0.0, one["label"])),
        "mistakes": _explained(document["mistakes"][:_MISTAKES], artifact if explain else None),
        "longest": _LONGEST,
        "lengths": document["slices"]["by_length"],
        "frequencies": document["slices"]["by_label_frequency"],
        "columns": document["slices"]["by_column"],
        "facts": _shown(facts.__dict__),
        "train_counts": seen["labels"],
        "findings": _shown([(one.message, one.hint) for one in findings]),
        "data_note": data_note,
        "configuration": _shown(configuration(facts.config)),
        "environment": _shown(facts.environment),
    }


def _beside(run: Run, facts: folder.Facts, values: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The baselines and, last, the model as rows; as columns the metrics that baselines have of each split."""
    splits = [split for split in values if baselines(facts, split)]
    known = baselines(facts, *splits) if splits else []
    columns = [(split, name) for split in splits for name in known[0]["metrics"][split] if name in METRICS]
    model = {"rows": facts.splits.get("train"), "seconds": run.document.get("seconds"), "metrics": values}
    return {
        "columns": [(split, METRICS[name][0]) for split, name in columns],
        "rows": [
            {
                "title": BASELINES.get(one.get("name", ""), "this model"),
                "values": [one["metrics"][split].get(name) for split, name in columns],
                **{name: one.get(name) for name in ("rows", "seconds")},
            }
            for one in [*known, model]
        ],
    }


def _rows(document: Mapping[str, Any]) -> int:
    return int(document["metrics"]["rows"])


def _right(document: Mapping[str, Any]) -> int:
    metrics = document["metrics"]
    return round(float(metrics.get("accuracy", metrics.get("subset_accuracy", 0))) * _rows(document))


def _confusions(document: Mapping[str, Any]) -> dict[str, Any]:
    """Matrices and confused pairs, of labels of which a text has one; nothing of others."""
    if "confusions" not in document:
        return {"pairs": [], "zoomed": "", "whole": "", "labels": len(document["per_label"])}
    pairs = [Confusion(**one) for one in document["confusions"]]
    support = {one["label"]: one["support"] for one in document["per_label"]}
    answered = {pair.predicted for pair in pairs}
    zoomed, whole = charts.confusion_matrices(support, pairs)
    return {
        "pairs": [(pair, _examples(document, pair)) for pair in pairs[:_PAIRS]],
        "more_pairs": max(0, len(pairs) - _PAIRS),
        "zoomed": zoomed,
        "whole": whole,
        "labels": sum(1 for name, rows in support.items() if rows or name in answered),
    }


def _examples(document: Mapping[str, Any], pair: Confusion) -> list[dict[str, Any]]:
    alike = (one for one in document["mistakes"] if (one["target"], one["predicted"]) == (pair.target, pair.predicted))
    return [one for one, _ in zip(alike, range(_EXAMPLES), strict=False)]


def _explained(mistakes: Sequence[Mapping[str, Any]], artifact: folder.Artifact | None) -> list[dict[str, Any]]:
    """The mistakes with `parts`, where they are of single texts: pieces of the text and how much each speaks for the
    label that was answered: 1 or 2, 0 for little, -1 for against it."""
    found = [{**one, "parts": None} for one in mistakes]
    if artifact is None or artifact.form != "text" or not found:
        return found
    try:
        answers = load(artifact.folder, device="cpu").predictions([one["text"] for one in mistakes], explain=True)
    except TextclfError:  # the evaluation is kept, and says the rest without the model
        return found
    for one, answer in zip(found, answers, strict=True):
        heavy = max((abs(word.weight) for word in answer.words or ()), default=0.0)
        if not heavy or answer.label != _first(one["predicted"]):
            continue
        parts: list[tuple[str, int]] = []
        done = 0
        for word in answer.words or ():
            share = word.weight / heavy
            level = 2 if share > 0.5 else 1 if share > 0.15 else -1 if share < -0.15 else 0
            parts += [(one["text"][done : word.start], 0), (word.text, level)]
            done = word.end
        one["parts"] = [*parts, (one["text"][done:], 0)]
    return found


def _first(label: str | Sequence[str]) -> str | None:
    return label if isinstance(label, str) else next(iter(label), None)


def _curves(run: Run, metric: str) -> list[str]:
    """Plots of the losses and of the first metric over the steps; none where nothing was trained but a probe."""
    history = run.history
    loss = [(line["step"], line["loss"]) for line in history if isinstance(line.get("loss"), float)]
    measured = [(line["step"], line["validation"]) for line in history if isinstance(line.get("validation"), dict)]
    if not loss:
        return []
    losses = {"train": loss, "validation": [(step, of["loss"]) for step, of in measured if "loss" in of]}
    words = METRICS[metric][0]
    values = [(step, of[metric]) for step, of in measured if of.get(metric) is not None]
    return [
        charts.lines("Loss by step", losses, unit="loss (nats)"),
        *([charts.lines(f"Validation {words} by step", {words: values}, unit=words)] if values else []),
    ]


def _findings(run: Run) -> tuple[tuple[Finding, ...], str | None]:
    """What preparing the data found; or why it is not known."""
    from textclf.config import build
    from textclf.data.preparation import prepare

    try:
        prepared = prepare(build(run.config, where=str(run.folder / runs.CONFIG)).data)
    except TextclfError:
        return (), "The data cannot be read where the run found it, so it was not examined for this page."
    if prepared.fingerprint != run.document.get("fingerprint"):
        return (), "The data has changed since the run, so what is found in it now is not said of the run."
    return prepared.findings, None


def _shown(value: Any) -> Any:
    """The same values with strings that a page can hold: no control characters, no half of a character pair."""
    if isinstance(value, str):
        return _UNSEEN.sub(lambda match: f"\\x{ord(match[0]):02x}", value)
    if isinstance(value, Mapping):
        return {_shown(key): _shown(one) for key, one in value.items()}
    return [_shown(one) for one in value] if isinstance(value, (list, tuple)) else value


def _html(content: Mapping[str, Any]) -> str:
    from markupsafe import Markup

    style, script = ((_PAGE / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    drawn = {name: Markup(content[name]) for name in ("zoomed", "whole", "reliability", "coverage")}  # noqa: S704  # written by charts
    page: str = _template("report.html").render(
        {**content, **drawn, "curves": [Markup(one) for one in content["curves"]]},  # noqa: S704
        style=Markup(style),  # noqa: S704  # our own files
        script=Markup(script),  # noqa: S704
        style_hash=_hash(style),
        script_hash=_hash(script),
        bar=lambda *shares: Markup(charts.bar(*shares)),  # noqa: S704
    )
    return page


def _template(name: str, *, markdown: bool = False) -> Any:
    import jinja2

    surroundings = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGE),
        autoescape=not markdown,  # noqa: S701  # Markdown escapes every foreign text by its own rules, below
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    surroundings.filters |= {"names": _names, "number": number, "md": escaped}
    return surroundings.get_template(f"{name}.jinja")


def _names(label: str | Iterable[str]) -> str:
    """A label, or several of them, or none, as one text."""
    return label if isinstance(label, str) else ", ".join(label) or "(none)"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
