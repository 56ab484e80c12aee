"""Weights between where fine-tuning began and where it ended, of which validation takes the best.

A model that could answer before it was fine-tuned, its head being a linear probe, and the one that became of it lie in
one basin: on the line between their weights many are better than either end, and those nearer to the start better on
texts of another kind (WiSE-FT: Wortsman et al. 2022, "Robust Fine-Tuning of Zero-Shot Models").
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch

from textclf.errors import ModelError
from textclf.metrics import LOWER_IS_BETTER
from textclf.training import checkpoint
from textclf.training.calibration import fit_temperature
from textclf.training.checkpoint import Progress
from textclf.training.events import Notice, Observer
from textclf.training.learning import passing_logits, split_answers
from textclf.training.workbench import Workbench

SHARES = (1.0, 0.8, 0.6, 0.4, 0.2)
"""Of the way from the first weights to the last, that are tried one after the other."""


def walk_back(bench: Workbench, checkpoints: Path, progress: Progress, observe: Observer) -> float | None:
    """Go from the last weights towards those before the first step as long as the loss on validation falls, and take
    the place of least loss, if it is less than that of the best checkpoint, whose weights the classifier holds.

    The loss is that at the best temperature. No place is taken where the metric that the best was chosen by is below
    what it was at the start, nor below the best by more than one standard error of a share of so many answers.
    Returns the share of the way that is left, None where the weights are those of the best checkpoint.
    """
    start = checkpoints / checkpoint.START
    best, end = (checkpoints / f"step-{step}" for step in (progress.best_step, progress.step))
    if not (bench.config.train.interpolate and progress.step and start.is_dir()):
        return None
    best_NC = passing_logits(bench, "validation", observe)
    learnt = {name: one for name, one in bench.classifier.named_parameters() if one.requires_grad}
    try:
        kept, begin = checkpoint.weights(start), checkpoint.progress_of(start)
        if best != end:
            checkpoint.load_best(end, bench.classifier)
    except ModelError as err:
        observe(Notice(f"{err.message}; so there is no going back from the last weights"))
        return None
    first = {name: kept[name].to(one.device) for name, one in learnt.items()}
    last = {name: one.detach().clone() for name, one in learnt.items()}
    best_score, least_loss, answers = _judged(bench, best_NC)
    floor = best_score - math.sqrt(max(0.0, best_score * (1 - best_score)) / answers)
    if begin.best_score is not None:
        floor = max(floor, begin.best_score)
    found = None
    before = least_loss if best == end else math.inf
    with torch.no_grad():
        for share in SHARES[1:] if best == end else SHARES:
            for name, one in learnt.items():
                torch.lerp(first[name], last[name], share, out=one)
            score, loss, _ = _judged(bench, passing_logits(bench, "validation", observe))
            if loss >= before:
                break
            before = loss
            if loss < least_loss and score >= floor:
                found, least_loss = share, loss
        for name, one in learnt.items():
            one.copy_(torch.lerp(first[name], last[name], 1.0 if found is None else found))
    if found is None and best != end:
        checkpoint.load_best(best, bench.classifier)
    return found


def _judged(bench: Workbench, logits_NC: np.ndarray) -> tuple[float, float, int]:
    """The metric that a checkpoint is chosen by, higher being better, and the loss, both at the best temperature; and
    how many answers they are of."""
    label_set, metric = bench.prepared.label_set, bench.config.train.metric
    assert metric is not None
    temperature = fit_temperature(bench.targets["validation"], logits_NC, label_set)
    answers = split_answers(bench, "validation", label_set.probabilities(logits_NC / temperature))
    found = answers.measure()
    value = float(found.as_dict()[metric])
    return -value if metric in LOWER_IS_BETTER else value, found.loss, len(answers.right)
