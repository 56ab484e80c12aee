"""What a run would take, found by trying: the dry run."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from textclf.config import RunConfig, as_dict
from textclf.data.batching import real_tokens
from textclf.model.device import on_device
from textclf.training.checkpoint import expected_bytes
from textclf.training.events import Observer, ignore
from textclf.training.head import with_head
from textclf.training.learning import make_learning
from textclf.training.loop import Learning
from textclf.training.optim import make_optimizer, set_rate
from textclf.training.workbench import Workbench, asked_head, assemble

TRIAL_SECONDS = 10.0
"""Real steps are timed for about this long, after the largest one was tried for its memory."""


@dataclass(frozen=True)
class Estimate:
    """What a run is expected to take, or so many runs (`seeds`) one after another.

    rows: split -> texts. tokens: real tokens of one epoch. padding_waste: share of computed tokens that is
    padding. steps: of each run. seconds: of all steps and evaluations, at most max_minutes. memory: bytes at most, of
    the device on CUDA, of the whole process on a CPU; None where it cannot be told. disk: bytes of checkpoints and
    models.
    """

    rows: dict[str, int]
    labels: int
    parameters: int
    max_length: int
    tokens: int
    padding_waste: float
    epochs: float
    steps: int
    micro_batches: int
    seconds: float
    memory: int | None
    disk: int
    device: str
    config: Mapping[str, Any]
    seeds: int = 1


def estimate(request: RunConfig, *, seeds: int = 1, on_event: Observer = ignore) -> Estimate:
    """Prepare data and model as `finetune` would, take a few real steps that are thrown away, and extrapolate.

    seeds: for so many runs of the same data, which keep one model each.

    Nothing is written but the prepared data in the cache. Raises what `finetune` raises before training.
    """
    bench = assemble(request, on_event)
    parameters = _count(bench)
    # Which head it will be is found by a linear probe, which is not fitted here; a step takes as long with either.
    bench = with_head(bench, asked_head(bench.classifier, request.model) or bench.classifier.head)
    plan, train = bench.plan, bench.encoded["train"]
    learning = make_learning(bench)
    order = learning.order(0)
    passes = (batch for rows in order for batch in learning.batches(rows, 1))
    sizes = np.array([(real_tokens(batch), batch.input_ids.size) for batch in passes])
    real, computed = sizes.sum(axis=0).tolist()
    tokens_per_second = _try(bench, learning, order)
    scored = -(-plan.steps // plan.eval_every) * learning.validation_tokens + learning.final_tokens
    if bench.probe_rows is not None:  # it is fitted, measured as a baseline, and judged as step 0
        scored += int(train.lengths[train.rows_of(bench.probe_rows)].sum()) + learning.validation_tokens
        if plan.config.baselines and plan.steps:
            scored += sum(len(part.ids) for split, part in bench.encoded.items() if split != "train")
    # A forward pass is a third of a step's work.
    seconds = seeds * (computed * plan.steps / plan.steps_per_epoch + scored / 3) / tokens_per_second
    if plan.config.max_minutes is not None:  # for all seeds together
        seconds = min(seconds, 60 * plan.config.max_minutes)
    return Estimate(
        rows=dict(bench.prepared.splits),
        labels=len(bench.prepared.label_set),
        parameters=parameters,
        max_length=bench.max_length,
        tokens=int(train.lengths.sum()),
        padding_waste=1 - real / computed,
        epochs=plan.steps / plan.steps_per_epoch,
        steps=plan.steps,
        micro_batches=len(sizes),
        seconds=float(seconds),
        memory=bench.device.peak_memory(),
        disk=expected_bytes(bench.classifier, averaging=bool(plan.config.averaging)) * (plan.config.keep + 1)
        + (seeds + 2) * 4 * parameters,  # a model of each seed; at the start, weights and their mean
        device=bench.device.reason,
        config=as_dict(bench.config),
        seeds=seeds,
    )


def _count(bench: Workbench) -> int:
    """Parameters that the classifier holds at the moment."""
    return sum(parameter.numel() for parameter in bench.classifier.parameters())


def _try(bench: Workbench, learning: Learning, order: list[np.ndarray]) -> float:
    """Computed tokens per second over real steps; the largest step first, so that the peak of memory is seen."""
    lengths_N = bench.encoded["train"].lengths
    optimizer = make_optimizer(bench.classifier, bench.plan.config)
    set_rate(optimizer, 0.0)
    bench.classifier.train()
    largest = max(order, key=lambda rows: int(lengths_N[rows].max()))
    spread = [order[index] for index in np.linspace(0, len(order) - 1, min(len(order), 50)).astype(int)]
    started, tokens = 0.0, 0
    # The first two steps also pay for memory and kernels that later ones find ready.
    for number, rows in enumerate([largest, *spread]):
        if number == 2 or (number == 1 and len(spread) == 1):
            started, tokens = time.monotonic(), 0
        for batch in learning.batches(rows, 1):
            with bench.device.autocast():
                logits = bench.classifier(batch)
            loss = learning.loss(logits, on_device(learning.targets[batch.rows], bench.device.torch_device)).sum()
            loss.backward()
            tokens += batch.input_ids.size
        float(loss.detach())  # waits for the device
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if number > 3 and time.monotonic() - started > TRIAL_SECONDS:
            break
    return tokens / max(time.monotonic() - started, 1e-9)
