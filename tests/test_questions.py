"""Questions with choices: read in all their shapes, in two forms, scored by question, answered."""

from __future__ import annotations

import csv
import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

import textclf
from textclf.config import DataConfig
from textclf.data.choices import CORRECT, LETTERS, choice_scores
from textclf.data.forms import questions_of
from textclf.data.labelled import read_labelled
from textclf.data.preparation import prepare
from textclf.errors import ConfigError, DataError, UsageError
from textclf.evaluation.questions import report_questions
from textclf.labels import LabelSet
from textclf.proportions import wilson

Run = Callable[..., subprocess.CompletedProcess[str]]


def _jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _many(count: int = 60) -> list[dict[str, Any]]:
    """Questions whose answer is the choice with the question's own word in it, of 2 to 4 choices."""
    words = ["card", "money", "login", "parcel", "letter"]
    rows = []
    for number in range(count):
        word = words[number % 5]
        others = [one for one in words if one != word][: 1 + number % 3]
        answer = number * 7 % (len(others) + 1)
        choices = [f"the {one}" for one in others]
        choices.insert(answer, f"the {word}")
        rows.append(
            {
                "question": f"which is the {word}, {number}?",
                "choices": choices,
                "answer": answer,
                "subject": "ab"[number % 2],
            }
        )
    return rows


SHAPES: dict[str, list[dict[str, Any]]] = {
    "index": [{"question": "q", "choices": ["x", "y", "z"], "answer": 1}],
    "index as text": [{"question": "q", "choices": ["x", "y", "z"], "answer": "1"}],
    "letter": [{"question": "q", "choices": ["x", "y", "z"], "answer": "B"}],
    "small letter in brackets": [{"question": "q", "options": ["x", "y", "z"], "answer": "(b)"}],
    "text": [{"question": "q", "choices": ["x", " y", "z"], "answer": "y"}],
    "columns A to C": [{"question": "q", "A": "x", "B": "y", "C": "z", "answer": "B"}],
    "choice1 to 3": [{"question": "q", "choice1": "x", "choice2": "y", "choice3": "z", "label": 1}],
    "opa to opc": [{"question": "q", "opa": "x", "opb": "y", "opc": "z", "cop": 1}],
    "ending0 to 2": [{"ctx": "q", "ending0": "x", "ending1": "y", "ending2": "z", "label": "1"}],
    "ai2_arc": [{"question": "q", "choices": {"text": ["x", "y", "z"], "label": ["1", "2", "3"]}, "answerKey": "2"}],
    "commonsense_qa": [{"question": "q", "choices": {"text": ["x", "y"], "label": ["A", "B"]}, "answerKey": "B"}],
    "json in a cell": [{"question": "q", "choices": '["x", "y"]', "answer": "B"}],
    "index with a fraction of nothing": [{"question": "q", "choices": ["x", "y", "z"], "answer": "1.0"}],
    "choices that are letters": [{"question": "q", "choices": ["B", "A", "C"], "answer": "B"}],
    "choices that are numbers": [{"question": "q", "choices": ["0", "1", "7"], "answer": "1"}],
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_of_answer_and_choices_is_read(tmp_path: Path, shape: str) -> None:
    path = _jsonl(tmp_path / "q.jsonl", [{**SHAPES[shape][0]} for _ in range(2)])
    assert read_labelled(path, form="multiclass").labels == ["B", "B"]
    pairs = read_labelled(path, form="binary")
    assert [label == CORRECT for label in pairs.labels[:2]] == [False, True]
    assert len(pairs) in (4, 6)


def test_csv_without_header_and_with_fewer_choices_in_some_rows(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text('q,x,y,None,z,C\n"q, two",x,y,,,B\n')
    rows = read_labelled(path, form="multiclass", columns=("question", "A", "B", "C", "D", "answer"))
    assert rows.labels == ["C", "B"]
    assert rows.table.column("choices").to_pylist() == [["x", "y", "None", "z"], ["x", "y"]]
    questions = questions_of(rows)
    assert questions is not None
    assert questions.chance == pytest.approx(3 / 8)


def test_declared_classes_are_indices(tmp_path: Path) -> None:
    feature = {"info": {"features": {"answer": {"names": ["A", "B"], "_type": "ClassLabel"}}}}
    table = pa.table({"question": ["q", "r"], "choices": [["x", "y"]] * 2, "answer": [1, 0]})
    parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(feature)}), tmp_path / "q.parquet")
    assert read_labelled(tmp_path / "q.parquet", form="multiclass").labels == ["B", "A"]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"question": "q", "choices": [], "answer": 0}, "row 3: the question has no choices"),
        ({"question": "q", "choices": None, "answer": 0}, "row 3: the question has no choices"),
        ({"question": "q", "choices": ["x"], "answer": 0}, "row 3: the question has one choice only"),
        ({"question": "q", "choices": ["x", None], "answer": 0}, "row 3: choice 2 of 2 is missing"),
        ({"question": "q", "choices": ["x", ["y"]], "answer": 0}, "row 3: choice 2 of 2 is a list, not a text"),
        ({"question": "q", "choices": "x or y", "answer": 0}, "row 3: choices are a text, not a list"),
        ({"question": "q", "choices": '["x", ', "answer": 0}, "row 3: choices begin with [ but are no JSON"),
        ({"question": "q", "choices": ["x", "y"], "answer": 2}, "row 3: the answer (index 2) is none of its 2"),
        (
            {"question": "q", "choices": {"text": ["x", "y"], "label": ["A"]}, "answer": 1},
            "row 3: 2 choices but 1 labels",
        ),
        ({"question": "q", "choices": ["x"] * 27, "answer": 1}, "row 3: 27 choices; up to 26"),
    ],
)
def test_a_bad_question_is_named_by_file_and_row(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    good = {"question": "q", "choices": ["x", "y"], "answer": 1}
    path = _jsonl(tmp_path / "q.jsonl", [good, {**good, "answer": 0}, row])
    with pytest.raises(DataError) as caught:
        prepare(path, form="binary")
    assert f"q.jsonl, {words}" in caught.value.message
    assert caught.value.hint or "26" in words


@pytest.mark.parametrize(("answer", "said"), [("E", "'E'"), ("something else", "a text"), ("yes!", "a text")])
def test_an_answer_that_is_no_choice_is_named(tmp_path: Path, answer: str, said: str) -> None:
    good = [{"question": "q", "choices": ["x", "y"], "answer": letter} for letter in "ABAB"]
    path = _jsonl(tmp_path / "q.jsonl", [*good, {**good[0], "answer": answer}])
    with pytest.raises(DataError, match=rf"q.jsonl, row 5: the answer \({said}\) is none of its 2 choices"):
        prepare(path, form="multiclass")


def test_an_answer_that_is_the_text_of_two_choices_is_refused(tmp_path: Path) -> None:
    good = [{"question": "q", "choices": ["one", "two"], "answer": text} for text in ("one", "two")]
    path = _jsonl(tmp_path / "q.jsonl", [*good, {**good[0], "choices": ["one", "one", "two"]}])
    with pytest.raises(DataError, match=r"q.jsonl, row 3: the answer \('one'\) is the text of 2 of its 3 choices"):
        prepare(path, form="binary")


@pytest.mark.parametrize(
    ("setting", "flag"),
    [
        ({"other_label": "x", "min_label_count": 13}, "--other-label"),
        ({"label_delimiter": "|"}, "--label-delimiter"),
        ({"label_columns": ("a", "b")}, "--label-columns"),
    ],
)
def test_settings_of_other_labels_do_not_go_with_questions(tmp_path: Path, setting: dict[str, Any], flag: str) -> None:
    with pytest.raises(UsageError, match=f"{flag} does not go with form multiclass"):
        prepare(_jsonl(tmp_path / "q.jsonl", _many()), form="multiclass", **setting)
    if "other_label" not in setting:
        with pytest.raises(UsageError, match=f"{flag} does not go with form binary"):
            read_labelled(tmp_path / "q.jsonl", form="binary", **setting)


@pytest.mark.parametrize("form", ["binary", "multiclass"])
def test_train_does_not_go_whole_with_its_leaks(tmp_path: Path, form: str) -> None:
    for split in ("train", "validation", "test"):
        _jsonl(tmp_path / f"{split}.jsonl", _many(20))
    with pytest.raises(DataError, match="drop-leaks train leaves no row"):
        textclf.prepare(tmp_path, form=form, drop_leaks="train")


def test_only_choices_are_shuffled(tmp_path: Path) -> None:
    path = tmp_path / "plain.csv"
    path.write_text("text,label\n" + "".join(f"t {number},{'ab'[number % 2]}\n" for number in range(40)))
    with pytest.raises(UsageError, match="--shuffle-choices is for questions"):
        prepare(path, shuffle_choices=True)


def test_data_of_another_shape_says_what_is_missing(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "q.jsonl", _many(10))
    with pytest.raises(DataError, match="questions with choices") as caught:
        prepare(path)
    assert "--form multiclass" in (caught.value.hint or "")
    (tmp_path / "plain.csv").write_text("text,label\na,b\n")
    with pytest.raises(DataError, match="no question with choices, which --form asks for"):
        prepare(tmp_path / "plain.csv", form="binary")
    (tmp_path / "open.csv").write_text("question,A,B\na,b,c\n")
    with pytest.raises(DataError, match="no column of answers"):
        prepare(tmp_path / "open.csv", form="binary")
    with pytest.raises(ConfigError, match="shuffle_choices"):
        DataConfig(form="binary", shuffle_choices=True)
    with pytest.raises(ConfigError, match="text_pair_column"):
        DataConfig(form="binary", text_pair_column="x")


def test_rows_of_a_question_stay_in_one_split(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "q.jsonl", _many())
    prepared = prepare(path, form="binary", min_label_count=1)
    assert prepared.label_set.names == ("incorrect", "correct")
    where: dict[str, set[str]] = {}
    for split in prepared.splits:
        rows = prepared.rows(split)
        questions = questions_of(rows)
        assert questions is not None
        assert np.bincount(questions.number_N).tolist() == questions.count_Q.tolist()
        assert rows.labels.count(CORRECT) == len(questions.count_Q)
        where[split] = set(rows.table.column("text").to_pylist())
    assert sum(map(len, where.values())) == len(set().union(*where.values())) == 60
    assert sum(prepared.splits.values()) == sum(len(row["choices"]) for row in _many())


def test_in_form_binary_the_places_of_answers_are_no_labels(tmp_path: Path) -> None:
    first = [{**row, "choices": sorted(row["choices"], key=row["choices"][row["answer"]].__ne__)} for row in _many()]
    always_a = prepare(_jsonl(tmp_path / "a.jsonl", [{**row, "answer": 0} for row in first]), form="binary")
    assert always_a.label_counts["test"] == {"incorrect": always_a.splits["test"] - 6, "correct": 6}
    folder = tmp_path / "splits"
    folder.mkdir()
    _jsonl(folder / "train.jsonl", [{**row, "answer": 0} for row in first[::2]])
    _jsonl(folder / "test.jsonl", _many()[1::2])  # answers at places that train has not
    split = prepare(folder, form="binary")
    assert split.label_counts["test"]["correct"] == 30
    assert not any("label" in finding.message for finding in split.findings)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"form": "binary", "balance": "min"}, "--balance"),
        ({"form": "binary", "min_label_count": 2}, "--min-label-count"),
        ({"form": "multiclass", "label_delimiter": "|"}, "--label-delimiter"),
        ({"shuffle_choices": True}, "--shuffle-choices"),
    ],
)
def test_settings_that_say_nothing_of_a_form_are_refused(tmp_path: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        prepare(_jsonl(tmp_path / "q.jsonl", _many()), **settings)


def test_shuffled_choices_keep_their_answer_and_follow_the_seed(tmp_path: Path) -> None:
    path = _jsonl(tmp_path / "q.jsonl", _many())
    plain = prepare(path, form="multiclass")
    shuffled, again, other = (
        prepare(path, form="multiclass", shuffle_choices=True, seed=seed, max_rows=rows)
        for seed, rows in ((0, None), (0, 1000), (1, None))
    )

    def answers(prepared: Any, split: str) -> dict[str, str]:
        table = prepared.rows(split).table
        columns = [table.column(name).to_pylist() for name in ("text", "label", "choices", "text_pair")]
        for _, _, choices, text in zip(*columns, strict=True):
            assert text == "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=False))
        return {text: choices[LETTERS.index(label)] for text, label, choices, _ in zip(*columns, strict=True)}

    assert answers(shuffled, "train") == answers(plain, "train")
    assert shuffled.rows("train").labels != plain.rows("train").labels
    assert shuffled.rows("train").labels == again.rows("train").labels != other.rows("train").labels
    assert shuffled.rows("test").labels == plain.rows("test").labels


@settings(deadline=None)
@given(st.integers(0, 400), st.integers(1, 400))
def test_the_interval_is_wilsons(right: int, total: int) -> None:
    from scipy.stats import binomtest

    expected = binomtest(min(right, total), total).proportion_ci(method="wilson")
    assert wilson(min(right, total), total) == pytest.approx((expected.low, expected.high), abs=1e-9)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(2, 5), min_size=1, max_size=6), st.booleans(), st.integers(0, 10**6))
def test_scores_of_choices_sum_to_one_and_are_for_its_own_choices(counts: list[int], binary: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    count_Q = np.array(counts)
    labels = {"incorrect": 0, CORRECT: 1} if binary else {letter: index for index, letter in enumerate("ABCD")}
    probs_NC = rng.dirichlet([0.05] * len(labels), sum(counts) if binary else len(counts)).astype(np.float32)
    scores_QK = choice_scores(probs_NC, count_Q, labels, binary=binary)
    np.testing.assert_allclose(scores_QK.sum(axis=1), 1)
    assert ((scores_QK > 0) == (np.arange(max(counts)) < count_Q[:, None])).all() or not binary
    if binary:
        starts = np.cumsum(count_Q) - count_Q
        best = [int(probs_NC[start : start + count, 1].argmax()) for start, count in zip(starts, counts, strict=True)]
        assert scores_QK.argmax(axis=1).tolist() == best


def test_a_multiclass_answer_is_one_of_the_questions_own_choices(tmp_path: Path) -> None:
    rows = [
        {"question": "q", "choices": ["x", "y"], "answer": 1, "subject": "few"},
        {"question": "r", "choices": ["x", "y", "z", "w"], "answer": 3, "subject": "many"},
    ]
    read = read_labelled(_jsonl(tmp_path / "q.jsonl", rows), form="multiclass")
    questions = questions_of(read)
    assert questions is not None
    probs_NC = np.array([[0.1, 0.2, 0.0, 0.7]] * 2)
    report = report_questions(questions, probs_NC, LabelSet(tuple("ABCD")))
    assert (report.all.right, report.all.chance) == (2, 0.375)
    assert (report.all.low, report.all.high) == wilson(2, 2)
    assert {name: one.chance for name, one in report.subjects.items()} == {"few": 0.5, "many": 0.25}


@pytest.mark.parametrize("form", ["binary", "multiclass"])
def test_questions_from_rows_to_answers(
    cli: Run, tiny_base: Path, tmp_path: Path, form: str, request: pytest.FixtureRequest
) -> None:
    if form == "multiclass":  # answered by torch, the other form by the graph
        request.getfixturevalue("no_graph")
    data, out = _jsonl(tmp_path / "q.jsonl", _many()), tmp_path / "run"
    run = textclf.finetune(tiny_base, data, form=form, epochs=1, device="cpu", out=out)
    assert 0 <= run.metrics["validation"]["question_accuracy"] <= 1
    assert 0 < run.metrics["test"]["question_chance"] <= 0.5
    assert "answered at random" in (run.model_folder / "README.md").read_text()

    document = textclf.evaluate(out).as_dict()
    answered = document["questions"]["all"]
    assert answered["accuracy"] == document["metrics"]["question_accuracy"] == answered["right"] / answered["questions"]
    assert answered["low"] < answered["accuracy"] + 1e-9 < answered["high"] + 2e-9
    assert set(document["questions"]["subjects"]) == {"a", "b"}
    assert document["metrics"]["rows"] > answered["questions"] or form == "multiclass"
    page = textclf.report(out, format="md").path.read_text(encoding="utf-8")
    assert f"\n{answered['right']} of {answered['questions']} questions were answered rightly" in page
    assert f"<dt>accuracy of questions</dt><dd>{answered['accuracy']:.4f}" in textclf.report(out).path.read_text()
    shown = cli("eval", out)
    assert "question accuracy" in shown.stdout and "chance" in shown.stdout

    shown = cli(
        "finetune", "--model", tiny_base, "-d", data, "--form", form, "--epochs", "1", "--device", "cpu", "-o", out
    )
    example = shlex.split(next(line for line in shown.stderr.splitlines() if "| textclf predict" in line).split("|")[0])
    line = subprocess.run(example, capture_output=True, text=True, check=True).stdout
    assert cli("predict", out, input=line).returncode == 0

    # What eval counts as right is what predict answers.
    asked = _jsonl(tmp_path / "asked.jsonl", [{k: row[k] for k in ("question", "choices")} for row in _many()])
    lines = cli("predict", out, asked, "--format", "jsonl").stdout.splitlines()
    answers = [json.loads(line) for line in lines]
    assert [one["choices"] for one in answers] == [row["choices"] for row in _many()]
    for one in answers:
        assert one["choice"] == one["choices"][one["index"]] and one["answer"] == LETTERS[one["index"]]
        assert sum(one["scores"]) == pytest.approx(1, abs=1e-5)
        assert one["score"] == max(one["scores"]) == one["scores"][one["index"]]
    everything = textclf.evaluate(out, dataset=data).as_dict()["questions"]["all"]
    assert everything["right"] == sum(one["index"] == row["answer"] for one, row in zip(answers, _many(), strict=True))
    piped = cli("predict", out, "--format", "csv", input=asked.read_text()).stdout.splitlines()
    assert piped[0] == "answer,score,choice,question"
    assert [line.split(",")[0] for line in piped[1:]] == [one["answer"] for one in answers]

    best = list(csv.reader(cli("predict", out, asked, "--format", "csv", "--top-k", "3").stdout.splitlines()))
    assert best[0] == ["answer_1", "score_1", "answer_2", "score_2", "answer_3", "score_3", "choice", "question"]
    assert {len(line) for line in best} == {8}
    assert [line[4] == "" for line in best[1:]] == [len(row["choices"]) < 3 for row in _many()]
    classifier = textclf.load(out, device="cpu")
    items = [(row["question"], row["choices"]) for row in _many()]
    assert classifier.predict(items).tolist() == [one["answer"] for one in answers]
    assert classifier.predict_proba(items).shape == (60, len(classifier.classes_))
    with pytest.raises(UsageError, match=r"texts\[0\]: the question has one choice only"):
        classifier.predict([("q", ["x"])])
    with pytest.raises(UsageError, match=r"texts\[0\] is no question"):
        classifier.predict(["q"])
    wrong = cli("predict", out, input='{"question": "q", "choices": ["x", "y"]}\nplain\n')
    assert (wrong.returncode, wrong.stdout.count("\n")) == (3, 1)
    assert "standard input, line 2" in wrong.stderr
    if form == "multiclass":
        with pytest.raises(DataError, match="9 choices"):
            classifier.predict([("q", ["x"] * 9)])


def test_prepare_says_what_became_of_questions(cli: Run, tmp_path: Path) -> None:
    data = _jsonl(tmp_path / "q.jsonl", _many())
    done = cli("prepare", "-d", data, "--form", "multiclass", "--shuffle-choices", "--json")
    document = json.loads(done.stdout)
    assert (document["form"], document["labels"]) == ("multiclass", ["A", "B", "C", "D"])
    assert any("random order" in step for step in document["steps"])
    assert any("'question', choices in 'choices', answers in 'answer'" in step for step in document["steps"])
    wrong = cli("prepare", "-d", data, "--form", "ternary")
    assert (wrong.returncode, "binary, multiclass" in wrong.stderr) == (2, True)
    lacking = cli("prepare", "-d", data)
    assert (lacking.returncode, "--form multiclass" in lacking.stderr) == (3, True)


def test_the_question_is_cut_and_never_a_choice(
    cli: Run, tiny_base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from textclf.data.encoding import encode_rows
    from textclf.model.tokenizer import backend, load_tokenizer

    tokenizer = backend(load_tokenizer(tiny_base))
    rows = [
        {"question": "where is my card " * 40, "choices": ["my money", "my card"], "answer": 1},
        {"question": "where", "choices": ["the payment was declined " * 8, "my card"], "answer": 1},
    ]
    read = read_labelled(_jsonl(tmp_path / "q.jsonl", rows), form="multiclass")
    whole = encode_rows(read, tokenizer)
    cut = encode_rows(read, tokenizer, max_length=32)
    assert cut.lengths.tolist() == [32, 32]
    assert cut.second is not None and whole.second is not None
    choices = whole.row(0)[whole.second[0] :].tolist()
    assert cut.row(0)[cut.second[0] :].tolist() == choices
    assert "q.jsonl, row 2: the choices alone are longer than the 32 tokens" in caplog.text
    assert cut.texts_cut == 2


def test_mmlu_is_read_as_published(shared_data: Path) -> None:
    prepared = prepare(shared_data / "mmlu", form="binary", max_rows=300)
    assert any("train is read from auxiliary_train" in step for step in prepared.steps)
    assert prepared.splits == {"train": 1200, "validation": 1200, "test": 1200}
    assert prepared.label_counts["test"] == {"incorrect": 900, "correct": 300}
    raw = shared_data / "mmlu" / "raw_csv" / "test" / "abstract_algebra_test.csv"
    rows = read_labelled(raw, form="multiclass", columns=("question", "A", "B", "C", "D", "answer"))
    table = parquet.read_table(shared_data / "mmlu" / "test.parquet").slice(0, 100).to_pylist()
    assert rows.table.column("choices").to_pylist() == [row["choices"] for row in table]
    assert rows.labels == [LETTERS[row["answer"]] for row in table]
