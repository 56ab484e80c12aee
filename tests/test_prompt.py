"""Prompts: put around every text alike in training, eval and prediction, and never read out of a text."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import pipeline

import textclf
import tiny_models
from textclf.data.encoding import cut, encode
from textclf.errors import ConfigError, ModelError, UsageError
from textclf.model.tokenizer import backend

TOKENIZERS = {"bert": backend(tiny_models.wordpiece()), "gpt2": backend(tiny_models.byte_bpe("gpt2"))}
PROMPT = "Text: {text}\nLabel:"
FAST: dict[str, Any] = {"epochs": 1, "batch_size": 16, "precision": "fp32"}


@pytest.mark.parametrize("name", TOKENIZERS)
@given(texts=st.lists(st.text(max_size=30) | st.sampled_from(["{text}", "{0}", "%s", "\\1", "[SEP]"]), min_size=1))
@settings(max_examples=40, deadline=None)
def test_a_prompt_is_what_one_would_write_around_the_text(name: str, texts: list[str]) -> None:
    tokenizer = TOKENIZERS[name]
    ours = encode(texts, tokenizer, prompt=PROMPT)
    by_hand = encode([f"Text: {text}\nLabel:" for text in texts], tokenizer)
    assert np.array_equal(ours.ids, by_hand.ids) and np.array_equal(ours.offsets, by_hand.offsets)
    column = pa.chunked_array([pa.array(texts[:1], pa.large_string()), pa.array(texts[1:], pa.large_string())])
    assert np.array_equal(encode(column, tokenizer, prompt=PROMPT).ids, ours.ids)


@pytest.mark.parametrize("many", [1, 400])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_long_text_loses_its_end_and_keeps_the_prompts(name: str, many: int) -> None:
    tokenizer = TOKENIZERS[name]
    texts = ["where is my card " * 40, "short"] * many
    whole, short = (encode(texts, tokenizer, max_length=size, prompt=PROMPT) for size in (None, 24))
    assert short.truncated.tolist() == [True, False] * many
    after = 5 if name == "bert" else 10
    end = whole.row(0)[-after:]
    assert short.lengths[0] == 24
    assert np.array_equal(short.row(0)[:12], whole.row(0)[:12])
    assert tokenizer.decode(short.row(0).tolist()).replace(" ", "").lower().endswith("label:")
    assert short.row(0)[-1] == end[-1] and np.array_equal(short.row(1), whole.row(1))
    # Cut later, or encoded so at once: the same.
    assert np.array_equal(cut(whole, tokenizer, 24, prompt=PROMPT).ids, short.ids)


def test_training_prediction_eval_and_export_all_prompt(
    tmp_path: Path, tiny_csv: Path, cli: Callable[..., Any]
) -> None:
    base = tiny_models.pretrained(tmp_path / "gpt2", "gpt2")
    run = textclf.finetune(base, tiny_csv, prompt=PROMPT, **FAST)
    facts = json.loads((run.model_folder / "textclf.json").read_text())
    assert facts["prompt"] == PROMPT
    texts = ["where is my card", "{text}", ""]
    classify = pipeline("text-classification", str(run.model_folder), top_k=None, device="cpu")
    given = classify([PROMPT.replace("{text}", text, 1) for text in texts], truncation=True)
    expected = [[{one["label"]: one["score"] for one in row}[label] for label in "abc"] for row in given]
    for runtime in ("onnx", "torch"):
        assert np.allclose(textclf.load(run, runtime=runtime).predict_proba(texts), expected, atol=1e-5)
    assert textclf.evaluate(run).metrics.accuracy == run.metrics["test"]["accuracy"]
    card = (run.model_folder / "README.md").read_text()
    assert 'prompt = "Text: {text}\\nLabel:"' in card and 'prompt.replace("{text}", text)' in card
    facts["prompt"] = "no place"
    (run.model_folder / "textclf.json").write_text(json.dumps(facts))
    with pytest.raises(ModelError, match=r"textclf\.json is not as it was written"):
        textclf.load(run)
    (run.model_folder / "MANIFEST.json").unlink()
    with pytest.raises(ModelError, match="prompt"):
        textclf.load(run)


def test_a_prompt_needs_one_place_for_the_text_and_room(
    tiny_base: Path, tiny_csv: Path, cli: Callable[..., Any]
) -> None:
    for prompt in ("Classify:", "{text} {text}", ""):
        with pytest.raises(ConfigError, match="where the text goes"):
            textclf.finetune(tiny_base, tiny_csv, prompt=prompt)
    with pytest.raises(UsageError, match="takes"):
        textclf.finetune(tiny_base, tiny_csv, prompt="word " * 20 + "{text}", max_length=16)
    done = cli("finetune", "--model", tiny_base, "--dataset", tiny_csv, "--prompt", "[red]no place")
    assert done.returncode == 2 and "[red]no place" in done.stderr and "{text}" in done.stderr


def test_a_prompt_goes_around_single_texts_that_are_truncated(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="overflow window"):
        textclf.finetune(tiny_base, "x.csv", prompt="Sort: {text}", overflow="window")
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("premise,hypothesis,label\n" + "".join(f"card {n},late {n},{n % 2}\n" for n in range(40)))
    with pytest.raises(UsageError, match="pairs"):
        textclf.finetune(tiny_base, pairs, prompt="Sort: {text}", epochs=1)
