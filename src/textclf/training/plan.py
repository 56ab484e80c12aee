"""The knobs that the user left open, chosen from the data and the model, with the reason."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import cast, get_args

from textclf.config import Metric, TrainConfig
from textclf.errors import UsageError
from textclf.labels import LabelSet
from textclf.metrics import judged_by, metrics_of
from textclf.model.losses import label_smoothing

STEPS_WANTED = (300, 600)
"""Optimizer steps that a fine-tuning from a linear probe wants: with few labels, and with many; see
docs/explanation/defaults.md."""
STEPS_PER_LABEL = 8
"""What a label wants of them, between these two numbers."""
STEPS_WANTED_AFRESH = 1000
"""The same of one whose head starts from nothing."""

R_DROP = 4.0
"""Weight of R-Drop where it is worth its time; see docs/explanation/defaults.md."""
SHORT = 64
"""Tokens of a text, in the mean, up to which it is: reading long texts twice takes twice as long."""
STEPS_FOR_R_DROP = 200
"""Steps from which on it is: it slows learning down, and fewer have to be used to the full. With a time budget nobody
knows how many there will be."""

LORA_FACTOR = 10
"""Adapters learn best at about ten times the rate of full fine-tuning ("LoRA Without Regret", Schulman et al. 2025)."""


@dataclass(frozen=True)
class Plan:
    """A TrainConfig without open knobs, and what follows from it.

    steps: optimizer steps of the whole run. reasons: one line per knob that was chosen here.
    """

    config: TrainConfig
    steps_per_epoch: int
    steps: int
    eval_every: int
    reasons: tuple[str, ...]

    def epoch_at(self, step: int) -> float:
        """Passes over train after so many steps."""
        return step / self.steps_per_epoch


def make_plan(
    config: TrainConfig,
    label_set: LabelSet,
    *,
    rows: int,
    width: int,
    pass_tokens: int,
    probed: bool,
    lora: bool = False,
    tokens: int = 0,
    has_dropout: bool = False,
    questions: bool = False,
) -> Plan:
    """Resolve a config for `rows` training texts and a backbone whose hidden states have `width` numbers.

    pass_tokens: what a forward pass on the device at hand takes best. probed: the head starts from a linear probe.
    tokens: of all training texts. has_dropout: the backbone has it. questions: rows are choices of questions.
    Raises UsageError for a metric that the labels are not measured by.
    """
    reasons = []
    measured = metrics_of(label_set)
    if config.metric is not None and config.metric not in judged_by(measured):
        raise UsageError(
            f"train.metric is {config.metric}, which {label_set.problem_type} is not measured by",
            hint=f"one of {', '.join(name for name in get_args(Metric) if name in judged_by(measured))}",
        )
    steps_per_epoch = math.ceil(rows / config.batch_size)
    epochs = config.epochs
    if epochs is None:
        wanted = steps_wanted(label_set, questions=questions) if probed else STEPS_WANTED_AFRESH
        epochs = float(min(15, max(3, round(wanted / steps_per_epoch))))
        reasons.append(
            f"{epochs:g} epochs: {steps_per_epoch} steps each, about {wanted} are wanted, from 3 to 15 epochs"
        )
    steps = max(1, round(epochs * steps_per_epoch)) if epochs else 0
    rate = config.learning_rate
    if rate is None:
        rate = default_learning_rate(width, probed=probed) * (LORA_FACTOR if lora else 1)
        of_lora = f", times {LORA_FACTOR} for LoRA" if lora else ""
        reasons.append(f"learning rate {rate:.2g}: for hidden states of width {width}{of_lora}")
    head_rate = config.head_learning_rate
    if head_rate is None:
        head_rate = rate if probed else max(rate, min(10 * rate, 3e-3))
        if not probed:
            reasons.append(f"head's learning rate {head_rate:.2g}: the head starts from nothing")
    r_drop = config.r_drop
    if r_drop is None:
        few_labels = steps_wanted(label_set, questions=questions) == STEPS_WANTED[0]
        enough = steps >= STEPS_FOR_R_DROP and config.max_minutes is None and tokens <= SHORT * rows
        worthwhile = probed and has_dropout and few_labels and enough and config.micro_batch_size != 1
        r_drop = R_DROP if worthwhile else 0.0
        if r_drop:
            reasons.append(f"each text twice a step (R-Drop {r_drop:g}): few labels, short texts")
    eval_every = config.eval_every or steps_per_epoch
    resolved = replace(
        config,
        r_drop=r_drop,
        epochs=epochs,
        learning_rate=rate,
        head_learning_rate=head_rate,
        eval_every=eval_every,
        metric=config.metric or cast(Metric, measured.HEADLINE[0]),
        label_smoothing=label_smoothing(label_set) if config.label_smoothing is None else config.label_smoothing,
        micro_batch_tokens=config.micro_batch_tokens or pass_tokens,
    )
    return Plan(resolved, steps_per_epoch, steps, eval_every, tuple(reasons) if steps else ())


def steps_wanted(label_set: LabelSet, *, questions: bool = False) -> int:
    """Optimizer steps that a fine-tuning from a linear probe wants, to the nearest epoch."""
    few, many = STEPS_WANTED
    return many if label_set.multi or questions else min(many, max(few, STEPS_PER_LABEL * len(label_set)))


def default_learning_rate(width: int, *, probed: bool) -> float:
    """5e-5 at BERT-base's width of 768, more for narrower models: 2.8e-4 at MiniLM's 384; from 1e-5 to 1e-3.

    Seven tenths of that where the head starts from a probe: it has no need to be pulled far.
    """
    return float(min(1e-3, max(1e-5, (3.5e-5 if probed else 5e-5) * (768 / width) ** 2.5)))
