"""OpenVINO on the CPU: the answers of the other runtimes, nothing read but the model's weights, a clear word where it
is missing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

import textclf
import tiny_models
from textclf.artifact import folder, graph
from textclf.data.encoding import encode
from textclf.errors import MissingExtraError, ModelError, UsageError
from textclf.evaluation.exporting import export
from textclf.inference.runtimes import open_runtime

Cli = Callable[..., subprocess.CompletedProcess[str]]

TEXTS = ["", "x", "where is my card", *(text for text, _ in tiny_models.rows(90, seed=5)), "long " * 300, "我的卡 🙂"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny classifier with its graph; not to be written to."""
    place = tiny_models.artifact(tmp_path_factory.mktemp("exported") / "tiny-classifier")
    export(place)
    return place


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One that reads pairs of texts and tells the two apart."""
    place = tiny_models.artifact(tmp_path_factory.mktemp("exported") / "tiny-pairs")
    folder.write_facts(place, folder.Facts(max_length=64, form="pair"))
    export(place)
    return place


def logits(place: Path, runtime: str) -> np.ndarray:
    artifact = folder.read(place)
    second = TEXTS[::-1] if artifact.form == "pair" else None
    encoded = encode(TEXTS, artifact.tokenizer(), pairs=second, max_length=artifact.max_length)
    told: list[int] = []
    found = open_runtime(artifact, runtime=runtime, device="cpu").logits(encoded, told.append)
    assert told == sorted(told) and told[-1] == len(TEXTS)
    return found


@pytest.mark.parametrize("place", ["exported", "pairs"])
@pytest.mark.parametrize("precision", ["f32", "own"])
def test_logits_are_those_of_onnx(
    place: str, precision: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, unchecked: None
) -> None:
    openvino = pytest.importorskip("openvino")
    if precision == "f32":  # as on a CPU without bf16
        monkeypatch.setattr(openvino.Core, "get_property", lambda *asked: ["FP32"])
    expected = logits(request.getfixturevalue(place), "onnx")
    found = logits(request.getfixturevalue(place), "openvino")
    assert found.dtype == np.float32 and found.shape == expected.shape
    spread = float(np.ptp(expected, axis=0).max())
    assert spread > 0.02, "a model that answers alike to all texts shows nothing"
    # Random weights tripled magnify rounding, and bf16 moves a single text far.
    assert np.abs(found - expected).max() < (1e-3 * spread if precision == "f32" else spread)
    if precision == "own":
        assert np.median(np.abs(found - expected)) < 0.05 * spread


def test_predict_and_eval_compute_with_it_and_load_no_torch(exported: Path, cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    rows = tiny_models.rows(60, seed=3)
    data = tmp_path / "labelled.csv"
    data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    program = (
        "import sys\nfrom textclf.cli.app import main\n"
        f"sys.argv = ['textclf', 'predict', {str(exported)!r}, {str(data)!r}]\n"
        "sys.argv += ['--runtime', 'openvino', '--format', 'jsonl']\n"
        "try:\n    main()\nfinally:\n    assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["text"] for one in answers] == [text for text, _ in rows]
    right = np.mean([one["label"] == label for one, (_, label) in zip(answers, rows, strict=True)])
    evaluated = cli("eval", exported, "-d", data, "--split", "train", "--json", "--runtime", "openvino")
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads(evaluated.stdout)["metrics"]["accuracy"] == pytest.approx(right)


def test_without_the_package_it_says_how_to_get_it(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtraError, match="openvino") as caught:
        textclf.load(exported, runtime="openvino")
    assert "textclf[openvino]" in str(caught.value.hint)
    assert textclf.load(exported).predict(["x"]).shape == (1,), "nothing else asks for it"


def test_it_is_of_the_cpu_and_needs_the_graph(exported: Path, tiny_artifact: Path) -> None:
    with pytest.raises(UsageError, match="on the CPU, not on cuda"):
        textclf.load(exported, runtime="openvino", device="cuda")
    with pytest.raises(ModelError, match="no fp32 ONNX graph") as caught:
        textclf.load(tiny_artifact, runtime="openvino")
    assert "textclf export" in str(caught.value.hint)


@pytest.mark.parametrize("deep", [False, True])
def test_it_reads_no_file_but_the_weights(
    exported: Path, tmp_path: Path, deep: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    place = shutil.copytree(exported, tmp_path / "copy")
    (tmp_path / "secret").write_bytes(bytes((place / folder.WEIGHTS).stat().st_size))
    monkeypatch.chdir(tmp_path)
    model = onnx.load(place / folder.GRAPH, load_external_data=False)
    outside = next(one for one in model.graph.initializer if one.data_location == onnx.TensorProto.EXTERNAL)
    for entry in outside.external_data:
        if entry.key == "location":
            entry.value = "secret"
    if deep:  # a constant inside the graph
        model.graph.node.insert(0, onnx.helper.make_node("Constant", [], [outside.name], value=outside))
        model.graph.initializer.remove(outside)
    (place / folder.GRAPH).write_bytes(model.SerializeToString())
    graph.write_facts(place, fp32=graph.read_facts(place)["fp32"])  # who plants a graph plants its digest
    with pytest.raises(ModelError, match="cannot be used"):
        textclf.load(place, runtime="openvino")


def test_weights_behind_a_link_and_a_token_that_is_none(exported: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    place = shutil.copytree(exported, tmp_path / "copy")
    (place / folder.WEIGHTS).rename(tmp_path / "blob")
    (place / folder.WEIGHTS).symlink_to(tmp_path / "blob")  # as in the Hub's cache
    assert textclf.load(place, runtime="openvino").predict(TEXTS).shape == (len(TEXTS),)
    config = json.loads((place / folder.CONFIG).read_text())
    (place / folder.CONFIG).write_text(json.dumps({**config, "pad_token_id": 99_999}))
    with pytest.raises(ModelError, match="OpenVINO cannot compute"):
        textclf.load(place, runtime="openvino").predict(["card", "where is my card and when will it arrive"])
