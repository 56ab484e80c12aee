"""Texts to token ids: one flat array with offsets. Needs only the `tokenizers` library.

Training, eval, predict and serve all encode here, so a text always becomes the same tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from textclf.config import Overflow
from textclf.data import cutting, tokenising
from textclf.data.prompt import Prompt
from textclf.data.tokenising import Texts
from textclf.data.words import Words, ranges, separable

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from textclf.data.rows import Rows

logger = logging.getLogger(__name__)

FEW = 256
"""Fewer texts than this are not worth taking apart into words."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of many texts, in memory or memory-mapped.

    ids: (tokens,) uint16, or uint32 where the vocabulary needs it; all texts one after another, special tokens
        included. Few operators of torch take these types: widen what you gather, as `batching.collate` does.
    offsets: (rows + 1,) int64; row i is ids[offsets[i]:offsets[i + 1]].
    truncated: (rows,) bool, true where the text had more tokens than max_length.
    second: (rows,) int64, for pairs of texts: the tokens of a row from this one on are of the second type
        (`token_type_ids` 1). None where no row is a pair.
    text: (rows,) int64, not falling: the text that a row is a window of. None where every row is one text.
    """

    ids: np.ndarray
    offsets: np.ndarray
    truncated: np.ndarray
    second: np.ndarray | None = None
    text: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """Tokens of each text: (rows,) int64."""
        return np.diff(self.offsets)

    def take(self, rows: np.ndarray) -> Encoded:
        """Some of the texts, in the order given: rows (n,) int64."""
        lengths = self.lengths[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        # Every token's place: where its text begins, and how far it is into it.
        places = np.repeat(self.offsets[rows] - offsets[:-1], lengths) + np.arange(offsets[-1])
        return Encoded(
            self.ids[places],
            offsets,
            self.truncated[rows],
            None if self.second is None else self.second[rows],
            None if self.text is None else self.text[rows],
        )

    @cached_property
    def windows(self) -> np.ndarray:
        """Rows of each text: (texts,) int64, all 1 where long texts are not read in windows."""
        if self.text is None:
            return np.ones(len(self), np.int64)
        counts: np.ndarray = np.unique(self.text, return_counts=True)[1]
        return counts

    @property
    def tokens_read(self) -> np.ndarray:
        """Tokens of each text that the model reads, over all its windows: (texts,) int64."""
        if self.text is None or not len(self):
            return self.lengths
        return np.add.reduceat(self.lengths, np.cumsum(self.windows) - self.windows)  # type: ignore[no-any-return]

    def rows_of(self, texts: np.ndarray) -> np.ndarray:
        """The rows of some texts, given in ascending order: (rows,) int64."""
        return texts if self.text is None else np.flatnonzero(np.isin(self.text, texts))

    @property
    def texts_cut(self) -> int:
        """How many texts had more tokens than max_length."""
        first = np.cumsum(self.windows) - self.windows
        return int(self.truncated[first].sum())

    def per_text(self, logits_RC: np.ndarray) -> np.ndarray:
        """Logits of rows to logits of texts: the mean over a text's windows, (texts, num_labels). Also of the features
        that a linear layer makes logits of: the mean comes to the same.

        Logits, not probabilities: training gives every window the text's label and its share of the loss, which is
        the mean of log-probabilities over the windows, and so is this up to a constant. A window that says nothing
        then changes nothing, however many there are, where the mean of probabilities would flatten the answer.
        """
        if self.text is None or not len(logits_RC):
            return logits_RC
        first = np.cumsum(self.windows) - self.windows
        summed = np.add.reduceat(logits_RC, first, axis=0)
        pooled: np.ndarray = (summed / self.windows[:, np.newaxis]).astype(logits_RC.dtype)
        return pooled

    def row(self, index: int) -> np.ndarray:
        """Token ids of one text: (tokens,), of the type of `ids`."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]


@dataclass(frozen=True)
class Chunk:
    """Encoded rows that come next: ids (tokens,), lengths (rows,) int64, truncated (rows,) bool; second, text as in
    Encoded."""

    ids: np.ndarray
    lengths: np.ndarray
    truncated: np.ndarray
    second: np.ndarray | None = None
    text: np.ndarray | None = None


def encode(
    texts: Texts,
    tokenizer: Tokenizer,
    *,
    pairs: Texts | None = None,
    max_length: int | None = None,
    prompt: str | None = None,
    overflow: Overflow = "truncate",
    keep_pairs: bool = False,
    where: Callable[[int], str] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Encoded:
    """Tokenise texts, each in at most `max_length` tokens (special tokens included); None never cuts.

    texts: a sequence, or a column of strings in arrow, which spares a million Python strings.
    pairs: the second texts, as many, joined to the first as the tokenizer joins pairs; a tokenizer without a
        separator gets a line break between the two. None for single texts.
    overflow: what becomes of longer texts. truncate: the start is kept; of a pair, the longer part is cut first, as
        tokenizers do. head-tail: the same sizes, but a quarter of each is its start and the rest its end (Sun et al.
        2019, "How to Fine-Tune BERT for Text Classification?": 128 + 382 of 510). window: the text becomes several
        rows, each overlapping the one before it by a quarter; of a pair, the longer part moves past the other.
    keep_pairs: only first texts are shortened. A second text that leaves no room for the first loses its end; that
        is logged as a warning, with the first such row as `where` calls it.
    Special-token literals in a text ("[SEP]", "<|endoftext|>") are read as plain characters. A text
    that has no token at all becomes the tokenizer's first special token, so every row has one or more.
    prompt: a template with `{text}`, put around every text; not of pairs, and only with `truncate`. Of a text that is
        cut, what comes after it stays.
    on_progress: called with the number of texts done so far.

    The tokenizer's threads take every core that the process may run on; TOKENIZERS_PARALLELISM=false keeps it to one.
    """
    chunks = encode_chunks(
        texts, tokenizer, pairs=pairs, max_length=max_length, prompt=prompt, overflow=overflow, keep_pairs=keep_pairs,
        where=where, on_progress=on_progress,
    )  # fmt: skip
    return _gathered(chunks, id_type(tokenizer))


def encode_rows(
    rows: Rows,
    tokenizer: Tokenizer,
    *,
    max_length: int | None = None,
    prompt: str | None = None,
    overflow: Overflow = "truncate",
) -> Encoded:
    """The texts of rows, or their pairs; of questions with choices, only the question is ever shortened."""
    return encode(
        rows.text_column, tokenizer, pairs=rows.pair_column, max_length=max_length, prompt=prompt, overflow=overflow,
        keep_pairs=rows.has_questions, where=rows.where,
    )  # fmt: skip


def encode_chunks(
    texts: Texts,
    tokenizer: Tokenizer,
    *,
    pairs: Texts | None = None,
    max_length: int | None = None,
    prompt: str | None = None,
    overflow: Overflow = "truncate",
    keep_pairs: bool = False,
    where: Callable[[int], str] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> Iterator[Chunk]:
    """What `encode` gives, chunk by chunk, so that memory does not grow with the number of texts."""
    settle(tokenizer)
    frame = _Frame(tokenizer, paired=pairs is not None)
    limit = None if max_length is None else max(0, max_length - frame.size)
    around = Prompt.of(prompt)
    ending = around.ending(tokenizer) if around else []
    words = Words(tokenizer) if len(texts) >= FEW and separable(tokenizer) else None
    dtype = id_type(tokenizer)
    plain = pairs is None and (overflow == "truncate" or limit is None)
    done = 0
    lost: list[int] = []  # texts whose pair is not kept whole, though it should be

    def tokens(part: Texts, most: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return words.tokens(tokenising.in_arrow(part), limit=most) if words else tokenising.whole(part, tokenizer, most)

    for part in tokenising.parts(texts):
        if plain:
            ids, sizes, truncated = tokens(around.around(part) if around else part, limit)
            if ending and truncated.any():
                ids = _end_in(np.array(ids), np.cumsum(sizes)[truncated], ending[-(limit or 0) :])
            yield Chunk(*frame.around(ids, sizes, dtype), truncated)
        else:
            # Whole: which part is cut first, and where a text ends, is known by all of their tokens only.
            first, size_N, _ = tokens(part, None)
            second, pair_size_N = np.zeros(0, np.int64), np.zeros_like(size_N)
            if pairs is not None:
                second, pair_size_N, _ = tokens(pairs[done : done + len(part)], None)
            pieces = cutting.pieces(size_N, pair_size_N, limit, overflow=overflow, keep_pairs=keep_pairs)
            if keep_pairs:
                short_R = pieces.second.head + pieces.second.tail < pair_size_N[pieces.text]
                lost += (np.unique(pieces.text[short_R]) + done).tolist()
            yield frame.joined(
                first,
                second,
                size_N,
                pair_size_N,
                pieces,
                dtype,
                text=done if pieces.windows else None,
            )
        done += len(part)
        if on_progress is not None:
            on_progress(done)
    if lost:
        logger.warning(
            "%s: the choices alone are longer than the %s tokens that are read, and lose their end (%s of %s rows); "
            "training with a larger --max-length would keep them",
            where(lost[0]) if where is not None else f"row {lost[0] + 1}", max_length, len(lost), done,
        )  # fmt: skip


def cut(encoded: Encoded, tokenizer: Tokenizer, max_length: int, *, prompt: str | None = None) -> Encoded:
    """Rows as they would be had they been encoded with this smaller `max_length`."""
    if max_length >= encoded.lengths.max(initial=0):
        return encoded
    return _gathered(cut_chunks(encoded, tokenizer, max_length, prompt=prompt), encoded.ids.dtype)


def cut_chunks(
    encoded: Encoded, tokenizer: Tokenizer, max_length: int, *, prompt: str | None = None
) -> Iterator[Chunk]:
    """What `cut` gives, chunk by chunk."""
    around = Prompt.of(prompt)
    suffix = [*(around.ending(tokenizer) if around else []), *_Frame(tokenizer).suffix][-max_length:]
    for start in range(0, len(encoded), tokenising.CHUNK):
        offsets = encoded.offsets[start : start + tokenising.CHUNK + 1]
        sizes = np.diff(offsets)
        lengths = np.minimum(sizes, max_length)
        ends = np.cumsum(lengths)
        ids = encoded.ids[np.repeat(offsets[:-1] - (ends - lengths), lengths) + np.arange(ends[-1])]
        longer = sizes > max_length
        ids = _end_in(ids, ends[longer], suffix)
        yield Chunk(ids, lengths, encoded.truncated[start : start + tokenising.CHUNK] | longer)


def _end_in(ids: np.ndarray, ends: np.ndarray, tokens: list[int]) -> np.ndarray:
    """The ids, where rows that end at these places now end in these tokens."""
    for back, token in enumerate(reversed(tokens), start=1):
        ids[ends - back] = token
    return ids


def settle(tokenizer: Tokenizer) -> None:
    """Switch off what a tokenizer.json may ask for and is done here, or for every batch anew."""
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.encode_special_tokens = True


def id_type(tokenizer: Tokenizer) -> np.dtype:
    """The smallest type that holds every id of the vocabulary."""
    largest = max(tokenizer.get_vocab_size() - 1, *tokenizer.get_added_tokens_decoder(), 0)
    return np.dtype(np.uint16 if largest <= np.iinfo(np.uint16).max else np.uint32)


def unknown_id(tokenizer: Tokenizer) -> int | None:
    """The token that stands for what the vocabulary has no token for; None where there is none."""
    names = [getattr(tokenizer.model, "unk_token", None), "<unk>", "[UNK]"]  # a Unigram model does not say its own
    ids = (tokenizer.token_to_id(name) for name in names if name)
    return next((index for index in ids if index is not None), None)


def _gathered(chunks: Iterable[Chunk], dtype: np.dtype) -> Encoded:
    parts = [Chunk(np.zeros(0, dtype), np.zeros(0, np.int64), np.zeros(0, bool)), *chunks]
    return Encoded(
        np.concatenate([part.ids for part in parts]),
        np.concatenate([[0], np.cumsum(np.concatenate([part.lengths for part in parts]))]),
        np.concatenate([part.truncated for part in parts]),
        *(_optional([getattr(part, name) for part in parts[1:]]) for name in ("second", "text")),
    )


def _optional(parts: list[np.ndarray | None]) -> np.ndarray | None:
    there = [part for part in parts if part is not None]
    return np.concatenate(there) if there else None


class _Frame:
    """The special tokens around every text or pair of texts, and what the texts themselves must not hold."""

    def __init__(self, tokenizer: Tokenizer, *, paired: bool = False) -> None:
        sample = tokenizer.encode("a", "a") if paired else tokenizer.encode("a")
        inside = [index for index, added in enumerate(sample.special_tokens_mask) if not added]
        end = inside[-1] + 1 if inside else len(sample.ids)
        self.prefix = sample.ids[: inside[0] if inside else end]
        self.suffix = sample.ids[end:]
        self.middle: list[int] = []
        self.second_from: int | None = None
        if paired:
            ends = [index for index, sequence in enumerate(sample.sequence_ids) if sequence == 0]
            begins = [index for index, sequence in enumerate(sample.sequence_ids) if sequence == 1]
            self.middle = sample.ids[ends[-1] + 1 : begins[0]]
            # Types are 0 up to somewhere between the two texts and 1 from there on; XLNet's differ and are not told.
            changes = sample.type_ids.count(0)
            if sample.type_ids == sorted(sample.type_ids) and max(sample.type_ids) == 1 and changes > ends[-1]:
                self.second_from = changes - ends[-1] - 1 + len(self.prefix)
            if not self.middle:
                self.middle = tokenizer.encode("\n", add_special_tokens=False).ids or [0]
                self.second_from = None if self.second_from is None else self.second_from + len(self.middle)
        self.size = len(self.prefix) + len(self.middle) + len(self.suffix)
        unknown = unknown_id(tokenizer)
        added = tokenizer.get_added_tokens_decoder()
        # The unknown token is special, but stands in ordinary texts.
        self._special = sorted(index for index, token in added.items() if token.special and index != unknown)
        self._unknown = unknown if unknown is not None else 0

    def around(self, ids: np.ndarray, sizes: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
        """Rows of these sizes with their special tokens: ids (tokens,) of the type, lengths (rows,) int64."""
        ids = self._without_special(ids)
        if not self.size:
            empty = np.flatnonzero(sizes == 0)
            filler = self._special[0] if self._special else 0
            ids = np.insert(ids, (np.cumsum(sizes) - sizes)[empty], filler)
            return ids.astype(dtype), np.maximum(sizes, 1)
        lengths = sizes + self.size
        ends = np.cumsum(lengths)
        framed = np.empty(ends[-1], dtype=dtype)
        before = np.arange(len(sizes)) * self.size + len(self.prefix)
        framed[np.arange(len(ids)) + np.repeat(before, sizes)] = ids
        for place, token in enumerate(self.prefix):
            framed[ends - lengths + place] = token
        for back, token in enumerate(reversed(self.suffix), start=1):
            framed[ends - back] = token
        return framed, lengths

    def joined(
        self,
        first: np.ndarray,
        second: np.ndarray,
        size_N: np.ndarray,
        pair_size_N: np.ndarray,
        pieces: cutting.Pieces,
        dtype: np.dtype,
        *,
        text: int | None,
    ) -> Chunk:
        """The pieces of texts, and of their pairs, as rows with special tokens.

        first, second: (tokens,) ids of all first and all second texts, which have these sizes, (texts,) int64.
        text: number of the first text, where rows are windows.
        """
        filler = [] if self.size else [self._special[0] if self._special else 0]
        source = np.concatenate(
            [self._without_special(first), self._without_special(second), self.prefix, self.middle, self.suffix, filler]
        ).astype(dtype)
        at = np.cumsum([0, len(first), len(second), len(self.prefix), len(self.middle), len(self.suffix)])
        begin_R = (np.cumsum(size_N) - size_N)[pieces.text]
        pair_begin_R = (np.cumsum(pair_size_N) - pair_size_N)[pieces.text] + at[1]
        end_R, pair_end_R = begin_R + size_N[pieces.text], pair_begin_R + pair_size_N[pieces.text]
        sizes = np.stack([piece for one in (pieces.first, pieces.second) for piece in (one.head, one.tail)])
        ones = np.ones(len(pieces.text), np.int64)
        empty_R = sizes.sum(axis=0) == 0
        # Eight ranges of `source` a row: prefix, head and tail of each text with the separator between, suffix, filler.
        starts_RK = np.stack(
            [
                ones * at[2], begin_R + pieces.first.start, end_R - pieces.first.tail, ones * at[3],
                pair_begin_R + pieces.second.start, pair_end_R - pieces.second.tail, ones * at[4], ones * at[5],
            ],
            axis=1,
        )  # fmt: skip
        sizes_RK = np.stack(
            [
                ones * len(self.prefix), sizes[0], sizes[1], ones * len(self.middle),
                sizes[2], sizes[3], ones * len(self.suffix), empty_R * len(filler),
            ],
            axis=1,
        )  # fmt: skip
        kept_R = sizes[0] + sizes[1]
        return Chunk(
            source[ranges(starts_RK.ravel(), sizes_RK.ravel())],
            sizes_RK.sum(axis=1),
            pieces.cut,
            None if self.second_from is None else kept_R + self.second_from,
            None if text is None else pieces.text + text,
        )

    def _without_special(self, ids: np.ndarray) -> np.ndarray:
        # SentencePiece vocabularies hold "<s>" and "[SEP]" as pieces, so that the literal is found there even
        # though added tokens are split.
        read = np.isin(ids, self._special)
        return np.where(read, self._unknown, ids) if read.any() else ids
