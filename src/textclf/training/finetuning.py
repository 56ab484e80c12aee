"""finetune(): prepared data and a config to a run folder with an artifact."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import platform
import shutil
import signal
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import textclf
from textclf import atomic, paths, presets
from textclf.artifact import card, folder, runs
from textclf.artifact.folder import Facts
from textclf.artifact.runs import Run
from textclf.config import RunConfig, as_dict, build, by_field, check_complete
from textclf.data.preparation import Prepared, prepare
from textclf.errors import InterruptedRun, ModelError, TextclfError, UsageError
from textclf.metrics import AnyMetrics, confusions
from textclf.model.device import Device
from textclf.model.exporting import write_graph
from textclf.training import checkpoint
from textclf.training.events import Notice, Observer, Phase, ignore
from textclf.training.head import choose_head, with_head
from textclf.training.learning import make_learning, measure_split, split_probabilities
from textclf.training.loop import fit
from textclf.training.thresholds import fit_thresholds
from textclf.training.trackers import JsonlTracker
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

    model: Hub id or folder of the pretrained model. dataset: catalog name, file, folder or Hub id.
    config: a RunConfig, a nested mapping or a YAML file; `settings` are its fields by name (`epochs=3`),
        which win over it.
    out: the run folder; None makes one in the runs folder, named after data set, model and config.
    overwrite: delete what an earlier run left there. Without it the same call resumes an unfinished run and
        returns a finished one as it is.

    Returns the finished Run. Raises the kinds of TextclfError: DataError, ModelError, HubError,
    DivergedError, ResourceError; ConfigError for settings; InterruptedRun after SIGINT or SIGTERM, when a
    checkpoint was written.
    """
    request = resolve(model, dataset, config=config, **settings)
    run_folder = Path(out).expanduser().resolve() if out is not None else paths.runs_dir() / run_name(request)
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
            return _train(run, assemble(request, on_event), on_event)
        except InterruptedRun:  # not a failure: the run is paused
            raise
        except TextclfError as err:
            run.update(state="failed", message=err.message)
            raise


def resolve(
    model: str | Path | None,
    dataset: str | Path | None,
    *,
    config: RunConfig | Mapping[str, Any] | str | Path | None = None,
    **settings: Any,
) -> RunConfig:
    """One RunConfig out of the arguments of `finetune`. Raises UsageError without model or data set."""
    if isinstance(config, (str, Path)):
        config = presets.read_config_file(config)
    base = as_dict(config) if isinstance(config, RunConfig) else dict(config or {})
    named = {
        "model": {"name": str(model)} if model is not None else {},
        "data": {"dataset": str(dataset)} if dataset is not None else {},
    }
    merged = build(base, named, by_field(settings))
    check_complete(merged)
    assert merged.data.dataset is not None and merged.model.name is not None
    # Absolute, so that the same command from another folder is not taken for the same run.
    return replace(
        merged,
        data=replace(merged.data, dataset=_absolute(merged.data.dataset)),
        model=replace(
            merged.model,
            name=_absolute(merged.model.name),
            tokenizer=_absolute(merged.model.tokenizer) if merged.model.tokenizer is not None else None,
        ),
    )


def run_name(config: RunConfig) -> str:
    """A name that is the same for the same config: data set, model, six hex digits."""
    digest = hashlib.sha256(json.dumps(as_dict(config), sort_keys=True).encode()).hexdigest()[:6]
    named = [paths.slug(short_name(name))[:40] for name in (config.data.dataset, config.model.name)]
    return "-".join([*named, digest])


def _train(run: Run, bench: Workbench, observe: Observer) -> Run:
    _check_data(run, bench.prepared)
    resume, damaged = checkpoint.newest(run.folder / runs.CHECKPOINTS)
    for message in damaged:
        observe(Notice(message))
    if resume is not None:
        observe(Notice(f"going on from {resume.name}"))
    # Which head it was is in the resolved config that the first sitting wrote.
    bench = with_head(bench, run.config["model"]["head"]) if resume is not None else choose_head(bench, observe)
    atomic.write_json(run.folder / runs.CONFIG, as_dict(bench.config))
    run = run.update(
        state="running",
        message=None,
        dataset=bench.prepared.name,
        model=bench.base_name,
        fingerprint=bench.prepared.fingerprint,
        prepared=str(bench.prepared.folder),
        environment=_environment(bench.device),
        steps=bench.plan.steps,
    )
    resume_at = int(resume.name.removeprefix("step-")) if resume else 0
    with _signals() as caught, JsonlTracker(run.folder / runs.METRICS, resume_at=resume_at) as tracker:
        progress = fit(
            bench.classifier,
            make_learning(bench),
            bench.plan,
            bench.device,
            checkpoints=run.folder / runs.CHECKPOINTS,
            tracker=tracker,
            observe=observe,
            should_stop=lambda: bool(caught),
            resume=resume,
            spent=bench.spent,
        )
    if not progress.finished:
        run.update(state="paused", step=progress.step)
        raise InterruptedRun(
            f"stopped by {caught[0].name} after step {progress.step} of {bench.plan.steps}; kept: step-{progress.step}",
            hint="the same command goes on from there",
            signal_number=caught[0],
        )
    return _finish(run, bench, progress, observe)


def _finish(run: Run, bench: Workbench, progress: checkpoint.Progress, observe: Observer) -> Run:
    """Score the best weights, write the artifact, and close the run."""
    bench.classifier.merge_lora()  # what is measured is what is saved
    measurable = [split for split in ("validation", "test") if split in bench.encoded]
    probs: dict[str, np.ndarray] = {split: split_probabilities(bench, split, observe) for split in measurable}
    bench = _with_thresholds(bench, probs["validation"], observe)
    measured = {split: measure_split(bench, split, probs_NC) for split, probs_NC in probs.items()}
    best = f"the best {bench.config.train.metric} on validation was at step {progress.best_step} of {progress.step}"
    if progress.best_step == 0 and progress.step:
        best += ": fine-tuning did not improve on what it began with, and that stays"
    observe(Notice(best))
    gap = _split_gap(measured)
    if gap:
        observe(Notice(gap))
    metrics = {split: one.as_dict() for split, one in measured.items()}
    bench.classifier.restore_vocabulary()
    observe(Phase("write the model"))
    with atomic.new_folder(run.folder / runs.MODEL) as draft:
        bench.classifier.save(draft)
        bench.tokenizer.model_max_length = bench.max_length  # where pipeline(..., truncation=True) cuts
        bench.tokenizer.save_pretrained(draft)
        folder.write_facts(draft, _facts(bench, metrics, _confusions(bench, probs)))
        (draft / folder.CARD).write_text(card.render(folder.read(draft)), encoding="utf-8")
        observe(Phase("trace and check the ONNX graph"))
        try:
            write_graph(folder.read(draft), bench.encoded["validation"])
        except ModelError as err:  # predict can do without
            observe(Notice(err.message))
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


def _with_thresholds(bench: Workbench, probs_NC: np.ndarray, observe: Observer) -> Workbench:
    """The workbench with the decision rule that is best on validation, whose probabilities these are."""
    config = bench.config.train
    assert config.metric is not None
    if not bench.prepared.label_set.multi:
        return bench
    label_set, said = fit_thresholds(
        bench.targets["validation"],
        probs_NC,
        bench.prepared.label_set,
        metric=config.metric,
        seed=config.seed,
    )
    observe(Notice(said))
    return replace(bench, prepared=replace(bench.prepared, label_set=label_set))


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


def _facts(bench: Workbench, metrics: dict[str, dict[str, Any]], confused: list[dict[str, Any]]) -> Facts:
    prepared, config = bench.prepared, as_dict(bench.config)
    config["data"]["dataset"] = prepared.name
    config["model"]["name"] = bench.base_name
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
        confusions=confused,
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
        for value in (request.data.dataset, request.model.name, request.model.tokenizer):
            if value is not None and Path(str(value)).is_relative_to(run_folder):
                raise UsageError(
                    f"{value} lies in the run that --overwrite would delete", hint="give the new run another --out"
                )
    check(request)
    if old is not None:
        runs.remove(old)
    return runs.create(run_folder, as_dict(request))


def _check_same(run: Run, request: RunConfig) -> None:
    before = run.document["request"]
    differences = [
        f"{section}.{key} was {before.get(section, {}).get(key)!r}, now {value!r}"
        for section, values in as_dict(request).items()
        for key, value in values.items()
        if before.get(section, {}).get(key) != value
    ]
    if differences:
        raise UsageError(
            f"{run.folder} holds a run with other settings: {'; '.join(differences[:5])}",
            hint="give another --out, or --overwrite to delete that run",
        )


def _check_data(run: Run, prepared: Prepared) -> None:
    if run.document.get("fingerprint") not in (None, prepared.fingerprint):
        raise ModelError(
            f"the data has changed since run {run.name} began; it was learnt from other rows",
            hint="--overwrite starts anew with the data as it is now",
        )


def _absolute(reference: str) -> str:
    path = Path(reference).expanduser()
    return str(path.absolute()) if path.exists() else reference


@contextlib.contextmanager
def _signals() -> Iterator[list[signal.Signals]]:
    """Catch the first SIGINT or SIGTERM into the yielded list; the second ends the process at once."""
    caught: list[signal.Signals] = []

    def handle(number: int, frame: object) -> None:
        if caught:
            raise SystemExit(128 + number)
        caught.append(signal.Signals(number))

    if threading.current_thread() is not threading.main_thread():
        yield caught
        return
    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
