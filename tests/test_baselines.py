"""Simpler answers beside every model: in run.json, --json, the last table and the card; --no-baselines."""

from __future__ import annotations

import json

import pytest

import textclf
import tiny_models
from textclf.artifact import folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    base = tiny_models.pretrained(tmp_path_factory.mktemp("base") / "tiny-bert")
    path = tmp_path_factory.mktemp("data") / "tickets.csv"
    # Twice as many rows of `a`, so that the most frequent label is known.
    rows = [
        *tiny_models.rows(150),
        *((text + " more", label) for text, label in tiny_models.rows(150, seed=1) if label == "a"),
    ]
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("textclf.model.exporting.MAX_BYTES", 0)
        run = textclf.finetune(
            model=base, dataset=path, epochs=1, device="cpu", out=tmp_path_factory.mktemp("run") / "r"
        )
    return base, path, run


def test_baselines_stand_in_the_run_the_artifact_and_the_card(trained):
    _, _, run = trained
    beside = {one["name"]: one for one in run.document["baselines"]}
    assert list(beside) == ["majority", "tfidf", "probe"]
    for one in beside.values():
        assert list(one["metrics"]) == ["validation", "test"] and list(one["metrics"]["test"]) == [
            "accuracy",
            "macro_f1",
        ]
    assert beside["majority"]["metrics"]["test"]["accuracy"] == pytest.approx(0.5, abs=0.05)
    assert beside["tfidf"]["metrics"]["test"]["accuracy"] > 0.9
    artifact = folder.read(run.model_folder)
    assert artifact.facts.baselines == run.document["baselines"]
    card = (run.model_folder / folder.CARD).read_text()
    shown = beside["tfidf"]["metrics"]["test"]["accuracy"]
    assert f"| TF-IDF + linear | {shown:.4f} |" in card


def test_the_probe_is_what_training_began_with(trained):
    base, path, run = trained
    probe = textclf.finetune(
        model=base, dataset=path, epochs=0, device="cpu", baselines=False, out=run.folder.parent / "p"
    )
    beside = {one["name"]: one["metrics"] for one in run.document["baselines"]}["probe"]
    for split in ("validation", "test"):
        assert beside[split]["accuracy"] == probe.metrics[split]["accuracy"]


def test_the_last_table_and_json_hold_them_unless_asked_not_to(trained, tmp_path, cli, no_graph):
    base, path, _ = trained
    arguments = ("finetune", "-m", base, "-d", path, "--fast", "--device", "cpu")
    shown = cli(*arguments, "--out", tmp_path / "one")
    assert shown.returncode == 0, shown.stderr
    assert "TF-IDF + linear" in shown.stdout and "this model" in shown.stdout
    assert "frozen features" not in shown.stdout  # that is the model itself
    document = json.loads(cli(*arguments, "--out", tmp_path / "one", "--json").stdout)
    assert [one["name"] for one in document["baselines"]] == ["majority", "tfidf"]
    without = cli(*arguments, "--out", tmp_path / "two", "--no-baselines")
    assert without.returncode == 0 and "TF-IDF" not in without.stdout + without.stderr


def test_several_labels_and_texts_without_a_word(tmp_path, tiny_base, no_graph):
    path = tmp_path / "m.jsonl"
    with path.open("w") as file:
        for index in range(90):
            print(json.dumps({"text": "?!" + "." * index, "labels": [["a"], ["a", "b"], []][index % 3]}), file=file)
    run = textclf.finetune(model=tiny_base, dataset=path, epochs=0.5, device="cpu", out=tmp_path / "r")
    beside = {one["name"]: one["metrics"]["test"] for one in run.document["baselines"]}
    assert list(beside) == ["majority", "probe"] and list(beside["majority"]) == ["micro_f1", "macro_f1"]


def test_many_words_are_learnt_from_in_part_or_not_at_all(tmp_path, tiny_base, tiny_csv, no_graph, monkeypatch):
    monkeypatch.setattr("textclf.training.baselines.WORK", 1500)
    part = textclf.finetune(model=tiny_base, dataset=tiny_csv, epochs=0.2, device="cpu", out=tmp_path / "a")
    words = next(one for one in part.document["baselines"] if one["name"] == "tfidf")
    assert 6 <= words["rows"] < textclf.prepare(tiny_csv).splits["train"]
    monkeypatch.setattr("textclf.training.baselines.WORK", 10)
    none = textclf.finetune(model=tiny_base, dataset=tiny_csv, epochs=0.2, device="cpu", out=tmp_path / "b")
    assert "tfidf" not in [one["name"] for one in none.document["baselines"]]
