"""evaluate(): a finished model against labelled texts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textclf import atomic
from textclf.abstention import Abstention, CoveragePoint, abstain, as_points, coverage_curve
from textclf.answers import Answers
from textclf.artifact import figures, folder, hub, runs
from textclf.artifact.runs import Run
from textclf.data.encoding import Encoded, encode_rows
from textclf.data.forms import answers_of, questions_of
from textclf.data.labelled import read_column, read_labelled
from textclf.data.preparation import prepare
from textclf.data.rows import Rows
from textclf.errors import DataError, GateError, ResourceError, UsageError
from textclf.evaluation.mistakes import Mistake, find_mistakes
from textclf.evaluation.questions import QuestionReport, report_questions
from textclf.evaluation.slices import Slices, by_label_frequency, slice_by_column, slice_by_number
from textclf.inference import runtimes
from textclf.intervals import Interval, intervals
from textclf.labels import LabelSet
from textclf.metrics import (
    LOWER_IS_BETTER,
    AnyMetrics,
    Bin,
    Confusion,
    LabelErrors,
    LabelMetrics,
    Metrics,
    MultiLabelMetrics,
    confusions,
    judged_by,
    label_errors,
    measure_labels,
    reliability,
)
from textclf.scope import ScopeReport, energy, measure_scope

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvalReport:
    """How a model did on one split.

    truncated: texts longer than the model reads at once; overflow: what became of them. questions: how questions with
    choices were answered, None for other data; `metrics` then are of rows, which in form binary are single choices.
    confusions: every confused pair, most often first, where a text has one label. label_errors: labels that were
    missed or wrongly added, where it may have several. The other is None.
    intervals: the 95 % interval of every metric that is defined, by its name. reliability: how confidence and truth go
    together, by bins of confidence. coverage: what answering the surest texts only would bring, None where a text may
    have several labels; abstention: what it brought at the threshold that was asked for, None where none was.
    scope: how texts out of scope are told, None where that was not asked for; they count nowhere else.
    wrong: texts that were answered wrongly; mistakes: the surest of them, and some of each frequent confusion.
    baselines: what simpler answers reached on the same texts when the model was made, as `Facts.baselines`; none for
    other data.
    """

    model: str
    dataset: str
    split: str
    metrics: AnyMetrics
    intervals: dict[str, Interval]
    per_label: tuple[LabelMetrics, ...]
    confusions: tuple[Confusion, ...] | None
    label_errors: tuple[LabelErrors, ...] | None
    slices: Slices
    wrong: int
    mistakes: tuple[Mistake, ...]
    truncated: int
    seconds: float
    reliability: tuple[Bin, ...]
    coverage: tuple[CoveragePoint, ...] | None
    abstention: Abstention | None = None
    scope: ScopeReport | None = None
    overflow: str = "truncate"
    questions: QuestionReport | None = None
    baselines: tuple[dict[str, Any], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON: what `textclf eval --json` prints."""
        mistakes = {"confusions": self.confusions, "label_errors": self.label_errors}
        return {
            "model": self.model,
            "dataset": self.dataset,
            "split": self.split,
            "metrics": self.metrics.as_dict(),
            "intervals": {name: asdict(one) for name, one in self.intervals.items()},
            "baselines": list(self.baselines),
            "per_label": [asdict(one) for one in self.per_label],
            **{name: [asdict(one) for one in found] for name, found in mistakes.items() if found is not None},
            "reliability": [asdict(one) for one in self.reliability],
            "coverage": None if self.coverage is None else as_points(self.coverage),
            "abstention": None if self.abstention is None else asdict(self.abstention),
            "scope": None if self.scope is None else self.scope.as_dict(),
            "questions": None if self.questions is None else asdict(self.questions),
            "slices": asdict(self.slices),
            "wrong": self.wrong,
            "mistakes": [asdict(one) for one in self.mistakes],
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
    abstain_below: float | None = None,
    target_accuracy: float | None = None,
    out_of_scope: float | None = None,
    out_of_scope_label: str | None = None,
    slice_by: tuple[str, ...] = (),
    device: str = "auto",
    runtime: str = "auto",
    head: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> EvalReport:
    """Score a model on a split.

    model: run, run name, folder or Hub id; None is the latest finished run. dataset: another data set with the
    same label names; None is the one that the run was made from, split as it was then. split: None is test
    where there is one, else validation. abstain_below, target_accuracy: report what answering from a threshold on
    brings, given as it is or as the accuracy on validation that chooses it. out_of_scope_label: rows of this label are
    none of the model's and count nowhere but in `scope`, which says how well they are told; out_of_scope: what
    refusing texts whose `in_scope` is below this share brings. slice_by: columns of the data by whose values results
    are given too. device, runtime, head: as for `load`. on_progress: called with texts done and texts in all.

    Raises UsageError where a model without a run is given no data set or the threshold cannot be had, DataError for
    labels that the model does not know (file and row), and what reading the model and the data raises.
    """
    runtimes.check(runtime, device)
    artifact = folder.read(hub.locate(model))
    threshold = artifact.threshold(abstain_below=abstain_below, target_accuracy=target_accuracy)
    if out_of_scope is not None and not 0 <= out_of_scope <= 1:
        raise UsageError(f"--out-of-scope is {out_of_scope}; it is a share, from 0 to 1")
    scale = artifact.scope() if out_of_scope is not None or out_of_scope_label is not None else None
    rows, split, name = labelled_rows(
        artifact,
        dataset,
        split,
        text_column=text_column,
        text_pair_column=text_pair_column,
        label_column=label_column,
        label_delimiter=label_delimiter,
        label_columns=label_columns,
        columns=columns,
    )
    rows, outside = (rows, None) if out_of_scope_label is None else _apart(rows, out_of_scope_label, artifact.label_set)
    run = run_of(artifact)
    values = {column: _values(column, rows, dataset, columns, run) for column in slice_by}
    started = time.monotonic()
    known = targets(rows, artifact.label_set)
    computing = runtimes.open_runtime(artifact, device=device, runtime=runtime, head=head)
    logits_NC, encoded = _read(artifact, rows, computing, on_progress)
    answers = _answers(artifact, rows, known, logits_NC)
    scope = None
    if scale is not None:
        outside_MC = (
            np.zeros((0, len(artifact.label_set))) if outside is None else _read(artifact, outside, computing, None)[0]
        )
        scope = measure_scope(
            energy(logits_NC),
            answers.right,
            energy(outside_MC),
            scale,
            label=out_of_scope_label,
            threshold=out_of_scope,
        )
    targets_N, probs_NC, label_set = answers.targets, answers.probs_NC, artifact.label_set
    metrics, questions = answers.measure(), questions_of(rows)
    per_label = measure_labels(targets_N, probs_NC, label_set)
    wrong, mistakes = find_mistakes(rows, targets_N, probs_NC, label_set)
    report = EvalReport(
        model=runs.title(artifact.folder),
        dataset=name,
        split=split,
        metrics=metrics,
        intervals=intervals(answers, metrics),
        per_label=per_label,
        confusions=confusions(targets_N, probs_NC, label_set),
        label_errors=label_errors(targets_N, probs_NC, label_set),
        slices=Slices(
            by_length=slice_by_number(encoded.tokens_read, "tokens", targets_N, probs_NC, label_set),
            by_label_frequency=by_label_frequency(per_label, artifact.facts.label_counts if artifact.facts else {}),
            by_column={
                column: slice_by_column(of_rows, targets_N, probs_NC, label_set) for column, of_rows in values.items()
            },
        ),
        wrong=wrong,
        mistakes=mistakes,
        reliability=reliability(targets_N, probs_NC, label_set),
        coverage=None if label_set.multi else coverage_curve(answers.confidence, answers.right),
        abstention=None
        if threshold is None
        else abstain(answers.confidence, answers.right, threshold, target=target_accuracy),
        scope=scope,
        truncated=encoded.texts_cut,
        seconds=time.monotonic() - started,
        overflow=artifact.overflow,
        questions=None if questions is None else report_questions(questions, probs_NC, label_set),
        baselines=tuple(figures.baselines(artifact.facts, split)) if artifact.facts and dataset is None else (),
    )
    # A page shows what is kept beside the figures of the weights as they are.
    if run is not None and dataset is None and runtime not in runtimes.ROUNDED:
        try:
            atomic.write_json(run.folder / runs.EVALUATIONS / f"{split}.json", report.as_dict())
        except ResourceError as err:  # a colleague's run, or a full disk: the figures are there all the same
            logger.warning("not kept for textclf report: %s", err.message)
    return report


def answer(
    artifact: folder.Artifact,
    rows: Rows,
    *,
    device: str = "auto",
    runtime: str = "auto",
    head: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[Answers, Encoded]:
    """What a model says to labelled rows, beside what is true, and the rows as it read them.

    Raises DataError for labels that the model does not know (file and row), and what reading the model raises.
    """
    known = targets(rows, artifact.label_set)
    computing = runtimes.open_runtime(artifact, device=device, runtime=runtime, head=head)
    logits_NC, encoded = _read(artifact, rows, computing, on_progress)
    return _answers(artifact, rows, known, logits_NC), encoded


def _answers(artifact: folder.Artifact, rows: Rows, known: np.ndarray, logits_NC: np.ndarray) -> Answers:
    label_set = artifact.label_set
    return answers_of(known, label_set.probabilities(logits_NC), label_set, questions_of(rows))


def _read(
    artifact: folder.Artifact,
    rows: Rows,
    computing: runtimes.Runtime,
    on_progress: Callable[[int, int], None] | None,
) -> tuple[np.ndarray, Encoded]:
    """Logits of rows, (rows, num_labels) float32, and the rows as the model read them."""
    encoded = encode_rows(
        rows, artifact.tokenizer(), max_length=artifact.max_length, prompt=artifact.prompt, overflow=artifact.overflow
    )
    logits_RC = computing.logits(
        encoded, on_progress=(lambda done: on_progress(done, len(encoded))) if on_progress is not None else None
    )
    runtimes.check_finite(logits_RC, artifact)
    return encoded.per_text(logits_RC), encoded


def _apart(rows: Rows, label: str, label_set: LabelSet) -> tuple[Rows, Rows]:
    """Rows of the model's labels, and rows of the label that stands for texts out of its scope.

    Raises UsageError for a label that the model gives, DataError where there are no rows of either kind.
    """
    if label in label_set.names:
        raise UsageError(
            f"--out-of-scope-label {label}: the model gives this label itself, so its texts are in its scope",
            hint="name the label of texts that it has not learnt from",
        )
    outside_N = np.array([one == label for one in rows.labels], dtype=bool)
    if not outside_N.any():
        raise DataError(f"{rows.where(0)} and the rows after it: none has the label {label!r} of texts out of scope")
    if outside_N.all():
        raise DataError(
            f"{rows.where(0)} and the rows after it: all have the label {label!r}, and none is in scope",
            hint="put them together with labelled texts of the model's own kind",
        )
    return rows.take(np.flatnonzero(~outside_N)), rows.take(np.flatnonzero(outside_N))


def check(report: EvalReport, gates: list[Gate]) -> None:
    """Raises GateError naming every gate that the report does not pass."""
    failures = [failure for gate in gates if (failure := gate.failure(report.metrics))]
    if failures:
        raise GateError(f"{report.split} of {report.dataset}: {'; '.join(failures)}")


def run_of(artifact: folder.Artifact) -> Run | None:
    """The run that made a model, where the model still lies in it."""
    return runs.read(artifact.folder.parent) if artifact.folder.name == runs.MODEL else None


def labelled_rows(
    artifact: folder.Artifact, dataset: str | Path | None, split: str | None, **columns: Any
) -> tuple[Rows, str, str]:
    """The rows that a model is to be measured on, the split's name, the data set's name: those of `dataset`, whose
    columns are called so, or those of the model's own data. Raises what `own_rows` and `read_labelled` do, UsageError
    for columns without `dataset`."""
    if dataset is None:
        given = [f"--{name.replace('_', '-')}" for name, value in columns.items() if value is not None]
        if given:
            raise UsageError(
                f"{given[0]} was given without --dataset; a run's own data is read as the run read it",
                hint="name the data set with --dataset, or leave the columns out",
            )
        return own_rows(artifact, split)
    split = split or "test"
    rows = read_labelled(dataset, split=split, form=artifact.form, **columns)
    return rows, split, Path(dataset).name if Path(dataset).exists() else str(dataset)


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


def _values(
    column: str, rows: Rows, dataset: str | Path | None, columns: tuple[str, ...] | None, run: Run | None
) -> list[Any]:
    """What a column says of each row, where the rows are of a data set that was named or of a run's own."""
    if dataset is None:
        assert run is not None
        data = run.config["data"]
        dataset, columns = data["dataset"], tuple(data["columns"]) if data.get("columns") else None
    return read_column(dataset, column, rows, columns_of_file=columns)


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
