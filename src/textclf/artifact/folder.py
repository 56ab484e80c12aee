"""The model folder: names of its files, the schema of textclf.json, reading and checking it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from textclf import atomic
from textclf.abstention import read_curve, threshold_for
from textclf.config import PLACE, Overflow
from textclf.errors import ModelError, UsageError
from textclf.labels import LabelSet
from textclf.scope import read_scale

if TYPE_CHECKING:
    import numpy as np
    from tokenizers import Tokenizer

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
CARD = "README.md"
PLOTS = "plots"
"""Where the pictures of the card lie."""
POOLING = "1_Pooling/config.json"
MODELLING = "modeling_textclf.py"
MODELLING_OPENELM = "openelm.py"
"""The code of what transformers has not: what plain transformers load it with. textclf itself never reads it."""
HEAD_CODE = "own_head.py"
"""The code of a head of the user's own, likewise."""
TEXTCLF = "textclf.json"
GRAPH = "onnx/graph.onnx"
GRAPH_INT8 = "onnx/graph_int8.onnx"
GRAPH_FACTS = "onnx/graph.json"

WEIGHT_SHARDS = "model-*-of-*.safetensors"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin")
"""Weights that only unpickling opens."""

VOCABULARIES = (TOKENIZER, "vocab.txt", "vocab.json", "*.model")
"""Patterns of files without one of which there is no tokenizer."""

TOKENIZER_FILES = (*VOCABULARIES, "merges.txt", TOKENIZER_CONFIG, "special_tokens_map.json", "added_tokens.json")
"""Patterns of all that a tokenizer consists of."""

LOADED = (CONFIG, TEXTCLF, *TOKENIZER_FILES, POOLING, GRAPH, GRAPH_INT8, GRAPH_FACTS)
"""Patterns of what a model needs beside its weights. No code, no template, nothing of another framework."""

PUBLISHED = (
    CARD,
    f"{PLOTS}/*.svg",
    MODELLING,
    MODELLING_OPENELM,
    HEAD_CODE,
    *LOADED,
    WEIGHTS,
    WEIGHTS_INDEX,
    WEIGHT_SHARDS,
)
"""Patterns of what leaves this machine with an artifact: not a file more, whatever lies in the folder."""

SCHEMA_VERSION = 1
FORMS = ("text", "pair", "binary", "multiclass")
OVERFLOWS = get_args(Overflow)

LOADING_ONLY_KEYS = ("is_local", "local_files_only", "name_or_path")
"""What transformers writes into tokenizer_config.json about the machine that loaded it."""


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What textclf.json says about a model beyond what transformers' own files say.

    prompt: a template with `{text}` once, put around every text before it is tokenised.
    form: what the model reads: `text`, `pair` (of texts), or a question with choices, `binary` (a choice at a time) or
        `multiclass` (all together). columns: what its training data called the columns of `text` and `text_pair`.
    overflow: what becomes of longer texts, as `model.overflow` says.
    dataset: what the user calls it; dataset_id: the Hub id behind it, None for files of one's own.
    metrics: split name -> metric name -> value, of the model in this folder.
    baselines: what the model was measured against: `name` (majority, tfidf, probe), `rows`, `seconds` and `metrics`.
    confusions: the most frequent ones of the split that the card reports, as `metrics.Confusion`; none where a text may
        have several labels.
    label_counts: label name -> rows in train.
    thresholds: probability from which each label is given, in the order of the labels, where a text may have several;
        None: 0.5 for all, or one label a text.
    intervals: split name -> metric name -> low and high, its 95 % interval.
    calibration: how scores were made to mean what they say, on validation: `temperature`, which divided the weights of
        the last layer already; `rows`; `before`, split -> loss, ece and brier without it; `coverage`, a list of
        threshold, coverage and accuracy, None where a text may have several labels; `scope`, quantiles of the energies
        of validation texts, None for these and for questions. {} where nothing is known.
    splits: split name -> rows.
    config: the resolved RunConfig as nested values; paths in it are reduced to their last part.
    environment: textclf, python, torch, transformers versions and the kind of device.
    """

    max_length: int
    prompt: str | None = None
    form: str = "text"
    columns: dict[str, str] = field(default_factory=dict)
    overflow: str = "truncate"
    base_model: str | None = None
    base_revision: str | None = None
    dataset: str | None = None
    dataset_id: str | None = None
    dataset_revision: str | None = None
    fingerprint: str | None = None
    splits: dict[str, int] = field(default_factory=dict)
    label_counts: dict[str, int] = field(default_factory=dict)
    thresholds: Sequence[float] | None = None
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    intervals: dict[str, dict[str, Any]] = field(default_factory=dict)
    calibration: dict[str, Any] = field(default_factory=dict)
    baselines: list[dict[str, Any]] = field(default_factory=list)
    confusions: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class Artifact:
    """A model folder that holds all that predicting needs.

    facts: None for a classifier that textclf did not make.
    config: transformers' config.json.
    """

    folder: Path
    label_set: LabelSet
    config: dict[str, Any]
    facts: Facts | None

    @property
    def max_length(self) -> int:
        """Tokens that the model reads of a text, special tokens included."""
        if self.facts is not None:
            return self.facts.max_length
        declared = [self.config.get("max_position_embeddings"), self.config.get("n_positions")]
        limits = [int(limit) for limit in declared if isinstance(limit, int) and limit > 0]
        # RoBERTa's kin count positions from pad_token_id + 1, so two of theirs are never used.
        return min([512, *(limit - 2 if limit == 514 else limit for limit in limits)])

    @property
    def prompt(self) -> str | None:
        """The template that is put around every text; None for none."""
        return self.facts.prompt if self.facts is not None else None

    @property
    def form(self) -> str:
        """What the model reads: `text`, `pair`, `binary` or `multiclass`."""
        return self.facts.form if self.facts is not None else "text"

    @property
    def overflow(self) -> Overflow:
        """What becomes of longer texts."""
        return self.facts.overflow if self.facts is not None else "truncate"  # type: ignore[return-value]

    def threshold(self, *, abstain_below: float | None, target_accuracy: float | None) -> float | None:
        """From which confidence on this model shall answer: as given, or where its answers to validation were right as
        often as `target_accuracy`; None for always.

        Raises UsageError for both, for a model of several labels a text, where it has no coverage curve, or where no
        threshold reaches the target.
        """
        if abstain_below is None and target_accuracy is None:
            return None
        if abstain_below is not None and target_accuracy is not None:
            raise UsageError("--abstain-below and --target-accuracy both set the threshold", hint="give one of them")
        for name, value in (("--abstain-below", abstain_below), ("--target-accuracy", target_accuracy)):
            if value is not None and not 0 <= value <= 1:
                raise UsageError(f"{name} is {value}; it is a share, from 0 to 1")
        if self.label_set.multi:
            raise UsageError(
                "this model gives a text any number of labels, none included: it need not abstain",
                hint="--threshold says from which score on a label is given",
            )
        if target_accuracy is None:
            return abstain_below
        document = self.facts.calibration.get("coverage") if self.facts is not None else None
        if document is None:
            raise UsageError(
                f"{self.folder} does not say how right it was on validation, so --target-accuracy has nothing "
                "to choose by",
                hint="fine-tune it anew with this textclf, or give a threshold by --abstain-below",
            )
        return threshold_for(read_curve(document, where=str(self.folder)), target_accuracy).threshold

    def scope(self) -> np.ndarray:
        """The scale on which `scope.in_scope` reads energies, from validation.

        Raises UsageError for a model of several labels a text or of questions, or where it has no scale.
        """
        if self.label_set.multi or self.form in ("binary", "multiclass"):
            kind = "answers questions" if not self.label_set.multi else "gives a text any number of labels"
            raise UsageError(
                f"this model {kind}; whether a text is in scope is told by models that give a text one label"
            )
        document = self.facts.calibration.get("scope") if self.facts is not None else None
        if document is None:
            raise UsageError(
                f"{self.folder} does not say what texts in its scope look like",
                hint="fine-tune it anew with this textclf",
            )
        return read_scale(document, where=str(self.folder))

    def tokenizer(self) -> Tokenizer:
        """The Rust tokenizer in the folder. Raises ModelError where it cannot be read."""
        from tokenizers import Tokenizer

        try:
            return Tokenizer.from_file(str(self.folder / TOKENIZER))
        except Exception as err:  # the Rust side raises bare Exception
            raise ModelError(
                f"{self.folder / TOKENIZER} cannot be read: {err}", hint="copy the model folder again"
            ) from err


def read(folder: Path) -> Artifact:
    """Open a model folder. Raises ModelError naming what is missing, unreadable or too new."""
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder", hint="give a run name, a model folder or a Hub id")
    config = read_json(folder / CONFIG)
    if not (folder / WEIGHTS).is_file() and not (folder / WEIGHTS_INDEX).is_file():
        raise ModelError(f"{folder}: no weights ({WEIGHTS})", hint="copy the whole folder, or fine-tune again")
    if not (folder / TOKENIZER).is_file():
        raise ModelError(
            f"{folder}: no {TOKENIZER}", hint="save the tokenizer beside the model: tokenizer.save_pretrained(...)"
        )
    path = folder / TEXTCLF
    facts = facts_of(read_json(path), where=str(path)) if path.exists() else None
    thresholds = facts.thresholds if facts is not None else None
    return Artifact(folder, LabelSet.from_config(config, where=str(folder), thresholds=thresholds), config, facts)


def write_facts(folder: Path, facts: Facts) -> None:
    """Write textclf.json, and take out of tokenizer_config.json what only concerned this machine."""
    atomic.write_json(folder / TEXTCLF, asdict(facts))
    path = folder / TOKENIZER_CONFIG
    if path.is_file():
        settings = {k: v for k, v in read_json(path).items() if k not in LOADING_ONLY_KEYS}
        # transformers honours this key but does not save it: with it, pipeline() too reads "[SEP]" in a text as text.
        settings["split_special_tokens"] = True
        config = read_json(folder / CONFIG)
        kinds = (config.get("text_config") or config).get("type_vocab_size") or 0
        if facts.form == "pair" and kinds > 1:  # a tokenizer without a class of its own would not tell the texts apart
            settings["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
        atomic.write_json(path, settings)


def facts_of(document: dict[str, Any], *, where: str) -> Facts:
    """The facts in the content of a textclf.json. Raises ModelError naming `where` it is incomplete or too new."""
    version = document.get("schema_version")
    if not isinstance(version, int) or not _is_count(version) or version > SCHEMA_VERSION:
        raise ModelError(
            f"{where}: schema version {version!r}, this textclf reads up to {SCHEMA_VERSION}",
            hint="update textclf: pipx upgrade textclf",
        )
    for key, values in (("form", FORMS), ("overflow", OVERFLOWS)):
        if document.get(key, values[0]) not in values:
            raise ModelError(
                f"{where}: {key} {document[key]!r:.80} is not known to this textclf",
                hint="update textclf: pipx upgrade textclf",
            )
    known = Facts.__dataclass_fields__
    for key, value in document.items():
        check, wanted = _KINDS.get(key, (None, ""))
        if check is not None and not check(value):
            raise ModelError(f"{where}: {key} is {value!r:.80}, not {wanted}", hint="copy the model folder again")
    try:
        return Facts(**{key: value for key, value in document.items() if key in known})
    except TypeError as err:
        raise ModelError(f"{where} is not complete: {err}", hint="copy the model folder again") from err


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_prompt(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.count(PLACE) == 1)


def _is_length(value: Any) -> bool:
    return _is_count(value) and value >= 4  # as config.ModelConfig


def _each(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(check(one) for one in value.values())


def _are_objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


def _are_thresholds(value: Any) -> bool:
    return value is None or (
        isinstance(value, list) and all(type(one) in (int, float) and math.isfinite(one) for one in value)
    )


_KINDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "max_length": (_is_length, "a whole number of tokens, 4 or more"),
    "prompt": (_is_prompt, f"a text that holds {PLACE} once"),
    **dict.fromkeys(("base_model", "base_revision", "dataset", "dataset_id", "dataset_revision"), (_is_text, "a text")),
    "fingerprint": (_is_text, "a text"),
    **dict.fromkeys(("splits", "label_counts"), (_each(_is_count), "whole numbers by name")),
    **dict.fromkeys(("metrics", "config"), (_each(lambda value: isinstance(value, dict)), "groups of values by name")),
    **dict.fromkeys(("columns", "environment"), (_each(lambda value: isinstance(value, str)), "texts by name")),
    **dict.fromkeys(("calibration", "intervals"), (lambda value: isinstance(value, dict), "values by name")),
    **dict.fromkeys(("baselines", "confusions"), (_are_objects, "a list of objects")),
    "thresholds": (_are_thresholds, "a list of numbers"),
}
"""What each fact must be, where a reader relies on it: a check, and what it wants in words."""


def read_json(path: Path) -> dict[str, Any]:
    """A file of a model folder that holds one JSON object. Raises ModelError where it is missing or holds none."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise ModelError(f"{path.parent}: no {path.name}", hint="this is not a model folder") from err
    except OSError as err:
        raise ModelError(f"{path} cannot be read: {err.strerror}") from err
    except (ValueError, RecursionError) as err:
        raise ModelError(f"{path} is not valid JSON: {err}", hint="copy the model folder again") from err
    if not isinstance(document, dict):
        raise ModelError(f"{path} is not a JSON object", hint="copy the model folder again")
    return document
