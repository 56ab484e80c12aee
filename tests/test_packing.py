"""Packed batches: nothing lost, nobody sees a neighbour, and the same logits and gradients as one text at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

import textclf
import tiny_models
from textclf.data.batching import ROW_TOKENS, Packed, collate, pack, packed_batches
from textclf.data.encoding import Encoded
from textclf.labels import LabelSet
from textclf.model.classifier import Classifier
from textclf.model.features import features
from textclf.model.modeling_textclf import POOLINGS
from textclf.model.norms import norms_in_autocast
from textclf.model.packing import PackedForward
from textclf.model.scoring import LONGEST_PACKED, score
from textclf.model.tokenizer import load_tokenizer

CANNOT_PACK = {"deberta-v2", "mpnet"}
"""Architectures whose attention does not go through transformers' interface: they are padded."""

LENGTHS = st_numpy.arrays(np.int64, st.integers(1, 60), elements=st.integers(1, 300))


def encoded_of(lengths: np.ndarray, *, vocabulary: int = 90, seed: int = 0) -> Encoded:
    ids = np.random.default_rng(seed).integers(5, vocabulary, int(lengths.sum())).astype(np.int32)
    return Encoded(ids, np.concatenate([[0], np.cumsum(lengths)]), np.zeros(len(lengths), dtype=bool))


def classifier_of(architecture: str, folder: Path) -> Classifier:
    base = tiny_models.pretrained(folder / architecture, architecture)
    torch.manual_seed(0)
    return Classifier.from_pretrained(base, LabelSet(("a", "b", "c")), load_tokenizer(base))


@given(LENGTHS)
def test_every_text_lies_whole_in_one_row(lengths: np.ndarray) -> None:
    encoded = encoded_of(lengths)
    batch = pack(encoded, np.arange(len(lengths)), pad_id=0)
    assert sum(block.rows * block.width for block in batch.blocks) == len(batch.input_ids)
    row_of_token = np.concatenate(
        [block.start * 10_000 + np.arange(block.rows).repeat(block.width) for block in batch.blocks]
    )
    for text, (start, length) in enumerate(zip(batch.starts, batch.lengths, strict=True)):
        place = slice(start, start + length)
        assert np.array_equal(batch.input_ids[place], encoded.row(text))
        assert np.array_equal(batch.position_ids[place], np.arange(length))
        assert (batch.text[place] == text).all()
        assert len(set(row_of_token[place])) == 1
    assert (batch.text >= 0).sum() == lengths.sum()
    assert {block.width % ROW_TOKENS for block in batch.blocks} == {0}


@given(LENGTHS, st.integers(1, 2000), st.one_of(st.none(), st.integers(1, 20)))
def test_passes_hold_every_row_once_within_their_bounds(
    lengths: np.ndarray, max_tokens: int, max_rows: int | None
) -> None:
    passes = packed_batches(np.arange(len(lengths)), lengths, max_tokens=max_tokens, max_rows=max_rows)
    assert np.concatenate(passes).tolist() == list(range(len(lengths)))
    for rows in passes:
        assert len(rows) == 1 or lengths[rows].sum() <= max_tokens + ROW_TOKENS
        assert max_rows is None or len(rows) <= max_rows


def test_packing_wastes_little() -> None:
    lengths = np.random.default_rng(0).integers(8, 40, 320)
    for start in range(0, 320, 32):
        batch = pack(encoded_of(lengths), np.arange(start, start + 32), pad_id=0)
        assert (batch.text >= 0).mean() > 0.85


@pytest.mark.parametrize(
    ("architecture", "head"),
    [*((one, "own") for one in tiny_models.ARCHITECTURES), *(("bert", one) for one in POOLINGS), ("gpt2", "mean")],
)
def test_packed_padded_and_one_by_one_give_the_same_logits_and_gradients(
    architecture: str, head: str, tmp_path: Path
) -> None:
    classifier = classifier_of(architecture, tmp_path)
    if head != "own":
        classifier.use_head(head)
    classifier.eval()
    assert classifier.try_packing(max_length=300) == (architecture not in CANNOT_PACK)
    lengths = np.array([3, 140, 20, 7, 64, 1, 33, 200, 12])
    encoded, rows = encoded_of(lengths), np.arange(9)
    ways = {
        "padded": [collate(encoded, rows, pad_id=classifier.pad_id)],
        "one by one": [collate(encoded, rows[i : i + 1], pad_id=classifier.pad_id) for i in rows],
    }
    if architecture not in CANNOT_PACK:
        ways["packed"] = [pack(encoded, rows, pad_id=classifier.pad_id)]
        ways["packed in two"] = [pack(encoded, part, pad_id=classifier.pad_id) for part in (rows[:4], rows[4:])]
    logits, gradients = {}, {}
    for way, batches in ways.items():
        classifier.zero_grad()
        logits[way] = torch.cat([classifier(batch) for batch in batches])
        (logits[way] * torch.linspace(-1, 1, 27).view(9, 3)).sum().backward()
        gradients[way] = {n: p.grad.clone() for n, p in classifier.named_parameters() if p.grad is not None}
    for way in ways:
        assert torch.allclose(logits[way], logits["one by one"], atol=2e-5), way
        assert gradients[way].keys() == gradients["one by one"].keys()
        for name, gradient in gradients["one by one"].items():
            assert torch.allclose(gradients[way][name], gradient, atol=2e-4, rtol=1e-3), (way, name)


@pytest.mark.parametrize(
    ("architecture", "pooling"),
    [*((one, "mean") for one in tiny_models.ARCHITECTURES), *(("bert", one) for one in ("cls", "max", "last"))],
)
def test_scores_and_features_are_the_same_packed_and_padded(architecture: str, pooling: str, tmp_path: Path) -> None:
    classifier = classifier_of(architecture, tmp_path).eval()
    lengths = np.random.default_rng(0).integers(1, 90, 70)
    if classifier.positions > LONGEST_PACKED:
        lengths[[3, 50]] = LONGEST_PACKED + np.array([1, 40])
    encoded = encoded_of(lengths)
    padded_NC = score(classifier, encoded)
    assert classifier.try_packing(max_length=300) == (architecture not in CANNOT_PACK)
    told: list[int] = []
    assert np.allclose(score(classifier, encoded, on_progress=told.append), padded_NC, atol=2e-5)
    assert told == sorted(told) and told[-1] == 70
    found = {}
    for way in ("packed", "padded"):
        with pytest.MonkeyPatch.context() as patch:
            if way == "padded":
                patch.setattr(classifier, "try_packing", lambda max_length: False)
                classifier.only_pad()
            found[way] = features(classifier, encoded, pooling=pooling, autocast=nullcontext)
    for one, other in zip(found["packed"], found["padded"], strict=True):
        assert one is not None and other is not None and one.shape[0] == 70
        assert np.allclose(one, other, atol=1e-4 * np.abs(other).max())
    assert not classifier.packs, "left as it was"


def test_several_threads_may_score_at_a_time(tmp_path: Path) -> None:
    classifier = classifier_of("modernbert", tmp_path).eval()
    assert classifier.try_packing(max_length=300)
    # Long ones are padded, also while another thread packs.
    texts = [encoded_of(np.random.default_rng(seed).integers(1, 60, 40)) for seed in range(6)]
    texts += [encoded_of(np.array([LONGEST_PACKED + 1, 7])), encoded_of(np.array([3, LONGEST_PACKED + 88, 90]))]
    expected = [score(classifier, one) for one in texts]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: score(classifier, one), texts * 3))
    for one, other in zip(found, expected * 3, strict=True):
        assert np.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("runtime", ["torch", "bf16"])
def test_torch_packs_texts_on_a_cpu(runtime: str, tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = textclf.load(tiny_artifact, runtime=runtime, device="cpu")
    packed: list[int] = []
    forward = PackedForward.__call__

    def counted(self: PackedForward, batch: Packed) -> torch.Tensor:
        packed.append(len(batch))
        return forward(self, batch)

    monkeypatch.setattr(PackedForward, "__call__", counted)
    predictor.predict([f"where is my card number {number}" for number in range(20)])
    assert sum(packed) == 20


def test_a_model_that_answers_otherwise_when_packed_is_padded(tmp_path: Path) -> None:
    classifier = classifier_of("bert", tmp_path)
    assert classifier.try_packing(max_length=64)
    # Every state now depends on how many tokens lie in its row.
    classifier.network.bert.embeddings.register_forward_hook(lambda module, _, output: output * output.shape[1])
    assert not classifier.try_packing(max_length=64)


@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_a_compact_vocabulary_changes_neither_logits_nor_learning(architecture: str, tmp_path: Path) -> None:
    lengths = np.array([3, 20, 7, 1])
    texts = encoded_of(lengths)
    targets = torch.tensor([0, 1, 2, 0])
    learnt, logits = {}, {}
    for way in ("full", "compact"):
        classifier = classifier_of(architecture, tmp_path / way).eval()
        if way == "compact":
            assert classifier.compact_vocabulary([texts])
            assert len(classifier.network.get_input_embeddings().weight) < 95
        optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-3, weight_decay=0.0)
        for _ in range(3):
            scores = classifier(collate(texts, np.arange(4), pad_id=classifier.pad_id))
            torch.nn.functional.cross_entropy(scores, targets).backward()
            optimizer.step()
            optimizer.zero_grad()
        classifier.restore_vocabulary()
        logits[way] = scores
        learnt[way] = {name: tensor.clone() for name, tensor in classifier.network.state_dict().items()}
        assert classifier.network.config.pad_token_id == load_tokenizer(tmp_path / way / architecture).pad_token_id
    assert torch.allclose(logits["full"], logits["compact"], atol=1e-6)
    assert learnt["full"].keys() == learnt["compact"].keys()
    for name, tensor in learnt["full"].items():
        assert torch.allclose(tensor, learnt["compact"][name], atol=1e-6), name


def test_states_between_layers_are_bf16_under_autocast_and_untouched_without(tmp_path: Path) -> None:
    network = classifier_of("bert", tmp_path).network.eval()
    input_ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        before = network(input_ids=input_ids).logits
        norms_in_autocast(network)
        assert torch.equal(network(input_ids=input_ids).logits, before)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            states = network.base_model(input_ids=input_ids, output_hidden_states=True).hidden_states
    assert {state.dtype for state in states} == {torch.bfloat16}


def test_features_in_bf16_are_those_of_fp32_with_their_means_in_fp32(tmp_path: Path) -> None:
    classifier = classifier_of("bert", tmp_path)
    encoded = encoded_of(np.array([60, 3, 17]))
    _, exact_ND = features(classifier, encoded, pooling="mean", autocast=nullcontext)
    norms_in_autocast(classifier.network)

    def in_bf16() -> torch.autocast:
        return torch.autocast("cpu", dtype=torch.bfloat16)

    _, rounded_ND = features(classifier, encoded, pooling="mean", autocast=in_bf16)
    assert exact_ND is not None
    assert rounded_ND is not None
    assert rounded_ND.dtype == np.float32
    assert not np.array_equal(rounded_ND, exact_ND)
    assert np.abs(rounded_ND - exact_ND).max() < 0.05, "beside a root mean square of 1"
    states = torch.from_numpy(rounded_ND)
    assert (states.bfloat16().float() != states).any(), "means taken in bf16 would be its numbers"
