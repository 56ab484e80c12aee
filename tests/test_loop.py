"""Training steps against torch's own: what is folded into fewer walks through the numbers must not change them."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import tiny_models
from textclf.config import TrainConfig
from textclf.data.batching import collate
from textclf.data.encoding import Encoded
from textclf.labels import LabelSet
from textclf.model.classifier import Classifier
from textclf.model.device import pick_device
from textclf.model.losses import make_loss
from textclf.model.tokenizer import load_tokenizer
from textclf.signals import Asked
from textclf.training.events import ignore
from textclf.training.loop import Learning, fit
from textclf.training.optim import make_optimizer, rate_factor, set_rate
from textclf.training.plan import make_plan
from textclf.training.trackers import JsonlTracker

LABELS = LabelSet(("a", "b", "c"))


class Doubled(torch.nn.Module):
    """A layer that computes in float64, as a head of one's own may."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner.double()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        doubled: torch.Tensor = self.inner(states.double())
        return doubled.float()


@pytest.mark.parametrize(("max_grad_norm", "double"), [(0.05, False), (0.05, True), (1e6, False), (0.0, False)])
def test_gradients_are_clipped_as_torch_clips_them(max_grad_norm: float, double: bool, tmp_path: Path) -> None:
    base = tiny_models.pretrained(tmp_path / "base", "bert")
    torch.manual_seed(0)
    classifier = Classifier.from_pretrained(base, LABELS, load_tokenizer(base))
    if double:
        classifier.network.bert.pooler.dense = Doubled(classifier.network.bert.pooler.dense)
    for module in classifier.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    peer = copy.deepcopy(classifier).train()
    generator = np.random.default_rng(0)
    encoded = Encoded(generator.integers(5, 90, 96).astype(np.int32), np.arange(0, 97, 8), np.zeros(12, dtype=bool))
    targets = generator.integers(0, 3, 12)
    steps = list(np.arange(12).reshape(3, 4))
    config = TrainConfig(
        epochs=4, batch_size=4, learning_rate=1e-3, averaging=0.0, max_grad_norm=max_grad_norm, precision="fp32"
    )
    plan = make_plan(config, LABELS, rows=12, width=32, pass_tokens=4096, probed=True)
    score = itertools.count()
    loss = make_loss(LABELS)

    def validate(observe: object) -> Any:
        return SimpleNamespace(loss=1.0, as_dict=lambda: {"accuracy": next(score) / 100})

    learning = Learning(
        targets=targets,
        order=lambda epoch: steps,
        batches=lambda rows, parts: [collate(encoded, rows, pad_id=classifier.pad_id)],
        tokens=96,
        validate=validate,
        loss=loss,
        validation_tokens=1,
        final_tokens=1,
        baseline=False,
    )
    with JsonlTracker(tmp_path / "metrics.jsonl") as tracker:
        fit(
            classifier, learning, plan, pick_device("cpu", "fp32"),
            checkpoints=tmp_path / "checkpoints", tracker=tracker, observe=ignore, asked=Asked(),
        )  # fmt: skip

    optimizer = make_optimizer(peer, plan.config)
    for step, rows in enumerate(steps * 4):
        set_rate(optimizer, rate_factor((step + 1) / (plan.steps + 1), warmup=config.warmup, schedule=config.schedule))
        batch = collate(encoded, rows, pad_id=peer.pad_id)
        loss(peer(batch), torch.from_numpy(targets[rows])).mean().backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), max_grad_norm or float("inf"))
        optimizer.step()
        optimizer.zero_grad()
    for (name, one), other in zip(classifier.named_parameters(), peer.parameters(), strict=True):
        if not name.endswith("key.bias"):  # no gradient but rounding, which AdamW makes steps of
            assert torch.allclose(one, other, atol=2e-6), name
