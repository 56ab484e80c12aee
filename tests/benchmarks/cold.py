"""Cold starts: wall seconds and peak memory of whole commands, from fork to exit."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from .lines import Comparison, Contender, Line, Setting
from .materials import artifact_part, minilm, texts_part

TEXT = "where is my parcel, it should have been here on monday"
PIPELINE = (
    "import sys\nfrom transformers import pipeline\n"
    "print(pipeline('text-classification', sys.argv[1])(sys.stdin.read().strip()))"
)
BARE_TYPER = str(Path(__file__).with_name("bare_typer.py"))


def lines(setting: Setting) -> list[Line]:
    """One line answered, help, and a usage error. On the CPU only: a GPU is not what a cold start waits for."""
    if setting.device == "cuda":
        return []
    return [_one_line(setting), _help(setting), _usage_error(setting)]


def _one_line(setting: Setting) -> Line:
    texts, make_texts = texts_part(setting, "short", 256 if setting.small else 1600)
    artifact, make_artifact = artifact_part(setting, minilm(), texts)
    ours, peer = "textclf predict", "pipeline"
    repeats = 1 if setting.small else 3
    return Line(
        name="cold-line",
        title="One line answered by a fresh process",
        contenders=(
            _contender(peer, [sys.executable, "-c", PIPELINE, str(artifact)], repeats, says=TEXT),
            _contender(ours, [_script("textclf"), "predict", str(artifact)], repeats, says=TEXT),
        ),
        comparisons=(
            Comparison(ours, peer, "seconds", better="less", goal=12.0),
            Comparison(ours, peer, "peak_mib", better="less"),
        ),
        setup=(make_texts, make_artifact),
        needs_data=not setting.small,
    )


def _help(setting: Setting) -> Line:
    repeats = 3 if setting.small else 10
    contenders = [_contender("bare typer --help", [sys.executable, BARE_TYPER, "--help"], repeats)]
    contenders += [_contender(f"{name} --help", [_script(name), "--help"], repeats) for name in ("hf", "textclf")]
    return _against_typer("cold-help", "--help in a fresh process", contenders)


def _usage_error(setting: Setting) -> Line:
    repeats = 3 if setting.small else 10
    wrong = "--no-such-option"
    contenders = [
        _contender("bare typer, usage error", [sys.executable, BARE_TYPER, "one", wrong], repeats, exits=2),
        _contender("textclf, usage error", [_script("textclf"), "predict", wrong], repeats, exits=2),
    ]
    return _against_typer("cold-usage-error", "A usage error in a fresh process", contenders)


def _against_typer(name: str, title: str, contenders: list[Contender]) -> Line:
    ours, peer = contenders[-1].name, contenders[0].name
    compared = Comparison(ours, peer, "seconds", better="less", goal=round(1 / 1.3, 2))
    return Line(name=name, title=title, contenders=tuple(contenders), comparisons=(compared,), needs_data=False)


def _contender(name: str, command: list[str], repeats: int, *, says: str = "", exits: int = 0) -> Contender:
    arguments = {"command": command, "repeats": repeats, "says": says, "exits": exits}
    return Contender(name, "cold:run_command", arguments)


def _script(name: str) -> str:
    """The entry point as pip made it, which is what a user starts."""
    return str(Path(sys.executable).parent / name)


def run_command(command: list[str], repeats: int, says: str, exits: int) -> dict[str, float]:
    """Median wall seconds and largest peak memory of a command, after one run that fills the file cache, and writes the
    bytecode that pip would have written of a package that it installs."""
    runs = [_run_once(command, says, exits) for _ in range(1 + repeats)][1:]
    return {"seconds": statistics.median(seconds for seconds, _ in runs), "peak_mib": max(peak for _, peak in runs)}


def _run_once(command: list[str], says: str, exits: int) -> tuple[float, float]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = time.perf_counter()
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    )
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(says.encode() + b"\n")
    process.stdin.close()
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    code = os.waitstatus_to_exitcode(status)
    process.returncode = code
    if code != exits:
        raise RuntimeError(f"exit code {code} in place of {exits}: {output.decode(errors='replace').strip()[-200:]}")
    return seconds, usage.ru_maxrss / (1024 if sys.platform == "linux" else 1024 * 1024)
