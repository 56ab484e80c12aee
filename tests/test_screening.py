"""What a model folder may hold and name, before anything of it is opened."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from textclf.artifact import folder as names
from textclf.artifact import screening
from textclf.data.hub_sets import check_listing
from textclf.errors import ModelError, RefusedError, TextclfError


def write(folder: Path, name: str, document: Any) -> None:
    (folder / name).write_text(document if isinstance(document, str) else json.dumps(document))


@pytest.mark.parametrize(
    ("config", "error", "says"),
    [
        ({"trust_remote_code": True}, RefusedError, "trust_remote_code"),
        ({"a": [{"b": {"trust_remote_code": True}}]}, RefusedError, "trust_remote_code"),
        ({"custom_pipelines": {"x": {"impl": "a.B"}}}, RefusedError, "custom_pipelines"),
        ({"kernel_config": {"x": 1}}, RefusedError, "kernels"),
        ({"use_kernels": True}, RefusedError, "kernels"),
        ({"use_timm_backbone": True}, RefusedError, "another repository"),
        ({"use_pretrained_backbone": True}, RefusedError, "another repository"),
        ({"vision": {"backbone": "resnet50"}}, RefusedError, "another repository"),
        ({"transformers_weights": "model-2.safetensors"}, RefusedError, "names its weights"),
        ({"quantization_config": {"quant_method": "gptq"}}, RefusedError, "quantised"),
        ({"num_hidden_layers": 2**70}, ModelError, "no model has so many"),
        ({"n_layer": 10**6}, ModelError, "no model has so many"),
        ({"model_type": "evil"}, ModelError, "not known"),
        ({"model_type": "evil", "auto_map": {"AutoModel": "x.Y"}}, RefusedError, "never run"),
        ({"model_type": "textclf", "text_config": {"model_type": "evil"}}, ModelError, "not known"),
        ({"model_type": "../bert"}, ModelError, "not known"),
    ],
)
def test_a_config_that_asks_for_more_than_a_model_is_declined(
    tmp_path: Path, config: dict[str, Any], error: type[TextclfError], says: str
) -> None:
    write(tmp_path, names.CONFIG, {"model_type": "bert", **config})
    with pytest.raises(error, match=says) as caught:
        screening.check_config(tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize("depth", [100, 500, 700, 800, 850, 900, 940, 960, 980, 2000])
def test_a_config_of_any_depth_is_read_or_declined(tmp_path: Path, depth: int) -> None:
    write(
        tmp_path,
        names.CONFIG,
        '{"model_type": "bert", "x": ' + '{"_attn_implementation": ' * depth + "1" + "}" * depth + "}",
    )
    with contextlib.suppress(ModelError):
        assert screening.check_config(tmp_path)["model_type"] == "bert"


@pytest.mark.parametrize(
    "config",
    [
        {"trust_remote_code": False, "custom_pipelines": None, "use_kernels": False, "quantization_config": None},
        {"auto_map": {"AutoModel": "modeling_x.Y"}, "backbone": None, "num_hidden_layers": 126},
        {"_name_or_path": "owner/name", "torch_dtype": "bfloat16", "architectures": ["BertModel"]},
    ],
)
def test_configs_as_they_are_published_pass(tmp_path: Path, config: dict[str, Any]) -> None:
    write(tmp_path, names.CONFIG, {"model_type": "bert", **config})
    assert screening.check_config(tmp_path) == {"model_type": "bert", **config}


@pytest.mark.parametrize("key", ["attn_implementation", "_attn_implementation", "x_implementation"])
@pytest.mark.parametrize("value", ["a/b", "a/b@main", "paged|a/b", {"": "sdpa", "text_config": "a/b:f"}, ["a/b"]])
def test_kernels_are_refused_under_every_name(tmp_path: Path, key: str, value: object) -> None:
    (tmp_path / names.CONFIG).write_text(json.dumps({"model_type": "bert", "deep": [{key: value}]}))
    with pytest.raises(RefusedError, match="kernels"):
        screening.check_config(tmp_path)


@pytest.mark.parametrize("value", ["eager", "sdpa", "flash_attention_2", None, {"text_config": "eager"}])
def test_attention_of_transformers_is_not(tmp_path: Path, value: object) -> None:
    (tmp_path / names.CONFIG).write_text(json.dumps({"model_type": "bert", "_attn_implementation": value}))
    assert screening.check_config(tmp_path)["model_type"] == "bert"


def test_weights_in_the_hubs_cache_are_links_and_may_be(tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--a--b/snapshots/0123", tmp_path / "models--a--b/blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    (blobs / "abc").write_bytes(b"x")
    (snapshot / "model-00001-of-00001.safetensors").symlink_to("../../blobs/abc")
    index = {"weight_map": {"w": "model-00001-of-00001.safetensors"}}
    (snapshot / names.WEIGHTS_INDEX).write_text(json.dumps(index))
    screening.check_weights(snapshot)
    (tmp_path / "blobs-of-mine").mkdir()
    (tmp_path / "blobs-of-mine/abc").write_bytes(b"x")
    (snapshot / "model-00001-of-00001.safetensors").unlink()
    (snapshot / "model-00001-of-00001.safetensors").symlink_to(tmp_path / "blobs-of-mine/abc")
    with pytest.raises(RefusedError, match="is a link"):
        screening.check_weights(snapshot)


def folder_of(folder: Path, *files: str) -> Path:
    for name in files:
        (folder / name).write_bytes(b"x")
    return folder


@pytest.mark.parametrize(
    ("files", "error"),
    [
        (("pytorch_model.bin",), RefusedError),
        (("pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin"), RefusedError),
        (("tf_model.h5", "model.ckpt", "weights.pkl"), ModelError),
        ((names.WEIGHTS, "adapter_config.json"), RefusedError),
        ((names.WEIGHTS, "shard-00000-model-00001-of-00002.safetensors"), RefusedError),
    ],
)
def test_weights_that_are_not_opened(tmp_path: Path, files: tuple[str, ...], error: type[TextclfError]) -> None:
    with pytest.raises(error) as caught:
        screening.check_weights(folder_of(tmp_path, *files))
    assert caught.value.hint


def test_a_pickle_beside_safetensors_is_left_alone(tmp_path: Path) -> None:
    screening.check_weights(folder_of(tmp_path, names.WEIGHTS, "pytorch_model.bin", "training_args.bin"))
    assert screening.check_files([names.WEIGHTS, "pytorch_model.bin"], where="", allow_bin=True) == (names.WEIGHTS,)


@pytest.mark.parametrize(
    "part",
    ["../x.safetensors", "/x.safetensors", "a/x.safetensors", "a\\x.safetensors", "c:x.safetensors", "..", "", "x.bin"]
    + ["x.safetensors/", "./x.safetensors", "x\0.safetensors", "x.safetensors.pkl"],
)
def test_an_index_names_safetensors_beside_it_alone(tmp_path: Path, part: str) -> None:
    write(tmp_path, names.WEIGHTS_INDEX, {"weight_map": {"a": "model-1.safetensors", "b": part}})
    with pytest.raises(RefusedError, match=r"names .* which is no .safetensors file"):
        screening.check_weights(tmp_path)


@pytest.mark.parametrize(
    "document", ["[]", "{", {}, {"weight_map": []}, {"weight_map": {"a": 1}}, {"weight_map": None}]
)
def test_an_index_that_is_none_is_a_model_error(tmp_path: Path, document: Any) -> None:
    write(tmp_path, names.WEIGHTS_INDEX, document)
    with pytest.raises(ModelError):
        screening.check_weights(tmp_path)


def test_a_folder_beside_whose_name_goes_on_is_elsewhere(tmp_path: Path) -> None:
    model, other = tmp_path / "model", tmp_path / "model-of-others"
    for folder in (model, other, model / "deep"):
        folder.mkdir()
    folder_of(other, "x.safetensors")
    folder_of(model / "deep", "x.safetensors")
    (model / "out").symlink_to(other / "x.safetensors")
    (model / "in").symlink_to("deep/x.safetensors")
    (model / "round").symlink_to("../model/deep/x.safetensors")
    answers = {name: screening.leads_out(model / name, model) for name in ("out", "in", "round", "deep/x.safetensors")}
    assert answers == {"out": True, "in": False, "round": False, "deep/x.safetensors": False}


@pytest.mark.parametrize(
    "kind",
    ["AutoModel", "AutoTokenizer", "BertModel", "pipeline", "os", "../x", "a.BertTokenizer", "Trainer", 7, ["x"]],
)
@pytest.mark.parametrize("file", [names.CONFIG, names.TOKENIZER_CONFIG])
def test_a_tokenizer_is_of_a_tokenizers_class(tmp_path: Path, kind: object, file: str) -> None:
    write(tmp_path, file, {"tokenizer_class": kind})
    with pytest.raises(RefusedError, match="not the name of a tokenizer"):
        screening.check_tokenizer_config(tmp_path)


def test_a_tokenizer_that_only_its_code_has_is_declined(tmp_path: Path) -> None:
    code = {"AutoTokenizer": ["tokenization_x.XTokenizer", None]}
    write(tmp_path, names.TOKENIZER_CONFIG, {"tokenizer_class": "XTokenizer", "auto_map": code})
    with pytest.raises(RefusedError, match="needs code from its repository"):
        screening.check_tokenizer_config(tmp_path)
    write(tmp_path, names.TOKENIZER_CONFIG, {"tokenizer_class": "BertTokenizerFast", "auto_map": code})
    screening.check_tokenizer_config(tmp_path)


@pytest.mark.parametrize("name", ["../x", "/x", "a/b", "a\\b", "..", ".", "", "\0", 7, None])
def test_chat_templates_have_names(tmp_path: Path, name: object) -> None:
    write(tmp_path, names.TOKENIZER_CONFIG, {"chat_template": [{"name": "default"}, {"name": name}]})
    with pytest.raises(RefusedError, match="chat template"):
        screening.check_tokenizer_config(tmp_path)


@pytest.mark.parametrize(
    "kind", ["BertTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend", "GPT2TokenizerFast", None]
)
def test_tokenizers_as_they_are_published_pass(tmp_path: Path, kind: str | None) -> None:
    templates = [{"name": "default", "template": "x"}, {"name": "tool_use", "template": "y"}]
    write(tmp_path, names.TOKENIZER_CONFIG, {"tokenizer_class": kind, "chat_template": templates})
    screening.check_tokenizer_config(tmp_path)


@pytest.mark.parametrize(
    "listed",
    ["/etc/passwd", "~/x.csv", "../../x.csv", "data/../../x.csv", "https://example.com/x.csv", "file:///etc/passwd"]
    + ["zip://a::https://example.com/b.zip", "C:\\x.csv", "..\\x.csv", "hf://datasets/other/set/x.csv"],
)
def test_a_data_set_of_the_hub_lists_its_own_files_alone(listed: str) -> None:
    for files in (listed, [listed], [{"split": "train", "path": ["good.csv", listed]}], {"train": listed}):
        with pytest.raises(RefusedError, match="lies elsewhere"):
            check_listing(
                "owner/set", {"configs": [{"config_name": "x", "data_files": "data/*"}, {"data_files": files}]}
            )
    with pytest.raises(RefusedError, match="lies elsewhere"):
        check_listing("owner/set", {"configs": [{"data_dir": listed}]})


@pytest.mark.parametrize(
    "card",
    [
        {},
        {"configs": None},
        {"configs": [{"config_name": "default", "data_files": "train.csv", "data_dir": "."}]},
        {
            "configs": [
                {"data_files": [{"split": "train", "path": "data/train-*"}, {"split": "test", "path": ["a..b.csv"]}]}
            ]
        },
        {"configs": ["x", 7], "license": "mit"},
    ],
)
def test_listings_as_they_are_published_pass(card: dict[str, Any]) -> None:
    check_listing("owner/set", card)
