"""The model folder: names of its files, the schema of textclf.json, reading and checking it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from textclf import atomic
from textclf.config import PLACE, Overflow
from textclf.errors import ModelError
from textclf.labels import LabelSet

if TYPE_CHECKING:
    from tokenizers import Tokenizer

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
WEIGHTS_INDEX = "model.safetensors.index.json"
TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
CARD = "README.md"
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

PUBLISHED = (CARD, MODELLING, MODELLING_OPENELM, HEAD_CODE, *LOADED, WEIGHTS, WEIGHTS_INDEX, WEIGHT_SHARDS)
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
    label_counts: label name -> rows in train.
    thresholds: probability from which each label is given, in the order of the labels, where a text may have several;
        None: 0.5 for all, or one label a text.
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
    prompt = document.get("prompt")
    if prompt is not None and (not isinstance(prompt, str) or prompt.count(PLACE) != 1):
        raise ModelError(f"{where}: its prompt does not hold {PLACE} once", hint="copy the model folder again")
    for key, values in (("form", FORMS), ("overflow", OVERFLOWS)):
        if document.get(key, values[0]) not in values:
            raise ModelError(
                f"{where}: {key} {document[key]!r:.80} is not known to this textclf",
                hint="update textclf: pipx upgrade textclf",
            )
    max_length, columns = document.get("max_length", 4), document.get("columns", {})
    if type(max_length) is not int or max_length < 4:  # as config.ModelConfig
        raise ModelError(
            f"{where}: max_length {max_length!r} is not a whole number of tokens, 4 or more",
            hint="copy the model folder again",
        )
    if not isinstance(columns, dict):
        raise ModelError(f"{where}: columns are not names by what they hold", hint="copy the model folder again")
    known = Facts.__dataclass_fields__
    for key, value in document.items():
        if key in _KINDS and not _KINDS[key](value):
            raise ModelError(f"{where}: {key} is {value!r:.80}", hint="copy the model folder again")
    try:
        return Facts(**{key: value for key, value in document.items() if key in known})
    except TypeError as err:
        raise ModelError(f"{where} is not complete: {err}", hint="copy the model folder again") from err


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _each(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(check(one) for one in value.values())


def _are_thresholds(value: Any) -> bool:
    return value is None or (
        isinstance(value, list) and all(type(one) in (int, float) and math.isfinite(one) for one in value)
    )


_KINDS: dict[str, Callable[[Any], bool]] = {
    "max_length": _is_count,
    **dict.fromkeys(("base_model", "base_revision", "dataset", "dataset_id", "dataset_revision"), _is_text),
    "fingerprint": _is_text,
    **dict.fromkeys(("splits", "label_counts"), _each(_is_count)),
    **dict.fromkeys(("metrics", "config"), _each(lambda value: isinstance(value, dict))),
    **dict.fromkeys(("columns", "environment"), _each(lambda value: isinstance(value, str))),
    "thresholds": _are_thresholds,
}
"""What each fact must be, where a reader relies on it."""


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
