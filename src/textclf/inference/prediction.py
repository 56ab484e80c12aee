"""A finished classifier that answers: a stream of texts in, one prediction per text out, in the same order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from textclf.artifact import folder, hub, runs
from textclf.artifact.folder import Artifact
from textclf.artifact.runs import Run
from textclf.data.choices import LETTERS, VERDICTS, checked_choices, choice_scores, shown
from textclf.data.encoding import Encoded, encode
from textclf.errors import DataError, ModelError, UsageError
from textclf.inference import reading
from textclf.inference.explaining import Word, weighed, without, words
from textclf.inference.reading import Item
from textclf.inference.runtimes import Runtime, check, check_finite, open_runtime
from textclf.labels import LabelSet
from textclf.scope import energy, in_scope

PART = 1024
"""Texts that are computed together; meanwhile the next ones are tokenised. Longer parts save no padding."""

EXPLAINED = 128
"""Texts whose explanations are computed together: of each up to 64 texts more are scored."""


@dataclass(frozen=True)
class Prediction:
    """The answer to one text.

    labels: the label that the text is given; with a multi-label model those that reach their threshold, best first,
        () where none does.
    scores: label names and their probabilities, best first, as many as were asked for, else those of `labels`. Of a
        question with choices, letters: A is the first choice, and the probabilities of all of them sum to 1.
    truncated: the text had more tokens than the model reads at once, and what `model.overflow` says became of it.
    abstained: why the text gets no label though one is the best, None where it gets one; `labels` is then ().
    in_scope: which share of the validation texts looked less like training than this one, 0 to 1, where that was asked
        for: near 0 for a text of quite another kind.
    words: what the most probable of these labels rests on, where that was asked for; () where none was given.
    text_pair: the second text of a pair. choices: of a question; choice_scores: their probabilities, in their order.
    """

    text: str
    labels: tuple[str, ...]
    scores: tuple[tuple[str, float], ...]
    truncated: bool
    text_pair: str | None = None
    choices: tuple[str, ...] | None = None
    choice_scores: tuple[float, ...] | None = None
    abstained: str | None = None
    in_scope: float | None = None
    words: tuple[Word, ...] | None = None

    @property
    def label(self) -> str | None:
        """The most probable label, None where the model abstains. With a multi-label model ask for `labels`."""
        return self.scores[0][0] if self.abstained is None else None

    @property
    def score(self) -> float:
        """Probability of the most probable label, 0 to 1."""
        return self.scores[0][1]

    @property
    def index(self) -> int | None:
        """Position, from 0, of the best choice of a question; None for other texts, and where the model abstains."""
        return None if self.choices is None or self.label is None else LETTERS.index(self.label)

    @property
    def choice(self) -> str | None:
        """The best choice of a question; None for other texts, and where the model abstains."""
        return None if self.choices is None or self.index is None else self.choices[self.index]


class Predictor:
    """A classifier with scikit-learn's names.

    Its texts are str; of a model of pairs, tuples `(text, text_pair)`; of a model that answers questions, tuples
    `(question, choices)`.

    classes_: (num_labels,) label names in the order of the columns of `predict_proba`; letters where questions are
    answered.
    """

    def __init__(self, artifact: Artifact, runtime: Runtime) -> None:
        wanted = {"binary": VERDICTS, "multiclass": LETTERS[: len(artifact.label_set)]}.get(artifact.form, ())
        missing = set(wanted) - set(artifact.label_set.names)
        if missing and (artifact.form == "binary" or len(missing) == len(wanted)):
            raise ModelError(
                f"{artifact.folder}: textclf.json says form {artifact.form}, and config.json has no label "
                f"{min(missing)!r}",
                hint="copy the model folder again",
            )
        self.artifact = artifact
        # Objects, because numpy's own text type drops NULs at the end of a name.
        self.classes_ = np.array(artifact.label_set.names if artifact.form != "binary" else [*LETTERS], dtype=object)
        self._runtime = runtime
        self._tokenizer = artifact.tokenizer()

    @property
    def name(self) -> str:
        """The run that made the model, else the name of its folder."""
        return runs.title(self.artifact.folder)

    def predict(self, texts: Iterable[Item]) -> np.ndarray | list[list[str]]:
        """The most probable label of each text: (rows,) label names.

        With a multi-label model, a list for each text of the labels that reach their threshold, most probable first.
        """
        label_set = self.artifact.label_set
        probs_NC = self.predict_proba(texts)
        if label_set.multi:
            return [[label_set.names[label] for label in of_text] for of_text in label_set.given(probs_NC)]
        return self.classes_[label_set.decide(probs_NC)]  # type: ignore[no-any-return]

    def predict_proba(self, texts: Iterable[Item]) -> np.ndarray:
        """The probability of every label for each text: (rows, num_labels) float32."""
        empty = np.zeros((0, len(self.classes_)), dtype=np.float32)
        windows = reading.windows(self._checked(texts), first=reading.MAX_TEXTS)  # all answers come at once
        return np.concatenate([empty, *(self._score(window)[0] for window in windows)])

    def predictions(
        self,
        texts: Iterable[Item],
        *,
        top_k: int | None = None,
        threshold: float | None = None,
        abstain_below: float | None = None,
        target_accuracy: float | None = None,
        out_of_scope: float | None = None,
        explain: bool = False,
    ) -> Iterator[Prediction]:
        """One prediction per text, in order, while texts are still being read; memory does not grow with their number.

        top_k: give the scores of so many labels, best first; None: of the labels that the text is given.
        threshold: with a multi-label model, a label is given from this probability on, in place of the model's own.
        abstain_below: with any other, give no answer of a lower score; target_accuracy: choose that score so that this
        share of the answers was right on validation.
        out_of_scope: say how much each text is `in_scope`, and give no answer where that is below this share.
        explain: give the `words` that the best label rests on; of up to 64 of them, which takes as many answers.

        Texts are taken in windows of up to a few thousand; `window_predictions` leaves the cutting to you.
        Raises UsageError for a str in place of many texts, a text that is none of this model's, a top_k below 1, a
        threshold to abstain by that cannot be had, or an explanation of anything but single texts.
        """
        windows = self.window_predictions(
            reading.windows(self._checked(texts)),
            top_k=top_k,
            threshold=threshold,
            abstain_below=abstain_below,
            target_accuracy=target_accuracy,
            out_of_scope=out_of_scope,
            explain=explain,
        )
        return (prediction for window in windows for prediction in window)

    def window_predictions(
        self,
        windows: Iterable[Sequence[Item]],
        *,
        top_k: int | None = None,
        threshold: float | None = None,
        abstain_below: float | None = None,
        target_accuracy: float | None = None,
        out_of_scope: float | None = None,
        explain: bool = False,
    ) -> Iterator[list[Prediction]]:
        """The predictions of each window of texts as soon as it is there. A window is held and computed as a whole."""
        if top_k is not None and top_k < 1:
            raise UsageError(f"top_k is {top_k}; it is the number of labels per text, 1 or more")
        if explain and self.artifact.form != "text":
            raise UsageError("only answers to single texts can be explained; this model reads pairs or questions")
        label_set = self.artifact.label_set if threshold is None else self.artifact.label_set.with_threshold(threshold)
        floor = self.artifact.threshold(abstain_below=abstain_below, target_accuracy=target_accuracy)
        if (floor is not None or out_of_scope is not None) and top_k is not None:
            raise UsageError("a model that may abstain gives one label or none; top_k asks for several")
        if out_of_scope is not None and not 0 <= out_of_scope <= 1:
            raise UsageError(f"--out-of-scope is {out_of_scope}; it is a share, from 0 to 1")
        scale = self.artifact.scope() if out_of_scope is not None else None
        answered = (self._answer(window, label_set, top_k, scale) for window in windows)
        if floor is not None:
            answered = ([_or_none(one, floor) for one in window] for window in answered)
        if out_of_scope is not None:
            answered = ([_or_foreign(one, out_of_scope) for one in window] for window in answered)
        return (self._explained(window) for window in answered) if explain else answered

    def _explained(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        found = []
        for first in range(0, len(predictions), EXPLAINED):
            part = predictions[first : first + EXPLAINED]
            spans = [words(one.text) if one.scores else [] for one in part]
            probs_WC = self.predict_proba(
                text for one, of_text in zip(part, spans, strict=True) for text in without(one.text, of_text)
            )
            ends = np.cumsum([len(of_text) for of_text in spans])
            for one, of_text, end in zip(part, spans, ends, strict=True):
                label = self.artifact.label_set.label2id[one.scores[0][0]] if of_text else 0
                left_W = probs_WC[end - len(of_text) : end, label]
                weights = weighed(one.text, of_text, one.score, left_W) if of_text else ()
                found.append(replace(one, words=weights))
        return found

    def _answer(
        self, texts: Sequence[Item], label_set: LabelSet, top_k: int | None, scale: np.ndarray | None
    ) -> list[Prediction]:
        if self._answers_questions:
            return self._answer_questions(texts, top_k or 1)  # type: ignore[arg-type]
        logits_NC, truncated_N = self._logits(texts)
        probs_NC = label_set.probabilities(logits_NC)
        shares_N = [None] * len(texts) if scale is None else in_scope(energy(logits_NC), scale).tolist()
        given = label_set.given(probs_NC)
        shown = label_set.ranked(probs_NC, top_k).tolist() if top_k is not None else given
        names = label_set.names
        return [
            Prediction(
                text if isinstance(text, str) else text[0],
                tuple(names[label] for label in of_text),
                tuple((names[label], float(probs_C[label])) for label in ranked),
                bool(truncated),
                text_pair=None if isinstance(text, str) else str(text[1]),
                in_scope=share,
            )
            for text, probs_C, of_text, ranked, truncated, share in zip(
                texts, probs_NC, given, shown, truncated_N, shares_N, strict=True
            )
        ]

    def _answer_questions(self, questions: Sequence[tuple[str, tuple[str, ...]]], top_k: int) -> list[Prediction]:
        probs_QC, truncated_Q = self._score(questions)
        found = []
        for (question, choices), probs_C, truncated in zip(questions, probs_QC, truncated_Q, strict=True):
            own = probs_C[: len(choices)]
            best = np.argsort(-own, kind="stable")[:top_k]
            scores = tuple((LETTERS[index], float(own[index])) for index in best)
            found.append(
                Prediction(
                    question,
                    (scores[0][0],),
                    scores,
                    bool(truncated),
                    choices=choices,
                    choice_scores=tuple(own.tolist()),
                )
            )
        return found

    @property
    def _answers_questions(self) -> bool:
        return self.artifact.form in ("binary", "multiclass")

    def _logits(self, texts: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Logits (rows, num_labels) and whether each text was cut (rows,)."""
        logits, truncated = [], []
        for encoded in self._encoded(texts):
            logits.append(encoded.per_text(self._runtime.logits(encoded)))
            truncated.append(encoded.truncated[np.cumsum(encoded.windows) - encoded.windows])
        logits_NC = np.concatenate(logits)
        check_finite(logits_NC, self.artifact)
        return logits_NC, np.concatenate(truncated)

    def _score(self, texts: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Probabilities (rows, num_labels) and whether each text was cut (rows,)."""
        logits_NC, truncated_N = self._logits(texts)
        probs_NC = self.artifact.label_set.probabilities(logits_NC)
        if not self._answers_questions:
            return probs_NC, truncated_N
        binary = self.artifact.form == "binary"
        count_Q = np.array([len(choices) for _, choices in texts], dtype=np.int64)
        if not binary and count_Q.max(initial=0) > len(self.classes_):
            raise DataError(
                f"a question has {count_Q.max()} choices; this model learnt to tell {len(self.classes_)} apart",
                hint="a model of form binary takes any number of choices",
            )
        scores_QK = choice_scores(probs_NC, count_Q, self.artifact.label_set.label2id, binary=binary)
        probs_QC = np.zeros((len(texts), len(self.classes_)), dtype=np.float32)
        probs_QC[:, : scores_QK.shape[1]] = scores_QK
        return probs_QC, np.logical_or.reduceat(truncated_N, np.cumsum(count_Q) - count_Q) if binary else truncated_N

    def _encoded(self, texts: Sequence[Item]) -> Iterator[Encoded]:
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

    def _encode(self, texts: Sequence[Any]) -> Encoded:
        artifact, pairs = self.artifact, None
        if artifact.form == "pair":
            texts, pairs = [first for first, _ in texts], [second for _, second in texts]
        elif artifact.form == "multiclass":
            texts, pairs = [question for question, _ in texts], [shown(choices) for _, choices in texts]
        elif artifact.form == "binary":
            pairs = [choice for _, choices in texts for choice in choices]
            texts = [question for question, choices in texts for _ in choices]
        return encode(
            texts,
            self._tokenizer,
            pairs=pairs,
            max_length=artifact.max_length,
            prompt=artifact.prompt,
            overflow=artifact.overflow,
            keep_pairs=self._answers_questions,
        )

    def _checked(self, texts: Iterable[Item]) -> Iterator[Item]:
        if isinstance(texts, (str, bytes)):
            raise UsageError("one text was given where many are expected", hint='put it in a list: predict(["..."])')
        # Iterating over a mapping or a data frame would give its keys.
        if not isinstance(texts, Iterable) or isinstance(texts, Mapping) or hasattr(texts, "columns"):
            raise UsageError(f"texts are a {type(texts).__name__}; give a list, an array or a column of str")
        check = {"text": _text, "pair": _pair}.get(self.artifact.form, self._question)
        return (check(text, f"texts[{position}]") for position, text in enumerate(texts))

    def _question(self, item: object, where: str) -> Item:
        if not isinstance(item, (tuple, list)) or len(item) != 2 or not isinstance(item[0], str):
            raise UsageError(f"{where} is no question with choices", hint='give tuples: ("What is 2 + 2?", ["3", "4"])')
        try:
            choices = checked_choices(item[1], where)
        except DataError as err:
            raise UsageError(err.message, hint=err.hint) from err
        return item[0], choices


def load(
    reference: str | Path | Run | None = None,
    *,
    device: str = "auto",
    runtime: str = "auto",
    head: str | None = None,
) -> Predictor:
    """Load a finished classifier.

    reference: a run, the name of one, an artifact folder or a Hub id; None takes the run that was finished last.
    device: auto, cpu, mps, cuda or cuda:N.
    runtime: onnx or torch, which give the same labels; int8, bf16 or openvino, which are faster and round; on a CPU,
        where the model has its graph, what is close to another answer is then computed again in fp32. auto takes torch
        on a GPU, else onnx where the model has its graph.
    head: for a model from elsewhere whose head is code, leave to run it: `FILE.py:CLASS`. Only torch needs it.
    Raises ModelError where there is none or it is incomplete, HubError when it cannot be fetched, RefusedError for a
    head whose code was not allowed, MissingExtraError for openvino where it is not installed.
    """
    check(runtime, device)
    artifact = folder.read(hub.locate(reference))
    return Predictor(artifact, open_runtime(artifact, device=device, runtime=runtime, head=head))


def _or_none(prediction: Prediction, floor: float) -> Prediction:
    """The prediction, or none where its score is lower than the floor."""
    if np.float32(prediction.score) >= np.float32(floor):
        return prediction
    return replace(prediction, labels=(), abstained=f"its score is below {floor:.4g}")


def _or_foreign(prediction: Prediction, least: float) -> Prediction:
    """The prediction, or none where its text is less in scope than this."""
    if prediction.in_scope is None or prediction.in_scope >= least:
        return prediction
    return replace(prediction, labels=(), abstained=f"out of scope (below {least:.4g})")


def _text(text: object, where: str) -> Item:
    if not isinstance(text, str):
        raise UsageError(f"{where} is {type(text).__name__}; a text is a str")
    return text


def _pair(item: object, where: str) -> Item:
    if not isinstance(item, (tuple, list)) or len(item) != 2 or not all(isinstance(text, str) for text in item):
        raise UsageError(f"{where} is no pair of texts", hint='this model reads pairs: ("one text", "the other")')
    return item[0], item[1]
