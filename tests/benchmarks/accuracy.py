"""Accuracy for time: textclf at its defaults beside the recipes of others, over data sets and seeds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from .lines import Comparison, Contender, Line, Setting
from .materials import minilm
from .training import DEFAULTS, TUNED, trainer_arguments

DATASETS: dict[str, dict[str, Any]] = {
    "banking77": {},
    "tweet_eval_irony": {},
    "tweet_eval_emotion": {},
    "tweet_eval_hate": {"max_rows": 3000},  # look at validation and unseen: its test split is of another kind
    "scientific": {"min_label_count": 100, "max_rows": 3000},
}
UNSEEN = 6000
"""Rows of train at most, of those that `max_rows` leaves out, that every recipe answers besides: more than test has,
and of the kind that was learnt from. Answering them does not count in the seconds."""
MEASURED = ("accuracy", "subset_accuracy", "macro_f1", "micro_f1")
"""What is reported of a split: of data with one label a text the first, with several the second and the last."""
TUNED_RATES = (2e-4, 4e-4)
"""Of the best-tuned Trainer: take the one that is best on validation; its seconds are those of that run alone."""


def lines(setting: Setting) -> list[Line]:
    """A line a data set. Not small, and not on CUDA, where the figures would be the same."""
    if setting.small or setting.device == "cuda":
        return []
    return [_line(setting, name, settings) for name, settings in DATASETS.items()]


def _line(setting: Setting, name: str, settings: dict[str, Any]) -> Line:
    source = {"dataset": str((setting.data or Path()) / name), "settings": settings}
    contenders = [
        Contender("TF-IDF of words and characters + LinearSVC", "accuracy:of_tfidf", source),
        Contender("frozen mean-pooled features + logistic regression", "accuracy:of_probe", source),
        Contender("HF defaults (5e-5, 8, fp32, 3 epochs)", "accuracy:of_trainer", {**source, "recipe": "defaults"}),
    ]
    contenders += [
        Contender(f"HF tuned ({rate:g}, 32, bf16, 3 epochs)", "accuracy:of_trainer",
                  {**source, "recipe": "tuned", "learning_rate": rate})
        for rate in TUNED_RATES
    ]  # fmt: skip
    contenders += [Contender("textclf", "accuracy:of_textclf", {**source, "how": {}})]
    contenders += [Contender("textclf, r_drop 0", "accuracy:of_textclf", {**source, "how": {"r_drop": 0.0}})]
    contenders += [Contender("textclf --fast", "accuracy:of_textclf", {**source, "how": {"epochs": 0}})]
    return Line(
        name=f"accuracy-{name}",
        title=f"Accuracy for time on {name}",
        contenders=tuple(contenders),
        comparisons=(
            Comparison("textclf", "HF defaults (5e-5, 8, fp32, 3 epochs)", "seconds", better="less", goal=1.0),
            Comparison("textclf", "HF defaults (5e-5, 8, fp32, 3 epochs)", "test_accuracy", goal=1.0),
            Comparison("textclf", "textclf --fast", "validation_accuracy", goal=1.0),  # never below the probe
        ),
        seeded=True,
    )


def of_textclf(
    dataset: str, settings: dict[str, Any], how: dict[str, Any], seed: int, model: str | None = None
) -> dict[str, float]:
    """The whole of `textclf.finetune`, from the files to the finished artifact. model: a folder; None: MiniLM."""
    import tempfile

    import textclf

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        run = textclf.finetune(model or minilm(), dataset, out=Path(folder) / "run", seed=seed, **settings, **how)
        seconds = time.perf_counter() - started
        found = {"seconds": seconds, "training_seconds": float(run.document["seconds"])} | {
            f"{split}_{name}": measured[name]
            for split, measured in run.metrics.items()
            for name in MEASURED
            if name in measured
        }
        texts, labels = _unseen(dataset, settings)
        if texts:
            found |= _measured("unseen", labels, np.array(textclf.load(run).predict(texts)))
    return found


def of_tfidf(dataset: str, settings: dict[str, Any], seed: int) -> dict[str, float]:
    """Words and their pairs, and characters within words, weighted by TF-IDF, in a linear support vector machine."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline, make_union
    from sklearn.svm import LinearSVC

    splits = _splits(dataset, settings)
    started = time.perf_counter()
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    characters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True)
    svc = _per_label(LinearSVC(C=0.5, random_state=seed), splits)
    model = make_pipeline(make_union(words, characters), svc)
    model.fit(*splits["train"])
    return _scores(splits, lambda split: model.predict(splits[split][0]), started)


def of_probe(dataset: str, settings: dict[str, Any], seed: int) -> dict[str, float]:
    """The mean of the backbone's last hidden states, without training it, and a logistic regression over that."""
    import torch
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from transformers import AutoModel, AutoTokenizer

    splits = _splits(dataset, settings)
    started = time.perf_counter()
    tokenizer = AutoTokenizer.from_pretrained(minilm())
    backbone = AutoModel.from_pretrained(minilm()).eval()

    def features(texts: list[str]) -> np.ndarray:
        order = np.argsort([len(text) for text in texts])
        rows = np.zeros((len(texts), backbone.config.hidden_size), dtype=np.float32)
        for start in range(0, len(order), 64):
            some = order[start : start + 64]
            batch = tokenizer(
                [texts[i] for i in some], truncation=True, max_length=512, padding=True, return_tensors="pt"
            )
            with torch.inference_mode():
                hidden_BTD = backbone(**batch).last_hidden_state
            mask_BT1 = batch["attention_mask"].unsqueeze(-1)
            rows[some] = ((hidden_BTD * mask_BT1).sum(dim=1) / mask_BT1.sum(dim=1)).numpy()
        return rows

    regression = _per_label(LogisticRegression(C=0.1, max_iter=1000, random_state=seed), splits)
    model = make_pipeline(StandardScaler(), regression)
    texts, labels = splits["train"]
    model.fit(features(texts), labels)
    return _scores(splits, lambda split: model.predict(features(splits[split][0])), started)


def of_trainer(
    dataset: str, settings: dict[str, Any], recipe: str, seed: int, learning_rate: float = 5e-5
) -> dict[str, float]:
    """transformers' Trainer for three epochs, linear schedule, the architecture's own head; from texts to answers.

    Batches are padded to their longest text, which answers alike and flatters the seconds of the defaults: padded to
    128 tokens, they take three times as long on short texts.
    """
    from datasets import Dataset
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        set_seed,
    )

    splits = _splits(dataset, settings)
    started = time.perf_counter()
    names = sorted(set(splits["train"][1]))
    how = DEFAULTS if recipe == "defaults" else TUNED
    tokenizer = AutoTokenizer.from_pretrained(minilm())

    def encode(batch: dict[str, Any]) -> Any:
        length = how.get("max_length", 512)
        return tokenizer(batch["text"], truncation=True, max_length=length)

    rows = {
        split: Dataset.from_dict({"text": texts, "label": [names.index(label) for label in labels]}).map(
            encode, batched=True, remove_columns="text"
        )
        for split, (texts, labels) in splits.items()
    }
    set_seed(seed)
    trainer = Trainer(
        model=AutoModelForSequenceClassification.from_pretrained(minilm(), num_labels=len(names)),
        args=trainer_arguments(
            device="cpu", batch_size=how["batch_size"], precision=how.get("precision", "fp32"),
            grouped=how.get("grouped", False), learning_rate=learning_rate, num_train_epochs=3, seed=seed,
        ),
        train_dataset=rows["train"],
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
    )  # fmt: skip
    trainer.train()
    trainer.args.train_sampling_strategy = "random"  # grouping by length would put the answers into another order
    return _scores(
        splits, lambda split: np.array(names)[trainer.predict(rows[split]).predictions.argmax(axis=1)], started
    )


def _splits(dataset: str, settings: dict[str, Any]) -> dict[str, tuple[list[str], Any]]:
    """Texts and labels of each split as textclf cuts them: every recipe learns and is judged by the same rows.

    Labels are names, or (rows, labels) of 0 and 1 where a text has several. Both texts of a pair are one here.
    """
    import textclf

    prepared = textclf.prepare(dataset, **settings)
    rows = {split: prepared.rows(split) for split in prepared.splits}
    texts = {split: part.texts for split, part in rows.items()}
    for split, part in rows.items():
        if part.pair_column is not None:
            texts[split] = [" ".join(pair) for pair in zip(part.texts, part.pair_column.to_pylist(), strict=True)]
    targets = prepared.label_set.targets if prepared.label_set.multi else list
    splits = {split: (texts[split], targets(part.labels)) for split, part in rows.items()}
    unseen = _unseen(dataset, settings)
    return splits | {"unseen": unseen} if unseen[0] else splits


def _unseen(dataset: str, settings: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Texts and labels of rows of train that `max_rows` leaves out of every split, always the same."""
    import textclf

    if "max_rows" not in settings:
        return [], []
    kept = textclf.prepare(dataset, **settings)
    used = {text for split in kept.splits for text in kept.rows(split).texts}
    whole = textclf.prepare(dataset, **{name: value for name, value in settings.items() if name != "max_rows"})
    rows = whole.rows("train")
    pairs = [(text, label) for text, label in zip(rows.texts, rows.labels, strict=True) if text not in used]
    chosen = np.random.default_rng(0).permutation(len(pairs))[:UNSEEN]
    return [pairs[i][0] for i in chosen], [pairs[i][1] for i in chosen]


def _per_label(model: Any, splits: dict[str, tuple[list[str], Any]]) -> Any:
    """The model, or one for each label where a text has several."""
    from sklearn.multiclass import OneVsRestClassifier

    return OneVsRestClassifier(model) if isinstance(splits["train"][1], np.ndarray) else model


def _scores(
    splits: dict[str, tuple[list[str], Any]], predict: Callable[[str], np.ndarray], started: float
) -> dict[str, float]:
    """Scores of what `predict` answers to each split but train, and the seconds until those that count are there."""
    answers = {split: predict(split) for split in splits if split not in ("train", "unseen")}
    found = {"seconds": time.perf_counter() - started}
    if "unseen" in splits:
        answers["unseen"] = predict("unseen")
    for split, predicted in answers.items():
        found |= _measured(split, splits[split][1], predicted)
    return found


def _measured(split: str, labels: Any, predicted: np.ndarray) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, f1_score

    several = isinstance(labels, np.ndarray)
    right = float(accuracy_score(labels, predicted))
    found = {f"{split}_subset_accuracy" if several else f"{split}_accuracy": right}
    found[f"{split}_macro_f1"] = float(f1_score(labels, predicted, average="macro", zero_division=0))
    if several:
        found[f"{split}_micro_f1"] = float(f1_score(labels, predicted, average="micro"))
    return found
