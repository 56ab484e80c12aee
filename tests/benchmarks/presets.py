"""Every preset on its real data, beside the most frequent label and a linear model over TF-IDF.

The models that presets name cannot be had everywhere: MiniLM stands in for encoders, and a small decoder of the same
architecture with random weights for decoders. A random decoder shows that the preset runs, not what its model can do.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .lines import Comparison, Contender, Line, Setting
from .materials import minilm

MINILM = "MiniLM"
DECODER_VOCABULARY = 8000
DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "a random GPT-2 of 4 layers": ("GPT2Config", {"n_embd": 256, "n_layer": 4, "n_head": 4}),
    "a random OpenELM of 4 layers": (
        "OpenELMConfig", {"model_dim": 256, "num_transformer_layers": 4, "ffn_dim_divisor": 64},
    ),
    "a random OpenELM of 6 layers": (
        "OpenELMConfig", {"model_dim": 256, "num_transformer_layers": 6, "ffn_dim_divisor": 64},
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Trial:
    """What one preset is run on. dataset: a folder of the real data, None for the preset's own. settings: over it."""

    dataset: str | None
    model: str = MINILM
    settings: dict[str, Any] = field(default_factory=dict)


TRIALS: dict[str, Trial] = {
    "quickstart": Trial(None),
    "banking77-tinybert": Trial("banking77"),
    "banking77-distilbert": Trial("banking77"),
    "bert-base": Trial("tweet_eval_emotion"),
    "hate-openelm-270m": Trial("tweet_eval_hate", "a random OpenELM of 4 layers"),
    "hate-openelm-450m": Trial("tweet_eval_hate", "a random OpenELM of 6 layers"),
    "scientific-distilbert": Trial("scientific", settings={"min_label_count": 100, "max_rows": 3000}),
    "scientific-gpt2": Trial(
        "scientific", "a random GPT-2 of 4 layers", {"min_label_count": 100, "max_rows": 3000}
    ),
    "mmlu-modernbert-binary": Trial("mmlu", settings={"form": "binary", "max_length": 512}),
    "mmlu-modernbert-multiclass": Trial("mmlu", settings={"form": "multiclass", "max_length": 512}),
}  # fmt: skip


def lines(setting: Setting) -> list[Line]:
    """A line a preset. Not small, and not on CUDA, where the figures would be the same."""
    if setting.small or setting.device == "cuda":
        return []
    return [_line(setting, preset, trial) for preset, trial in TRIALS.items()]


def _line(setting: Setting, preset: str, trial: Trial) -> Line:
    dataset = str((setting.data or Path()) / trial.dataset) if trial.dataset is not None else None
    source = {"preset": preset, "dataset": dataset, "settings": trial.settings}
    ours, linear = f"textclf --preset {preset}, with {trial.model}", "TF-IDF of words and their pairs, LinearSVC"
    measure = "test_question_accuracy" if preset.startswith("mmlu") else "test_accuracy"
    return Line(
        name=f"presets-{preset}",
        title=f"Preset {preset}",
        contenders=(
            Contender("the most frequent label", "presets:of_majority", source),
            Contender(linear, "presets:of_tfidf", source),
            Contender(ours, "presets:of_textclf", {**source, "model": trial.model}),
        ),
        comparisons=(Comparison(ours, linear, measure),),
        seeded=True,
    )


def of_textclf(preset: str, dataset: str | None, settings: dict[str, Any], model: str, seed: int) -> dict[str, float]:
    """The whole of `textclf.finetune` with the preset, from the files to the finished artifact."""
    import textclf
    from textclf import presets

    with tempfile.TemporaryDirectory() as folder:
        place = minilm() if model == MINILM else _make_decoder(model, preset, dataset, settings, Path(folder) / "base")
        config = presets.load(preset)
        config["model"].pop("tokenizer", None)
        started = time.perf_counter()
        run = textclf.finetune(
            place, dataset, config=config, out=Path(folder) / "run", seed=seed, allow_bin=False, **settings
        )
        seconds = time.perf_counter() - started
    named = ("accuracy", "macro_f1", "question_accuracy")
    found = {f"{split}_{name}": run.metrics[split].get(name) for split in run.metrics for name in named}
    return {"seconds": seconds} | {name: value for name, value in found.items() if value is not None}


def of_majority(preset: str, dataset: str | None, settings: dict[str, Any], seed: int) -> dict[str, float]:
    """The label that most training texts have; of questions, the letter, or the first choice."""
    from sklearn.dummy import DummyClassifier

    prepared = _prepared(preset, dataset, settings)
    started = time.perf_counter()
    train = prepared.rows("train")
    model = DummyClassifier(strategy="most_frequent").fit(train.texts, train.labels)
    return _scores(prepared, model.predict_proba, model.classes_, started)


def of_tfidf(preset: str, dataset: str | None, settings: dict[str, Any], seed: int) -> dict[str, float]:
    """Words and their pairs, weighted by TF-IDF, in a linear support vector machine; of a pair both texts, one after
    the other."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_pipeline
    from sklearn.svm import LinearSVC

    prepared = _prepared(preset, dataset, settings)
    started = time.perf_counter()
    train = prepared.rows("train")
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LinearSVC(C=0.5, random_state=seed)
    ).fit(_texts(train), train.labels)

    def probabilities(texts: list[str]) -> np.ndarray:
        margins = model.decision_function(texts)
        margins_NC = np.stack([-margins, margins], axis=1) if margins.ndim == 1 else margins
        exp_NC = np.exp(margins_NC - margins_NC.max(axis=1, keepdims=True))
        return exp_NC / exp_NC.sum(axis=1, keepdims=True)

    return _scores(prepared, probabilities, model.classes_, started)


def _prepared(preset: str, dataset: str | None, settings: dict[str, Any]) -> Any:
    import textclf
    from textclf import presets
    from textclf.config import build, by_field

    layers = ({"data": {"dataset": dataset}} if dataset is not None else {}, by_field(settings))
    return textclf.prepare(build(presets.load(preset), *layers).data)


def _texts(rows: Any) -> list[str]:
    if rows.pair_column is None:
        return list(rows.texts)
    return [f"{one}\n{other}" for one, other in zip(rows.texts, rows.pair_column.to_pylist(), strict=True)]


def _scores(prepared: Any, probabilities: Any, classes: np.ndarray, started: float) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, f1_score

    from textclf.data.forms import questions_of

    found: dict[str, float] = {}
    labels = {str(name): index for index, name in enumerate(classes)}
    for split in prepared.splits:
        if split == "train":
            continue
        rows = prepared.rows(split)
        probs_NC = probabilities(_texts(rows))
        answers = classes[probs_NC.argmax(axis=1)]
        found[f"{split}_accuracy"] = float(accuracy_score(rows.labels, answers))
        found[f"{split}_macro_f1"] = float(f1_score(rows.labels, answers, average="macro", zero_division=0))
        questions = questions_of(rows)
        if questions is not None:
            found[f"{split}_question_accuracy"] = float(questions.right(probs_NC, labels).mean())
    return {"seconds": time.perf_counter() - started} | found


def _make_decoder(name: str, preset: str, dataset: str | None, settings: dict[str, Any], folder: Path) -> Path:
    """A decoder with random weights, and a byte-level BPE that learnt its pieces from the training texts."""
    import torch
    import transformers
    from tokenizers import ByteLevelBPETokenizer

    from textclf.model import backbone  # noqa: F401  makes OpenELM known to transformers
    from textclf.model.openelm import OpenELMConfig

    texts = _prepared(preset, dataset, settings).rows("train").texts
    pieces = ByteLevelBPETokenizer()
    pieces.train_from_iterator(
        texts, vocab_size=DECODER_VOCABULARY, special_tokens=["<|endoftext|>"], show_progress=False
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=pieces._tokenizer, eos_token="<|endoftext|>", model_max_length=1024
    )
    class_name, sizes = DECODERS[name]
    made = OpenELMConfig if class_name == "OpenELMConfig" else getattr(transformers, class_name)
    end = tokenizer.eos_token_id
    torch.manual_seed(0)
    config = made(**sizes, vocab_size=len(tokenizer), bos_token_id=end, eos_token_id=end)
    transformers.AutoModel.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
