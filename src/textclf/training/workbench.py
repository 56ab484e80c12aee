"""The workbench of a run: data, tokenizer, model and plan brought together before the first step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from textclf.artifact import hub
from textclf.config import RunConfig
from textclf.data.encoding import Encoded, encode
from textclf.data.preparation import Prepared, prepare
from textclf.data.rows import Rows
from textclf.errors import UsageError
from textclf.metrics import Metrics, measure
from textclf.model.classifier import Classifier
from textclf.model.device import Device, pick_device
from textclf.model.losses import balanced_weights, make_loss
from textclf.model.scoring import score
from textclf.model.tokenizer import backend, load_tokenizer
from textclf.training.events import Notice, Observer, Phase, ignore
from textclf.training.loop import Learning
from textclf.training.plan import Plan, make_plan

DEFAULT_LENGTH = 512
"""Tokens that a model reads at most unless asked for more: attention's cost grows with the square."""


@dataclass(frozen=True)
class Workbench:
    """All that a training needs, before its first step."""

    config: RunConfig
    prepared: Prepared
    tokenizer: PreTrainedTokenizerBase
    base: hub.Fetched
    base_name: str
    encoded: dict[str, Encoded]
    targets: dict[str, np.ndarray]
    classifier: Classifier
    device: Device
    plan: Plan
    max_length: int


def assemble(config: RunConfig, observe: Observer) -> Workbench:
    """Prepare the data, load the model, encode, and choose what the config left open."""
    device = pick_device(config.train.device, config.train.precision)
    observe(Notice(f"device: {device.reason}"))
    prepared = prepare(config.data)
    for one in prepared.dropped:
        observe(Notice(f"left out {one.rows:,} rows of {one.split}: {one.reason}"))
    for found in prepared.findings:
        observe(Notice(f"note: {found.message}"))
    base_name = short_name(config.model.name)
    assert config.model.name is not None
    base = hub.fetch(config.model.name, revision=config.model.revision, allow_bin=config.model.allow_bin)
    tokenizer = load_tokenizer(base.folder)
    torch.manual_seed(config.train.seed)
    classifier = Classifier.from_pretrained(
        base.folder, prepared.label_set, tokenizer, allow_bin=config.model.allow_bin
    )
    if config.train.gradient_checkpointing:
        classifier.checkpoint_activations()
    limit = _length_limit(classifier, tokenizer)
    wanted = config.model.max_length
    if wanted is not None and wanted > limit:
        raise UsageError(f"model.max_length is {wanted}; {base_name} reads at most {limit} tokens")
    rows = {split: prepared.rows(split) for split in prepared.splits}
    train = _encode(rows["train"], tokenizer, wanted or min(limit, DEFAULT_LENGTH), "train", observe)
    max_length = wanted or _choose_max_length(train.lengths, min(limit, DEFAULT_LENGTH))
    if max_length < train.lengths.max():
        train = _encode(rows["train"], tokenizer, max_length, "train", observe)
    encoded = {"train": train} | {
        split: _encode(rows[split], tokenizer, max_length, split, observe) for split in rows if split != "train"
    }
    targets = {
        split: prepared.label_set.targets(label for label in part.labels if label is not None)
        for split, part in rows.items()
    }
    plan = make_plan(config.train, rows=len(train), width=classifier.width)
    cut = (
        f"{train.truncated.mean():.1%} of the training texts are longer and lose their end"
        if train.truncated.any()
        else "no training text is longer"
    )
    for message in (f"max_length {max_length} tokens: {cut}", *plan.reasons):
        observe(Notice(message))
    return Workbench(
        config=replace(config, train=plan.config, model=replace(config.model, max_length=max_length)),
        prepared=prepared,
        tokenizer=tokenizer,
        base=base,
        base_name=base_name,
        encoded=encoded,
        targets=targets,
        classifier=classifier.to(device.torch_device),
        device=device,
        plan=plan,
        max_length=max_length,
    )


def check(config: RunConfig) -> None:
    """Raise what is wrong with the data, the model or the device, without loading weights."""
    pick_device(config.train.device, config.train.precision)
    prepare(config.data)
    assert config.model.name is not None
    hub.fetch(config.model.name, revision=config.model.revision, allow_bin=config.model.allow_bin)


def make_learning(bench: Workbench) -> Learning:
    """What the loop learns from: the training texts, the loss, and how validation is scored."""
    train = bench.config.train
    counts_C = np.bincount(bench.targets["train"], minlength=len(bench.prepared.label_set))
    weights_C = balanced_weights(counts_C) if train.class_weights == "balanced" else None
    return Learning(
        encoded=bench.encoded["train"],
        targets=bench.targets["train"],
        validate=lambda: measure_split(bench, "validation"),
        loss=make_loss(weights_C=weights_C, label_smoothing=train.label_smoothing),
        validation_tokens=len(bench.encoded["validation"].ids),
        final_tokens=sum(len(encoded.ids) for split, encoded in bench.encoded.items() if split != "train"),
    )


def measure_split(bench: Workbench, split: str, observe: Observer = ignore) -> Metrics:
    """Score a split with the weights as they are."""
    total = len(bench.encoded[split])
    logits_NC = score(
        bench.classifier, bench.encoded[split], on_progress=lambda done: observe(Phase(f"score {split}", done, total))
    )
    label_set = bench.prepared.label_set
    return measure(bench.targets[split], label_set.probabilities(logits_NC), label_set)


def short_name(reference: str | None) -> str:
    """How a model or data set is called: a Hub id as it is, a path by its last telling part."""
    path = Path(reference or "")
    if not path.is_absolute():
        return reference or ""
    named = path.parent if path.name in ("model", "data") else path
    return named.name.split(".")[0] if path.is_file() else named.name


def _encode(rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, split: str, observe: Observer) -> Encoded:
    texts = rows.texts
    return encode(
        texts,
        backend(tokenizer),
        max_length=max_length,
        on_progress=lambda done: observe(Phase(f"tokenise {split}", done, len(texts))),
    )


def _length_limit(classifier: Classifier, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens that the model can take at most."""
    return min(int(tokenizer.model_max_length), classifier.positions)


def _choose_max_length(lengths_N: np.ndarray, limit: int) -> int:
    """The first of 64, 128, 256, 512 tokens that 99 % of the texts fit in, at most `limit`.

    Room above the longest text seen costs nothing, as batches are padded to their own longest text only.
    """
    needed = float(np.percentile(lengths_N, 99))
    return next((size for size in (64, 128, 256) if needed <= size and size < limit), limit)
