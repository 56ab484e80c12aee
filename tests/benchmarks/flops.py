"""How much arithmetic a model takes, and how much a machine gives."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModel

PEAK_TOKENS = {"cpu": 2048, "cuda": 16384}
"""Rows of the matrices that the peak is measured with: as many tokens as a forward pass has at its best."""
STRETCH = 50
"""Products on a GPU between two looks at the clock: to wait for each would be measured as well."""


def forward_flops(model: str | Path, lengths_N: np.ndarray) -> float:
    """Floating-point operations of one forward pass over texts of so many tokens; training takes three times that.

    For each token two for each number of the weight matrices outside the embeddings, and for each layer's attention
    4 x tokens^2 x width, which is more than is done where a layer attends to a window only.
    """
    config = AutoConfig.from_pretrained(model)
    with torch.device("meta"):
        weights = AutoModel.from_config(config)
    embeddings = sum(table.weight.numel() for table in weights.modules() if isinstance(table, torch.nn.Embedding))
    # Biases and norms are added, not multiplied by a matrix; BERT's pooler sees one token of each text, not all.
    matrices = (part for name, part in weights.named_parameters() if part.ndim > 1 and not name.startswith("pooler."))
    multiplied = sum(part.numel() for part in matrices) - embeddings
    lengths_N = lengths_N.astype(np.float64)
    attention = 4 * config.num_hidden_layers * config.hidden_size * (lengths_N**2).sum()
    return float(2 * multiplied * lengths_N.sum() + attention)


def token_lengths(model: str | Path, texts: list[str], max_length: int) -> np.ndarray:
    """Tokens of each text as the model reads it, cut at max_length: (rows,) int64."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    return np.array([len(ids) for ids in tokenizer(texts, truncation=True, max_length=max_length)["input_ids"]])


def matmul_peak(model: str | Path, device: str, dtype: torch.dtype) -> float:
    """The most operations per second that matmuls of the model's own shapes reach here, the best of its shapes."""
    config = AutoConfig.from_pretrained(model)
    width = config.hidden_size
    inner = getattr(config, "intermediate_size", None) or getattr(config, "n_inner", None) or 4 * width
    return max(
        _rate(rows, columns, device, dtype) for rows, columns in [(width, width), (width, inner), (inner, width)]
    )


def _rate(rows: int, columns: int, device: str, dtype: torch.dtype) -> float:
    tokens = PEAK_TOKENS[device]
    left = torch.randn(tokens, rows, device=device, dtype=dtype)
    right = torch.randn(columns, rows, device=device, dtype=dtype)
    best = 0.0
    for _ in range(5):  # the first is the warm-up; the best of the others is what the machine can do
        started = time.perf_counter()
        repeats = 0
        while time.perf_counter() - started < 0.05 or repeats < 2:
            for _ in range(STRETCH if device == "cuda" else 1):
                torch.nn.functional.linear(left, right)
                repeats += 1
            if device == "cuda":
                torch.cuda.synchronize()
        best = max(best, 2 * tokens * rows * columns * repeats / (time.perf_counter() - started))
    return best
