"""Signals while a model comes from the Hub and while it goes there: the same command then ends as if none had come."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import tiny_models
from hub_stand_in import WRITE_TOKEN, HubStandIn

DOWN = {
    "looking at a repository": ("GET /api/models/acme/tickets", 0),
    "fetching a small file": ("GET /acme/tickets/resolve/.*/tokenizer.json", 100),
    "fetching the weights": ("GET /object/", 10_000),
}
UP = {
    "asking who may write": ("GET /api/whoami", 0),
    "making the repository": ("POST /api/repos/create", 0),
    "announcing the files": ("POST /api/models/alice/copy/preupload", 0),
    "announcing the weights": ("POST /alice/copy.git/info/lfs", 0),
    "sending the weights": ("PUT /upload/", 0),
    "committing": ("POST /api/models/alice/copy/commit", 0),
}
MOMENTS = DOWN | UP
"""Moment -> the request whose answer stops on its way, after so many bytes of its body."""
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL)
AT_ONCE = 5.0
"""Seconds after a signal in which the command must have ended, though the Hub never answers."""


def campaign(
    *, moments: Sequence[str] = tuple(MOMENTS), numbers: Sequence[signal.Signals] = SIGNALS
) -> dict[str, object]:
    """`textclf push MODEL alice/copy`, which fetches a model of the Hub and publishes it; a signal at each moment.

    Returns how many were tried, and a line for each that ended late, with another exit code than promised, left half a
    file in the cache, or after which the same command did not publish the whole model in one commit.
    """
    wrong: list[str] = []
    with tempfile.TemporaryDirectory(prefix="textclf-transfers-") as scratch:
        artifact = tiny_models.artifact(Path(scratch) / "model")
        for moment in moments:
            for number in numbers:
                with tempfile.TemporaryDirectory(dir=scratch) as home:
                    wrong += [f"{moment}, {number.name}: {one}" for one in _tried(moment, number, artifact, Path(home))]
    return {"tried": len(moments) * len(numbers), "wrong": wrong}


def _tried(moment: str, number: signal.Signals, artifact: Path, home: Path) -> list[str]:
    wrong = []
    pattern, after = MOMENTS[moment]
    with HubStandIn() as hub:
        source = hub.add_model("acme/tickets", artifact)
        held = hub.hold(pattern, after=after)
        # What the Hub has fetched from it need not be sent to it.
        model = "acme/tickets" if moment in DOWN else str(artifact)
        process = _push(hub, home, model)
        if not held.reached.wait(60):
            process.kill()
            return [f"the moment never came: {process.communicate()}"]
        process.send_signal(number)
        sent = time.monotonic()
        try:
            out, err = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return ["never ended"]
        if (seconds := time.monotonic() - sent) > AT_ONCE:
            wrong.append(f"ended after {seconds:.1f} s")
        right = -number if number == signal.SIGKILL else 128 + number
        if process.returncode != right or "Traceback" in err or out:
            wrong.append(f"exit {process.returncode}, said {out!r}, {err!r}")
        held.released.set()
        for path in home.glob("huggingface/hub/models--acme--tickets/snapshots/*/*"):
            if path.is_file() and path.read_bytes() != source.files[path.name]:
                wrong.append(f"half of {path.name} in the cache")
        again = _push(hub, home, model)
        _, err = again.communicate(timeout=120)
        if again.returncode != 0:
            return [*wrong, f"the same command again: exit {again.returncode}, {err!r}"]
        copy = hub.model("alice/copy")
        if len(copy.commits) != 2:  # the first makes the repository
            wrong.append(f"{len(copy.commits)} commits")
        if {name: copy.files.get(name) for name in source.files if name != "README.md"} != {
            name: data for name, data in source.files.items() if name != "README.md"
        }:
            wrong.append("another model was published")
    return wrong


def _push(hub: HubStandIn, home: Path, model: str) -> subprocess.Popen[str]:
    environment = {**os.environ, **hub.environment(home, token=WRITE_TOKEN), "TEXTCLF_HOME": str(home / "textclf")}
    return subprocess.Popen(
        [sys.executable, "-m", "textclf", "push", model, "alice/copy"],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_ignore_nothing,
    )


def _ignore_nothing() -> None:
    """Whatever began this process, nohup or a shell in the background: what is ignored stays ignored in textclf."""
    for number in SIGNALS[:3]:
        signal.signal(number, signal.SIG_DFL)
