"""finetune(): prepared data and a config to a run folder with an artifact."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
import unicodedata
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from textclf import atomic, paths, presets, pretrained, signals
from textclf.artifact import runs
from textclf.artifact.runs import Run
from textclf.config import RunConfig, as_dict, build, by_field, check_complete, file_and_class
from textclf.data.preparation import prepare
from textclf.data.prepared import Prepared
from textclf.errors import InterruptedRun, ModelError, ResourceError, TextclfError, UsageError
from textclf.model import head_code
from textclf.model.head_code import is_code
from textclf.model.modeling_textclf import POOLINGS, head_key
from textclf.training import checkpoint
from textclf.training.baselines import measure_baselines
from textclf.training.events import Notice, Observer, ignore
from textclf.training.exactness import environment
from textclf.training.finishing import finish
from textclf.training.head import choose_head, with_head
from textclf.training.learning import make_learning
from textclf.training.loop import fit
from textclf.training.trackers import JsonlTracker, Tolerant
from textclf.training.workbench import Shared, Workbench, assemble, check, short_name


def finetune(
    model: str | Path | None = None,
    dataset: str | Path | None = None,
    *,
    config: RunConfig | Mapping[str, Any] | str | Path | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    on_event: Observer = ignore,
    **settings: Any,
) -> Run:
    """Fine-tune a pretrained model on labelled text.

    model: Hub id or folder of the pretrained model; None: what `config` says, else textclf-mini, which is shipped.
    dataset: catalog name, file, folder or Hub id.
    config: a RunConfig, a nested mapping or a YAML file; `settings` are its fields by name (`epochs=3`),
        which win over it.
    out: the run folder; None makes one in the runs folder, named after data set, model and config.
    overwrite: delete what an earlier run left there. Without it the same call resumes an unfinished run and
        returns a finished one as it is.

    Returns the finished Run. Raises the kinds of TextclfError: DataError, ModelError, HubError,
    DivergedError, ResourceError; ConfigError for settings; InterruptedRun after SIGINT, SIGTERM or SIGHUP: in the
    middle of training when a checkpoint was written, elsewhere at once. SIGUSR1 asks for a checkpoint.
    """
    request = resolve(model, dataset, config=config, **settings)
    run_folder = paths.expanded(out).resolve() if out is not None else paths.runs_dir() / run_name(request)
    return finetune_in(run_folder, request, overwrite=overwrite, on_event=on_event)


def finetune_in(
    run_folder: Path, request: RunConfig, *, overwrite: bool, on_event: Observer, shared: Shared | None = None
) -> Run:
    """As `finetune`, with a resolved config and in this very folder. shared: what runs of other seeds have computed."""
    with signals.watched() as asked:
        try:
            return _run(run_folder, request, overwrite, on_event, asked, shared)
        except KeyboardInterrupt:
            if asked.stop is None:
                raise
            raise _interrupted(run_folder, asked.stop) from None


def check_place(run_folder: Path, request: RunConfig) -> Run | None:
    """The run that is to be gone on with in this folder; None where a new one is to be begun.

    Raises ModelError where it holds a run with other settings, UsageError where it holds anything else.
    """
    run = runs.read(run_folder)
    if run is None:
        runs.check_free(run_folder)
    elif runs.is_blank(run) and run.document["request"] != as_dict(request):
        return None
    else:
        _check_same(run, request)
    return run


def _run(
    run_folder: Path,
    request: RunConfig,
    overwrite: bool,
    on_event: Observer,
    asked: signals.Asked,
    shared: Shared | None,
) -> Run:
    run = None if overwrite else check_place(run_folder, request)
    if run is None:
        run = _begin(runs.read(run_folder), run_folder, request)
    else:
        if run.state == "done":
            _check_data(run, prepare(request.data))
            on_event(Notice(f"run {run.name} is finished already; --overwrite trains anew"))
            return run
    with runs.locked(run):
        try:
            return _train(run, assemble(_as_begun(request, run), on_event, shared=shared), on_event, asked)
        except KeyboardInterrupt:  # not a failure
            _close(run, state="paused")
            raise
        except TextclfError as err:
            _close(run, state="failed", message=err.message)
            raise


def _as_begun(request: RunConfig, run: Run) -> RunConfig:
    """The request with what was chosen when the run began, if it got so far: what chooses may be another version."""
    chosen = {"r_drop": 0.0, **run.config["train"]}  # runs that began before there was any have none
    kept = {name: chosen[name] for name in _CHOSEN}
    if request.train.micro_batch_tokens is None:  # it may be lowered on the way, where memory ran out
        kept["micro_batch_tokens"] = chosen["micro_batch_tokens"]
    return replace(
        request,
        train=replace(request.train, **kept),
        # A run of a version that had no such setting has the vocabulary of its pretrained model.
        model=replace(request.model, add_symbols=run.config["model"].get("add_symbols", False)),
    )


_CHOSEN = ("epochs", "learning_rate", "head_learning_rate", "label_smoothing", "r_drop")
"""Settings that are chosen where they are open, and that a run keeps to its end."""


def _close(run: Run, **changes: Any) -> None:
    with suppress(ResourceError):  # a full disk is what ended it, and is said already
        (runs.read(run.folder) or run).update(**changes)


def _interrupted(run_folder: Path, number: signal.Signals) -> InterruptedRun:
    """What to say of a run that a signal stopped, wherever it was."""
    kept, _ = checkpoint.newest(run_folder / runs.CHECKPOINTS)
    if kept is None:
        return InterruptedRun(
            f"stopped by {number.name} before the first step; nothing was learnt yet",
            hint="the same command begins again",
            signal_number=number,
        )
    run, step = runs.read(run_folder), checkpoint.progress_of(kept).step
    steps = run.document.get("steps") if run is not None else None
    return InterruptedRun(
        f"stopped by {number.name} after step {step} of {steps}; kept: {kept.name}",
        hint="the same command goes on from there",
        signal_number=number,
    )


def resolve(
    model: str | Path | None,
    dataset: str | Path | None,
    *,
    config: RunConfig | Mapping[str, Any] | str | Path | None = None,
    **settings: Any,
) -> RunConfig:
    """One RunConfig out of the arguments of `finetune`. Raises UsageError without a data set."""
    if isinstance(config, (str, Path)):
        config = presets.read_config_file(config)
    base = as_dict(config) if isinstance(config, RunConfig) else dict(config or {})
    named = {
        "model": {"name": model if isinstance(model, str) else str(model.absolute())} if model is not None else {},
        "data": {"dataset": str(dataset)} if dataset is not None else {},
    }
    merged = build(base, named, by_field(settings))
    check_complete(merged)
    assert merged.data.dataset is not None
    # Absolute, so that the same command from another folder is not taken for the same run.
    return replace(
        merged,
        data=replace(
            merged.data,
            dataset=_absolute(merged.data.dataset),
            corrections=_absolute(merged.data.corrections) if merged.data.corrections is not None else None,
        ),
        model=replace(
            merged.model,
            name=merged.model.name if merged.model.name == pretrained.NAME else _absolute(merged.model.name),
            tokenizer=_absolute(merged.model.tokenizer) if merged.model.tokenizer is not None else None,
            head=_absolute_head(merged.model.head),
        ),
    )


def run_name(config: RunConfig) -> str:
    """A name that is the same for the same config: data set, model, six hex digits."""
    return _name(config, as_dict(config))


def group_name(config: RunConfig) -> str:
    """As `run_name`, the same for all seeds, and none that a run by itself has."""
    document = as_dict(config)
    del document["train"]["seed"]
    return _name(config, document)


def _name(config: RunConfig, document: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:6]
    named = [paths.slug(short_name(name))[:40] for name in (config.data.dataset, config.model.name)]
    return "-".join([*named, digest])


def _train(run: Run, bench: Workbench, observe: Observer, asked: signals.Asked) -> Run:
    _check_data(run, bench.prepared)
    symbols = hashlib.sha256(bench.symbols.encode()).hexdigest()[:12]
    if run.document.get("symbols") not in (None, symbols):  # ids would stand for other tokens
        raise ModelError(
            f"{run.folder}: run {run.name} began with other tokens for symbols than Python's Unicode "
            f"{unicodedata.unidata_version} and this version of textclf make of the same texts",
            hint="go on with the Python and textclf that began it, or start anew with --overwrite",
        )
    resume, damaged = checkpoint.newest(run.folder / runs.CHECKPOINTS)
    for message in damaged:
        observe(Notice(message))
    if resume is not None:
        observe(Notice(f"going on from {resume.name}"))
    # Which head it was is in the resolved config that the first sitting wrote.
    if resume is None:
        bench = choose_head(bench, observe)
    else:
        head = run.config["model"]["head"]
        bench = with_head(bench, head if head in ("own", *POOLINGS) else bench.classifier.head)
    atomic.write_json(run.folder / runs.CONFIG, as_dict(bench.config))
    baselines = run.document.get("baselines", [])
    if resume is None and bench.config.train.baselines:
        began = time.monotonic()
        baselines = [one.as_dict() for one in measure_baselines(bench, observe)]
        bench = replace(bench, spent=bench.spent + time.monotonic() - began)
    run = run.update(
        baselines=baselines,
        state="running",
        message=None,
        dataset=bench.prepared.name,
        model=bench.base_name,
        fingerprint=bench.prepared.fingerprint,
        head_code=bench.classifier.head_record,
        symbols=symbols,
        rows=_rows(bench.prepared),
        prepared=str(bench.prepared.folder),
        environment=environment(bench.device),
        steps=bench.plan.steps,
    )
    _check_space(run, bench, observe)
    before = checkpoint.progress_of(resume) if resume is not None else checkpoint.Progress(evaluated_step=-1)
    figures = JsonlTracker(run.folder / runs.METRICS, resume_at=before.step, evaluated_at=before.evaluated_step)
    with asked.polled(), Tolerant(figures, observe) as tracker:
        progress = fit(
            bench.classifier,
            make_learning(bench),
            bench.plan,
            bench.device,
            checkpoints=run.folder / runs.CHECKPOINTS,
            tracker=tracker,
            observe=observe,
            asked=asked,
            resume=resume,
            spent=bench.spent,
        )
    if asked.stop is not None:
        run.update(step=progress.step)
        raise KeyboardInterrupt
    return finish(run, bench, progress, observe)


def _begin(old: Run | None, run_folder: Path, request: RunConfig) -> Run:
    """A new run in this folder, in place of an old one. What is wrong with data or model shows before anything goes."""
    if old is None:
        runs.check_free(run_folder)
    else:
        code, _ = file_and_class(request.model.head) or (None, "")
        for value in (request.data.dataset, request.model.name, request.model.tokenizer, code):
            if value is not None and Path(str(value)).is_relative_to(run_folder):
                raise UsageError(
                    f"{value} lies in the run that --overwrite would delete", hint="give the new run another --out"
                )
    check(request)
    if old is not None:
        runs.remove(old)
    return runs.create(run_folder, as_dict(request))


def _check_same(run: Run, request: RunConfig) -> None:
    before, now = as_dict(build(run.document["request"])), as_dict(request)
    began_with, head = run.document.get("head_code"), request.model.head
    if began_with and is_code(head) and head_key(head_code.read(head).record) != head_key(began_with):
        raise UsageError(
            f"the code of {head} has changed since run {run.name} began",
            hint="give another --out, or --overwrite to delete that run",
        )
    differences = [
        (f"{section}.{key}", before[section][key], value)
        for section, values in now.items()
        for key, value in values.items()
        if before[section][key] != value
    ]
    if differences:
        raise ModelError(
            f"{run.folder} holds a run with other settings:\n{_table('setting', differences)}",
            hint="give another --out, or --overwrite to delete that run",
        )


def _check_data(run: Run, prepared: Prepared) -> None:
    if run.document.get("fingerprint") in (None, prepared.fingerprint):
        return
    before, now = run.document.get("rows") or {}, _rows(prepared)
    differences = [(name, before.get(name, 0), count) for name, count in now.items() if before.get(name) != count]
    differences += [(name, count, 0) for name, count in before.items() if name not in now]
    fingerprints = ("fingerprint", run.document["fingerprint"][:12], prepared.fingerprint[:12])
    raise ModelError(
        f"the data has changed since run {run.name} began; it was learnt from other rows:\n"
        + _table("rows of", [*differences, fingerprints]),
        hint="--overwrite starts anew with the data as it is now",
    )


def _rows(prepared: Prepared) -> dict[str, int]:
    """How many rows each split has, and each label in train."""
    labels = {f"train, label {label}": count for label, count in prepared.label_counts["train"].items()}
    return {**prepared.splits, **labels}


def _table(what: str, differences: list[tuple[str, Any, Any]]) -> str:
    """Lines of name, value then and value now, in columns."""
    shown = [(what, "then", "now"), *((name, _shown(then), _shown(now)) for name, then, now in differences[:20])]
    widths = [max(len(line[column]) for line in shown) for column in range(2)]
    lines = [f"  {name:<{widths[0]}}  {then:<{widths[1]}}  {now}" for name, then, now in shown]
    return "\n".join([*lines, *([f"  and {len(differences) - 20} more"] if len(differences) > 20 else [])])


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _check_space(run: Run, bench: Workbench, observe: Observer) -> None:
    """Raise ResourceError where not even one more checkpoint and the model fit onto the disk; say where it is tight."""
    one = checkpoint.expected_bytes(bench.classifier, averaging=bool(bench.plan.config.averaging))
    model = 4 * sum(parameter.numel() for parameter in bench.classifier.parameters())
    free, there = shutil.disk_usage(run.folder).free, runs.size(run)
    # The checkpoint of the start holds weights and their mean, and no moments.
    least, wanted = one + model, (bench.plan.config.keep + 2) * one + 3 * model - there
    said = f"{run.folder}: {free / 1e9:.2f} GB are free, and this run needs"
    hint = "free some space, or choose another disk with --out or TEXTCLF_HOME"
    if free < least:
        raise ResourceError(f"{said} {least / 1e9:.2f} GB for a checkpoint and the model", hint=hint)
    if free < wanted:
        observe(Notice(f"{said} up to {wanted / 1e9:.2f} GB for checkpoints and the model"))
    if os.name != "nt":
        disk = os.statvfs(run.folder)
        if disk.f_files and disk.f_favail < _INODES:
            raise ResourceError(
                f"{run.folder}: the disk takes {disk.f_favail} more files, too few for a run", hint=hint
            )


_INODES = 100
"""Files and folders that a run makes, at most."""


def _absolute(reference: str) -> str:
    path = paths.expanded(reference)
    return str(path.absolute()) if path.exists() else reference


def _absolute_head(head: str) -> str:
    parts = file_and_class(head)
    return f"{paths.expanded(parts[0]).absolute()}:{parts[1]}" if parts is not None else head
