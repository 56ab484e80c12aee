"""The ONNX graph of a model: torch's answers, the weights of its folder and no others, int8, to the Hub and back."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import tiny_models
from hub_stand_in import WRITE_TOKEN, HubStandIn
from textclf.artifact import folder, graph
from textclf.cpus import usable_cpus
from textclf.data.encoding import encode
from textclf.errors import ModelError, RefusedError, UsageError
from textclf.evaluation.evaluation import evaluate
from textclf.evaluation.exporting import export
from textclf.inference import onnx_runtime, prediction
from textclf.inference.prediction import load
from textclf.inference.quantization import quantize
from textclf.model import exporting
from textclf.model.classifier import Classifier

Run = Callable[..., subprocess.CompletedProcess[str]]

TEXTS = ["", "x", "where is my card", *(text for text, _ in tiny_models.rows(90, seed=5)), "long " * 300, "我的卡 🙂"]

OPENVINO = (
    "bert", "distilbert", "roberta", "electra", "deberta-v2", "mpnet", "albert", "xlm-roberta", "modernbert", "gpt2",
)  # fmt: skip
"""Architectures whose graph OpenVINO is held to."""


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny classifier with its graph; not to be written to."""
    place = tiny_models.artifact(tmp_path_factory.mktemp("exported") / "tiny-classifier")
    export(place)
    return place


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return shutil.copytree(exported, tmp_path / "copy")


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    path = tmp_path / "labelled.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in tiny_models.rows(60, seed=3)))
    return path


def logits(place: Path, runtime: str, texts: list[str] = TEXTS) -> np.ndarray:
    artifact = folder.read(place)
    encoded = encode(texts, artifact.tokenizer(), max_length=artifact.max_length)
    return prediction.open_runtime(artifact, runtime=runtime, device="cpu").logits(encoded)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_the_graph_gives_the_logits_of_torch(
    tmp_path: Path, architecture: str, monkeypatch: pytest.MonkeyPatch, unchecked: None
) -> None:
    place = tiny_models.artifact(tmp_path / architecture, architecture=architecture)
    export(place)
    onnx_NC, torch_NC = logits(place, "onnx"), logits(place, "torch")
    spread = np.ptp(torch_NC, axis=0).max()  # of texts: a model that answers alike to all shows nothing
    assert np.abs(onnx_NC - torch_NC).max() < min(1e-4, 1e-3 * spread)
    assert onnx_NC.argmax(1).tolist() == torch_NC.argmax(1).tolist()
    quantize(place, place)
    made = onnx.load(place / folder.GRAPH_INT8, load_external_data=False).graph
    assert [node.op_type for node in made.node].count("DynamicQuantizeMatMul") >= 8, "four products a layer at least"
    names = [tensor.name for tensor in made.initializer]
    assert len(names) == len(set(names)), "weights that layers share are there once"
    artifact = folder.read(place)
    encoded = encode(TEXTS[:9], artifact.tokenizer(), max_length=artifact.max_length)
    int8_NC = onnx_runtime.OnnxRuntime(artifact, kind="int8").logits(encoded)
    assert np.abs(int8_NC - onnx_NC[:9]).max() < 0.2 * np.ptp(onnx_NC)
    if architecture in OPENVINO and importlib.util.find_spec("openvino") is not None:
        import openvino

        monkeypatch.setattr(openvino.Core, "get_property", lambda *asked: ["FP32"])  # as on a CPU without bf16
        assert np.abs(logits(place, "openvino") - onnx_NC).max() < min(1e-4, 1e-3 * spread)


@pytest.mark.slow
def test_labels_of_a_real_model_are_those_of_torch(cli: Run, minilm: Path, shared_data: Path, tmp_path: Path) -> None:
    data = shared_data / "banking77"
    trained = cli(
        "finetune", "--model", minilm, "-d", data, "--max-rows", "400", "--epochs", "2", "--lr", "5e-4",
        "--no-baselines", "--test-size", "0", "-o", tmp_path / "run",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    answers = [
        cli("predict", tmp_path / "run", data / "test.csv", "--runtime", name, "--format", "jsonl").stdout.splitlines()
        for name in ("onnx", "torch")
    ]
    if importlib.util.find_spec("openvino") is not None:
        there = cli("predict", tmp_path / "run", data / "test.csv", "--runtime", "openvino").stdout.splitlines()
        same = [line.split("\t")[0] == json.loads(ours)["label"] for line, ours in zip(there, answers[0], strict=True)]
        assert np.mean(same) >= 0.999
    pairs = [(json.loads(ours), json.loads(theirs)) for ours, theirs in zip(*answers, strict=True)]
    assert len(pairs) == 3080
    assert len({ours["label"] for ours, _ in pairs}) > 30
    assert all(ours["label"] == theirs["label"] and ours["text"] == theirs["text"] for ours, theirs in pairs)
    assert max(abs(ours["score"] - theirs["score"]) for ours, theirs in pairs) < 1e-4
    texts = [ours["text"] for ours, _ in pairs]
    by_onnx, by_torch = (logits(tmp_path / "run" / "model", name, texts) for name in ("onnx", "torch"))
    assert np.abs(by_onnx - by_torch).max() < 1e-4 * max(1.0, np.abs(by_torch).max())


def test_the_graph_holds_no_weights_of_its_own(exported: Path) -> None:
    weights = (exported / folder.WEIGHTS).stat().st_size
    assert (exported / folder.GRAPH).stat().st_size < weights / 2
    model = onnx.load(exported / folder.GRAPH, load_external_data=False)
    parameters = [tensor for tensor in model.graph.initializer if tensor.name.startswith("network.")]
    outside = [tensor for tensor in parameters if tensor.data_location == onnx.TensorProto.EXTERNAL]
    assert len(outside) > 20
    assert {entry.value for tensor in outside for entry in tensor.external_data if entry.key == "location"} == {
        folder.WEIGHTS
    }


def test_other_weights_of_the_same_shape_are_the_ones_that_count(copy: Path, tmp_path: Path) -> None:
    before = logits(copy, "torch")
    shutil.copy(tiny_models.artifact(tmp_path / "other", seed=9) / folder.WEIGHTS, copy / folder.WEIGHTS)
    assert np.abs(logits(copy, "torch") - before).max() > 0.1
    expected = logits(copy, "torch")
    assert np.abs(logits(copy, "onnx") - expected).max() < 1e-4 * max(1, np.abs(expected).max())


@pytest.fixture
def three_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_runtime, "usable_cpus", lambda: 3)
    monkeypatch.setattr(onnx_runtime, "PAYING_TOKENS", 500)


def test_threads_with_passes_of_their_own_answer_as_torch_does(copy: Path, three_threads: None) -> None:
    artifact = folder.read(copy)
    runtime = onnx_runtime.OnnxRuntime(artifact)
    torch_runtime = prediction.open_runtime(artifact, runtime="torch", device="cpu")
    tokens = 0
    for count in (1, 10, 400, 30):  # few at first, then more than pays, then few again
        texts = [f"{index} {text}" for index, text in enumerate(TEXTS[:-2] * 10)][:count]
        encoded = encode(texts, artifact.tokenizer(), max_length=artifact.max_length)
        told: list[int] = []
        onnx_NC, torch_NC = runtime.logits(encoded, told.append), torch_runtime.logits(encoded)
        assert np.abs(onnx_NC - torch_NC).max() < 1e-4 * max(1, np.abs(torch_NC).max())
        assert told == sorted(told) and told[-1] == count
        tokens = max(tokens, int(encoded.lengths.sum()))
    assert tokens > 3 * onnx_runtime.PAYING_TOKENS, "some were many"


def test_long_texts_are_computed_by_all_threads_together(
    copy: Path, three_threads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = folder.read(copy)
    monkeypatch.setattr(onnx_runtime, "MAX_TOKENS", 20)
    opened: list[bool] = []
    monkeypatch.setattr(onnx_runtime.OnnxRuntime, "_of_one_thread", property(lambda _: opened.append(True)))
    runtime = onnx_runtime.OnnxRuntime(artifact)
    encoded = encode(TEXTS * 4, artifact.tokenizer(), max_length=artifact.max_length)
    runtime.logits(encoded)
    assert encoded.lengths.max() > 20 and not opened
    runtime.logits(encoded.take(np.flatnonzero(encoded.lengths <= 20)))
    assert opened


def test_a_pass_that_fails_ends_the_others(copy: Path, three_threads: None) -> None:
    artifact = folder.read(copy)
    encoded = encode(TEXTS[:-2] * 20, artifact.tokenizer(), max_length=artifact.max_length)
    encoded.ids[len(encoded.ids) // 2] = 30_000  # beyond the vocabulary
    told: list[int] = []
    with pytest.raises(ModelError, match="ONNX Runtime cannot compute"):
        onnx_runtime.OnnxRuntime(artifact).logits(encoded, told.append)
    assert sum(told[-1:]) < len(encoded)


def test_a_runtime_keeps_its_weights_where_others_come_in_their_place(
    copy: Path, tmp_path: Path, three_threads: None
) -> None:
    artifact = folder.read(copy)
    runtime = onnx_runtime.OnnxRuntime(artifact)
    few = encode(TEXTS[:-2], artifact.tokenizer(), max_length=artifact.max_length)
    before = runtime.logits(few)
    (tiny_models.artifact(tmp_path / "other", seed=9) / folder.WEIGHTS).replace(copy / folder.WEIGHTS)
    many = encode(TEXTS[:-2] * 20, artifact.tokenizer(), max_length=artifact.max_length)
    assert many.lengths.sum() > 3 * onnx_runtime.PAYING_TOKENS
    np.testing.assert_allclose(runtime.logits(many), np.tile(before, (20, 1)), atol=1e-5)


def test_a_graph_of_other_weights_is_not_used(copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    other = tiny_models.artifact(tmp_path / "other", ["a", "b", "c", "d"])
    for name in (folder.WEIGHTS, folder.CONFIG):
        shutil.copy(other / name, copy / name)
    assert np.array_equal(logits(copy, "auto"), logits(copy, "torch"))
    assert "made from other weights: torch computes" in caplog.text
    logits(copy, "bf16")
    assert "made from other weights: answers that are close" in caplog.text
    with pytest.raises(ModelError, match="made from other weights") as caught:
        load(copy, runtime="onnx")
    assert "textclf export" in str(caught.value.hint)
    export(copy)
    expected = logits(copy, "torch")
    assert np.abs(logits(copy, "onnx") - expected).max() < 1e-4 * max(1, np.abs(expected).max())


def test_a_model_without_a_graph_predicts_with_torch(tiny_artifact: Path) -> None:
    assert np.array_equal(logits(tiny_artifact, "auto"), logits(tiny_artifact, "torch"))
    with pytest.raises(ModelError, match="no fp32 ONNX graph"):
        load(tiny_artifact, runtime="onnx")


def test_what_cannot_be_combined_is_a_usage_error(exported: Path) -> None:
    with pytest.raises(UsageError, match="on the CPU, not on cuda"):
        load(exported, runtime="onnx", device="cuda")
    with pytest.raises(UsageError, match="not known"):
        load(exported, runtime="tensorrt")


def test_a_model_that_is_too_large_gets_no_graph(tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textclf.model.exporting.MAX_BYTES", 1000)
    with pytest.raises(ModelError, match="larger than"):
        export(tiny_artifact)
    assert not (tiny_artifact / "onnx").exists()


def test_what_was_traced_once_is_not_traced_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    monkeypatch.setenv("TEXTCLF_HOME", str(home))
    trace, traced = exporting._traced, []

    def counted(*args: Any, **kwargs: Any) -> Any:
        traced.append(args)
        return trace(*args, **kwargs)

    monkeypatch.setattr(exporting, "_traced", counted)
    place = tiny_models.artifact(tmp_path / "first")
    export(place)
    [kept] = (home / "cache" / "graphs").iterdir()
    whole = kept.read_bytes()

    renamed = tiny_models.artifact(tmp_path / "renamed", ["alpha", "beta", "gamma"], seed=9)  # other weights too
    export(renamed)
    assert len(traced) == 1
    expected = logits(renamed, "torch")
    assert np.abs(logits(renamed, "onnx") - expected).max() < 1e-4 * max(1, np.abs(expected).max())

    export(tiny_models.artifact(tmp_path / "larger", ["a", "b", "c", "d", "e"]))  # another network
    assert len(traced) == 2
    assert len(list(kept.parent.iterdir())) == 2
    [other] = {*kept.parent.iterdir()} - {kept}
    expected = logits(place, "torch")
    flipped = bytes([*whole[:-9], whole[-9] ^ 1, *whole[-8:]])
    for count, damaged in enumerate((b"", whole[: len(whole) // 2], other.read_bytes(), flipped), start=3):
        kept.write_bytes(damaged)
        for _ in range(2):  # the first mends it
            shutil.rmtree(place / "onnx")
            export(place)
            assert len(traced) == count
        assert np.abs(logits(place, "onnx") - expected).max() < 1e-4 * max(1, np.abs(expected).max())

    shutil.rmtree(kept.parent)
    kept.parent.symlink_to(kept.parent)  # a cache that can be neither read nor written
    shutil.rmtree(place / "onnx")
    export(place)
    assert graph.belongs(place)


def test_a_network_with_code_or_buffers_from_elsewhere_is_always_traced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEXTCLF_HOME", str(tmp_path / "home"))
    artifact = folder.read(tiny_models.artifact(tmp_path / "model"))
    for module in (torch.nn.BatchNorm1d(8), type("Head", (torch.nn.Linear,), {"__module__": "a_package"})(8, 8)):
        classifier = Classifier.from_artifact(artifact)
        assert exporting._may_be_kept(classifier.network)
        classifier.network.add_module("another", module)
        assert not exporting._may_be_kept(classifier.network)
        exporting._keep(b"outline", classifier, types=False)
    assert not (tmp_path / "home").exists()


def test_a_graph_whose_answers_differ_is_not_kept(tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textclf.model.exporting.MAX_DIFFERENCE", 0.0)
    with pytest.raises(ModelError, match="differ from torch"):
        export(tiny_artifact)
    assert not (tiny_artifact / "onnx").exists()


def test_answers_keep_the_order_of_many_texts(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text for seed in range(3) for text, _ in tiny_models.rows(90, seed=seed)]
    predictor = load(exported, runtime="onnx")
    alone = [predictor.predict_proba([text])[0] for text in texts]
    monkeypatch.setattr(prediction, "PART", 7)  # many parts, tokenised ahead
    monkeypatch.setattr(onnx_runtime, "MAX_TOKENS", 64)  # many passes
    together = next(iter(load(exported, runtime="onnx").window_predictions([texts], top_k=3)))
    assert [one.text for one in together] == texts
    for one, probs in zip(together, alone, strict=True):
        assert dict(one.scores) == pytest.approx(dict(zip("abc", probs.tolist(), strict=True)), abs=1e-5)


def test_eval_and_predict_agree_about_the_runtime(exported: Path, labelled: Path, cli: Run) -> None:
    reports = [
        json.loads(cli("eval", exported, "-d", labelled, "--split", "train", "--json", "--runtime", name).stdout)
        for name in ("auto", "torch")
    ]
    by_onnx, by_torch = (report["metrics"] for report in reports)
    for of_scores in ("loss", "ece", "brier"):
        assert by_onnx.pop(of_scores) == pytest.approx(by_torch.pop(of_scores), abs=1e-5)
    assert by_onnx == by_torch


def test_int8_is_measured_kept_and_used(copy: Path, labelled: Path, cli: Run, unchecked: None) -> None:
    bare = labelled.with_name("no header.csv")
    bare.write_text("".join(labelled.read_text().splitlines(keepends=True)[1:]))
    named = ("--columns", "words,kind", "--text-column", "words", "--label-column", "kind")
    done = cli("export", copy, "--int8", "--dataset", bare, *named, "--split", "train", "--json", "--force")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["written"] == ["int8"]
    facts = document["graphs"]["int8"]
    other = cli("export", copy, "--int8", "--dataset", copy / "nowhere.csv")
    assert other.returncode != 0 and "nowhere.csv" in other.stderr, "not answered by what was measured before"
    assert facts["rows"] == 60 and 0 <= facts["agreement"] <= 1
    assert 0 <= facts["agreement_alone"] <= facts["agreement"] and 0 <= facts["computed_again"] <= 1
    assert set(facts["accuracy"]) == set(facts["macro_f1"]) == {"fp32", "int8"}
    rounded = np.abs(logits(copy, "int8") - logits(copy, "torch"))
    assert 1e-5 < np.median(rounded) < 0.5, "rounded, and still the same model"
    assert cli("predict", copy, "--runtime", "int8", input="a\nb\n").stdout.count("\n") == 2
    # It holds weights of its own: other weights beside it, even of the same shape, make it worthless.
    shutil.copy(tiny_models.artifact(copy.parent / "other", seed=9) / folder.WEIGHTS, copy / folder.WEIGHTS)
    with pytest.raises(ModelError, match="made from other weights"):
        load(copy, runtime="int8")


def test_int8_that_changes_many_labels_is_refused_unless_forced(
    copy: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch, unchecked: None
) -> None:
    monkeypatch.setattr("textclf.inference.quantization._LARGEST", 1)  # two bits: nearly nothing is left
    before = sorted(copy.rglob("*"))
    with pytest.raises(RefusedError, match="another label than fp32") as caught:
        export(copy, int8=True, dataset=labelled, split="train")
    assert "--force" in str(caught.value.hint)
    assert sorted(copy.rglob("*")) == before
    done = export(copy, int8=True, dataset=labelled, split="train", force=True)
    assert done.graphs["int8"]["agreement"] < 0.97
    assert graph.belongs(copy, "int8")


def test_int8_says_what_is_computed_again(copy: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textclf.inference.quantization._LARGEST", 1)
    facts = export(copy, int8=True, dataset=labelled, split="train", force=True).graphs["int8"]
    assert facts["agreement_alone"] < facts["agreement"]
    texts = [text for text, _ in tiny_models.rows(60, seed=3)]  # those of `labelled`
    artifact = folder.read(copy)
    encoded = encode(texts, artifact.tokenizer(), max_length=artifact.max_length)
    ordered_NC = np.sort(onnx_runtime.OnnxRuntime(artifact, kind="int8").logits(encoded), axis=1)
    assert facts["computed_again"] == pytest.approx((ordered_NC[:, -1] - ordered_NC[:, -2] < 1.0).mean())


def test_int8_of_a_model_without_a_run_needs_texts(copy: Path) -> None:
    with pytest.raises(UsageError, match="not a run") as caught:
        export(copy, int8=True)
    assert "--dataset" in str(caught.value.hint)


def test_a_fresh_run_answers_without_torch(cli: Run, tiny_base: Path, tiny_csv: Path, tmp_path: Path) -> None:
    trained = cli("finetune", "--model", tiny_base, "-d", tiny_csv, "--epochs", "1", "-o", tmp_path / "run")
    assert trained.returncode == 0, trained.stderr
    assert loaded_by(tmp_path / "run", "--format", "jsonl", input="where is my card\nsecond\n") == set()
    assert loaded_by(tmp_path / "run", input="where is my card\n" * 600) == {"pyarrow"}
    done = cli("export", tmp_path / "run", "--int8", "--force")
    assert done.returncode == 0 and "the same answer as fp32" in done.stderr, done.stderr
    assert loaded_by(tmp_path / "run", "--runtime", "int8", input="x\n") == set()


def loaded_by(*arguments: str | Path, input: str) -> set[str]:
    """Which heavy packages `textclf predict` loads in a fresh process."""
    heavy = {"torch", "transformers", "datasets", "sklearn", "scipy", "pandas", "pyarrow", "huggingface_hub", "onnx"}
    heavy |= {"textclf.metrics", "textclf.artifact.card", "textclf.artifact.publishing"}
    program = (
        "import sys\nfrom textclf.cli.app import main\n"
        f"sys.argv = ['textclf', 'predict', *{[str(one) for one in arguments]!r}]\n"
        f"try:\n    main()\nfinally:\n    print(*({heavy!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], input=input, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.count("\n") == input.count("\n"), done.stderr
    return set(done.stderr.split())


@pytest.mark.parametrize(
    ("name", "changed", "words"),
    [
        ("config.json", {"id2label": {"0": "a", "1": "b"}}, "has 2 labels"),
        ("config.json", {"pad_token_id": "x"}, "the padding token 'x'"),
        ("textclf.json", {"max_length": "64"}, "max_length is '64', not a whole number"),
        ("textclf.json", {"max_length": 0}, "max_length is 0, not a whole number"),
        ("textclf.json", {"columns": ["text"]}, "columns is .'text'., not texts by name"),
        ("textclf.json", {"baselines": 5}, "baselines is 5, not a list"),
        ("textclf.json", {"confusions": [1]}, "confusions is .1., not a list of objects"),
        ("textclf.json", {"form": "binary"}, "no label 'correct'"),
        ("textclf.json", {"form": "multiclass"}, "no label 'A'"),
    ],
)
def test_a_folder_whose_files_contradict_each_other_is_refused(
    copy: Path, name: str, changed: dict[str, Any], words: str
) -> None:
    document = json.loads((copy / name).read_text())
    (copy / name).write_text(json.dumps({**document, **changed}))
    with pytest.raises(ModelError, match=words):
        prediction.load(copy, runtime="onnx")


def test_weights_that_are_no_numbers_are_named_in_predict_and_eval(copy: Path, labelled: Path) -> None:
    weights = copy / "model.safetensors"
    place = graph.places(weights)["classifier.weight"]
    content = bytearray(weights.read_bytes())
    content[place.offset : place.offset + place.length] = np.full(place.length // 4, np.nan, "<f4").tobytes()
    weights.write_bytes(content)
    with pytest.raises(ModelError, match="NaN or infinity"):
        prediction.load(copy, runtime="onnx").predict(["card"])
    with pytest.raises(ModelError, match="NaN or infinity"):
        evaluate(copy, dataset=labelled, runtime="onnx")


def test_a_token_that_the_graph_does_not_know_is_the_folders_fault(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "pad_token_id": 99_999}))
    with pytest.raises(ModelError, match="ONNX Runtime cannot compute"):
        prediction.load(copy, runtime="onnx").predict(["card", "where is my card and when will it arrive"])


@pytest.fixture
def hub() -> Iterator[HubStandIn]:
    with HubStandIn() as stand_in:
        yield stand_in


def test_the_graph_goes_to_the_hub_and_back(cli: Run, hub: HubStandIn, copy: Path, tmp_path: Path) -> None:
    (copy / "onnx" / "model.onnx").write_bytes(b"somebody else's")
    pushed = cli("push", copy, "alice/tickets", env=hub.environment(tmp_path, token=WRITE_TOKEN))
    assert pushed.returncode == 0, pushed.stderr
    assert {name for name in hub.model("alice/tickets").files if "/" in name} == {folder.GRAPH, folder.GRAPH_FACTS}
    environment = hub.environment(tmp_path / "elsewhere", token=WRITE_TOKEN)
    there = cli("predict", "alice/tickets", "--runtime", "onnx", input="\n".join(TEXTS[:9]), env=environment)
    here = cli("predict", copy, "--runtime", "torch", input="\n".join(TEXTS[:9]))
    assert there.returncode == 0, there.stderr
    answers = [[line.split("\t") for line in done.stdout.splitlines()] for done in (there, here)]
    assert [[label, text] for label, _, text in answers[0]] == [[label, text] for label, _, text in answers[1]]
    for (_, ours, _), (_, theirs, _) in zip(*answers, strict=True):
        assert float(ours) == pytest.approx(float(theirs), abs=1e-4)


def test_a_graph_of_other_weights_is_not_pushed(cli: Run, hub: HubStandIn, copy: Path, tmp_path: Path) -> None:
    other = tiny_models.artifact(tmp_path / "other", ["a", "b", "c", "d"])
    for name in (folder.WEIGHTS, folder.CONFIG):
        shutil.copy(other / name, copy / name)
    pushed = cli("push", copy, "alice/tickets", env=hub.environment(tmp_path, token=WRITE_TOKEN))
    assert pushed.returncode == 0, pushed.stderr
    assert not [name for name in hub.model("alice/tickets").files if "/" in name]


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "config.json"])
def test_a_graph_reads_no_file_but_the_weights(copy: Path, location: str, linked: bool) -> None:
    (copy.parent / "secret").write_bytes(bytes((copy / folder.WEIGHTS).stat().st_size))
    if linked:  # as in the Hub's cache
        (copy / folder.WEIGHTS).rename(copy.parent / "blob")
        (copy / folder.WEIGHTS).symlink_to(copy.parent / "blob")
    model = onnx.load(copy / folder.GRAPH, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (copy / folder.GRAPH).write_bytes(model.SerializeToString())
    graph.write_facts(copy, fp32=graph.read_facts(copy)["fp32"])  # who plants a graph plants its digest
    with pytest.raises(ModelError, match="cannot be used"):
        load(copy, runtime="onnx")


def test_threads_follow_the_quota_of_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)

    def cpus(name: str, files: dict[str, str]) -> int:
        for path, content in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_text(content)
        return usable_cpus(tmp_path / name)

    v2 = {"proc/self/cgroup": "0::/pod/box\n", "sys/fs/cgroup/pod/box/cpu.max": "max 100000\n"}
    assert cpus("free", v2) == 16
    assert cpus("above", {**v2, "sys/fs/cgroup/pod/cpu.max": "350000 100000\n"}) == 3
    assert cpus("least", {**v2, "sys/fs/cgroup/cpu.max": "50000 100000\n"}) == 1
    v1 = {"proc/self/cgroup": "3:cpu,cpuacct:/box\n1:memory:/box\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}
    assert cpus("v1", {**v1, "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "400000"}) == 4
    assert cpus("v1 free", {**v1, "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1"}) == 16
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert cpus("asked", v2) == 2
