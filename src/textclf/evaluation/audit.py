"""Label errors: rows whose label a model that has not seen them doubts, for a person to review.

A row is reported where the model finds another label more probable, and rows are ranked by the probability of their own
("self-confidence", Kuan and Mueller 2022, "Model-agnostic label quality scoring"). On banking77 with injected errors it
found more than confident learning selects (Northcutt et al. 2021), which in a small set was nothing.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import coo_array  # type: ignore[import-untyped]
from scipy.sparse.csgraph import connected_components  # type: ignore[import-untyped]

from textclf.artifact import runs
from textclf.config import RunConfig, build
from textclf.data import quality
from textclf.data.copies import Copies, find_copies
from textclf.data.preparation import prepare
from textclf.data.rows import PAIR, Rows, codes
from textclf.errors import DataError, UsageError
from textclf.labels import Label, LabelSet
from textclf.model.backbone import pretrained_pooling
from textclf.model.features import features
from textclf.proportions import wilson
from textclf.training.baselines import lexical_features
from textclf.training.events import Notice, Observer, Phase, ignore
from textclf.training.probe import held_out_probabilities
from textclf.training.workbench import assemble, short_name

FOLDS = 5


@dataclass(frozen=True)
class Doubt:
    """A row whose label may be wrong.

    score: the probability of the row's label, 0 to 1, by a model that has not seen the row; the lower, the more
    doubtful. Of several labels a row, the least of any label's being there, or not.
    reason: `copy`, a row of the same or nearly the same text has another label, which `see` names; or `model`.
    """

    file: str
    row: int
    split: str
    text: str
    text_pair: str | None
    label: Label
    suggested: Label
    score: float
    reason: str
    see: str | None = None


@dataclass(frozen=True)
class Audit:
    """What was audited, and the doubtful rows, the most doubtful first; those with unlike copies before all others.

    accuracy: share of the rows whose label a model that had not seen them gave, too. features: what it read: the name
    of a pretrained model, or `TF-IDF`. seconds: of work.
    """

    dataset: str
    fingerprint: str
    rows: int
    features: str
    accuracy: float
    doubts: tuple[Doubt, ...]
    seconds: float


def audit(
    reference: str | Path | None = None,
    *,
    model: str | Path | None = None,
    split: str | None = None,
    device: str = "auto",
    seed: int = 0,
    on_event: Observer = ignore,
    **settings: Any,
) -> Audit:
    """Find the rows of a data set whose labels are doubtful.

    reference: a data set as `prepare` takes it, or a run, whose data and pretrained model are taken; None: the latest
        run.
    model: pretrained model whose frozen features tell texts apart, a Hub id or folder; None: the run's, or words
        (TF-IDF) where there is no run.
    split: train, validation or test; None: all rows. Each row is judged by models that learnt from others.
    settings: fields of DataConfig, such as `text_column="body"`, with a data set.
    Raises what `prepare` raises, and UsageError for questions with choices, whose labels say where an answer stands.
    """
    started = time.monotonic()
    config, reads_words = _config(reference, model, device, settings)
    prepared = prepare(config.data)
    if prepared.form not in ("text", "pair"):
        raise UsageError(
            "audit is for texts and pairs of texts; the label of a question says where its answer stands",
            hint="name a data set of texts, or a run on one",
        )
    label_set, chosen = prepared.label_set, [split] if split is not None else list(prepared.splits)
    rows = {name: prepared.rows(name) for name in chosen}
    targets = np.concatenate([label_set.targets(part.labels) for part in rows.values()])
    if np.count_nonzero(label_set.counts(targets)) < 2 or len(targets) < 2 * FOLDS:
        raise DataError(
            f"{prepared.name}: {len(targets):,} rows are too few, or all of one label, to learn what is usual",
            hint="audit all splits together, without --split" if split is not None else None,
        )
    if reads_words:
        on_event(Phase("read words"))
        features_ND, scale = lexical_features(list(rows.values()), seed=seed), False
    else:
        features_ND, scale = _frozen_features(config, chosen, on_event)
    on_event(Phase("cross-validate"))
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # labels with fewer rows than folds
        probs_NC = held_out_probabilities(
            features_ND, targets, label_set=label_set, scale=scale, folds=FOLDS, seed=seed
        )
    on_event(Phase("compare texts"))
    copies = find_copies(rows, dict(zip(rows, codes(list(rows.values()), "text"), strict=True)), near=True)
    right_N = (label_set.decide(probs_NC) == targets).reshape(len(targets), -1).all(axis=1)
    usual = int(np.unique(targets, axis=0, return_counts=True)[1].max())
    if wilson(int(right_N.sum()), len(targets))[0] <= usual / len(targets):
        on_event(
            Notice(
                f"what was read of the texts hardly tells the labels: it is right on {right_N.mean():.1%}, always the "
                f"most frequent answer on {usual / len(targets):.1%}; doubts of the model mean little, those of copies "
                "hold" + ("; a pretrained model may read more: --model" if reads_words else "")
            )
        )
    return Audit(
        dataset=prepared.name,
        fingerprint=prepared.fingerprint,
        rows=len(targets),
        features="TF-IDF" if reads_words else short_name(config.model.name),
        accuracy=float(right_N.mean()),
        doubts=tuple(_doubts(rows, targets, probs_NC, label_set, copies)),
        seconds=round(time.monotonic() - started, 1),
    )


def doubt_labels(targets: np.ndarray, probs_NC: np.ndarray, label_set: LabelSet) -> tuple[np.ndarray, np.ndarray]:
    """Scores (rows,) float32 and suggestions, targets as the label set has them, from out-of-sample probabilities.

    A row whose label is not in doubt is suggested its own. score: the probability of the row's label; of several labels
    a row, the least over the labels of being there, or not.
    """
    if label_set.multi:
        own_NC = np.where(targets, probs_NC, 1 - probs_NC)
        return own_NC.min(axis=1), np.where(own_NC < 0.5, 1 - targets, targets)
    return probs_NC[np.arange(len(targets)), targets], probs_NC.argmax(axis=1)


def _config(
    reference: str | Path | None, model: str | Path | None, device: str, settings: Mapping[str, Any]
) -> tuple[RunConfig, bool]:
    """Data and pretrained model of a run, or the data set and model that were named; and whether no model was."""
    run = runs.latest() if reference is None else runs.find(str(reference))
    named: dict[str, Any] = {"model": {"name": str(model)}} if model is not None else {}
    if run is None:
        data = {"dataset": str(reference), **settings}
        return build({"data": data, "train": {"device": device}}, named), model is None
    if settings:
        raise UsageError(
            f"run {run.name} has its data and settings already; {', '.join(sorted(settings))} cannot be given",
            hint="name the data set in place of the run",
        )
    kept = ("name", "revision", "tokenizer", "max_length", "overflow", "prompt", "allow_bin")
    base = {key: value for key, value in run.config["model"].items() if key in kept}
    return build({"data": run.config["data"], "model": base, "train": {"device": device}}, named), False


def _frozen_features(config: RunConfig, splits: list[str], observe: Observer) -> tuple[np.ndarray, bool]:
    """What the pretrained model says of the texts: (rows, width) float32; and whether their sizes are raw."""
    bench = assemble(config, observe)
    pooling = bench.classifier.other_pooling(pretrained_pooling(bench.base.folder))
    found = []
    for split in splits:
        encoded = bench.encoded[split]
        own_ND, pooled_ND = features(
            bench.classifier,
            encoded,
            pooling=pooling,
            autocast=bench.device.autocast,
            on_progress=partial(_report, observe, f"features of {split}", len(encoded)),
        )
        found.append(encoded.per_text(own_ND if pooled_ND is None else pooled_ND))
    return np.concatenate(found), pooling != "mean"


def _report(observe: Observer, name: str, total: int, done: int) -> None:
    observe(Phase(name, done, total))


def _doubts(
    rows: Mapping[str, Rows], targets: np.ndarray, probs_NC: np.ndarray, label_set: LabelSet, copies: Copies
) -> list[Doubt]:
    score_N, suggested = doubt_labels(targets, probs_NC, label_set)
    doubted_N = (suggested != targets).reshape(len(targets), -1).any(axis=1)
    clashes = _clashes(targets, probs_NC, label_set, copies)
    judged = clashes.keys() | set(clashes.values())  # a row and its copy are reviewed together
    order = [
        *sorted(clashes, key=lambda row: (score_N[row], row)),
        *(
            row
            for row in np.lexsort((np.arange(len(targets)), score_N)).tolist()
            if doubted_N[row] and row not in judged
        ),
    ]
    split_of = [(name, index) for name, part in rows.items() for index in range(len(part))]
    found = []
    for row in order:
        name, index = split_of[row]
        line = {key: rows[name].table.column(key)[index].as_py() for key in rows[name].table.column_names}
        partner = clashes.get(row)
        see = None if partner is None else rows[split_of[partner][0]].where(split_of[partner][1])
        found.append(
            Doubt(
                file=line["file"],
                row=line["row"],
                split=name,
                text=line["text"],
                text_pair=line.get(PAIR),
                label=_label(targets[row], label_set),
                suggested=_label(suggested[row] if partner is None else targets[partner], label_set),
                score=round(float(score_N[row]), 4),
                reason="model" if partner is None else "copy",
                see=see,
            )
        )
    return found


def _clashes(targets: np.ndarray, probs_NC: np.ndarray, label_set: LabelSet, copies: Copies) -> dict[int, int]:
    """Rows that stand among copies of their text with another label: row -> a row that has the likelier label.

    The likelier one has more rows of the copies, each row's probability counting as half a vote beside them.
    """
    texts_N = np.concatenate(list(copies.loose.values()))
    near = copies.near if copies.near is not None else np.zeros((0, 2), dtype=np.int64)
    total = int(texts_N.max(initial=-1)) + 1
    graph = coo_array((np.ones(len(near)), (near[:, 0], near[:, 1])), shape=(total, total))
    group_N = connected_components(graph, directed=False)[1][texts_N]
    label_N = np.unique(targets.reshape(len(targets), -1), axis=0, return_inverse=True)[1].ravel()
    clashing_N = quality.conflicts(group_N, label_N)
    members: dict[int, list[int]] = {}
    for row in np.flatnonzero(clashing_N).tolist():
        members.setdefault(int(group_N[row]), []).append(row)
    found = {}
    for group in members.values():
        candidates = {int(label_N[row]): row for row in reversed(group)}
        votes = {
            label: sum(
                (label_N[row] == label) + 0.5 * _agreement(probs_NC[row], targets[first], label_set) for row in group
            )
            for label, first in candidates.items()
        }
        best = max(votes, key=lambda label: (votes[label], -label))
        found.update({row: candidates[best] for row in group if label_N[row] != best})
    return found


def _agreement(probs_C: np.ndarray, target: Any, label_set: LabelSet) -> float:
    """How well probabilities fit a label, or a set of labels: 0 to 1."""
    return float(1 - np.abs(probs_C - target).mean()) if label_set.multi else float(probs_C[target])


def _label(target: Any, label_set: LabelSet) -> Label:
    if label_set.multi:
        return tuple(label_set.names[index] for index in np.flatnonzero(target))
    return label_set.names[int(target)]
