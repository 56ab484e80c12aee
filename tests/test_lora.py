"""LoRA: adapters learn, the rest stays, and what is saved is a plain model, and the adapters alone beside it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, pipeline

import textclf
import tiny_models
from hub_stand_in import HubStandIn
from resuming import same_weights, stop_and_resume
from textclf.artifact import runs
from textclf.errors import ConfigError, MissingExtraError
from textclf.labels import LabelSet
from textclf.model.classifier import Classifier
from textclf.model.tokenizer import load_tokenizer

FAST: dict[str, Any] = {"epochs": 1, "batch_size": 16, "precision": "fp32", "probe": False}
pytestmark = pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # peft asks
TEXTS = ["where is my card", "a", "I want my money back " * 30]


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch, tiny_base: Path, tiny_csv: Path) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"textclf\[lora\]"):
        textclf.finetune(tiny_base, tiny_csv, lora=4)
    with pytest.raises(ConfigError, match="at least 1"):
        textclf.finetune(tiny_base, tiny_csv, lora=0)


@pytest.mark.parametrize("head", ["own", "attention"])
@pytest.mark.usefixtures("no_graph")
def test_what_is_saved_is_a_plain_model(head: str, tiny_base: Path, tiny_csv: Path) -> None:
    pytest.importorskip("peft")
    said: list[str] = []
    run = textclf.finetune(
        tiny_base, tiny_csv, head=head, lora=4, freeze=1, on_event=lambda event: said.append(str(event)), **FAST
    )
    assert (run.folder / "adapter").exists() == (head == "own") != any("no adapter/" in one for one in said)
    prefix = {"own": "bert.", "attention": "backbone."}[head]
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_base, run.model_folder))
    assert not any("lora" in name for name in after)
    moved = {name for name, old in before.items() if not torch.equal(old, after.get(prefix + name, old))}
    assert moved and all(".layer.1." in name and name.endswith("weight") for name in moved - POOLER)
    assert not any("adapter" in file.name for file in run.model_folder.iterdir())
    probs = textclf.load(run, runtime="torch").predict_proba(TEXTS)
    assert textclf.evaluate(run, runtime="torch").metrics.accuracy == run.metrics["test"]["accuracy"]
    if head == "own":
        classify = pipeline("text-classification", str(run.model_folder), top_k=None, device="cpu")
        rows = [{one["label"]: one["score"] for one in row} for row in classify(TEXTS, truncation=True)]
        assert np.allclose([[row[label] for label in "abc"] for row in rows], probs, atol=1e-5)
        assert json.loads((run.model_folder / "config.json").read_text())["model_type"] == "bert"


POOLER = {"pooler.dense.weight", "pooler.dense.bias"}


def _by_peft(adapter: Path, ids: torch.Tensor, mask: torch.Tensor, **said: Any) -> torch.Tensor:
    """Logits (batch, num_labels) of what peft makes of an adapter and its base model. said: as of the base's config."""
    from peft import AutoPeftModelForSequenceClassification

    model = AutoPeftModelForSequenceClassification.from_pretrained(str(adapter), **said).eval()
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask).logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
@pytest.mark.usefixtures("no_graph")
def test_the_adapter_alone_gives_through_peft_what_the_model_gives(
    architecture: str, tmp_path: Path, tiny_csv: Path
) -> None:
    pytest.importorskip("peft")
    base = tiny_models.pretrained(tmp_path / "base", architecture)
    run = textclf.finetune(base, tiny_csv, out=tmp_path / "run", head="own", lora=4, freeze=1, **FAST)
    adapter = run.folder / "adapter"
    assert {file.name for file in adapter.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}
    said = json.loads((adapter / "adapter_config.json").read_text())
    assert (said["task_type"], said["r"], said["lora_alpha"]) == ("SEQ_CLS", 4, 8)
    assert said["base_model_name_or_path"] == str(base) and said["revision"] is None
    assert (adapter / "adapter_model.safetensors").stat().st_size < 60_000
    merged = AutoModelForSequenceClassification.from_pretrained(run.model_folder).eval()
    tokenizer = load_tokenizer(run.model_folder)
    batch = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    ids, mask = batch["input_ids"], batch["attention_mask"]
    with torch.no_grad():
        logits = merged(input_ids=ids, attention_mask=mask).logits
    labels = {"id2label": merged.config.id2label, "label2id": merged.config.label2id}
    alone = _by_peft(adapter, ids, mask, pad_token_id=tokenizer.pad_token_id, **labels)
    assert torch.allclose(alone, logits, atol=1e-5)
    base_alone = AutoModelForSequenceClassification.from_pretrained(base, **labels, pad_token_id=tokenizer.pad_token_id)
    with torch.no_grad():
        assert not torch.allclose(base_alone.eval()(input_ids=ids, attention_mask=mask).logits, logits, atol=1e-3)
    runs.remove(run)
    assert not run.folder.exists()


@pytest.mark.parametrize("architecture", ["distilbert", "deberta-v2", "modernbert", "albert", "gpt2", "qwen3", "t5"])
def test_adapters_fit_and_leave_no_trace(architecture: str, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    base = tiny_models.pretrained(tmp_path / architecture, architecture)
    classifier = Classifier.from_pretrained(base, LabelSet(("a", "b", "c")), load_tokenizer(base)).eval()
    names = [name for name, _ in classifier.named_parameters()]
    ids = torch.randint(10, 50, (2, 8), generator=torch.Generator().manual_seed(0))
    ids[:, -1] = classifier.network.config.eos_token_id if architecture == "t5" else 20
    with torch.no_grad():
        before = classifier.logits(ids, torch.ones_like(ids))
        classifier.add_lora(4)
        assert torch.allclose(classifier.logits(ids, torch.ones_like(ids)), before, atol=1e-6)
    learning = {name for name, parameter in classifier.named_parameters() if parameter.requires_grad}
    assert classifier.head_parameters() <= learning
    assert all("lora_" in name or name in classifier.head_parameters() for name in learning)
    with torch.no_grad():
        for name, parameter in classifier.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.5)
    classifier.save_lora(tmp_path, base=str(base), revision=None)
    said = {"num_labels": 3, "pad_token_id": classifier.pad_id}
    with torch.no_grad():
        learnt = classifier.logits(ids, torch.ones_like(ids))
        assert torch.allclose(_by_peft(tmp_path, ids, torch.ones_like(ids), **said), learnt, atol=1e-5)
        classifier.merge_lora()
        merged = classifier.logits(ids, torch.ones_like(ids))
    assert not torch.allclose(learnt, before, atol=1e-3) and torch.allclose(learnt, merged, atol=1e-4)
    assert [name for name, _ in classifier.named_parameters()] == names


@pytest.mark.usefixtures("no_graph")
def test_a_run_with_adapters_resumes_bit_for_bit(tmp_path: Path, tiny_base: Path, tiny_csv: Path) -> None:
    pytest.importorskip("peft")
    settings = {**FAST, "lora": 4, "eval_every": 2}
    unbroken = textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "unbroken", **settings)
    _, resumed = stop_and_resume(tiny_base, tiny_csv, tmp_path / "stopped", stop_at=3, **settings)
    assert same_weights(unbroken, resumed)


OF_THE_HUB = """
import sys
import textclf
from peft import AutoPeftModelForSequenceClassification
from textclf.training import finishing
finishing.write_graph = lambda *rest: None
run = textclf.finetune("acme/tiny-bert", sys.argv[1], head="own", lora=4, epochs=1, probe=False)
AutoPeftModelForSequenceClassification.from_pretrained(str(run.folder / "adapter"), num_labels=3)
print((run.folder / "adapter" / "adapter_config.json").read_text())
"""


def test_an_adapter_names_a_base_of_the_hub_and_its_commit(tmp_path: Path, tiny_base: Path, tiny_csv: Path) -> None:
    pytest.importorskip("peft")
    with HubStandIn() as hub:
        hub.add_model("acme/tiny-bert", tiny_base)
        done = subprocess.run(
            [sys.executable, "-c", OF_THE_HUB, str(tiny_csv)],
            capture_output=True,
            text=True,
            env={**os.environ, **hub.environment(tmp_path)},
        )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["base_model_name_or_path"] == "acme/tiny-bert" and len(said["revision"]) == 40
    assert str(tmp_path) not in done.stdout
