"""Encoded texts to logits: the one forward loop outside training."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from textclf.data.batching import collate, scoring_batches
from textclf.data.encoding import Encoded
from textclf.errors import ResourceError
from textclf.model.classifier import Classifier
from textclf.model.device import is_out_of_memory

MAX_TOKENS = 16384
"""Padded tokens per forward pass. Without gradients this is small even for large models."""
MAX_TOKENS_PER_THREAD = 1024
"""On a CPU: what lies in a core's cache is computed faster."""


def score(
    classifier: Classifier,
    encoded: Encoded,
    *,
    on_progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Logits of every text in the order of the input: (rows, num_labels) float32, computed in fp32.

    on_progress: called with the number of texts done so far. Leaves the classifier in the mode it was in.
    Where memory runs out, passes get smaller. Raises ResourceError where one text alone does not fit.
    """
    logits_NC = np.zeros((len(encoded), len(classifier.label_set)), dtype=np.float32)
    was_training = classifier.training
    if was_training:  # not otherwise: other threads may be scoring with the same classifier
        classifier.eval()
    done = 0
    waiting = scoring_batches(encoded.lengths, max_tokens=pass_tokens(classifier))[::-1]
    try:
        with torch.inference_mode():
            while waiting:
                rows = waiting.pop()
                try:
                    batch = collate(encoded, rows, pad_id=classifier.pad_id)
                    logits_NC[rows] = classifier(batch).float().cpu().numpy()
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


def pass_tokens(classifier: Classifier) -> int:
    """Padded tokens of a forward pass without gradients."""
    if classifier.reading.alone:
        return 1  # one text
    return MAX_TOKENS_PER_THREAD * torch.get_num_threads() if classifier.device.type == "cpu" else MAX_TOKENS
