"""Texts that are the same but for case, blanks and punctuation, and texts that are nearly the same.

Near copies: the share of character 5-grams that two texts have in common (Jaccard), found by MinHash with banding
(Broder 1997; Leskovec et al., "Mining of Massive Datasets", chapter 3) and then counted exactly.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from textclf.data import mapped
from textclf.data.rows import Rows, number_strings
from textclf.data.words import ranges

SIMILAR = 0.8
"""Share of their 5-grams from which two texts are near copies."""

_GRAM = 5
_BANDS, _DEPTH = 16, 5
"""Numbers of a signature: 80. Two texts alike by 0.8 agree in a whole band with probability 0.998, by 0.5 with 0.4."""
_NEIGHBOURS = 4
"""Texts of a bucket that each is compared with, beside its first: a bucket of any size costs no more than its share."""
_CHUNK = 1 << 20
"""Characters that are looked at together, so that memory stays the same for any number of texts."""
_PAIRS = 20_000
"""Pairs that are counted together; their texts, twice as many at most, are numbered in 16 bits."""
_HASH_BITS = np.uint64(48)
_HASH = np.uint64((1 << 48) - 1)
_BLANK = r"[\pP\pZ\pC]+"


@dataclass(frozen=True)
class Copies:
    """Which rows have the same text, by a number for each row of each split.

    exact: equal texts have equal numbers. loose: so have texts that are equal but for case, blanks and punctuation.
    near: (pairs, 2) int64, the loose numbers of different texts that are near copies; None: not looked for.
    """

    exact: dict[str, np.ndarray]
    loose: dict[str, np.ndarray]
    near: np.ndarray | None


def find_copies(splits: Mapping[str, Rows], exact: Mapping[str, np.ndarray], *, near: bool) -> Copies:
    """Compare the texts, or pairs of texts, of all splits. No text is null. exact: the number of each row's text."""
    parts = list(splits.values())
    # Of the different texts only: data sets repeat themselves.
    numbers = np.concatenate([exact[split] for split in splits])
    _, first_U, text_N = np.unique(numbers, return_index=True, return_inverse=True)
    # They are read as they stand in the splits, but numbered as in the source: there the splits lie mixed, and texts
    # that are compared as neighbours are of all of them.
    standing_U = np.argsort(first_U)
    place_U = np.empty_like(standing_U)
    place_U[standing_U] = np.arange(len(first_U))
    texts = _normal(parts, first_U[standing_U])
    encoded = pa.array(number_strings(texts)[place_U]).dictionary_encode().indices.to_numpy().astype(np.int64)
    loose = np.split(encoded[text_N], np.cumsum([len(part) for part in parts])[:-1])
    found = None
    if near:
        _, unique_U = np.unique(encoded, return_index=True)
        found = near_copies(texts.take(pa.array(place_U[unique_U])))
    return Copies(dict(exact), dict(zip(splits, loose, strict=True)), found)


def near_copies(texts: pa.LargeStringArray | pa.ChunkedArray) -> np.ndarray:
    """Pairs of different texts that share `SIMILAR` of their 5-grams or more: (pairs, 2) int64 positions, sorted.

    Nearly all of them: MinHash misses one in hundreds, and more where many texts are alike.
    """
    signatures = np.concatenate([np.zeros((0, _BANDS * _DEPTH), np.uint32), *_signatures(texts)])
    pairs = _candidates(signatures)
    if not len(pairs):
        return pairs
    # Cheap and rough first: the share of equal numbers strays from the truth by 0.045 (one deviation).
    agree = np.concatenate(
        [(signatures[cut[:, 0]] == signatures[cut[:, 1]]).mean(axis=1) for cut in _cuts(pairs, _PAIRS)]
    )
    del signatures
    pairs = pairs[agree >= SIMILAR - 0.15]
    kept = [cut[_similarity(texts, cut) >= SIMILAR] for cut in _cuts(pairs, _PAIRS)]
    return np.concatenate([np.zeros((0, 2), np.int64), *kept])


def _normal(parts: Sequence[Rows], chosen: np.ndarray) -> pa.ChunkedArray:
    """The chosen rows' texts without case, punctuation and doubled blanks; as they are where nothing would be left.

    chosen: places in all parts, which rise.
    """
    names = list(parts[0].text_names)

    def normal(piece: pa.Table) -> pa.Table:
        columns = []
        for name in names:
            texts = piece.column(name)
            lower = pc.utf8_lower(pc.utf8_normalize(texts, form="NFKC"))
            bare = pc.utf8_trim_whitespace(pc.replace_substring_regex(lower, pattern=_BLANK, replacement=" "))
            columns.append(pc.if_else(pc.equal(pc.binary_length(bare), 0), texts, bare))
        # A character that no normal text holds stands between the two of a pair.
        between = pa.scalar("\n", pa.large_string())
        return pa.table({"text": columns[0] if len(columns) == 1 else pc.binary_join_element_wise(*columns, between)})

    whole = pa.concat_tables([part.table.select(names) for part in parts])
    # Piece by piece, as each step copies the texts.
    return mapped.gathered(normal(piece) for piece in mapped.taking(whole, chosen)).column("text")


def _signatures(texts: pa.ChunkedArray) -> Iterator[np.ndarray]:
    """MinHash of each text's 5-grams: (texts, bands * depth) uint32, in pieces."""
    rng = np.random.default_rng(1)
    factors = rng.integers(1 << 63, size=_BANDS * _DEPTH, dtype=np.uint64) * 2 + 1
    for start, stop in _pieces(texts):
        grams, first_U = _grams(texts.slice(start, stop - start))
        signature = np.empty((stop - start, len(factors)), dtype=np.uint32)
        for number, factor in enumerate(factors):  # multiply-shift: the upper half of a product is well mixed
            signature[:, number] = np.minimum.reduceat(((grams * factor) >> np.uint64(32)).astype(np.uint32), first_U)
        yield signature


def _pieces(texts: pa.ChunkedArray) -> Iterator[tuple[int, int]]:
    """Ranges of texts with about `_CHUNK` characters each."""
    ends = np.cumsum(pc.utf8_length(texts).to_numpy().astype(np.int64))
    start = 0
    while start < len(texts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _CHUNK, side="right")))
        yield start, stop
        start = stop


def _grams(texts: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of the 5-grams of all texts, one after another, uint64, and where each text's begin; a text has one
    or more."""
    lengths = np.maximum(pc.utf8_length(texts).to_numpy().astype(np.int64), 1)
    # An end for every text, so that a short one has a gram too and none reaches into the next.
    joined = "".join((text or "\0") + "\0" * (_GRAM - 1) for text in texts.to_pylist())
    points = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    count = np.maximum(lengths - _GRAM + 1, 1)
    begin = np.cumsum(lengths + _GRAM - 1) - (lengths + _GRAM - 1)
    hashes = np.zeros(len(points) - _GRAM + 1, dtype=np.uint64)
    for place in range(_GRAM):
        hashes = hashes * np.uint64(0x100000001B3) + points[place : place + len(hashes)]
    hashes ^= hashes >> np.uint64(30)
    hashes *= np.uint64(0xBF58476D1CE4E5B9)
    hashes ^= hashes >> np.uint64(27)
    hashes *= np.uint64(0x94D049BB133111EB)
    hashes ^= hashes >> np.uint64(31)
    return hashes[ranges(begin, count)], np.cumsum(count) - count


def _candidates(signatures: np.ndarray) -> np.ndarray:
    """Pairs of texts that agree in a whole band: (pairs, 2) int64, the lower position first, each once."""
    total, found = len(signatures), np.zeros(0, dtype=np.int64)
    for band in range(_BANDS):
        keys = np.zeros(total, dtype=np.uint64)
        for number in range(band * _DEPTH, (band + 1) * _DEPTH):
            keys = (keys ^ signatures[:, number]) * np.uint64(0x9E3779B97F4A7C15)
            keys ^= keys >> np.uint64(29)
        order = np.argsort(keys, kind="stable")  # so the first of a bucket is of train, where it has any
        keys = keys[order]
        begins = np.concatenate([[True], keys[1:] != keys[:-1]])[:total]
        first = order[np.maximum.accumulate(np.where(begins, np.arange(total), 0))]
        pairs = [(first[~begins], order[~begins])]
        for distance in range(1, min(_NEIGHBOURS + 1, total)):
            same = keys[distance:] == keys[:-distance]
            pairs.append((order[:-distance][same], order[distance:][same]))
        found = _distinct(np.concatenate([found, *(low * total + high for low, high in pairs)]))
    return np.stack(np.divmod(found, max(total, 1)), axis=1)


def _similarity(texts: pa.ChunkedArray, pairs: np.ndarray) -> np.ndarray:
    """Jaccard similarity of the sets of 5-grams of each pair: (pairs,) float64."""
    used, place = np.unique(pairs, return_inverse=True)
    grams, begin = _grams(texts.take(pa.array(used)))
    # Each text's grams once.
    owned = _distinct(_tagged(grams, np.repeat(np.arange(len(used)), np.diff(np.append(begin, len(grams))))))
    grams, count = owned & _HASH, np.bincount((owned >> _HASH_BITS).astype(np.int64), minlength=len(used))
    begin = np.cumsum(count) - count
    place = place.reshape(pairs.shape)
    sides = [ranges(begin[place[:, side]], count[place[:, side]]) for side in (0, 1)]
    pair = np.concatenate([np.repeat(np.arange(len(pairs)), count[place[:, side]]) for side in (0, 1)])
    both = _tagged(np.concatenate([grams[side] for side in sides]), pair)
    both.sort()
    twice = both[1:][both[1:] == both[:-1]]
    shared = np.bincount((twice >> _HASH_BITS).astype(np.int64), minlength=len(pairs))
    return shared / (count[place].sum(axis=1) - shared)  # type: ignore[no-any-return]


def _distinct(numbers: np.ndarray) -> np.ndarray:
    """The different numbers, sorted. np.unique, which hashes in numpy 2.4, takes fifty times as long for millions."""
    numbers = np.sort(numbers)
    return numbers[np.concatenate([[True], numbers[1:] != numbers[:-1]])[: len(numbers)]]  # type: ignore[no-any-return]


def _tagged(grams: np.ndarray, owner: np.ndarray) -> np.ndarray:
    """Whose gram it is, above the lower bits of its hash, in one number each: sorting one is several times faster than
    sorting by two. 48 bits are enough for the grams of one text."""
    return (owner.astype(np.uint64) << _HASH_BITS) | (grams & _HASH)  # type: ignore[no-any-return]


def _cuts(array: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(array), size):
        yield array[start : start + size]
