"""`textclf` in a process of its own that starts in hundredths of a second.

Most of a command's time is the import of torch and transformers. A server imports them once, and every command is a
fork of it: with its own streams, folder, environment, signals and exit code. What depends on a cold start, as the
packages that a command loads, is tested in fresh processes.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path

IMPORTED = (
    "onnxruntime",
    "sklearn.linear_model",
    "textclf.artifact.hub",
    "textclf.cli.app",
    "textclf.cli.progress",
    "textclf.cli.render",
    "textclf.evaluation.evaluation",
    "textclf.evaluation.exporting",
    "textclf.inference.onnx_runtime",
    "textclf.inference.prediction",
    "textclf.inference.torch_runtime",
    "textclf.training.estimate",
    "textclf.training.finetuning",
    "torch.onnx._internal.exporter._core",
    "transformers.models.bert.modeling_bert",
)
"""What the server has imported; a name that is not there costs time and nothing else."""

READ_ON_IMPORT = ("HF_", "HUGGINGFACE_", "LANG", "LC_", "OMP_", "PYTHON", "TOKENIZERS_", "TRANSFORMERS_")
"""Beginnings of the environment variables that Python and packages read only once."""

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(list(IMPORTED))
_began_with: dict[str, str] = {}


def start() -> None:
    """Start the server with the environment as it is now; it imports while others work."""
    _began_with.update(_read_on_import(os.environ))
    forkserver.ensure_running()


def run(
    arguments: Sequence[str],
    *,
    input: bytes = b"",
    environment: Mapping[str, str],
    folder: Path | None = None,
    graph_bytes: int,
    timeout: float = 300,
) -> subprocess.CompletedProcess[str]:
    """Run `textclf` with these arguments; `start` comes first.

    graph_bytes: models with more bytes get no ONNX graph.
    Raises subprocess.TimeoutExpired when it has not ended after `timeout` seconds; it is killed then.
    """
    if _read_on_import(environment) != _began_with:
        return _fresh(arguments, input=input, environment=environment, folder=folder, timeout=timeout)
    with tempfile.TemporaryDirectory() as scratch:
        streams = [Path(scratch) / name for name in ("in", "out", "err")]
        streams[0].write_bytes(input)
        process = _server.Process(
            target=_main, args=(list(arguments), streams, dict(environment), folder or Path.cwd(), graph_bytes)
        )
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(["textclf", *arguments], timeout)
        out, err = (stream.read_bytes().decode("utf-8") for stream in streams[1:])
        return subprocess.CompletedProcess(["textclf", *arguments], process.exitcode, out, err)


def _read_on_import(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(READ_ON_IMPORT)}


def _fresh(
    arguments: Sequence[str], *, input: bytes, environment: Mapping[str, str], folder: Path | None, timeout: float
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "textclf", *arguments]
    done = subprocess.run(
        command, input=input, capture_output=True, env=environment, cwd=folder, timeout=timeout, check=False
    )
    out, err = (stream.decode("utf-8") for stream in (done.stdout, done.stderr))
    return subprocess.CompletedProcess(command, done.returncode, out, err)


def _main(
    arguments: list[str], streams: list[Path], environment: dict[str, str], folder: Path, graph_bytes: int
) -> None:
    """The life of the forked process, up to its exit code."""
    flags = (os.O_RDONLY, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_CREAT)
    for number, (stream, flag) in enumerate(zip(streams, flags, strict=True)):
        opened = os.open(stream, flag)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(
            io.BufferedWriter(io.FileIO(number, "w", closefd=False)), encoding="utf-8", line_buffering=number == 2
        )
        for number in (1, 2)
    )
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["textclf", *arguments]
    from textclf.cli.app import main
    from textclf.model import exporting

    exporting.MAX_BYTES = graph_bytes
    main()
