"""Fine-tuning: from a file to a model that plain transformers opens; settings that do what they say."""

from __future__ import annotations

import json
import os
import signal
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

import textclf
import tiny_models
from resuming import same_weights, stop_and_resume
from textclf import atomic, config
from textclf.artifact import folder
from textclf.artifact import graph as graph_file
from textclf.artifact.runs import Run
from textclf.cpus import allowed_cpus
from textclf.data.batching import real_tokens
from textclf.errors import ConfigError, DivergedError, InterruptedRun, ModelError, RefusedError, UsageError
from textclf.training import estimate
from textclf.training.events import Evaluated, Event, Notice, StepDone

FAST: dict[str, Any] = {"epochs": 3, "batch_size": 16, "precision": "fp32", "probe": False}

pytestmark = pytest.mark.usefixtures("no_graph")  # that graphs answer as torch does: test_onnx.py


def weights(run: Run) -> dict[str, torch.Tensor]:
    return load_file(run.model_folder / "model.safetensors")


def lines(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]


def test_a_model_learns_and_opens_with_plain_transformers(tiny_base: Path, tiny_csv: Path, graph: None) -> None:
    run = textclf.finetune(tiny_base, tiny_csv, epochs=25, batch_size=8, learning_rate=2e-3, precision="fp32")
    assert graph_file.belongs(run.model_folder)
    assert run.state == "done"
    assert run.metrics["test"]["accuracy"] >= 0.9
    texts = ["my card is the letter", "refund the charge now please", "x", "", "password " * 100]
    ours = textclf.load(run)
    theirs = pipeline("text-classification", model=str(run.model_folder), top_k=None, device="cpu")
    for text, probs in zip(texts, ours.predict_proba(texts), strict=True):
        scores = {one["label"]: one["score"] for one in theirs([text], truncation=True)[0]}
        assert np.allclose([scores[name] for name in ours.classes_], probs, atol=1e-5)


@pytest.mark.parametrize("architecture", tiny_models.ARCHITECTURES)
def test_every_architecture_is_finetuned_saved_and_reloaded(architecture: str, tmp_path: Path, tiny_csv: Path) -> None:
    base = tiny_models.pretrained(tmp_path / architecture, architecture)
    run = textclf.finetune(base, tiny_csv, epochs=0.5, batch_size=16, probe=False)
    before = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3)
    after = AutoModelForSequenceClassification.from_pretrained(run.model_folder, dtype=torch.float32)
    prefix = before.base_model_prefix + "."
    moved = [
        not torch.equal(old, new)
        for (name, old), new in zip(before.named_parameters(), after.parameters(), strict=True)
        if name.startswith(prefix) and old.dim() > 1
    ]
    assert any(moved), "the backbone did not learn"
    tokenizer = AutoTokenizer.from_pretrained(run.model_folder)
    texts = ["where is my card", "a", "I want my money back " * 30, "[SEP] in a text"]
    probs = textclf.load(run).predict_proba(texts)
    after.eval()
    for text, row in zip(texts, probs, strict=True):
        with torch.no_grad():
            logits = after(**tokenizer(text, return_tensors="pt", truncation=True, max_length=64)).logits
        if "[SEP]" not in text:
            assert np.allclose(torch.softmax(logits, -1)[0].numpy(), row, atol=1e-5)
    assert after.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert after.config.problem_type == "single_label_classification"
    assert after.config.pad_token_id is not None


def test_the_artifact_says_nothing_of_this_machine(tiny_base: Path, tiny_csv: Path, home: Path, graph: None) -> None:
    run = textclf.finetune(tiny_base, tiny_csv, **FAST)
    files = [path for path in run.model_folder.rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    assert {"config.json", "README.md", "graph.onnx", "graph.json"} <= {path.name for path in files}
    for path in files:
        for secret in (str(home), str(tiny_base), str(tiny_csv), os.uname().nodename, "is_local"):
            assert secret.encode() not in path.read_bytes(), (path.name, secret)


def test_resume_is_bit_identical_after_a_signal(tiny_base: Path, tiny_csv: Path, tmp_path: Path) -> None:
    settings = {**FAST, "eval_every": 4}
    unbroken = textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "unbroken", **settings)
    for stop_at in (1, 4, 7, 17, 18):
        out = tmp_path / f"stopped-{stop_at}"
        stopped, resumed = stop_and_resume(tiny_base, tiny_csv, out, stop_at=stop_at, **settings)
        assert stopped.exit_code == 143
        assert f"step-{stop_at}" in stopped.message
        assert same_weights(unbroken, resumed), stop_at
        assert lines(unbroken) == lines(resumed), stop_at
        assert unbroken.metrics == resumed.metrics


@pytest.mark.slow
@pytest.mark.skipif(allowed_cpus() < 2, reason="one CPU")
def test_resume_is_bit_identical_on_two_threads(minilm: Path, tiny_csv: Path, tmp_path: Path) -> None:
    settings = {"epochs": 1, "batch_size": 16, "eval_every": 2, "probe": False}  # a tiny model occupies one thread
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        unbroken = textclf.finetune(minilm, tiny_csv, out=tmp_path / "unbroken", **settings)
        assert torch.get_num_threads() == 2
        _, resumed = stop_and_resume(minilm, tiny_csv, tmp_path / "stopped", stop_at=3, **settings)
    finally:
        torch.set_num_threads(threads)
    assert same_weights(unbroken, resumed)


def test_resume_is_bit_identical_after_kill_9(
    tiny_base: Path, tiny_csv: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    arguments = ["--set", "train.eval_every=3", "--epochs", "3", "--batch-size", "16", "--precision", "bf16"]
    arguments += ["--model", str(tiny_base), "--dataset", str(tiny_csv)]
    assert cli("finetune", *arguments, "--out", tmp_path / "unbroken").returncode == 0
    killer = (
        "import os, signal, sys\n"
        "import textclf.training.loop as loop\n"
        "save = loop.checkpoint.save\n"
        "def save_and_die(folder, progress, *rest, **settings):\n"
        "    if progress.step == 9: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    save(folder, progress, *rest, **settings)\n"
        "loop.checkpoint.save = save_and_die\n"
        "from textclf.cli.app import main\n"
        f"sys.argv = ['textclf', 'finetune', *{arguments!r}, '--out', {str(tmp_path / 'killed')!r}]\n"
        "main()\n"
    )
    import subprocess
    import sys

    assert (
        subprocess.run([sys.executable, "-c", killer], capture_output=True, timeout=120).returncode == -signal.SIGKILL
    )
    again = cli("finetune", *arguments, "--out", tmp_path / "killed")
    assert again.returncode == 0 and "going on from step-6" in again.stderr
    assert (tmp_path / "killed/model/model.safetensors").read_bytes() == (
        tmp_path / "unbroken/model/model.safetensors"
    ).read_bytes()


def test_a_damaged_checkpoint_is_passed_over(tiny_base: Path, tiny_csv: Path, tmp_path: Path) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == 14:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptedRun) as caught:
        textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "run", on_event=stop, **FAST)
    assert caught.value.exit_code == 130
    damaged = tmp_path / "run/checkpoints/step-14/weights.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    said: list[str] = []
    run = textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "run", on_event=lambda e: said.append(str(e)), **FAST)
    assert run.state == "done"
    assert any("step-14 is damaged" in line for line in said) and any("step-12" in line for line in said)


def test_a_finished_run_is_given_back_and_overwrite_trains_anew(tiny_base: Path, tiny_csv: Path) -> None:
    first = textclf.finetune(tiny_base, tiny_csv, **FAST)
    events: list[Event] = []
    again = textclf.finetune(tiny_base, tiny_csv, on_event=events.append, **FAST)
    assert again.document == first.document and not any(isinstance(event, StepDone) for event in events)
    anew = textclf.finetune(tiny_base, tiny_csv, overwrite=True, **FAST)
    assert anew.document["started"] > first.document["started"]
    assert same_weights(first, anew)


def test_seeds_decide_the_model_and_leave_the_split_alone(tiny_base: Path, tiny_csv: Path) -> None:
    one, two = (textclf.finetune(tiny_base, tiny_csv, seed=seed, **FAST) for seed in (1, 2))
    assert one.name != two.name and not same_weights(one, two)
    assert one.document["fingerprint"] == two.document["fingerprint"]


def test_micro_batches_add_up_to_the_whole_batch(tiny_csv: Path, tmp_path: Path) -> None:
    # Without dropout the cut of a batch changes nothing but rounding.
    base = tiny_models.pretrained(tmp_path / "base")
    config = json.loads((base / "config.json").read_text())
    config.update(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    (base / "config.json").write_text(json.dumps(config))
    # Packed, and padded: with gradient checkpointing, batches are not packed.
    for way in ({}, {"gradient_checkpointing": True}):
        whole = textclf.finetune(base, tiny_csv, interpolate=False, **FAST, **way)
        for bounds in ({"micro_batch_size": 3}, {"micro_batch_tokens": 40}):
            cut = textclf.finetune(base, tiny_csv, interpolate=False, **FAST, **way, **bounds)
            for name, tensor in weights(whole).items():
                assert torch.allclose(tensor, weights(cut)[name], atol=2e-4), (way, bounds, name)


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
def test_the_best_checkpoint_is_the_one_that_is_kept(metric: str, tiny_base: Path, tiny_csv: Path) -> None:
    evaluations: list[Evaluated] = []

    def watch(event: Event) -> None:
        if isinstance(event, Evaluated):
            evaluations.append(event)

    settings = {"epochs": 12, "batch_size": 8, "learning_rate": 2e-3, "precision": "fp32", "interpolate": False}
    run = textclf.finetune(tiny_base, tiny_csv, metric=metric, on_event=watch, **settings)
    if metric == "loss":
        best = min(evaluations, key=lambda event: event.metrics.loss)
    else:  # equal accuracies are told apart by the loss
        best = max(evaluations, key=lambda event: (event.metrics.accuracy, -event.metrics.loss))
    assert run.document["best_step"] == best.step
    assert run.metrics["validation"]["accuracy"] == best.metrics.accuracy
    before = json.loads((run.model_folder / "textclf.json").read_text())["calibration"]["before"]["validation"]
    assert before["loss"] == pytest.approx(best.metrics.loss, abs=1e-6)


def test_patience_stops_early(tiny_base: Path, tiny_csv: Path) -> None:
    run = textclf.finetune(tiny_base, tiny_csv, epochs=50, patience=2, learning_rate=1e-6, head_learning_rate=1e-7)
    assert run.document["step"] < 50 * 3
    assert "has not improved" in run.document["stopped_early"]


def test_max_minutes_ends_the_run_in_time(tiny_base: Path, tiny_csv: Path) -> None:
    rates: list[float] = []

    def watch(event: Event) -> None:
        if isinstance(event, StepDone):
            rates.append(event.learning_rate)

    run = textclf.finetune(tiny_base, tiny_csv, epochs=100_000, eval_every=1_000_000, max_minutes=0.05, on_event=watch)
    assert run.state == "done" and "--max-minutes" in run.document["stopped_early"]
    assert rates[-1] < 0.1 * max(rates), "the schedule did not come to its end"


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_precisions_train(precision: str, tiny_base: Path, tiny_csv: Path) -> None:
    losses: list[float] = []

    def watch(event: Event) -> None:
        if isinstance(event, StepDone):
            losses.append(event.loss)

    settings = {"epochs": 10, "batch_size": 8, "learning_rate": 2e-3}
    textclf.finetune(tiny_base, tiny_csv, precision=precision, on_event=watch, **settings)
    assert losses[-1] < 0.6 * losses[0]


def test_class_weights_help_the_rare_label(tiny_base: Path, tmp_path: Path) -> None:
    rows = [row for row in tiny_models.rows(600, ("a", "b")) if row[1] == "a" or int(row[0].split()[-1]) % 20 == 1]
    path = tmp_path / "rare.csv"
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    settings = {
        "epochs": 2,
        "batch_size": 16,
        "learning_rate": 5e-4,
        "precision": "fp32",
        "test_size": 0,
        "metric": "loss",
    }
    runs = {w: textclf.finetune(tiny_base, path, class_weights=w, **settings) for w in ("none", "balanced")}
    texts = [text for text, label in rows if label == "b"]
    probs = {w: textclf.load(run).predict_proba(texts)[:, 1].mean() for w, run in runs.items()}
    assert probs["balanced"] > probs["none"] + 0.1


def temperature(run: Run) -> float:
    """What the calibration divided the logits by."""
    facts = folder.read(run.model_folder).facts
    assert facts is not None
    return float(facts.calibration["temperature"])


def test_label_smoothing_keeps_the_model_unsure(tiny_base: Path, tiny_csv: Path) -> None:
    settings = {"epochs": 12, "batch_size": 8, "learning_rate": 2e-3, "precision": "fp32", "probe": False}
    texts = [text for text, _ in tiny_models.rows(60)]
    sure, unsure = (textclf.finetune(tiny_base, tiny_csv, label_smoothing=s, **settings) for s in (0.0, 0.4))

    def confidence(run: Run) -> float:
        """As it was before the calibration, which makes up for the smoothing."""
        powers = textclf.load(run).predict_proba(texts) ** temperature(run)
        return float((powers.max(axis=1) / powers.sum(axis=1)).mean())

    assert confidence(sure) > confidence(unsure) + 0.1


def test_divergence_is_told_with_step_and_rate(tiny_base: Path, tiny_csv: Path) -> None:
    with pytest.raises(DivergedError, match=r"step \d+.*learning rate") as caught:
        textclf.finetune(tiny_base, tiny_csv, learning_rate=1e30, head_learning_rate=1e30, max_grad_norm=0, epochs=5)
    assert caught.value.exit_code == 7 and "learning-rate" in (caught.value.hint or "")


def test_a_somebody_elses_classifier_gets_a_fresh_last_layer(
    tiny_artifact: Path, tiny_csv: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.csv"
    other.write_text(tiny_csv.read_text().replace(",a\n", ",x\n").replace(",b\n", ",y\n").replace(",c\n", ",z\n"))
    run = textclf.finetune(tiny_artifact, other, epochs=1, learning_rate=1e-9, head_learning_rate=1e-9)
    old = load_file(tiny_artifact / "model.safetensors")["classifier.weight"]
    assert not torch.allclose(weights(run)["classifier.weight"], old, atol=1e-3)
    same_labels = textclf.finetune(tiny_artifact, tiny_csv, epochs=1, learning_rate=1e-9, head_learning_rate=1e-9)
    assert torch.allclose(weights(same_labels)["classifier.weight"] * temperature(same_labels), old, atol=1e-3)


def test_the_plan_is_said_with_its_reasons(tiny_base: Path, tiny_csv: Path) -> None:
    said: list[str] = []

    def listen(event: Event) -> None:
        if isinstance(event, Notice):
            said.append(event.message)

    textclf.finetune(tiny_base, tiny_csv, device="cpu", probe=False, on_event=listen)
    text = "\n".join(said)
    for part in (
        "device: CPU",
        "as asked",
        "max_length 64",
        "15 epochs",
        "learning rate 0.001",
        "head's learning rate",
    ):
        assert part in text, part


def test_the_resolved_config_can_be_given_back(
    tiny_base: Path, tiny_csv: Path, tmp_path: Path, cli: Callable[..., Any]
) -> None:
    run = textclf.finetune(tiny_base, tiny_csv, **FAST)
    assert run.config["train"]["learning_rate"] and run.config["model"]["max_length"] == 64
    done = cli("finetune", "--config", run.folder / "config.json", "--out", tmp_path / "again", "--json")
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout)
    assert again["metrics"] == run.metrics
    assert (Path(again["artifact"]) / "model.safetensors").read_bytes() == (
        run.model_folder / "model.safetensors"
    ).read_bytes()


class TestBadInput:
    def test_an_out_folder_that_holds_something_else(self, tiny_base: Path, tiny_csv: Path, tmp_path: Path) -> None:
        (tmp_path / "full").mkdir()
        (tmp_path / "full/precious.txt").write_text("keep me")
        for overwrite in (False, True):
            with pytest.raises(UsageError, match="holds something else"):
                textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "full", overwrite=overwrite, **FAST)
        assert [path.name for path in (tmp_path / "full").iterdir()] == ["precious.txt"]

    def test_other_settings_in_the_same_folder(self, tiny_base: Path, tiny_csv: Path, tmp_path: Path) -> None:
        textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "run", **FAST)
        with pytest.raises(ModelError, match=r"setting +then +now\n  train\.epochs +3\.0 +4\.0\n"):
            textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "run", **{**FAST, "epochs": 4})

    def test_data_that_changed_during_a_pause(self, tiny_base: Path, tiny_csv: Path, tmp_path: Path) -> None:
        def stop(event: Event) -> None:
            if isinstance(event, StepDone):
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(InterruptedRun):
            textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "run", on_event=stop, **FAST)
        tiny_csv.write_text(tiny_csv.read_text() + "one more row,a\n")
        with pytest.raises(ModelError, match="data has changed"):
            textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "run", **FAST)

    def test_a_model_without_weights(self, tiny_base: Path, tiny_csv: Path, tmp_path: Path) -> None:
        (tmp_path / "hollow").mkdir()
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            (tmp_path / "hollow" / name).write_bytes((tiny_base / name).read_bytes())
        with pytest.raises(ModelError, match=r"weights|model\.safetensors"):
            textclf.finetune(tmp_path / "hollow", tiny_csv, **FAST)

    def test_a_model_with_pickled_weights_only(self, tiny_base: Path, tiny_csv: Path, tmp_path: Path) -> None:
        folder = tmp_path / "pickled"
        folder.mkdir()
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            (folder / name).write_bytes((tiny_base / name).read_bytes())
        torch.save(load_file(tiny_base / "model.safetensors"), folder / "pytorch_model.bin")
        with pytest.raises(RefusedError, match=r"\.bin") as caught:
            textclf.finetune(folder, tiny_csv, **FAST)
        assert caught.value.exit_code == 8 and "allow_bin" in (caught.value.hint or "")
        assert textclf.finetune(folder, tiny_csv, allow_bin=True, **FAST).state == "done"

    def test_truncated_weights(self, tiny_base: Path, tiny_csv: Path, tmp_path: Path) -> None:
        folder = tmp_path / "cut"
        folder.mkdir()
        for path in tiny_base.iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
        content = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
        with pytest.raises(ModelError, match="cannot be loaded"):
            textclf.finetune(folder, tiny_csv, **FAST)

    def test_weights_of_another_architecture(self, tiny_base: Path, tiny_csv: Path, tmp_path: Path) -> None:
        folder = tmp_path / "mixed"
        tiny_models.pretrained(folder, "roberta")
        (folder / "model.safetensors").write_bytes(
            (tiny_models.pretrained(tmp_path / "gpt2", "gpt2") / "model.safetensors").read_bytes()
        )
        with pytest.raises(ModelError, match="weights lack"):
            textclf.finetune(folder, tiny_csv, **FAST)

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"learning_rte": 1}, "learning_rte"),
            ({"epochs": -1}, "train.epochs is -1"),
            ({"precision": "int3"}, "one of auto"),
            ({"max_length": 100_000}, "at most 512 tokens"),
            ({"device": "warp"}, "not known"),
        ],
    )
    def test_settings_that_make_no_sense(
        self, settings: dict[str, Any], message: str, tiny_base: Path, tiny_csv: Path
    ) -> None:
        with pytest.raises(UsageError, match=message):
            textclf.finetune(tiny_base, tiny_csv, **settings)

    def test_unknown_settings_name_the_nearest(self, tiny_base: Path, tiny_csv: Path) -> None:
        with pytest.raises(ConfigError) as caught:
            textclf.finetune(tiny_base, tiny_csv, learning_rte=1e-3)
        assert caught.value.hint == "did you mean learning_rate?"

    def test_gradient_checkpointing_where_there_is_none(self, tiny_csv: Path, tmp_path: Path) -> None:
        base = tiny_models.pretrained(tmp_path / "albert", "albert")
        with pytest.raises(UsageError, match="no gradient checkpointing"):
            textclf.finetune(base, tiny_csv, gradient_checkpointing=True)

    def test_a_busy_run_names_its_owner(
        self, tiny_base: Path, tiny_csv: Path, tmp_path: Path, cli: Callable[..., Any]
    ) -> None:
        answers = []

        def intrude(event: Event) -> None:
            if isinstance(event, StepDone) and event.step == 2:
                answers.append(
                    cli("finetune", "-m", tiny_base, "-d", tiny_csv, "--epochs", "3", "--batch-size", "16",
                        "--precision", "fp32", "--out", tmp_path / "run")
                )  # fmt: skip

        textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "run", on_event=intrude, **FAST)
        assert answers[0].returncode == 9
        assert f"process {os.getpid()}" in answers[0].stderr


class TestNothingIsLost:
    """What lies in a folder is deleted only when it is a run of ours and something better can take its place."""

    def test_another_programs_run_json_is_no_run(self, tiny_base: Path, tiny_csv: Path, tmp_path: Path) -> None:
        foreign = tmp_path / "thesis"
        foreign.mkdir()
        (foreign / "run.json").write_text('{"experiment": 1}')
        with pytest.raises(UsageError, match="holds something else"):
            textclf.finetune(tiny_base, tiny_csv, out=foreign, overwrite=True, **FAST)
        assert (foreign / "run.json").exists()

    def test_a_run_that_holds_foreign_files_is_not_deleted(
        self, tiny_base: Path, tiny_csv: Path, tmp_path: Path
    ) -> None:
        run = textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "run", **FAST)
        (run.folder / "thesis.txt").write_text("precious")
        with pytest.raises(UsageError, match=r"thesis\.txt"):
            textclf.finetune(tiny_base, tiny_csv, out=run.folder, overwrite=True, **FAST)
        assert (run.folder / "thesis.txt").exists() and run.model_folder.is_dir()

    def test_overwrite_checks_data_and_model_first(self, tiny_base: Path, tiny_csv: Path, tmp_path: Path) -> None:
        run = textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "run", **FAST)
        for model, data in (
            (tmp_path / "typo", tiny_csv),
            (tiny_base, tmp_path / "typo.csv"),
            (run.model_folder, tiny_csv),
        ):
            with pytest.raises(textclf.TextclfError):
                textclf.finetune(model, data, out=run.folder, overwrite=True, **FAST)
            assert run.model_folder.is_dir()

    def test_a_failed_first_try_leaves_nothing_in_the_way(
        self, tiny_base: Path, tiny_csv: Path, tmp_path: Path
    ) -> None:
        with pytest.raises(ModelError):
            textclf.finetune(tmp_path / "typo", tiny_csv, out=tmp_path / "run", **FAST)
        assert not (tmp_path / "run").exists()
        hollow = tmp_path / "hollow"
        hollow.mkdir()
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            (hollow / name).write_bytes((tiny_base / name).read_bytes())
        with pytest.raises(ModelError):
            textclf.finetune(hollow, tiny_csv, out=tmp_path / "run", **FAST)
        assert textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "run", **FAST).state == "done"

    def test_new_data_is_not_taken_for_the_old(self, tiny_base: Path, tiny_csv: Path) -> None:
        textclf.finetune(tiny_base, tiny_csv, **FAST)
        tiny_csv.write_text(tiny_csv.read_text() + "one more row,a\n")
        with pytest.raises(ModelError, match="data has changed"):
            textclf.finetune(tiny_base, tiny_csv, **FAST)
        assert textclf.finetune(tiny_base, tiny_csv, overwrite=True, **FAST).state == "done"

    def test_what_a_killed_process_left_is_swept(self, tiny_base: Path, tiny_csv: Path, tmp_path: Path) -> None:
        def stop(event: Event) -> None:
            if isinstance(event, StepDone):
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(InterruptedRun):
            textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "run", on_event=stop, **FAST)
        (tmp_path / "run/.model.abc.tmp").mkdir()
        (tmp_path / "run/checkpoints/.step-9.abc.tmp").mkdir()
        run = textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "run", **FAST)
        assert not list(run.folder.rglob("*.tmp"))

    def test_out_may_be_an_empty_folder_or_hold_what_a_kill_left(
        self, tiny_base: Path, tiny_csv: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "empty").mkdir()
        inode = (tmp_path / "empty").stat().st_ino
        assert textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "empty", **FAST).state == "done"
        assert (tmp_path / "empty").stat().st_ino == inode, "a mounted folder cannot be replaced"
        (tmp_path / "left").mkdir()
        (tmp_path / "left/.run.json.x1.tmp").write_text("{")
        run = textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "left", **FAST)
        assert run.state == "done" and not list(run.folder.glob("*.tmp"))

    def test_a_run_killed_before_its_settings_were_written_begins_again(
        self, tiny_base: Path, tiny_csv: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class KilledError(BaseException):
            pass

        def write_or_die(path: Path, document: object) -> None:
            if path.name == "config.json":
                raise KilledError
            write(path, document)

        write = atomic.write_json
        with monkeypatch.context() as patched, pytest.raises(KilledError):
            patched.setattr(atomic, "write_json", write_or_die)
            textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "run", **FAST)
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["run.json"]
        assert textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "run", **FAST).state == "done"

    def test_out_may_be_a_link(self, tiny_base: Path, tiny_csv: Path, tmp_path: Path) -> None:
        textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "run", **FAST)
        (tmp_path / "link").symlink_to(tmp_path / "run")
        again = textclf.finetune(tiny_base, tiny_csv, out=tmp_path / "link", overwrite=True, **FAST)
        assert again.folder == (tmp_path / "run").resolve()


def test_threads_share_a_predictor(tiny_artifact: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    predictor = textclf.load(tiny_artifact)
    texts = [text for text, _ in tiny_models.rows(40)]
    expected = predictor.predict_proba(texts)
    with ThreadPoolExecutor(4) as pool:
        for probs in pool.map(lambda _: predictor.predict_proba(texts), range(16)):
            assert np.allclose(probs, expected, atol=1e-6)


def test_a_config_file_can_be_given(tiny_base: Path, tiny_csv: Path, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(f"data:\n  dataset: {tiny_csv}\ntrain:\n  epochs: 1\n  batch_size: 16\n")
    run = textclf.finetune(tiny_base, config=tmp_path / "run.yaml", epochs=2)
    assert (run.config["train"]["epochs"], run.config["train"]["batch_size"]) == (2, 16)


def test_a_dry_run_holds_no_batch_that_it_has_counted(
    tiny_base: Path, tiny_csv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[weakref.ref[Any]] = []
    alive = []

    def counted(batch: Any) -> int:
        seen.append(weakref.ref(batch))
        alive.append(sum(one() is not None for one in seen))
        return real_tokens(batch)

    monkeypatch.setattr(estimate, "real_tokens", counted)
    asked = {"model": {"name": str(tiny_base)}, "data": {"dataset": str(tiny_csv)}, "train": {"batch_size": 4}}
    told = estimate.estimate(config.build(asked, where="test"))
    assert told.micro_batches == len(seen) >= 24
    assert max(alive) <= 3
