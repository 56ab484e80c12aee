"""What a run learns from and is measured by: batches, weights and loss of train, and the scores of other splits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np

from textclf.answers import Answers
from textclf.data.batching import Batch, Packed, collate, epoch_steps, micro_batches, pack, packed_batches
from textclf.data.forms import answers_of
from textclf.metrics import AnyMetrics
from textclf.model.losses import balanced_weights, make_loss, with_r_drop
from textclf.model.scoring import score
from textclf.training.events import Observer, Phase, ignore
from textclf.training.loop import Learning
from textclf.training.workbench import Workbench

_WALK = 5
"""Passes over validation that going back from the last weights takes at most."""


def make_learning(bench: Workbench) -> Learning:
    """What the loop learns from: the training texts in steps and batches, the loss, and how validation is scored."""
    train, encoded = bench.config.train, bench.encoded["train"]
    label_set = bench.prepared.label_set
    weights_C = balanced_weights(label_set, bench.targets["train"]) if train.class_weights == "balanced" else None
    lengths_N, pad_id = encoded.lengths, bench.classifier.pad_id
    assert train.micro_batch_tokens is not None and train.label_smoothing is not None
    copies = 2 if train.r_drop else 1
    max_tokens, max_rows = max(1, train.micro_batch_tokens // copies), train.micro_batch_size
    if max_rows is not None:
        max_rows = max(1, max_rows // copies)
    loss = make_loss(label_set, weights_C=weights_C, label_smoothing=train.label_smoothing)

    def order(epoch: int) -> list[np.ndarray]:
        return epoch_steps(
            lengths_N, batch_size=train.batch_size, seed=train.seed, epoch=epoch, by_length=not bench.packs
        )

    def batches(rows: np.ndarray, parts: int) -> list[Batch | Packed]:
        if bench.packs:
            cuts = packed_batches(rows, lengths_N, max_tokens=max_tokens, max_rows=max_rows)
        else:
            max_padding = bench.device.max_padding
            cuts = micro_batches(rows, lengths_N, max_tokens=max_tokens, max_rows=max_rows, max_padding=max_padding)
        if parts > 1:
            cuts = [piece for cut in cuts for piece in np.array_split(cut, min(parts, len(cut)))]
        cuts = [np.tile(cut, copies) for cut in cuts]
        if bench.packs:
            return [pack(encoded, cut, pad_id=pad_id) for cut in cuts]
        return [collate(encoded, cut, pad_id=pad_id) for cut in cuts]

    def validate(observe: Observer) -> AnyMetrics:
        logits_NC = passing_logits(bench, "validation", observe)
        return split_answers(bench, "validation", bench.prepared.label_set.probabilities(logits_NC)).measure()

    targets, weights = bench.targets["train"], None
    validation_tokens = len(bench.encoded["validation"].ids)
    if encoded.text is not None:
        targets = targets[encoded.text]
        share_R = 1 / np.repeat(encoded.windows, encoded.windows)  # a text counts once, however many windows it has
        weights = (share_R / share_R.mean()).astype(np.float32)
    return Learning(
        targets=targets,
        order=order,
        batches=batches,
        tokens=copies * len(encoded.ids),
        validate=validate,
        loss=with_r_drop(loss, label_set, train.r_drop, weights_C=weights_C) if train.r_drop else loss,
        validation_tokens=validation_tokens,
        final_tokens=sum(len(part.ids) for split, part in bench.encoded.items() if split != "train")
        + (_WALK * validation_tokens if train.interpolate and bench.baseline and bench.plan.steps else 0),
        baseline=bench.baseline,
        copies=copies,
        weights=weights,
        texts=encoded.text,
    )


def split_answers(bench: Workbench, split: str, probs_NC: np.ndarray) -> Answers:
    """The probabilities that a split is given, beside what is true."""
    return answers_of(bench.targets[split], probs_NC, bench.prepared.label_set, bench.questions.get(split))


def split_logits(bench: Workbench, split: str, observe: Observer = ignore) -> np.ndarray:
    """Score a split with the weights as they are, in fp32: (rows, num_labels) float32."""
    return _logits(bench, split, observe, nullcontext)


def passing_logits(bench: Workbench, split: str, observe: Observer = ignore) -> np.ndarray:
    """As `split_logits`, in the precision of training, which is faster: for what a run measures on its way."""
    return _logits(bench, split, observe, bench.device.autocast)


def _logits(
    bench: Workbench, split: str, observe: Observer, autocast: Callable[[], AbstractContextManager[object]]
) -> np.ndarray:
    encoded = bench.encoded[split]
    logits_NC = score(
        bench.classifier,
        encoded,
        autocast=autocast,
        on_progress=lambda done: observe(Phase(f"score {split}", done, len(encoded))),
    )
    return encoded.per_text(logits_NC)
