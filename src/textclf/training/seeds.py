"""finetune_seeds(): one configuration, several seeds; what another seed would have made of the same data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from textclf import paths
from textclf.artifact import runs
from textclf.artifact.runs import Group
from textclf.config import RunConfig
from textclf.errors import InterruptedRun, UsageError
from textclf.training.events import Notice, Observer, ignore
from textclf.training.finetuning import check_place, finetune_in, group_name, resolve
from textclf.training.workbench import Shared


def finetune_seeds(
    model: str | Path | None = None,
    dataset: str | Path | None = None,
    *,
    seeds: int,
    config: RunConfig | Mapping[str, Any] | str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    on_event: Observer = ignore,
    **settings: Any,
) -> Group:
    """Fine-tune the same model on the same data and the same split with `seeds` seeds, from `train.seed` on.

    Each is a run of its own, the very one that `finetune` makes of this seed. `out` is the name of their folders before
    `-seed0`, `-seed1`, ...; None makes one. `train.max_minutes` is for all of them: each has an equal part. Other
    arguments are as for `finetune`; the same call goes on with the first run that is not finished.

    Returns the runs of the group, those of earlier calls with other seeds included. Raises what `finetune` raises,
    UsageError for fewer than one seed, and where `out` is a run by itself.
    """
    if seeds < 1:
        raise UsageError(f"seeds is {seeds}; it is the number of runs, 1 or more")
    request = split_time(resolve(model, dataset, config=config, **settings), seeds)
    folder = paths.expanded(out).resolve() if out is not None else paths.runs_dir() / group_name(request)
    if runs.read(folder) is not None:  # the name would go on meaning that run, and never these
        raise UsageError(
            f"{folder} is a run by itself, and cannot be the name of several seeds; nothing was written",
            hint="give another --out, or remove that run: textclf runs remove",
        )
    places = {seed: runs.seed_folder(folder, seed) for seed in range(request.train.seed, request.train.seed + seeds)}
    there = {seed: run.folder for seed, run in runs.by_seed(folder).items()}
    for seed, place in (there | places).items():  # what is in the way of the last is said before the first
        if not (overwrite and seed in places):
            check_place(place, _with_seed(request, seed))
    if request.train.epochs == 0:
        on_event(Notice("without epochs a seed draws little but the folds of the probe: the runs may well be equal"))
    shared = Shared()
    for number, (seed, place) in enumerate(places.items(), start=1):
        on_event(Notice(f"seed {seed}, {number} of {seeds}: run {place.name}"))
        try:
            of_seed = _with_seed(request, seed)
            finetune_in(place, of_seed, overwrite=overwrite, on_event=on_event, shared=shared)
        except InterruptedRun as stop:
            raise InterruptedRun(
                f"seed {seed}, {number} of {seeds}: {stop.message}",
                hint=stop.hint,
                signal_number=stop.exit_code - 128,
            ) from None
    found = runs.group(folder)
    assert found is not None
    return found


def split_time(request: RunConfig, seeds: int) -> RunConfig:
    """The config of one of several seeds, whose time budget is a part of the whole."""
    minutes = request.train.max_minutes
    return replace(request, train=replace(request.train, max_minutes=minutes and minutes / seeds))


def _with_seed(request: RunConfig, seed: int) -> RunConfig:
    return replace(request, train=replace(request.train, seed=seed))
