"""Finding and fetching models: local folders, runs, the Hub. Against a stand-in Hub, with the real client."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hub_stand_in import OTHER_TOKEN, WRITE_TOKEN, HubStandIn
from textclf.artifact import hub as hub_room
from textclf.artifact import runs, screening
from textclf.errors import ModelError, RefusedError

FETCH = """
import json, os, sys
from textclf.artifact import hub
from textclf.errors import TextclfError
for wanted in json.loads(sys.argv[1]):
    try:
        got = hub.fetch(**wanted)
        files = sorted(os.path.relpath(os.path.join(d, f), got.folder) for d, _, fs in os.walk(got.folder) for f in fs)
        answer = {"folder": str(got.folder), "revision": got.revision, "files": files}
    except TextclfError as err:
        answer = {"code": err.exit_code, "message": err.message, "hint": err.hint or ""}
    print(json.dumps(answer))
assert not {"torch", "transformers"} & set(sys.modules)
"""


@pytest.fixture
def hub() -> Iterator[HubStandIn]:
    with HubStandIn() as stand_in:
        yield stand_in


def fetch(environment: dict[str, str], *wanted: str | dict[str, Any]) -> list[dict[str, Any]]:
    """What `fetch` gives for each, in one process of its own."""
    asked = [{"reference": one} if isinstance(one, str) else one for one in wanted]
    finished = subprocess.run(
        [sys.executable, "-c", FETCH, json.dumps(asked)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert finished.returncode == 0, finished.stderr
    assert "Traceback" not in finished.stderr
    return [json.loads(line) for line in finished.stdout.splitlines()]


def test_real_clients_load_from_the_stand_in(hub: HubStandIn, tiny_base: Path, tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    table = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x", "y"], "label": [0, 1]}), table)
    hub.add_model("distilbert/distilbert-base-uncased", tiny_base, aliases=("distilbert-base-uncased",))
    rows = {"data/train-00000-of-00001.parquet": table.getvalue(), "README.md": "---\nlicense: mit\n---\n"}
    hub.add_dataset("legacy-datasets/banking77", rows, aliases=("banking77",))
    code = """
import datasets, huggingface_hub, transformers
print(transformers.AutoModel.from_pretrained("distilbert-base-uncased").config.model_type)
print(len(transformers.AutoTokenizer.from_pretrained("distilbert-base-uncased")("hello").input_ids))
print(datasets.load_dataset("legacy-datasets/banking77", split="train").num_rows)
print(huggingface_hub.HfApi().dataset_info("banking77").id)
"""
    environment = {**os.environ, **hub.environment(tmp_path, token=WRITE_TOKEN)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    lines = done.stdout.split()
    assert (lines[0], *lines[2:]) == ("bert", "2", "legacy-datasets/banking77"), done.stderr
    assert {request.token for request in hub.requests if request.origin == "lfs"} == {None}


def test_fetch_brings_what_a_model_needs_and_no_more(hub: HubStandIn, tiny_base: Path, tmp_path: Path) -> None:
    needed = {path.name: path.read_bytes() for path in tiny_base.iterdir()}
    useless = (
        *("modeling_evil.py", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack", "model.fp16.safetensors"),
        *("onnx/model.onnx", "onnx/model.safetensors", "onnx/tokenizer.json", "coreml/x/config.json", "README.md"),
    )
    others = dict.fromkeys(useless, b"x")
    repo = hub.add_model("acme/base", {**needed, "1_Pooling/config.json": b"{}", **others}, aliases=("base",))
    environment = hub.environment(tmp_path, token=WRITE_TOKEN)
    full, short = fetch(environment, "acme/base", "base")
    assert set(full["files"]) == {*needed, "1_Pooling/config.json"} - {"README.md"}
    assert full["revision"] == repo.commits[-1].oid
    assert short["files"] == full["files"], "an id without a namespace leads to the same model"
    assert not hub.matching(r"resolve/.*(\.py|\.bin|\.onnx)")
    assert {request.token for request in hub.requests if request.origin == "lfs"} == {None}
    assert {request.token for request in hub.requests if request.origin == "hub"} == {WRITE_TOKEN}


def test_sharded_weights_come_whole(hub: HubStandIn, tiny_base: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in tiny_base.iterdir()}
    shards = {f"model-0000{part}-of-00002.safetensors": b"shard" for part in (1, 2)}
    del files["model.safetensors"]
    index = json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    )
    hub.add_model("acme/large", {**files, **shards, "model.safetensors.index.json": index, "pytorch_model.bin": b"x"})
    environment = hub.environment(tmp_path)
    [got] = fetch(environment, "acme/large")
    assert {*shards, "model.safetensors.index.json"} <= set(got["files"])
    assert "pytorch_model.bin" not in got["files"]
    assert fetch({**environment, "HF_HUB_OFFLINE": "1"}, "acme/large")[0]["folder"] == got["folder"]
    (Path(got["folder"]) / "model-00002-of-00002.safetensors").unlink()
    [broken] = fetch({**environment, "HF_HUB_OFFLINE": "1"}, "acme/large")
    assert broken["code"] == 5, "half a model in the cache is no model"


def test_pickled_weights_are_refused_unless_allowed(hub: HubStandIn, tiny_base: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in tiny_base.iterdir()}
    files["pytorch_model.bin"] = files.pop("model.safetensors")
    hub.add_model("acme/old", files)
    local = tmp_path / "old"
    local.mkdir()
    for name, data in files.items():
        (local / name).write_bytes(data)
    allowed = {"reference": "acme/old", "allow_bin": True}
    remote, here, opened = fetch(hub.environment(tmp_path), "acme/old", str(local), allowed)
    for refused in (remote, here):
        assert refused["code"] == 8
        assert "--set model.allow_bin=true" in refused["hint"]
    assert "pytorch_model.bin" in opened["files"]


def test_what_the_hub_does_not_give_is_said_plainly(hub: HubStandIn, tiny_base: Path, tmp_path: Path) -> None:
    hub.add_model("acme/open", tiny_base)
    hub.add_model("acme/secret", tiny_base, private=True)
    hub.add_model("acme/gated", tiny_base, gated=True)
    hub.add_model("acme/data", {"rows.csv": "a,b"})
    asked = ["acme/nothing", "acme/secret", "acme/gated", {"reference": "acme/open", "revision": "v9"}, "acme/data"]
    anonymous = fetch(hub.environment(tmp_path), *asked)
    stranger = fetch(hub.environment(tmp_path, token=OTHER_TOKEN), *asked)
    for missing, secret, gated, revision, data in (anonymous, stranger):
        assert [one["code"] for one in (missing, secret, gated, revision, data)] == [5, 5, 5, 5, 4]
        assert "acme/nothing" in missing["message"]
        assert "private" in secret["message"]
        assert f"{hub.url}/acme/gated" in gated["hint"]
        assert "hf auth login" in gated["hint"]
        assert "'v9'" in revision["message"]
    assert "hf auth login" in anonymous[1]["hint"]
    [bad] = fetch(hub.environment(tmp_path, token="hf_nonsense"), "acme/open")
    assert bad["code"] == 5
    assert "does not accept the token" in bad["message"]
    assert "HF_TOKEN" in bad["message"]
    assert "hf_nonsense" not in str(bad)
    member = fetch(hub.environment(tmp_path, token=WRITE_TOKEN), "acme/secret", "acme/gated")
    assert all("model.safetensors" in one["files"] for one in member)


def test_a_tag_gives_the_commit_it_stands_for(hub: HubStandIn, tiny_base: Path, tmp_path: Path) -> None:
    repo = hub.add_model("acme/base", tiny_base)
    repo.tags["v1"] = repo.commits[0].oid
    repo.commit("later", dict(repo.commits[0].files))
    first = {"reference": "acme/base", "revision": "v1"}
    tagged, newest = fetch(hub.environment(tmp_path), first, "acme/base")
    assert [tagged["revision"], newest["revision"]] == [commit.oid for commit in repo.commits]


def test_without_a_network_the_cache_answers(hub: HubStandIn, tiny_base: Path, tmp_path: Path) -> None:
    hub.add_model("acme/base", tiny_base)
    environment = hub.environment(tmp_path)
    [online] = fetch(environment, "acme/base")
    before = len(hub.requests)
    offline, absent = fetch({**environment, "HF_HUB_OFFLINE": "1"}, "acme/base", "acme/other")
    assert offline == online
    assert len(hub.requests) == before, "offline mode asks nobody"
    assert absent["code"] == 5
    assert "HF_HUB_OFFLINE" in absent["hint"]
    hub.fail("/api/models", 503, times=100, retry_after=0)
    assert fetch(environment, "acme/base")[0] == online, "a Hub that is down is no network either"
    unreachable = {**environment, "HF_ENDPOINT": "http://127.0.0.1:9"}
    cached, nowhere = fetch(unreachable, "acme/base", "acme/other")
    assert cached == online
    assert nowhere["code"] == 5
    assert "http://127.0.0.1:9 cannot be reached" in nowhere["message"]


def test_fetch_outlasts_passing_faults(hub: HubStandIn, tiny_base: Path, tmp_path: Path) -> None:
    hub.add_model("acme/base", tiny_base)
    hub.fail("GET /acme/base/resolve/.*/config.json", 503)
    hub.fail("GET /api/models/acme/base$", 429, retry_after=0)
    hub.cut("GET /object/", after=10_000)
    [got] = fetch(hub.environment(tmp_path), "acme/base")
    weights = Path(got["folder"]) / "model.safetensors"
    assert weights.read_bytes() == (tiny_base / "model.safetensors").read_bytes()


def test_what_is_not_the_hub_is_told_from_it(hub: HubStandIn, tmp_path: Path) -> None:
    hub.fail("/api/models", 200, times=9, body=b"<html>please log in to the hotel network</html>")
    [got] = fetch(hub.environment(tmp_path), "acme/base")
    assert got["code"] == 5
    assert "does not answer as the Hub does" in got["message"]


def test_a_repository_cannot_bring_code(hub: HubStandIn, tiny_base: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in tiny_base.iterdir()}
    config = json.loads(files["config.json"])
    code = {"AutoConfig": "configuration_evil.EvilConfig"}
    hub.add_model("acme/evil", {**files, "config.json": json.dumps({**config, "model_type": "evil", "auto_map": code})})
    hub.add_model("acme/both", {**files, "config.json": json.dumps({**config, "auto_map": code})})
    evil, both = fetch(hub.environment(tmp_path), "acme/evil", "acme/both")
    assert evil["code"] == 8
    assert "never run" in evil["message"]
    assert "config.json" in both["files"], "a class of transformers' own is used instead"


@pytest.mark.parametrize(
    ("content", "error", "says"),
    [
        ("[]", ModelError, "not a JSON object"),
        ("{", ModelError, "not valid JSON"),
        ("[" * 100_000, ModelError, "not valid JSON"),
        ("{}", ModelError, "names no model_type"),
        ('{"model_type": ["bert"]}', ModelError, "names no model_type"),
        ('{"model_type": "bertt"}', ModelError, "'bertt' is not known"),
        ('{"model_type": "bert", "text_config": [{"trust_remote_code": true}]}', RefusedError, "trust_remote_code"),
        ('{"model_type": "bert", "custom_pipelines": {"x": {"impl": "a.B"}}}', RefusedError, "custom_pipelines"),
        ('{"model_type": "x", "auto_map": {"AutoModel": "a--b.C"}}', RefusedError, "never run"),
    ],
)
def test_config_is_screened_before_transformers_reads_it(
    tmp_path: Path, content: str, error: type[Exception], says: str
) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(error, match=says):
        screening.check_config(tmp_path)


def test_known_types_are_those_of_transformers() -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    assert screening._known_types() <= set(CONFIG_MAPPING_NAMES)
    assert {"bert", "distilbert", "deberta-v2", "modernbert", "qwen3"} <= screening._known_types()


def test_model_is_a_run_then_a_path_then_a_hub_id(
    home: Path, tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = runs.create(home / "runs" / "first", {})
    with pytest.raises(ModelError, match="no model yet"):
        hub_room.locate("first")
    shutil.copytree(tiny_artifact, run.folder / "model")
    run = run.update(state="done")
    shutil.copytree(tiny_artifact, tmp_path / "first")
    shutil.copytree(tiny_artifact, tmp_path / "second")
    assert hub_room.locate() == hub_room.locate(run) == hub_room.locate("first") == run.model_folder
    assert hub_room.locate(str(run.folder)) == hub_room.locate(run.folder) == run.model_folder
    assert hub_room.locate(Path("first")) == hub_room.locate("./first") == Path("first")
    assert hub_room.locate("second") == Path("second")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "./secnod", "a/b/c", "x" * 300, "a\0b", "~nobody-has-this/x", "-x", "a b"]
)
def test_what_is_no_model_names_itself(name: str) -> None:
    with pytest.raises(ModelError):
        hub_room.locate(name)


def test_a_mistyped_model_gets_the_nearest_name(
    home: Path, tiny_artifact: Path, tmp_path: Path, hub: HubStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tickets").mkdir()
    runs.create(home / "runs" / "banking77-minilm", {})
    run, path = fetch(hub.environment(tmp_path), "banking77-minlm", "./tickts")
    assert run["hint"] == "did you mean the run banking77-minilm?"
    assert path["hint"] == "did you mean the folder tickets?"
    with pytest.raises(ModelError, match="is a file"):
        hub_room.fetch(tiny_artifact / "config.json")
