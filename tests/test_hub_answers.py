"""Whatever a Hub answers, or a repository on it holds, ends in a message: one process asks for all of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import hub_answers
from hub_stand_in import WRITE_TOKEN, HubStandIn
from in_process import Done
from test_bad_inputs import check

STATUSES = (400, 401, 403, 404, 405, 409, 410, 413, 418, 422, 429, 451, 500, 501, 502, 503, 504)
BODIES = {
    "HTML": b"<html>log in</html>",
    "nothing": b"",
    "a list": b"[]",
    "null": b"null",
    "a text": b'"x"',
    "no JSON": b"{{{",
    "another object": b'{"a": 1}',
    "siblings of another kind": b'{"id": "a/b", "siblings": 7}',
    "latin-1": b'{"a": "caf\xe9"}',
    "control codes": b"\x1b]0;owned\x07\x1b[2J",
}
FILES: dict[str, dict[str, Any]] = {
    "no files": {},
    "code alone": {"modeling.py": b"raise SystemExit(66)"},
    "no weights": {"config.json": b'{"model_type": "bert"}', "tokenizer.json": b"{}"},
    "pickles alone": {"config.json": b'{"model_type": "bert"}', "pytorch_model.bin": b"x"},
    "no config": {"model.safetensors": b"x", "tokenizer.json": b"{}"},
    "a config of nothing": {"config.json": b"", "model.safetensors": b"x", "tokenizer.json": b"{}"},
    "a config of an unknown type": {"config.json": b'{"model_type": "evil"}', "model.safetensors": b"x"},
    "a config of code": {
        "config.json": b'{"model_type": "e", "auto_map": {"AutoModel": "m.M"}}',
        "model.safetensors": b"x",
    },
    "a config of a kernel": {
        "config.json": b'{"model_type": "bert", "_attn_implementation": "a/b"}',
        "model.safetensors": b"x",
    },
    "an index of paths": {
        "config.json": b'{"model_type": "bert"}',
        "model.safetensors.index.json": b'{"weight_map": {"a": "../x"}}',
    },
    "an index of nothing": {"config.json": b'{"model_type": "bert"}', "model.safetensors.index.json": b"[]"},
    "parts that are not there": {
        "config.json": b'{"model_type": "bert"}',
        "model.safetensors.index.json": b'{"weight_map": {"a": "model-00001-of-00001.safetensors"}}',
    },
    "names of control codes": {"\x1b[2J.json": b"{}", "config.json": b"{}"},
}


def test_whatever_the_hub_answers_is_said_plainly(tmp_path: Path) -> None:
    with HubStandIn() as hub:
        commands, codes = [], []

        def ask(name: str, *wanted: int) -> str:
            commands.append(["predict", f"acme/{name}"])
            codes.append(wanted)
            return f"/api/models/acme/{name}$"

        for status in STATUSES:
            hub.fail(ask(f"status-{status}", 5), status, times=9, retry_after=0)
        for number, body in enumerate(BODIES.values()):
            hub.fail(ask(f"body-{number}", 4, 5), 200, times=9, body=body)
        for number, files in enumerate(FILES.values()):
            hub.add_model(f"acme/files-{number}", files)
            ask(f"files-{number}", 4, 5, 8)
        environment = {
            **os.environ,
            **hub.environment(tmp_path, token=WRITE_TOKEN),
            "TEXTCLF_HOME": str(tmp_path / "home"),
        }
        done = subprocess.run(
            [sys.executable, hub_answers.__file__],
            input=json.dumps(commands), capture_output=True, text=True, env=environment, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        assert WRITE_TOKEN not in done.stdout
        fetched = [request.path for request in hub.requests if request.path.endswith((".py", ".bin"))]
    told = json.loads(done.stdout)
    assert len(told) == len(commands) == len(STATUSES) + len(BODIES) + len(FILES)
    wrong = []
    for arguments, wanted, (code, said, seconds) in zip(commands, codes, told, strict=True):
        try:
            check(Done(code, "", said), wanted, [], seconds)
        except AssertionError as err:
            wrong.append((arguments[-1], str(err)[:300]))
    assert wrong == []
    assert fetched == [], "code and pickles are not even fetched"
