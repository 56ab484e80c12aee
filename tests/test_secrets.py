"""Secrets of the environment appear nowhere: not in what is said, not in a file, whatever a command meets."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from in_process import run
from textclf.artifact import folder, publishing
from textclf.errors import RefusedError, TextclfError
from textclf.redaction import kind_of_secret, redact

TOKEN = "hf_" + "Kn0wnCanary" * 3
PASSWORD = "pa55w0rd-canary"
KEY = "0123456789abcdef-wandb-canary"
CANARIES = (TOKEN, PASSWORD, KEY)

COMMANDS = {
    "prepare": ["prepare", "--dataset", "{csv}"],
    "finetune": ["finetune", "--model", "{base}", "--dataset", "{csv}", "--out", "{out}", "--epochs", "1"],
    "estimate": ["finetune", "--model", "{base}", "--dataset", "{csv}", "--dry-run"],
    "eval": ["eval", "{model}", "--dataset", "{csv}"],
    "predict": ["predict", "{model}", "{csv}"],
    "export": ["export", "{copy}"],
    "push": ["push", "{model}", "alice/model"],
    "runs list": ["runs", "list"],
    "runs show": ["runs", "show", "{run}"],
    "runs path": ["runs", "path", "{run}"],
}
ROOM = {
    "prepare": "textclf.data.preparation.prepare",
    "finetune": "textclf.training.finetuning.finetune",
    "estimate": "textclf.training.estimate.estimate",
    "eval": "textclf.evaluation.evaluation.evaluate",
    "predict": "textclf.inference.runtimes.open_runtime",
    "export": "textclf.evaluation.exporting.export",
    "push": "textclf.artifact.publishing.push",
    "runs list": "textclf.artifact.runs.all_runs",
    "runs show": "textclf.artifact.runs.named",
    "runs path": "textclf.artifact.runs.named",
}


@pytest.fixture
def places(
    tmp_path: Path, home: Path, tiny_base: Path, tiny_artifact: Path, tiny_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """Where the commands find what they need, with canaries in the environment."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.setenv(name, TOKEN)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:{PASSWORD}@127.0.0.1:9")
    (home / "runs/a-run").mkdir(parents=True)
    document = {"format": "textclf run 1", "state": "done", "started": "2026-01-01"}
    (home / "runs/a-run/run.json").write_text(json.dumps(document))
    (home / "runs/a-run/config.json").write_text("{}")
    copy = shutil.copytree(tiny_artifact, tmp_path / "copy")
    found = {"csv": tiny_csv, "base": tiny_base, "model": tiny_artifact, "copy": copy, "out": tmp_path / "out"}
    return {"{run}": "a-run", **{"{" + name + "}": str(path) for name, path in found.items()}}


def found_in(text: str | bytes) -> list[str]:
    data = text.encode() if isinstance(text, str) else text
    return [canary for canary in CANARIES if canary.encode() in data]


@pytest.mark.usefixtures("no_graph")
@pytest.mark.parametrize("end", ["ok", "fail", "debug", "crash"])
@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_tells_a_secret(
    name: str, end: str, places: dict[str, str], tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [places.get(argument, argument) for argument in COMMANDS[name]]
    said = f"no connection to https://me:{PASSWORD}@127.0.0.1:9 with {TOKEN} and {KEY}"

    def fail(*_arguments: object, **_settings: object) -> None:
        kind: Callable[[str], Exception] = RuntimeError if end == "crash" else TextclfError
        try:
            raise OSError(f"what another package says: {said}")
        except OSError as err:
            raise kind(said) from err

    if end != "ok":
        monkeypatch.setattr(ROOM[name], fail)
        arguments += ["--debug"] if end != "fail" else []
    done = run(arguments)
    # Without a network a push gets no further than asking who it is, and no graph is written here.
    well = {"push": 5, "export": 4}.get(name, 0)
    assert done.code == (well if end == "ok" else 1), done.err[-800:]
    assert end in ("ok", "fail") or "Traceback" in done.err
    assert end == "ok" or "***" in done.err
    assert found_in(done.out + done.err) == []
    files = [path for root in (tmp_path, home) for path in root.rglob("*") if path.is_file()]
    assert files and [path for path in files if found_in(path.read_bytes())] == []


SECRETS = {
    "Hugging Face": "hf_" + "a" * 34,
    "GitHub": "ghp_" + "a" * 36,
    "AWS": "AKIA" + "A" * 16,
    "Google": "AIza" + "a" * 35,
    "OpenAI": "sk-proj-" + "a" * 40,
    "Slack": "xoxb-" + "1" * 12,
    "a private key": "-----BEGIN OPENSSH PRIVATE KEY-----",
    "a password": "https://me:secret@example.com/x",
}


@pytest.mark.parametrize("kind", SECRETS)
def test_secrets_are_known_by_their_form(kind: str) -> None:
    text = f"before {SECRETS[kind]} after"
    assert kind in (kind_of_secret(text) or "")
    assert SECRETS[kind] not in redact(text)
    assert redact(text).startswith("before") and redact(text).endswith("after")


@pytest.mark.parametrize(
    "text",
    [
        "hf_model",
        "the sk-learn way",
        "a@b.c",
        "https://example.com/@me",
        "12:30@noon",
        "AKIA",
        "ghp_x",
        "risk-free-" * 9,
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text and kind_of_secret(text) is None


def test_what_the_environment_holds_is_secret_whatever_its_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "of no known form")
    assert redact("a key of no known form is told") == "a key *** is told"
    err = TextclfError("message of no known form", hint="hint of no known form")
    assert (str(err), err.message, err.hint) == ("message ***\nhint ***", "message ***", "hint ***")


def test_a_short_token_of_the_environment_is_no_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "x")
    assert redact("a text with x in it") == "a text with x in it"


@pytest.mark.parametrize(
    "file", ["config.json", "textclf.json", "tokenizer.json", "vocab.txt", "model.safetensors", "own"]
)
def test_push_refuses_a_secret_wherever_it_is(
    file: str, tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = shutil.copytree(tiny_artifact, tmp_path / "model")
    secret = "ghp_" + "a" * 36
    if file == "model.safetensors":
        from safetensors.numpy import load_file, save_file

        save_file(load_file(place / file), place / file, metadata={"format": "pt", "note": secret})
    elif file == "vocab.txt":
        (place / file).write_text(f"a\nb\n{secret}\n")
    elif file == "own":  # the token at work, whatever its form
        monkeypatch.setenv("HF_TOKEN", "of no known form")
        edit(place / "config.json", note="of no known form")
    else:
        edit(place / file, note=secret, dataset=secret)
    with pytest.raises(RefusedError, match="looks like") as caught:
        publishing._content(folder.read(place), "alice/model")
    assert secret not in str(caught.value) and "nothing was pushed" in caught.value.message


def test_push_sends_no_file_from_elsewhere(tiny_artifact: Path, tmp_path: Path) -> None:
    place = shutil.copytree(tiny_artifact, tmp_path / "model")
    (tmp_path / "notes.txt").write_text("mine alone")
    (place / "vocab.txt").symlink_to(tmp_path / "notes.txt")
    with pytest.raises(RefusedError, match=r"vocab.txt is a link"):
        publishing._content(folder.read(place), "alice/model")


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
