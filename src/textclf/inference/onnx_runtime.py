"""Encoded texts to logits with ONNX Runtime, on the CPU. Imports neither torch nor transformers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from textclf.artifact import folder as names
from textclf.artifact import graph
from textclf.artifact.folder import Artifact
from textclf.cpus import usable_cpus
from textclf.data.batching import Batch, micro_batches
from textclf.data.encoding import Encoded
from textclf.errors import ModelError
from textclf.inference.passes import logits_in_passes

if TYPE_CHECKING:
    import onnxruntime

MAX_TOKENS = 512
"""Padded tokens per forward pass, for each thread that shares it: what fits a core's cache. From 256 to 512 MiniLM is
as fast, at 1,024 it loses 8 %, at 4,096 20 %."""

MAX_PADDING = 64
"""Padding tokens of a pass, for each thread; one more pass is cheaper than these."""

MANY = 4
"""Passes for each thread from which on every thread computes passes of its own, instead of all threads one pass after
another. Nobody waits for anybody then: MiniLM answers 1.16 times as many short texts."""

PAYING_TOKENS = 4096
"""Tokens in all, for each thread, after which that is worth opening a session of one thread: it takes as long as they
do and holds the weights once more."""

OWN_TOKENS, OWN_PADDING = 256, 16
"""The same bounds of a thread's own passes: a smaller one costs little where no thread has to be woken for it."""


class OnnxRuntime:
    """A finished classifier on the CPU: fp32 with torch's logits, or int8.

    Raises ModelError where ONNX Runtime does not take the graph. Several threads may ask one runtime at a time.
    """

    def __init__(self, artifact: Artifact, *, kind: str = "fp32") -> None:
        self._threads = usable_cpus()
        self._folder, self._kind = artifact.folder, kind
        self._files = _identities(artifact.folder, kind)
        self._session = graph.open_session(artifact.folder, kind, threads=self._threads)
        self._pad_id = check_fit(artifact, self._session.get_outputs()[0].shape[-1])
        self._labels = len(artifact.label_set)
        self._tokens = 0  # asked for until now, for each thread

    def logits(self, encoded: Encoded, on_progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Logits in the order of the input: (rows, num_labels) float32. on_progress: told how many texts are done."""
        session, at_once = self._session, 1
        passes = _passes(encoded, max_tokens=OWN_TOKENS, max_padding=OWN_PADDING)
        self._tokens += int(encoded.lengths.sum()) // self._threads
        # Long texts would leave threads without any, and memory grows with the square of their length.
        many = len(passes) >= MANY * self._threads > MANY and encoded.lengths.max() <= MAX_TOKENS
        if many and self._tokens >= PAYING_TOKENS and self._of_one_thread is not None:
            session, at_once = self._of_one_thread, self._threads
        else:
            passes = _passes(encoded, max_tokens=MAX_TOKENS * self._threads, max_padding=MAX_PADDING * self._threads)
        return logits_in_passes(
            partial(_forward, session),
            encoded,
            passes,
            labels=self._labels,
            pad_id=self._pad_id,
            at_once=at_once,
            on_progress=on_progress,
        )

    @cached_property
    def _of_one_thread(self) -> onnxruntime.InferenceSession | None:
        """A second session, which one line does without. None where other files lie in the folder by now."""
        try:
            session = graph.open_session(self._folder, self._kind)
            return session if _identities(self._folder, self._kind) == self._files else None
        except (ModelError, OSError):
            return None


def _passes(encoded: Encoded, *, max_tokens: int, max_padding: int) -> list[np.ndarray]:
    rows_N = np.arange(len(encoded))
    return micro_batches(rows_N, encoded.lengths, max_tokens=max_tokens, max_padding=max_padding)


def _forward(session: onnxruntime.InferenceSession, batch: Batch) -> np.ndarray:
    return graph.run(session, batch.input_ids, batch.attention_mask, batch.token_type_ids)


def _identities(folder: Path, kind: str) -> list[tuple[int, ...]]:
    """By which it shows that the files of a graph are others."""
    found = [path.stat() for path in (graph.graph_path(folder, kind), folder / names.WEIGHTS)]
    return [(one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns) for one in found]


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
