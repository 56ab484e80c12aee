"""The optimizer: its parameter groups, the course of the learning rate, and the norm of the gradient that it takes."""

from __future__ import annotations

import math

import torch
from torch.optim import AdamW, Optimizer

from textclf.config import TrainConfig
from textclf.model.classifier import Classifier
from textclf.model.layers import layers


def make_optimizer(classifier: Classifier, config: TrainConfig) -> AdamW:
    """AdamW with the head's own rate, lower ones for deeper layers where `layer_decay` says so (as in ELECTRA and
    BEiT), and decay on the matrices of layers only. `config` has its rates resolved.
    """
    assert config.learning_rate is not None and config.head_learning_rate is not None
    head = classifier.head_parameters()
    # Decay would shrink the embeddings of words that no text holds; see model/vocabulary.py.
    tables = {module.weight for module in classifier.modules() if isinstance(module, torch.nn.Embedding)}
    depth = classifier.depths() if config.layer_decay is not None else {}
    last = len(layers(classifier.network))  # what comes after it learns as it does
    groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in classifier.named_parameters():
        if parameter.requires_grad:
            decays = parameter.dim() > 1 and parameter not in tables
            rate = config.head_learning_rate if name in head else config.learning_rate
            if name in depth:
                rate *= (config.layer_decay or 1.0) ** max(0, last - depth[name])
            groups.setdefault((rate, decays), []).append(parameter)
    kind = classifier.device.type
    return AdamW(
        [
            {
                "params": parameters,
                "peak_rate": rate,
                # Biases and the gains of norms have one dimension; pulling them to zero only hurts.
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (rate, decays), parameters in groups.items()
        ],
        lr=config.learning_rate,
        fused=kind in ("cpu", "cuda"),
    )


def rate_factor(progress: float, *, warmup: float, schedule: str) -> float:
    """The learning rate as a share of its peak, at `progress` (0 to 1) of the run."""
    if progress < warmup:
        return progress / warmup
    rest = min(1.0, (progress - warmup) / (1 - warmup))
    if schedule == "linear":
        return 1 - rest
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * rest))
    return 1.0


def set_rate(optimizer: Optimizer, factor: float) -> float:
    """Give every group `factor` of its peak rate, and say what that is for the backbone's last layer."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_rate"] * factor
    return float(optimizer.defaults["lr"]) * factor


def clip(classifier: Classifier, optimizer: AdamW, max_norm: float) -> torch.Tensor:
    """See to it that the next step takes a gradient of `max_norm` at most; its norm before that.

    Elsewhere than on a CPU the gradient itself is scaled down; there it stays, and the optimizer is told.
    """
    if classifier.device.type != "cpu":
        return torch.nn.utils.clip_grad_norm_(classifier.parameters(), max_norm)
    norm = torch.nn.utils.get_total_norm([one.grad for one in classifier.parameters() if one.grad is not None])
    # Looking costs nothing here; and the step divides by it on its way, which saves a walk through all gradients. The
    # norm is float64 where one parameter is.
    optimizer.grad_scale = (norm / max_norm).float() if float(norm) > max_norm else None  # type: ignore[attr-defined]
    return norm
