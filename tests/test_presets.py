"""Presets, config files and the order in which they are laid over each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from textclf import presets
from textclf.config import DataConfig, ModelConfig, RunConfig, TrainConfig, as_dict, assignment, build, by_field
from textclf.data.catalog import CATALOG
from textclf.errors import ConfigError, DataError


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_builds_and_changes_something(name: str) -> None:
    layer = presets.load(name)
    built = build(layer, where=name)
    assert built != RunConfig()
    defaults = as_dict(RunConfig())
    for section, values in layer.items():
        for key, value in values.items():
            assert value != defaults[section][key], f"{section}.{key} is the default anyway"


def test_the_quickstart_brings_its_data() -> None:
    assert "quickstart" in presets.names()
    assert presets.load("quickstart")["data"]["dataset"] == "quickstart"
    assert presets.dataset_path("quickstart").read_text(encoding="utf-8").startswith("text,label\n")


@pytest.mark.parametrize("name", ["quickstat", "Quickstart", "quick-start"])
def test_an_unknown_preset_names_the_nearest_and_all(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        presets.load(name)
    assert caught.value.message == f"no preset {name!r}"
    assert caught.value.hint == f"did you mean quickstart? there are: {', '.join(presets.names())}"


@pytest.mark.parametrize("name", ["", "../config", "quickstart.yaml", "/etc/passwd", "zzz"])
def test_a_preset_is_a_name_and_never_a_path(name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        presets.load(name)
    assert "quickstart" in (caught.value.hint or "")


def test_an_unknown_shipped_data_set_is_bad_data() -> None:
    with pytest.raises(DataError, match="did you mean quickstart"):
        presets.dataset_path("quickstrt")


def test_later_layers_win_key_by_key(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("data: {validation_size: 0.3}\ntrain: {epochs: 3, batch_size: 3, warmup: 0.3, seed: 3}\n")
    preset = {
        "data": {"test_size": 0.2},
        "train": {"epochs": 2, "batch_size": 2, "warmup": 0.2, "seed": 2, "patience": 2},
    }
    built = build(
        preset,
        presets.read_config_file(file),
        by_field({"batch_size": 4, "warmup": 0.4}),
        assignment("train.warmup=0.5"),
    )
    assert (built.data.test_size, built.data.validation_size) == (0.2, 0.3)
    assert (built.train.patience, built.train.epochs, built.train.seed) == (2, 3, 3)
    assert (built.train.batch_size, built.train.warmup) == (4, 0.5)
    assert built.train.weight_decay == TrainConfig().weight_decay


_whole = st.integers(0, 2**53)
_counts = st.integers(1, 2**53)
_numbers = st.floats(0, exclude_min=True, allow_nan=False, allow_infinity=False)
_shares = st.floats(0, 1, exclude_max=True)
_sizes = st.floats(0, 1, exclude_min=True, exclude_max=True) | st.integers(2, 10**9).map(float)
# A name of blanks alone is refused.
_names = st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip)


def _maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


_configs = st.builds(
    RunConfig,
    data=st.builds(
        DataConfig,
        dataset=_maybe(_names),
        text_column=_maybe(_names),
        label_column=_maybe(_names),
        columns=_maybe(st.lists(_names, min_size=1, max_size=3).map(tuple)),
        validation_size=_sizes,
        test_size=_sizes | st.just(0.0),
        min_label_count=_counts,
        max_rows=_maybe(_counts),
        seed=_whole,
    ),
    model=st.builds(
        ModelConfig,
        name=_names,
        revision=_maybe(_names),
        tokenizer=_maybe(_names),
        max_length=_maybe(st.integers(4, 2**31)),
        allow_bin=st.booleans(),
        head=st.sampled_from(["auto", "own", "mean"]),
    ),
    train=st.builds(
        TrainConfig,
        epochs=_maybe(_numbers),
        learning_rate=_maybe(_numbers),
        head_learning_rate=_maybe(_numbers),
        batch_size=_counts,
        micro_batch_size=_maybe(_counts),
        micro_batch_tokens=_maybe(_counts),
        warmup=_shares,
        label_smoothing=_shares,
        r_drop=_maybe(_numbers),
        weight_decay=_numbers,
        max_grad_norm=_numbers,
        patience=_whole,
        eval_every=_maybe(_counts),
        max_minutes=_maybe(_numbers),
        device=st.sampled_from(["auto", "cpu", "mps", "cuda:1"]),
        gradient_checkpointing=st.booleans(),
        probe=st.just(True),
        seed=_whole,
    ),
)


@given(_configs)
def test_what_a_run_wrote_can_be_given_back(config: RunConfig) -> None:
    assert build(as_dict(config)) == config
    assert build(json.loads(json.dumps(as_dict(config)))) == config
    assert build(yaml.safe_load(yaml.safe_dump(as_dict(config)))) == config


def _file(tmp_path: Path, text: str, name: str = "run.yaml") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def _refusal(path: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        presets.read_config_file(path)
    assert caught.value.message.startswith(str(path))
    assert caught.value.exit_code == 2
    return caught.value


def test_the_config_of_a_run_can_be_read_back(tmp_path: Path) -> None:
    config = build({"data": {"dataset": "ü.csv", "columns": ["text", "label"]}, "train": {"learning_rate": 1e-4}})
    assert build(presets.read_config_file(_file(tmp_path, json.dumps(as_dict(config)), "config.json"))) == config
    assert build(presets.read_config_file(_file(tmp_path, yaml.safe_dump(as_dict(config))))) == config


@pytest.mark.parametrize(
    ("name", "text"), [("run.yaml", ""), ("run.yml", "# nothing yet\n"), ("run.json", "\n"), ("run.json", "null")]
)
def test_an_empty_file_changes_nothing(tmp_path: Path, name: str, text: str) -> None:
    assert presets.read_config_file(_file(tmp_path, text, name)) == {}


def test_a_section_with_all_its_keys_commented_out_changes_nothing(tmp_path: Path) -> None:
    path = _file(tmp_path, "train:\n  # epochs: 3\ndata:\n  seed: 1\n")
    assert build(presets.read_config_file(path)) == build({"data": {"seed": 1}})


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    assert presets.read_config_file(_file(tmp_path, "\ufefftrain: {seed: 1}\n")) == {"train": {"seed": 1}}


@pytest.mark.parametrize(
    ("name", "text", "line"),
    [
        ("run.yaml", "train:\n  epochs: 3\n  seed: [1\n", 4),
        ("run.yaml", "train:\n  epochs: 3\n   seed: 1\n", 3),
        ("run.yaml", "train:\n\tepochs: 3\n", 2),
        ("run.yaml", "train: *nowhere\n", 1),
        ("run.yaml", "a: 1\n---\nb: 2\n", 2),
        ("run.yaml", "train:\n  epochs: !!python/object/apply:os.getcwd []\n", 2),
        ("run.yaml", "train:\n  epochs: 3\n  device: \x07\n", 3),
        ("run.json", '{"train": {\n"epochs": 3,\n}}', 3),
    ],
)
def test_broken_syntax_names_file_and_line(tmp_path: Path, name: str, text: str, line: int) -> None:
    path = _file(tmp_path, text, name)
    assert f"{path}, line {line}: " in _refusal(path).message


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("run.yaml", "- train\n- data\n", "holds a list"),
        ("run.yaml", "epochs 3\n", "holds a text"),
        ("run.json", "3", "holds a number"),
        ("run.json", "[]", "holds a list"),
    ],
)
def test_a_file_without_sections_shows_how_to_write_one(tmp_path: Path, name: str, text: str, found: str) -> None:
    error = _refusal(_file(tmp_path, text, name))
    assert found in error.message
    assert "train:\n    epochs: 5" in (error.hint or "")


@pytest.mark.parametrize(
    ("name", "text", "key"),
    [
        ("run.yaml", "train:\n  epochs: 3\ndata:\n  seed: 1\ntrain:\n  seed: 1\n", "line 5: train"),
        ("run.yaml", "train:\n  epochs: 3\n  epochs: 4\n", "line 3: epochs"),
        ("run.json", '{"train": {"epochs": 3, "epochs": 4}}', "epochs"),
    ],
)
def test_a_key_given_twice_is_refused_and_not_dropped(tmp_path: Path, name: str, text: str, key: str) -> None:
    assert f"{key} is given twice" in _refusal(_file(tmp_path, text, name)).message


@pytest.mark.parametrize("text", ["1: {seed: 1}\n", "train:\n  on: 1\n", "? [a]\n: 1\n", "null: 3\n"])
def test_a_key_that_is_no_name_is_refused_with_its_line(tmp_path: Path, text: str) -> None:
    assert "is not the name of a key" in _refusal(_file(tmp_path, text)).message


def test_files_that_cannot_be_read_say_why(tmp_path: Path) -> None:
    assert "no such file" in _refusal(tmp_path / "absent.yaml").message
    assert "a folder" in _refusal(tmp_path).message
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("data:\n  dataset: bücher.csv\n".encode("latin-1"))
    assert "line 2: not UTF-8" in _refusal(latin).message
    deep = _file(tmp_path, "[" * 100_000, "deep.json")
    assert "nested too deeply" in _refusal(deep).message
    assert "broken JSON" in _refusal(_file(tmp_path, '{"train": {"seed": ' + "1" * 5000 + "}}", "long.json")).message


TINY = {
    "mmlu-modernbert-binary": "modernbert",
    "mmlu-modernbert-multiclass": "modernbert",
    "banking77-tinybert": "bert",
    "banking77-distilbert": "distilbert",
    "scientific-distilbert": "distilbert",
    "scientific-gpt2": "gpt2",
    "bert-base": "bert",
    "hate-openelm-270m": "openelm",
    "hate-openelm-450m": "openelm",
}
"""A tiny model of the architecture of each preset."""


def _rows_like(dataset: str | None) -> str:
    """A few rows with the columns that the preset's data set has on the Hub."""
    if dataset is not None and dataset.startswith("mmlu"):
        rows = [
            {"question": f"which is {n}?", "subject": "", "choices": [f"{n}", "x", "y", "z"], "answer": n % 4}
            for n in range(24)
        ]
    else:
        rows = [{"text": f"{'my card' if n % 2 else 'the money'} {n}", "label": "ab"[n % 2]} for n in range(24)]
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_each_preset_is_tried() -> None:
    assert {*TINY, "quickstart"} == set(presets.names())


@pytest.mark.parametrize("name", TINY)
@pytest.mark.usefixtures("no_graph")
def test_a_preset_trains_and_answers(tmp_path: Path, name: str) -> None:
    import textclf
    import tiny_models

    layer = presets.load(name)
    dataset = layer.get("data", {}).get("dataset")
    assert dataset is None or dataset in CATALOG
    path, limit = tmp_path / "rows.jsonl", layer["model"].get("max_length", 64)
    path.write_text(_rows_like(dataset))
    # What the catalog says of its own data set has to be said of a file.
    form = CATALOG[dataset].form if dataset is not None else None
    run = textclf.finetune(
        tiny_models.pretrained(tmp_path / "tiny", TINY[name]), path, config=layer, form=form, out=tmp_path / "run",
        max_length=min(limit, 64), epochs=1, device="cpu",
    )  # fmt: skip
    given = [("which is 1?", ["1", "x"])] if form is not None else ["my card"]
    assert len(textclf.load(run, device="cpu").predict(given)) == 1
