"""Mistakes made on purpose in what must hold, one at a time in a copy of the source: do the tests notice?

A mutant is killed when the tests that are named for it fail. One that survives is a promise that no test keeps.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Mutant:
    """name: the mistake. file: under src/textclf. old, new: the text that is replaced, once. tests: for pytest."""

    name: str
    file: str
    old: str
    new: str
    tests: Sequence[str]


ATOMIC = ("tests/test_atomic.py",)
CHECKPOINT = ("tests/test_checkpoint_state.py",)
SCREENING = ("tests/test_screening.py",)
TERMINAL = ("tests/test_terminal.py",)
SECRETS = ("tests/test_secrets.py", "-k", "not tells")
ANSWERS = ("tests/test_predict.py", "-k", "csv")
TRANSFERS = ("tests/test_reliability.py", "-k", "in_a_transfer")
CARD = ("tests/test_card.py",)

_FSYNC = "                file.flush()\n                os.fsync(file.fileno())\n"

MUTANTS = (
    # Durable writes
    Mutant("a file is not flushed to the disk", "atomic.py", _FSYNC, "                file.flush()\n", ATOMIC),
    Mutant("a file is flushed before it is written", "atomic.py", "                file.flush()\n", "", ATOMIC),
    Mutant(
        "a file's name is not flushed",
        "atomic.py",
        "            raise\n        _fsync_dir(path.parent)\n",
        "            raise\n",
        ATOMIC,
    ),
    Mutant(
        "a file is written under its own name",
        "atomic.py",
        "Path(name).replace(path)",
        "shutil.copy(name, path)",
        ATOMIC,
    ),
    Mutant("a failed file is left", "atomic.py", "                Path(name).unlink()", "                pass", ATOMIC),
    Mutant(
        "a file stays private",
        "atomic.py",
        "Path(name).chmod(path.stat().st_mode & 0o777 if path.exists() else 0o666 & ~_umask())",
        "pass",
        ATOMIC,
    ),
    Mutant("a link is replaced", "atomic.py", "path = path.resolve()", "path = path.absolute()", ATOMIC),
    Mutant("the files of a folder are not flushed", "atomic.py", "                    _fsync_file(file)\n", "", ATOMIC),
    Mutant(
        "folders within are not flushed",
        "atomic.py",
        "                    _fsync_dir(file)",
        "                    pass",
        ATOMIC,
    ),
    Mutant("a draft is not flushed", "atomic.py", "            _fsync_dir(draft)\n", "", ATOMIC),
    Mutant(
        "a folder's name is not flushed",
        "atomic.py",
        "            _put_in_place(draft, path)\n            _fsync_dir(path.parent)\n",
        "            _put_in_place(draft, path)\n",
        ATOMIC,
    ),
    Mutant(
        "a folder is deleted before the new one is there",
        "atomic.py",
        "        if _exchange(draft, path):",
        "        shutil.rmtree(path)\n        if False:",
        ATOMIC,
    ),
    Mutant(
        "the renames are swapped",
        "atomic.py",
        "                path.rename(retired / path.name)\n            draft.rename(path)\n",
        "                draft.rename(path)\n            path.rename(retired / path.name)\n",
        ATOMIC,
    ),
    Mutant(
        "the old folder is left",
        "atomic.py",
        "            shutil.rmtree(draft, ignore_errors=True)\n            return\n",
        "            return\n",
        ATOMIC,
    ),
    Mutant(
        "a failed draft is left",
        "atomic.py",
        "            shutil.rmtree(draft, ignore_errors=True)\n            raise",
        "            raise",
        ATOMIC,
    ),
    Mutant(
        "a folder stays private", "atomic.py", "            draft.chmod(0o777 & ~_umask())", "            pass", ATOMIC
    ),
    Mutant(
        "files in a folder stay private",
        "atomic.py",
        "                    file.chmod(0o666 & ~_umask())",
        "                    pass",
        ATOMIC,
    ),
    Mutant(
        "only sizes are verified",
        "atomic.py",
        'path.stat().st_size != facts["size"] or sha256(path) != facts["sha256"]',
        'path.stat().st_size != facts["size"]',
        ATOMIC,
    ),
    Mutant(
        "lost files are not missed",
        "atomic.py",
        '            return f"{name} is missing"',
        "            continue",
        ATOMIC,
    ),
    Mutant(
        "what lies deeper is not verified",
        "atomic.py",
        'folder.rglob("*") if f.is_file() and',
        'folder.glob("*") if f.is_file() and',
        ATOMIC,
    ),
    Mutant(
        "a broken manifest is a crash",
        "atomic.py",
        "(OSError, ValueError, KeyError, TypeError, AttributeError)",
        "(OSError, KeyError)",
        ATOMIC,
    ),
    Mutant(
        "a missing manifest is none needed",
        "atomic.py",
        '        return f"{MANIFEST} is missing"',
        "        return None",
        ATOMIC,
    ),
    Mutant(
        "a full disk is any error",
        "atomic.py",
        "_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)",
        "_FULL = (errno.EIO,)",
        ATOMIC,
    ),
    Mutant(
        "what a library says of the disk is a bug",
        "atomic.py",
        r'worded = re.search(r"\(os error (\d+)\)", str(err))',
        "worded = None",
        ATOMIC,
    ),
    Mutant("NaN is written as JSON", "atomic.py", "allow_nan=False", "allow_nan=True", ATOMIC),
    # Names from foreign texts
    Mutant("a slug keeps dots in front", "paths.py", '.strip("-._")', '.strip("-_")', ATOMIC),
    Mutant("a slug keeps slashes", "paths.py", "[^a-z0-9._]+", "[^a-z0-9._/]+", ATOMIC),
    Mutant("unlike texts share a slug", "paths.py", '-{digest}".lstrip("-")', '".lstrip("-")', ATOMIC),
    Mutant("a slug is as long as its text", "paths.py", "kept[: SLUG_LENGTH - 9]", "kept", ATOMIC),
    # Signals
    Mutant(
        "a signal waits for a download",
        "artifact/remote.py",
        "return signals.leavable(question)",
        "return question()",
        TRANSFERS,
    ),
    Mutant(
        "a signal waits for the threads of a download",
        "signals.py",
        "if threading.active_count() > 1 and code in",
        "if threading.active_count() < 0 and code in",
        TRANSFERS,
    ),
    # Checkpoints
    Mutant(
        "the newest checkpoint is not verified",
        "training/checkpoint.py",
        "        problem = atomic.verify(path)",
        "        problem = None",
        CHECKPOINT,
    ),
    Mutant(
        "the oldest checkpoint is taken",
        "training/checkpoint.py",
        "for step in reversed(_steps(folder)):",
        "for step in _steps(folder):",
        CHECKPOINT,
    ),
    Mutant(
        "checkpoints are sorted as texts",
        "training/checkpoint.py",
        "return sorted(int(name) for name in names if name.isdecimal())",
        "return [int(name) for name in sorted(name for name in names if name.isdecimal())]",
        CHECKPOINT,
    ),
    Mutant(
        "the best checkpoint is deleted",
        "training/checkpoint.py",
        "if step not in (0, *kept, progress.best_step):",
        "if step not in (0, *kept):",
        CHECKPOINT,
    ),
    Mutant(
        "the checkpoint of the start is deleted",
        "training/checkpoint.py",
        "if step not in (0, *kept, progress.best_step):",
        "if step not in (*kept, progress.best_step):",
        CHECKPOINT,
    ),
    Mutant(
        "one checkpoint is kept",
        "training/checkpoint.py",
        "[-keep:]",
        "[-1:]",
        CHECKPOINT,
    ),
    Mutant("checkpoints have no manifest", "training/checkpoint.py", "manifest=True", "manifest=False", CHECKPOINT),
    Mutant(
        "the optimizer starts anew",
        "training/checkpoint.py",
        "                if state:",
        "                if not state:",
        CHECKPOINT,
    ),
    Mutant(
        "the mean starts anew",
        "training/checkpoint.py",
        "                mean.copy_(kept[name])",
        "                pass",
        CHECKPOINT,
    ),
    Mutant(
        "the mean is not saved",
        "training/checkpoint.py",
        "            _write(average.tensors(), draft / AVERAGE)",
        "            pass",
        CHECKPOINT,
    ),
    Mutant(
        "where the run stood is forgotten",
        "training/checkpoint.py",
        "    progress = progress_of(path)\n",
        "    progress = Progress()\n",
        CHECKPOINT,
    ),
    Mutant(
        "the best weights are not the mean",
        "training/checkpoint.py",
        "    if (path / AVERAGE).is_file():",
        "    if False:",
        CHECKPOINT,
    ),
    Mutant(
        "a state of another kind is a crash",
        "training/checkpoint.py",
        "(OSError, ValueError, TypeError, RecursionError)",
        "(OSError,)",
        CHECKPOINT,
    ),
    # Screening
    Mutant(
        "trust_remote_code passes",
        "artifact/screening.py",
        '("trust_remote_code", "custom_pipelines")',
        '("custom_pipelines",)',
        SCREENING,
    ),
    Mutant(
        "custom pipelines pass",
        "artifact/screening.py",
        '("trust_remote_code", "custom_pipelines")',
        '("trust_remote_code",)',
        SCREENING,
    ),
    Mutant(
        "only the top of a config is screened",
        "artifact/screening.py",
        "        for item in document:\n            yield from _items(item)",
        "        pass",
        SCREENING,
    ),
    Mutant(
        "kernels are looked for by the whole value",
        "artifact/screening.py",
        "for text in _texts(value)",
        "for text in [value] if isinstance(text, str)",
        SCREENING,
    ),
    Mutant(
        "kernels pass", "artifact/screening.py", 'kernel = "implementation" in key and', "kernel = False and", SCREENING
    ),
    Mutant(
        "backbones of other repositories pass", "artifact/screening.py", "    if backbone:", "    if False:", SCREENING
    ),
    Mutant(
        "a config may name its weights",
        "artifact/screening.py",
        '    if key == "transformers_weights":',
        "    if False:",
        SCREENING,
    ),
    Mutant(
        "quantised weights pass",
        "artifact/screening.py",
        '    if key == "quantization_config":',
        "    if False:",
        SCREENING,
    ),
    Mutant("a million layers pass", "artifact/screening.py", "value > _MOST_LAYERS", "False", SCREENING),
    Mutant(
        "unknown types pass", "artifact/screening.py", "kind in OWN_TYPES or kind in _known_types()", "True", SCREENING
    ),
    Mutant("pickles pass", "artifact/screening.py", "    if not allow_bin:", "    if False:", SCREENING),
    Mutant(
        "adapters pass",
        "artifact/screening.py",
        "for name in (_ADAPTER, *fnmatch",
        'for name in ("", *fnmatch',
        SCREENING,
    ),
    Mutant(
        "distributed checkpoints pass",
        "artifact/screening.py",
        "for name in (_ADAPTER, *fnmatch.filter(listing, _DISTRIBUTED)):",
        "for name in (_ADAPTER,):",
        SCREENING,
    ),
    Mutant(
        "an index may name paths",
        "artifact/screening.py",
        "if not plain or not part.endswith(ending):",
        "if not part.endswith(ending):",
        SCREENING,
    ),
    Mutant(
        "an index may name pickles",
        "artifact/screening.py",
        "if not plain or not part.endswith(ending):",
        "if not plain:",
        SCREENING,
    ),
    Mutant(
        "an index may name links",
        "artifact/screening.py",
        "        if leads_out(folder / part, folder):",
        "        if False:",
        SCREENING,
    ),
    Mutant(
        "containment by the start of the path",
        "artifact/screening.py",
        "path.resolve().is_relative_to(home)",
        "str(path.resolve()).startswith(str(home))",
        SCREENING,
    ),
    Mutant("tokenizers may be of any class", "artifact/screening.py", "(?!Auto)[A-Z]", "[A-Z]", SCREENING),
    Mutant(
        "a tokenizer's code is not asked for",
        "artifact/screening.py",
        'if "auto_map" in settings and',
        "if False and",
        SCREENING,
    ),
    Mutant(
        "templates may be named as paths",
        "artifact/screening.py",
        '_TEMPLATE_NAME = re.compile(r"\\w[\\w.-]*", re.ASCII)',
        '_TEMPLATE_NAME = re.compile(r".*")',
        SCREENING,
    ),
    Mutant(
        "links are published",
        "artifact/screening.py",
        "if isinstance(content, Path) and leads_out(content, folder):",
        "if False:",
        SECRETS,
    ),
    Mutant(
        "secrets are published",
        "artifact/screening.py",
        '    if found:\n        raise RefusedError(\n            f"{name} holds what looks like',
        '    if False:\n        raise RefusedError(\n            f"{name} holds what looks like',
        SECRETS,
    ),
    Mutant(
        "what weights say in words is published",
        "artifact/screening.py",
        "content = file.read(min(int",
        'content = b"" if True else file.read(min(int',
        SECRETS,
    ),
    # Foreign text
    Mutant("C1 controls are shown", "characters.py", "\\x7f-\\x9f", "\\x7f", TERMINAL),
    Mutant("ESC is shown", "characters.py", "[\\x00-\\x1f", "[\\x00-\\x1a", TERMINAL),
    Mutant("lone surrogates are shown", "characters.py", "\\ud800-\\udfff", "\\ud800-\\udffe", TERMINAL),
    Mutant("line separators are shown", "characters.py", "\\u2028\\u2029", "\\u2029", TERMINAL),
    Mutant("embeddings of direction are shown", "characters.py", "\\u202a-\\u202e", "\\u202a-\\u202d", TERMINAL),
    Mutant("isolates of direction are shown", "characters.py", "\\u2066-\\u206f", "\\u206a-\\u206f", TERMINAL),
    Mutant("zero-width spaces are shown", "characters.py", "\\u180e\\u200b", "\\u180e", TERMINAL),
    Mutant("tags are shown", "characters.py", "\\U000e0000-\\U000e007f", "", TERMINAL),
    Mutant(
        "joiners between letters are shown",
        "characters.py",
        "|(?<![^\\x00-\\x7f\\u200c\\u200d])[\\u200c\\u200d]",
        "",
        TERMINAL,
    ),
    Mutant("a backslash is its own escape", "characters.py", 'text.replace("\\\\", "\\\\\\\\")', "text", TERMINAL),
    Mutant(
        "JSON lines hold controls",
        "cli/terminal.py",
        "return UNSEEN.sub(_escape_in_json, text)",
        "return text",
        TERMINAL,
    ),
    Mutant(
        "messages are markup",
        "cli/terminal.py",
        "Console(stderr=stderr, markup=False",
        "Console(stderr=stderr, markup=True",
        ("tests/test_cli.py", "tests/test_bad_inputs.py", "-k", "markup and path"),
    ),
    Mutant(
        "messages are not sanitised",
        "cli/terminal.py",
        "err().print(safe_lines(text), markup=False",
        "err().print(text, markup=False",
        TERMINAL,
    ),
    Mutant(
        "logs are not sanitised",
        "cli/terminal.py",
        "return safe_lines(redact(super().format(record)))",
        "return redact(super().format(record))",
        TERMINAL,
    ),
    Mutant(
        "logs tell secrets",
        "cli/terminal.py",
        "return safe_lines(redact(super().format(record)))",
        "return safe_lines(super().format(record))",
        TERMINAL,
    ),
    Mutant("errors tell secrets", "errors.py", "        message = redact(message)\n", "", SECRETS),
    Mutant(
        "hints tell secrets", "errors.py", "self.hint = redact(hint) if hint else hint", "self.hint = hint", SECRETS
    ),
    Mutant(
        "tokens of another form are told",
        "redaction.py",
        "        text = text.replace(value, _INSTEAD)",
        "        pass",
        SECRETS,
    ),
    Mutant("formulas begin with =", "data/spreadsheets.py", '_FORMULA = ("=",', "_FORMULA = (", ANSWERS),
    Mutant("formulas begin with @", "data/spreadsheets.py", '"-", "@",', '"-",', ANSWERS),
    Mutant(
        "labels of a card are Markdown",
        "artifact/markdown.py",
        '    safe = _ACTIVE.sub(lambda match: "".join(f"&#{ord(char)};" for char in match[0]), plain(text))',
        "    safe = plain(text)",
        CARD,
    ),
    Mutant(
        "labels of a card span lines",
        "artifact/markdown.py",
        'return re.sub(" +", " ", UNSEEN.sub(" ", text)).strip()',
        "return text",
        CARD,
    ),
)


def campaign(*, only: str = "", part: str = "1/1") -> dict[str, object]:
    """Try the mutants whose name or file holds the words `only`. Returns how many were killed, and which survived.

    part: "2/3" is the second third of them, for several sittings.
    """
    number, _, parts = part.partition("/")
    wanted = [one for one in MUTANTS if only in one.name or only in one.file][int(number) - 1 :: int(parts)]
    survived = []
    with tempfile.TemporaryDirectory() as place:
        copy = Path(place)
        for name in ("src", "tests", "pyproject.toml"):
            source = ROOT / name
            ignore = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, copy / name, ignore=ignore) if source.is_dir() else shutil.copy(source, copy)
        for one in wanted:
            start = time.perf_counter()
            killed = _is_killed(one, copy)
            survived += [] if killed else [one.name]
            said = "killed  " if killed else "SURVIVED"
            print(f"{said} {time.perf_counter() - start:5.1f} s  {one.name}", file=sys.stderr, flush=True)
    return {"mutants": len(wanted), "killed": len(wanted) - len(survived), "wrong": survived}


def _is_killed(mutant: Mutant, copy: Path) -> bool:
    path = copy / "src/textclf" / mutant.file
    good = path.read_text(encoding="utf-8")
    path.write_text(good.replace(mutant.old, mutant.new, 1), encoding="utf-8")
    try:
        done = subprocess.run(
            [sys.executable, "-B", "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *mutant.tests],
            cwd=copy,
            env={**os.environ, "PYTHONPATH": str(copy / "src"), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            timeout=300,
            check=False,
        )
    finally:
        path.write_text(good, encoding="utf-8")
    if done.returncode not in (0, 1, 2):
        raise SystemExit(f"{mutant.name}: pytest ended with {done.returncode}\n{done.stdout.decode()[-2000:]}")
    return done.returncode != 0
