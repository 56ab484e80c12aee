"""evaluate(): a finished model against labelled texts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from textclf import atomic
from textclf.artifact import folder, hub, runs
from textclf.artifact.runs import Run
from textclf.data.encoding import encode_rows
from textclf.data.forms import questions_of
from textclf.data.preparation import prepare, read_labelled
from textclf.data.rows import Rows
from textclf.errors import DataError, GateError, UsageError
from textclf.evaluation.questions import QuestionReport, report_questions
from textclf.inference import runtimes
from textclf.labels import LabelSet
from textclf.metrics import (
    LOWER_IS_BETTER,
    AnyMetrics,
    Confusion,
    LabelErrors,
    LabelMetrics,
    Metrics,
    MultiLabelMetrics,
    confusions,
    judged_by,
    label_errors,
    measure,
    measure_labels,
)


@dataclass(frozen=True)
class EvalReport:
    """How a model did on one split.

    truncated: texts longer than the model reads at once; overflow: what became of them. questions: how questions with
    choices were answered, None for other data; `metrics` then are of rows, which in form binary are single choices.
    confusions: every confused pair, most often first, where a text has one label. label_errors: labels that were
    missed or wrongly added, where it may have several. The other is None.
    """

    model: str
    dataset: str
    split: str
    metrics: AnyMetrics
    per_label: tuple[LabelMetrics, ...]
    confusions: tuple[Confusion, ...] | None
    label_errors: tuple[LabelErrors, ...] | None
    truncated: int
    seconds: float
    overflow: str = "truncate"
    questions: QuestionReport | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON: what `textclf eval --json` prints."""
        mistakes = {"confusions": self.confusions, "label_errors": self.label_errors}
        return {
            "model": self.model,
            "dataset": self.dataset,
            "split": self.split,
            "metrics": self.metrics.as_dict(),
            "per_label": [asdict(one) for one in self.per_label],
            **{name: [asdict(one) for one in found] for name, found in mistakes.items() if found is not None},
            "questions": None if self.questions is None else asdict(self.questions),
            "truncated": self.truncated,
            "overflow": self.overflow,
            "seconds": round(self.seconds, 3),
        }


@dataclass(frozen=True)
class Gate:
    """A bound that a metric must keep: `accuracy=0.9` means at least, `loss=0.3` at most."""

    metric: str
    bound: float

    @classmethod
    def parse(cls, text: str) -> Gate:
        """Read `metric=bound`. Raises UsageError for anything else."""
        name, _, bound = text.partition("=")
        names = list(dict.fromkeys([*judged_by(Metrics), *judged_by(MultiLabelMetrics)]))
        if name not in names:
            raise UsageError(f"--fail-under {text}: {name!r} is no metric", hint=f"known: {', '.join(names)}")
        try:
            return cls(name, float(bound))
        except ValueError as err:
            raise UsageError(
                f"--fail-under {text}: not of the form metric=number", hint="for example accuracy=0.9"
            ) from err

    def failure(self, metrics: AnyMetrics) -> str | None:
        """A sentence if the metric misses the bound. Raises UsageError where these metrics do not have it."""
        if self.metric not in judged_by(type(metrics)):
            raise UsageError(
                f"--fail-under {self.metric}: this model is not measured by it",
                hint=f"it is by {', '.join(judged_by(type(metrics)))}",
            )
        value = getattr(metrics, self.metric)
        if value is None:
            return f"{self.metric} is not defined here (it needs two labels that both occur, or questions with choices)"
        if self.metric in LOWER_IS_BETTER:
            return f"{self.metric} is {value:.4f}, above {self.bound:g}" if not value <= self.bound else None
        return f"{self.metric} is {value:.4f}, under {self.bound:g}" if not value >= self.bound else None


def evaluate(
    model: str | Path | Run | None = None,
    *,
    dataset: str | Path | None = None,
    split: str | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    label_delimiter: str | None = None,
    label_columns: tuple[str, ...] | None = None,
    columns: tuple[str, ...] | None = None,
    device: str = "auto",
    runtime: str = "auto",
    head: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> EvalReport:
    """Score a model on a split.

    model: run, run name, folder or Hub id; None is the latest finished run. dataset: another data set with the
    same label names; None is the one that the run was made from, split as it was then. split: None is test
    where there is one, else validation. device, runtime, head: as for `load`. on_progress: called with texts
    done and texts in all.

    Raises UsageError where a model without a run is given no data set, DataError for labels that the model
    does not know (file and row), and what reading the model and the data raises.
    """
    runtimes.check(runtime, device)
    place = hub.locate(model)
    artifact = folder.read(place)
    run = run_of(artifact)
    if dataset is not None:
        split, name = split or "test", Path(dataset).name if Path(dataset).exists() else str(dataset)
        rows = read_labelled(
            dataset,
            split=split,
            text_column=text_column,
            text_pair_column=text_pair_column,
            label_column=label_column,
            label_delimiter=label_delimiter,
            label_columns=label_columns,
            columns=columns,
            form=artifact.form,
        )
    else:
        rows, split, name = own_rows(artifact, split)
    targets_N = targets(rows, artifact.label_set)
    started = time.monotonic()
    computing = runtimes.open_runtime(artifact, device=device, runtime=runtime, head=head)
    encoded = encode_rows(
        rows, artifact.tokenizer(), max_length=artifact.max_length, prompt=artifact.prompt, overflow=artifact.overflow
    )
    logits_RC = computing.logits(
        encoded, on_progress=(lambda done: on_progress(done, len(encoded))) if on_progress is not None else None
    )
    runtimes.check_finite(logits_RC, artifact)
    probs_NC = artifact.label_set.probabilities(encoded.per_text(logits_RC))
    metrics = measure(targets_N, probs_NC, artifact.label_set)
    answered = None
    questions = questions_of(rows)
    if questions is not None and isinstance(metrics, Metrics):
        answered = report_questions(questions, probs_NC, artifact.label_set)
        metrics = replace(metrics, question_accuracy=answered.all.accuracy)
    report = EvalReport(
        model=runs.title(place),
        dataset=name,
        split=split,
        metrics=metrics,
        per_label=measure_labels(targets_N, probs_NC, artifact.label_set),
        confusions=confusions(targets_N, probs_NC, artifact.label_set),
        label_errors=label_errors(targets_N, probs_NC, artifact.label_set),
        truncated=encoded.texts_cut,
        seconds=time.monotonic() - started,
        overflow=artifact.overflow,
        questions=answered,
    )
    if run is not None and dataset is None:
        atomic.write_json(run.folder / runs.EVALUATIONS / f"{split}.json", report.as_dict())
    return report


def check(report: EvalReport, gates: list[Gate]) -> None:
    """Raises GateError naming every gate that the report does not pass."""
    failures = [failure for gate in gates if (failure := gate.failure(report.metrics))]
    if failures:
        raise GateError(f"{report.split} of {report.dataset}: {'; '.join(failures)}")


def run_of(artifact: folder.Artifact) -> Run | None:
    """The run that made a model, where the model still lies in it."""
    return runs.read(artifact.folder.parent) if artifact.folder.name == runs.MODEL else None


def own_rows(artifact: folder.Artifact, split: str | None) -> tuple[Rows, str, str]:
    """A split of the data set that a model was made from: rows, the split's name, the data set's name.

    Raises UsageError for a model that is in no run, DataError where its data has changed since.
    """
    run = run_of(artifact)
    if run is None:
        raise UsageError(
            f"{artifact.folder.name} is not a run, so its data set is not known here",
            hint="name one with --dataset",
        )
    from textclf.config import build

    # Its data alone: what the head is made of may not be installed any more.
    prepared = prepare(build({"data": run.config.get("data", {})}, where=str(run.folder / runs.CONFIG)).data)
    if prepared.fingerprint != run.document.get("fingerprint"):
        raise DataError(
            f"{prepared.name} has changed since run {run.name} was trained on it",
            hint="give the data to score on by --dataset; rows of another split may have been trained on",
        )
    chosen = split or ("test" if "test" in prepared.splits else "validation")
    if chosen not in prepared.splits:
        raise UsageError(f"{prepared.name} has no split {chosen!r}", hint=f"it has {', '.join(prepared.splits)}")
    return prepared.rows(chosen), chosen, prepared.name


def targets(rows: Rows, label_set: LabelSet) -> np.ndarray:
    """The targets of rows, as the label set has them. Raises DataError naming file and row of an unknown label."""
    if rows.kind != label_set.kind:
        has, asks = ("one label", "any number") if rows.kind == "single" else ("any number of labels", "one")
        raise DataError(
            f"{rows.where(0)}: the rows of this data have {has}, and the model gives {asks}",
            hint="labels in one text are told apart by --label-delimiter, in columns of 0 and 1 by --label-columns"
            if rows.kind == "single"
            else None,
        )
    labels = rows.labels
    unknown = label_set.unknown(labels)
    if unknown is not None:
        index, name = unknown
        raise DataError(
            f"{rows.where(index)}: label {name!r} is not among the {len(label_set)} labels of this model",
            hint=f"its labels start with {', '.join(label_set.names[:5])}",
        )
    return label_set.targets(labels)
