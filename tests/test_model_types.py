"""Every kind of model that transformers has: it learns, it is saved whole, and no text depends on its batch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import processors
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedTokenizerFast, ViTConfig

import tiny_models
from textclf.artifact.folder import read
from textclf.config import TrainConfig
from textclf.data.batching import collate
from textclf.data.encoding import encode
from textclf.errors import ModelError
from textclf.inference.torch_runtime import TorchRuntime
from textclf.labels import LabelSet
from textclf.model.classifier import Classifier
from textclf.model.scoring import score
from textclf.model.tokenizer import backend, load_tokenizer
from textclf.training.optim import make_optimizer, set_rate

TYPES = sorted(tiny_models.ARCHITECTURES | tiny_models.MORE)
ALONE = {"fnet", "convbert", "xlnet"}
LAST = {"granite", "mamba", "lfm2", "falcon_h1", "cohere"}
"""Types without a head of their own."""
TEXTS = [text for text, _ in tiny_models.rows(5)] + ["a", "where is my money " * 12]


@pytest.mark.parametrize("kind", TYPES)
def test_a_type_learns_and_is_saved_whole(kind: str, tmp_path: Path) -> None:
    base = tiny_models.pretrained(tmp_path / kind, kind)
    tokenizer = load_tokenizer(base)
    torch.manual_seed(0)
    classifier = Classifier.from_pretrained(base, LabelSet(("a", "b", "c")), tokenizer)
    assert classifier.reading.alone is (kind in ALONE)
    assert classifier.positions > 0
    assert classifier.head == ("last" if kind in LAST else "own")
    assert all(parameter.dtype == torch.float32 for parameter in classifier.parameters())
    encoded = encode(TEXTS, backend(tokenizer), max_length=64)
    batch = collate(encoded, np.arange(len(TEXTS)), pad_id=classifier.pad_id)
    optimizer = make_optimizer(classifier, TrainConfig(learning_rate=1e-3, head_learning_rate=1e-2))
    set_rate(optimizer, 1.0)
    before = score(classifier, encoded)
    classifier.train()
    for _ in range(2):
        torch.nn.functional.cross_entropy(classifier(batch), torch.tensor([0, 1, 2, 0, 1, 2, 0])).backward()
        optimizer.step()
        optimizer.zero_grad()
    classifier.eval()
    logits = score(classifier, encoded)
    assert np.isfinite(logits).all() and np.abs(logits - before).max() > 1e-3
    for row in range(len(TEXTS)):
        alone = score(classifier, encoded.take(np.array([row])))
        assert np.abs(alone - logits[row]).max() < 1e-5
    classifier.save(tmp_path / "saved")
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved", dtype=torch.float32).eval()
    for row in range(len(TEXTS)):
        ids = torch.from_numpy(encoded.row(row).astype(np.int64))[None]
        with torch.inference_mode():
            expected = plain(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.numpy()
        assert np.abs(expected - logits[row]).max() < 1e-5


def test_a_decoder_reads_the_last_token_by_the_mask_whatever_its_id(tmp_path: Path) -> None:
    base = tiny_models.pretrained(tmp_path / "gpt2", "gpt2")
    classifier = Classifier.from_pretrained(base, LabelSet(("a", "b", "c")), load_tokenizer(base)).eval()
    assert classifier.reading.reads_last
    pad = classifier.pad_id
    ids, mask = torch.tensor([[30, 31, pad, pad], [30, 31, 32, 33]]), torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    seen: list[torch.Size] = []
    classifier.output_layer.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    with torch.inference_mode():
        ours = classifier.logits(ids, mask)
        assert seen == [torch.Size([2, 1, 3])], "logits of more tokens than the last are computed"
        classifier.network.config.pad_token_id = 399
        plain = classifier.network(input_ids=ids[:1, :3], attention_mask=mask[:1, :3]).logits
    assert torch.allclose(ours[:1], plain, atol=1e-6)


def test_bf16_checkpoints_are_learnt_in_fp32(tmp_path: Path) -> None:
    base = tiny_models.pretrained(tmp_path / "llama", "llama")
    AutoModel.from_pretrained(base, dtype=torch.bfloat16).save_pretrained(base)
    assert json.loads((base / "config.json").read_text())["dtype"] == "bfloat16"
    classifier = Classifier.from_pretrained(base, LabelSet(("a", "b")), load_tokenizer(base))
    classifier.use_head("attention")
    assert {parameter.dtype for parameter in classifier.parameters()} == {torch.float32}
    classifier.save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved/config.json").read_text())["dtype"] == "float32"


def end_with(tokenizer: PreTrainedTokenizerFast, *names: str) -> PreTrainedTokenizerFast:
    """The tokenizer with these special tokens after every text."""
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join(["$A", *names]),
        special_tokens=[(name, tokenizer.convert_tokens_to_ids(name)) for name in names],
    )
    return tokenizer


def test_the_pad_token_is_none_that_texts_end_in(tmp_path: Path) -> None:
    plain = tiny_models.byte_bpe("llama")
    assert plain.pad_token is None
    plain.save_pretrained(tmp_path / "plain")
    loaded = load_tokenizer(tmp_path / "plain")
    assert (loaded.pad_token, loaded.padding_side) == ("<pad>", "right")
    end_with(tiny_models.byte_bpe("gpt2"), "<|endoftext|>").save_pretrained(tmp_path / "one")
    assert load_tokenizer(tmp_path / "one").pad_token == "<|endoftext|>", "there is no other"
    bare = tiny_models.byte_bpe("gpt2")
    bare.eos_token = bare.bos_token = None
    bare.save_pretrained(tmp_path / "bare")
    with pytest.raises(ModelError, match="neither a pad token"):
        load_tokenizer(tmp_path / "bare")
    embedding = end_with(tiny_models.byte_bpe("llama"), "</s>")
    embedding.pad_token = "</s>"
    embedding.save_pretrained(tmp_path / "embedding")
    assert load_tokenizer(tmp_path / "embedding").pad_token == "<pad>"


def test_models_that_cannot_classify_texts_are_refused_with_the_reason(tmp_path: Path) -> None:
    labels = LabelSet(("a", "b"))
    base = tiny_models.pretrained(tmp_path / "t5", "t5")
    endless = tiny_models.byte_bpe("llama")
    endless.pad_token = "<pad>"
    endless.save_pretrained(tmp_path / "endless")
    with pytest.raises(ModelError, match="end token"):
        Classifier.from_pretrained(base, labels, load_tokenizer(tmp_path / "endless"))
    encoder_decoder = Classifier.from_pretrained(base, labels, load_tokenizer(base))
    with pytest.raises(ModelError, match="no pooled head fits"):
        encoder_decoder.use_head("mean")
    bert = tiny_models.pretrained(tmp_path / "bert", "bert")
    with pytest.raises(ModelError, match=r"tokenizer has \d+ tokens, the model only"):
        Classifier.from_pretrained(bert, labels, load_tokenizer(tmp_path / "endless"))
    picture = tmp_path / "vit"
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8
    )
    AutoModel.from_config(config).save_pretrained(picture)
    with pytest.raises(ModelError, match=r"vit model|tokens"):
        Classifier.from_pretrained(picture, labels, load_tokenizer(bert))


@pytest.mark.parametrize("architecture", ["llama", "modernbert"])
def test_bf16_weights_leave_rotary_positions_exact(architecture: str, tmp_path: Path) -> None:
    artifact = read(tiny_models.artifact(tmp_path / architecture, architecture=architecture))
    exact, rough = (TorchRuntime(artifact, device="cpu", precision=name)._classifier for name in ("fp32", "bf16"))
    assert {one.dtype for one in rough.parameters()} == {torch.bfloat16}
    far = torch.tensor([[499]])
    kinds = [("full_attention",), ("sliding_attention",)] if architecture == "modernbert" else [()]
    for kind in kinds:
        turned = [torch.cat(one.network.base_model.rotary_emb(torch.zeros(1), far, *kind)) for one in (exact, rough)]
        assert torch.allclose(*turned, atol=1e-6), "bf16 frequencies put far tokens elsewhere"
