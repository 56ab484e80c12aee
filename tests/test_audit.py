"""`textclf audit`: planted label errors are found, copies with unlike labels first, and the review goes back in."""

from __future__ import annotations

import csv
import io
import json
import shlex

import numpy as np
import pytest

import textclf
import tiny_models
from textclf.artifact import runs
from textclf.errors import DataError, UsageError
from textclf.evaluation.audit import audit, doubt_labels
from textclf.labels import LabelSet

WRONG = {8: "c", 31: "c", 60: "a", 94: "b"}
"""Rows (from 1) of `planted` whose label was changed."""


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """150 rows a model can learn, four of them mislabelled, and one that repeats row 3 under another label."""
    rows = tiny_models.rows(150)
    lines = [(text, WRONG.get(number, label)) for number, (text, label) in enumerate(rows, 1)]
    lines.append((rows[2][0].upper() + "!", "b"))
    path = tmp_path_factory.mktemp("planted") / "tickets.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in lines))
    return path


def test_planted_errors_are_found_after_copies_with_unlike_labels(planted):
    found = audit(planted)
    first, *others = found.doubts
    assert (first.reason, {first.row, int(first.see.rpartition(" ")[2])}) == ("copy", {3, 151})
    assert {doubt.row for doubt in others[:4]} == set(WRONG)
    true = dict(enumerate((label for _, label in tiny_models.rows(150)), 1))
    assert all(doubt.suggested == true[doubt.row] and doubt.label == WRONG[doubt.row] for doubt in others[:4])
    assert [doubt.score for doubt in others] == sorted(doubt.score for doubt in others)
    assert (found.rows, found.features) == (151, "TF-IDF") and found.accuracy > 0.85


def test_texts_that_do_not_tell_their_labels_are_said(planted, tmp_path, cli):
    said = "hardly tells the labels"
    assert said not in cli("audit", planted).stderr
    pairs = tmp_path / "pairs.csv"
    lines = [f"number {n},number {n * 7 % 60},{'abc'[n * 5 // 3 % 3]}\n" for n in range(60)]
    pairs.write_text("text,text_pair,label\n" + "".join(lines))
    done = cli("audit", pairs)
    assert done.returncode == 0 and said in done.stderr and "--model" in done.stderr, done.stderr


def test_a_pretrained_model_reads_the_texts(planted, tiny_base):
    found = audit(planted, model=tiny_base, device="cpu", split="train")
    assert found.features == tiny_base.name and found.rows == textclf.prepare(planted).splits["train"]
    assert 0 <= found.accuracy <= 1 and all(doubt.split == "train" for doubt in found.doubts)


def test_the_review_goes_back_into_prepare(planted, tmp_path, cli):
    review = tmp_path / "review.csv"
    done = cli("audit", planted, "--output", review)
    assert done.returncode == 0, done.stderr
    following = ["textclf", "prepare", "--dataset", str(planted), "--corrections", str(review)]
    assert shlex.split(done.stderr.splitlines()[-1]) == following
    assert "have a doubtful label, 1 of them as a copy has another" in done.stderr
    rows = list(csv.DictReader(io.StringIO(review.read_text())))
    assert list(rows[0]) == [
        "file", "row", "text", "label", "suggested", "score", "reason", "see", "correction",
    ]  # fmt: skip
    with review.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            verdict = row["suggested"] if int(row["row"]) in WRONG else "(drop)" if row["reason"] == "copy" else ""
            writer.writerow({**row, "correction": verdict})
    document = json.loads(cli("prepare", "-d", planted, "--corrections", review, "--json").stdout)
    assert (document["corrected"]["relabelled"], document["corrected"]["dropped"]) == (4, 1)
    again = audit(planted, corrections=str(review))
    assert not {doubt.row for doubt in again.doubts if doubt.reason == "copy"}
    assert not {doubt.row for doubt in again.doubts} & set(WRONG)


def test_csv_on_a_pipe_is_safe_for_spreadsheets_and_terminals(tmp_path, cli):
    path = tmp_path / "t.csv"
    texts = [f"=cmd {index} card" if index % 2 else f"\x1b[31m money {index}" for index in range(60)]
    path.write_text(
        "text,label\n"
        + "".join(f"{text},{'+a' if index % 2 else '-b'}\n" for index, text in enumerate(texts))
        + "=cmd 99 card,-b\n"
    )
    done = cli("audit", path)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert any(row["row"] == "61" for row in rows)
    for row in rows:
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row.values())


@pytest.mark.parametrize("several", [False, True])
def test_labels_that_a_terminal_would_act_on_are_written_as_text_and_read_again(tmp_path, cli, several):
    labels = ["\x1b[31mred\\n", "blue\u202e"]
    path = tmp_path / "t.jsonl"
    with path.open("w") as file:
        for index in range(60):
            label = labels[index % 2 if index else 1]  # the first is wrong
            text = f"{('card', 'money')[index % 2]} {index}"
            print(json.dumps({"text": text, "label": [label] if several else label}), file=file)
    done = cli("audit", path)
    assert done.returncode == 0 and not set("\x1b\u202e") & set(done.stdout)
    found = list(csv.DictReader(io.StringIO(done.stdout)))
    wrong = next(row for row in found if row["row"] == "1")
    review = tmp_path / "review.csv"
    with review.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(wrong))
        writer.writeheader()
        writer.writerow({**wrong, "correction": wrong["suggested"]})
    prepared = textclf.prepare(path, corrections=str(review), test_size=0)
    assert (prepared.corrected.relabelled, prepared.label_set.names) == (1, tuple(sorted(labels)))


def test_json_and_the_latest_run(planted, tiny_base, no_graph, cli):
    run = textclf.finetune(model=tiny_base, dataset=planted, epochs=0.2, device="cpu")
    document = json.loads(cli("audit", run.name, "--json").stdout)
    assert list(document) == ["dataset", "fingerprint", "rows", "features", "accuracy", "doubts", "seconds"]
    assert document["features"] == tiny_base.name and document["fingerprint"] == run.document["fingerprint"]
    with pytest.raises(UsageError, match="has its data and settings already"):
        audit(run.name, label_column="label")


def test_what_cannot_be_audited_is_said(planted, tmp_path, cli):
    done = cli("audit", planted, "--output", planted)
    assert done.returncode == 2 and "part of the data" in done.stderr
    run = runs.create(tmp_path / "run", {"data": {"dataset": str(planted)}})
    done = cli("audit", run.folder, "--output", planted)
    assert done.returncode == 2 and "part of the data" in done.stderr
    review = tmp_path / "review.csv"
    review.write_text("file,row,label,correction\nt.csv,1,a,b\n")
    done = cli("audit", planted, "--output", review)
    assert done.returncode == 2 and "its corrections would be lost" in done.stderr
    assert review.read_text().endswith("t.csv,1,a,b\n")
    few = tmp_path / "few.csv"
    few.write_text("text,label\n" + "".join(f"t {index},{'ab'[index % 2]}\n" for index in range(8)))
    with pytest.raises(DataError, match="too few"):
        audit(few, split="test")
    questions = tmp_path / "q.jsonl"
    with questions.open("w") as file:
        for index in range(30):
            print(json.dumps({"question": f"q {index}", "choices": ["x", "y"], "answer": index % 2}), file=file)
    with pytest.raises(UsageError, match="where its answer stands"):
        audit(questions, form="multiclass")


def test_errors_among_several_labels_are_found():
    rng = np.random.default_rng(0)
    targets = (rng.random((200, 3)) < 0.4).astype(np.uint8)
    probs = np.clip(np.where(targets, 0.9, 0.1) + rng.normal(0, 0.05, targets.shape), 0.01, 0.99).astype(np.float32)
    given = targets.copy()
    given[5, 1] ^= 1
    score, suggested = doubt_labels(given, probs, LabelSet(("a", "b", "c"), "multi"))
    assert score.argmin() == 5 and suggested[5].tolist() == targets[5].tolist()
    assert (suggested[np.arange(200) != 5] == targets[np.arange(200) != 5]).all()


def test_rows_are_in_doubt_where_another_label_is_likelier():
    probs = np.array([[0.9, 0.1], [0.45, 0.55], [0.2, 0.8]], dtype=np.float32)
    score, suggested = doubt_labels(np.array([0, 0, 1]), probs, LabelSet(("a", "b")))
    assert suggested.tolist() == [0, 1, 1]
    assert score.tolist() == pytest.approx([0.9, 0.45, 0.8])
