"""fit(): the training loop, written out."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.amp import GradScaler
from torch.optim import Optimizer

from textclf.data.batching import Batch, Packed
from textclf.errors import DivergedError, ResourceError
from textclf.metrics import LOWER_IS_BETTER, AnyMetrics
from textclf.model.classifier import Classifier
from textclf.model.device import Device
from textclf.model.losses import Loss
from textclf.training import checkpoint
from textclf.training.averaging import WeightAverage
from textclf.training.checkpoint import Progress
from textclf.training.events import Evaluated, Notice, Observer, StepDone
from textclf.training.optim import make_optimizer, rate_factor, set_rate
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

    targets: as `LabelSet.targets` has them. order: epoch -> the rows of its steps. batches: rows of a step -> its
    forward passes. tokens: of all training texts. validation_tokens: what `validate` scores. final_tokens: what is
    scored after the loop. baseline: the classifier can answer already, so it is judged before the first step.
    weights: (rows,) float32, what each row counts in the loss, 1 on average; None: all alike.
    """

    targets: np.ndarray
    order: Callable[[int], list[np.ndarray]]
    batches: Callable[[np.ndarray], list[Batch | Packed]]
    tokens: int
    validate: Callable[[], AnyMetrics]
    loss: Loss
    validation_tokens: int
    final_tokens: int
    baseline: bool
    weights: np.ndarray | None = None


def fit(
    classifier: Classifier,
    learning: Learning,
    plan: Plan,
    device: Device,
    *,
    checkpoints: Path,
    tracker: Tracker,
    observe: Observer,
    should_stop: Callable[[], bool],
    resume: Path | None = None,
    spent: float = 0.0,
) -> Progress:
    """Train until the plan is done, the time is up or patience ends; the classifier then holds the best weights.

    Every step's texts and random numbers follow from the seed and the step, so a run that resumes from a
    checkpoint continues bit for bit. `should_stop` is asked after every step: if it says so, a checkpoint is
    written and the progress returned as it stands, not `finished`. spent: seconds of the run's time before.

    Raises DivergedError for a loss or gradient that is not finite, ResourceError out of device memory.
    """
    config = plan.config
    optimizer = make_optimizer(classifier, config)
    scaler = GradScaler(device.kind, enabled=device.precision == "fp16")
    begin = Progress(evaluated_step=-1 if learning.baseline else 0, seconds=spent)
    average = WeightAverage(classifier, share=config.averaging) if config.averaging else None
    progress = checkpoint.load(resume, classifier, optimizer, average) if resume else begin
    if progress.scaler:
        scaler.load_state_dict(progress.scaler)
    pace = _Pace(plan, progress, learning)
    targets = torch.from_numpy(learning.targets).to(device.torch_device)
    order: list[np.ndarray] = []
    saved_at = time.monotonic()
    losses = [torch.tensor(loss, device=device.torch_device) for loss in progress.recent]
    overflows = 0
    classifier.train()
    while True:
        due = progress.step == plan.steps or progress.stopped_early or progress.step % plan.eval_every == 0
        if due and progress.step > progress.evaluated_step:
            with average.applied() if average else nullcontext():
                _evaluate(classifier, learning, plan, progress, pace, tracker, observe)
            _save(checkpoints, progress, classifier, optimizer, average, scaler, pace, losses)
        progress.finished = progress.step == plan.steps or progress.stopped_early is not None
        if progress.finished:
            break
        epoch, place = divmod(progress.step, plan.steps_per_epoch)
        if place == 0 or not order:
            order = learning.order(epoch)
        rows = order[place]
        torch.manual_seed(_step_seed(config.seed, progress.step))
        position = pace.schedule_position()
        rate = set_rate(optimizer, rate_factor(position, warmup=config.warmup, schedule=config.schedule))
        step_loss = torch.zeros((), device=device.torch_device)
        try:
            for batch in learning.batches(rows):
                with device.autocast():
                    logits = classifier(batch)
                targets_B = targets[torch.from_numpy(batch.rows).to(device.torch_device)]
                loss_B = learning.loss(logits, targets_B)
                if learning.weights is not None:
                    loss_B = loss_B * torch.from_numpy(learning.weights[batch.rows]).to(loss_B.device)
                loss = loss_B.sum() / len(rows)
                scaler.scale(loss).backward()
                step_loss += loss.detach()
        except torch.OutOfMemoryError as err:
            raise ResourceError(
                f"out of memory on {device.torch_device} at step {progress.step + 1}; kept: {_kept(checkpoints)}",
                hint="lower train.micro_batch_tokens or --micro-batch-size, or add --gradient-checkpointing",
            ) from err
        scaler.unscale_(optimizer)
        norm = _clip(classifier, config.max_grad_norm or math.inf, device)
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
            overflows = _check_finite(progress.step, step_loss, norm, rate, fp16=scaler.is_enabled(), before=overflows)
            progress.loss = float(torch.stack(losses).mean())
            observe(pace.report(rate))
            if log_now:
                tracker.log({"loss": progress.loss, "learning_rate": rate, "grad_norm": float(norm)}, progress.step)
        stop_now = should_stop()
        save_now = stop_now or time.monotonic() - saved_at > SAVE_SECONDS
        if save_now and not read_now:
            _check_finite(progress.step, step_loss, norm, rate, fp16=scaler.is_enabled(), before=overflows)
        if time_up:
            progress.stopped_early = f"the {config.max_minutes:g} minutes of --max-minutes are over"
            observe(Notice(f"stopped at step {progress.step}: {progress.stopped_early}"))
        elif save_now:
            _save(checkpoints, progress, classifier, optimizer, average, scaler, pace, losses)
            saved_at = time.monotonic()
        if stop_now:
            return progress
    if progress.best_step is not None and progress.best_step != progress.step:
        checkpoint.load_best(checkpoints / f"step-{progress.best_step}", classifier)
    elif average is not None:
        average.swap()
    return progress


def _save(
    folder: Path,
    progress: Progress,
    classifier: Classifier,
    optimizer: Optimizer,
    average: WeightAverage | None,
    scaler: GradScaler,
    pace: _Pace,
    losses: list[torch.Tensor],
) -> None:
    progress.recent = [float(loss) for loss in losses]
    progress.scaler = scaler.state_dict() or None
    progress.seconds = pace.seconds()
    checkpoint.save(folder, progress, classifier, optimizer, average)


def _evaluate(
    classifier: Classifier,
    learning: Learning,
    plan: Plan,
    progress: Progress,
    pace: _Pace,
    tracker: Tracker,
    observe: Observer,
) -> None:
    """Judge the classifier on validation and keep the books on the best."""
    config = plan.config
    assert config.metric is not None
    started = time.monotonic()
    metrics = learning.validate()
    value = metrics.as_dict()[config.metric]
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


class _Pace:
    """The clock of a run: how far it is, how fast it goes, when it must end."""

    def __init__(self, plan: Plan, progress: Progress, learning: Learning) -> None:
        self._plan, self._progress, self._learning = plan, progress, learning
        self._started = time.monotonic() - progress.seconds
        self._training_seconds = 0.0
        self._texts = 0
        self._steps = 0
        self._mark = time.monotonic()
        self._evaluation_seconds = 0.0
        self._budget = plan.config.max_minutes * 60 if plan.config.max_minutes else math.inf

    def seconds(self) -> float:
        return time.monotonic() - self._started

    def step_done(self, texts: int) -> None:
        now = time.monotonic()
        self._training_seconds += now - self._mark
        self._mark = now
        self._texts += texts
        self._steps += 1

    def evaluated(self, seconds: float) -> None:
        self._evaluation_seconds = seconds
        self._mark = time.monotonic()

    def schedule_position(self) -> float:
        """How much of the run is over, 0 to 1: by steps, or by time where time will end first."""
        by_steps = (self._progress.step + 1) / (self._plan.steps + 1)
        if self._budget == math.inf or not self._steps:
            return by_steps
        return min(1.0, max(by_steps, self.seconds() / self._usable_budget()))

    def is_up(self) -> bool:
        return self.seconds() >= self._usable_budget()

    def report(self, rate: float) -> StepDone:
        progress, plan = self._progress, self._plan
        per_step = self._training_seconds / self._steps
        evaluations = math.ceil((plan.steps - progress.step) / plan.eval_every)
        left = (plan.steps - progress.step) * per_step + evaluations * self._evaluation_seconds
        return StepDone(
            step=progress.step,
            steps=plan.steps,
            epoch=plan.epoch_at(progress.step),
            loss=progress.loss,
            learning_rate=rate,
            texts_per_second=self._texts / max(self._training_seconds, 1e-9),
            seconds_left=max(0.0, min(left, self._budget - self.seconds())),
        )

    def _usable_budget(self) -> float:
        """The budget less what is still to be scored: validation once more, then all splits of the best weights."""
        learning = self._learning
        if self._evaluation_seconds:
            per_token = self._evaluation_seconds / learning.validation_tokens
        else:
            # Before the first evaluation: scoring, in fp32, costs about half of a training step in bf16.
            per_epoch = self._training_seconds / max(self._steps, 1) * self._plan.steps_per_epoch
            per_token = 0.5 * per_epoch / learning.tokens
        reserve = per_token * (learning.validation_tokens + learning.final_tokens)
        return max(self._budget - reserve, self._budget / 2)


def _check_finite(step: int, loss: torch.Tensor, norm: torch.Tensor, rate: float, *, fp16: bool, before: int) -> int:
    """Steps in a row with overflow; raises DivergedError where that is not fp16's normal search for a scale."""
    if math.isfinite(float(loss)) and math.isfinite(float(norm)):
        return 0
    if fp16 and math.isfinite(float(loss)) and before < FP16_PATIENCE:
        return before + 1
    raise DivergedError(
        f"training diverged at step {step}: loss {float(loss):.4g}, gradient norm {float(norm):.4g}, "
        f"learning rate {rate:.3g}",
        hint="try a lower --learning-rate (a third of it), or --precision fp32",
    )


def _clip(classifier: Classifier, max_norm: float, device: Device) -> torch.Tensor:
    """Scale the gradient down to `max_norm`; its norm before that."""
    if device.kind != "cpu":
        return torch.nn.utils.clip_grad_norm_(classifier.parameters(), max_norm)
    gradients = [parameter.grad for parameter in classifier.parameters() if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm(gradients)
    if float(norm) > max_norm:  # looking costs nothing here, and saves a walk through all gradients
        torch.nn.utils.clip_grads_with_norm_(classifier.parameters(), max_norm, norm)
    return norm


def _step_seed(seed: int, step: int) -> int:
    digest = hashlib.sha256(f"{seed}:{step}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def _kept(checkpoints: Path) -> str:
    path, _ = checkpoint.newest(checkpoints)
    return path.name if path else "nothing yet"
