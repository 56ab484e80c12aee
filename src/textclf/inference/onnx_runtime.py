"""Encoded texts to logits with ONNX Runtime, on the CPU. Imports neither torch nor transformers."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from textclf.artifact import graph
from textclf.artifact.folder import Artifact
from textclf.cpus import usable_cpus
from textclf.data.batching import Batch
from textclf.data.encoding import Encoded
from textclf.errors import ModelError
from textclf.inference.passes import logits_in_passes

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
        self._pad_id = check_fit(artifact, self._session.get_outputs()[0].shape[-1])
        self._labels = len(artifact.label_set)

    def logits(self, encoded: Encoded, on_progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Logits in the order of the input: (rows, num_labels) float32. on_progress: told how many texts are done."""
        return logits_in_passes(
            self._forward,
            encoded,
            labels=self._labels,
            pad_id=self._pad_id,
            max_tokens=MAX_TOKENS * self._threads,
            max_padding=MAX_PADDING * self._threads,
            on_progress=on_progress,
        )

    def _forward(self, batch: Batch) -> np.ndarray:
        return graph.run(self._session, batch.input_ids, batch.attention_mask, batch.token_type_ids)


def check_fit(artifact: Artifact, made_for: object) -> int:
    """The model's padding token, where its graph gives `made_for` logits. Raises ModelError where config.json has
    another number of labels, or no number for that token."""
    labels, pad_id = len(artifact.label_set), artifact.config.get("pad_token_id") or 0
    # A graph may leave it open, and then has a name there, or nothing.
    if (isinstance(made_for, int) and made_for != labels) or type(pad_id) is not int:
        raise ModelError(
            f"{artifact.folder}: its config.json has {labels} labels and the padding token {pad_id!r}; "
            f"its ONNX graph gives {made_for} logits, and padding is a token's number",
            hint="copy the model folder again",
        )
    return pad_id
