"""How textclf-mini is made: what it may learn from, and that what is cut out of a model leaves the rest as it was."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModel

import textclf

ROOT = Path(__file__).parents[1]


def _script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    place = ROOT / "docs" / "textclf-mini"
    monkeypatch.syspath_prepend(str(place))
    spec = importlib.util.spec_from_file_location(f"mini_{name}", place / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "name",
    [
        "banking77/test.csv", "banking77/test.parquet", "nlupp/hotels/validation.parquet", "mmlu/dev.parquet",
        "mmlu/raw_csv/test/x.csv", "tweet_eval_hate/train.parquet", "tweet_eval_irony/train.parquet", "../secret.csv",
    ],
)  # fmt: skip
def test_only_training_parts_that_may_be_passed_on_are_learnt_from(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    corpus = _script("corpus", monkeypatch)
    # Nothing is read before all is checked: there are no files here.
    with pytest.raises(corpus.ForbiddenPart, match="not to be learnt from"):
        corpus.read(tmp_path, parts=[*corpus.PARTS[:1], name], seed=0)


def test_rows_that_models_are_judged_on_are_left_out(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = _script("corpus", monkeypatch)
    monkeypatch.setattr(corpus, "JUDGED", (("banking77", {}),))
    learnt = corpus.read(shared_data, parts=["banking77/train.csv"], seed=0)
    prepared = textclf.prepare(shared_data / "banking77")
    plain = {split: {corpus._plain(text) for text in prepared.rows(split).texts} for split in prepared.splits}
    texts = {corpus._plain(text) for text in learnt.texts["bank"]}
    assert texts == plain["train"] - plain["validation"] - plain["test"]


def test_a_model_with_fewer_pieces_gives_the_same_states(tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shrinking = _script("shrinking", monkeypatch)
    model = AutoModel.from_pretrained(tiny_base, dtype=torch.float32).eval()
    tokenizer = Tokenizer.from_file(str(tiny_base / "tokenizer.json"))
    ids, text = tokenizer.get_vocab(), "where is my parcel"
    encoding = tokenizer.encode(text)
    pieces = sorted({*shrinking.SPECIAL, *encoding.tokens}, key=ids.__getitem__)
    small = shrinking.smaller_tokenizer(tiny_base / "tokenizer.json", pieces)
    assert small.encode(text).tokens == encoding.tokens and small.get_vocab_size() == len(pieces) < len(ids)
    layers, width = range(model.config.num_hidden_layers), model.config.intermediate_size
    smaller = shrinking.smaller_model(
        model, pieces=[ids[piece] for piece in pieces], layers=layers, importance=None, width=width
    )
    with torch.inference_mode():
        wanted = model(torch.tensor([encoding.ids])).last_hidden_state
        found = smaller.eval()(torch.tensor([small.encode(text).ids])).last_hidden_state
    assert torch.equal(wanted, found)
