"""fit(): the training loop, written out."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch.amp import GradScaler

from textclf.data.batching import Batch, Packed
from textclf.errors import DivergedError, ModelError, ResourceError
from textclf.metrics import LOWER_IS_BETTER, AnyMetrics
from textclf.model.classifier import Classifier
from textclf.model.device import Device, is_out_of_memory, on_device
from textclf.model.losses import Loss
from textclf.signals import Asked
from textclf.training import checkpoint
from textclf.training.averaging import WeightAverage
from textclf.training.checkpoint import Progress
from textclf.training.events import Evaluated, Event, Notice, Observer
from textclf.training.exactness import difference, surroundings
from textclf.training.optim import clip, make_optimizer, rate_factor, set_rate
from textclf.training.pace import Pace
from textclf.training.plan import Plan
from textclf.training.trackers import Tracker

LOG_EVERY = 10
"""Steps between two lines of metrics.jsonl. On CUDA the loss is read only then, so that steps need not wait."""
SAVE_SECONDS = 600
"""A checkpoint is written at every evaluation, and at least this often."""
FP16_PATIENCE = 50
"""Steps in a row whose fp16 gradients may overflow, while the scaler looks for its scale."""


@dataclass(frozen=True)
class Learning:
    """What a run learns from, and how to judge the classifier.

    targets: as `LabelSet.targets` has them. order: epoch -> the rows of its steps. batches: rows of a step, pieces
    -> its forward passes, each cut into so many pieces. copies: how often a pass holds each of its rows. tokens: that
    the passes of an epoch hold. validate: scores validation, telling how far it is. validation_tokens: what it scores.
    final_tokens: what is scored after the loop. baseline: the classifier can answer already, so it is judged before
    the first step. weights: (rows,) float32, what each row counts in the loss, 1 on average; None: all alike. texts:
    (rows,) the text of each row; None: row N is text N.
    """

    targets: np.ndarray
    order: Callable[[int], list[np.ndarray]]
    batches: Callable[[np.ndarray, int], list[Batch | Packed]]
    tokens: int
    validate: Callable[[Observer], AnyMetrics]
    loss: Loss
    validation_tokens: int
    final_tokens: int
    baseline: bool
    copies: int = 1
    weights: np.ndarray | None = None
    texts: np.ndarray | None = None


def fit(
    classifier: Classifier,
    learning: Learning,
    plan: Plan,
    device: Device,
    *,
    checkpoints: Path,
    tracker: Tracker,
    observe: Observer,
    asked: Asked,
    resume: Path | None = None,
    spent: float = 0.0,
) -> Progress:
    """Train until the plan is done, the time is up or patience ends; the classifier then holds the best weights.

    Every step's texts and random numbers follow from the seed and the step, so a run that resumes from a
    checkpoint continues bit for bit. `asked` is looked at after every step and every pass of an evaluation: if it
    says stop, a checkpoint is written and the progress returned as it stands, not `finished`. Where memory runs out
    a step is done again in smaller passes. spent: seconds of the run's time before.

    Raises DivergedError for a loss or gradient that is not finite, ResourceError where a single text does not fit
    into the device's memory, or a checkpoint onto the disk.
    """
    config = plan.config
    optimizer = make_optimizer(classifier, config)
    scaler = GradScaler(device.kind, enabled=device.precision == "fp16")
    now = surroundings(device)
    begin = Progress(evaluated_step=-1 if learning.baseline else 0, seconds=spent, surroundings=now)
    average = WeightAverage(classifier, share=config.averaging) if config.averaging else None
    progress = checkpoint.load(resume, classifier, optimizer, average) if resume else begin
    changed = difference(progress.surroundings, now)
    if changed is not None:
        observe(Notice(changed))
        progress.surroundings = now
    if progress.scaler:
        scaler.load_state_dict(progress.scaler)
    pace = Pace(
        plan,
        progress,
        tokens=learning.tokens,
        validation_tokens=learning.validation_tokens,
        final_tokens=learning.final_tokens,
    )
    order: list[np.ndarray] = []
    saved_at = time.monotonic()
    losses = [torch.tensor(loss, device=device.torch_device) for loss in progress.recent]
    overflows = 0
    unread: list[_Step] = []
    classifier.train()

    def save() -> None:
        nonlocal saved_at, overflows
        overflows = _check_finite(unread, learning, fp16=scaler.is_enabled(), before=overflows)
        progress.recent = [float(loss) for loss in losses]
        progress.scaler = scaler.state_dict() or None
        progress.seconds = pace.seconds()
        tracker.sync()
        try:
            checkpoint.save(checkpoints, progress, classifier, optimizer, average, keep=config.keep)
        except ResourceError as err:
            err.message += f"; kept: {_kept(checkpoints)}"
            raise
        saved_at = time.monotonic()
        asked.save = False

    while True:
        due = progress.step == plan.steps or progress.stopped_early or progress.step % plan.eval_every == 0
        if due and progress.step > progress.evaluated_step:
            try:
                with average.applied() if average else nullcontext():
                    _evaluate(learning, plan, progress, pace, tracker, observe, asked)
            except _StopAskedError:
                save()
                return progress
            save()
        progress.finished = progress.step == plan.steps or progress.stopped_early is not None
        if progress.finished:
            break
        epoch, place = divmod(progress.step, plan.steps_per_epoch)
        if place == 0 or not order:
            order = learning.order(epoch)
        rows = order[place]
        position = pace.schedule_position()
        rate = set_rate(optimizer, rate_factor(position, warmup=config.warmup, schedule=config.schedule))
        this = _Step(progress.step + 1, rate)
        while True:
            torch.manual_seed(_step_seed(config.seed, progress.step))
            batches = learning.batches(rows, progress.parts)
            try:
                step_loss = torch.zeros((), device=device.torch_device)
                for batch in batches:
                    with device.autocast():
                        logits = classifier(batch)
                    targets_B = on_device(learning.targets[batch.rows], device.torch_device)
                    loss_B = learning.loss(logits, targets_B)
                    if learning.weights is not None:
                        loss_B = loss_B * on_device(learning.weights[batch.rows], loss_B.device)
                    loss = loss_B.sum() / (len(rows) * learning.copies)
                    scaler.scale(loss).backward()
                    step_loss += loss.detach()
                    this.passes.append((batch.rows, loss_B.detach()))
                break
            except RuntimeError as err:
                if not is_out_of_memory(err):
                    raise
                if max(len(batch.rows) for batch in batches) == learning.copies:
                    raise ResourceError(
                        f"out of memory on {device.torch_device} at step {progress.step + 1}, with one text at a time; "
                        f"kept: {_kept(checkpoints)}",
                        hint="lower --max-length, or add --gradient-checkpointing"
                        + (" or --set train.r_drop=0, as each text is read twice" if learning.copies > 1 else ""),
                    ) from err
            # The same texts in the same order, in passes of half the size; what the first try left is thrown away.
            optimizer.zero_grad(set_to_none=True)
            this.passes.clear()
            if device.kind == "cuda":
                torch.cuda.empty_cache()
            progress.parts *= 2
            observe(
                Notice(
                    f"out of memory on {device.torch_device} at step {progress.step + 1}: it is done again, and others "
                    f"after it, in passes cut into {progress.parts}"
                )
            )
        scaler.unscale_(optimizer)
        this.loss, this.norm = step_loss, clip(classifier, optimizer, config.max_grad_norm or math.inf)
        unread.append(this)
        if device.kind == "cpu":  # reading costs nothing here
            overflows = _check_finite(unread, learning, fp16=scaler.is_enabled(), before=overflows)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        losses = [*losses[1 - LOG_EVERY :], step_loss]
        progress.step += 1
        if average is not None:
            average.step_done(progress.step, position)
        pace.step_done(len(rows))

        log_now = progress.step % LOG_EVERY == 0 or progress.step in (
            plan.steps,
            progress.evaluated_step + plan.eval_every,
        )
        time_up = pace.is_up() and progress.step < plan.steps
        read_now = log_now or time_up or device.kind == "cpu"
        if read_now:
            overflows = _check_finite(unread, learning, fp16=scaler.is_enabled(), before=overflows)
            progress.loss = float(torch.stack(losses).mean())
            observe(pace.report(rate))
            if log_now:
                tracker.log(
                    {"loss": progress.loss, "learning_rate": rate, "grad_norm": float(this.norm)}, progress.step
                )
        if time_up:
            progress.stopped_early = f"the {config.max_minutes:g} minutes of --max-minutes are over"
            observe(Notice(f"stopped at step {progress.step}: {progress.stopped_early}"))
        stop_now, was_asked = asked.stop is not None, asked.save
        if stop_now or was_asked or time.monotonic() - saved_at > SAVE_SECONDS:
            save()
        if was_asked:
            observe(Notice(f"saved: step-{progress.step}"))
        if stop_now:
            return progress
    if progress.best_step is not None and progress.best_step != progress.step:
        try:
            checkpoint.load_best(checkpoints / f"step-{progress.best_step}", classifier)
            return progress
        except ModelError as err:
            observe(Notice(f"the best, {err.message}; the last weights, of step-{progress.step}, are taken instead"))
            progress.best_step = progress.step
    if average is not None:
        average.swap()
    return progress


class _StopAskedError(Exception):
    """A signal came in the middle of an evaluation."""


@dataclass
class _Step:
    """What is known of a step while nobody has looked at its figures yet: they wait on the device.

    passes: rows and their losses, (rows,) fp32, of each forward pass.
    """

    number: int
    rate: float
    passes: list[tuple[np.ndarray, torch.Tensor]] = field(default_factory=list)
    loss: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    norm: torch.Tensor = field(default_factory=lambda: torch.zeros(()))


def _evaluate(
    learning: Learning,
    plan: Plan,
    progress: Progress,
    pace: Pace,
    tracker: Tracker,
    observe: Observer,
    asked: Asked,
) -> None:
    """Judge the classifier on validation and keep the books on the best. Raises _StopAskedError when asked to stop."""
    config = plan.config
    assert config.metric is not None
    started = time.monotonic()

    def look(event: Event) -> None:
        if asked.stop is not None:
            raise _StopAskedError

    metrics = learning.validate(look)
    value = metrics.as_dict()[config.metric]
    if not math.isfinite(metrics.loss) or not math.isfinite(value):
        raise DivergedError(
            f"the evaluation at step {progress.step} gives {config.metric} {value:.4g} and loss {metrics.loss:.4g}",
            hint="try a lower --learning-rate (a third of it)",
        )
    score = -value if config.metric in LOWER_IS_BETTER else value
    improved = progress.best_score is None or score > progress.best_score
    # Few validation texts give equal scores often; the loss then tells which model is surer of the right labels.
    best = improved or (score == progress.best_score and metrics.loss < (progress.best_loss or 0.0))
    progress.stale = 0 if improved else progress.stale + 1
    if best:
        progress.best_score, progress.best_loss, progress.best_step = score, metrics.loss, progress.step
    progress.evaluated_step = progress.step
    seconds = time.monotonic() - started
    pace.evaluated(seconds)
    tracker.log({"validation": metrics.as_dict()}, progress.step)
    observe(Evaluated(progress.step, plan.steps, plan.epoch_at(progress.step), progress.loss, metrics, best, seconds))
    if config.patience and progress.stale >= config.patience and progress.step < plan.steps:
        progress.stopped_early = f"{config.metric} has not improved for {progress.stale} evaluations"
        observe(Notice(f"stopped early at step {progress.step}: {progress.stopped_early}"))


def _check_finite(unread: list[_Step], learning: Learning, *, fp16: bool, before: int) -> int:
    """Look at the steps that nobody has looked at yet, and forget them.

    Returns how many in a row overflowed last; raises DivergedError where that is not fp16's normal search for a scale.
    """
    for step in unread:
        loss, norm = float(step.loss), float(step.norm)
        if math.isfinite(loss) and math.isfinite(norm):
            before = 0
        elif fp16 and math.isfinite(loss) and before < FP16_PATIENCE:
            before += 1
        else:
            raise DivergedError(
                f"training diverged at step {step.number}: loss {loss:.4g}, gradient norm {norm:.4g}, "
                f"learning rate {step.rate:.3g}; {_blamed(step, learning)}",
                hint="try a lower --learning-rate (a third of it), or --precision fp32",
            )
    unread.clear()
    return before


def _blamed(step: _Step, learning: Learning) -> str:
    """The rows of a step whose own loss is no number, else all of its rows."""
    rows_N = np.concatenate([rows for rows, _ in step.passes])
    losses_N = torch.cat([losses for _, losses in step.passes]).float().cpu().numpy()
    bad_N = ~np.isfinite(losses_N)
    named = rows_N[bad_N] if bad_N.any() else rows_N
    texts = sorted({int(text) for text in (named if learning.texts is None else learning.texts[named])})
    shown = ", ".join(map(str, texts[:32])) + (f" and {len(texts) - 32} more" if len(texts) > 32 else "")
    whose = "without a finite loss" if bad_N.any() else "of the step"
    return f"rows {whose}: {shown} (of prepared train, from 0)"


def _step_seed(seed: int, step: int) -> int:
    digest = hashlib.sha256(f"{seed}:{step}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def _kept(checkpoints: Path) -> str:
    path, _ = checkpoint.newest(checkpoints)
    return path.name if path else "nothing yet"
