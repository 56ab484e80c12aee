"""Emoji and other symbols that a tokenizer does not know: tokens of their own, from their names."""

from __future__ import annotations

import csv
import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import textclf
import tiny_models
from plain_transformers import probabilities
from resuming import finetune_until, same_weights, stop_and_resume
from textclf.artifact import folder, runs
from textclf.data.encoding import encode, unknown_id
from textclf.errors import InterruptedRun, ModelError
from textclf.labels import LabelSet
from textclf.model import symbols
from textclf.model.classifier import Classifier
from textclf.model.symbols import PICTOGRAPHS, add_symbols, rows_with, symbols_in, unknown
from textclf.model.tokenizer import backend, load_tokenizer

pytestmark = pytest.mark.usefixtures("no_graph")

FAST: dict[str, Any] = {"epochs": 8, "batch_size": 8, "precision": "fp32", "learning_rate": 5e-3, "head": "mean"}
FACES = {"a": "\U0001f602", "b": "\u2764\ufe0f", "c": "\U0001f621"}
"""The label's own emoji: the words before it say nothing."""
JOY, UNSEEN = "\U0001f602", "\U0001f97a"
TYPES = (
    "bert", "distilbert", "electra", "roformer", "squeezebert", "funnel", "convbert", "deberta-v2", "albert", "rembert",
    "xlnet", "big_bird", "fnet", "roberta", "gpt2", "llama", "t5",
)  # fmt: skip
"""The last four spell what they do not know in bytes."""


def write(path: Path, texts: list[tuple[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *texts])
    return path


def faces(count: int = 150) -> list[tuple[str, str]]:
    """Texts of which only the emoji, which touches a word, tells the label."""
    words = ["where", "card", "money", "please", "order"]
    labels = list(FACES)
    return [(f"{words[number % 5]}{FACES[labels[number % 3]]} {number}", labels[number % 3]) for number in range(count)]


def test_what_only_emoji_tell_is_learnt(tiny_base: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "tweets.csv", faces())
    said: list[str] = []
    run = textclf.finetune(tiny_base, data, on_event=lambda event: said.append(str(event)), **FAST)
    without = textclf.finetune(tiny_base, data, add_symbols=False, **FAST)
    assert run.metrics["test"]["accuracy"] == 1.0
    assert without.metrics["test"]["accuracy"] < 0.8
    # 80 % of 150 rows, and one of the three symbols stands in each.
    assert any("120 of 120 training texts have symbols" in line and "Unicode name" in line for line in said)
    assert run.config["model"]["add_symbols"] is True


@pytest.mark.usefixtures("graph")
def test_every_runtime_and_plain_transformers_read_them(tiny_base: Path, tmp_path: Path) -> None:
    run = textclf.finetune(tiny_base, write(tmp_path / "tweets.csv", faces()), **{**FAST, "head": "own"})
    texts = [text for text, _ in faces(30)] + [f"so{UNSEEN}so", UNSEEN * 3, JOY, "no symbol", ""]
    by_torch = textclf.load(run, runtime="torch").predict_proba(texts)
    assert np.abs(textclf.load(run, runtime="onnx").predict_proba(texts) - by_torch).max() < 1e-4
    assert len({tuple(row) for row in by_torch.round(4)}) > 5
    plain = probabilities([run.model_folder], texts[:-1], hub_cache=tmp_path / "hub")
    assert np.abs(plain[0] - by_torch[:-1]).max() < 1e-4


def test_a_symbol_begins_as_the_mean_of_the_words_of_its_name(tmp_path: Path) -> None:
    base = tiny_models.pretrained(tmp_path / "base")
    tokenizer = load_tokenizer(base)
    network = Classifier.from_pretrained(base, LabelSet(("a", "b")), tokenizer).network
    before, rows = len(tokenizer), network.get_input_embeddings().weight.detach().clone()
    added = add_symbols(network, tokenizer, {JOY})
    table = network.get_input_embeddings().weight
    assert len(table) == len(tokenizer) == before + len(added) == network.config.vocab_size
    assert torch.equal(table[:before], rows), "what was learnt stays"
    words = tokenizer(unicodedata.name(JOY).lower(), add_special_tokens=False)["input_ids"]
    assert words == tokenizer("face with tears of joy", add_special_tokens=False)["input_ids"]
    assert torch.allclose(table[tokenizer.convert_tokens_to_ids(JOY)], rows[words].mean(dim=0), atol=1e-6)
    # With one emoji come all of them, whole words stay whole, and a second call has nothing to do.
    assert {UNSEEN, "\u2764", "\U0001f1fa", "\U0001f3fd"} <= set(added) and len(added) > 1500
    assert tokenizer.tokenize(f"card{JOY}{UNSEEN}when") == [*tokenizer.tokenize("card"), JOY, UNSEEN, "when"]
    assert add_symbols(network, tokenizer, {JOY, UNSEEN}) == [] and len(tokenizer) == len(table)


def test_rare_symbols_come_alone(tmp_path: Path) -> None:
    base = tiny_models.pretrained(tmp_path / "base")
    tokenizer = load_tokenizer(base)
    network = Classifier.from_pretrained(base, LabelSet(("a", "b")), tokenizer).network
    assert add_symbols(network, tokenizer, {"\u2260", "\u20bf"}) == ["\u20bf", "\u2260"]


def test_every_emoji_comes_with_the_first(minilm: Path) -> None:
    tokenizer = load_tokenizer(minilm)
    network = Classifier.from_pretrained(minilm, LabelSet(("a", "b")), tokenizer).network
    # U+1FA77 is of Unicode 15: Python 3.11 has no name for it.
    rare = ["\u2b50", "\U0001f7e2", "\u23f0", "\u203c", "\u25b6", "\U0001f0cf", "\U0001fa77"]
    added = add_symbols(network, tokenizer, {JOY})
    assert set(rare) <= set(added)
    assert network.get_input_embeddings().weight.isfinite().all()
    for symbol in rare:
        assert tokenizer.tokenize(f"great{symbol}day") == ["great", symbol, "day"]


def test_sequences_are_read_symbol_by_symbol(tmp_path: Path) -> None:
    base = tiny_models.pretrained(tmp_path / "base")
    tokenizer = load_tokenizer(base)
    backend(tokenizer).normalizer = normalizers.Lowercase()  # which takes no mark away, as BERT's for cased words
    network = Classifier.from_pretrained(base, LabelSet(("a", "b")), tokenizer).network
    add_symbols(network, tokenizer, {JOY})
    for text in ("my\u2764\ufe0fcard", "1\ufe0f\u20e3", "\U0001f468\u200d\U0001f469", "\U0001f44d\U0001f3fd"):
        assert "[UNK]" not in tokenizer.tokenize(text), text


def test_a_symbol_that_the_normalizer_takes_apart_is_read_as_it_stands(tmp_path: Path) -> None:
    base = tiny_models.pretrained(tmp_path / "base")
    tokenizer = load_tokenizer(base)
    network = Classifier.from_pretrained(base, LabelSet(("a", "b")), tokenizer).network
    assert add_symbols(network, tokenizer, {"\u2260"}) == ["\u2260"]  # "=" and a stroke, when decomposed
    assert tokenizer.tokenize("a\u2260b") == ["a", "\u2260", "b"]


def test_spare_rows_of_a_table_stay(tmp_path: Path) -> None:
    base = tiny_models.pretrained(tmp_path / "base")
    tokenizer = load_tokenizer(base)
    network = Classifier.from_pretrained(base, LabelSet(("a", "b")), tokenizer).network
    network.resize_token_embeddings(len(tokenizer) + 64, mean_resizing=False)
    add_symbols(network, tokenizer, {"\u20bf"})
    assert network.get_input_embeddings().num_embeddings == len(tokenizer) + 63


def test_a_vocabulary_with_a_hole_is_left_alone(tmp_path: Path) -> None:
    base = tiny_models.pretrained(tmp_path / "base")
    document = json.loads((base / "tokenizer.json").read_text())
    vocabulary = document["model"]["vocab"]
    del vocabulary[list(vocabulary)[100]]
    (base / "tokenizer.json").write_text(json.dumps(document))
    tokenizer = load_tokenizer(base)
    network = Classifier.from_pretrained(base, LabelSet(("a", "b")), tokenizer).network
    before = network.get_input_embeddings().weight.detach().clone()
    assert add_symbols(network, tokenizer, {JOY}) == []
    assert torch.equal(network.get_input_embeddings().weight, before)


def test_symbols_of_the_prompt_count(tiny_base: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "plain.csv", tiny_models.rows(60))
    said: list[str] = []
    settings = {"epochs": 1, "precision": "fp32", "prompt": JOY + "{text}"}
    run = textclf.finetune(tiny_base, data, on_event=lambda event: said.append(str(event)), **settings)
    assert JOY in AutoTokenizer.from_pretrained(run.model_folder).get_vocab()
    assert any("0 of 48 training texts have symbols" in line for line in said)


def test_a_run_does_not_go_on_with_other_tokens(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = write(tmp_path / "tweets.csv", faces()), tmp_path / "stopped"
    with pytest.raises(InterruptedRun):
        finetune_until(tiny_base, data, out, step=9, **FAST)
    monkeypatch.setattr(symbols, "PICTOGRAPHS", PICTOGRAPHS - {UNSEEN})
    with pytest.raises(ModelError, match="other tokens for symbols"):
        textclf.finetune(tiny_base, data, out=out, **FAST)


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_takes_them_or_knows_them(kind: str, tmp_path: Path) -> None:
    base = tiny_models.pretrained(tmp_path / kind, kind)
    tokenizer = load_tokenizer(base)
    torch.manual_seed(0)
    classifier = Classifier.from_pretrained(base, LabelSet(("a", "b", "c")), tokenizer)
    size = len(tokenizer)
    added = add_symbols(classifier.network, tokenizer, {JOY})
    text = f"where is{JOY}my card"
    ids = encode([text], backend(tokenizer)).row(0).astype(np.int64)
    assert unknown_id(backend(tokenizer)) not in ids
    assert (
        bool(added)
        == (TYPES.index(kind) < 13)
        == (len(tokenizer) > size)
        == (backend(tokenizer).token_to_id(JOY) in ids)
    )
    classifier.save(tmp_path / "saved")
    tokenizer.save_pretrained(tmp_path / "saved")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved", dtype=torch.float32).eval()
    again = AutoTokenizer.from_pretrained(tmp_path / "saved")(text, return_tensors="pt")["input_ids"]
    assert again[0].tolist() == ids.tolist()
    with torch.inference_mode():
        ours, theirs = (one(input_ids=again).logits for one in (classifier.network.eval(), plain))
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("text", ["where is my card", "caf\u00e9 \u4f60\u597d \U0001f642"])
def test_without_unknown_symbols_nothing_changes(text: str, tiny_base: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "plain.csv", [(f"{text} {row}", label) for row, label in tiny_models.rows(60)])
    said: list[str] = []
    run = textclf.finetune(tiny_base, data, on_event=lambda event: said.append(str(event)), **FAST)
    assert len(AutoTokenizer.from_pretrained(run.model_folder)) == len(AutoTokenizer.from_pretrained(tiny_base))
    assert not any("symbols" in line for line in said)


def test_second_texts_are_looked_at(tiny_base: Path, tmp_path: Path) -> None:
    path = tmp_path / "pairs.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = [("my", text, label) for text, label in faces()]
        csv.writer(file).writerows([("text", "text2", "label"), *rows])
    said: list[str] = []
    run = textclf.finetune(
        tiny_base, path, text_column="text", text_pair_column="text2", on_event=lambda e: said.append(str(e)), **FAST
    )
    assert any("120 of 120 training texts have symbols" in line for line in said)
    assert run.metrics["test"]["accuracy"] == 1.0


def test_a_run_that_is_stopped_ends_in_the_same_bits(tiny_base: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "tweets.csv", faces())
    straight = textclf.finetune(tiny_base, data, out=tmp_path / "straight", **FAST)
    _, resumed = stop_and_resume(tiny_base, data, tmp_path / "stopped", stop_at=9, **FAST)
    assert same_weights(straight, resumed)


def test_a_run_begun_by_a_version_without_them_ends_without_them(tiny_base: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "tweets.csv", faces())
    straight = textclf.finetune(tiny_base, data, out=tmp_path / "straight", add_symbols=False, **FAST)
    out = tmp_path / "stopped"
    with pytest.raises(InterruptedRun):
        finetune_until(tiny_base, data, out, step=9, add_symbols=False, **FAST)
    for name, at in ((runs.CONFIG, ("model",)), ("run.json", ("request", "model"))):
        document = json.loads((out / name).read_text())
        section = document
        for key in at:
            section = section[key]
        del section["add_symbols"]
        document.pop("symbols", None)
        (out / name).write_text(json.dumps(document))
    resumed = textclf.finetune(tiny_base, data, out=out, **FAST)
    assert same_weights(straight, resumed)


def test_adapters_keep_the_vocabulary_that_they_belong_to(tiny_base: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    run = textclf.finetune(tiny_base, write(tmp_path / "tweets.csv", faces()), lora=4, **FAST)
    assert len(AutoTokenizer.from_pretrained(run.model_folder)) == len(AutoTokenizer.from_pretrained(tiny_base))


def test_a_finished_classifier_that_learns_on_keeps_its_tokens(tiny_base: Path, tmp_path: Path) -> None:
    data = write(tmp_path / "tweets.csv", faces())
    first = textclf.finetune(tiny_base, data, out=tmp_path / "first", **FAST)
    again = textclf.finetune(first.model_folder, data, out=tmp_path / "again", **FAST)
    assert folder.read(again.model_folder).tokenizer().to_str() == folder.read(first.model_folder).tokenizer().to_str()
    assert again.metrics["test"]["accuracy"] == 1.0


_TEXTS = st.text(st.characters(categories=("L", "N", "S", "P", "M", "Z")), max_size=8)


@given(st.lists(st.tuples(_TEXTS, _TEXTS), max_size=12))
def test_symbols_are_found_wherever_they_stand(texts: list[tuple[str, str]]) -> None:
    columns = [pa.chunked_array([pa.array([row[side] for row in texts], pa.large_string())]) for side in (0, 1)]
    found = symbols_in(columns)
    every = [one + other for one, other in texts]
    assert found == {
        c
        for text in every
        for c in text
        if not c.isascii() and (unicodedata.category(c)[0] in "SP" or c in PICTOGRAPHS)
    }
    if found:
        assert rows_with(found, columns) == sum(any(char in found for char in text) for text in every)


def test_the_real_tokenizer_knows_none_of_the_faces(minilm: Path) -> None:
    tokenizer = load_tokenizer(minilm)
    assert tokenizer.pad_token == "[PAD]", "the file pads every text, which ends none of them"
    missing = unknown(sorted(PICTOGRAPHS), tokenizer)
    assert JOY in missing and UNSEEN in missing and "\ufe0f" not in missing, "which BERT's normalizer takes away"
