"""Every kind of model that transformers has: it learns, it is saved whole, and no text depends on its batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

import tiny_models
from textclf.config import TrainConfig
from textclf.data.batching import collate
from textclf.data.encoding import encode
from textclf.labels import LabelSet
from textclf.model.classifier import Classifier
from textclf.model.scoring import score
from textclf.model.tokenizer import backend, load_tokenizer
from textclf.training.optim import make_optimizer, set_rate

TYPES = sorted(tiny_models.ARCHITECTURES | tiny_models.MORE)
ALONE = {"fnet", "convbert"}
LAST = {"granite", "mamba", "lfm2", "falcon_h1", "olmo2", "cohere"}
"""Types without a head of their own."""
TEXTS = [text for text, _ in tiny_models.rows(5)] + ["a", "where is my money " * 12]


@pytest.mark.parametrize("kind", TYPES)
def test_a_type_learns_and_is_saved_whole(kind: str, tmp_path: Path) -> None:
    base = tiny_models.pretrained(tmp_path / kind, kind)
    tokenizer = load_tokenizer(base)
    torch.manual_seed(0)
    classifier = Classifier.from_pretrained(base, LabelSet(("a", "b", "c")), tokenizer)
    assert classifier.reading.alone is (kind in ALONE)
    assert classifier.head == ("last" if kind in LAST else "own")
    assert all(parameter.dtype == torch.float32 for parameter in classifier.parameters())
    encoded = encode(TEXTS, backend(tokenizer), max_length=64)
    batch = collate(encoded, np.arange(len(TEXTS)), pad_id=classifier.pad_id)
    optimizer = make_optimizer(classifier, TrainConfig(learning_rate=1e-3, head_learning_rate=1e-2))
    set_rate(optimizer, 1.0)
    before = score(classifier, encoded)
    classifier.train()
    for _ in range(2):
        torch.nn.functional.cross_entropy(classifier(batch), torch.tensor([0, 1, 2, 0, 1, 2, 0])).backward()
        optimizer.step()
        optimizer.zero_grad()
    classifier.eval()
    logits = score(classifier, encoded)
    assert np.isfinite(logits).all() and np.abs(logits - before).max() > 1e-3
    for row in range(len(TEXTS)):
        alone = score(classifier, encoded.take(np.array([row])))
        assert np.abs(alone - logits[row]).max() < 1e-5
    classifier.save(tmp_path / "saved")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved", dtype=torch.float32).eval()
    for row in range(len(TEXTS)):
        ids = torch.from_numpy(encoded.row(row).astype(np.int64))[None]
        with torch.inference_mode():
            expected = plain(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.numpy()
        assert np.abs(expected - logits[row]).max() < 1e-5
