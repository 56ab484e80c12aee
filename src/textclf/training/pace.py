"""The clock of a run: how far it is, how fast it goes, when it must end."""

from __future__ import annotations

import math
import time

from textclf.training.checkpoint import Progress
from textclf.training.events import StepDone
from textclf.training.plan import Plan


class Pace:
    """The clock of a run that began `progress.seconds` ago, and looks at `progress` to see how far it is.

    tokens: that the passes of an epoch hold. validation_tokens: what an evaluation scores; final_tokens: what is scored
    after the loop.
    """

    def __init__(
        self, plan: Plan, progress: Progress, *, tokens: int, validation_tokens: int, final_tokens: int
    ) -> None:
        self._plan, self._progress = plan, progress
        self._tokens, self._validation_tokens, self._final_tokens = tokens, validation_tokens, final_tokens
        self._started = time.monotonic() - progress.seconds
        self._training_seconds = 0.0
        self._texts = 0
        self._steps = 0
        self._mark = time.monotonic()
        self._evaluation_seconds = 0.0
        self._budget = plan.config.max_minutes * 60 if plan.config.max_minutes else math.inf

    def seconds(self) -> float:
        """Of the run so far, over all sittings."""
        return time.monotonic() - self._started

    def step_done(self, texts: int) -> None:
        """A step with so many texts has been taken."""
        now = time.monotonic()
        self._training_seconds += now - self._mark
        self._mark = now
        self._texts += texts
        self._steps += 1

    def evaluated(self, seconds: float) -> None:
        """An evaluation took so long; it is no part of the pace of steps."""
        self._evaluation_seconds = seconds
        self._mark = time.monotonic()

    def schedule_position(self) -> float:
        """How much of the run is over, 0 to 1: by steps, or by time where time will end first."""
        by_steps = (self._progress.step + 1) / (self._plan.steps + 1)
        if self._budget == math.inf or not self._steps:
            return by_steps
        return min(1.0, max(by_steps, self.seconds() / self._usable_budget()))

    def is_up(self) -> bool:
        """Whether the time that may be trained in is over."""
        return self.seconds() >= self._usable_budget()

    def report(self, rate: float) -> StepDone:
        """What is to be said after a step at this learning rate."""
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
        if self._evaluation_seconds:
            per_token = self._evaluation_seconds / self._validation_tokens
        else:
            # Before the first evaluation: scoring, in fp32, costs about half of a training step in bf16.
            per_epoch = self._training_seconds / max(self._steps, 1) * self._plan.steps_per_epoch
            per_token = 0.5 * per_epoch / self._tokens
        reserve = per_token * (self._validation_tokens + self._final_tokens)
        return max(self._budget - reserve, self._budget / 2)
