"""Tiny real models: every architecture from its own config, with a real tokenizer made here."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from textclf.artifact import folder as artifact_folder
from textclf.artifact.folder import Facts
from textclf.model import backbone  # makes textclf's own types known to transformers

CORPUS = (
    "where is my card and when will it arrive",
    "i want to cancel my order and get my money back",
    "the payment was declined twice today",
    "please reset my password, I cannot log in",
    "Quantum fields and galaxies: a study of 1,024 spectra (2019).",
    "naïve café Übergröße 你好 привет 🙂",
)
WORDS = {"a": "card arrive parcel letter", "b": "money refund charge fee", "c": "password login code account"}
"""Words that give a text its label in `rows`."""


def rows(count: int, labels: Sequence[str] = ("a", "b", "c"), *, seed: int = 0) -> list[tuple[str, str]]:
    """Texts that a tiny model can learn: the label's own words among common ones, of many lengths."""
    generator = torch.Generator().manual_seed(seed)
    common = ["the", "of", "is", "my", "please", "when", "why", "with", "and", "to"]

    def pick(words: list[str], number: int) -> list[str]:
        return [words[int(i)] for i in torch.randint(len(words), (number,), generator=generator)]

    made = []
    for number in range(count):
        label = labels[number % len(labels)]
        length = int(torch.randint(2, 12, (1,), generator=generator))
        made.append((" ".join([*pick(common, length), *pick(WORDS[label].split(), 2), str(number)]), label))
    return made


def wordpiece() -> PreTrainedTokenizerFast:
    """A BERT-type tokenizer: lower case, [CLS] text [SEP]."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.WordPiece())
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    words = _words(tokenizer)
    letters = sorted(set("".join(words)))
    pieces = [*special, *letters, *("##" + letter for letter in letters), *(word for word in words if word[1:])]
    tokenizer.model = models.WordPiece({piece: place for place, piece in enumerate(pieces[:300])}, unk_token="[UNK]")
    tokenizer.add_special_tokens(special)
    _wrap_template(tokenizer, "[CLS]", "[SEP]")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", model_max_length=512,
    )  # fmt: skip


def byte_bpe(style: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: `roberta` with <s> text </s>, `gpt2` with neither, `llama` with <s> text."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if style != "gpt2" else ["<|endoftext|>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(_corpus(), trainer)
    if style == "roberta":
        _wrap_template(tokenizer, "<s>", "</s>")
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", cls_token="<s>", sep_token="</s>",
            pad_token="<pad>", unk_token="<unk>", mask_token="<mask>", model_max_length=512,
        )  # fmt: skip
    if style == "llama":
        _wrap_template(tokenizer, "<s>", None)
        return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>")


def unigram() -> PreTrainedTokenizerFast:
    """A SentencePiece-type tokenizer: [CLS] text [SEP]."""
    special = ["[PAD]", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    words = _words(tokenizer)
    scores = dict.fromkeys(special, 0.0) | dict.fromkeys(sorted(set("".join(words))), math.log(1e-4))
    scores |= {word: math.log(times / words.total()) for word, times in words.most_common(120) if word[1:]}
    tokenizer.model = models.Unigram(list(scores.items()), unk_id=special.index("<unk>"))
    tokenizer.add_special_tokens(special)
    _wrap_template(tokenizer, "[CLS]", "[SEP]")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="<unk>", cls_token="[CLS]", sep_token="[SEP]",
        mask_token="[MASK]", bos_token="[CLS]", eos_token="[SEP]", model_max_length=512,
    )  # fmt: skip


def _words(tokenizer: Tokenizer) -> Counter[str]:
    """The corpus' words as the tokenizer tells them apart, the most frequent first.

    tokenizers' trainers of WordPiece and Unigram would not do: with the order of their hash maps every process gets
    another vocabulary, and a tiny model learns otherwise.
    """
    found: Counter[str] = Counter()
    for line in _corpus():
        normal = tokenizer.normalizer.normalize_str(line) if tokenizer.normalizer else line
        found.update(word for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal))
    return Counter(dict(sorted(found.items(), key=lambda word: (-word[1], word[0]))))


_SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
_DECODER = {**_SMALL, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512}

ARCHITECTURES: dict[str, tuple[str, dict[str, Any], Callable[[], PreTrainedTokenizerFast]]] = {
    "bert": ("BertConfig", {**_SMALL, "max_position_embeddings": 512, "initializer_range": 0.1}, wordpiece),
    "distilbert": ("DistilBertConfig", {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64}, wordpiece),
    "roberta": ("RobertaConfig", {**_SMALL, "max_position_embeddings": 514}, lambda: byte_bpe("roberta")),
    "electra": ("ElectraConfig", {**_SMALL, "embedding_size": 16}, wordpiece),
    "deberta-v2": ("DebertaV2Config", {**_SMALL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}, unigram),
    "mpnet": ("MPNetConfig", {**_SMALL, "max_position_embeddings": 514}, lambda: byte_bpe("roberta")),
    "albert": ("AlbertConfig", {**_SMALL, "embedding_size": 16}, unigram),
    "xlm-roberta": ("XLMRobertaConfig", {**_SMALL, "max_position_embeddings": 514}, lambda: byte_bpe("roberta")),
    "modernbert": ("ModernBertConfig", {**_SMALL, "max_position_embeddings": 512}, lambda: byte_bpe("roberta")),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}, lambda: byte_bpe("gpt2")),
    "qwen3": ("Qwen3Config", _DECODER, lambda: byte_bpe("gpt2")),
    "llama": ("LlamaConfig", _DECODER, lambda: byte_bpe("llama")),
    "openelm": (
        "OpenELMConfig",
        {
            "num_transformer_layers": 3,
            "model_dim": 32,
            "head_dim": 8,
            "num_gqa_groups": 2,
            "ffn_dim_divisor": 16,
            "max_context_length": 512,
        },
        lambda: byte_bpe("llama"),
    ),
    "gemma3": ("Gemma3TextConfig", {**_DECODER, "sliding_window": 64}, lambda: byte_bpe("llama")),
}
"""Name -> config class, its settings, its tokenizer."""

_BERT = {**_SMALL, "max_position_embeddings": 512}
_KV = {**_SMALL, "num_key_value_heads": 2, "max_position_embeddings": 512}


def _gpt2_like() -> PreTrainedTokenizerFast:
    return byte_bpe("gpt2")


def _llama_like() -> PreTrainedTokenizerFast:
    return byte_bpe("llama")


def _roberta_like() -> PreTrainedTokenizerFast:
    return byte_bpe("roberta")


_T5 = {
    "d_model": 32, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_decoder_layers": 2, "num_heads": 4,
    "decoder_start_token_id": 0,
}  # fmt: skip
_BART = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64, "decoder_ffn_dim": 64, "max_position_embeddings": 512, "decoder_start_token_id": 0,
}  # fmt: skip
_HYBRID = {
    **_DECODER, "mamba_d_ssm": 64, "mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 16, "mamba_chunk_size": 32,
}  # fmt: skip

MORE: dict[str, tuple[str, dict[str, Any], Callable[[], PreTrainedTokenizerFast]]] = {
    "camembert": ("CamembertConfig", {**_SMALL, "max_position_embeddings": 514}, _roberta_like),
    "deberta": ("DebertaConfig", {**_BERT, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}, unigram),
    "ernie": ("ErnieConfig", _BERT, wordpiece),
    "eurobert": ("EuroBertConfig", _DECODER, _llama_like),
    "megatron-bert": ("MegatronBertConfig", _BERT, wordpiece),
    "nomic_bert": ("NomicBertConfig", _BERT, wordpiece),
    "rembert": ("RemBertConfig", {**_BERT, "input_embedding_size": 16}, unigram),
    "roformer": ("RoFormerConfig", {**_BERT, "embedding_size": 32}, wordpiece),
    "squeezebert": (
        "SqueezeBertConfig",
        {**_BERT, "embedding_size": 32}
        | dict.fromkeys(("q_groups", "k_groups", "v_groups", "post_attention_groups"), 1)
        | dict.fromkeys(("intermediate_groups", "output_groups"), 1),
        wordpiece,
    ),
    "big_bird": ("BigBirdConfig", _BERT, unigram),
    "longformer": (
        "LongformerConfig",
        {**_SMALL, "max_position_embeddings": 514, "attention_window": 16},
        _roberta_like,
    ),
    "xlnet": ("XLNetConfig", {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64}, unigram),
    "funnel": (
        "FunnelConfig",
        {"d_model": 32, "n_head": 4, "d_head": 8, "d_inner": 64, "block_sizes": [1, 1], "num_decoder_layers": 1}
        | {"architectures": ["FunnelBaseModel"]},
        wordpiece,
    ),
    "convbert": ("ConvBertConfig", {**_BERT, "embedding_size": 32, "head_ratio": 1}, wordpiece),
    "fnet": ("FNetConfig", {**_SMALL, "max_position_embeddings": 512}, unigram),
    "gpt_neo": (
        "GPTNeoConfig",
        {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]}
        | {"max_position_embeddings": 512},
        _gpt2_like,
    ),
    "gpt_neox": ("GPTNeoXConfig", _BERT, _gpt2_like),
    "gptj": ("GPTJConfig", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "rotary_dim": 4}, _gpt2_like),
    "bloom": ("BloomConfig", {"hidden_size": 32, "n_layer": 2, "n_head": 4}, _llama_like),
    "opt": ("OPTConfig", {**_BERT, "ffn_dim": 64, "word_embed_proj_dim": 32}, _gpt2_like),
    "falcon": ("FalconConfig", {**_BERT, "new_decoder_architecture": False}, _gpt2_like),
    "mistral": ("MistralConfig", _DECODER, _llama_like),
    "qwen2": ("Qwen2Config", _KV, _gpt2_like),
    "gemma": ("GemmaConfig", _DECODER, _llama_like),
    "gemma2": ("Gemma2Config", _DECODER, _llama_like),
    "phi": ("PhiConfig", _KV, _gpt2_like),
    "phi3": ("Phi3Config", {**_KV, "pad_token_id": 0}, _llama_like),
    "smollm3": ("SmolLM3Config", _KV, _llama_like),
    "stablelm": ("StableLmConfig", _KV, _gpt2_like),
    "starcoder2": ("Starcoder2Config", _KV, _gpt2_like),
    "modernbert-decoder": ("ModernBertDecoderConfig", _BERT, _roberta_like),
    "t5": ("T5Config", _T5, _roberta_like),
    "mt5": ("MT5Config", _T5, _roberta_like),
    "bart": ("BartConfig", _BART, _roberta_like),
    "granite": ("GraniteConfig", _KV, _gpt2_like),
    "olmo2": ("Olmo2Config", _KV, _gpt2_like),
    "cohere": ("CohereConfig", _KV, _llama_like),
    "mamba": ("MambaConfig", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}, _gpt2_like),
    "lfm2": ("Lfm2Config", {**_KV, "layer_types": ["conv", "full_attention"], "block_multiple_of": 8}, _llama_like),
    "falcon_h1": ("FalconH1Config", _HYBRID, _llama_like),
}
"""As ARCHITECTURES: types that are tried once each, in test_model_types.py."""


def pretrained(folder: Path, architecture: str = "bert", *, seed: int = 0) -> Path:
    """A base model (no classification head) with random weights, as a Hub repository would hold it."""
    class_name, settings, make_tokenizer = (ARCHITECTURES | MORE)[architecture]
    tokenizer = make_tokenizer()
    ids = {
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }
    config = _config_class(class_name)(**{**settings, **ids})
    torch.manual_seed(seed)
    AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def artifact(
    folder: Path, labels: Sequence[str] = ("a", "b", "c"), *, architecture: str = "bert", seed: int = 0
) -> Path:
    """A finished classifier with random weights, as textclf writes it."""
    class_name, settings, make_tokenizer = ARCHITECTURES[architecture]
    tokenizer = make_tokenizer()
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.split_special_tokens = True
    config = _config_class(class_name)(**{**settings, "vocab_size": len(tokenizer)})
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: index for index, label in enumerate(labels)}
    config.problem_type = "single_label_classification"
    config.pad_token_id = tokenizer.pad_token_id
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:  # the norms' tripled too, a CPU's order of sums would move a logit by 1e-4
            parameter.data.mul_(3)  # else every text gets nearly the same scores
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    facts = Facts(
        max_length=64,
        base_model=f"tiny-{architecture}",
        dataset="tiny",
        fingerprint="0" * 64,
        splits={"train": 30, "validation": 6, "test": 6},
        label_counts=dict.fromkeys(labels, 10),
        metrics={"test": {"accuracy": 0.5, "macro_f1": 0.5, "loss": 1.0, "rows": 6}},
    )
    artifact_folder.write_facts(folder, facts)
    return folder


def _config_class(name: str) -> Any:
    return getattr(transformers, name, None) or getattr(backbone, name)


@functools.cache
def _corpus() -> list[str]:
    return [*CORPUS, *(text for text, _ in rows(300))]


def _wrap_template(tokenizer: Tokenizer, first: str, last: str | None) -> None:
    names = [first, last] if last else [first]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=" ".join([first, "$A", *([last] if last else [])]),
        pair=" ".join([first, "$A", *([last] if last else [f"{first}:1"]), "$B:1", *([f"{last}:1"] if last else [])]),
        special_tokens=[(name, tokenizer.token_to_id(name)) for name in names],
    )
