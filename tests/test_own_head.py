"""Heads that are code of the user's own: what they may do, where their code runs, and that every tool can open them."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import textclf
import tiny_models
from hub_stand_in import WRITE_TOKEN, HubStandIn
from resuming import same_weights, stop_and_resume
from textclf.artifact import publishing
from textclf.config import ModelConfig
from textclf.errors import ConfigError, ModelError, RefusedError, TextclfError, UsageError
from textclf.labels import LabelSet
from textclf.model import head_code
from textclf.model.classifier import Classifier
from textclf.model.tokenizer import load_tokenizer
from textclf.training.events import Event, Notice

FAST: dict[str, Any] = {"epochs": 1, "batch_size": 16, "precision": "fp32"}
TEXTS = ["where is my card", "a", "I want my money back " * 30]

LEARNT = """
import torch
from torch import nn

print_me = "a head with a table that no file holds, and layers of its own"

class Weighted(nn.Module):
    def __init__(self, hidden_size, num_labels):
        super().__init__()
        self.score = nn.Linear(hidden_size, 1)
        self.norm = nn.LayerNorm(hidden_size)
        self.drop = nn.Dropout(0.1)
        self.register_buffer("scale", torch.linspace(0.5, 2.0, hidden_size), persistent=False)
        self.plain = torch.arange(hidden_size) / hidden_size
        self.out = nn.Linear(hidden_size, num_labels)

    def forward(self, hidden, mask):
        scores = self.score(hidden).squeeze(-1).masked_fill(~mask, -1e9)
        weights = torch.softmax(scores, dim=1).unsqueeze(-1)
        pooled = (hidden * weights).sum(dim=1) * self.scale + self.plain.to(hidden)
        return self.out(self.drop(self.norm(pooled)))
"""

PLAIN = '''
import torch
from torch import nn

class MeanMax(nn.Module):
    """The mean and the largest of the states side by side, then one layer."""

    def __init__(self, hidden_size, num_labels):
        super().__init__()
        self.out = nn.Linear(2 * hidden_size, num_labels)

    def forward(self, hidden, mask):
        mask = mask.unsqueeze(-1)
        mean = hidden.masked_fill(~mask, 0).sum(dim=1) / mask.sum(dim=1)
        return self.out(torch.cat([mean, hidden.masked_fill(~mask, -1e9).amax(dim=1)], dim=1))
'''


def notices(events: list[Event]) -> str:
    return "\n".join(event.message for event in events if isinstance(event, Notice))


def write(folder: Path, source: str, name: str = "head.py") -> Path:
    path = folder / name
    path.write_text(source, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Any:
    """A finished run with a head of its own and its ONNX graph, in a home of its own; and what was said."""
    place = tmp_path_factory.mktemp("own-head")
    data = place / "tickets.csv"
    data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in tiny_models.rows(120)))
    head, seen = write(place, LEARNT), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEXTCLF_HOME", str(place / "home"))
        run = textclf.finetune(
            tiny_base, data, head=f"{head}:Weighted", out=place / "run", on_event=seen.append, **FAST
        )
    return run, head, notices(seen), place / "home"


def test_a_head_of_ones_own_is_trained_and_answers(made: Any, monkeypatch: pytest.MonkeyPatch, unchecked: None) -> None:
    run, head, said, home = made
    monkeypatch.setenv("TEXTCLF_HOME", str(home))
    assert "no linear probe" in said and "trust_remote_code" in said and "ONNX" not in said, said
    folder = run.model_folder
    assert (folder / "own_head.py").read_text() == head.read_text()
    config = json.loads((folder / "config.json").read_text())
    assert config["model_type"] == "textclf" and config["pooling"] is None
    assert (
        set(config["head_code"]) == {"class", "sha256"}
        and str(head.parent) not in (folder / "textclf.json").read_text()
    )
    onnx, by_torch, rough = (
        textclf.load(run, runtime=runtime).predict_proba(TEXTS) for runtime in ("onnx", "torch", "bf16")
    )
    assert np.allclose(onnx, by_torch, atol=1e-5) and np.allclose(rough, by_torch, atol=0.1)
    assert textclf.evaluate(run, runtime="torch").metrics.accuracy == run.metrics["test"]["accuracy"]
    card = (folder / "README.md").read_text()
    assert "own_head.py" in card and "--head own_head.py:Weighted" in card


def test_its_code_runs_in_a_fresh_process_only_where_it_was_trained_or_by_leave(
    made: Any, cli: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _, _, trained_home = made
    monkeypatch.setattr(head_code, "_KNOWN", {})
    mine = {"TEXTCLF_HOME": str(trained_home)}
    here = cli("predict", run.folder, "--runtime", "torch", input="where is my card\n", env=mine)
    assert here.returncode == 0, here.stderr
    folder = shutil.copytree(run.model_folder, tmp_path / "from elsewhere")
    with pytest.raises(RefusedError, match=r"own_head\.py:Weighted") as refused:
        textclf.load(folder, runtime="torch")
    assert refused.value.exit_code == 8 and "--runtime onnx" in str(refused.value)
    assert textclf.load(folder, device="cpu").predict(["where is my card"])[0] == here.stdout.split("\t")[0]
    flags = ("--runtime", "torch", "--head", f"{folder / 'own_head.py'}:Weighted")
    allowed = cli("predict", "-m", folder, *flags, input="where is my card\n")
    assert (allowed.returncode, allowed.stdout) == (0, here.stdout), allowed.stderr
    # Leave for one command is no leave for the next.
    with pytest.raises(RefusedError, match="without your leave"):
        textclf.load(folder, runtime="torch")


@pytest.mark.usefixtures("no_graph")
def test_leave_is_for_the_very_code_that_was_trained(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, head, _, trained_home = made
    monkeypatch.setattr(head_code, "_KNOWN", {})
    folder = shutil.copytree(run.model_folder, tmp_path / "model")
    marker = tmp_path / "ran"
    evil = LEARNT + f"\nopen({str(marker)!r}, 'w').close()\n"
    (folder / "own_head.py").write_text(evil)
    with pytest.raises(RefusedError, match="without your leave"):
        textclf.load(folder, runtime="torch")
    # On the machine that trained it, its own copy of the code runs, not what the folder holds now.
    monkeypatch.setenv("TEXTCLF_HOME", str(trained_home))
    textclf.load(folder, runtime="torch").predict(TEXTS)
    assert not marker.exists()
    with pytest.raises(ModelError, match=r"own_head\.py is not"):
        publishing.push(folder, "alice/model", dry_run=True)
    other = write(tmp_path, LEARNT + "\n# changed\n")
    with pytest.raises(ModelError, match="is not the code"):
        textclf.load(folder, runtime="torch", head=f"{other}:Weighted")
    with pytest.raises(UsageError, match="no code of its own"):
        textclf.load(tiny_models.artifact(tmp_path / "plain"), head=f"{head}:Weighted")
    # Nothing in a config is a path, a module or a class of another place.
    (folder / "MANIFEST.json").unlink()
    config = json.loads((folder / "config.json").read_text())
    for record, error in (
        ({"class": "Weighted", "sha256": "../../head"}, RefusedError),
        ({"class": "Weighted", "entry_point": "os:system", "module": "os"}, ModelError),
        ({"class": "system", "sha256": config["head_code"]["sha256"]}, UsageError),
        ({"class": "nn", "sha256": config["head_code"]["sha256"]}, UsageError),
        (["Weighted"], TextclfError),
        ({"class": 1}, TextclfError),
    ):
        (folder / "config.json").write_text(json.dumps({**config, "head_code": record}))
        with pytest.raises(error):
            textclf.load(folder, runtime="torch")
    assert not marker.exists()


def test_plain_transformers_opens_it_without_textclf(made: Any, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _, _, trained_home = made
    monkeypatch.setenv("TEXTCLF_HOME", str(trained_home))
    scores = textclf.load(run, runtime="torch").predict_proba(TEXTS)
    program = (
        "import sys, json\n"
        "from transformers import pipeline\n"
        "folder, texts = json.loads(sys.argv[1])\n"
        "classify = pipeline('text-classification', folder, top_k=None, device='cpu', trust_remote_code=True)\n"
        "rows = [{one['label']: one['score'] for one in row} for row in classify(texts, truncation=True)]\n"
        "assert 'textclf' not in sys.modules\n"
        "print(json.dumps([[row[label] for label in 'abc'] for row in rows]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps([str(run.model_folder), TEXTS])],
        capture_output=True, text=True, check=False, env={**os.environ, "HF_HOME": str(home / "hf")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert np.allclose(json.loads(done.stdout.splitlines()[-1]), scores, atol=1e-5)


@pytest.mark.usefixtures("no_graph")
def test_learning_goes_on_or_another_head_takes_its_place(
    made: Any, tiny_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, head, _, trained_home = made
    monkeypatch.setattr(head_code, "_KNOWN", {})
    base, tokenizer = run.model_folder, load_tokenizer(run.model_folder)
    with pytest.raises(RefusedError):
        Classifier.from_pretrained(base, LabelSet(tuple("abc")), tokenizer)
    # Another head needs none of its code.
    pooled = Classifier.from_pretrained(base, LabelSet(tuple("abc")), tokenizer, head="cls")
    assert pooled.head_record is None and pooled.has_fresh_output and not head_code._KNOWN
    other = Classifier.from_pretrained(base, LabelSet(("x", "y")), tokenizer, head=f"{head}:Weighted")
    assert other.head == "code" and other.has_fresh_output
    assert other.head_parameters() <= {f"network.{name}" for name in other.fresh}
    seen: list[Event] = []
    slow = {**FAST, "learning_rate": 1e-9, "head_learning_rate": 1e-9, "on_event": seen.append}
    again = textclf.finetune(base, tiny_csv, head=f"{head}:Weighted", **slow)
    assert "learning goes on from it" in notices(seen) and "scores stay as they are" not in notices(seen)
    probs = textclf.load(again, runtime="torch").predict_proba(TEXTS)
    monkeypatch.setenv("TEXTCLF_HOME", str(trained_home))
    before = np.log(textclf.load(run, runtime="torch").predict_proba(TEXTS))
    temperature = json.loads((again.model_folder / "textclf.json").read_text())["calibration"]["temperature"]
    assert temperature != 1  # as other heads, it is calibrated anew
    assert np.allclose(probs, LabelSet(tuple("abc")).probabilities(before / temperature), atol=1e-3)


@pytest.mark.usefixtures("no_graph")
def test_a_head_of_one_layer_starts_from_a_probe(tiny_base: Path, tiny_csv: Path, tmp_path: Path) -> None:
    head, seen = write(tmp_path, PLAIN), []
    settings = {"head": f"{head}:MeanMax", "out": tmp_path / "run", "epochs": 0, "precision": "fp32"}
    run = textclf.finetune(tiny_base, tiny_csv, on_event=seen.append, **settings)
    assert "linear probe on" in notices(seen) and run.metrics["test"]["accuracy"] > 0.5
    textclf.finetune(tiny_base, tiny_csv, **settings)  # finished already
    write(tmp_path, PLAIN + "\n# another\n")
    with pytest.raises(UsageError, match="has changed"):
        textclf.finetune(tiny_base, tiny_csv, **settings)
    layers = write(tmp_path, LEARNT, "layers.py")
    with pytest.raises(UsageError, match="no linear probe can start"):
        textclf.finetune(tiny_base, tiny_csv, head=f"{layers}:Weighted", epochs=0)


@pytest.mark.parametrize("lora", [None, 4])
@pytest.mark.usefixtures("no_graph")
def test_a_stopped_run_goes_on_bit_for_bit(lora: int | None, tmp_path: Path, tiny_base: Path, tiny_csv: Path) -> None:
    if lora:
        pytest.importorskip("peft")
    head = write(tmp_path, LEARNT)
    settings = {**FAST, "head": f"{head}:Weighted", "lora": lora, "eval_every": 2}
    unbroken = textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "unbroken", **settings)
    _, resumed = stop_and_resume(tiny_base, tiny_csv, tmp_path / "stopped", stop_at=3, **settings)
    assert same_weights(unbroken, resumed)
    before, after = (load_file(folder / "model.safetensors") for folder in (tiny_base, resumed.model_folder))
    frozen = [name for name, old in before.items() if torch.equal(old, after.get(f"backbone.{name}", old - 1))]
    assert bool(frozen) == bool(lora) and not any("lora" in name for name in after)
    probs = textclf.load(resumed, runtime="torch").predict_proba(TEXTS)
    assert np.allclose(probs, textclf.load(unbroken, runtime="torch").predict_proba(TEXTS), atol=1e-6)


def test_a_pushed_model_answers_elsewhere_without_its_code(made: Any, cli: Callable[..., Any], tmp_path: Path) -> None:
    run, head, _, trained_home = made
    elsewhere = {"TEXTCLF_HOME": str(tmp_path / "elsewhere")}
    with HubStandIn() as stand_in:
        alice = {**stand_in.environment(tmp_path, token=WRITE_TOKEN), "TEXTCLF_HOME": str(trained_home)}
        pushed = cli("push", run.folder, "alice/weighted", env=alice)
        assert pushed.returncode == 0, pushed.stderr
        files = stand_in.model("alice/weighted").files
        assert files["own_head.py"] == head.read_bytes() and b"--head own_head.py:Weighted" in files["README.md"]
        bob = {**stand_in.environment(tmp_path / "bob", token=WRITE_TOKEN), **elsewhere}
        answer = cli("predict", "alice/weighted", "--json", input="where is my card\n", env=bob)
        assert answer.returncode == 0, answer.stderr
        refused = cli("predict", "alice/weighted", "--runtime", "torch", input="where is my card\n", env=bob)
        assert refused.returncode == 8 and "own_head.py" in refused.stderr, refused.stderr
        leave = ("--runtime", "torch", "--head", f"{head}:Weighted", "--json")
        trusted = cli("predict", "alice/weighted", *leave, input="where is my card\n", env=bob)
        assert trusted.returncode == 0, trusted.stderr
    assert json.loads(answer.stdout)["predictions"][0]["label"] == json.loads(trusted.stdout)["predictions"][0]["label"]


def _head(body: str, init: str = "self.out = nn.Linear(hidden_size, num_labels)") -> str:
    return (
        "import torch\nfrom torch import nn\n\nclass Head(nn.Module):\n"
        f"    def __init__(self, hidden_size, num_labels):\n        super().__init__()\n        {init}\n\n"
        f"    def forward(self, hidden, mask):\n        {body}\n"
    )


@pytest.mark.parametrize(
    ("source", "said", "error"),
    [
        ("class Head: pass\n", "no torch.nn.Module", UsageError),
        ("Head = 3\n", "defines no class 'Head'", UsageError),
        ("from torch.nn import Linear as Head\n", "defines no class 'Head'", UsageError),
        ("import torch\n\n1 / 0\n", "line 3: running it raises ZeroDivisionError", UsageError),
        ("def broken(:\n", "line 1: running it raises SyntaxError", UsageError),
        ("import sys\nsys.exit(0)\n", "SystemExit", UsageError),
        ("from . import beside\n", "ImportError", UsageError),
        (_head("return self.out(hidden)"), "shape (3, 7, 3)", ModelError),
        (_head("return self.out(hidden[:, 0]).double()"), "gives float64", ModelError),
        (_head("return self.out(hidden[:, 0]).argmax(-1)"), "shape (3,)", ModelError),
        (_head("return {'logits': self.out(hidden[:, 0])}"), "gives dict", ModelError),
        (_head("return self.out(hidden.mean(dim=1))"), "with the padding", ModelError),
        (_head("x = self.out(hidden[:, 0]); return x - x.mean(dim=0)"), "beside a text", ModelError),
        (_head("return self.out(nn.functional.dropout(hidden[:, 0]))"), "from call to call", ModelError),
        (_head("return self.out(hidden[:, 0]) / 0"), "NaN or infinity", ModelError),
        (_head("return hidden[:, 0, :3]", "pass"), "no parameters", ModelError),
        (_head("return hidden[:, 0, :3] * 1.0"), "no parameter had a part", ModelError),
        (_head("return self.out(hidden[:, 0] @ mask)"), "in line 10", ModelError),
        (_head("return self.out(hidden[:, 0])", "raise KeyError('x')"), "built in line 7: KeyError", ModelError),
        (_head("return self.out(hidden[:, 0])", "raise SystemExit(0)"), "built in line 7: SystemExit", ModelError),
        (_head("raise SystemExit(0)"), "fails in line 10", ModelError),
        (_head("return self.n(self.out(hidden[:, 0]))", "self.out = nn.Linear(hidden_size, num_labels); "
         "self.n = nn.BatchNorm1d(num_labels)"), "fails in line 10", ModelError),
    ],
)  # fmt: skip
def test_what_no_head_may_do_is_said(
    source: str, said: str, error: type[TextclfError], tmp_path: Path, tiny_base: Path
) -> None:
    path = write(tmp_path, source)
    with pytest.raises(error) as caught:
        Classifier.from_pretrained(tiny_base, LabelSet(tuple("abc")), load_tokenizer(tiny_base), head=f"{path}:Head")
    assert said in caught.value.message, caught.value.message
    assert len(caught.value.message.splitlines()) == 1


def test_a_head_that_is_not_there_is_a_usage_error(tiny_base: Path, tiny_csv: Path, cli: Callable[..., Any]) -> None:
    for head, said in (
        ("nowhere.py:Head", r"nowhere\.py:Head: there is no such"),
        ("head.txt:Head", r"FILE\.py:CLASS"),
    ):
        with pytest.raises(UsageError, match=said):
            textclf.finetune(tiny_base, tiny_csv, head=head)
    done = cli("finetune", "--model", tiny_base, "--dataset", tiny_csv, "--head", "middle")
    assert done.returncode == 2 and "one of auto, own" in done.stderr and "Traceback" not in done.stderr, done.stderr
    with pytest.raises(ConfigError, match="whose layers are its code's"):
        ModelConfig(head="head.py:Head", head_hidden=8)


def _package(folder: Path, name: str, entry_points: str) -> Path:
    """A folder in which a package is installed, as pip would leave it, but for its module."""
    facts = folder / "site" / f"{name}-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(entry_points)
    return facts.parent


BACKBONE = """
from transformers import AutoConfig, AutoModel, BertConfig, BertModel

class OddConfig(BertConfig):
    model_type = "odd_bert"

class OddModel(BertModel):
    config_class = OddConfig

AutoConfig.register("odd_bert", OddConfig)
AutoModel.register(OddConfig, OddModel)
"""


@pytest.mark.usefixtures("no_graph")
def test_an_installed_package_brings_a_backbone(
    tiny_base: Path, tiny_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = shutil.copytree(tiny_base, tmp_path / "odd")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "model_type": "odd_bert", "architectures": ["OddModel"]}))
    with pytest.raises(ModelError, match="'odd_bert' is not known"):
        textclf.finetune(base, tiny_csv, **FAST)
    site = _package(tmp_path, "odd_backbone", "[textclf.backbones]\nodd_bert = odd_backbone\n")
    write(site, BACKBONE, "odd_backbone.py")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    run = textclf.finetune(base, tiny_csv, head="mean", **FAST)
    known = textclf.finetune(tiny_base, tiny_csv, head="mean", **FAST)
    assert run.metrics == known.metrics  # the same network under another name
    assert json.loads((run.model_folder / "config.json").read_text())["text_config"]["model_type"] == "odd_bert"
    assert textclf.evaluate(run, runtime="torch").metrics.accuracy == run.metrics["test"]["accuracy"]
    assert "odd_bert" in (run.model_folder / "README.md").read_text()


@pytest.mark.usefixtures("no_graph")
def test_an_installed_package_brings_a_head(
    tiny_base: Path, tiny_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = _package(
        tmp_path, "pooling_heads", "[textclf.heads]\nmean-max = pooling_heads:MeanMax\nbroken = pooling_heads:Nothing\n"
    )
    write(site, PLAIN, "pooling_heads.py")
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    run = textclf.finetune(tiny_base, tiny_csv, head="mean-max", **FAST)
    assert not (run.model_folder / "own_head.py").exists()
    assert "pooling_heads" in (run.model_folder / "README.md").read_text()
    with pytest.raises(UsageError, match="cannot be imported"):
        textclf.finetune(tiny_base, tiny_csv, head="broken", **FAST)
    probs = textclf.load(run, runtime="torch").predict_proba(TEXTS)
    assert np.isfinite(probs).all()
    shutil.rmtree(site / "pooling_heads-1.0.dist-info")
    importlib.invalidate_caches()
    monkeypatch.setattr(head_code, "_KNOWN", {})
    with pytest.raises(ModelError, match="not installed") as caught:
        textclf.load(run)
    assert "pooling_heads" in str(caught.value)


def test_a_decoder_takes_it_too(tmp_path: Path) -> None:
    base = tiny_models.pretrained(tmp_path / "gpt2", "gpt2")
    head = write(tmp_path, PLAIN)
    made = Classifier.from_pretrained(base, LabelSet(("a", "b")), load_tokenizer(base), head=f"{head}:MeanMax").eval()
    assert made.try_packing(max_length=64)
    ids = torch.randint(10, 50, (2, 8), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 3:] = 0
    with torch.no_grad():
        together, alone = made.logits(ids, mask), made.logits(ids[1:, :3], mask[1:, :3])
    assert torch.allclose(together[1:], alone, atol=1e-5)
    t5 = tiny_models.pretrained(tmp_path / "t5", "t5")
    with pytest.raises(ModelError, match="no pooled head fits"):
        Classifier.from_pretrained(t5, LabelSet(("a", "b")), load_tokenizer(t5), head=f"{head}:MeanMax")
