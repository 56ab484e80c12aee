"""OpenELM: every part against a formula in float64, the published sizes, and its way through the commands."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import plain_transformers
import textclf
import tiny_models
from hub_stand_in import WRITE_TOKEN, HubStandIn
from textclf import presets
from textclf.artifact import hub as hub_room
from textclf.errors import ConfigError, ModelError, RefusedError, TextclfError, UsageError
from textclf.labels import LabelSet
from textclf.model.classifier import Classifier
from textclf.model.openelm import (
    OpenELMConfig,
    OpenELMFeedForward,
    OpenELMForCausalLM,
    OpenELMForSequenceClassification,
    OpenELMModel,
    OpenELMRMSNorm,
    make_divisible,
    rotary,
    rotate,
)
from textclf.model.tokenizer import load_tokenizer
from textclf.model.trial import Reading

Run = Callable[..., subprocess.CompletedProcess[str]]

LABELS = LabelSet(("a", "b", "c"))
READING = Reading(reads_last=False, alone=False)
PUBLISHED = {
    # layers, width, numbers of a head, parameters; of the first and the last layer: query heads, feed-forward units
    "270M": (16, 1280, 64, 271e6, (12, 20), (768, 5120)),
    "450M": (20, 1536, 64, 457e6, (12, 24), (768, 6144)),
    "1.1B": (28, 2048, 64, 1.08e9, (16, 32), (1024, 8192)),
    "3B": (36, 3072, 128, 3.04e9, (12, 24), (1536, 12288)),
}
"""Sizes as Mehta et al. 2024 give them, parameters rounded as they are there."""


def small(**settings: object) -> OpenELMConfig:
    sizes = {"num_transformer_layers": 3, "model_dim": 48, "head_dim": 8, "num_gqa_groups": 2, "ffn_dim_divisor": 16}
    return OpenELMConfig(**{**sizes, "vocab_size": 300, "initializer_range": 0.2, **settings})


def with_norms(model: torch.nn.Module) -> torch.nn.Module:
    """The model with weights of its norms that are not all one, so that a norm left out would show."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            parameter.data.uniform_(0.5, 1.5)
    return model.eval()


def arrays(model: torch.nn.Module) -> dict[str, np.ndarray]:
    return {name: tensor.numpy().astype(np.float64) for name, tensor in model.state_dict().items()}


def normed(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-6) * weight


def turned(x_Td: np.ndarray, places_T: np.ndarray) -> np.ndarray:
    """Each pair of numbers as a complex one, times e to the i times its angle."""
    half = x_Td.shape[1] // 2
    angles = places_T[:, None] * 10000.0 ** (-2 * np.arange(half) / x_Td.shape[1])
    pairs = (x_Td[:, :half] + 1j * x_Td[:, half:]) * np.exp(1j * angles)
    return np.concatenate([pairs.real, pairs.imag], axis=1)


def attended(x_TD: np.ndarray, weights: dict[str, np.ndarray], prefix: str, heads: int, kv_heads: int) -> np.ndarray:
    """One text through attention, head by head and token by token."""
    tokens, size = len(x_TD), weights[prefix + "q_norm.weight"].shape[0]
    projected = (x_TD @ weights[prefix + "qkv_proj.weight"].T).reshape(tokens, heads + 2 * kv_heads, size)
    places, results = np.arange(tokens), []
    for head in range(heads):
        shared = heads + head // (heads // kv_heads)
        query = turned(normed(projected[:, head], weights[prefix + "q_norm.weight"]), places)
        key = turned(normed(projected[:, shared], weights[prefix + "k_norm.weight"]), places)
        value = projected[:, shared + kv_heads]
        result = np.zeros((tokens, size))
        for token in range(tokens):
            scores = key[: token + 1] @ query[token] / np.sqrt(size)
            shares = np.exp(scores - scores.max())
            result[token] = shares @ value[: token + 1] / shares.sum()
        results.append(result)
    return np.concatenate(results, axis=1) @ weights[prefix + "out_proj.weight"].T


def gated(x: np.ndarray, weights: dict[str, np.ndarray], prefix: str) -> np.ndarray:
    both = x @ weights[prefix + "proj_1.weight"].T
    gate, units = both[..., : both.shape[-1] // 2], both[..., both.shape[-1] // 2 :]
    return (gate / (1 + np.exp(-gate)) * units) @ weights[prefix + "proj_2.weight"].T


def hidden(ids_T: np.ndarray, weights: dict[str, np.ndarray], config: OpenELMConfig) -> np.ndarray:
    """The whole of a model, in float64."""
    x = weights["token_embeddings.weight"][ids_T]
    for layer in range(config.num_transformer_layers):
        at = f"layers.{layer}."
        heads, kv_heads = config.num_query_heads[layer], config.num_kv_heads[layer]
        x = x + attended(normed(x, weights[at + "attn_norm.weight"]), weights, at + "attn.", heads, kv_heads)
        x = x + gated(normed(x, weights[at + "ffn_norm.weight"]), weights, at + "ffn.")
    return normed(x, weights["norm.weight"])


def test_rms_norm_is_its_formula() -> None:
    norm = with_norms(OpenELMRMSNorm(24))
    x = torch.randn(5, 3, 24) * torch.tensor([1e-4, 1.0, 1e4])[:, None]
    expected = normed(x.numpy().astype(np.float64), arrays(norm)["weight"])
    assert np.allclose(norm(x).detach().numpy(), expected, rtol=1e-5)
    half = norm(x.bfloat16())
    assert half.dtype == torch.bfloat16
    assert np.allclose(half.float().detach().numpy(), expected, rtol=2e-2, atol=1e-3)


def test_rotary_embedding_turns_pairs_by_their_angle() -> None:
    x_Td = torch.randn(7, 16)
    places_T = torch.tensor([0, 1, 2, 500, 2047, 3, 4])
    cos, sin = rotary(places_T[None], 16, 10000)
    assert cos.dtype == sin.dtype == torch.float32
    got = rotate(x_Td[None, None], cos, sin)[0, 0].numpy()
    assert np.allclose(got, turned(x_Td.numpy().astype(np.float64), places_T.numpy()), atol=5e-4)
    # What attention sees is the distance alone.
    query, key = torch.randn(2, 1, 1, 1, 16)

    def product(here: int, there: int) -> float:
        turned_both = [
            rotate(one, *rotary(torch.tensor([[at]]), 16, 10000)) for one, at in ((query, here), (key, there))
        ]
        return float((turned_both[0] * turned_both[1]).sum())

    assert product(105, 100) == pytest.approx(product(5, 0), abs=1e-4)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("groups", [1, 2, 3])
def test_grouped_query_attention_is_its_formula_in_every_layer(attention: str, groups: int) -> None:
    config = small(num_gqa_groups=groups, qkv_multipliers=[0.5, 2.0], attn_implementation=attention)
    assert len(set(config.num_query_heads)) == 3, "layers of unlike size"
    model = with_norms(OpenELMModel(config))
    x_BTD = torch.randn(2, 9, config.model_dim)
    cos, sin = rotary(torch.arange(9)[None], config.head_dim, config.rope_freq_constant)
    mask = torch.full((9, 9), -torch.inf).triu(1)[None, None]
    for index, layer in enumerate(model.layers):
        heads, kv_heads = config.num_query_heads[index], config.num_kv_heads[index]
        assert heads == kv_heads * groups
        with torch.inference_mode():
            got = layer.attn(x_BTD, cos, sin, mask).numpy()
        for x_TD, one in zip(x_BTD.numpy().astype(np.float64), got, strict=True):
            assert np.allclose(one, attended(x_TD, arrays(layer.attn), "", heads, kv_heads), atol=1e-4)


def test_the_gated_feed_forward_is_its_formula_and_grows_from_layer_to_layer() -> None:
    config = small()
    assert config.ffn_dims == [32, 112, 192]  # 24 up to the next 16 within a tenth, 108, 192
    for layer, units in enumerate(config.ffn_dims):
        block = OpenELMFeedForward(config, layer)
        assert block.proj_1.weight.shape == (2 * units, 48)
        x = torch.randn(4, 48) * 3
        got = block(x).detach().numpy()
        assert np.allclose(got, gated(x.numpy().astype(np.float64), arrays(block), ""), atol=1e-5)


@given(st.floats(1, 20000), st.sampled_from([1, 8, 64, 256, 512]))
def test_make_divisible_is_near_and_never_far_below(value: float, divisor: int) -> None:
    made = make_divisible(value, divisor)
    assert made % divisor == 0 and made >= max(divisor, 0.9 * value)
    # The nearest multiple, or where that is too far below the one after it.
    assert made - value <= divisor and (abs(made - value) <= divisor / 2 or made - divisor < 0.9 * value)


def test_the_whole_model_is_its_formula_and_predicts_by_its_embeddings() -> None:
    model = with_norms(OpenELMForCausalLM(small(qkv_multipliers=[0.5, 2.0])))
    assert model.lm_head.weight is model.transformer.token_embeddings.weight
    ids_BT = torch.randint(300, (2, 11))
    with torch.inference_mode():
        output = model(input_ids=ids_BT, labels=ids_BT, output_hidden_states=True)
    weights = arrays(model.transformer)
    expected = np.stack([hidden(ids_T, weights, model.config) for ids_T in ids_BT.numpy()])
    assert np.allclose(output.hidden_states[-1].numpy(), expected, atol=2e-4)
    logits_BTV = expected @ weights["token_embeddings.weight"].T
    assert np.allclose(output.logits.numpy(), logits_BTV, atol=2e-3)
    nexts = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits_BTV)[:, :-1].flatten(0, 1), ids_BT[:, 1:].flatten()
    )
    assert float(output.loss) == pytest.approx(float(nexts), rel=1e-4)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_models_have_their_published_sizes(name: str) -> None:
    layers, width, head_dim, parameters, heads, units = PUBLISHED[name]
    config = OpenELMConfig(num_transformer_layers=layers, model_dim=width, head_dim=head_dim)
    with torch.device("meta"):
        model = OpenELMForCausalLM(config)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(parameters, rel=2.5e-3)
    assert (config.num_query_heads[0], config.num_query_heads[-1]) == heads
    assert config.num_kv_heads == [count // 4 for count in config.num_query_heads]
    assert (config.ffn_dims[0], config.ffn_dims[-1]) == units
    # The config.json on the Hub has these lists written out.
    spelled = OpenELMConfig(**{**config.to_dict(), "qkv_multipliers": [9, 9], "num_gqa_groups": 1})
    assert (spelled.num_query_heads, spelled.ffn_dims) == (config.num_query_heads, config.ffn_dims)


def test_the_smallest_has_these_heads() -> None:
    assert OpenELMConfig().num_query_heads == [12] * 5 + [16] * 7 + [20] * 4


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"normalization_layer_name": "layer_norm"}, "normalization_layer_name is 'layer_norm'"),
        ({"ffn_with_glu": False}, "ffn_with_glu is False"),
        ({"share_input_output_layers": False}, "share_input_output_layers is False"),
        ({"num_query_heads": [4, 4]}, "num_query_heads has 2 numbers for 3 layers"),
        ({"num_query_heads": [4, 4, 4], "num_kv_heads": [3, 2, 2]}, "does not divide"),
        ({"ffn_multipliers": [1, 2, 3, 4]}, "ffn_multipliers has 4 numbers for 3 layers"),
    ],
)
def test_what_no_published_model_has_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        small(**settings)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_answer(attention: str, side: str) -> None:
    model = with_norms(OpenELMForSequenceClassification(small(num_labels=4, attn_implementation=attention)))
    lengths = [12, 7, 3, 1]
    ids_BT, mask_BT = torch.full((4, 12), 2), torch.zeros(4, 12, dtype=torch.long)
    texts = [torch.randint(300, (length,)) for length in lengths]
    texts[1][-1] = 2  # a text may end with the token that pads
    for row, (text, length) in enumerate(zip(texts, lengths, strict=True)):
        place = slice(length) if side == "right" else slice(12 - length, 12)
        ids_BT[row, place], mask_BT[row, place] = text, 1
    with torch.inference_mode():
        together = model(input_ids=ids_BT, attention_mask=mask_BT).logits
        alone = torch.cat([model(input_ids=text[None]).logits for text in texts])
    assert torch.allclose(together, alone, atol=1e-5)
    assert alone.std(dim=0).min() > 0.05, "a model that answers alike to all texts shows nothing"


def test_checkpointed_activations_give_the_same_gradients_and_bf16_trains() -> None:
    model = with_norms(OpenELMForSequenceClassification(small(num_labels=3))).train()
    batch = {"input_ids": torch.randint(300, (2, 9)), "labels": torch.tensor([0, 2])}
    gradients = []
    for checkpointing in (False, True):
        model.zero_grad()
        if checkpointing:
            Classifier(model, LABELS, pad_id=2, reading=READING).checkpoint_activations()
        model(**batch).loss.backward()
        gradients.append({name: parameter.grad.clone() for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 0
        assert torch.allclose(gradient, gradients[1][name], atol=1e-6), name
    full = float(model(**batch).loss.detach())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert float(model(**batch).loss.detach()) == pytest.approx(full, rel=0.05)


# Loading


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny OpenELM with its tokenizer; not to be written to."""
    return tiny_models.pretrained(tmp_path_factory.mktemp("openelm") / "tiny-openelm", "openelm")


@pytest.fixture
def as_published(base: Path, tmp_path: Path) -> Path:
    """The same as Apple's repositories have it: code, a config that names it, lm_head spelled out, no tokenizer."""
    folder = tmp_path / "OpenELM-tiny"
    folder.mkdir()
    config = json.loads((base / "config.json").read_text())
    weights = load_file(base / "model.safetensors")
    spelled = {f"transformer.{name}": tensor for name, tensor in weights.items()}
    spelled["lm_head.weight"] = weights["token_embeddings.weight"].clone()
    save_file(spelled, folder / "model.safetensors", metadata={"format": "pt"})
    code = {
        "AutoConfig": "configuration_openelm.OpenELMConfig",
        "AutoModelForCausalLM": "modeling_openelm.OpenELMForCausalLM",
    }
    theirs = {"auto_map": code, "architectures": ["OpenELMForCausalLM"], "torch_dtype": "float32", "use_cache": True}
    (folder / "config.json").write_text(json.dumps({**config, **theirs}))
    for name in ("configuration_openelm.py", "modeling_openelm.py"):
        (folder / name).write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    return folder


def network(folder: Path, tokenizer_folder: Path, **options: bool) -> torch.nn.Module:
    torch.manual_seed(0)
    return Classifier.from_pretrained(folder, LABELS, load_tokenizer(tokenizer_folder), **options).network


def test_hub_and_corenet_names_give_the_same_logits(base: Path, as_published: Path, tmp_path: Path) -> None:
    corenet = shutil.copytree(as_published, tmp_path / "corenet", ignore=shutil.ignore_patterns("*.safetensors"))
    # CoreNet's names have no `transformer.` in front, and neither has the base model that transformers saves.
    torch.save(load_file(base / "model.safetensors"), corenet / "pytorch_model.bin")
    with pytest.raises(RefusedError, match="pickle"):
        hub_room.fetch(corenet)
    loaded = [network(base, base), network(as_published, base), network(corenet, base, allow_bin=True)]
    ids_BT = torch.randint(300, (2, 11))
    with torch.inference_mode():
        states = [one.base_model(input_ids=ids_BT).last_hidden_state for one in loaded]
        logits = [one(input_ids=ids_BT).logits for one in loaded]
    assert torch.equal(states[0], states[1]) and torch.equal(states[0], states[2])
    assert torch.equal(logits[0], logits[1]) and torch.equal(logits[0], logits[2])


def test_the_repositorys_code_is_never_run(as_published: Path, base: Path, tmp_path: Path) -> None:
    assert hub_room.fetch(as_published).folder == as_published
    assert isinstance(AutoConfig.from_pretrained(as_published), OpenELMConfig)
    assert isinstance(AutoModelForCausalLM.from_pretrained(as_published), OpenELMForCausalLM)
    network(as_published, base)
    assert not (tmp_path / "ran").exists()


def test_save_and_load_is_exact_and_names_no_foreign_code(as_published: Path, base: Path, tmp_path: Path) -> None:
    saved = network(as_published, base)
    Classifier(saved, LABELS, pad_id=2, reading=READING).save(tmp_path / "saved")
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert isinstance(loaded, OpenELMForSequenceClassification)
    for name, tensor in saved.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name
    assert json.loads((tmp_path / "saved" / "config.json").read_text())["auto_map"] == {
        "AutoConfig": "openelm.OpenELMConfig",
        "AutoModelForSequenceClassification": "openelm.OpenELMForSequenceClassification",
    }


def test_weights_of_another_size_are_refused(base: Path, tmp_path: Path) -> None:
    other = shutil.copytree(base, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "num_transformer_layers": 2}))
    with pytest.raises(ModelError, match="3 numbers for 2 layers"):
        network(other, base)


# The commands


@pytest.fixture
def tokenizer_folder(base: Path, tmp_path: Path) -> Path:
    """A tokenizer and nothing else."""
    folder = tmp_path / "llama-tokenizer"
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


def test_a_model_without_a_tokenizer_says_what_to_do(cli: Run, as_published: Path, tiny_csv: Path) -> None:
    done = cli("finetune", "--model", as_published, "--dataset", tiny_csv)
    assert done.returncode == 4
    assert f"{as_published} comes without a tokenizer" in done.stderr
    for said in ("--tokenizer meta-llama/Llama-2-7b-hf", "accept the licence", "HF_TOKEN"):
        assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_finetune_with_a_tokenizer_then_predict_and_load_elsewhere(
    cli: Run, as_published: Path, tokenizer_folder: Path, tiny_csv: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    given = ("--model", as_published, "--tokenizer", tokenizer_folder, "--dataset", tiny_csv)
    done = cli("finetune", *given, "--batch-size", "32", "--epochs", "0.6", "--set", "train.probe=false", "-o", out)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "run.json").read_text())["steps"] == 2
    model = out / "model"
    assert {"tokenizer.json", "openelm.py", "onnx"} <= {path.name for path in model.iterdir()}
    facts = json.loads((model / "textclf.json").read_text())
    assert facts["config"]["model"]["tokenizer"] == "llama-tokenizer", "the path stays on this machine"
    assert str(tmp_path) not in "".join(path.read_text(errors="replace") for path in model.glob("*.json"))
    shutil.rmtree(tokenizer_folder)  # the artifact has its own
    texts = ["where is my card", "a", "I want my money back " * 30]
    predicted = cli("predict", out, "--format", "jsonl", "--top-k", "3", input="\n".join(texts))
    assert predicted.returncode == 0, predicted.stderr
    by_graph = [{s["label"]: s["score"] for s in json.loads(line)["scores"]} for line in predicted.stdout.splitlines()]
    by_torch = textclf.load(out, runtime="torch").predict_proba(texts)
    for graph_says, torch_says in zip(by_graph, by_torch, strict=True):
        for label, score in zip("abc", torch_says, strict=True):
            assert graph_says[label] == pytest.approx(score, abs=1e-5)
    (plain,) = plain_transformers.probabilities([model], texts, hub_cache=tmp_path / "hf")
    assert np.allclose(plain, by_torch, atol=1e-5)
    assert "`openelm.py` beside the weights" in (model / "README.md").read_text()
    assert "openelm.py" in dict(textclf.push(out, "alice/hate", dry_run=True).files)
    with pytest.raises(UsageError, match="--overwrite would delete"):
        textclf.finetune(as_published, tiny_csv, tokenizer=str(model), out=out, overwrite=True)


@pytest.mark.parametrize(
    ("reference", "kind", "said"),
    [
        ("", ConfigError, "model.tokenizer is empty"),
        ("no/such folder", ModelError, "there is no model 'no/such folder'"),
        ("tickets.csv", ModelError, "tickets.csv is a file"),
        (".", ModelError, "comes without a tokenizer"),
    ],
)
def test_a_tokenizer_that_is_none_is_told(
    reference: str, kind: type[TextclfError], said: str, base: Path, tiny_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tiny_csv.parent)
    with pytest.raises(kind, match=re.escape(said)):
        textclf.finetune(base, tiny_csv, tokenizer=reference)


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(
    as_published: Path, tiny_csv: Path, tmp_path: Path
) -> None:
    tokenizer = tiny_models.byte_bpe("llama")
    tokenizer.add_tokens([f"<extra{i}>" for i in range(500)])
    tokenizer.save_pretrained(tmp_path / "large")
    with pytest.raises(ModelError, match="tokens, the model only"):
        textclf.finetune(as_published, tiny_csv, tokenizer=str(tmp_path / "large"))


# The Hub


@pytest.fixture
def hub() -> Iterator[HubStandIn]:
    with HubStandIn() as stand_in:
        yield stand_in


def test_of_a_tokenizers_repository_only_the_tokenizer_is_fetched(
    cli: Run, hub: HubStandIn, as_published: Path, tokenizer_folder: Path, tiny_csv: Path, tmp_path: Path
) -> None:
    hub.add_model("apple/OpenELM-tiny", as_published)
    llama = {path.name: path.read_bytes() for path in tokenizer_folder.iterdir()}
    llama |= {"model.safetensors": b"large", "config.json": b'{"model_type": "llama"}', "LICENSE.txt": b"x"}
    hub.add_model("acme/llama", llama, gated=True)
    given = (
        "finetune",
        "--model",
        "apple/OpenELM-tiny",
        "-d",
        tiny_csv,
        "--set",
        "train.probe=false",
        "--epochs",
        "0.3",
    )
    nobody = cli(*given, env=hub.environment(tmp_path / "nobody"))
    assert nobody.returncode == 4
    assert "apple/OpenELM-tiny on the Hub comes without a tokenizer" in nobody.stderr
    gated = cli(*given, "--tokenizer", "acme/llama", env=hub.environment(tmp_path / "nobody"))
    assert gated.returncode == 5
    assert "acme/llama is gated" in gated.stderr and "accept it at" in gated.stderr
    assert not hub.matching(r"model\.safetensors"), "the weights were fetched before it was known that they are of use"
    # `prepare` needs no weights to count tokens; and with no network, what was fetched is enough.
    alice = hub.environment(tmp_path / "alice", token=WRITE_TOKEN)
    for environment in (alice, {**alice, "HF_HUB_OFFLINE": "1"}):
        counted = cli("prepare", "-d", tiny_csv, "--model", "acme/llama", "--json", env=environment)
        assert counted.returncode == 0, counted.stderr
    assert {Path(request.path).name for request in hub.matching("acme/llama/resolve/")} == {
        *("config.json", "tokenizer.json", "tokenizer_config.json"),
    }


@pytest.mark.parametrize(("name", "size"), [("hate-openelm-270m", "270M"), ("hate-openelm-450m", "450M")])
def test_the_presets_name_model_and_tokenizer(name: str, size: str) -> None:
    config = presets.load(name)
    assert config["model"] == {"name": f"apple/OpenELM-{size}", "tokenizer": "meta-llama/Llama-2-7b-hf"}
    assert config["data"]["dataset"] == "tweet_eval/hate"
