"""Pairs of texts: from columns to predictions, as the tokenizer and transformers have them."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

import textclf
import tiny_models
from textclf.data.batching import collate, pack
from textclf.data.encoded_files import encode_kept
from textclf.data.encoding import encode
from textclf.data.labelled import read_labelled
from textclf.data.preparation import prepare
from textclf.data.rows import make_rows
from textclf.errors import DataError, UsageError
from textclf.labels import LabelSet
from textclf.model.classifier import Classifier
from textclf.model.tokenizer import backend, load_tokenizer

Run = Callable[..., subprocess.CompletedProcess[str]]
WORDS = st.lists(
    st.sampled_from(["where", "is", "my", "card", "and", "when", "will", "it", "arrive", "money", "back"]), max_size=30
)


@pytest.fixture(scope="module", params=["bert", "roberta", "deberta-v2", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.pretrained(tmp_path_factory.mktemp("pairs") / request.param, request.param)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4), st.integers(8, 40))
def test_a_pair_is_what_the_tokenizer_makes_of_it(
    folder: Path, pairs: list[tuple[list[str], list[str]]], most: int
) -> None:
    tokenizer = load_tokenizer(folder)
    first, second = ([" ".join(part) for part in side] for side in zip(*pairs, strict=True))
    encoded = encode(first, backend(tokenizer), pairs=second, max_length=most)
    expected = transformers.AutoTokenizer.from_pretrained(folder)(
        first, second, truncation="longest_first", max_length=most, return_token_type_ids=True
    )
    for row, (ids, types) in enumerate(zip(expected["input_ids"], expected["token_type_ids"], strict=True)):
        assert encoded.row(row).tolist() == ids
        assert encoded.second is not None
        assert types == [int(place >= encoded.second[row]) for place in range(len(ids))]
    whole = encode(first, backend(load_tokenizer(folder)), pairs=second)
    assert encoded.truncated.tolist() == (whole.lengths > most).tolist()


def test_many_pairs_are_read_as_few_and_kept_in_files_alike(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = backend(load_tokenizer(folder))
    first = [f"where is my card {number}" for number in range(400)]
    second = [f"it will arrive {'today ' * (number % 9)}" for number in range(400)]
    rows = make_rows(first, ["a"] * 400, pairs=second, file="x")
    assert rows.pair_column is not None
    many = encode(rows.text_column, tokenizer, pairs=rows.pair_column, max_length=14)
    monkeypatch.setattr("textclf.data.encoded_files.LARGE", 0)
    kept = encode_kept(rows.text_column, tokenizer, pairs=rows.pair_column, max_length=14)
    assert isinstance(kept.second, np.memmap)
    for number in (0, 7, 399):
        one = encode(first[number : number + 1], tokenizer, pairs=second[number : number + 1], max_length=14)
        for other in (many, kept):
            assert other.row(number).tolist() == one.row(0).tolist()
            assert other.second is not None and one.second is not None and other.second[number] == one.second[0]


def test_a_tokenizer_without_separator_gets_a_line_break(tmp_path: Path) -> None:
    tokenizer = backend(load_tokenizer(tiny_models.pretrained(tmp_path / "gpt2", "gpt2")))
    joined = encode(["my card"], tokenizer, pairs=["my money"])
    assert joined.row(0).tolist() == encode(["my card\nmy money"], tokenizer).row(0).tolist()


@pytest.mark.parametrize("architecture", ["bert", "electra", "modernbert"])
def test_packed_pairs_have_the_logits_of_padded_ones(tmp_path: Path, architecture: str) -> None:
    folder = tiny_models.pretrained(tmp_path / architecture, architecture)
    tokenizer = load_tokenizer(folder)
    classifier = Classifier.from_pretrained(folder, LabelSet(("a", "b")), tokenizer).eval()
    texts = ["where is my card", "money", "i want to cancel my order " * 5, "please"]
    encoded = encode(texts, backend(tokenizer), pairs=texts[::-1])
    rows = np.arange(4)
    padded = classifier(collate(encoded, rows, pad_id=classifier.pad_id)).detach().numpy()
    assert classifier.try_packing(max_length=64)
    packed = classifier(pack(encoded, rows, pad_id=classifier.pad_id)).detach().numpy()
    np.testing.assert_allclose(packed, padded, atol=1e-5)
    if classifier.tells_types:
        blind = encode(texts, backend(tokenizer), pairs=texts[::-1])
        object.__setattr__(blind, "second", None)
        assert np.abs(classifier(pack(blind, rows, pad_id=classifier.pad_id)).detach().numpy() - padded).max() > 2e-5


def _write(path: Path, count: int = 90) -> Path:
    lines = ["id,premise,hypothesis,label"]
    for number in range(count):
        word, other = ["card", "money", "login"][number % 3], ["card", "money", "login"][number // 3 % 3]
        lines.append(f'{number},"my {word}, please {number}",the {other},{"same" if word == other else "other"}')
    path.write_text("\n".join(lines) + "\n")
    return path


def test_pairs_from_a_csv_to_answers(cli: Run, tiny_base: Path, tmp_path: Path) -> None:
    data, out = _write(tmp_path / "nli.csv"), tmp_path / "run"
    textclf.finetune(tiny_base, data, epochs=1, device="cpu", out=out)
    shown = cli("finetune", "--model", tiny_base, "-d", data, "--epochs", "1", "--device", "cpu", "-o", out)
    example = shlex.split(next(line for line in shown.stderr.splitlines() if "| textclf predict" in line).split("|")[0])
    line = subprocess.run(example, capture_output=True, text=True, check=True).stdout
    assert cli("predict", out, input=line).stdout.count("\n") == 1
    facts = json.loads((out / "model" / "textclf.json").read_text())
    assert (facts["form"], facts["columns"]) == ("pair", {"text": "premise", "text_pair": "hypothesis"})
    card = (out / "model" / "README.md").read_text()
    assert "pairs of texts" in card and '"text_pair":' in card

    pairs = [("my card, please", "the money"), ("my login", "the login today")]
    pipeline = transformers.pipeline("text-classification", model=str(out / "model"), top_k=None)
    wanted = [
        {one["label"]: one["score"] for one in pipeline({"text": first, "text_pair": second}, truncation=True)}
        for first, second in pairs
    ]
    for runtime in ("onnx", "torch"):
        classifier = textclf.load(out, device="cpu", runtime=runtime)
        probs = classifier.predict_proba(pairs)
        expected = [[scores[label] for label in classifier.classes_] for scores in wanted]
        np.testing.assert_allclose(probs, expected, atol=2e-5)
    with pytest.raises(UsageError, match=r"texts\[0\] is no pair"):
        classifier.predict(["one text"])

    piped = cli("predict", out, "--format", "jsonl", input="".join(f"{a}\t{b}\n" for a, b in pairs))
    answers = [json.loads(line) for line in piped.stdout.splitlines()]
    assert [(one["text"], one["text_pair"]) for one in answers] == pairs
    from_file = cli("predict", out, data, "--format", "csv").stdout.splitlines()
    assert from_file[0] == "label,score,text,text_pair"
    assert len(from_file) == 91
    alone = cli("predict", out, input="a text\n")
    assert (alone.returncode, "line 1: one text" in alone.stderr) == (3, True)
    renamed = tmp_path / "renamed.csv"
    renamed.write_text(data.read_text().replace("premise,hypothesis", "body,reply"))
    flags = ("--text-column", "body", "--text-pair-column", "reply")
    assert cli("predict", out, renamed, "--format", "csv", *flags).stdout.splitlines() == from_file
    unsure = cli("predict", out, renamed)
    assert (unsure.returncode, "--text-pair-column" in unsure.stderr) == (3, True)
    scored = json.loads(cli("eval", out, "--dataset", renamed, *flags, "--json").stdout)
    assert scored["metrics"]["rows"] == 90
    (tmp_path / "single.csv").write_text("text,label\na,same\n")
    with pytest.raises(DataError, match="single texts; this model reads pairs"):
        textclf.evaluate(out, dataset=tmp_path / "single.csv")


def test_a_model_of_single_texts_takes_no_column_of_pairs(cli: Run, tiny_artifact: Path, tmp_path: Path) -> None:
    data = _write(tmp_path / "nli.csv")
    refused = cli("predict", tiny_artifact, data, "--text-column", "premise", "--text-pair-column", "hypothesis")
    assert (refused.returncode, "reads no pairs" in refused.stderr) == (2, True)
    with pytest.raises(DataError, match="pairs of texts; this model reads single texts"):
        textclf.evaluate(tiny_artifact, dataset=data)


@pytest.mark.parametrize(
    ("header", "flags", "form"),
    [
        ("sentence1,sentence2,label", {}, "pair"),
        ("question1,question2,label", {}, "pair"),
        ("body,reply,label", {"text_column": "body", "text_pair_column": "reply"}, "pair"),
        ("text,reply,label", {"text_pair_column": "reply"}, "pair"),
        ("premise,hypothesis,label", {"text_column": "premise"}, "text"),
    ],
)
def test_pairs_are_found_or_told(tmp_path: Path, header: str, flags: dict[str, str], form: str) -> None:
    path = tmp_path / "d.csv"
    path.write_text(header + "\n" + "".join(f"one {n},two {n},{'ab'[n % 2]}\n" for n in range(40)))
    prepared = prepare(path, **flags)
    assert prepared.form == form
    assert (prepared.rows("train").pair_column is None) == (form == "text")


def test_unsure_pairs_ask_and_same_columns_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("question,passage,label\n" + "a,b,c\nd,e,f\n" * 20)
    with pytest.raises(DataError, match="pairs of texts"):
        prepare(path)
    with pytest.raises(DataError, match="cannot be both"):
        prepare(path, text_column="passage", text_pair_column="passage")
    with pytest.raises(DataError, match="no column 'passag'"):
        prepare(path, text_column="question", text_pair_column="passag")


def test_equal_pairs_stay_together_and_equal_first_texts_need_not(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    rows = [f"same premise,hypothesis {n // 2},{'ab'[n // 2 % 2]}" for n in range(120)]
    path.write_text("premise,hypothesis,label\n" + "\n".join(rows) + "\n")
    prepared = prepare(path)
    seen = [set(prepared.rows(split).table.column("text_pair").to_pylist()) for split in prepared.splits]
    assert sum(map(len, seen)) == len(set().union(*seen)) == 60
    assert not any("repeat" in one.message and "120" in one.message for one in prepared.findings)


def test_an_empty_half_is_an_empty_text(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text(
        "premise,hypothesis,label\n" + "".join(f"a {n},{'b' if n else ''},{'xy'[n % 2]}\n" for n in range(40))
    )
    assert sum(prepare(path).splits.values()) == 39
    assert len(read_labelled(path, form="pair")) == 40


def test_pairs_may_have_several_labels_in_lists_or_columns(tmp_path: Path) -> None:
    rows = [
        {"premise": f"one {n}", "hypothesis": f"two {n}", "x": n % 2, "y": 1, "labels": ["x", "y"] if n % 2 else ["y"]}
        for n in range(40)
    ]
    lists, columns = tmp_path / "lists.jsonl", tmp_path / "columns.jsonl"
    lists.write_text(
        "".join(json.dumps({key: row[key] for key in ("premise", "hypothesis", "labels")}) + "\n" for row in rows)
    )
    columns.write_text(
        "".join(json.dumps({key: row[key] for key in ("premise", "hypothesis", "x", "y")}) + "\n" for row in rows)
    )
    for prepared in (prepare(lists), prepare(columns, label_columns=("x", "y"))):
        assert (prepared.form, prepared.label_set.names, prepared.label_set.multi) == ("pair", ("x", "y"), True)
        assert prepared.rows("train").pair_column is not None
