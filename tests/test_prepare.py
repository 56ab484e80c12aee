"""textclf.prepare and `textclf prepare`: splits, the cache, what is reported, and how it is shown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import textclf
from textclf.config import DataConfig
from textclf.errors import ConfigError, DataError, UsageError

SHARED = Path(__file__).parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the folder of real data sets is not beside the repository"
)


def write_csv(path: Path, pairs) -> Path:
    import csv

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *pairs])
    return path


def pairs(count: int = 200, labels: str = "abcd") -> list[tuple[str, str]]:
    """Grouped by label, as real files often are."""
    return sorted(((f"text {i}", labels[i % len(labels)]) for i in range(count)), key=lambda pair: pair[1])


@pytest.fixture
def tickets(tmp_path) -> Path:
    return write_csv(tmp_path / "tickets.csv", pairs())


def all_rows(prepared):
    return {
        split: list(zip(prepared.rows(split).texts, prepared.rows(split).labels, strict=True))
        for split in prepared.splits
    }


# --- splits -----------------------------------------------------------------------------------------------------


def test_missing_splits_are_cut_from_train_without_loss(tickets):
    prepared = textclf.prepare(tickets)
    assert prepared.splits == {"train": 160, "validation": 20, "test": 20}
    rows = all_rows(prepared)
    assert sorted(pair for part in rows.values() for pair in part) == sorted(pairs())
    assert set(prepared.label_counts["validation"].values()) == {5}


def test_sizes_may_be_rows_and_test_may_be_forgone(tickets):
    prepared = textclf.prepare(tickets, validation_size=32, test_size=0)
    assert prepared.splits == {"train": 168, "validation": 32}
    with pytest.raises(UsageError, match="no test split; it has train, validation"):
        prepared.rows("test")


def test_splits_of_the_source_are_kept_as_they_are(tmp_path):
    write_csv(tmp_path / "d/train.csv", [*pairs(40), ("", "a"), ("  ", "b")])
    write_csv(tmp_path / "d/test.csv", [("t", "a"), ("", "b"), ("t", "a"), ("text 1", "c")])
    prepared = textclf.prepare(tmp_path / "d")
    assert prepared.rows("test").texts == ["t", "", "t", "text 1"]
    assert prepared.splits["train"] + prepared.splits["validation"] == 40
    assert [(d.split, d.rows, d.reason) for d in prepared.dropped] == [("train", 2, "empty text")]
    assert any(
        "test with an empty text" in finding.message and "row 2" in finding.message for finding in prepared.findings
    )


def test_copies_of_a_text_are_never_on_both_sides_of_a_cut(tmp_path):
    repeated = [(f"text {i % 60}", "ab"[i % 2]) for i in range(300)]
    prepared = textclf.prepare(write_csv(tmp_path / "t.csv", repeated))
    rows = {split: {text for text, _ in part} for split, part in all_rows(prepared).items()}
    assert not rows["train"] & rows["validation"]
    assert not rows["train"] & rows["test"]
    assert not rows["validation"] & rows["test"]


def test_sample_is_drawn_before_splits_are_cut(tickets):
    prepared = textclf.prepare(tickets, max_rows=100)
    assert sum(prepared.splits.values()) == 100
    assert len(prepared.label_set) == 4


def test_rare_labels_are_dropped_from_every_split_and_counted(tmp_path):
    write_csv(tmp_path / "d/train.csv", [*pairs(40), ("r1", "rare"), ("r2", "rare"), ("s", "rarer")])
    write_csv(tmp_path / "d/test.csv", [("t", "a"), ("u", "rare"), ("v", "unseen")])
    prepared = textclf.prepare(tmp_path / "d", min_label_count=3)
    assert prepared.label_set.names == ("a", "b", "c", "d")
    assert prepared.splits["test"] == 1
    assert [(d.split, d.rows) for d in prepared.dropped] == [("train", 3), ("test", 2)]
    assert any("dropped 2 of 6 labels" in step for step in prepared.steps)


def test_catalog_count_gives_way_to_the_users(tickets, monkeypatch):
    import dataclasses

    from textclf.data import preparation, sources

    def from_catalog(dataset):
        return dataclasses.replace(sources.open_source(dataset), min_label_count=51)

    monkeypatch.setattr(preparation, "open_source", from_catalog)
    with pytest.raises(textclf.TextclfError, match="no label has 51 rows"):
        textclf.prepare(tickets)
    assert len(textclf.prepare(tickets, min_label_count=1).label_set) == 4


def test_integer_labels_are_in_the_order_of_numbers(tmp_path):
    path = write_csv(tmp_path / "t.csv", [(f"text {i}", str(i % 12)) for i in range(240)])
    assert textclf.prepare(path).label_set.names == tuple(map(str, range(12)))


# --- the cache --------------------------------------------------------------------------------------------------


def test_second_run_starts_from_the_cache_with_the_same_result(tickets):
    first = textclf.prepare(tickets)
    again = textclf.prepare(DataConfig(dataset=str(tickets)))
    assert (first.from_cache, again.from_cache) == (False, True)
    import dataclasses

    assert dataclasses.replace(again, from_cache=False) == first


@pytest.mark.parametrize("settings", [{"seed": 1}, {"validation_size": 0.2}, {"max_rows": 150}, {"min_label_count": 2}])
def test_other_settings_prepare_anew(tickets, settings):
    first = textclf.prepare(tickets)
    other = textclf.prepare(tickets, **settings)
    assert not other.from_cache
    assert other.folder != first.folder


def test_changed_data_prepare_anew(tickets):
    first = textclf.prepare(tickets)
    write_csv(tickets, [*pairs(), ("one more", "a")])
    other = textclf.prepare(tickets)
    assert not other.from_cache
    assert sum(other.splits.values()) == sum(first.splits.values()) + 1


def test_damaged_cache_is_made_anew(tickets, caplog):
    first = textclf.prepare(tickets)
    before = all_rows(first)
    (first.folder / "train.parquet").write_bytes(b"PAR1 broken PAR1")
    again = textclf.prepare(tickets)
    assert not again.from_cache
    assert "damaged" in caplog.text
    assert all_rows(again) == before
    (first.folder / "MANIFEST.json").unlink()
    assert not textclf.prepare(tickets).from_cache


def test_fingerprint_is_of_the_content_alone(tmp_path, tickets):
    same = write_csv(tmp_path / "elsewhere" / "other-name.csv", pairs())
    assert textclf.prepare(same).fingerprint == textclf.prepare(tickets).fingerprint
    assert textclf.prepare(same).name == "other-name.csv"
    changed = write_csv(
        tmp_path / "changed.csv", [(text, {"a": "b", "b": "a"}.get(label, label)) for text, label in pairs()]
    )
    assert textclf.prepare(changed).fingerprint != textclf.prepare(tickets).fingerprint
    moved = write_csv(tmp_path / "moved.csv", [(text + "x", label) for text, label in pairs()])
    assert textclf.prepare(moved).fingerprint != textclf.prepare(tickets).fingerprint


def test_unknown_setting_is_refused(tickets):
    with pytest.raises(ConfigError, match="test_siz"):
        textclf.prepare(tickets, test_siz=0.1)


def test_rows_know_their_file_and_record(tickets):
    rows = textclf.prepare(tickets).rows("validation")
    source = pairs()
    for index in range(len(rows)):
        file, _, number = rows.where(index).partition(", row ")
        assert file == "tickets.csv"
        assert source[int(number) - 1] == (rows.texts[index], rows.labels[index])


# --- what is found ----------------------------------------------------------------------------------------------


@needs_shared
def test_leak_between_train_and_test_of_hate_is_found():
    prepared = textclf.prepare(SHARED / "tweet_eval_hate")
    assert prepared.splits == {"train": 8993, "validation": 1000, "test": 2970}
    leak = next(f.message for f in prepared.findings if "of test are exact copies" in f.message)
    assert leak.startswith("233 of the 2,970 rows of test")
    assert "91 of them under another label" in leak
    assert any(f.message.startswith("1 row of validation with an empty text") for f in prepared.findings)


def test_findings_name_conflicts_lookalikes_and_lone_labels(tmp_path):
    data = [*pairs(), ("text 0", "b"), ("x", "Lone"), ("y", "lone ")]
    found = " | ".join(f.message for f in textclf.prepare(write_csv(tmp_path / "t.csv", data)).findings)
    assert "2 rows of train with a text that stands under another label" in found
    assert "'Lone', 'lone '" in found
    assert "2 labels with only one row in train" in found


def test_label_without_a_row_in_a_split_is_said(tmp_path):
    write_csv(tmp_path / "d/train.csv", pairs(40))
    write_csv(tmp_path / "d/test.csv", [("t", "a"), ("u", "b")])
    found = " | ".join(f.message for f in textclf.prepare(tmp_path / "d").findings)
    assert "2 labels without a row in test: 'c', 'd'" in found


def test_lopsided_train_is_said(tmp_path):
    data = [(f"text {i}", "yes" if i % 20 else "no") for i in range(400)]
    found = textclf.prepare(write_csv(tmp_path / "t.csv", data)).findings
    assert any("95.0% of train has one label" in f.message for f in found)


# --- the command ------------------------------------------------------------------------------------------------


KEYS = [
    "dataset", "revision", "folder", "fingerprint", "from_cache", "form", "text_column",
    "text_pair_column", "label_column", "labels", "kind", "splits", "labels_per_row", "label_counts", "dropped",
    "findings", "steps", "token_lengths",
]  # fmt: skip


def test_json_is_one_document_with_pinned_keys(cli, tickets):
    finished = cli("prepare", "--dataset", tickets, "--test-size", "0", "--json")
    assert finished.returncode == 0
    document = json.loads(finished.stdout)
    assert list(document) == KEYS
    assert document["splits"] == {"train": 180, "validation": 20}
    assert document["labels"] == ["a", "b", "c", "d"]
    assert document["token_lengths"] is None


def test_summary_is_on_stdout_and_notes_and_the_next_command_on_stderr(cli, tickets):
    finished = cli("prepare", "-d", tickets, "--min-label-count", "2")
    assert "tickets.csv" in finished.stdout
    assert "train" in finished.stdout
    assert "cut 20 rows off train for test" in finished.stderr
    assert f"textclf finetune --dataset {tickets} --min-label-count 2" in finished.stderr
    quiet = cli("prepare", "-d", tickets, "--quiet")
    assert quiet.stderr == ""


def test_hostile_label_and_column_names_reach_the_terminal_harmless(cli, tmp_path):
    labels = ["[/foo]", "[bold red]x", "\x1b[31mred\x07", "\u202egnp.exe", "😀:smile:"]
    rows = "".join(f'"text {i}","{labels[i % 5]}"\n' for i in range(100))
    (tmp_path / "t.csv").write_text('"te\x1bxt","[label]"\n' + rows, encoding="utf-8")
    finished = cli("prepare", "-d", tmp_path / "t.csv", "--text-column", "te\x1bxt", "--label-column", "[label]")
    assert finished.returncode == 0, finished.stderr
    shown = finished.stdout + finished.stderr
    assert "[/foo]" in shown
    assert "[bold red]x" in shown
    assert "\\x1b[31mred\\x07" in shown
    assert not set("\x1b\x07\u202e") & set(shown)


def test_many_labels_do_not_flood_the_terminal(cli, tmp_path):
    data = [(f"text {i}", f"label {i % 77}") for i in range(770)]
    finished = cli("prepare", "-d", write_csv(tmp_path / "t.csv", data))
    assert len(finished.stdout.splitlines()) < 20
    assert "most frequent" in finished.stdout
    assert "rarest" in finished.stdout


def test_model_adds_token_lengths(cli, tickets, minilm):
    finished = cli("prepare", "-d", tickets, "--model", minilm, "--json")
    lengths = json.loads(finished.stdout)["token_lengths"]
    assert lengths["texts"] == 160
    assert lengths["p50"] <= lengths["p99"] <= lengths["max"] < 10


def test_token_lengths_say_what_a_max_length_would_cut():
    from textclf.cli.prepare import _length_lines

    shown = " ".join(line.plain for line in _length_lines(np.arange(1, 201)))
    assert "half up to 101, 90% 181, 95% 191, 99% 199, longest 200" in shown
    assert "84.0% at 32, 68.0% at 64, 36.0% at 128" in shown


def test_without_dataset_the_command_says_what_it_needs(cli):
    finished = cli("prepare")
    assert finished.returncode == 2
    assert "--dataset banking77" in finished.stderr


def test_bad_option_value_exits_2(cli, tickets):
    finished = cli("prepare", "-d", tickets, "--validation-size", "1.5")
    assert finished.returncode == 2
    assert "validation_size is 1.5" in finished.stderr


def test_headerless_file_by_columns_option(cli, tmp_path):
    (tmp_path / "t.csv").write_text("".join(f"{i},{'ab'[i % 2]},text {i}\n" for i in range(40)))
    finished = cli("prepare", "-d", tmp_path / "t.csv", "--columns", "id,label,text", "--json", "--test-size", "4")
    assert json.loads(finished.stdout)["splits"] == {"train": 32, "validation": 4, "test": 4}


def test_preparing_does_not_need_torch_or_datasets(tickets):
    heavy = "[name for name in ('torch', 'datasets', 'sklearn') if name in sys.modules]"
    code = f"import sys, textclf; textclf.prepare({str(tickets)!r}); print({heavy})"
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert finished.stdout.strip() == "[]"


def test_set_in_the_cache_of_datasets_works_offline(cli, tmp_path):
    """A stand-in for what `load_dataset("owner/tickets", "small")` leaves behind."""
    import datasets

    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["z", "a"])})
    rows = {"text": [f"t{i}" for i in range(40)], "label": list(np.arange(40) % 2)}
    train = datasets.Dataset.from_dict(rows, features=features)
    folder = tmp_path / "datasets" / "owner___tickets" / "small" / "0.0.0" / ("b" * 40)
    folder.mkdir(parents=True)
    train.save_to_disk(tmp_path / "saved")
    next((tmp_path / "saved").glob("data-*.arrow")).rename(folder / "tickets-train.arrow")
    address = f"hf://datasets/owner/tickets@{'b' * 40}/train.parquet"
    info = {
        "builder_name": "parquet", "dataset_name": "tickets", "config_name": "small",
        "version": {"version_str": "0.0.0"},
        "features": json.loads((tmp_path / "saved" / "dataset_info.json").read_text())["features"],
        "splits": {"train": {"name": "train", "num_bytes": 1, "num_examples": 40, "dataset_name": "tickets"}},
        "download_checksums": {address: {"num_bytes": 1, "checksum": None}},
    }  # fmt: skip
    (folder / "dataset_info.json").write_text(json.dumps(info))
    env = {"HF_DATASETS_CACHE": str(tmp_path / "datasets"), "HF_HUB_OFFLINE": "1"}
    finished = cli("prepare", "-d", "owner/tickets:small", "--json", env=env)
    assert finished.returncode == 0, finished.stderr
    document = json.loads(finished.stdout)
    assert document["labels"] == ["z", "a"]
    assert document["revision"] == "b" * 40
    assert document["dataset"] == "owner/tickets:small"
    again = json.loads(cli("prepare", "-d", "owner/tickets:small", "--json", env=env).stdout)
    assert again["from_cache"]
    unknown = cli("prepare", "-d", "owner/tickets:large", env=env)
    assert unknown.returncode == 5


def test_what_is_wrong_with_a_whole_split_names_the_data_set(tmp_path: Path) -> None:
    path = tmp_path / "lonely.csv"
    path.write_text("text,label\n" + "".join(f"text {n},a\n" for n in range(20)))
    with pytest.raises(DataError, match=r"lonely\.csv: .*one label"):
        textclf.prepare(path)
