"""`textclf push`, end to end: the real command line and client against a stand-in Hub."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hub_stand_in import OTHER_TOKEN, READ_TOKEN, WRITE_TOKEN, HubStandIn
from textclf.artifact import publishing, runs, screening
from textclf.errors import RefusedError, UsageError

Push = Callable[..., "subprocess.CompletedProcess[str]"]

ARTIFACT = {"README.md", "config.json", "model.safetensors", "textclf.json", "tokenizer.json", "tokenizer_config.json"}


@pytest.fixture
def hub() -> Iterator[HubStandIn]:
    with HubStandIn() as stand_in:
        yield stand_in


@pytest.fixture
def push(cli: Push, hub: HubStandIn, tmp_path: Path) -> Push:
    """push("alice/model", ...) as alice; token=None is nobody."""

    def run(
        *arguments: str | Path, token: str | None = WRITE_TOKEN, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        done = cli("push", *arguments, env={**hub.environment(tmp_path, token=token), **variables})
        assert "Traceback" not in done.stderr
        assert not token or token not in done.stdout + done.stderr
        return done

    return run


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_push_publishes_a_private_model_in_one_commit(push: Push, hub: HubStandIn, tiny_artifact: Path) -> None:
    before = digests(tiny_artifact)
    done = push(tiny_artifact, "alice/tickets", "--message", "first model")
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{hub.url}/alice/tickets\n", "the address is the only thing on stdout"
    assert "new private repository" in done.stderr
    assert "textclf predict alice/tickets" in done.stderr
    repo = hub.model("alice/tickets")
    assert repo.private
    assert set(repo.files) == ARTIFACT | {".gitattributes"}
    assert [commit.title for commit in repo.commits] == ["initial commit", "first model"]
    assert repo.files["model.safetensors"] == (tiny_artifact / "model.safetensors").read_bytes()
    assert 'model="alice/tickets"' in repo.files["README.md"].decode()
    assert digests(tiny_artifact) == before, "the model on disk stays as it is"
    assert len(hub.matching("whoami")) == 1, "the Hub limits that question strictly"
    assert {request.token for request in hub.requests if request.origin == "lfs"} == {None}


def test_plots_are_pushed_with_the_card_and_taken_away_with_it(
    push: Push, hub: HubStandIn, tiny_artifact: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_artifact, tmp_path / "model")
    (model / "plots").mkdir()
    for name in ("confusions.svg", "reliability.svg", "my own.svg", "notes.txt"):
        (model / "plots" / name).write_text("<svg/>")
    assert push(model, "alice/tickets").returncode == 0
    files = hub.model("alice/tickets").files
    plots = {"plots/confusions.svg", "plots/reliability.svg", "plots/my own.svg"}
    assert {name for name in files if name.startswith("plots/")} == plots
    card = files["README.md"].decode()
    assert "](plots/confusions.svg)" in card and "](plots/reliability.svg)" in card and "coverage.svg" not in card
    (model / "plots" / "confusions.svg").unlink()
    assert push(model, "alice/tickets").returncode == 0
    files = hub.model("alice/tickets").files
    assert "plots/confusions.svg" not in files and "](plots/confusions.svg)" not in files["README.md"].decode()


def test_a_pushed_model_comes_back_as_it_was(
    push: Push, cli: Push, hub: HubStandIn, tiny_artifact: Path, tmp_path: Path
) -> None:
    assert push(tiny_artifact, "acme/tickets").returncode == 0
    again = push("acme/tickets", "alice/copy", "--json")
    assert again.returncode == 0, again.stderr
    original, copy = hub.model("acme/tickets").files, hub.model("alice/copy").files
    assert {name: copy[name] for name in ARTIFACT - {"README.md"}} == {
        name: original[name] for name in ARTIFACT - {"README.md"}
    }


def test_second_push_changes_nothing_and_says_so(push: Push, hub: HubStandIn, tiny_artifact: Path) -> None:
    push(tiny_artifact, "alice/tickets")
    done = push(tiny_artifact, "alice/tickets", "--json")
    document = json.loads(done.stdout)
    assert (document["created"], document["changed"]) == (False, False)
    assert len(hub.model("alice/tickets").commits) == 2
    assert "nothing to do" in push(tiny_artifact, "alice/tickets").stderr


def test_a_better_model_replaces_the_files_of_the_last(
    push: Push, hub: HubStandIn, tiny_artifact: Path, tmp_path: Path
) -> None:
    push(tiny_artifact, "alice/tickets")
    repo = hub.model("alice/tickets")
    stale, kept = repo.commits[-1].files["config.json"], repo.commits[-1].files["config.json"]
    repo.commit(
        "by hand",
        {
            **repo.commits[-1].files,
            "model-00001-of-00002.safetensors": stale,
            "model.safetensors.index.json": stale,
            "LICENSE": kept,
            "onnx/model.onnx": kept,
        },
    )
    better = shutil.copytree(tiny_artifact, tmp_path / "better")
    (better / "model.safetensors").write_bytes(b"better weights")
    document = json.loads(push(better, "alice/tickets", "--json").stdout)
    assert (document["created"], document["changed"]) == (False, True)
    assert document["commit"] == repo.commits[-1].oid
    assert set(repo.files) == ARTIFACT | {".gitattributes", "LICENSE", "onnx/model.onnx"}
    assert repo.files["model.safetensors"] == b"better weights"
    assert len(repo.commits) == 4, "one commit a push"


def test_dry_run_writes_nothing(push: Push, hub: HubStandIn, tiny_artifact: Path) -> None:
    done = push(tiny_artifact, "alice/tickets", "--dry-run")
    assert done.returncode == 0
    assert "would push 6 files" in done.stderr
    assert "new private repository" in done.stderr
    assert all(name in done.stderr for name in ARTIFACT)
    document = json.loads(push(tiny_artifact, "alice/tickets", "--dry-run", "--public", "--json").stdout)
    sizes = {file["path"]: file["size"] for file in document["files"]}
    assert sizes["model.safetensors"] == (tiny_artifact / "model.safetensors").stat().st_size
    assert (document["dry_run"], document["created"], document["private"]) == (True, True, False)
    nobody = push(tiny_artifact, "alice/tickets", "--dry-run", token=None)
    assert nobody.returncode == 0
    assert "hf auth login" in nobody.stderr
    assert not hub.writes()
    assert not hub.matching("preupload")
    assert not hub.repos


def test_an_existing_repository_keeps_its_visibility(push: Push, hub: HubStandIn, tiny_artifact: Path) -> None:
    push(tiny_artifact, "alice/closed")
    push(tiny_artifact, "alice/open", "--public")
    assert not hub.model("alice/open").private
    assert "stays private" in push(tiny_artifact, "alice/closed", "--public").stderr
    assert "stays public" in push(tiny_artifact, "alice/open").stderr
    assert hub.model("alice/closed").private
    assert not hub.model("alice/open").private


REFUSALS = """
import json, os, sys
from textclf.artifact import publishing
from textclf.errors import HubError
for repo_id, token in json.loads(sys.argv[2]):
    os.environ["HF_TOKEN"] = token
    try:
        publishing.push(sys.argv[1], repo_id)
    except HubError as err:
        print(json.dumps(str(err)))
"""


def test_refusals_say_what_to_do(push: Push, hub: HubStandIn, tiny_artifact: Path, tmp_path: Path) -> None:
    hub.add_model("alice/taken", {"config.json": "{}", "model.safetensors": b"x"})
    expected: dict[tuple[str, str], tuple[str, ...]] = {
        ("alice/m", "hf_nonsense"): ("does not accept the token", "it comes from HF_TOKEN"),
        ("alice/m", READ_TOKEN): ("the token of alice may only read", "hf auth login"),
        ("alice/m", OTHER_TOKEN): ("you are mallory", "push to mallory/m"),
        ("bob/m", WRITE_TOKEN): ("you are alice", "push to alice/m", "an organisation of yours: acme"),
        ("alice/taken", WRITE_TOKEN): ("holds something else", "choose another name"),
    }
    said = subprocess.run(
        [sys.executable, "-c", REFUSALS, tiny_artifact, json.dumps(list(expected))],
        capture_output=True,
        text=True,
        env={**os.environ, **hub.environment(tmp_path)},
    )
    lines = said.stdout.splitlines()
    assert len(lines) == len(expected), said.stderr
    for line, texts in zip(lines, expected.values(), strict=True):
        assert all(text in json.loads(line) for text in texts), line
    nobody = push(tiny_artifact, "alice/m", token=None)
    nowhere = push(tiny_artifact, "alice/m", HF_ENDPOINT="http://127.0.0.1:9")
    offline = push(tiny_artifact, "alice/m", HF_HUB_OFFLINE="1")
    for done, hint in ((nobody, "hf auth login"), (nowhere, "check the network"), (offline, "unset HF_HUB_OFFLINE")):
        assert (done.returncode, done.stdout) == (5, "")
        assert hint in done.stderr
    assert not hub.writes()


@pytest.mark.parametrize(
    "name", ["model", "a/b/c", "/m", "alice/", "alice/my model", "alice/..", "alice/a--b", "alice/é", ""]
)
def test_a_malformed_repository_name_is_a_usage_error(name: str, tiny_artifact: Path) -> None:
    with pytest.raises(UsageError, match=r"OWNER/NAME|missing"):
        publishing.push(tiny_artifact, name)


def test_push_outlasts_a_busy_hub(push: Push, hub: HubStandIn, tiny_artifact: Path) -> None:
    hub.fail("POST /api/repos/create", 503, retry_after=0)
    hub.fail("POST /api/models/.*/commit/", 429, times=2, retry_after=0)
    hub.fail("GET /api/whoami", 500, retry_after=0)
    done = push(tiny_artifact, "alice/tickets")
    assert done.returncode == 0, done.stderr
    assert len(hub.model("alice/tickets").commits) == 2
    assert len(hub.matching("PUT /upload")) == 1, "the weights are not sent again"


def test_push_gives_up_on_a_busy_hub_in_good_time(push: Push, hub: HubStandIn, tiny_artifact: Path) -> None:
    hub.fail("POST /api/models/.*/commit/", 429, times=9, retry_after=0)
    done = push(tiny_artifact, "alice/tickets")
    assert done.returncode == 5
    assert "limits how often" in done.stderr
    assert "still empty; the same command fills it" in done.stderr
    hub.faults.clear()
    hub.fail("POST /api/models/.*/commit/", 429, retry_after=3600)
    late = push(tiny_artifact, "alice/tickets")
    assert late.returncode == 5
    assert "in 60 minutes" in late.stderr, "an hour is not waited for"
    hub.faults.clear()
    assert push(tiny_artifact, "alice/tickets").returncode == 0, "what a failed push left is no obstacle"


def test_a_push_whose_answer_was_lost_is_not_done_twice(push: Push, hub: HubStandIn, tiny_artifact: Path) -> None:
    hub.cut("POST /api/models/.*/commit/", after=10)
    first = push(tiny_artifact, "alice/tickets")
    assert len(hub.model("alice/tickets").commits) == 2, "the Hub had made the commit when the line broke"
    assert first.returncode in (0, 5) and "Traceback" not in first.stderr
    again = push(tiny_artifact, "alice/tickets")
    assert again.returncode == 0, again.stderr
    assert len(hub.model("alice/tickets").commits) == 2


def test_push_takes_the_latest_run_or_the_named_one(
    push: Push, hub: HubStandIn, home: Path, tiny_artifact: Path
) -> None:
    for name in ("older", "newer"):
        run = runs.create(home / "runs" / name, {})
        model = shutil.copytree(tiny_artifact, run.folder / "model")
        (model / "model.safetensors").write_bytes(name.encode())
        (run.folder / "checkpoints").mkdir()
        (run.folder / "checkpoints" / "state.safetensors").write_bytes(b"x")
        run.update(state="done")
    assert push("alice/latest").returncode == 0
    assert push("older", "alice/named").returncode == 0
    assert hub.model("alice/latest").files["model.safetensors"] == b"newer"
    assert hub.model("alice/named").files["model.safetensors"] == b"older"
    assert push("olderr", "alice/x").returncode == 5
    assert push("a", "b", "alice/x").returncode == 2


def test_only_the_model_leaves_and_no_trace_of_this_machine(
    push: Push, hub: HubStandIn, tiny_artifact: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_artifact, tmp_path / "model")
    for name in ("train.parquet", "train.csv", ".env", "optimizer.safetensors", "run.log", "id_rsa", "evil.py"):
        (model / name).write_text("secret")
    (model / "checkpoints").mkdir()
    (model / "checkpoints" / "model.safetensors").write_text("secret")
    facts = json.loads((model / "textclf.json").read_text())
    facts["dataset"] = str(tmp_path / "tickets.csv")
    facts["base_model"] = str(Path.home() / "models" / "base")
    facts["config"] = {"data": {"dataset": str(tmp_path / "tickets.csv")}, "model": {"name": "C:\\Users\\eve\\base"}}
    (model / "textclf.json").write_text(json.dumps(facts))
    settings = json.loads((model / "tokenizer_config.json").read_text())
    settings |= {"name_or_path": "/srv/models/secret", "is_local": True, "tokenizer_file": "/srv/secret/tokenizer.json"}
    (model / "tokenizer_config.json").write_text(json.dumps(settings))
    done = push(model, "alice/tickets")
    assert done.returncode == 0, done.stderr
    files = hub.model("alice/tickets").files
    assert set(files) == ARTIFACT | {".gitattributes"}
    published = b"\n".join(data for name, data in files.items() if name != "model.safetensors")
    for trace in ("secret", str(tmp_path), str(Path.home()) + "/", "eve", socket.gethostname()):
        assert trace.encode() not in published, trace
    assert json.loads(files["textclf.json"])["dataset"] == "tickets.csv"
    assert "tickets.csv" in files["README.md"].decode()


def test_a_trace_that_cannot_be_cut_stops_the_push(
    push: Push, hub: HubStandIn, tiny_artifact: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny_artifact, tmp_path / "model")
    facts = json.loads((model / "textclf.json").read_text())
    facts["environment"] = {"note": "trained on /home/eve/work by hand"}
    (model / "textclf.json").write_text(json.dumps(facts))
    done = push(model, "alice/tickets")
    assert done.returncode == 8
    assert "textclf.json: environment: note holds '/home/eve" in done.stderr
    assert not hub.writes()


def test_labels_stay_whatever_they_are_called(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "build-box-7")
    monkeypatch.setattr(getpass, "getuser", lambda: "eve.lyn42")
    screening._this_machine.cache_clear()
    try:
        labels = ("build-box-7", "/var/log/x", "eve.lyn42")
        document: dict[str, Any] = {"id2label": dict(enumerate(labels))}
        assert screening.without_traces(document, where="config.json", keep=labels) == document
        for text in ("on build-box-7", "by eve.lyn42."):
            with pytest.raises(RefusedError, match="names this machine"):
                screening.without_traces({"x": [text]}, where="config.json", keep=labels)
        assert screening.without_traces("eve.lyn421", where="x") == "eve.lyn421", "a name within a word is a word"
    finally:
        screening._this_machine.cache_clear()


def test_a_model_of_others_is_not_pushed(push: Push, hub: HubStandIn, tiny_artifact: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_artifact, tmp_path / "model")
    (model / "textclf.json").unlink()
    done = push(model, "alice/tickets")
    assert done.returncode == 4
    assert "not made by textclf" in done.stderr
    assert not hub.requests
