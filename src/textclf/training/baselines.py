"""What a model is measured against: the most frequent label, words alone, and the pretrained features alone."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from textclf.data import mapped
from textclf.data.forms import answers_of
from textclf.data.rows import PAIR, Rows
from textclf.labels import LabelSet
from textclf.metrics import metrics_of
from textclf.training.events import Notice, Observer, Phase, ignore
from textclf.training.learning import split_logits
from textclf.training.thresholds import fit_thresholds
from textclf.training.workbench import Workbench

WORK = 3e7
"""Words of the training texts times labels that the linear baseline takes at most, 3 to 10 s; above, it learns from
fewer rows."""
LEAST_ROWS_PER_LABEL = 2
_COMPONENTS = 256


@dataclass(frozen=True)
class Baseline:
    """A simple answer to the same question.

    name: `majority` (the most frequent label of train, or the labels that most rows have), `tfidf` (TF-IDF of words
        and pairs of words with a linear support vector machine) or `probe` (logistic regression on the features of the
        frozen pretrained model: where fine-tuning begins).
    rows: training rows that it learnt from. seconds: of learning and answering.
    metrics: split -> metric -> value, of the metrics that a table leads with.
    """

    name: str
    rows: int
    seconds: float
    metrics: dict[str, dict[str, float]]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)


def measure_baselines(bench: Workbench, observe: Observer = ignore) -> tuple[Baseline, ...]:
    """Measure what there is to compare with on validation and test, before the first step.

    The probe is left out where there is none, and where it is the model itself as no steps follow.
    """
    started = time.monotonic()
    splits = [split for split in ("validation", "test") if split in bench.targets]
    found = [_majority(bench, splits)]
    words = bench.shared.words if bench.shared is not None else None
    if words is None:
        words = _tfidf(bench, splits, observe)
    if bench.shared is not None:
        bench.shared.words = words
    if words is not None:
        found.append(words)
    if bench.probe_rows is not None and bench.plan.steps:
        began = time.monotonic()
        label_set = bench.prepared.label_set
        probs: dict[str, np.ndarray] = {
            split: label_set.probabilities(split_logits(bench, split, observe)) for split in splits
        }
        spent = bench.spent + time.monotonic() - began
        found.append(Baseline("probe", len(bench.probe_rows), round(spent, 1), _measured(bench, probs)))
    first = metrics_of(bench.prepared.label_set).HEADLINE[0]
    said = ", ".join(f"{one.name} {one.metrics['validation'][first]:.3f}" for one in found)
    observe(Notice(f"baselines in {time.monotonic() - started:.0f} s: {first} on validation {said}"))
    return tuple(found)


def lexical_features(parts: Sequence[Rows], *, seed: int) -> np.ndarray:
    """Latent semantic analysis (TF-IDF, truncated SVD) of the texts of all parts: (rows, width) float32.

    Each text has the same length, and a feature variance 1 on average, as penalties of a probe are meant for.
    """
    from sklearn.decomposition import TruncatedSVD
    from sklearn.preprocessing import normalize

    counts_NF = _vectorizer(least=2).fit_transform([text for rows in parts for text in texts_of(rows)])
    width = min(_COMPONENTS, counts_NF.shape[1] - 1, counts_NF.shape[0] - 1)
    reduced_ND = TruncatedSVD(max(width, 1), random_state=seed).fit_transform(counts_NF)
    return (normalize(reduced_ND) * math.sqrt(reduced_ND.shape[1])).astype(np.float32)  # type: ignore[no-any-return]


def texts_of(rows: Rows) -> list[str]:
    """The texts, or both texts of a pair as one."""
    columns = [rows.table.column(name).to_pylist() for name in ("text", PAIR) if name in rows.table.column_names]
    return columns[0] if len(columns) == 1 else ["\n".join(parts) for parts in zip(*columns, strict=True)]


def _majority(bench: Workbench, splits: Sequence[str]) -> Baseline:
    label_set, started = bench.prepared.label_set, time.monotonic()
    targets = bench.targets["train"]
    share_C = label_set.counts(targets) / len(targets)
    # The shares as probabilities: the most frequent label leads, and of several those above a half are given.
    probs = {split: np.tile(share_C.astype(np.float32), (len(bench.targets[split]), 1)) for split in splits}
    metrics = {split: _headline(bench, split, probs_NC, label_set) for split, probs_NC in probs.items()}
    return Baseline("majority", len(targets), round(time.monotonic() - started, 1), metrics)


def _tfidf(bench: Workbench, splits: Sequence[str], observe: Observer) -> Baseline | None:
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.svm import LinearSVC

    started, label_set = time.monotonic(), bench.prepared.label_set
    rows, targets = bench.prepared.rows("train"), bench.targets["train"]
    words = sum(len(text.split()) for _, piece in mapped.pieces(rows.table) for text in texts_of(Rows(piece)))
    share = min(1.0, WORK / max(words * len(label_set), 1))
    limit = int(share * len(rows))
    seen = label_set.counts(targets)
    if limit < LEAST_ROWS_PER_LABEL * np.count_nonzero(seen):
        observe(Notice("no baseline of words: too few texts for so many labels, or too long ones"))
        return None
    if limit < len(rows):
        chosen = np.sort(np.random.default_rng([bench.config.data.seed, 2]).permutation(len(rows))[:limit])
        rows, targets = rows.take(chosen), targets[chosen]
    if np.count_nonzero(label_set.counts(targets)) < 2:
        return None
    observe(Phase("baseline of words"))
    vectorizer = _vectorizer(least=1)
    try:
        features_NF = vectorizer.fit_transform(texts_of(rows))
    except ValueError:  # not one word in all texts
        observe(Notice("no baseline of words: the texts have none"))
        return None
    # By the seed of the data: what it learns is the same for every seed of the model.
    model = LinearSVC(C=0.5, random_state=bench.config.data.seed)
    scores: dict[str, np.ndarray] = {}
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # labels that all rows have, or none
        if label_set.multi:
            fitted, classes = OneVsRestClassifier(model).fit(features_NF, targets), np.arange(len(label_set))
        else:
            fitted = model.fit(features_NF, targets)
            classes = fitted.classes_
        for split in splits:
            held_out_NF = vectorizer.transform(texts_of(bench.prepared.rows(split)))
            scores[split] = _full(fitted.decision_function(held_out_NF), classes, label_set)
    probs = {split: label_set.probabilities(scores_NC) for split, scores_NC in scores.items()}
    metrics = _measured(bench, probs)
    return Baseline("tfidf", len(rows), round(time.monotonic() - started, 1), metrics)


def _full(scores: np.ndarray, classes: np.ndarray, label_set: LabelSet) -> np.ndarray:
    """Decision values as logits of every label: (rows, num_labels) float32; a label never seen comes last."""
    if scores.ndim == 1:  # two labels: one number, positive for the second
        scores = np.stack([-scores, scores], axis=1)
    logits_NC = np.full((len(scores), len(label_set)), scores.min(initial=0) - 1, dtype=np.float32)
    logits_NC[:, classes] = scores
    return logits_NC


def _measured(bench: Workbench, probs: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """The leading metrics of each split, with thresholds chosen on validation where the model's are."""
    label_set = bench.prepared.label_set
    if label_set.multi:
        metric, seed = bench.config.train.metric, bench.config.data.seed
        assert metric is not None
        label_set, _ = fit_thresholds(
            bench.targets["validation"], probs["validation"], label_set, metric=metric, seed=seed
        )
    return {split: _headline(bench, split, probs_NC, label_set) for split, probs_NC in probs.items()}


def _headline(bench: Workbench, split: str, probs_NC: np.ndarray, label_set: LabelSet) -> dict[str, float]:
    metrics = answers_of(bench.targets[split], probs_NC, label_set, bench.questions.get(split)).measure()
    values = metrics.as_dict()
    names = [*(["question_accuracy"] if values.get("question_accuracy") is not None else []), *metrics.HEADLINE]
    return {name: values[name] for name in names}


def _vectorizer(*, least: int) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    # Words of one letter count: scripts without blanks have few others.
    return TfidfVectorizer(
        ngram_range=(1, 2),
        sublinear_tf=True,
        min_df=least,
        dtype=np.float32,
        token_pattern=r"(?u)\b\w+\b",  # noqa: S106
    )
