"""Encoded texts to logits with ONNX Runtime, on the CPU. Imports neither torch nor transformers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from textclf.artifact import graph
from textclf.artifact.folder import Artifact
from textclf.cpus import usable_cpus
from textclf.data.batching import collate, micro_batches
from textclf.data.encoding import Encoded
from textclf.errors import ModelError

MAX_TOKENS = 512
"""Padded tokens per forward pass, for each thread: what fits a core's cache. From 256 to 512 MiniLM is as fast, at
1,024 it loses 8 %, at 4,096 20 %."""

MAX_PADDING = 64
"""Padding tokens of a pass; one more pass is cheaper than these."""


class OnnxRuntime:
    """A finished classifier on the CPU: fp32 with torch's logits, or int8.

    Raises ModelError where ONNX Runtime does not take the graph. Several threads may ask one runtime at a time.
    """

    def __init__(self, artifact: Artifact, *, kind: str = "fp32") -> None:
        self._threads = usable_cpus()
        self._session = graph.open_session(artifact.folder, kind, threads=self._threads)
        self._pad_id = artifact.config.get("pad_token_id") or 0
        self._labels = len(artifact.label_set)
        made_for = self._session.get_outputs()[0].shape[-1]  # a name where the graph leaves it open
        if (isinstance(made_for, int) and made_for != self._labels) or type(self._pad_id) is not int:
            raise ModelError(
                f"{artifact.folder}: its config.json has {self._labels} labels and the padding token {self._pad_id!r}; "
                f"its ONNX graph gives {made_for} logits, and padding is a token's number",
                hint="copy the model folder again",
            )

    def logits(self, encoded: Encoded, on_progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Logits in the order of the input: (rows, num_labels) float32. on_progress: told how many texts are done."""
        logits_NC = np.zeros((len(encoded), self._labels), dtype=np.float32)
        lengths, done = encoded.lengths, 0
        everything = np.arange(len(encoded))
        passes = micro_batches(
            everything, lengths, max_tokens=MAX_TOKENS * self._threads, max_padding=MAX_PADDING * self._threads
        )
        for rows in reversed(passes):  # longest first, so that a lack of memory shows at the start
            batch = collate(encoded, rows, pad_id=self._pad_id)
            logits_NC[rows] = graph.run(self._session, batch.input_ids, batch.attention_mask, batch.token_type_ids)
            done += len(rows)
            if on_progress is not None:
                on_progress(done)
        return logits_NC
