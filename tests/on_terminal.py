"""Run in a process whose standard output and error are a terminal: every printing command, on foreign text.

python on_terminal.py FOLDER    where FOLDER is empty; what is printed is looked at by the one behind the terminal
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

CODES = [
    *range(0x800),
    *range(0x2000, 0x2070),
    *range(0xD800, 0xD810),
    *range(0xDC80, 0xDD00),
    *range(0xFE00, 0xFE10),
    *range(0xFFF0, 0x10000),
    *range(0xE0000, 0xE0080),
]
SEQUENCES = (
    "\x1b]0;owned\x07",
    "\x1b]52;c;b3duZWQ=\x07",
    "\x1b]8;;http://evil.example\x1b\\click\x1b]8;;\x1b\\",
    "\x1b[2J\x1b[H",
    "\x1b[31mred",
    "\x9b31m\x9d0;owned\x9c",
    "\x1bP+q\x1b\\",
    "\x1b[6n\x1b[c\x1b[>q",
    "\x1b[?1049h",
    "\x1bc",
    "\x0e\x0f\x08\x7f\r",
    "[/red][bold]x[link=http://evil.example]y",
    ":boom:",
    "a\u202eb\u2066c\u200bd\u200de",
)


def texts() -> list[str]:
    """Every code point of CODES, sixty to a text, and the sequences that terminals obey."""
    return ["".join(map(chr, CODES[at : at + 60])) for at in range(0, len(CODES), 60)] + list(SEQUENCES)


def command(*arguments: str) -> None:
    from textclf.cli import app

    sys.argv = ["textclf", *arguments]
    with contextlib.suppress(SystemExit):
        app.main()
    sys.stdout.flush()
    sys.stderr.flush()


def main(folder: Path) -> None:
    """All commands that print, one after the other."""
    import tiny_models
    from textclf.artifact import runs

    os.environ |= {"TEXTCLF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    nasty = texts()
    labels = [f"{number} {text}" for number, text in enumerate(nasty)]
    model = tiny_models.artifact(folder / "model", labels)
    (folder / "queries.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in nasty))
    rows = [
        {"text": f"{text} {turn}", "label": label}
        for turn in range(8)
        for text, label in zip(nasty, labels, strict=True)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "odd.jsonl").write_text(json.dumps(dict.fromkeys(nasty, "x")) + "\n")
    (folder / "lost.jsonl").write_text(json.dumps({"text": "x", "label": SEQUENCES[0]}) + "\n")
    document = {"format": runs.FORMAT, "state": "done", "started": SEQUENCES[0], "dataset": "".join(nasty)}
    document |= {"model": "".join(nasty), "message": "".join(nasty), "metrics": {SEQUENCES[1]: {SEQUENCES[2]: 1.0}}}
    for number, text in enumerate(SEQUENCES):
        run = folder / "home/runs" / text.replace("/", "").replace("\0", "")
        with contextlib.suppress(OSError):
            run.mkdir(parents=True)
            (run / "run.json").write_text(json.dumps({**document, "state": text, "updated": text}))
            (run / "config.json").write_text(json.dumps({"data": {text: nasty}}))
        evil = folder / f"{text.replace('/', '')}{number}.csv"
        with contextlib.suppress(OSError):
            evil.write_text("nothing\n")
            command("prepare", "--dataset", str(evil))
            command("predict", str(model), str(evil))
        for arguments in (["prepare", "--dataset", text], ["predict", text], ["runs", "show", text], ["runs", text]):
            command(*(argument.replace("\0", "") for argument in arguments))
        command("finetune", f"--{text}")
        command("finetune", "--set", f"train.{text}=1")
        command("finetune", "--set", f"train.metric={text}")
        command("prepare", "--dataset", str(folder / "rows.jsonl"), "--text-column", text)
    for extra in ([], ["--json"], ["--debug"]):
        command("prepare", "--dataset", str(folder / "rows.jsonl"), *extra)
        command("prepare", "--dataset", str(folder / "odd.jsonl"), *extra)
        command("eval", str(model), "--dataset", str(folder / "rows.jsonl"), "--split", "train", *extra)
        command("eval", str(model), "--dataset", str(folder / "lost.jsonl"), *extra)
        command("runs", "list", *extra)
    for shape in ("table", "tsv", "csv", "jsonl", "json"):
        command("predict", str(model), str(folder / "queries.jsonl"), "--format", shape, "--device", "cpu")
    for text in nasty:
        logging.getLogger("somebody.else").warning("they said: %s", text)
        warnings.warn(text, stacklevel=1)
        try:
            raise ValueError(text)
        except ValueError:
            logging.getLogger("somebody.else").exception("failed")
    print("the end")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
