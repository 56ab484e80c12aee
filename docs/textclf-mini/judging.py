"""What a candidate's features are worth before any fine-tuning: a linear model over them, scored on validation parts.

    python docs/textclf-mini/judging.py --data DIR MODEL...

A MODEL is a folder, or `static:FOLDER`: the mean of one vector for each word piece, which is the folder's model's own
answer to that piece alone, in the manner of model2vec (reduced to 256 dimensions, frequent pieces counting less).
Test parts are not read.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tokenizers import Tokenizer
from transformers import AutoModel

import textclf

SETS = {
    "banking77": {},
    "tweet_eval_emotion": {},
    "tweet_eval_irony": {},
    "tweet_eval_hate": {"max_rows": 3000},
    "scientific": {"min_label_count": 100, "max_rows": 3000},
}
SHOTS = (8, 16)
Features = Callable[[list[str]], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    options = parser.parse_args()
    for name in options.models:
        static = name.startswith("static:")
        features = static_features(Path(name[7:])) if static else transformer_features(Path(name))
        found, texts, seconds = {}, 0, 0.0
        for dataset in options.sets:
            prepared = textclf.prepare(options.data / dataset, **SETS[dataset])
            rows = {split: prepared.rows(split) for split in ("train", "validation")}
            started = time.perf_counter()
            states = {split: features(part.texts) for split, part in rows.items()}
            labels = {split: np.array(part.labels) for split, part in rows.items()}
            if dataset == "banking77":
                seconds, texts = time.perf_counter() - started, sum(map(len, labels.values()))
                for shots in SHOTS:
                    found[f"{shots} of each"] = np.mean([score(states, labels, shots=shots, seed=s) for s in range(3)])
            found[dataset] = score(states, labels)
        said = ", ".join(f"{dataset} {value:.4f}" for dataset, value in found.items())
        print(f"{name}: {said}" + (f"; {texts / seconds:,.0f} texts/s" if texts else ""), flush=True)


def score(
    states: dict[str, np.ndarray], labels: dict[str, np.ndarray], *, shots: int | None = None, seed: int = 0
) -> float:
    """Accuracy on validation of a logistic regression, learnt from all of train or `shots` texts of each label."""
    rows = np.arange(len(labels["train"]))
    if shots is not None:
        order = np.random.default_rng(seed).permutation(rows)
        rows = np.concatenate([order[labels["train"][order] == name][:shots] for name in np.unique(labels["train"])])
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.02, max_iter=300))
    model.fit(states["train"][rows], labels["train"][rows])
    return float(model.score(states["validation"], labels["validation"]))


def transformer_features(folder: Path) -> Features:
    """Means of the last hidden states, as mean-pooled sentence embeddings have them."""
    tokenizer = _tokenizer(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()

    def features(texts: list[str]) -> np.ndarray:
        ids = [encoding.ids[:256] for encoding in tokenizer.encode_batch(texts)]
        order = np.argsort([len(one) for one in ids])
        found = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
        for start in range(0, len(order), 64):
            rows = order[start : start + 64]
            width = max(len(ids[row]) for row in rows)
            ids_BT = torch.tensor([ids[row] + [0] * (width - len(ids[row])) for row in rows])
            mask_BT = torch.tensor([[1] * len(ids[row]) + [0] * (width - len(ids[row])) for row in rows])
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
                hidden_BTD = model(input_ids=ids_BT, attention_mask=mask_BT).last_hidden_state.float()
            pooled_BD = (hidden_BTD * mask_BT[..., None]).sum(dim=1) / mask_BT.sum(dim=1, keepdim=True)
            found[rows] = pooled_BD.numpy()
        return found

    return features


def static_features(folder: Path) -> Features:
    """Weighted means of one vector for each word piece."""
    tokenizer = _tokenizer(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    size = model.config.vocab_size
    first, last = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    vectors = []
    for start in range(0, size, 512):
        ids_V = torch.arange(start, min(start + 512, size))
        ids_V3 = torch.stack([torch.full_like(ids_V, first), ids_V, torch.full_like(ids_V, last)], dim=1)
        with torch.inference_mode():
            vectors.append(model(input_ids=ids_V3).last_hidden_state.mean(dim=1).numpy())
    # BERT's word pieces are sorted by frequency: by Zipf's law the id stands for it.
    weights_V1 = np.log1p(np.arange(size))[:, None] / np.log(size)
    table_VD = (PCA(256, random_state=0).fit_transform(np.concatenate(vectors)) * weights_V1).astype(np.float32)

    def features(texts: list[str]) -> np.ndarray:
        return np.stack([table_VD[encoding.ids].mean(axis=0) for encoding in tokenizer.encode_batch(texts)])

    return features


def _tokenizer(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


if __name__ == "__main__":
    main()
