"""The shipped model beside the model that it was made from, and beside linear models: accuracy, time, speed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from textclf import pretrained

from .lines import Comparison, Contender, Line, Setting
from .materials import artifact_part, minilm, read_texts, texts_part

DATASETS: dict[str, tuple[str, dict[str, Any]]] = {
    "banking77": ("banking77", {}),
    "banking77-8": ("banking77", {"balance": 8}),
    "banking77-16": ("banking77", {"balance": 16}),
    "nlupp-banking": ("nlupp/banking", {}),
    "nlupp-hotels": ("nlupp/hotels", {}),
    "scientific": ("scientific", {"min_label_count": 100, "max_rows": 10_000}),
    "tweet_eval_irony": ("tweet_eval_irony", {}),
    "tweet_eval_emotion": ("tweet_eval_emotion", {}),
    "tweet_eval_hate": ("tweet_eval_hate", {"max_rows": 3000}),  # test is of another kind: look at validation
    "mmlu": ("mmlu", {"form": "multiclass", "shuffle_choices": True, "max_rows": 2000}),  # chance is 0.25
}
"""Name of a line -> data set and settings; those with a number have so many training texts of each label."""
ONE_BY_ONE = 400
"""Texts that are answered each by itself."""


def lines(setting: Setting) -> list[Line]:
    """A line a data set, and one of prediction. Not small, and not on CUDA, which the shipped model does not need."""
    if setting.small or setting.device == "cuda":
        return []
    return [*(_accuracy(setting, name) for name in DATASETS), _prediction(setting)]


def _accuracy(setting: Setting, name: str) -> Line:
    dataset, settings = DATASETS[name]
    source = {"dataset": str((setting.data or Path()) / dataset), "settings": settings}
    contenders = (
        Contender("TF-IDF of words and characters + LinearSVC", "accuracy:of_tfidf", source),
        Contender("frozen MiniLM + logistic regression", "accuracy:of_probe", source),
        Contender("MiniLM", "accuracy:of_textclf", {**source, "how": {}}),
        Contender("textclf-mini", "accuracy:of_textclf", {**source, "how": {}, "model": pretrained.NAME}),
        Contender(
            "textclf-mini --fast", "accuracy:of_textclf", {**source, "how": {"epochs": 0}, "model": pretrained.NAME}
        ),
    )
    return Line(
        name=f"mini-{name}",
        title=f"textclf-mini on {name}",
        contenders=contenders,
        comparisons=(
            Comparison("textclf-mini", "MiniLM", "training_seconds", better="less", goal=2.0),
            Comparison("textclf-mini", "MiniLM", "seconds", better="less"),
        ),
        seeded=True,
    )


def _prediction(setting: Setting) -> Line:
    texts, make_texts = texts_part(setting, "short", 1600)
    mini = pretrained.folder(pretrained.NAME)
    assert mini is not None
    contenders, setup = [], [make_texts]
    for name, model in (("MiniLM", minilm()), ("textclf-mini", mini)):
        artifact, make_artifact = artifact_part(setting, model, texts)
        setup.append(make_artifact)
        common = {"texts": str(texts), "artifact": str(artifact)}
        batch = {**common, "device": "cpu", "mode": {}}
        contenders.append(Contender(name, "prediction:with_textclf", batch))
        contenders.append(Contender(f"{name}, one by one", "mini:one_by_one", common))
    pairs = (("textclf-mini", "MiniLM"), ("textclf-mini, one by one", "MiniLM, one by one"))
    return Line(
        name="mini-prediction",
        title="Prediction of 1,600 short texts by textclf-mini",
        contenders=tuple(contenders),
        comparisons=tuple(Comparison(ours, peer, "texts_per_second", goal=2.0) for ours, peer in pairs),
        setup=tuple(setup),
    )


def one_by_one(texts: str, artifact: str) -> dict[str, float]:
    """`predict` with one text at a time, as a service or a person asks."""
    import textclf

    some = read_texts(texts)[0][:ONE_BY_ONE]
    classifier = textclf.load(artifact)
    for text in some[:16]:
        classifier.predict([text])
    started = time.perf_counter()
    for text in some:
        classifier.predict([text])
    return {"texts_per_second": len(some) / (time.perf_counter() - started)}
