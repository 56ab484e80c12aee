"""finetune(): prepared data and a config to a run folder with an artifact."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import shutil
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import textclf
from textclf import atomic, paths, presets, pretrained, signals
from textclf.abstention import as_points, coverage_curve
from textclf.artifact import card, folder, integrity, runs
from textclf.artifact.folder import Facts
from textclf.artifact.runs import Run
from textclf.artifact.screening import last_part
from textclf.config import RunConfig, as_dict, build, by_field, check_complete, file_and_class
from textclf.data.forms import answers_of
from textclf.data.preparation import Prepared, prepare
from textclf.errors import InterruptedRun, ModelError, ResourceError, TextclfError, UsageError
from textclf.intervals import Answers, intervals
from textclf.metrics import AnyMetrics, confusions, measure
from textclf.model import head_code
from textclf.model.device import Device
from textclf.model.exporting import write_graph
from textclf.model.head_code import is_code
from textclf.model.modeling_textclf import POOLINGS, head_key
from textclf.training import checkpoint
from textclf.training.baselines import measure_baselines
from textclf.training.calibration import cool, fit_temperature
from textclf.training.events import Notice, Observer, Phase, ignore
from textclf.training.head import choose_head, with_head
from textclf.training.learning import make_learning, measure_split, split_logits
from textclf.training.loop import fit
from textclf.training.thresholds import fit_thresholds
from textclf.training.trackers import JsonlTracker, Tolerant
from textclf.training.workbench import Workbench, assemble, check, short_name

_SHOWN_CONFUSIONS = 5


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
    with signals.watched() as asked:
        try:
            return _run(run_folder, request, overwrite, on_event, asked)
        except KeyboardInterrupt:
            if asked.stop is None:
                raise
            raise _interrupted(run_folder, asked.stop) from None


def _run(run_folder: Path, request: RunConfig, overwrite: bool, on_event: Observer, asked: signals.Asked) -> Run:
    run = runs.read(run_folder)
    if run is None or overwrite or (runs.is_blank(run) and run.document["request"] != as_dict(request)):
        run = _begin(run, run_folder, request)
    else:
        _check_same(run, request)
        if run.state == "done":
            _check_data(run, prepare(request.data))
            on_event(Notice(f"run {run.name} is finished already; --overwrite trains anew"))
            return run
    with runs.locked(run):
        try:
            return _train(run, assemble(request, on_event), on_event, asked)
        except KeyboardInterrupt:  # not a failure
            _close(run, state="paused")
            raise
        except TextclfError as err:
            _close(run, state="failed", message=err.message)
            raise


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
        "model": {"name": str(model)} if model is not None else {},
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
    digest = hashlib.sha256(json.dumps(as_dict(config), sort_keys=True).encode()).hexdigest()[:6]
    named = [paths.slug(short_name(name))[:40] for name in (config.data.dataset, config.model.name)]
    return "-".join([*named, digest])


def _train(run: Run, bench: Workbench, observe: Observer, asked: signals.Asked) -> Run:
    _check_data(run, bench.prepared)
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
        rows=_rows(bench.prepared),
        prepared=str(bench.prepared.folder),
        environment=_environment(bench.device),
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
    return _finish(run, bench, progress, observe)


def _finish(run: Run, bench: Workbench, progress: checkpoint.Progress, observe: Observer) -> Run:
    """Score the best weights, write the artifact, and close the run."""
    measurable = [split for split in ("validation", "test") if split in bench.encoded]
    logits: dict[str, np.ndarray] = {split: split_logits(bench, split, observe) for split in measurable}
    bench, temperature = _with_decisions(bench, logits["validation"], observe)
    _save_adapter(run, bench, observe)
    bench.classifier.merge_lora()
    label_set = bench.prepared.label_set
    probs = {split: label_set.probabilities(logits_NC / temperature) for split, logits_NC in logits.items()}
    measured = {split: measure_split(bench, split, probs_NC) for split, probs_NC in probs.items()}
    answers = {
        split: answers_of(bench.targets[split], probs_NC, label_set, bench.questions.get(split))
        for split, probs_NC in probs.items()
    }
    calibration = _calibration(bench, temperature, logits, answers["validation"])
    observe(Notice(_calibrated(calibration, measured)))
    best = f"the best {bench.config.train.metric} on validation was at step {progress.best_step} of {progress.step}"
    if progress.best_step == 0 and progress.step:
        best += ": fine-tuning did not improve on what it began with, and that stays"
    observe(Notice(best))
    gap = _split_gap(measured)
    if gap:
        observe(Notice(gap))
    metrics = {split: one.as_dict() for split, one in measured.items()}
    for split in metrics.keys() & bench.questions.keys():
        metrics[split]["question_chance"] = bench.questions[split].chance
    head_code.remember(bench.classifier.head_record)
    known = {
        split: {name: asdict(one) for name, one in intervals(answers[split], measured[split]).items()}
        for split in measured
    }
    bench.classifier.restore_vocabulary()
    observe(Phase("write the model"))
    with atomic.new_folder(run.folder / runs.MODEL) as draft:
        bench.classifier.save(draft)
        bench.tokenizer.model_max_length = bench.max_length  # where pipeline(..., truncation=True) cuts
        bench.tokenizer.save_pretrained(draft)
        confused = _confusions(bench, probs)
        baselines = run.document["baselines"]
        folder.write_facts(draft, _facts(bench, metrics, known, calibration, confused, baselines))
        observe(Phase("trace and check the ONNX graph"))
        try:
            write_graph(folder.read(draft), bench.encoded["validation"])
        except ModelError as err:  # predict can do without
            observe(Notice(err.message))
        (draft / folder.CARD).write_text(card.render(folder.read(draft)), encoding="utf-8")
        integrity.seal(draft)
    run = run.update(
        state="done",
        step=progress.step,
        best_step=progress.best_step,
        stopped_early=progress.stopped_early,
        seconds=round(progress.seconds, 1),
        metrics=metrics,
        notes=[gap] if gap else [],
    )
    # A finished run is not resumed; its checkpoints are three times the size of the model.
    shutil.rmtree(run.folder / runs.CHECKPOINTS, ignore_errors=True)
    return run


def _save_adapter(run: Run, bench: Workbench, observe: Observer) -> None:
    """Write what LoRA has learnt beside the artifact, alone, for peft."""
    if bench.config.model.lora is None:
        return
    if not bench.classifier.is_of_transformers:
        observe(
            Notice(f"no {runs.ADAPTER}/: plain transformers, onto whose models peft puts adapters, has no such head")
        )
        return
    name, folder = bench.config.model.name, bench.base.folder
    is_local = name == pretrained.NAME or Path(name).is_absolute()
    with atomic.new_folder(run.folder / runs.ADAPTER) as draft:
        bench.classifier.save_lora(
            draft, base=str(folder) if is_local else name, revision=None if is_local else bench.base.revision
        )


def _with_decisions(bench: Workbench, logits_NC: np.ndarray, observe: Observer) -> tuple[Workbench, float]:
    """The workbench with what validation, whose logits these are, says of decisions, and what divides all logits now.

    The temperature first, then thresholds of the probabilities that it leads to.
    """
    config, label_set, targets = bench.config.train, bench.prepared.label_set, bench.targets["validation"]
    assert config.metric is not None
    temperature = fit_temperature(targets, logits_NC, label_set)
    if not cool(bench, temperature):
        observe(Notice("scores stay as they are: something that is not linear follows the last layer"))
        temperature = 1.0
    if label_set.multi:
        probs_NC = label_set.probabilities(logits_NC / temperature)
        label_set, said = fit_thresholds(targets, probs_NC, label_set, metric=config.metric, seed=config.seed)
        observe(Notice(said))
    return replace(bench, prepared=replace(bench.prepared, label_set=label_set)), temperature


def _calibration(
    bench: Workbench, temperature: float, logits: Mapping[str, np.ndarray], validation: Answers
) -> dict[str, Any]:
    """What textclf.json says of scores. logits: of each split, before; validation: its answers, now."""
    label_set = bench.prepared.label_set
    before = {
        split: measure(bench.targets[split], label_set.probabilities(logits_NC), label_set)
        for split, logits_NC in logits.items()
    }
    return {
        "temperature": temperature,
        "rows": len(validation.targets),
        "before": {split: {"loss": one.loss, "ece": one.ece, "brier": one.brier} for split, one in before.items()},
        "coverage": None if label_set.multi else as_points(coverage_curve(validation.confidence, validation.right)),
    }


def _calibrated(calibration: Mapping[str, Any], measured: Mapping[str, AnyMetrics]) -> str:
    """The temperature and what it did, in words."""
    changes = [
        f"{split} {before['ece']:.4f} before, {measured[split].ece:.4f} after"
        for split, before in calibration["before"].items()
    ]
    return f"temperature {calibration['temperature']:.3g}; calibration error: {'; '.join(changes)}"


def _split_gap(measured: Mapping[str, AnyMetrics]) -> str | None:
    """A sentence where validation and test differ by more than chance would make them."""
    if "validation" not in measured or "test" not in measured:
        return None
    validation, test = measured["validation"], measured["test"]
    pooled = (validation.right * validation.rows + test.right * test.rows) / (validation.rows + test.rows)
    deviation = math.sqrt(max(pooled * (1 - pooled), 1e-9) * (1 / validation.rows + 1 / test.rows))
    if abs(validation.right - test.right) < 4 * deviation:
        return None
    worse = "below" if test.right < validation.right else "above"
    return (
        f"{test.right:.1%} of test is answered rightly, far {worse} validation's {validation.right:.1%}: "
        "train and test differ, so trust neither for texts of a third kind"
    )


def _confusions(bench: Workbench, probs: Mapping[str, np.ndarray]) -> list[dict[str, Any]]:
    """The most frequent confusions of test, or of validation where there is no test."""
    split = "test" if "test" in probs else "validation"
    found = confusions(bench.targets[split], probs[split], bench.prepared.label_set)
    return [asdict(one) for one in (found or ())[:_SHOWN_CONFUSIONS]]


def _facts(
    bench: Workbench,
    metrics: dict[str, dict[str, Any]],
    intervals: dict[str, dict[str, Any]],
    calibration: dict[str, Any],
    confused: list[dict[str, Any]],
    baselines: list[dict[str, Any]],
) -> Facts:
    prepared, config = bench.prepared, as_dict(bench.config)
    config["data"]["dataset"] = prepared.name
    config["model"]["name"] = bench.base_name
    if is_code(bench.config.model.head):
        config["model"]["head"] = last_part(bench.config.model.head)
    if prepared.corrected is not None:
        config["data"]["corrections"] = prepared.corrected.file
    if bench.config.model.tokenizer is not None:
        config["model"]["tokenizer"] = short_name(bench.config.model.tokenizer)
    return Facts(
        max_length=bench.max_length,
        prompt=bench.config.model.prompt,
        form=prepared.form,
        columns={"text": prepared.text_column}
        | ({"text_pair": prepared.text_pair_column} if prepared.text_pair_column is not None else {}),
        overflow=bench.config.model.overflow,
        base_model=bench.base_name,
        base_revision=bench.base.revision,
        dataset=prepared.name,
        dataset_id=prepared.repository,
        dataset_revision=prepared.revision,
        fingerprint=prepared.fingerprint,
        splits=dict(prepared.splits),
        label_counts=dict(prepared.label_counts["train"]),
        thresholds=prepared.label_set.thresholds,
        metrics=metrics,
        intervals=intervals,
        calibration=calibration,
        confusions=confused,
        baselines=baselines,
        config=config,
        environment=_environment(bench.device),
    )


def _environment(device: Device) -> dict[str, str]:
    return {
        "textclf": textclf.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": device.kind,
        "precision": device.precision,
    }


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
    least, wanted = one + model, (bench.plan.config.keep + 2) * one + model - there
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
