"""evaluate(): a finished model against labelled texts."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textclf import atomic
from textclf.artifact import folder, hub, runs
from textclf.artifact.runs import Run
from textclf.data.encoding import encode
from textclf.data.preparation import prepare, read_labelled
from textclf.data.rows import Rows
from textclf.errors import DataError, GateError, UsageError
from textclf.inference import runtimes
from textclf.labels import LabelSet
from textclf.metrics import LOWER_IS_BETTER, Confusion, LabelMetrics, Metrics, confusions, measure, measure_labels


@dataclass(frozen=True)
class EvalReport:
    """How a model did on one split.

    truncated: rows longer than the model reads. confusions: every confused pair, most often first.
    """

    model: str
    dataset: str
    split: str
    metrics: Metrics
    per_label: tuple[LabelMetrics, ...]
    confusions: tuple[Confusion, ...]
    truncated: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON: what `textclf eval --json` prints."""
        return {
            "model": self.model,
            "dataset": self.dataset,
            "split": self.split,
            "metrics": self.metrics.as_dict(),
            "per_label": [asdict(one) for one in self.per_label],
            "confusions": [asdict(one) for one in self.confusions],
            "truncated": self.truncated,
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
        names = [key for key, kind in Metrics.__annotations__.items() if "float" in str(kind)]
        if name not in names:
            raise UsageError(f"--fail-under {text}: {name!r} is no metric", hint=f"known: {', '.join(names)}")
        try:
            return cls(name, float(bound))
        except ValueError as err:
            raise UsageError(
                f"--fail-under {text}: not of the form metric=number", hint="for example accuracy=0.9"
            ) from err

    def failure(self, metrics: Metrics) -> str | None:
        """A sentence if the metric misses the bound."""
        value = getattr(metrics, self.metric)
        if value is None:
            return f"{self.metric} is not defined here (it needs two labels that both occur)"
        if self.metric in LOWER_IS_BETTER:
            return f"{self.metric} is {value:.4f}, above {self.bound:g}" if not value <= self.bound else None
        return f"{self.metric} is {value:.4f}, under {self.bound:g}" if not value >= self.bound else None


def evaluate(
    model: str | Path | Run | None = None,
    *,
    dataset: str | Path | None = None,
    split: str | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    columns: tuple[str, ...] | None = None,
    device: str = "auto",
    runtime: str = "auto",
    on_progress: Callable[[int, int], None] | None = None,
) -> EvalReport:
    """Score a model on a split.

    model: run, run name, folder or Hub id; None is the latest finished run. dataset: another data set with the
    same label names; None is the one that the run was made from, split as it was then. split: None is test
    where there is one, else validation. device, runtime: as for `load`. on_progress: called with texts
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
        rows = read_labelled(dataset, split=split, text_column=text_column, label_column=label_column, columns=columns)
    else:
        rows, split, name = own_rows(artifact, split)
    targets_N = targets(rows, artifact.label_set)
    started = time.monotonic()
    computing = runtimes.open_runtime(artifact, device=device, runtime=runtime)
    texts = rows.text_column
    encoded = encode(texts, artifact.tokenizer(), max_length=artifact.max_length, prompt=artifact.prompt)
    logits_NC = computing.logits(
        encoded, on_progress=(lambda done: on_progress(done, len(texts))) if on_progress is not None else None
    )
    probs_NC = artifact.label_set.probabilities(logits_NC)
    report = EvalReport(
        model=runs.title(place),
        dataset=name,
        split=split,
        metrics=measure(targets_N, probs_NC, artifact.label_set),
        per_label=measure_labels(targets_N, probs_NC, artifact.label_set),
        confusions=confusions(targets_N, probs_NC, artifact.label_set),
        truncated=int(encoded.truncated.sum()),
        seconds=time.monotonic() - started,
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

    prepared = prepare(build(run.config, where=str(run.folder / runs.CONFIG)).data)
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
    """The label ids of rows: (rows,) int64. Raises DataError naming file and row of a label that is unknown."""
    labels = rows.labels
    unknown = next((i for i, label in enumerate(labels) if label not in label_set.label2id), None)
    if unknown is not None:
        raise DataError(
            f"{rows.where(unknown)}: label {labels[unknown]!r} is not among the {len(label_set)} labels of this model",
            hint=f"its labels start with {', '.join(label_set.names[:5])}",
        )
    return label_set.targets(label for label in labels if label is not None)
