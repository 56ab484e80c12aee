"""The end of a run: the best weights measured and calibrated, and written as an artifact."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from textclf import atomic, pretrained, scope
from textclf.abstention import as_points, coverage_curve
from textclf.answers import Answers
from textclf.artifact import card, figures, folder, integrity, runs
from textclf.artifact.folder import Facts
from textclf.artifact.runs import Run
from textclf.artifact.screening import last_part
from textclf.config import as_dict
from textclf.errors import ModelError
from textclf.intervals import intervals
from textclf.metrics import AnyMetrics, Confusion, confusions, measure, reliability
from textclf.model import head_code
from textclf.model.exporting import write_graph
from textclf.model.head_code import is_code
from textclf.training import checkpoint
from textclf.training.calibration import cool, fit_temperature
from textclf.training.events import Notice, Observer, Phase
from textclf.training.exactness import environment
from textclf.training.interpolation import walk_back
from textclf.training.learning import split_answers, split_logits
from textclf.training.thresholds import fit_thresholds
from textclf.training.workbench import Workbench, short_name

_SHOWN_CONFUSIONS = 5


def finish(run: Run, bench: Workbench, progress: checkpoint.Progress, observe: Observer) -> Run:
    """Choose the weights, score them, write the artifact, and close the run."""
    share = walk_back(bench, run.folder / runs.CHECKPOINTS, progress, observe)
    logits: dict[str, np.ndarray] = {"validation": split_logits(bench, "validation", observe)}
    if "test" in bench.encoded:
        logits["test"] = split_logits(bench, "test", observe)
    bench, temperature = _with_decisions(bench, logits["validation"], observe)
    _save_adapter(run, bench, observe)
    bench.classifier.merge_lora()
    label_set = bench.prepared.label_set
    probs = {split: label_set.probabilities(logits_NC / temperature) for split, logits_NC in logits.items()}
    answers = {split: split_answers(bench, split, probs_NC) for split, probs_NC in probs.items()}
    measured = {split: one.measure() for split, one in answers.items()}
    calibration = _calibration(bench, temperature, logits, answers["validation"])
    observe(Notice(_calibrated(calibration, measured)))
    best = f"the best {bench.config.train.metric} on validation was at step {progress.best_step} of {progress.step}"
    if share is not None:
        where = "the last weights" if share == 1 else f"weights {share:.0%} of the way from the first to the last"
        best += f"; taken are {where}, where the loss is less"
    elif progress.best_step == 0 and progress.step:
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
        split = "test" if "test" in answers else "validation"
        confused = confusions(answers[split].targets, answers[split].probs_NC, label_set)
        baselines = run.document["baselines"]
        folder.write_facts(draft, _facts(bench, metrics, known, calibration, confused or (), baselines))
        observe(Phase("trace and check the ONNX graph"))
        try:
            write_graph(folder.read(draft), bench.encoded["validation"])
        except ModelError as err:  # predict can do without
            observe(Notice(err.message))
        for name, drawn in _plots(answers[split], confused).items():
            atomic.write_text(draft / name, drawn)
        (draft / folder.CARD).write_text(card.render(folder.read(draft)), encoding="utf-8")
        integrity.seal(draft)
    run = run.update(
        state="done",
        step=progress.step,
        best_step=progress.best_step,
        share=share,
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
        "scope": None
        if label_set.multi or bench.questions
        else scope.scale_of(scope.energy(logits["validation"] / temperature)),
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


def _plots(answers: Answers, confused: Sequence[Confusion] | None) -> dict[str, str]:
    """The pictures of the card, from what `evaluate` makes its figures of."""
    targets, probs_NC, label_set = answers.targets, answers.probs_NC, answers.label_set
    return figures.plots(
        dict(zip(label_set.names, label_set.counts(targets).tolist(), strict=True)),
        confused,
        reliability(targets, probs_NC, label_set),
        None if label_set.multi else coverage_curve(answers.confidence, answers.right),
    )


def _facts(
    bench: Workbench,
    metrics: dict[str, dict[str, Any]],
    intervals: dict[str, dict[str, Any]],
    calibration: dict[str, Any],
    confused: Sequence[Confusion],
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
        confusions=[asdict(one) for one in confused[:_SHOWN_CONFUSIONS]],
        baselines=baselines,
        config=config,
        environment=environment(bench.device),
    )
