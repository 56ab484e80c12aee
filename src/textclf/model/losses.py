"""The loss of a label set: cross-entropy with weights and smoothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Callable[[Tensor, Tensor], Tensor]


def make_loss(*, weights_C: np.ndarray | None = None, label_smoothing: float = 0.0) -> Loss:
    """A function of logits (batch, num_labels) and targets (batch,) int64 giving the loss of each text, (batch,) fp32.

    Per text, not averaged, so that the micro-batches of a step add up to the same mean however they are cut.
    """
    weight_C = torch.from_numpy(weights_C.astype(np.float32)) if weights_C is not None else None

    def loss(logits_BC: Tensor, targets_B: Tensor) -> Tensor:
        weight = weight_C.to(logits_BC.device) if weight_C is not None else None
        return F.cross_entropy(
            logits_BC.float(), targets_B, weight=weight, label_smoothing=label_smoothing, reduction="none"
        )

    return loss


def balanced_weights(counts_C: np.ndarray) -> np.ndarray:
    """Weights that give every label the same total say in the loss: (num_labels,) float64.

    As scikit-learn's "balanced": rows / (labels * count), so the mean over all rows is 1 and the effective
    learning rate stays. A label never seen gets weight 0.
    """
    seen_C = counts_C > 0
    weights_C = np.zeros(len(counts_C), dtype=np.float64)
    weights_C[seen_C] = counts_C.sum() / (seen_C.sum() * counts_C[seen_C])
    return weights_C
