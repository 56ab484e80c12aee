"""A finished classifier that answers: a stream of texts in, one prediction per text out, in the same order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from textclf.artifact import folder, hub, runs
from textclf.artifact.folder import Artifact
from textclf.artifact.runs import Run
from textclf.data.encoding import Encoded, encode
from textclf.errors import ModelError, UsageError
from textclf.inference import reading
from textclf.inference.runtimes import Runtime, check, open_runtime
from textclf.labels import LabelSet

PART = 1024
"""Texts that are computed together; meanwhile the next ones are tokenised. Longer parts save no padding."""


@dataclass(frozen=True)
class Prediction:
    """The answer to one text.

    labels: the label that the text is given; with a multi-label model those that reach their threshold, best first,
        () where none does.
    scores: label names and their probabilities, best first, as many as were asked for, else those of `labels`.
    truncated: the text had more tokens than the model reads; only its start was seen.
    """

    text: str
    labels: tuple[str, ...]
    scores: tuple[tuple[str, float], ...]
    truncated: bool

    @property
    def label(self) -> str:
        """The most probable label. With a multi-label model ask for `labels`: there may be none."""
        return self.scores[0][0]

    @property
    def score(self) -> float:
        """Probability of the most probable label, 0 to 1."""
        return self.scores[0][1]


class Predictor:
    """A classifier with scikit-learn's names.

    classes_: (num_labels,) label names in the order of the columns of `predict_proba`.
    """

    def __init__(self, artifact: Artifact, runtime: Runtime) -> None:
        self.artifact = artifact
        # Objects, because numpy's own text type drops NULs at the end of a name.
        self.classes_ = np.array(artifact.label_set.names, dtype=object)
        self._runtime = runtime
        self._tokenizer = artifact.tokenizer()

    @property
    def name(self) -> str:
        """The run that made the model, else the name of its folder."""
        return runs.title(self.artifact.folder)

    def predict(self, texts: Iterable[str]) -> np.ndarray | list[list[str]]:
        """The most probable label of each text: (rows,) label names.

        With a multi-label model, a list for each text of the labels that reach their threshold, most probable first.
        """
        label_set = self.artifact.label_set
        probs_NC = self.predict_proba(texts)
        if label_set.multi:
            return [[label_set.names[label] for label in of_text] for of_text in label_set.given(probs_NC)]
        return self.classes_[label_set.decide(probs_NC)]  # type: ignore[no-any-return]

    def predict_proba(self, texts: Iterable[str]) -> np.ndarray:
        """The probability of every label for each text: (rows, num_labels) float32."""
        empty = np.zeros((0, len(self.classes_)), dtype=np.float32)
        return np.concatenate([empty, *(self._score(window)[0] for window in reading.windows(_checked(texts)))])

    def predictions(
        self, texts: Iterable[str], *, top_k: int | None = None, threshold: float | None = None
    ) -> Iterator[Prediction]:
        """One prediction per text, in order, while texts are still being read; memory does not grow with their number.

        top_k: give the scores of so many labels, best first; None: of the labels that the text is given.
        threshold: with a multi-label model, a label is given from this probability on, in place of the model's own.

        Texts are taken in windows of up to a few thousand; `window_predictions` leaves the cutting to you.
        Raises UsageError for a str in place of many texts, a text that is no str, or a top_k below 1.
        """
        windows = self.window_predictions(reading.windows(_checked(texts)), top_k=top_k, threshold=threshold)
        return (prediction for window in windows for prediction in window)

    def window_predictions(
        self, windows: Iterable[Sequence[str]], *, top_k: int | None = None, threshold: float | None = None
    ) -> Iterator[list[Prediction]]:
        """The predictions of each window of texts as soon as it is there. A window is held and computed as a whole."""
        if top_k is not None and top_k < 1:
            raise UsageError(f"top_k is {top_k}; it is the number of labels per text, 1 or more")
        label_set = self.artifact.label_set if threshold is None else self.artifact.label_set.with_threshold(threshold)
        return (self._answer(window, label_set, top_k) for window in windows)

    def _answer(self, texts: Sequence[str], label_set: LabelSet, top_k: int | None) -> list[Prediction]:
        probs_NC, truncated_N = self._score(texts)
        given = label_set.given(probs_NC)
        shown = label_set.ranked(probs_NC, top_k).tolist() if top_k is not None else given
        names = label_set.names
        return [
            Prediction(
                text,
                tuple(names[label] for label in of_text),
                tuple((names[label], float(probs_C[label])) for label in ranked),
                bool(truncated),
            )
            for text, probs_C, of_text, ranked, truncated in zip(
                texts, probs_NC, given, shown, truncated_N, strict=True
            )
        ]

    def _score(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (rows, num_labels) and whether each text was cut (rows,)."""
        logits, truncated = [], []
        for encoded in self._encoded(texts):
            logits.append(self._runtime.logits(encoded))
            truncated.append(encoded.truncated)
        logits_NC = np.concatenate(logits)
        if not np.isfinite(logits_NC).all():
            raise ModelError(
                f"{self.artifact.folder}: the model gives NaN or infinity instead of a score",
                hint="its weights are damaged or its training diverged; take another checkpoint or fine-tune again",
            )
        return self.artifact.label_set.probabilities(logits_NC), np.concatenate(truncated)

    def _encoded(self, texts: Sequence[str]) -> Iterator[Encoded]:
        """A window in parts, in order. While one part is being computed, a thread tokenises the next.

        Never beyond the window: to look for more texts might mean to wait for them.
        """
        parts = [texts[start : start + PART] for start in range(0, len(texts), PART)]
        if len(parts) == 1:
            yield self._encode(parts[0])
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(1) as tokenizing:
            coming = tokenizing.submit(self._encode, parts[0])
            for part in parts[1:]:
                encoded, coming = coming.result(), tokenizing.submit(self._encode, part)
                yield encoded
            yield coming.result()

    def _encode(self, texts: Sequence[str]) -> Encoded:
        return encode(texts, self._tokenizer, max_length=self.artifact.max_length, prompt=self.artifact.prompt)


def load(reference: str | Path | Run | None = None, *, device: str = "auto", runtime: str = "auto") -> Predictor:
    """Load a finished classifier.

    reference: a run, the name of one, an artifact folder or a Hub id; None takes the run that was finished last.
    device: auto, cpu, mps, cuda or cuda:N.
    runtime: onnx or torch, which give the same labels; int8 or bf16, which are faster and may differ in a few;
        auto takes torch on a GPU, else onnx where the model has its graph.
    Raises ModelError where there is none or it is incomplete, HubError when it cannot be fetched.
    """
    check(runtime, device)
    artifact = folder.read(hub.locate(reference))
    return Predictor(artifact, open_runtime(artifact, device=device, runtime=runtime))


def _checked(texts: Iterable[str]) -> Iterator[str]:
    if isinstance(texts, (str, bytes)):
        raise UsageError("one text was given where many are expected", hint='put it in a list: predict(["..."])')
    # Iterating over a mapping or a data frame would give its keys.
    if not isinstance(texts, Iterable) or isinstance(texts, Mapping) or hasattr(texts, "columns"):
        raise UsageError(f"texts are a {type(texts).__name__}; give a list, an array or a column of str")
    return (_text(text, position) for position, text in enumerate(texts))


def _text(text: object, position: int) -> str:
    if not isinstance(text, str):
        raise UsageError(f"texts[{position}] is {type(text).__name__}; a text is a str")
    return text
