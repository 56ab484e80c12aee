"""The main job as a user types it, from the Hub and back to it, against the stand-in."""

from __future__ import annotations

import csv
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

import tiny_models
from hub_stand_in import WRITE_TOKEN, HubStandIn

Cli = Callable[..., CompletedProcess[str]]
README = Path(__file__).parents[1] / "README.md"
NAMES = ("card_arrival", "Refund_not_showing_up", "passcode_forgotten")
"""Three labels in an order that is not alphabetical, as ClassLabel has it on the Hub."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubStandIn]:
    with HubStandIn() as stand_in:
        base = tiny_models.pretrained(tmp_path / "distilbert", "distilbert")
        stand_in.add_model("distilbert/distilbert-base-uncased", base, aliases=("distilbert-base-uncased",))
        stand_in.add_dataset(
            "legacy-datasets/banking77",
            {
                "data/train-00000-of-00001.parquet": _parquet(150, 0),
                "data/test-00000-of-00001.parquet": _parquet(30, 1),
            },
        )
        stand_in.add_dataset("owner/open", {"data/train-00000-of-00001.parquet": _parquet(60, 2)})
        yield stand_in


def _parquet(count: int, seed: int) -> bytes:
    rows = tiny_models.rows(count, seed=seed)
    table = pyarrow.table({"text": [text for text, _ in rows], "label": ["abc".index(label) for _, label in rows]})
    features = {"text": {"dtype": "string", "_type": "Value"}, "label": {"names": list(NAMES), "_type": "ClassLabel"}}
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    return bytes(sink.getvalue())


def _readme_command() -> list[str]:
    found = re.search(
        r"^textclf finetune --model distilbert-base-uncased --dataset banking77$", README.read_text(), re.MULTILINE
    )
    assert found, "the README does not show the main job"
    return shlex.split(found[0])[1:]


def test_the_main_job_word_for_word_as_in_the_readme(hub: HubStandIn, cli: Cli, tmp_path: Path) -> None:
    environment = {
        **hub.environment(tmp_path / "hf", token=WRITE_TOKEN),
        "HF_HUB_OFFLINE": "0",
        "TEXTCLF_HOME": str(tmp_path / "home"),
    }

    done = cli(*_readme_command(), env=environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    run = json.loads(cli("runs", "list", "--json", env=environment).stdout)[0]["name"]
    assert run.startswith("banking77-distilbert-base-uncased-")
    commands = [line.strip() for line in done.stderr.split("next:")[1].strip().splitlines()]
    assert [shlex.split(line.split("|")[-1])[:2] for line in commands] == [
        ["textclf", "predict"],
        ["textclf", "eval"],
        ["textclf", "report"],
        ["textclf", "push"],
    ]

    scored = cli("eval", "--json", env=environment)
    report = json.loads(scored.stdout)
    assert (report["split"], report["dataset"], report["metrics"]["rows"]) == ("test", "banking77", 30)
    assert [row["label"] for row in report["per_label"]] == list(NAMES)

    answered = cli("predict", input="where is my card\nmy password\n", env=environment)
    assert [line.split("\t")[2] for line in answered.stdout.splitlines()] == ["where is my card", "my password"]

    pushed = cli("push", "alice/banking-intents", "--json", env=environment)
    assert pushed.returncode == 0, pushed.stderr
    files = hub.model("alice/banking-intents").files
    assert {"config.json", "model.safetensors", "tokenizer.json", "textclf.json", "README.md"} <= set(files)
    assert hub.model("alice/banking-intents").private
    front = files["README.md"].decode()
    assert "base_model: distilbert-base-uncased" in front and "legacy-datasets/banking77" in front

    # Somebody else, on another machine: the pushed model answers the same.
    elsewhere = {
        **environment,
        **hub.environment(tmp_path / "hf2", token=WRITE_TOKEN),
        "TEXTCLF_HOME": str(tmp_path / "other"),
    }
    again = cli("predict", "--model", "alice/banking-intents", input="where is my card\nmy password\n", env=elsewhere)
    assert again.stdout == answered.stdout, again.stderr
    offline = cli("predict", "--model", "alice/banking-intents", input="x\n", env={**elsewhere, "HF_HUB_OFFLINE": "1"})
    assert offline.returncode == 0, offline.stderr
    hub_logs = [request for request in hub.requests if "distilbert" in request.path and request.path.endswith(".bin")]
    assert not hub_logs


def test_hub_data_sets_by_id_and_offline_afterwards(hub: HubStandIn, cli: Cli, tmp_path: Path) -> None:
    environment = {**hub.environment(tmp_path / "hf"), "HF_HUB_OFFLINE": "0", "TEXTCLF_HOME": str(tmp_path / "home")}
    online = cli("prepare", "--dataset", "owner/open", "--json", env=environment)
    assert online.returncode == 0, online.stderr
    first = json.loads(online.stdout)
    assert (
        first["revision"]
        and sum(split["rows"] if isinstance(split, dict) else split for split in first["splits"].values()) == 60
    )
    offline = cli("prepare", "--dataset", "owner/open", "--json", env={**environment, "HF_HUB_OFFLINE": "1"})
    assert offline.returncode == 0, offline.stderr
    assert json.loads(offline.stdout)["fingerprint"] == first["fingerprint"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["prepare", "--dataset", "owner/nothing-here"], 5, "owner/nothing-here"),
        (["prepare", "--dataset", "bankin77"], 5, "banking77"),
        (["prepare", "--dataset", "missing/file.csv"], 3, "missing/file.csv"),
        (["finetune", "--model", "owner/no-such-model", "--dataset", "owner/open"], 5, "owner/no-such-model"),
        (["predict", "--model", "owner/no-such-model"], 5, "owner/no-such-model"),
    ],
)
def test_what_the_hub_does_not_have(
    hub: HubStandIn, cli: Cli, tmp_path: Path, arguments: list[str], code: int, said: str
) -> None:
    environment = {**hub.environment(tmp_path / "hf"), "HF_HUB_OFFLINE": "0", "TEXTCLF_HOME": str(tmp_path / "home")}
    done = cli(*arguments, input="x\n", env=environment)
    assert done.returncode == code, done.stderr
    assert said in done.stderr and "Traceback" not in done.stderr and done.stdout == ""


def test_no_network(cli: Cli, tmp_path: Path, tiny_csv: Path) -> None:
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
    for arguments in (["finetune", "-m", "owner/model", "-d", str(tiny_csv)], ["prepare", "-d", "owner/data"]):
        done = cli(*arguments, env=environment)
        assert done.returncode == 5, done.stderr
        assert "Traceback" not in done.stderr and done.stderr.count("error:") == 1


class TestAcrossCommands:
    """predict, eval and finetune say the same about the same texts."""

    @pytest.fixture(scope="class")
    @staticmethod
    def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
        folder = tmp_path_factory.mktemp("trained")
        data = folder / "tickets.csv"
        with data.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "label"])
            writer.writerows(tiny_models.rows(200))
        import textclf

        base = tiny_models.pretrained(folder / "tiny-bert")
        run = textclf.finetune(base, data, out=folder / "run", epochs=10, batch_size=8, learning_rate=2e-3)
        return {"run": run, "data": data}

    def test_predict_counts_as_eval_does(self, cli: Cli, trained: dict[str, Any], tmp_path: Path) -> None:
        import textclf

        run = trained["run"]
        rows = textclf.prepare(trained["data"]).rows("test")
        texts = "".join(f"{text}\n" for text in rows.texts)
        answers = cli("predict", run.folder, input=texts)
        labels = [line.split("\t")[0] for line in answers.stdout.splitlines()]
        report = json.loads(cli("eval", run.folder, "--json").stdout)
        right = sum(a == b for a, b in zip(labels, rows.labels, strict=True))
        assert right / len(labels) == report["metrics"]["accuracy"] == run.metrics["test"]["accuracy"]
        assert (run.folder / "eval/test.json").is_file()

    def test_gates(self, cli: Cli, trained: dict[str, Any]) -> None:
        folder = trained["run"].folder
        assert cli("eval", folder, "--fail-under", "accuracy=0", "--fail-under", "loss=99").returncode == 0
        failed = cli("eval", folder, "--fail-under", "accuracy=1.01", "--fail-under", "loss=0.0", "--json")
        assert failed.returncode == 10
        assert "accuracy is" in failed.stderr and "loss is" in failed.stderr
        assert json.loads(failed.stdout)["metrics"]["rows"] > 0, "the figures are given all the same"
        for wrong in ("acuracy=0.9", "accuracy=high", "accuracy", "absent_labels=1"):
            assert cli("eval", folder, "--fail-under", wrong).returncode == 2

    def test_another_data_set(self, cli: Cli, trained: dict[str, Any], tmp_path: Path) -> None:
        other = tmp_path / "other.csv"
        other.write_text("words,kind\nthe card,a\nmy refund,b\nthe parcel,a\n")
        done = cli(
            "eval",
            trained["run"].folder,
            "--dataset",
            other,
            "--text-column",
            "words",
            "--label-column",
            "kind",
            "--json",
        )
        report = json.loads(done.stdout)
        assert report["metrics"]["rows"] == 3 and report["metrics"]["absent_labels"] == ["c"]
        other.write_text("text,label\nthe card,a\nmy refund,b\n")
        shown = cli("eval", trained["run"].folder, "--dataset", other)
        assert "macro averages are over 2 of 3 labels" in shown.stderr and "c" in shown.stderr

    def test_labels_that_the_model_does_not_know(self, cli: Cli, trained: dict[str, Any], tmp_path: Path) -> None:
        other = tmp_path / "other.csv"
        other.write_text("text,label\nthe card,a\nwho?,[/nobody]\n")
        done = cli("eval", trained["run"].folder, "--dataset", other)
        assert done.returncode == 3
        assert "other.csv, row 2: label '[/nobody]'" in done.stderr

    def test_a_model_folder_alone_needs_a_data_set(self, cli: Cli, trained: dict[str, Any], tmp_path: Path) -> None:
        import shutil

        shutil.copytree(trained["run"].model_folder, tmp_path / "alone")
        done = cli("eval", tmp_path / "alone")
        assert done.returncode == 2 and "--dataset" in done.stderr
        assert cli("eval", tmp_path / "alone", "--dataset", trained["data"], "--json").returncode == 0
