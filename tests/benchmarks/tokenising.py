"""Tokenising: `encode` beside `datasets.map`, on rows drawn by Zipf's law, every row another."""

from __future__ import annotations

import time
from pathlib import Path

from .child import peak_mib
from .lines import Comparison, Contender, Line, Setting
from .materials import minilm

MAX_LENGTH = 128
WORDS = 12
"""Words of a row."""


def lines(setting: Setting) -> list[Line]:
    """One line. On the CPU only: that is where texts become tokens."""
    if setting.device == "cuda":
        return []
    rows = 20_000 if setting.small else 200_000
    file = setting.scratch / f"rows-{rows}.parquet"
    arguments = {"file": str(file)}
    ours, peer = "textclf", "datasets.map"
    compared = [Comparison(ours, peer, "texts_per_second", goal=2.0)]
    if not setting.small:  # few rows are lost in what the libraries take
        compared += [Comparison(ours, peer, "memory_mib", better="less", goal=2.0)]
    return [
        Line(
            name="tokenising",
            title=f"Tokenising {rows:,} rows",
            contenders=(
                Contender(peer, "tokenising:with_datasets", arguments),
                Contender(ours, "tokenising:with_textclf", arguments),
            ),
            comparisons=tuple(compared),
            setup=(Contender("draw rows", "tokenising:make_rows", {"file": str(file), "rows": rows}),),
            needs_data=False,
        )
    ]


def make_rows(file: str, rows: int) -> None:
    """Write a parquet file with a column `text` of words from the tokenizer's vocabulary."""
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet
    from tokenizers import Tokenizer

    vocabulary = Tokenizer.from_file(str(minilm() / "tokenizer.json")).get_vocab()
    words = np.array(sorted(word for word in vocabulary if word.isalpha()))
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, len(words) + 1)
    ids = rng.choice(len(words), size=(rows, WORDS), p=shares / shares.sum())
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table({"text": [" ".join(row) for row in rng.permutation(words)[ids]]}), file)


def with_datasets(file: str) -> dict[str, float]:
    """`datasets.map` over transformers' fast tokenizer, in batches as its documentation has it."""
    before = _before()
    import datasets
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    rows = datasets.Dataset.from_parquet(file)
    started = time.perf_counter()
    kept = rows.map(
        lambda batch: tokenizer(batch["text"], truncation=True, max_length=MAX_LENGTH),
        batched=True,
        load_from_cache_file=False,
    )
    return _figures(len(kept), started, before)


def with_textclf(file: str) -> dict[str, float]:
    """What every run and prediction tokenises with."""
    before = _before()
    from pyarrow import parquet
    from tokenizers import Tokenizer

    from textclf.data.encoding import encode

    tokenizer = Tokenizer.from_file(str(minilm() / "tokenizer.json"))
    column = parquet.read_table(file, columns=["text"]).column("text")
    started = time.perf_counter()
    kept = encode(column, tokenizer, max_length=MAX_LENGTH)
    return _figures(len(kept), started, before)


def _before() -> float:
    """The peak of a process that holds the Rust tokenizer only: what both need, in MiB."""
    from tokenizers import Tokenizer

    Tokenizer.from_file(str(minilm() / "tokenizer.json")).encode("warm up")
    return peak_mib()


def _figures(rows: int, started: float, before: float) -> dict[str, float]:
    """memory_mib: libraries, texts and tokens, above what `_before` measured."""
    return {"texts_per_second": rows / (time.perf_counter() - started), "memory_mib": peak_mib() - before}
