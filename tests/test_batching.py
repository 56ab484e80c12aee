"""Batches: every row once, like lengths together, a pure function of seed and epoch."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from textclf.data.batching import collate, epoch_steps, micro_batches, real_tokens, scoring_batches
from textclf.data.encoding import Encoded

LENGTHS = st.lists(st.integers(1, 300), min_size=1, max_size=400).map(lambda values: np.array(values))


def _encoded(lengths: np.ndarray) -> Encoded:
    ids = np.arange(int(lengths.sum()), dtype=np.int32) + 1
    return Encoded(ids, np.concatenate([[0], np.cumsum(lengths)]), np.zeros(len(lengths), dtype=bool))


@given(LENGTHS, st.integers(1, 40), st.integers(0, 5), st.integers(0, 5))
def test_an_epoch_holds_every_row_once_in_steps_of_the_batch_size(
    lengths: np.ndarray, batch_size: int, seed: int, epoch: int
) -> None:
    steps = epoch_steps(lengths, batch_size=batch_size, seed=seed, epoch=epoch)
    assert sorted(np.concatenate(steps)) == list(range(len(lengths)))
    assert len(steps) == -(-len(lengths) // batch_size)
    assert sum(len(step) != batch_size for step in steps) <= 1


@given(LENGTHS, st.integers(0, 5))
def test_the_order_follows_from_seed_and_epoch_alone(lengths: np.ndarray, seed: int) -> None:
    first = epoch_steps(lengths, batch_size=8, seed=seed, epoch=1)
    np.random.seed(3)
    again = epoch_steps(lengths, batch_size=8, seed=seed, epoch=1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))


def test_epochs_differ() -> None:
    lengths = np.ones(200, dtype=np.int64)
    one, two = (np.concatenate(epoch_steps(lengths, batch_size=8, seed=0, epoch=epoch)) for epoch in (0, 1))
    assert not np.array_equal(one, two)


@given(LENGTHS, st.integers(1, 2000), st.none() | st.integers(1, 9), st.none() | st.integers(0, 200))
def test_micro_batches_keep_their_bounds(
    lengths: np.ndarray, max_tokens: int, max_rows: int | None, max_padding: int | None
) -> None:
    rows = np.arange(len(lengths))
    cuts = micro_batches(rows, lengths, max_tokens=max_tokens, max_rows=max_rows, max_padding=max_padding)
    assert sorted(np.concatenate(cuts)) == list(rows)
    for cut in cuts:
        padded = lengths[cut].max() * len(cut)
        assert len(cut) == 1 or padded <= max_tokens
        assert max_rows is None or len(cut) <= max_rows
        assert max_padding is None or padded - lengths[cut].sum() <= max_padding


@given(LENGTHS)
def test_scoring_starts_with_the_longest(lengths: np.ndarray) -> None:
    cuts = scoring_batches(np.arange(len(lengths)), lengths, max_tokens=512)
    assert lengths[cuts[0]].max() == lengths.max()
    assert sorted(np.concatenate(cuts)) == list(range(len(lengths)))


@given(LENGTHS)
def test_collate_pads_on_the_right_and_masks(lengths: np.ndarray) -> None:
    encoded = _encoded(lengths)
    rows = np.arange(len(lengths))[::-1]
    batch = collate(encoded, rows, pad_id=0)
    assert batch.input_ids.shape == batch.attention_mask.shape == (len(rows), lengths.max())
    for position, row in enumerate(rows):
        real = batch.attention_mask[position].astype(bool)
        assert real.sum() == lengths[row] and real[: lengths[row]].all()
        assert np.array_equal(batch.input_ids[position][real], encoded.row(row))
        assert not batch.input_ids[position][~real].any()


def test_buckets_waste_far_less_than_random_order() -> None:
    lengths = np.random.default_rng(0).integers(4, 128, size=5000)
    steps = epoch_steps(lengths, batch_size=32, seed=0, epoch=0)
    cut = [rows for step in steps for rows in micro_batches(step, lengths, max_tokens=16384, max_padding=64)]
    encoded = _encoded(lengths)

    def waste(passes: list[np.ndarray]) -> float:
        batches = [collate(encoded, rows, pad_id=0) for rows in passes]
        return 1 - sum(map(real_tokens, batches)) / sum(batch.input_ids.size for batch in batches)

    assert waste(cut) < 0.05
    assert waste(steps) < 0.2
    assert waste(np.array_split(np.arange(5000), 157)) > 0.4
