"""compare(): finished models on the same rows, whether they differ by more than chance, and in words."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from textclf.answers import Answers
from textclf.artifact import folder, hub, runs
from textclf.artifact.runs import Group, Run
from textclf.data.rows import PAIR, Rows, spelled
from textclf.errors import DataError, UsageError
from textclf.evaluation.evaluation import answer, labelled_rows, run_of
from textclf.inference import runtimes
from textclf.intervals import LEVEL, RANGES, Interval, Statistics, intervals, percentiles, weights
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
    seeds: how many runs of the one are paired with runs of the other by their seed, and better: in how many of these
    pairs the first is better; None where the runs have not the same seeds.
    """

    first: str
    second: str
    value: float
    low: float
    high: float
    mcnemar: McNemar | None
    verdict: str
    seeds: int | None = None
    better: int | None = None


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
    seed: int | None
    rows: str
    answers: Answers
    metrics: AnyMetrics


def compare(
    models: Sequence[str | Path | Run | Group],
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

    models: two or more runs, run names, folders or Hub ids; runs that differ in `train.seed` only are one model, and
    the name of such a group is all of its runs.
    metric: what they are compared by; None takes accuracy, micro-F1 where a text has several labels, question accuracy
    where rows are questions. dataset, split, columns, device, runtime: as for `evaluate`. on_progress: called with a
    model's name, texts done and texts in all.

    A difference's interval comes from drawing rows, the same for all models, and where a model has several runs also
    these, with replacement (the Multi-Bootstrap of Sellam et al. 2022, "The MultiBERTs"); in pairs where two models
    have the same seeds. It is as much wider as few runs (Student's t) and several pairs (Bonferroni) ask.
    Raises UsageError for fewer than two models, models of unlike forms or an unknown metric, DataError where the
    models' rows are not the same, and what `evaluate` raises.
    """
    runtimes.check(runtime, device)
    members = [one for model in models for one in _members(model)]
    if len(members) < 2:
        raise UsageError("one model alone has nothing to be compared with", hint="textclf compare RUN RUN...")
    scored: list[_Scored] = []
    folders: set[Path] = set()
    form = ""
    for model in members:
        artifact = folder.read(hub.locate(model))
        if scored and artifact.form != form:
            raise UsageError(
                f"{runs.title(artifact.folder)} is of form {artifact.form}, {scored[0].name} of form {form}: "
                "their rows are not the same, whatever the data",
                hint="compare models of one form; textclf eval measures each by itself",
            )
        if artifact.folder.resolve() in folders:
            raise UsageError(f"{runs.title(artifact.folder)} is named twice", hint="name other runs: textclf runs")
        folders.add(artifact.folder.resolve())
        form = artifact.form
        rows, split, data = labelled_rows(artifact, dataset, split, **columns)
        name = runs.title(artifact.folder)
        identity, seed = _identity(artifact)
        fingerprint = _fingerprint(rows)
        # Before the work: to score a model may take minutes.
        if scored and fingerprint != scored[0].rows:
            raise DataError(
                f"{split} of {name} has other rows or labels than {split} of {scored[0].name}",
                hint="give one data set for all by --dataset",
            )
        again = next((one.name for one in scored if (one.identity, one.seed) == (identity, seed)), None)
        if again is not None:
            raise UsageError(
                f"{name} has the data, the settings and the seed of {again}: it is the same run twice",
                hint="leave one of them out, or give runs of other seeds",
            )
        tell = None if on_progress is None else partial(on_progress, name)
        answers, _ = answer(artifact, rows, device=device, runtime=runtime, on_progress=tell)
        scored.append(_Scored(name, identity, seed, fingerprint, answers, answers.measure()))
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
    # ROC-AUC is of models of two labels only, and one of these may have more.
    known = [
        name
        for name in judged_by(type(scored[0].metrics))
        if all(getattr(one.metrics, name) is not None for one in scored)
    ]
    if metric not in known:
        raise UsageError(f"--metric {metric}: these models are not measured by it", hint=f"by {', '.join(known)}")
    groups: dict[str, list[_Scored]] = {}
    for one in scored:
        groups.setdefault(one.identity, []).append(one)
    members = [sorted(group, key=lambda one: (one.seed is None, one.seed)) for group in groups.values()]
    draws = [_draws(group, scored[0].answers) for group in members]
    models = [_model(group, of_group) for group, of_group in zip(members, draws, strict=True)]
    sign = -1 if metric in LOWER_IS_BETTER else 1
    order = sorted(range(len(models)), key=lambda place: -sign * models[place].metrics[metric])
    pairs = [(order[a], order[b]) for a in range(len(order)) for b in range(a + 1, len(order))]
    differences = []
    for a, b in pairs:
        value = models[a].metrics[metric] - models[b].metrics[metric]
        points = [np.array([getattr(one.metrics, metric) for one in members[place]]) for place in (a, b)]
        parts = [(draws[a][metric], points[0]), (-draws[b][metric], -points[1])]
        seeds = better = None
        if len(members[a]) > 1 and [one.seed for one in members[a]] == [one.seed for one in members[b]]:
            apart_R = points[0] - points[1]
            parts = [(draws[a][metric] - draws[b][metric], apart_R)]
            seeds, better = len(apart_R), int((sign * apart_R > 0).sum())
        least, most = RANGES.get(metric, (0.0, 1.0))
        low, high = np.clip(span(parts, level=1 - (1 - LEVEL) / len(pairs)), least - most, most - least).tolist()
        single = len(members[a]) == len(members[b]) == 1
        test = mcnemar(members[a][0].answers.right, members[b][0].answers.right) if single else None
        verdict = _verdict(models[a].name, models[b].name, metric, value, low, high)
        differences.append(Difference(models[a].name, models[b].name, value, low, high, test, verdict, seeds, better))
    ranked = tuple(models[place] for place in order)
    return Comparison(dataset, split, scored[0].metrics.rows, metric, ranked, tuple(differences))


def span(parts: Sequence[tuple[np.ndarray, np.ndarray]], *, level: float = LEVEL) -> tuple[float, float]:
    """The interval of a sum of means over runs, from rows and runs that are drawn again.

    parts: of each model, or pair of models that share their seeds: values_DR (draws, runs), what each run gives when
    rows are drawn, and values_R (runs,), what it gives on the rows as they are.

    Where there are several runs it is t standard deviations of the draws to either side, t being Student's: percentiles
    of few runs reach no further than the best and the worst of them. Draws of n runs vary by (n - 1) / n of what they
    should, which is put right, and Satterthwaite's rule says how many degrees of freedom there are. A part of a single
    run speaks of that run alone.
    """
    from scipy.stats import t

    total_D = sum((values_DR.mean(axis=1) for values_DR, _ in parts), np.zeros(len(parts[0][0])))
    value = float(sum(values_R.mean() for _, values_R in parts))
    doubt = 0.0
    for number, (values_DR, values_R) in enumerate(parts):
        draws, count = values_DR.shape
        if count > 1:
            times_DR = np.random.default_rng([SEED, number]).multinomial(count, [1 / count] * count, draws)
            total_D += math.sqrt(count / (count - 1)) * ((times_DR - 1) / count * values_DR).sum(axis=1)
            doubt += (float(values_R.var(ddof=1)) / count) ** 2 / (count - 1)
    total_D = total_D[np.isfinite(total_D)]  # a draw without one of two labels has no ROC AUC
    if not doubt:
        return percentiles(total_D, value, level=level)
    variance = float(total_D.var())
    reach = float(t.ppf((1 + level) / 2, max(variance**2 / doubt, 1.0))) * math.sqrt(variance)
    middle = 2 * value - float(total_D.mean())  # less the draws' bias
    return min(middle - reach, value), max(middle + reach, value)


def _members(model: str | Path | Run | Group) -> Sequence[str | Path | Run]:
    """The runs of a group, or of one that is named; anything else as it is."""
    if isinstance(model, (Run, Group)):
        return model.runs if isinstance(model, Group) else [model]
    group = runs.find_group(model)
    return [model] if group is None else group.runs


def _draws(group: list[_Scored], rows: Answers) -> dict[str, np.ndarray]:
    """Each metric of the runs in every draw of the rows, which is the same for all: name -> (DRAWS, runs) float64."""
    statistics = [Statistics(one.answers) for one in group]
    blocks: list[list[dict[str, np.ndarray]]] = [
        [one.under(weights_DN) for one in statistics] for weights_DN in weights(rows, draws=DRAWS, seed=SEED)
    ]
    return {
        name: np.concatenate([np.stack([of_run[name] for of_run in block], axis=1) for block in blocks])
        for name in blocks[0][0]
    }


def _model(group: list[_Scored], draws: dict[str, np.ndarray]) -> Compared:
    names = [name for name in judged_by(type(group[0].metrics)) if getattr(group[0].metrics, name) is not None]
    values = {name: np.array([getattr(one.metrics, name) for one in group], dtype=np.float64) for name in names}
    means = {name: float(of_runs.mean()) for name, of_runs in values.items()}
    if len(group) == 1:
        return Compared(
            group[0].name, (group[0].name,), means, intervals(group[0].answers, group[0].metrics), spread=None
        )
    return Compared(
        f"{_common_name(group)} ({len(group)} runs)",
        tuple(one.name for one in group),
        means,
        {name: _inside(name, *span([(draws[name], values[name])])) for name in names},
        {name: float(of_runs.std(ddof=1)) for name, of_runs in values.items()},
    )


def _inside(metric: str, low: float, high: float) -> Interval:
    least, most = RANGES.get(metric, (0.0, 1.0))
    return Interval(max(low, least), min(high, most))


def _common_name(group: list[_Scored]) -> str:
    """What `finetune --seeds` called the group; of runs with names of their own the first."""
    stems = {one.name.removesuffix(f"-seed{one.seed}") for one in group}
    return stems.pop() if len(stems) == 1 else group[0].name


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


def _identity(artifact: folder.Artifact) -> tuple[str, int | None]:
    """What two runs share that differ in their seed only, and the seed."""
    run, facts = run_of(artifact), artifact.facts
    config = run.document["request"] if run is not None else facts.config if facts is not None else None
    if not config or facts is None or facts.fingerprint is None:
        return str(artifact.folder.resolve()), None
    sections = {name: dict(values) for name, values in config.items() if isinstance(values, dict)}
    seed = sections.get("train", {}).pop("seed", None)
    # A head that is code may have changed under its name.
    code = artifact.config.get("head_code")
    kind = [sections, facts.fingerprint, facts.base_model, facts.base_revision, code]
    return json.dumps(kind, sort_keys=True), seed


def _fingerprint(rows: Rows) -> str:
    """SHA-256 of the texts and labels of rows, in order."""
    digest = hashlib.sha256()
    for name in ("text", PAIR, "label"):
        if name in rows.table.column_names:
            for piece in spelled(rows.table.column(name)):
                digest.update(piece)
    return digest.hexdigest()
