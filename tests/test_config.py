"""The config says what is wrong in the user's own words, and reads text as the type that a knob has."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

from textclf import config
from textclf.config import DataConfig, ModelConfig, RunConfig, TrainConfig, assignment, build
from textclf.errors import ConfigError, UsageError


def refusal(layer: dict[str, Any]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        build(layer, where="run.yaml")
    return caught.value


def test_nothing_given_is_the_defaults() -> None:
    assert build() == build({}) == build({"train": {}}) == RunConfig()


@pytest.mark.parametrize(
    ("layer", "message", "hint"),
    [
        ({"trian": {"epochs": 3}}, "run.yaml: unknown section 'trian'", "did you mean train?"),
        (
            {"train": {"learning_rat": 1e-4}},
            "run.yaml: unknown key train.learning_rat",
            "did you mean train.learning_rate?",
        ),
        ({"data": {"epochs": 3}}, "run.yaml: unknown key data.epochs", "did you mean train.epochs?"),
        ({"train": 3}, "run.yaml: train is not a group of keys", "write train: with indented keys below"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(layer: dict[str, Any], message: str, hint: str) -> None:
    error = refusal(layer)
    assert (error.message, error.hint) == (message, hint)
    assert error.exit_code == 2


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ({"train": {"epochs": "many"}}, "train.epochs is 'many'; it is a number"),
        ({"train": {"epochs": math.nan}}, "train.epochs is nan; it is a number"),
        ({"train": {"epochs": "inf"}}, "train.epochs is 'inf'; it is a number"),
        ({"train": {"epochs": [3]}}, "train.epochs is [3]; it is a number"),
        ({"train": {"batch_size": 2.5}}, "train.batch_size is 2.5; it is a whole number"),
        ({"train": {"batch_size": True}}, "train.batch_size is True; it is a whole number"),
        ({"train": {"batch_size": None}}, "train.batch_size is None; it is a whole number"),
        ({"train": {"precision": "int8"}}, "train.precision is 'int8'; it is one of auto, bf16, fp16, fp32"),
        ({"train": {"schedule": False}}, "train.schedule is False; it is one of linear, cosine, constant"),
        ({"train": {"gradient_checkpointing": 1.5}}, "train.gradient_checkpointing is 1.5; it is true or false"),
        ({"model": {"allow_bin": "yes"}}, "model.allow_bin is 'yes'; it is true or false"),
        ({"model": {"revision": 123}}, "model.revision is 123; it is a text"),
        ({"data": {"columns": 5}}, "data.columns is 5; it is a list of names"),
    ],
)
def test_a_value_of_the_wrong_type_names_the_key_and_the_type(layer: dict[str, Any], message: str) -> None:
    assert refusal(layer).message == message


@pytest.mark.parametrize(
    ("layer", "key"),
    [
        ({"data": {"validation_size": 0}}, "data.validation_size"),
        ({"data": {"validation_size": 1}}, "data.validation_size"),
        ({"data": {"validation_size": 1.5}}, "data.validation_size"),
        ({"data": {"test_size": 1}}, "data.test_size"),
        ({"data": {"test_size": -0.1}}, "data.test_size"),
        ({"data": {"min_label_count": 0}}, "data.min_label_count"),
        ({"data": {"max_rows": 0}}, "data.max_rows"),
        ({"data": {"seed": -1}}, "data.seed"),
        ({"model": {"max_length": 3}}, "model.max_length"),
        ({"train": {"epochs": -1}}, "train.epochs"),
        ({"train": {"learning_rate": -1e-5}}, "train.learning_rate"),
        ({"train": {"head_learning_rate": 0}}, "train.head_learning_rate"),
        ({"train": {"max_minutes": 0}}, "train.max_minutes"),
        ({"train": {"batch_size": 0}}, "train.batch_size"),
        ({"train": {"micro_batch_size": 0}}, "train.micro_batch_size"),
        ({"train": {"micro_batch_tokens": 0}}, "train.micro_batch_tokens"),
        ({"train": {"eval_every": 0}}, "train.eval_every"),
        ({"train": {"warmup": 1}}, "train.warmup"),
        ({"train": {"warmup": -0.1}}, "train.warmup"),
        ({"train": {"label_smoothing": 1}}, "train.label_smoothing"),
        ({"train": {"weight_decay": -1}}, "train.weight_decay"),
        ({"train": {"max_grad_norm": -1}}, "train.max_grad_norm"),
        ({"train": {"patience": -1}}, "train.patience"),
    ],
)
def test_a_value_out_of_range_names_the_key(layer: dict[str, Any], key: str) -> None:
    (section,) = layer
    (value,) = layer[section].values()
    message = refusal(layer).message
    assert message.startswith(f"{key} is {value}"), message


def test_no_epochs_need_the_probe() -> None:
    assert build({"train": {"epochs": 0}}).train.epochs == 0
    assert "nothing would be learnt" in refusal({"train": {"epochs": 0, "probe": False}}).message


@pytest.mark.parametrize(
    ("layer", "allowed"),
    [
        ({"data": {"test_size": 0}}, 0),
        ({"data": {"test_size": 0.99}}, 0.99),
        ({"data": {"test_size": 500}}, 500),
        ({"model": {"max_length": 4}}, 4),
        ({"train": {"epochs": 0.5}}, 0.5),
        ({"train": {"warmup": 0}}, 0),
        ({"train": {"max_grad_norm": 0}}, 0),
        ({"train": {"weight_decay": 0}}, 0),
    ],
)
def test_values_on_the_border_are_allowed(layer: dict[str, Any], allowed: float) -> None:
    (section,) = layer
    (name,) = layer[section]
    assert getattr(getattr(build(layer), section), name) == allowed


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("train.learning_rate=3e-5", 3e-5),
        ("train.batch_size=16", 16),
        ("train.batch_size=1e2", 100),
        ("train.epochs=auto", None),
        ("train.epochs=", None),
        ("train.gradient_checkpointing=true", True),
        ("train.gradient_checkpointing=false", False),
        ("train.class_weights=none", "none"),
        ("train.device=auto", "auto"),
        ("data.columns=text, label", ("text", "label")),
        ("data.text_column=a=b", "a=b"),
        ("model.max_length=none", None),
    ],
)
def test_text_from_the_command_line_is_read_as_the_knobs_type(text: str, value: object) -> None:
    layer = assignment(text)
    (section,) = layer
    (name,) = layer[section]
    found = getattr(getattr(build(layer), section), name)
    assert found == value
    assert type(found) is type(value)


def test_yaml_reads_1e_4_as_text_and_it_is_still_a_number() -> None:
    # YAML 1.1 wants a dot: `1e-4` is a string, `1.0e-4` a number.
    assert build({"train": {"learning_rate": "1e-4"}}).train.learning_rate == 1e-4


@pytest.mark.parametrize("text", ["epochs=3", "train.epochs", "train.=3", ".epochs=3", "=", ""])
def test_set_without_section_field_and_value_shows_an_example(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        assignment(text)
    assert caught.value.message == f"--set {text}: not of the form section.field=value"
    assert "--set train.warmup=0.05" in (caught.value.hint or "")


def test_flags_find_their_section_and_seed_is_the_trainings() -> None:
    assert config.by_field({"epochs": 2, "dataset": "x.csv", "seed": 5}) == {
        "train": {"epochs": 2, "seed": 5},
        "data": {"dataset": "x.csv"},
    }
    with pytest.raises(ConfigError, match="epohcs"):
        config.by_field({"epohcs": 2})


def test_a_config_never_changes_once_built() -> None:
    built = build({"train": {"epochs": 2}})
    with pytest.raises(dataclasses.FrozenInstanceError):
        built.train.epochs = 3  # type: ignore[misc]


def test_build_leaves_its_layers_alone() -> None:
    layer = {"train": {"epochs": 2}}
    build(layer, {"train": {"epochs": 3, "seed": 1}})
    assert layer == {"train": {"epochs": 2}}


def test_as_dict_is_plain_json() -> None:
    built = RunConfig(
        data=DataConfig(columns=("text", "label")), model=ModelConfig(name="m"), train=TrainConfig(epochs=1.5)
    )
    assert build(json.loads(json.dumps(config.as_dict(built)))) == built


def test_what_is_missing_is_said_with_a_working_example() -> None:
    with pytest.raises(UsageError) as caught:
        config.check_complete(build({"model": {"name": "m"}}))
    assert caught.value.message == "finetune needs a data set"
    assert "textclf finetune --preset quickstart" in (caught.value.hint or "")
    config.check_complete(build({"data": {"dataset": "x.csv"}}))


def test_every_knob_is_documented() -> None:
    import ast
    from pathlib import Path

    tree = ast.parse(Path(config.__file__).read_text(encoding="utf-8"))
    sections = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    for name in ("DataConfig", "ModelConfig", "TrainConfig"):
        body = sections[name].body
        for knob, after in zip(body, [*body[1:], None], strict=True):
            if isinstance(knob, ast.AnnAssign):
                documented = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                assert documented, f"{name}.{ast.unparse(knob.target)} says nothing about itself"


def test_what_is_said_of_one_model_is_not_said_of_the_one_in_its_place() -> None:
    preset = {"model": {"name": "a/b", "tokenizer": "c/d", "revision": "main", "allow_bin": True, "max_length": 64}}
    kept, changed = build(preset, {"model": {"name": "a/b"}}).model, build(preset, {"model": {"name": "e/f"}}).model
    assert (kept.tokenizer, kept.revision, kept.allow_bin) == ("c/d", "main", True)
    assert (changed.tokenizer, changed.revision, changed.allow_bin) == (None, None, False)
    assert changed.max_length == 64
    given = build(preset, {"model": {"name": "e/f", "tokenizer": "g/h"}}).model
    assert given.tokenizer == "g/h"
