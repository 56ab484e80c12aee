"""Pooled heads: what they read, how they start, and that every tool can open them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification

import plain_transformers
import textclf
import tiny_models
from textclf.artifact import folder as artifact_folder
from textclf.artifact.folder import Facts
from textclf.config import ModelConfig
from textclf.errors import ConfigError, UsageError
from textclf.labels import LabelSet
from textclf.model.classifier import Classifier
from textclf.model.modeling_textclf import POOLINGS, pool
from textclf.model.tokenizer import load_tokenizer
from textclf.training.events import Event, Notice
from textclf.training.workbench import asked_head, needs_start

FAST: dict[str, Any] = {"epochs": 1, "batch_size": 16, "precision": "fp32"}
TEXTS = ["where is my card", "a", "I want my money back " * 30]


def notices(events: list[Event]) -> str:
    return "\n".join(event.message for event in events if isinstance(event, Notice))


@pytest.mark.parametrize("pooling", POOLINGS)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_padding_is_never_pooled(pooling: str, lengths: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Negative states: a maximum over padding would be zero.
    hidden = -torch.rand((len(lengths), max(lengths) + 2, 4), generator=generator) - 0.1
    scores = torch.rand(hidden.shape[:2], generator=generator)
    mask = torch.arange(hidden.shape[1])[None] < torch.tensor(lengths)[:, None]
    together = pool(hidden.masked_fill(~mask.unsqueeze(-1), 7.0), mask.long(), pooling, scores)
    for row, length in enumerate(lengths):
        whole = torch.ones((1, length), dtype=torch.long)
        alone = pool(hidden[row : row + 1, :length], whole, pooling, scores[row : row + 1, :length])
        assert torch.allclose(together[row], alone[0], atol=1e-6)
        # And on whichever side the padding lies.
        left = torch.cat([torch.full((1, 3, 4), 7.0), hidden[row : row + 1, :length]], dim=1)
        left_scores = torch.cat([torch.ones(1, 3), scores[row : row + 1, :length]], dim=1)
        moved = pool(left, torch.cat([torch.zeros_like(whole).new_zeros(1, 3), whole], dim=1), pooling, left_scores)
        assert torch.allclose(moved[0], alone[0], atol=1e-6)
    assert torch.allclose(together.square().mean(dim=1), torch.ones(len(lengths)), atol=1e-3)


def test_every_pooled_head_opens_with_plain_transformers(tiny_base: Path, tmp_path: Path, home: Path) -> None:
    folders, scores = [], []
    for pooling in POOLINGS:
        tokenizer = load_tokenizer(tiny_base)
        made = Classifier.from_pretrained(tiny_base, LabelSet(tuple("abc")), tokenizer)
        made.use_head(pooling, hidden=16 if pooling in ("max", "attention") else 0)
        with torch.no_grad():
            for name, parameter in made.named_parameters():
                if name in made.head_parameters():
                    parameter.normal_(0, 0.5)
        folder = tmp_path / pooling
        made.save(folder)
        tokenizer.model_max_length = 64
        tokenizer.save_pretrained(folder)
        artifact_folder.write_facts(folder, Facts(max_length=64))
        config = json.loads((folder / "config.json").read_text())
        assert (config["model_type"], config["pooling"]) == ("textclf", pooling)
        folders.append(folder)
        scores.append(textclf.load(folder, runtime="torch").predict_proba(TEXTS))
    assert len(np.unique(np.round(scores, 4))) > 3 * len(POOLINGS)
    plain = plain_transformers.probabilities(folders, TEXTS, hub_cache=home / "hf")
    assert np.allclose(plain, scores, atol=1e-5)


@pytest.mark.parametrize(("pooling", "hidden"), [("cls", 0), ("attention", 16)])
def test_a_pooled_head_learns_from_its_probe_where_it_can(
    pooling: str, hidden: int, tiny_base: Path, tiny_csv: Path, unchecked: None
) -> None:
    seen: list[Event] = []
    run = textclf.finetune(tiny_base, tiny_csv, head=pooling, head_hidden=hidden, on_event=seen.append, **FAST)
    assert ("linear probe on" in notices(seen)) is not bool(hidden)
    assert ("no linear probe: the head's hidden layer" in notices(seen)) is bool(hidden)
    assert run.config["model"]["head"] == pooling and "trust_remote_code" in notices(seen)
    onnx, by_torch, rough = (
        textclf.load(run, runtime=runtime).predict_proba(TEXTS) for runtime in ("onnx", "torch", "bf16")
    )
    assert np.allclose(onnx, by_torch, atol=1e-5) and np.allclose(rough.sum(axis=1), 1, atol=1e-5)


@pytest.mark.usefixtures("no_graph")
def test_a_pooled_head_goes_on_or_is_exchanged(tiny_base: Path, tiny_csv: Path) -> None:
    first = textclf.finetune(tiny_base, tiny_csv, head="attention", head_hidden=8, **FAST)
    probs = textclf.load(first).predict_proba(TEXTS)
    seen: list[Event] = []
    slow = {**FAST, "learning_rate": 1e-9, "head_learning_rate": 1e-9, "on_event": seen.append}
    again = textclf.finetune(first.model_folder, tiny_csv, head_dropout=0.3, **slow)
    assert "learning goes on from it" in notices(seen)
    # The same but for the temperature, by which each run has divided its logits.
    assert np.allclose(direction(textclf.load(again).predict_proba(TEXTS)), direction(probs), atol=0.02)
    config = json.loads((again.model_folder / "config.json").read_text())
    assert (config["pooling"], config["head_hidden"], config["head_dropout"]) == ("attention", 8, 0.3)
    base, label_set = first.model_folder, LabelSet(tuple("abc"))
    classifier = Classifier.from_pretrained(base, label_set, load_tokenizer(base))
    assert classifier.has_head("attention") and classifier.has_head("attention", hidden=8)
    assert not classifier.has_head("attention", hidden=0) and not classifier.has_head("cls")
    assert classifier.fresh == () and asked_head(classifier, ModelConfig(head_hidden=8)) is None
    assert {asked_head(classifier, ModelConfig(head_hidden=hidden)) for hidden in (0, 16)} == {"attention"}
    classifier.use_head("cls")
    assert classifier.has_fresh_output and needs_start(classifier, ModelConfig(head="attention"))


def direction(probs_NC: np.ndarray) -> np.ndarray:
    """What no temperature changes: the logits, centred and all together of length 1."""
    logits_NC = np.log(probs_NC) - np.log(probs_NC).mean(axis=1, keepdims=True)
    return logits_NC / np.linalg.norm(logits_NC)


@pytest.mark.parametrize(("architecture", "pooling"), [("bert", "mean"), ("gpt2", "last")])
def test_layers_alone_ask_for_the_head_that_fits(architecture: str, pooling: str, tmp_path: Path) -> None:
    base = tiny_models.pretrained(tmp_path / architecture, architecture)
    classifier = Classifier.from_pretrained(base, LabelSet(("a", "b")), load_tokenizer(base))
    assert asked_head(classifier, ModelConfig(head_hidden=16)) == pooling
    assert asked_head(classifier, ModelConfig(head="auto")) is None


def test_native_is_another_word_for_own(tiny_base: Path, tiny_csv: Path, cli: Callable[..., Any]) -> None:
    assert ModelConfig(head="native") == ModelConfig(head="own")
    for arguments, said in (
        (["--head", "native", "--head-hidden", "8"], "architecture's"),
        (["--head", "middle"], "one of auto, own"),
        (["--head-dropout", "1"], "head_dropout is 1"),
        (["--head-hidden", "-1"], "head_hidden is -1"),
    ):
        done = cli("finetune", "--model", tiny_base, "--dataset", tiny_csv, *arguments)
        assert done.returncode == 2 and said in done.stderr, done.stderr


def test_a_hidden_layer_has_no_probe_to_stop_at(tiny_base: Path, tiny_csv: Path) -> None:
    with pytest.raises(UsageError, match="hidden layer"):
        textclf.finetune(tiny_base, tiny_csv, head="mean", head_hidden=8, epochs=0)
    with pytest.raises(ConfigError, match="architecture's"):
        textclf.finetune(tiny_base, tiny_csv, head="own", head_dropout=0.5)


@pytest.mark.parametrize(
    ("architecture", "setting"),
    [("modernbert", "mean"), ("modernbert", "cls"), ("eurobert", "mean"), ("eurobert", "bos"), ("eurobert", "late")],
)
def test_an_architectures_own_pooling_counts_as_own(architecture: str, setting: str, tmp_path: Path) -> None:
    base = tiny_models.pretrained(tmp_path / "base", architecture)
    path = base / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "classifier_pooling": setting}))
    classifier = Classifier.from_pretrained(base, LabelSet(("a", "b")), load_tokenizer(base))
    assert classifier.head == "own" and classifier.network.config.classifier_pooling == setting
    # What is saved is read so by plain transformers too.
    classifier.eval().save(tmp_path / "saved")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert plain.config.classifier_pooling == setting and type(plain) is type(classifier.network)
    ids = torch.randint(10, 50, (2, 8), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 3:] = 0
    with torch.no_grad():
        expected = plain(input_ids=ids, attention_mask=mask).logits
        assert torch.allclose(classifier.logits(ids, mask), expected, atol=1e-5)
