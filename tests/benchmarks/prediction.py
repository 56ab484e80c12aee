"""Prediction: texts a second of a loaded classifier beside transformers' pipeline, and how many labels are the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .child import peak_mib
from .lines import Comparison, Contender, Line, Setting
from .materials import artifact_part, model_parts, read_texts, texts_part

BATCH_SIZES = (1, 8, 32, 128)
"""Tried for the pipeline's best, each on SEARCH_TEXTS texts."""
SEARCH_TEXTS = 128
WARM_UP_TEXTS = 16

MODES: dict[str, dict[str, Any]] = {
    "textclf": {},
    "textclf int8": {"runtime": "int8"},
    "textclf bf16": {"runtime": "bf16"},
    "textclf openvino": {"runtime": "openvino"},
    "textclf torch": {"runtime": "torch"},
}
"""How `textclf.load` may be asked to compute. The goal for a fast mode is that of either."""


def lines(setting: Setting) -> list[Line]:
    """Short and long texts, on CUDA by the encoders that people use there; small: short only."""
    if setting.small:
        return [_line(setting, "minilm", "short", 256)]
    sizes = ["minilm"] if setting.device == "cpu" else ["bert-base", "modernbert-base"]
    return [_line(setting, size, kind, count) for size in sizes for kind, count in (("short", 1600), ("long", 320))]


def _line(setting: Setting, size: str, kind: str, count: int) -> Line:
    texts, make_texts = texts_part(setting, kind, count)
    model, make_model = model_parts(setting, size)
    artifact, make_artifact = artifact_part(setting, model, texts)
    common = {"texts": str(texts), "artifact": str(artifact), "device": setting.device}
    peers = {"pipeline, batch 1": [1], "pipeline, its best batch": list(BATCH_SIZES)}
    if setting.small:
        peers = {"pipeline, batch 32": [32]}
    *others, best = peers
    left_out = {"textclf int8", "textclf openvino"} if setting.device == "cuda" else set()
    modes = {
        name: how for name, how in MODES.items() if name not in left_out and (name == "textclf" or not setting.small)
    }
    fast = 6.0 if kind == "short" else None
    goals = {("textclf", best): 4.0, ("textclf int8", best): fast, ("textclf bf16", best): fast}
    goals |= {("textclf openvino", best): fast}
    compared = [
        Comparison(mode, peer, "texts_per_second", goal=goals.get((mode, peer)))
        for mode in modes
        for peer in (*others, best)
    ]
    where = "" if setting.device == "cpu" else f"-{setting.device}"
    return Line(
        name=f"prediction-{kind}-{size}{where}",
        title=f"Prediction of {count:,} {kind} texts by {size} ({setting.device})",
        contenders=tuple(
            [Contender(name, "prediction:with_pipeline", {**common, "sizes": sizes}) for name, sizes in peers.items()]
            + [Contender(name, "prediction:with_textclf", {**common, "mode": how}) for name, how in modes.items()]
        ),
        comparisons=tuple(compared),
        setup=(make_texts, *make_model, make_artifact),
        reference=best,
        needs_data=not setting.small,
    )


def with_pipeline(texts: str, artifact: str, device: str, sizes: list[int]) -> dict[str, Any]:
    """transformers' pipeline with the fastest of these batch sizes, found on some of the texts first."""
    from transformers import pipeline

    answer = pipeline("text-classification", artifact, device=device)
    all_texts, _ = read_texts(texts)

    def predict(some: list[str], size: int) -> list[str]:
        return [found["label"] for found in answer(some, batch_size=size, truncation=True)]

    predict(all_texts[:WARM_UP_TEXTS], sizes[0])
    if len(sizes) > 1:
        sizes = sorted(sizes, key=lambda size: _timed(lambda: predict(all_texts[:SEARCH_TEXTS], size))[0])
    seconds, answers = _timed(lambda: predict(all_texts, sizes[0]))
    return {**_figures(all_texts, seconds, answers), "batch_size": sizes[0]}


def with_textclf(texts: str, artifact: str, device: str, mode: dict[str, Any]) -> dict[str, Any]:
    """`textclf.load(...).predict` over all the texts at once."""
    import textclf

    all_texts, _ = read_texts(texts)
    classifier = textclf.load(artifact, device=device, **mode)
    classifier.predict(all_texts[:WARM_UP_TEXTS])
    seconds, labels = _timed(lambda: classifier.predict(all_texts))
    return _figures(all_texts, seconds, labels.tolist())


def _figures(texts: list[str], seconds: float, answers: list[str]) -> dict[str, Any]:
    return {"texts_per_second": len(texts) / seconds, "peak_mib": peak_mib(), "answers": answers}


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result
