"""The loss of a label set: cross-entropy, or binary cross-entropy of each label, with weights and smoothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from textclf.labels import LabelSet
from textclf.model.device import on_device

Loss = Callable[[Tensor, Tensor], Tensor]


def make_loss(label_set: LabelSet, *, weights_C: np.ndarray | None = None, label_smoothing: float = 0.0) -> Loss:
    """A function of logits (batch, num_labels) and targets that gives the loss of each text, (batch,) fp32.

    targets: as `LabelSet.targets` has them, ids (batch,) int64 for cross-entropy, or 0 and 1 (batch, num_labels) for
    the mean over labels of binary cross-entropy. weights_C: as `balanced_weights` gives them. label_smoothing: share
    of the target spread over all labels; of a multi-label set, over yes and no.

    Per text, not averaged, so that the micro-batches of a step add up to the same mean however they are cut.
    """
    weight_C = weights_C.astype(np.float32) if weights_C is not None else None

    def cross_entropy(logits_BC: Tensor, targets_B: Tensor) -> Tensor:
        weight = on_device(weight_C, logits_BC.device) if weight_C is not None else None
        return F.cross_entropy(
            logits_BC.float(), targets_B, weight=weight, label_smoothing=label_smoothing, reduction="none"
        )

    def binary_cross_entropy(logits_BC: Tensor, targets_BC: Tensor) -> Tensor:
        weight = on_device(weight_C, logits_BC.device) if weight_C is not None else None
        smooth_BC = targets_BC.float() * (1 - label_smoothing) + label_smoothing / 2
        return F.binary_cross_entropy_with_logits(
            logits_BC.float(), smooth_BC, pos_weight=weight, reduction="none"
        ).mean(dim=1)

    return binary_cross_entropy if label_set.multi else cross_entropy


def with_r_drop(loss: Loss, label_set: LabelSet, weight: float, *, weights_C: np.ndarray | None = None) -> Loss:
    """The loss of passes that hold every text twice, all of them once more behind the last: (2 * batch,) fp32.

    To that of each comes what both answers differ by, which dropout alone makes them: R-Drop (Liang et al. 2021,
    "R-Drop: Regularized Dropout for Neural Networks", equations 1 to 4), of which the mean over both is half. Where the
    paper has the mean of both Kullback-Leibler divergences, this has four times the Jensen-Shannon divergence: the same
    for answers that differ little, but at most 4 log 2, so that logits far from zero do not drown what is to be learnt.
    weights_C: what labels count there too, where a text has one.
    """
    weight_C = torch.from_numpy(weights_C.astype(np.float32)) if weights_C is not None and not label_set.multi else None

    def of_both(logits_BC: Tensor, targets_B: Tensor) -> Tensor:
        if label_set.multi:  # yes and no of each label
            answers = F.logsigmoid(torch.stack([logits_BC, -logits_BC], dim=2).float())
        else:
            answers = F.log_softmax(logits_BC.float(), dim=1)
        both = answers.unflatten(0, (2, -1))
        between = both.logsumexp(dim=0) - math.log(2)
        apart = F.kl_div(between.expand_as(both), both, reduction="none", log_target=True).sum(dim=(0, -1))
        apart_B = apart.mean(dim=1) if label_set.multi else apart
        both_B = weight * apart_B.repeat(2)
        if weight_C is not None:
            both_B = both_B * weight_C.to(both_B.device)[targets_B]
        return loss(logits_BC, targets_B) + both_B

    return of_both


def label_smoothing(label_set: LabelSet) -> float:
    """The smoothing of a loss where none was asked for: a tenth; none where a text may have several labels."""
    # There a tenth would say of every label of every text that it is there with 5 %.
    return 0.0 if label_set.multi else 0.1


def balanced_weights(label_set: LabelSet, targets: np.ndarray) -> np.ndarray:
    """Weights that give every label the same total say in the loss: (num_labels,) float64.

    As scikit-learn's "balanced": rows / (labels * count), so the mean over all rows is 1 and the effective
    learning rate stays. A label never seen gets weight 0.

    Of a multi-label set, PyTorch's `pos_weight`: rows without the label over rows with it, so that yes and no have
    the same say; 1 for a label never seen.
    """
    counts_C = label_set.counts(targets)
    seen_C = counts_C > 0
    if label_set.multi:
        return np.where(seen_C, (len(targets) - counts_C) / np.maximum(counts_C, 1), 1.0)
    weights_C = np.zeros(len(counts_C), dtype=np.float64)
    weights_C[seen_C] = counts_C.sum() / (seen_C.sum() * counts_C[seen_C])
    return weights_C
