"""`textclf predict` as a user meets it: formats, pipes, terminals, interruptions."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from test_prediction import STRANGE
from test_terminal import ANY_TEXT, is_harmless, unescaped
from textclf import atomic
from textclf.cli import answers
from textclf.errors import DataError
from textclf.inference.prediction import Prediction

Run = Callable[..., subprocess.CompletedProcess[str]]
LABELS = ["a", "b", "c"]


def written(predictions: Sequence[Prediction], format: str, **options: object) -> str:
    layout = answers.Layout(format=format, labels=LABELS, model="m", **options)  # type: ignore[arg-type]
    return "".join(answers.written([predictions[:1], predictions[1:]], layout))


def prediction(text: str, *scores: tuple[str, float]) -> Prediction:
    scores = scores or (("a", 0.75),)
    return Prediction(text, (scores[0][0],), scores, False)


# --- formats ----------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(ANY_TEXT, ANY_TEXT), min_size=1))
def test_tsv_is_one_line_per_text_and_loses_nothing(pairs: list[tuple[str, str]]) -> None:
    lines = written([prediction(text, (label, 0.5)) for text, label in pairs], "tsv")
    assert is_harmless(lines.replace("\n", "").replace("\t", ""))
    records = [line.split("\t") for line in lines.split("\n")[:-1]]
    assert [(unescaped(text), unescaped(label), score) for label, score, text in records] == [
        (text, label, "0.5") for text, label in pairs
    ]


@given(st.lists(ANY_TEXT, min_size=1))
def test_jsonl_is_one_line_per_text_and_loses_nothing(texts: list[str]) -> None:
    lines = written([prediction(text) for text in texts], "jsonl")
    records = [json.loads(line) for line in lines.splitlines()]  # at U+0085 and U+2028 too
    assert records == [{"text": json.loads(json.dumps(text)), "label": "a", "score": 0.75} for text in texts]
    document = json.loads(written([prediction(text) for text in texts], "json"))
    assert document == {"model": "m", "predictions": records}


@given(st.lists(ANY_TEXT, min_size=1))
@example(["=1+1", "+1", "-1", "@x", "\t=1", "\r=1", "\0=1", "＝1"])
def test_csv_is_one_line_per_text_and_starts_no_formula(texts: list[str]) -> None:
    lines = written([prediction(text, (text, 1.0)) for text in texts], "csv")
    records = list(csv.DictReader(io.StringIO(lines, newline="")))
    assert len(lines.splitlines()) == len(texts) + 1
    for record, text in zip(records, texts, strict=True):
        assert record["label"] == record["text"]
        assert not record["text"].startswith(("=", "+", "-", "@", "\t", "\r"))
        assert unescaped(record["text"]) in (text, "'" + text)


def test_top_k_puts_labels_and_scores_in_turn() -> None:
    best = [prediction("x", ("b", 0.9), ("a", 0.0876543219))]
    assert written(best, "tsv", pairs=2) == "b\t0.9\ta\t0.0876543\tx\n"
    assert written(best, "csv", pairs=2) == "label_1,score_1,label_2,score_2,text\nb,0.9,a,0.0876543,x\n"
    assert written([], "csv", pairs=9).count("label_") == len(LABELS)
    assert json.loads(written(best, "jsonl", pairs=2)) == {
        "text": "x",
        "scores": [{"label": "b", "score": 0.9}, {"label": "a", "score": 0.087654322}],
    }


def test_below_the_threshold_the_label_is_missing_and_the_score_stays() -> None:
    two = [prediction("x", ("b", 0.5)), prediction("y", ("b", 0.49))]
    assert written(two, "tsv", threshold=0.5) == "b\t0.5\tx\n\t0.49\ty\n"
    assert [json.loads(line)["label"] for line in written(two, "jsonl", threshold=0.5).splitlines()] == ["b", None]
    assert "-" in written(two, "table", threshold=0.5).split("\n")[2]


def test_top_k_of_several_labels_gives_scores_whatever_the_threshold() -> None:
    best = [prediction("x", ("b", 0.9), ("a", 0.1))]
    layout = {"pairs": 2, "several": True, "threshold": 0.5}
    assert written(best, "tsv", **layout) == "b\t0.9\ta\t0.1\tx\n"
    assert written(best, "table", **layout).split("\n")[2].startswith("a")


def test_no_texts_are_still_a_whole_document() -> None:
    assert json.loads(written([], "json")) == {"model": "m", "predictions": []}
    assert written([], "csv") == "label,score,text\n"
    assert written([], "tsv") == written([], "jsonl") == written([], "table") == ""


def test_a_table_keeps_one_line_per_label_however_long_and_wide_the_text() -> None:
    layout = answers.Layout(format="table", labels=["a", "日本語" * 30, "[red]b[/red]\x1b"], pairs=2)
    texts = ["[bold]x[/bold] :smile: \x1b[2J\u202e", "日本語" * 5000, "a\nb"]
    windows = [[prediction(text, ("日本語" * 30, 0.9), ("[red]b[/red]\x1b", 0.1)) for text in texts]]
    lines = "".join(answers.written(windows, layout)).split("\n")
    assert len(lines) == 1 + 2 * len(texts) + 1
    assert is_harmless("".join(lines))
    assert "[bold]x[/bold] :smile: \\x1b[2J\\u202e" in lines[1]
    assert lines[2].startswith("[red]b[/red]\\x1b")


# --- the command ------------------------------------------------------------------------------------------------


@contextmanager
def predicting(*arguments: str | Path, **options: object) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "textclf", "predict", *map(str, arguments)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    with subprocess.Popen(command, **pipes) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def line_within(stream: io.BufferedReader, seconds: float) -> bytes:
    """What arrives in time, up to a line's end."""
    data = b""
    deadline = time.monotonic() + seconds
    while not data.endswith(b"\n"):
        left = deadline - time.monotonic()
        assert left > 0 and select.select([stream], [], [], left)[0], f"no answer in {seconds} s, only {data!r}"
        piece = os.read(stream.fileno(), 65536)
        if not piece:
            break
        data += piece
    return data


def test_every_line_of_a_pipe_gets_its_answer(cli: Run, tiny_artifact: Path) -> None:
    in_lines = [text.replace("\n", " ").replace("\r", " ") for text in STRANGE]
    data = b"\xef\xbb\xbf" + b"\n".join(text.encode("utf-8", "surrogatepass") for text in in_lines)
    data += b"\n\n\xff\xfe\x80\r\n" + b"long " * 2_000_000 + b"\nlast"
    done = cli("predict", tiny_artifact, input=data, env={"LC_ALL": "C", "PYTHONUTF8": "0"})
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    records = [line.split("\t") for line in done.stdout.split("\n")[:-1]]
    assert is_harmless(done.stdout.replace("long ", "").replace("\n", "").replace("\t", ""))
    expected = [text.encode("utf-8", "surrogatepass").decode("utf-8", "replace") for text in in_lines]
    expected += ["", "\ufffd\ufffd\ufffd", "long " * 2_000_000, "last"]
    assert [unescaped(text) for _, _, text in records] == expected
    assert {label for label, _, _ in records} <= set(LABELS)


def test_a_slow_pipe_is_answered_promptly_and_an_interrupt_is_quiet(tiny_artifact: Path) -> None:
    with predicting(tiny_artifact, "--format", "jsonl") as process:
        for number in (1, 2, 3):
            process.stdin.write(f"text {number}\n".encode())
            process.stdin.flush()
            assert json.loads(line_within(process.stdout, 60))["text"] == f"text {number}"
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert process.stderr.read() == b""


def test_a_reader_that_leaves_ends_it_quietly(tiny_artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "many.txt").write_text("some text\n" * 50_000)
    with predicting(tiny_artifact, tmp_path / "many.txt") as process:
        assert b"some text" in process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == b""


def test_a_terminal_sees_a_table_and_no_escape_code_of_a_text(tiny_artifact: Path) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"}
    with predicting("-m", tiny_artifact, stdin=theirs, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        seen = b""

        def wait_for(words: bytes) -> None:
            nonlocal seen
            deadline = time.monotonic() + 60
            while words not in seen:
                assert time.monotonic() < deadline and select.select([ours], [], [], 60)[0], seen
                seen += os.read(ours, 65536)

        wait_for(b"Ctrl-D ends")
        # Through the terminal's own line editing only what is printable or quoted by ^V gets in.
        os.write(ours, "\x16\x1b]0;owned\x16\x07 \x16\x1b[2J\u009b31m\u202e evil\n".encode())
        wait_for(b"\\u202e evil\r\n")
        os.write(ours, b"second\n")
        wait_for(b"  second\r\n")
        os.write(ours, b"\x04")
        assert process.wait(30) == 0
    os.close(ours)
    shown = seen.decode()
    styles = re.compile(r"\x1b\[[0-9;]*m")  # our own colours
    assert "\\x1b]0;owned\\x07 \\x1b[2J\\x9b31m\\u202e evil" in shown
    answered = styles.sub("", shown[shown.index("label") :])
    assert is_harmless(answered.replace("\r\n", ""))
    assert "longer than" not in shown


def test_files_columns_and_output(cli: Run, tiny_artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('id,query,text\n1,q1,"two\nlines"\n2,q2,=1+1\n', encoding="utf-8")
    (tmp_path / "out.csv").write_text("old")
    done = cli("predict", tiny_artifact, "in.csv", "--output", "out.csv", "--top-k", "2", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    records = list(csv.DictReader((tmp_path / "out.csv").open(newline="")))
    assert [record["text"] for record in records] == ["two\\nlines", "'=1+1"]
    assert float(records[0]["score_1"]) >= float(records[0]["score_2"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.csv"]


def test_a_failure_keeps_the_answers_so_far(cli: Run, tiny_artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("one\ntwo\n")
    (tmp_path / "bad.jsonl").write_text('{"text": "three"}\n{"text": \n')
    done = cli("predict", tiny_artifact, "good.txt", "bad.jsonl", cwd=tmp_path)
    assert done.returncode == 3
    assert [line.split("\t")[2] for line in done.stdout.splitlines()] == ["one", "two"]
    assert "bad.jsonl, line 2" in done.stderr


def test_an_output_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "out.tsv").write_text("old")
    with pytest.raises(DataError), atomic.new_file(tmp_path / "out.tsv") as file:
        file.write(b"half")
        raise DataError("broken input")
    assert (tmp_path / "out.tsv").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out.tsv"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--format", "xml"], 2, "tsv, csv, jsonl, json, table"),
        (["--json", "--format", "csv"], 2, "different things"),
        (["--device", "gpu"], 2, "cuda:N"),
        (["--top-k", "0"], 2, "--top-k"),
        (["--threshold", "1.5"], 2, "--threshold"),
        (["-o", "x.parquet"], 2, "no format of answers"),
        (["--text-column", "text"], 2, "no columns"),
        (["--text-pair-column", "text"], 2, "--text-pair-column was given"),
        (["in.csv", "-o", "in.csv"], 2, "also an input"),
        (["missing.csv"], 3, "no such file"),
        (["in.csv", "--text-column", "txet"], 3, "did you mean 'text'"),
        ([], 4, "textclf finetune"),
    ],
)
def test_a_mistake_is_told_at_once_with_what_to_do(tmp_path: Path, arguments: list[str], code: int, words: str) -> None:
    (tmp_path / "in.csv").write_text("text\nx\n")
    program = (
        "import sys\nfrom textclf.cli.app import main\n"
        "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "predict", *arguments],
        input=b"", capture_output=True, cwd=tmp_path, timeout=60, env={**os.environ, "COLUMNS": "120"},
    )  # fmt: skip
    assert done.returncode == code, done.stderr.decode()
    assert words in done.stderr.decode()
    assert done.stdout == b""


def test_a_new_file_has_ordinary_permissions_and_follows_links(tmp_path: Path) -> None:
    with atomic.new_file(tmp_path / "plain") as file:
        file.write(b"x")
    (tmp_path / "reference").write_text("x")
    assert (tmp_path / "plain").stat().st_mode == (tmp_path / "reference").stat().st_mode
    (tmp_path / "plain").chmod(0o640)
    (tmp_path / "link").symlink_to("plain")
    with atomic.new_file(tmp_path / "link") as file:
        file.write(b"y")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "plain").read_bytes() == b"y"
    assert (tmp_path / "plain").stat().st_mode & 0o777 == 0o640


def test_explained_answers_are_json_or_shaded_and_never_tsv(cli: Run, tiny_artifact: Path) -> None:
    done = cli("predict", tiny_artifact, "--explain", input="my [red]card\x1b[31m\n")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert list(answer) == ["text", "label", "score", "words"]
    assert list(answer["words"][0]) == ["text", "start", "end", "weight"]
    abstaining = cli("predict", tiny_artifact, "--explain", "--abstain-below", "1", input=answer["text"])
    withheld = json.loads(abstaining.stdout)
    assert list(withheld) == ["text", "label", "score", "reason", "words"] and withheld["label"] is None
    assert withheld["words"] == answer["words"], "the best label is explained, whether it is given or not"
    table = cli("predict", tiny_artifact, "--explain", "--format", "table", input="my [red]card\x1b[31m\n").stdout
    assert "my [red]card\\x1b[31m" in table
    for arguments in (["--format", "tsv"], ["--output", "x.csv"]):
        failed = cli("predict", tiny_artifact, "--explain", *arguments, input="a\n")
        assert failed.returncode == 2 and "--explain does not fit" in failed.stderr


def test_a_link_to_nothing_in_the_model_folder_is_no_bug(tiny_artifact: Path, tmp_path: Path, cli: Run) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_artifact, model)
    (model / ".#README.md").symlink_to("user@host.1234:5678")  # Emacs, while the card is open in it
    texts = tmp_path / "texts.txt"
    texts.write_text("one\ntwo\n")
    done = cli("predict", model, texts, "--output", tmp_path / "out.tsv")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.tsv").read_text().count("\n") == 2
