"""compare(): finished models on the same rows, whether they differ by more than chance, and in words."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from textclf.artifact import folder, hub, runs
from textclf.artifact.runs import Run
from textclf.data.rows import PAIR, Rows, spelled
from textclf.errors import DataError, UsageError
from textclf.evaluation.evaluation import answer, labelled_rows, measured, run_of
from textclf.inference import runtimes
from textclf.intervals import LEVEL, Answers, Interval, Statistics, intervals, percentiles, weights
from textclf.metrics import LOWER_IS_BETTER, AnyMetrics, judged_by

DRAWS = 2000
SEED = 0
EXACT_BELOW = 25
"""Rows that one model alone has right under which McNemar's test counts them exactly (Fagerland et al. 2013)."""
_NO_SHARE = ("loss", "mcc", "brier", "coverage_error")


@dataclass(frozen=True)
class Compared:
    """A model among those compared: one run, or several that differ in `train.seed` only, whose mean it is.

    metrics: by name, the mean of its runs. spread: their standard deviation, None for one run.
    """

    name: str
    runs: tuple[str, ...]
    metrics: dict[str, float]
    intervals: dict[str, Interval]
    spread: dict[str, float] | None


@dataclass(frozen=True)
class McNemar:
    """Rows that one model alone has right, and how probable so unlike counts are of models that are equally good.

    exact: the p-value is a binomial test's; else that of chi-squared with Edwards' correction.
    """

    first_only: int
    second_only: int
    p: float
    exact: bool


@dataclass(frozen=True)
class Difference:
    """The first model's metric minus the second's. low, high: its interval; those of all pairs hold together at 95 %.

    mcnemar: None where a model is the mean of several runs. verdict: the difference in words.
    """

    first: str
    second: str
    value: float
    low: float
    high: float
    mcnemar: McNemar | None
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """Models on the same rows of a split, the best first by `metric`, and every pair of them."""

    dataset: str
    split: str
    rows: int
    metric: str
    models: tuple[Compared, ...]
    differences: tuple[Difference, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON: what `textclf compare --json` prints."""
        return asdict(self)


@dataclass(frozen=True)
class _Scored:
    name: str
    identity: str
    rows: str
    answers: Answers
    metrics: AnyMetrics


def compare(
    models: Sequence[str | Path | Run],
    *,
    metric: str | None = None,
    dataset: str | Path | None = None,
    split: str | None = None,
    device: str = "auto",
    runtime: str = "auto",
    on_progress: Callable[[str, int, int], None] | None = None,
    **columns: Any,
) -> Comparison:
    """Score models on the same rows and say which differences are more than chance.

    models: two or more runs, run names, folders or Hub ids; runs that differ in `train.seed` only are one model.
    metric: what they are compared by; None takes accuracy, micro-F1 where a text has several labels, question accuracy
    where rows are questions. dataset, split, columns, device, runtime: as for `evaluate`. on_progress: called with a
    model's name, texts done and texts in all.

    A difference's interval comes from drawing rows, the same for all models, and where a model has several runs also
    these, with replacement; with several pairs it is as much wider as Bonferroni's correction asks.
    Raises UsageError for fewer than two models or an unknown metric, DataError where the models' rows are not the same,
    and what `evaluate` raises.
    """
    runtimes.check(runtime, device)
    if len(models) < 2:
        raise UsageError("one model alone has nothing to be compared with", hint="textclf compare RUN RUN...")
    scored: list[_Scored] = []
    folders: set[Path] = set()
    for model in models:
        artifact = folder.read(hub.locate(model))
        if artifact.folder.resolve() in folders:
            raise UsageError(f"{runs.title(artifact.folder)} is named twice", hint="name other runs: textclf runs")
        folders.add(artifact.folder.resolve())
        rows, split, data = labelled_rows(artifact, dataset, split, **columns)
        name = runs.title(artifact.folder)
        tell = None if on_progress is None else partial(on_progress, name)
        answers, _ = answer(artifact, rows, device=device, runtime=runtime, on_progress=tell)
        one = _Scored(name, _identity(artifact), _fingerprint(rows), answers, measured(answers))
        if scored and (one.rows != scored[0].rows or type(one.metrics) is not type(scored[0].metrics)):
            raise DataError(
                f"{split} of {name} has other rows or labels than {split} of {scored[0].name}",
                hint="give one data set for all by --dataset",
            )
        scored.append(one)
    return _compared(scored, metric or _headline(scored[0].metrics), dataset=data, split=split or "test")


def mcnemar(first_right: np.ndarray, second_right: np.ndarray) -> McNemar:
    """McNemar's test of two models on the same rows: (rows,) bool each, whether they were answered rightly."""
    from scipy.stats import binomtest, chi2

    first, second = int((first_right & ~second_right).sum()), int((second_right & ~first_right).sum())
    exact = first + second < EXACT_BELOW
    if first == second:
        p = 1.0
    elif exact:
        p = float(binomtest(first, first + second).pvalue)
    else:
        p = float(chi2.sf((abs(first - second) - 1) ** 2 / (first + second), 1))
    return McNemar(first, second, p, exact)


def _compared(scored: list[_Scored], metric: str, *, dataset: str, split: str) -> Comparison:
    known = [name for name in judged_by(type(scored[0].metrics)) if getattr(scored[0].metrics, name) is not None]
    if metric not in known:
        raise UsageError(f"--metric {metric}: these models are not measured by it", hint=f"by {', '.join(known)}")
    groups: dict[str, list[_Scored]] = {}
    for one in scored:
        groups.setdefault(one.identity, []).append(one)
    draws = [_draws(group, scored[0].answers, number) for number, group in enumerate(groups.values())]
    models = [_model(group, of_group) for group, of_group in zip(groups.values(), draws, strict=True)]
    members = list(groups.values())
    sign = -1 if metric in LOWER_IS_BETTER else 1
    order = sorted(range(len(models)), key=lambda place: -sign * models[place].metrics[metric])
    pairs = [(order[a], order[b]) for a in range(len(order)) for b in range(a + 1, len(order))]
    differences = []
    for a, b in pairs:
        value = models[a].metrics[metric] - models[b].metrics[metric]
        low, high = percentiles(draws[a][metric] - draws[b][metric], value, level=1 - (1 - LEVEL) / len(pairs))
        single = len(members[a]) == len(members[b]) == 1
        test = mcnemar(members[a][0].answers.right, members[b][0].answers.right) if single else None
        verdict = _verdict(models[a].name, models[b].name, metric, value, low, high)
        differences.append(Difference(models[a].name, models[b].name, value, low, high, test, verdict))
    ranked = tuple(models[place] for place in order)
    return Comparison(dataset, split, scored[0].metrics.rows, metric, ranked, tuple(differences))


def _draws(group: list[_Scored], rows: Answers, number: int) -> dict[str, np.ndarray]:
    """Each metric of a model in every draw of the rows, which is the same for all models: name -> (DRAWS,) float64."""
    statistics = [Statistics(one.answers) for one in group]
    blocks: list[list[dict[str, np.ndarray]]] = [
        [one.under(weights_DN) for one in statistics] for weights_DN in weights(rows, draws=DRAWS, seed=SEED)
    ]
    runs_drawn = np.random.default_rng([SEED, number]).multinomial(len(group), [1 / len(group)] * len(group), DRAWS)
    found = {}
    for name in blocks[0][0]:
        values_DR = np.concatenate([np.stack([of_run[name] for of_run in block], axis=1) for block in blocks])
        found[name] = (values_DR * runs_drawn / len(group)).sum(axis=1)
    return found


def _model(group: list[_Scored], draws: dict[str, np.ndarray]) -> Compared:
    names = [name for name in judged_by(type(group[0].metrics)) if getattr(group[0].metrics, name) is not None]
    values = {name: np.array([getattr(one.metrics, name) for one in group], dtype=np.float64) for name in names}
    means = {name: float(of_runs.mean()) for name, of_runs in values.items()}
    if len(group) == 1:
        return Compared(
            group[0].name, (group[0].name,), means, intervals(group[0].answers, group[0].metrics), spread=None
        )
    found = {name: Interval(*percentiles(draws[name], means[name])) for name in names}
    return Compared(
        f"{group[0].name} ({len(group)} runs)",
        tuple(one.name for one in group),
        means,
        found,
        {name: float(of_runs.std(ddof=1)) for name, of_runs in values.items()},
    )


def _verdict(first: str, second: str, metric: str, value: float, low: float, high: float) -> str:
    words = metric.replace("_", " ")
    plain = metric in _NO_SHARE

    def said(number: float) -> str:
        return f"{number:.4f}" if plain else f"{100 * number:.1f}"

    unit = "" if plain else " points"
    span = f"95 % interval {said(low)} to {said(high)}"
    if low <= 0 <= high:
        return f"{first} and {second}: the {words} difference of {said(abs(value))}{unit} is within noise ({span})"
    return f"{first} is better than {second} by {said(abs(value))}{unit} of {words} ({span})"


def _headline(metrics: AnyMetrics) -> str:
    asked = getattr(metrics, "question_accuracy", None)
    return "question_accuracy" if asked is not None else metrics.HEADLINE[0]


def _identity(artifact: folder.Artifact) -> str:
    """What two runs share that differ in their seed only."""
    run, facts = run_of(artifact), artifact.facts
    config = run.document["request"] if run is not None else facts.config if facts is not None else None
    if not config or facts is None or facts.fingerprint is None:
        return str(artifact.folder.resolve())
    sections = {name: dict(values) for name, values in config.items() if isinstance(values, dict)}
    sections.get("train", {}).pop("seed", None)
    return json.dumps([sections, facts.fingerprint, facts.base_model], sort_keys=True)


def _fingerprint(rows: Rows) -> str:
    """SHA-256 of the texts and labels of rows, in order."""
    digest = hashlib.sha256()
    for name in ("text", PAIR, "label"):
        if name in rows.table.column_names:
            for piece in spelled(rows.table.column(name)):
                digest.update(piece)
    return digest.hexdigest()
