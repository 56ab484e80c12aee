"""The model that comes with textclf: what it is, where its name is taken, and what it may have learnt from."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
import yaml
from transformers import AutoModel, AutoTokenizer, BertModel

from textclf import pretrained
from textclf.artifact import card, folder
from textclf.artifact.hub import fetch, fetch_tokenizer
from textclf.config import ModelConfig
from textclf.errors import ModelError
from textclf.labels import LabelSet
from textclf.model.backbone import pretrained_pooling
from textclf.training.finetuning import resolve

ROOT = Path(__file__).parents[1]
Cli = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="module")
def mini() -> Path:
    found = pretrained.folder(pretrained.NAME)
    assert found is not None
    return found


def test_it_is_a_plain_small_hugging_face_folder(mini: Path) -> None:
    assert sum(path.stat().st_size for path in mini.rglob("*") if path.is_file()) <= 24_000_000
    model, loading = AutoModel.from_pretrained(mini, output_loading_info=True)
    assert type(model) is BertModel and model.dtype == torch.float32
    assert not any(loading.values()), loading
    tokenizer = AutoTokenizer.from_pretrained(mini)
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.tokenize("Where is my PARCEL?") == ["where", "is", "my", "parcel", "?"]
    assert pretrained_pooling(mini) == "mean"


def test_it_says_where_it_comes_from(mini: Path) -> None:
    provenance = json.loads((mini / "provenance.json").read_text(encoding="utf-8"))
    assert provenance["base_model"] == pretrained.BASE
    for name, digest in provenance["sha256"].items():
        assert hashlib.sha256((mini / name).read_bytes()).hexdigest() == digest, name
    assert not any(re.search("test|valid|tweet", name) for name in provenance["corpus_sha256"])
    text = (mini / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == pretrained.LICENSE.lower() and front["base_model"] == pretrained.BASE
    assert "Apache License" in text


def test_its_name_is_taken_before_a_folder_of_that_name(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / pretrained.NAME).mkdir()
    monkeypatch.chdir(tmp_path)
    assert fetch(pretrained.NAME).folder == fetch_tokenizer(pretrained.NAME) == mini
    assert fetch(pretrained.NAME).revision == pretrained.REVISION
    assert ModelConfig().name == pretrained.NAME
    with pytest.raises(ModelError, match=r"no config\.json"):
        fetch(Path(pretrained.NAME))
    assert resolve(Path(pretrained.NAME), "x.csv").model.name == str(tmp_path / pretrained.NAME)


def test_it_is_no_finished_classifier(cli: Cli) -> None:
    done = cli("predict", pretrained.NAME, input="a text\n")
    assert done.returncode == 4, done.stderr
    assert "finetune" in done.stderr and "Traceback" not in done.stderr


def test_quickstart_needs_nothing_else_and_shows_the_way_to_a_larger_model(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "my run"
    same = ["--preset", "quickstart", "--test-size", "0.3", "--drop-leaks", "train"]
    done = cli("finetune", *same, "--fast", "--out", out)
    assert done.returncode == 0, done.stderr
    larger = shlex.split(done.stderr.strip().splitlines()[-1])
    assert larger == ["textclf", "finetune", "--model", pretrained.BASE, *same]
    assert any(
        shlex.split(line) == ["textclf", "eval", str(out)] for line in done.stderr.splitlines() if "eval" in line
    )
    said = next(line for line in done.stderr.splitlines() if "a larger model" in line)
    assert all(f"{name} {added:+.1f}" in said for name, added in pretrained.GAINS.items())
    answer = cli("predict", out, input="where is my parcel?\n")
    assert answer.returncode == 0 and answer.stdout.startswith("order_status\t"), answer
    text = (out / "model" / "README.md").read_text(encoding="utf-8")
    front = yaml.safe_load(text.split("---")[1])
    assert front["base_model"] == pretrained.BASE and front["base_model_relation"] == "finetune"
    assert "It is textclf-mini fine-tuned" in text and "made from [" in text
    assert f"base model ({pretrained.LICENSE})" in text


def test_a_folder_of_that_name_is_not_taken_for_it_in_a_card(tmp_path: Path) -> None:
    facts = folder.Facts(max_length=64, base_model=pretrained.NAME, base_revision=None)
    text = card.render(folder.Artifact(tmp_path, LabelSet(("a", "b")), {}, facts))
    assert pretrained.BASE not in text and "base_model" not in yaml.safe_load(text.split("---")[1])


def test_what_a_larger_model_adds_is_what_was_measured() -> None:
    rows = re.findall(
        r"^\| (\S+) \|.*\| ([+-][\d.]+) \|$", (ROOT / "docs/explanation/textclf-mini.md").read_text(), re.MULTILINE
    )
    assert {name: float(points) for name, points in rows} == pretrained.GAINS
