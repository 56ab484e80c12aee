"""The model card: complete, readable, harmless, and valid to the Hub's own client."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import huggingface_hub
import pytest
import yaml

from textclf.abstention import CoveragePoint
from textclf.artifact import card, figures, folder
from textclf.labels import LabelSet
from textclf.metrics import Bin, Confusion

FACTS = folder.Facts(
    max_length=128,
    base_model="distilbert-base-uncased",
    base_revision="a" * 40,
    dataset="banking77",
    dataset_id="legacy-datasets/banking77",
    dataset_revision="b" * 40,
    fingerprint="c" * 64,
    splits={"train": 9003, "validation": 1000, "test": 3080},
    label_counts={"card_arrival": 150, "lost_card": 50},
    metrics={
        "validation": {"rows": 1000, "accuracy": 0.95, "macro_f1": 0.94, "mcc": 0.93, "absent_labels": []},
        "test": {"rows": 3080, "accuracy": 0.9235, "macro_f1": 0.92, "mcc": 0.91, "absent_labels": ["lost_card"]},
    },
    config={"data": {"dataset": "banking77", "text_column": None}, "train": {"learning_rate": 5e-05, "seed": 0}},
    environment={"textclf": "0.1.0", "torch": "2.13.0"},
)  # fmt: skip


def artifact(*labels: str, **facts: Any) -> folder.Artifact:
    names = labels or ("card_arrival", "lost_card")
    return folder.Artifact(Path("x"), LabelSet(names), {}, dataclasses.replace(FACTS, **facts))


def front_matter(text: str) -> dict[str, Any]:
    return yaml.safe_load(text.split("---\n")[1])  # type: ignore[no-any-return]


def test_the_hub_client_reads_the_results(recwarn: pytest.WarningsRecorder) -> None:
    parsed = huggingface_hub.ModelCard(card.render(artifact(), repo_id="alice/bank"))
    data = parsed.data
    assert (data.library_name, data.pipeline_tag) == ("transformers", "text-classification")
    assert (data.base_model, data.datasets) == ("distilbert-base-uncased", ["legacy-datasets/banking77"])
    assert data.model_name == "bank"
    results = {result.metric_name: result for result in data.eval_results or []}
    accuracy = results["accuracy"]
    assert (accuracy.dataset_type, accuracy.dataset_name) == ("legacy-datasets/banking77", "banking77")
    assert (accuracy.dataset_split, accuracy.dataset_revision) == ("test", "b" * 40)
    assert (accuracy.task_type, accuracy.metric_type) == ("text-classification", "accuracy")
    assert accuracy.metric_value == pytest.approx(0.9235)
    assert {result.metric_type for result in results.values()} == {"accuracy", "f1", "matthews_correlation"}
    assert not data.license
    assert not data.language


def test_card_says_what_a_reader_needs() -> None:
    text = card.render(artifact(), repo_id="alice/bank")
    for expected in (
        *("textclf predict alice/bank", 'model="alice/bank"', "truncation=True", 'textclf.load("alice/bank")'),
        *(
            "| card_arrival | 150 |",
            "| accuracy | 0.9235 | 0.9500 |",
            "9,003 train",
            "c" * 64,
            "learning_rate: 5.0e-05",
        ),
        *("first 128 tokens", "not calibrated", "languages", "[distilbert-base-uncased](https://huggingface.co/"),
        "No text of lost_card was among those it was measured on (test).",
    ):
        assert expected in text, expected
    assert "text_column" not in text, "what was left to chance is not configuration"
    assert text == card.render(artifact(), repo_id="alice/bank"), "the same model has the same card"


def test_accuracy_of_questions_stands_beside_chance() -> None:
    measured = {"test": {"question_accuracy": 0.31, "question_chance": 0.25, "accuracy": 0.31}}
    text = card.render(artifact(form="multiclass", metrics=measured))
    assert "| accuracy of questions | 0.3100 |\n| accuracy of questions, answered at random | 0.2500 |" in text
    (result,) = front_matter(text)["model-index"][0]["results"]
    assert [one["value"] for one in result["metrics"]] == [0.31, 0.31], "chance is no result of the model"


def test_limits_name_what_is_weak() -> None:
    counts = {"a": 400, "b": 10, "c": 0}
    text = card.render(
        artifact("a", "b", "c", label_counts=counts, splits={"train": 410}, metrics={"validation": {"accuracy": 0.9}})
    )
    assert "never saw a text of c" in text
    assert "fewer than 20 texts of b" in text
    assert "40 times the texts of the rarest" in text
    assert "only 410 texts" in text
    assert "never measured on texts that had no part in making it" in text
    assert front_matter(text)["model-index"][0]["results"][0]["dataset"]["split"] == "validation"


def test_many_labels_are_folded_away() -> None:
    names = tuple(f"intent_{number}" for number in range(77))
    text = card.render(artifact(*names, label_counts=dict.fromkeys(names, 117)))
    folded = text[text.index("<details>") : text.index("</details>")]
    assert "All 77 labels" in folded
    assert folded.count("\n| intent_") == 77


HOSTILE = (
    "a|b",
    "two\nlines\r\n## Heading",
    "<script>alert(1)</script>",
    "</details><img src=x onerror=alert(1)>",
    "`code` ```fence",
    "[click](javascript:alert(1))",
    "![x](http://evil.example/pixel)",
    "http://evil.example www.evil.example",
    "_under_ *star* ~~strike~~ $$x$$ @someone #1 :smile:",
    "---\nlicense: mit\n---",
    "right\u202eleft\u200f \x1b[31m \ud800 \x00",
    "&lt;b&gt; \\| {{ jinja }} {% x %}",
    "",
)


def test_label_names_are_text_and_nothing_else() -> None:
    counts = dict.fromkeys(HOSTILE, 3)
    hostile_config = {"data": {"dataset": "~~~~\n~~~\n```\n</details><script>", "x\n~~~~": ["~~~~\n# y", "\u202e"]}}
    text = card.render(
        artifact(*HOSTILE, label_counts=counts, dataset="<b>|\n---\nx: y", dataset_id=None, config=hostile_config)
    )
    text.encode()  # no lone surrogate
    body = text.split("\n---\n", 1)[1]
    outside = re.sub(r"~~~~yaml\n.*?\n~~~~\n", "", body, flags=re.S)
    tags = re.findall(r"</?[a-zA-Z][^>]*>", outside)
    assert set(tags) <= {"<details>", "</details>", "<summary>", "</summary>"}
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f\u202a-\u202e\u200e\u200f]", text)
    assert "http://evil" not in outside and "www.evil" not in outside and "](javascript" not in outside
    rows = re.findall(r"^\| .* \|$", outside[: outside.index("</details>")], flags=re.M)
    assert len(rows) == 2 + len(HOSTILE)
    assert {row.count("|") for row in rows} == {3}, "no label opens a column of its own"
    assert "| (empty) |" in body
    assert re.findall("^#+ .*", outside, flags=re.M)[1:] == [
        "## Labels", "## How to use it", "## Results", "## Training", "## Limits"
    ]  # fmt: skip
    assert text.count("~~~~yaml") == 1 and body.count("\n~~~~\n") == 1, "no value ends the block of code"
    assert "license" not in front_matter(text)
    huggingface_hub.ModelCard(text)


def test_card_holds_no_path_and_no_link_to_what_is_not_on_the_hub() -> None:
    home = {
        "base_model": "/srv/secret/my-base",
        "base_revision": None,
        "dataset": "C:\\secret\\t.csv",
        "dataset_id": None,
    }
    text = card.render(artifact(**home, config={"data": {"dataset": "/srv/secret/t.csv"}}))
    assert "secret" not in text
    assert "my-base" in text and "t.csv" in text
    assert "huggingface.co" not in text
    assert not {"base_model", "datasets"} & set(front_matter(text))
    assert "# my-base-t.csv" in text, "a card for no repository is named after what it is made of"


def test_plots_stand_in_the_card_while_they_lie_beside_it(tmp_path: Path) -> None:
    support = dict.fromkeys(HOSTILE, 3)
    pairs = [Confusion(HOSTILE[0], HOSTILE[n], 1, 1 / 3) for n in range(1, 4)]
    drawn = figures.plots(support, pairs, [Bin(0.8, 0.9, 9, 0.85, 0.7)], [CoveragePoint(0.8, 1.0, 0.7)])
    assert set(drawn) == {"plots/confusions.svg", "plots/reliability.svg", "plots/coverage.svg"}
    for name, text in drawn.items():
        svg = ElementTree.fromstring(text.encode())  # well-formed, whatever the labels hold
        assert svg.tag == "{http://www.w3.org/2000/svg}svg" and svg.get("aria-label")
        tags = {one.tag.rpartition("}")[2] for one in svg.iter()}
        assert tags <= {"svg", "style", "rect", "line", "polyline", "circle", "text", "title"}, name
        (tmp_path / "plots").mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    model = dataclasses.replace(artifact(), folder=tmp_path)
    assert all(f"]({name})" in card.render(model) for name in drawn)
    (tmp_path / "plots" / "coverage.svg").unlink()
    assert "coverage.svg" not in card.render(model) and "plots/" not in card.render(artifact())
    assert set(figures.plots(support, None, [Bin(0.8, 0.9, 9, 0.85, 0.7)], None)) == {"plots/reliability.svg"}


def test_a_model_without_facts_still_has_a_card() -> None:
    bare = folder.Artifact(Path("x"), LabelSet(("no", "yes")), {"max_position_embeddings": 512}, None)
    text = card.render(bare)
    assert "**no** or **yes**" in text
    assert "None are recorded" in text
    assert "model-index" not in front_matter(text)
    huggingface_hub.ModelCard(text)


def test_numbers_that_are_none_are_left_out() -> None:
    text = card.render(artifact(metrics={"test": {"accuracy": float("nan"), "mcc": 0.5, "macro_f1": None, "rows": 3}}))
    metrics = front_matter(text)["model-index"][0]["results"][0]["metrics"]
    assert [metric["type"] for metric in metrics] == ["matthews_correlation"]
    assert "nan" not in text


def test_damaged_figures_are_left_out() -> None:
    facts = folder.Facts(
        max_length=64,
        metrics={"test": {"accuracy": 0.5, "ece": 0.1}},
        baselines=[{"name": "tfidf", "rows": 3, "seconds": 1.0, "metrics": {"test": 5}}],
        calibration={"temperature": "hot", "before": {"test": 3}},
        intervals={"test": {"accuracy": 7}},
    )
    text = card.render(folder.Artifact(Path("model"), LabelSet(("a", "b")), {}, facts))
    assert "| accuracy | 0.5000 |" in text and "Beside it" not in text and "not calibrated" in text


def test_card_gives_intervals_and_says_what_a_score_is_worth() -> None:
    calibrated = artifact(
        metrics={"test": {"accuracy": 0.9235, "ece": 0.0123}},
        intervals={"test": {"accuracy": {"low": 0.91, "high": 0.935}, "ece": "odd"}},
        calibration={"temperature": 1.25, "before": {"test": {"ece": 0.0456}}},
    )
    text = card.render(calibrated)
    assert "| accuracy | 0.9235 (0.9100 to 0.9350) |" in text and "| expected calibration error | 0.0123 |" in text
    assert "temperature 1.25" in text and "0.0123 off on average" in text and "0.0456 before" in text
    assert "not calibrated" not in text
    odd = card.render(artifact(intervals={"test": 3}, calibration={"temperature": "hot", "before": [1]}))
    assert "not calibrated" in odd and "| accuracy | 0.9235 | 0.9500 |" in odd
