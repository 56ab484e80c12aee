"""Every knob of a run: what it means, its unit, its default and the reason. Standard library only.

A config never changes once built; `dataclasses.replace` or `build` make another. `None` means
"chosen from the data and the model"; what was chosen is printed and written beside the run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import math
import reprlib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from textclf import plugins, pretrained
from textclf.errors import ConfigError, UsageError

Overflow = Literal["truncate", "head-tail", "window"]


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """What the texts and labels are, and how they are split."""

    dataset: str | None = None
    """Catalog name, file, folder or Hub id `owner/name[:config]`."""
    text_column: str | None = None
    """Column of the texts. None: found by name."""
    text_pair_column: str | None = None
    """Column of the second text, where a row is a pair of texts. None: found where the names leave no doubt (premise
    and hypothesis, sentence1 and sentence2, question1 and question2), else there is none."""
    label_column: str | None = None
    """Column of the labels. None: found by name."""
    label_delimiter: str | None = None
    """What stands between the labels of a row in one text, as `|` in `late|broken`. None: a text is one label."""
    label_columns: tuple[str, ...] | None = None
    """Columns of 0 and 1, one for each label of which a row may have any number, in place of label_column."""
    form: Literal["binary", "multiclass"] | None = None
    """How questions with choices are read. multiclass: question and choices together, the label is a letter. binary:
    each choice by itself, correct or not. None: rows are texts or pairs of texts, or as the catalog says."""
    shuffle_choices: bool = False
    """Put the choices of training questions into a random order, one for each question and seed, against a liking for
    positions. For form multiclass."""
    columns: tuple[str, ...] | None = None
    """Column names of a csv or tsv file that has no header line, in order."""
    validation_size: float = 0.1
    """Cut from train where the source has no validation split: a share below 1, or a number of rows."""
    test_size: float = 0.1
    """Cut from train where the source has no test split: a share below 1, or a number of rows; 0 forgoes it."""
    min_label_count: int | None = None
    """Rows of labels rarer than this in train are dropped, in every split. None: 1, or as the catalog says."""
    other_label: str | None = None
    """Gather labels rarer than min_label_count under this name instead, in every split. None: drop them."""
    balance: int | Literal["min"] | None = None
    """Keep at most this many rows of each label in train, drawn at random; min: as many as the rarest label has.
    One label a row only."""
    max_rows: int | None = None
    """Keep a random sample of at most this many rows of each split of the source."""
    corrections: str | None = None
    """A csv as `textclf audit` writes it, reviewed: rows with another label in its column `correction`, or `(drop)`."""
    drop_leaks: Literal["train", "test"] | None = None
    """Where validation or test have copies of texts of train, drop those of train, or those of validation and test.
    Copies but for case, blanks and punctuation count, and near copies where they were looked for."""
    thorough: bool = False
    """Look for near copies in data of any size (else in up to 2 million characters), and whether the splits can be
    told apart by their texts."""
    seed: int = 0
    """Of sampling and splitting. Apart from train.seed, so that several trainings share one split."""

    def __post_init__(self) -> None:
        _not_empty("data.dataset", self.dataset)
        _not_empty("data.other_label", self.other_label)
        _not_empty("data.corrections", self.corrections)
        self._check_labels()
        for name in ("validation_size", "test_size"):
            size = getattr(self, name)
            if size < 0 or (size > 1 and size != int(size)):
                raise ConfigError(f"data.{name} is {size}; give a share below 1 or a whole number of rows")
            if size == 1:
                raise ConfigError(f"data.{name} is 1; a share lies below 1 (0.1), a number of rows above (100)")
        if self.validation_size == 0:
            raise ConfigError("data.validation_size is 0; the best checkpoint is chosen on validation rows")
        if self.text_pair_column is not None and self.form is not None:
            raise ConfigError(
                f"data.text_pair_column is given beside data.form {self.form}, which finds question and choices itself"
            )
        if self.shuffle_choices and self.form == "binary":
            raise ConfigError(
                "data.shuffle_choices changes nothing in form binary, where each choice is read by itself"
            )
        _at_least("data.min_label_count", self.min_label_count, 1)
        _at_least("data.max_rows", self.max_rows, 1)
        _at_least("data.seed", self.seed, 0)

    def _check_labels(self) -> None:
        if self.label_delimiter == "":
            raise ConfigError("data.label_delimiter is empty", hint="for example --label-delimiter '|'")
        if self.label_columns is not None:
            if len(set(self.label_columns)) != len(self.label_columns) or len(self.label_columns) < 2:
                raise ConfigError(
                    f"data.label_columns is {', '.join(self.label_columns)}; it is two different columns or more"
                )
            if self.label_column is not None or self.label_delimiter is not None:
                raise ConfigError(
                    "data.label_columns are columns of 0 and 1; label_column and label_delimiter are of one column",
                    hint="give --label-columns alone, or the others",
                )
        if isinstance(self.balance, int):
            _at_least("data.balance", self.balance, 1)


PLACE = "{text}"
"""Where in a prompt the text goes."""

HEADS = ("auto", "own", "native", "cls", "mean", "max", "last", "attention")
"""Heads by name. Others are code: `FILE.py:CLASS`, or what an installed package registers."""


def file_and_class(head: str) -> tuple[str, str] | None:
    """The two parts of a head given as `FILE.py:CLASS`; None for a head that is a name."""
    path, colon, name = head.rpartition(":")
    return (path, name) if colon and path.endswith(".py") and name.isidentifier() else None


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which pretrained model, and how much of a text it reads."""

    name: str = pretrained.NAME
    """Hub id or folder of the pretrained model. textclf-mini is English and small, and comes with textclf."""
    revision: str | None = None
    """Branch, tag or commit on the Hub. None: the main branch."""
    tokenizer: str | None = None
    """Hub id or folder of a tokenizer, for a model that brings none, such as OpenELM. None: the model's own."""
    max_length: int | None = None
    """Tokens of a text that the model reads. None: 64, 128, 256 or 512, the first that 99 % of the texts fit in."""
    overflow: Overflow = "truncate"
    """What becomes of longer texts. truncate: the start is read. head-tail: the first quarter and the last three of
    max_length. window: all of it, in windows that overlap by a quarter and whose logits are averaged; in training each
    window carries its share of the text's weight."""
    head: str = "auto"
    """own (or native): the architecture's. cls, mean, max, last, attention: layers over the first token, over the mean,
    the largest or the last of the hidden states, or over a mean whose weights are learnt. auto: own, or the pooling
    that the model was pretrained with, where a linear probe on it is clearly better. `FILE.py:CLASS`, or a name that
    an installed package registers: code of your own, see docs/how-to/own-head.md."""
    head_hidden: int | None = None
    """Numbers in a hidden layer (GELU) of a pooled head. None: no such layer, the same as 0."""
    head_dropout: float | None = None
    """Share of the numbers dropped before each layer of a pooled head, 0 to 1. None: the pretrained model's own."""
    add_symbols: bool = True
    """Give emoji and other symbols of the training texts that the tokenizer does not know tokens of their own; see
    docs/explanation/defaults.md. Never with LoRA, whose adapters belong to the pretrained vocabulary."""
    prompt: str | None = None
    """Words around every text, `Classify: {text}`; kept with the model, which puts them there in prediction too."""
    freeze: int | Literal["embeddings"] | None = None
    """What of the pretrained model stays as it is: `embeddings`, or a number for the embeddings and so many layers."""
    lora: int | None = None
    """Rank of low-rank adapters that learn in place of the pretrained model's layers; merged into them in the end.
    None: the layers learn themselves. Needs the extra `lora`."""
    allow_bin: bool = False
    """Open weights in PyTorch's pickle format where a model has no safetensors (with `weights_only`)."""

    def __post_init__(self) -> None:
        _not_empty("model.name", self.name)
        _not_empty("model.tokenizer", self.tokenizer)
        _at_least("model.max_length", self.max_length, 4)
        _at_least("model.head_hidden", self.head_hidden, 0)
        _at_least("model.lora", self.lora, 1)
        if self.head_dropout is not None and not 0 <= self.head_dropout < 1:
            raise ConfigError(f"model.head_dropout is {self.head_dropout}; it is a share, from 0 up to 1")
        _at_least("model.freeze", self.freeze if isinstance(self.freeze, int) else None, 1)
        if self.prompt is not None and self.prompt.count(PLACE) != 1:
            raise ConfigError(
                f"model.prompt is {self.prompt!r}; it holds {PLACE} once, where the text goes",
                hint=f'for example --prompt "Classify: {PLACE}"',
            )
        if self.prompt is not None and self.overflow != "truncate":
            raise ConfigError(
                f"model.prompt does not go with model.overflow {self.overflow}: it stands around a text's start",
                hint="leave out one of the two",
            )
        if self.head == "native":
            object.__setattr__(self, "head", "own")  # one name for one thing
        self._check_head()

    def _check_head(self) -> None:
        is_code = self.head not in HEADS
        if is_code and file_and_class(self.head) is None and self.head not in plugins.names(plugins.HEADS):
            raise ConfigError(
                f"model.head is {self.head!r}; it is one of {', '.join(HEADS)}, or FILE.py:CLASS",
                hint=f"installed heads: {', '.join(plugins.names(plugins.HEADS)) or 'none'}",
            )
        if is_code and (self.head_hidden or self.head_dropout is not None):
            raise ConfigError(
                f"model.head is {self.head}, whose layers are its code's; head_hidden and head_dropout are for others",
                hint="choose --head cls, mean, max, last or attention",
            )
        if self.head == "own" and (self.head_hidden or self.head_dropout is not None):
            raise ConfigError(
                "model.head is own, whose layers are the architecture's; head_hidden and head_dropout are for others",
                hint="choose --head cls, mean, max, last or attention",
            )


Precision = Literal["auto", "bf16", "fp16", "fp32"]
Metric = Literal[
    "accuracy", "macro_f1", "weighted_f1", "mcc", "loss", "question_accuracy",
    "micro_f1", "samples_f1", "subset_accuracy", "hamming_loss", "lrap",
]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How the model learns."""

    epochs: float | None = None
    """Passes over train. None: from 3 to 15, as many as make about 300 steps, up to 600 with more than 37 labels, or
    1,000 where the head starts from nothing. 0: the linear probe alone."""
    probe: bool = True
    """Start the head from a linear probe: logistic regression on the pretrained features. Never end below it."""
    baselines: bool = True
    """Measure beside the model what is simpler: the most frequent label, TF-IDF with a linear model, and the probe."""
    learning_rate: float | None = None
    """Peak rate of the backbone. None: by its width, 2e-4 at 384, 3.5e-5 at 768, and 1.4 times that without a probe,
    ten times with LoRA; see docs/explanation/defaults.md."""
    head_learning_rate: float | None = None
    """Peak rate of the head. None: learning_rate where it starts from a probe, else ten times that, at most 3e-3."""
    layer_decay: float | None = None
    """The rate of each layer as a share of the one's above it, above 0, up to 1; the last layer has learning_rate.
    None: all layers learn at one rate."""
    batch_size: int = 32
    """Texts per optimizer step."""
    micro_batch_size: int | None = None
    """Texts per forward pass, those that are read twice counted twice; gradients add up to batch_size. None: only
    micro_batch_tokens bounds it."""
    micro_batch_tokens: int | None = None
    """Tokens per forward pass, padding included: what bounds memory. One text always passes, however long.
    None: 2,048 on a CPU, where longer passes are no faster, else 16,384."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the rate goes after warm-up: to zero in a line, to zero along a cosine, or not at all."""
    warmup: float = 0.1
    """Share of all steps, 0 to 1, over which the rate rises from zero."""
    weight_decay: float = 0.01
    """AdamW's decay, on matrices only: not on biases, norms and their like."""
    max_grad_norm: float = 1.0
    """The gradient is scaled down to this norm; 0 turns clipping off."""
    averaging: float = 0.2
    """Share of the run's steps, 0 to 1, that the weights are averaged over (exponentially) for every evaluation and
    for the model at the end. 0 takes the last weights as they are."""
    interpolate: bool = True
    """Where the model could answer before its first step, as a linear probe does, go back from the last weights towards
    the first as long as the loss on validation falls; see docs/explanation/defaults.md. false takes those of the best
    checkpoint."""
    label_smoothing: float | None = None
    """Share of the target that is spread over all labels, 0 to 1. None: 0.1, which forgives some wrong labels; 0
    where a text may have several labels."""
    r_drop: float | None = None
    """Weight of what two passes of a text answer differently, as dropout hides other numbers from each (R-Drop): texts
    are learnt from more thoroughly, in up to twice the time. 0: one pass. None: 4 where the head knows the labels
    already, as after a probe, labels are few, texts short and steps 200 or more; see docs/explanation/defaults.md."""
    class_weights: Literal["none", "balanced"] = "none"
    """`balanced` gives every label the same total say in the loss; where a text may have several, yes and no."""
    metric: Metric | None = None
    """What the best checkpoint is chosen by, on validation. None: accuracy; micro_f1 where a text may have several
    labels; question_accuracy where rows are questions with choices."""
    patience: int = 0
    """Stop early after this many evaluations without a better metric; 0 never does."""
    eval_every: int | None = None
    """Steps between evaluations. None: once an epoch."""
    keep: int = 2
    """Checkpoints that stay on the disk during a run, the newest ones; the best stays besides, and the first where
    a model could answer before its first step."""
    max_minutes: float | None = None
    """Wall-clock budget of the run; the schedule reaches its end within it."""
    precision: Precision = "auto"
    """Of the forward and backward pass. auto: bf16 where the device has it, fp16 on older CUDA, else fp32."""
    device: str = "auto"
    """auto, cpu, mps, cuda or cuda:N."""
    gradient_checkpointing: bool = False
    """Compute activations twice instead of keeping them: less memory, about a third more time."""
    seed: int = 0
    """Of the head's weights, the order of texts and dropout."""

    def __post_init__(self) -> None:
        _at_least("train.epochs", self.epochs, 0)
        _above("train.learning_rate", self.learning_rate, 0)
        _above("train.head_learning_rate", self.head_learning_rate, 0)
        _above("train.max_minutes", self.max_minutes, 0)
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise ConfigError(f"train.layer_decay is {self.layer_decay}; it is a share, above 0 and up to 1")
        for name in ("batch_size", "micro_batch_size", "micro_batch_tokens", "eval_every", "keep"):
            _at_least(f"train.{name}", getattr(self, name), 1)
        for name in ("weight_decay", "max_grad_norm", "patience", "r_drop", "seed"):
            _at_least(f"train.{name}", getattr(self, name), 0)
        if not 0 <= self.warmup < 1:
            raise ConfigError(f"train.warmup is {self.warmup}; it is a share of all steps, from 0 up to 1")
        if not 0 <= self.averaging < 1:
            raise ConfigError(f"train.averaging is {self.averaging}; it is a share of all steps, from 0 up to 1")
        if self.label_smoothing is not None and not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"train.label_smoothing is {self.label_smoothing}; it is a share, from 0 up to 1")
        if self.epochs == 0 and not self.probe:
            raise ConfigError("train.epochs is 0 and train.probe is off: nothing would be learnt")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All of a run. The same config on the same data and machine gives the same model."""

    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


SECTIONS: dict[str, type] = {"data": DataConfig, "model": ModelConfig, "train": TrainConfig}


_OF_ONE_MODEL = ("tokenizer", "revision", "allow_bin")


def build(*layers: Mapping[str, Any], where: str = "config") -> RunConfig:
    """Merge nested mappings, later over earlier, into a RunConfig.

    A model that takes another's place does so without that one's tokenizer, revision and leave to open pickles.
    Raises ConfigError for an unknown section or key (with the nearest known name), a value of the
    wrong type or out of range.
    """
    merged: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for layer in layers:
        for section, values in layer.items():
            if section not in SECTIONS:
                raise ConfigError(f"{where}: unknown section {section!r}", hint=_nearest(section, list(SECTIONS)))
            if not isinstance(values, Mapping):
                raise ConfigError(
                    f"{where}: {section} is not a group of keys", hint=f"write {section}: with indented keys below"
                )
            if section == "model" and "name" in values and values["name"] != merged[section].get("name"):
                for key in _OF_ONE_MODEL:
                    merged[section].pop(key, None)
            merged[section].update(values)
    return RunConfig(**{name: _section(cls, name, merged[name], where) for name, cls in SECTIONS.items()})


def check_complete(config: RunConfig) -> None:
    """Raises UsageError for a config that names no data set."""
    if config.data.dataset is None:
        raise UsageError(
            "finetune needs a data set",
            hint="for example: textclf finetune --dataset tickets.csv, or textclf finetune --preset quickstart",
        )


def as_dict(config: RunConfig) -> dict[str, dict[str, Any]]:
    """The config as nested plain values, ready for JSON or YAML and for `build`."""
    nested = dataclasses.asdict(config)
    for name in ("columns", "label_columns"):
        names = nested["data"][name]
        nested["data"][name] = list(names) if names is not None else None
    return nested


def by_field(settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Group settings given by name alone, `epochs=3`; `seed` is train's. Raises ConfigError for an unknown name."""
    homes = {f.name: section for section, cls in SECTIONS.items() for f in dataclasses.fields(cls)}
    nested: dict[str, dict[str, Any]] = {}
    for name, value in settings.items():
        if name not in homes:
            raise ConfigError(f"unknown setting {name!r}", hint=_nearest(name, list(homes)))
        nested.setdefault(homes[name], {})[name] = value
    return nested


def assignment(text: str) -> dict[str, dict[str, Any]]:
    """Read one `section.field=value`, the value as text. Raises ConfigError unless it has that form."""
    key, equals, value = text.partition("=")
    section, dot, name = key.strip().partition(".")
    if not equals or not dot or not section or not name:
        raise ConfigError(
            f"--set {text}: not of the form section.field=value", hint="for example --set train.warmup=0.05"
        )
    return {section: {name: value}}


def _section(cls: type, section: str, values: Mapping[str, Any], where: str) -> Any:
    hints = typing.get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise ConfigError(f"{where}: unknown key {section}.{key}", hint=_nearest(f"{section}.{key}", _all_keys()))
    return cls(**{key: _typed(f"{section}.{key}", value, hints[key]) for key, value in values.items()})


def _typed(key: str, value: Any, hint: Any) -> Any:
    """`value` as the field's type; text (from --set) is read as that type."""
    options = (
        typing.get_args(hint)
        if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union
        else (hint,)
    )
    # A text may be called "none" or "auto"; where the field is no text, the words mean: not set.
    if type(None) in options and (value is None or (str not in options and value in ("none", "null", "auto", ""))):
        return None
    for option in options:
        if typing.get_origin(option) is Literal:
            if value in typing.get_args(option):
                return value
            if int in options[options.index(option) :]:
                continue
            or_else = "a whole number, or " if int in options else ""
            raise ConfigError(f"{key} is {_shown(value)}; it is {or_else}one of {', '.join(typing.get_args(option))}")
        if typing.get_origin(option) is tuple and _is_list_of_names(value):
            return (
                tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else tuple(map(str, value))
            )
        if option is bool and (isinstance(value, bool) or value in ("true", "false")):
            return value in (True, "true")
        if option is str and isinstance(value, str):
            return value
        if option in (int, float) and isinstance(value, (int, float, str)) and not isinstance(value, bool):
            with contextlib.suppress(ValueError, OverflowError):
                number = float(value)
                if option is int and number.is_integer():
                    # Not by way of float, which rounds above 2^53.
                    return value if isinstance(value, int) else int(value) if _is_digits(value) else int(number)
                if option is float and math.isfinite(number):
                    return number
    kinds = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
    wanted = " or ".join(
        kinds.get(o) or ("a list of names" if typing.get_origin(o) is tuple else "/".join(typing.get_args(o)))
        for o in options
        if o is not type(None)
    )
    raise ConfigError(f"{key} is {_shown(value)}; it is {wanted}")


def _shown(value: Any) -> str:
    """A value in a message: short, and without following what a YAML file repeats by reference a million times."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother, short.maxlong = 2, 120, 120, 40
    return short.repr(value)


def _all_keys() -> list[str]:
    return [f"{section}.{f.name}" for section, cls in SECTIONS.items() for f in dataclasses.fields(cls)]


def _is_list_of_names(value: Any) -> bool:
    several = isinstance(value, (list, tuple)) and all(isinstance(name, (str, int, float)) for name in value)
    return isinstance(value, str) or several


def _is_digits(value: float | str) -> bool:
    return isinstance(value, str) and value.strip().lstrip("+-").isdecimal()


def _nearest(name: str, known: list[str]) -> str:
    # By the part after the dot: the section is shared by many keys, and may be the one that is wrong.
    by_last = {key.rpartition(".")[2]: key for key in known}
    close = difflib.get_close_matches(name.rpartition(".")[2], list(by_last), n=1, cutoff=0.5)
    return f"did you mean {by_last[close[0]]}?" if close else f"known: {', '.join(known)}"


def _not_empty(key: str, value: str | None) -> None:
    if value is not None and not value.strip():
        raise ConfigError(f"{key} is empty", hint="is a variable of your shell unset?")


def _at_least(key: str, value: float | None, least: int) -> None:
    if value is not None and value < least:
        raise ConfigError(f"{key} is {value}; it is at least {least}")


def _above(key: str, value: float | None, bound: float) -> None:
    if value is not None and value <= bound:
        raise ConfigError(f"{key} is {value}; it is above {bound}")
