"""Encoded texts to logits: the one forward loop outside training."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch

from textclf.data.batching import Batch, Packed, collate, pack, packed_batches, scoring_batches
from textclf.data.encoding import Encoded
from textclf.errors import ResourceError
from textclf.model.classifier import Classifier
from textclf.model.device import is_out_of_memory

MAX_TOKENS = 16384
"""Tokens per forward pass, padding among them. Without gradients this is small even for large models."""
MAX_TOKENS_PER_THREAD = 1024
"""On a CPU: what lies in a core's cache is computed faster."""
MAX_PACKED = 16384
"""Of any number of threads: to find each text its place takes longer the more there are."""
LONGEST_PACKED = 512
"""Tokens of a text that is packed to be scored. Longer ones gain nothing, and lose what attention knows of order: in a
row of its own, a decoder's text of 1,024 tokens takes 1.2 to 1.4 times as long as padded."""


def score(
    classifier: Classifier,
    encoded: Encoded,
    *,
    autocast: Callable[[], AbstractContextManager[object]] = nullcontext,
    on_progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Logits of every text in the order of the input: (rows, num_labels) float32.

    autocast: the precision to compute in; that of the weights without.
    on_progress: called with the number of texts done so far. Leaves the classifier in the mode it was in.
    Where memory runs out, passes get smaller. Raises ResourceError where one text alone does not fit.
    """
    logits_NC = np.zeros((len(encoded), len(classifier.label_set)), dtype=np.float32)
    was_training = classifier.training
    if was_training:  # not otherwise: other threads may be scoring with the same classifier
        classifier.eval()
    done = 0
    waiting = scoring_passes(classifier, encoded)[::-1]
    try:
        with torch.inference_mode(), autocast():
            while waiting:
                rows = waiting.pop()
                try:
                    logits_NC[rows] = classifier(scoring_batch(classifier, encoded, rows)).float().cpu().numpy()
                except RuntimeError as err:
                    if not is_out_of_memory(err):
                        raise
                    if len(rows) == 1:
                        raise ResourceError(
                            f"out of memory on {classifier.device}: a text of {encoded.lengths[rows[0]]:,} tokens does "
                            "not fit",
                            hint="lower --max-length, or compute elsewhere with --device",
                        ) from err
                    # What follows is no longer than this, so all of it is halved at once.
                    waiting = [half for one in [*waiting, rows] for half in np.array_split(one, 2)[::-1] if len(half)]
                    continue
                done += len(rows)
                if on_progress is not None:
                    on_progress(done)
    finally:
        if was_training:
            classifier.train()
    return logits_NC


def scoring_passes(classifier: Classifier, encoded: Encoded) -> list[np.ndarray]:
    """The rows of each forward pass without gradients, every row once."""
    threads = torch.get_num_threads() if classifier.device.type == "cpu" else 0
    padded = MAX_TOKENS_PER_THREAD * threads or MAX_TOKENS
    if classifier.reading.alone:
        padded = 1  # one text
    if not classifier.packs:
        return scoring_batches(np.arange(len(encoded)), encoded.lengths, max_tokens=padded)
    # Long and short ones fill each other's gaps; texts of one length, in which files may be sorted, might leave half.
    shuffled = np.random.default_rng(0).permutation(len(encoded))
    fits = encoded.lengths[shuffled] <= LONGEST_PACKED
    packed = min(MAX_PACKED, padded)
    return [
        *scoring_batches(shuffled[~fits], encoded.lengths, max_tokens=padded),
        *packed_batches(shuffled[fits], encoded.lengths, max_tokens=packed),
    ]


def scoring_batch(classifier: Classifier, encoded: Encoded, rows: np.ndarray) -> Batch | Packed:
    """These rows, which `scoring_passes` gave, as the classifier takes them best: packed where it can."""
    packs = classifier.packs and encoded.lengths[rows].max() <= LONGEST_PACKED
    return (pack if packs else collate)(encoded, rows, pad_id=classifier.pad_id)
