"""Nothing is lost: signals wherever they come, trouble on the way, and what a resumed run says of itself."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import textclf
from textclf import atomic
from textclf.artifact import runs
from textclf.errors import DivergedError, InterruptedRun, ModelError, ResourceError
from textclf.training import exactness
from textclf.training.events import Event, Notice, Phase, StepDone
from textclf.training.trackers import JsonlTracker

FAST: dict[str, Any] = {"epochs": 3, "batch_size": 16, "precision": "fp32", "probe": False, "eval_every": 4}


@pytest.fixture(scope="module")
def unbroken(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, runs.Run]:
    """A data set, and an undisturbed run on it."""
    import tiny_models

    folder = tmp_path_factory.mktemp("unbroken")
    data = folder / "tickets.csv"
    data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in tiny_models.rows(120)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("textclf.model.exporting.MAX_BYTES", 0)
        patch.setenv("TEXTCLF_HOME", str(folder / "home"))
        return data, textclf.finetune(tiny_base, data, out=folder / "run", **FAST)


def same(one: runs.Run, other: runs.Run) -> bool:
    weights = [(run.model_folder / "model.safetensors").read_bytes() for run in (one, other)]
    figures = [(run.folder / "metrics.jsonl").read_bytes() for run in (one, other)]
    return weights[0] == weights[1] and figures[0] == figures[1] and one.metrics == other.metrics


def said(events: list[Event]) -> str:
    return "\n".join(event.message for event in events if isinstance(event, Notice))


@pytest.fixture
def no_nohup() -> Iterator[None]:
    """Whatever started the tests, SIGHUP is not ignored: what a process was told to ignore stays ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("no_graph", "no_nohup")
class TestSignals:
    @pytest.mark.parametrize("moment", ["tokenising", "evaluation", "last evaluation", "measuring"])
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    def test_a_signal_stops_a_run_wherever_it_is(
        self,
        number: signal.Signals,
        moment: str,
        unbroken: tuple[Path, runs.Run],
        tiny_base: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        data, whole = unbroken
        out = tmp_path / "run"
        evaluations = 0
        validate = textclf.training.learning.passing_logits

        def measure(bench: Any, split: str, *rest: Any) -> Any:
            nonlocal evaluations
            evaluations += 1
            if (moment, evaluations) in {("evaluation", 2), ("last evaluation", 5)}:
                os.kill(os.getpid(), number)
            return validate(bench, split, *rest)

        def watch(event: Event) -> None:
            if moment == "tokenising" and isinstance(event, Notice) and event.message.startswith("max_length"):
                os.kill(os.getpid(), number)
            if moment == "measuring" and isinstance(event, Phase) and event.name == "score test":
                os.kill(os.getpid(), number)

        with monkeypatch.context() as patch:
            patch.setattr("textclf.training.learning.passing_logits", measure)
            with pytest.raises(InterruptedRun) as caught:
                textclf.finetune(tiny_base, data, out=out, on_event=watch, **FAST)
        assert caught.value.exit_code == 128 + number
        kept = {"tokenising": None, "evaluation": "step-8", "last evaluation": "step-18", "measuring": "step-18"}[
            moment
        ]
        assert (f"kept: {kept}" if kept else "nothing was learnt yet") in caught.value.message
        run = runs.read(out)
        assert run is not None and run.state == "paused"
        assert same(whole, textclf.finetune(tiny_base, data, out=out, **FAST))

    def test_usr1_saves_and_goes_on(self, unbroken: tuple[Path, runs.Run], tiny_base: Path, tmp_path: Path) -> None:
        data, whole = unbroken
        events: list[Event] = []
        found: list[bool] = []

        def watch(event: Event) -> None:
            events.append(event)
            if isinstance(event, StepDone) and event.step == 6:
                os.kill(os.getpid(), signal.SIGUSR1)
            if isinstance(event, StepDone) and event.step == 7:
                found.append(atomic.verify(tmp_path / "run/checkpoints/step-6") is None)

        run = textclf.finetune(tiny_base, data, out=tmp_path / "run", on_event=watch, **FAST)
        assert found == [True] and "saved: step-6" in said(events)
        assert same(whole, run)

    def test_handlers_are_given_back_and_threads_need_none(
        self, unbroken: tuple[Path, runs.Run], tiny_base: Path
    ) -> None:
        data, whole = unbroken
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
        thread = threading.Thread(target=textclf.finetune, args=(tiny_base, data), kwargs={"out": whole.folder, **FAST})
        thread.start()
        thread.join()
        textclf.finetune(tiny_base, data, out=whole.folder, **FAST)
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


@pytest.mark.usefixtures("no_graph")
class TestResume:
    def test_what_exactness_depends_on_is_compared(
        self, unbroken: tuple[Path, runs.Run], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data, whole = unbroken
        stop_at(9, tiny_base, data, tmp_path / "run")
        surroundings = exactness.surroundings
        monkeypatch.setattr(
            "textclf.training.loop.surroundings",
            lambda device: {**surroundings(device), "threads": "96", "torch": "9.9"},
        )
        events: list[Event] = []
        run = textclf.finetune(tiny_base, data, out=tmp_path / "run", on_event=events.append, **FAST)
        threads = torch.get_num_threads()
        assert (
            f"not exactly as an unbroken run: torch was {torch.__version__}, is 9.9; threads was {threads}, is 96"
            in (said(events))
        )
        assert same(whole, run)  # of which nothing was really different

    def test_changed_data_shows_what_changed(
        self, unbroken: tuple[Path, runs.Run], tiny_base: Path, tmp_path: Path
    ) -> None:
        data = tmp_path / "own.csv"
        data.write_text(unbroken[0].read_text())
        stop_at(2, tiny_base, data, tmp_path / "run")
        data.write_text(data.read_text() + "".join(f"one more row {number},a\n" for number in range(10)))
        for _ in range(2):  # what was known of the first try stays known
            with pytest.raises(ModelError, match=r"(?s)rows of +then +now\n  train +96 +104\n.*train, label a +32 +40"):
                textclf.finetune(tiny_base, data, out=tmp_path / "run", **FAST)

    def test_figures_are_neither_lost_nor_doubled(self, tmp_path: Path) -> None:
        path = tmp_path / "metrics.jsonl"
        with JsonlTracker(path) as tracker:
            for step in (10, 20):
                tracker.log({"loss": 1.0}, step)
                tracker.log({"validation": {"loss": 1.0}}, step)
        with path.open("a") as file:
            file.write('{"step": 3')
        with JsonlTracker(path, resume_at=20, evaluated_at=10):
            pass
        assert [(line["step"], "validation" in line) for line in map(json.loads, path.read_text().splitlines())] == [
            (10, False),
            (10, True),
            (20, False),
        ]

    def test_a_damaged_best_checkpoint_is_said_and_the_last_weights_taken(
        self, tiny_base: Path, unbroken: tuple[Path, runs.Run], tmp_path: Path
    ) -> None:
        settings = {
            **FAST,
            "learning_rate": 1e-12,
            "head_learning_rate": 1e-12,
            "metric": "accuracy",
            "averaging": 0,
        }  # the first is the best
        stop_at(17, tiny_base, unbroken[0], tmp_path / "run", settings)
        state = json.loads((tmp_path / "run/checkpoints/step-17/state.json").read_text())
        assert state["best_step"] == 4
        flip(tmp_path / "run/checkpoints/step-4/weights.safetensors", -1)
        events: list[Event] = []
        run = textclf.finetune(tiny_base, unbroken[0], out=tmp_path / "run", on_event=events.append, **settings)
        assert "checkpoint step-4 is damaged" in said(events) and run.document["best_step"] == 18

    def test_keep_bounds_the_checkpoints(
        self, tiny_base: Path, unbroken: tuple[Path, runs.Run], tmp_path: Path
    ) -> None:
        for keep in (1, 3):
            out = tmp_path / f"keep-{keep}"
            stop_at(17, tiny_base, unbroken[0], out, {**FAST, "keep": keep})
            best = json.loads((out / "checkpoints/step-17/state.json").read_text())["best_step"]
            newest = {1: {17}, 3: {12, 16, 17}}[keep]
            assert {int(path.name[5:]) for path in (out / "checkpoints").iterdir()} == newest | {best}


@pytest.mark.usefixtures("no_graph")
class TestTrouble:
    def test_memory_that_runs_out_halves_the_passes(
        self, unbroken: tuple[Path, runs.Run], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By a stand-in for the device, which takes no pass of more than 5 texts; no real one ran out of memory."""
        from textclf.model.classifier import Classifier

        data, _ = unbroken
        base = shutil.copytree(tiny_base, tmp_path / "without-dropout")
        config = json.loads((base / "config.json").read_text())
        config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        (base / "config.json").write_text(json.dumps(config))
        whole = textclf.finetune(base, data, out=tmp_path / "whole", **FAST)
        forward = Classifier.forward
        seen: list[int] = []

        def narrow(self: Classifier, batch: Any) -> torch.Tensor:
            if len(batch.rows) > 5:
                raise torch.OutOfMemoryError("CUDA out of memory (a stand-in)")
            seen.extend(batch.rows.tolist() if self.training else [])
            return forward(self, batch)

        monkeypatch.setattr(Classifier, "forward", narrow)
        events: list[Event] = []
        run = textclf.finetune(base, data, out=tmp_path / "run", on_event=events.append, **FAST)
        assert "it is done again, and others after it, in passes cut into 4" in said(events)
        assert sorted(seen) == sorted([*range(96)] * 3), "every text once an epoch"
        got, wanted = (load_file(one.model_folder / "model.safetensors") for one in (run, whole))
        assert all(torch.allclose(got[name], wanted[name], atol=1e-3) for name in wanted)

    def test_memory_for_not_even_one_text_ends_the_run(
        self, unbroken: tuple[Path, runs.Run], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def never(self: Any, batch: Any) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory (a stand-in)")

        monkeypatch.setattr("textclf.model.classifier.Classifier.forward", never)
        with pytest.raises(ResourceError, match=r"at step 1, with one text at a time; kept: nothing yet") as caught:
            textclf.finetune(tiny_base, unbroken[0], out=tmp_path / "run", **FAST)
        assert caught.value.exit_code == 6

    def test_divergence_names_the_rows(
        self, unbroken: tuple[Path, runs.Run], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from textclf.model.classifier import Classifier

        forward = Classifier.forward

        def poisoned(self: Classifier, batch: Any) -> torch.Tensor:
            logits = forward(self, batch)
            return (
                torch.where(torch.from_numpy(batch.rows == 42)[:, None], torch.nan, logits) if self.training else logits
            )

        monkeypatch.setattr(Classifier, "forward", poisoned)
        with pytest.raises(DivergedError, match=r"step \d+: loss nan.*rows without a finite loss: 42 \(of prepared"):
            textclf.finetune(tiny_base, unbroken[0], out=tmp_path / "run", **FAST)

    def test_a_score_that_is_no_number_is_never_best(
        self, unbroken: tuple[Path, runs.Run], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from textclf.model.classifier import Classifier

        forward = Classifier.forward

        def poisoned(self: Classifier, batch: Any) -> torch.Tensor:
            return forward(self, batch) * (1 if self.training else torch.nan)

        monkeypatch.setattr(Classifier, "forward", poisoned)
        with pytest.raises(DivergedError, match="the evaluation at step 4"):
            textclf.finetune(tiny_base, unbroken[0], out=tmp_path / "run", **FAST)

    def test_a_tracker_that_dies_stops_nothing(
        self, unbroken: tuple[Path, runs.Run], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data, whole = unbroken

        def broken(self: JsonlTracker, metrics: dict[str, Any], step: int) -> None:
            raise OSError(errno.EIO, "Input/output error")

        monkeypatch.setattr(JsonlTracker, "log", broken)
        events: list[Event] = []
        run = textclf.finetune(tiny_base, data, out=tmp_path / "run", on_event=events.append, **FAST)
        assert said(events).count("no more figures are kept, training goes on: OSError") == 1
        assert run.metrics == whole.metrics

    def test_a_full_disk_names_what_is_kept(
        self, unbroken: tuple[Path, runs.Run], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data, whole = unbroken
        write = textclf.training.checkpoint._write

        def full(tensors: Any, path: Path) -> None:
            if "step-12" in str(path):
                raise OSError(errno.ENOSPC, "No space left on device")
            write(tensors, path)

        with monkeypatch.context() as patch:
            patch.setattr("textclf.training.checkpoint._write", full)
            with pytest.raises(ResourceError, match=r"disk is full.*kept: step-8"):
                textclf.finetune(tiny_base, data, out=tmp_path / "run", **FAST)
        assert same(whole, textclf.finetune(tiny_base, data, out=tmp_path / "run", **FAST))

    def test_a_disk_too_small_is_said_before_training(
        self, unbroken: tuple[Path, runs.Run], tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
        with pytest.raises(ResourceError, match=r"0\.00 GB are free, and this run needs"):
            textclf.finetune(tiny_base, unbroken[0], out=tmp_path / "run", **FAST)


@pytest.mark.usefixtures("no_graph")
class TestLocks:
    def test_a_disk_without_locks_is_said(
        self,
        unbroken: tuple[Path, runs.Run],
        tiny_base: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        def none(handle: int, how: int) -> None:
            raise OSError(errno.ENOLCK, "No locks available")

        monkeypatch.setattr("fcntl.flock", none)
        assert same(unbroken[1], textclf.finetune(tiny_base, unbroken[0], out=tmp_path / "run", **FAST))
        assert "the disk has no locks" in caplog.text

    def test_a_home_that_cannot_be_written_is_said(
        self, unbroken: tuple[Path, runs.Run], tiny_base: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TEXTCLF_HOME", "/proc/nowhere")
        with pytest.raises(ResourceError, match="cannot be written"):
            textclf.finetune(tiny_base, unbroken[0], **FAST)


class TestModelFolder:
    """Every file that is read has to be as it was written."""

    def test_damage_is_noticed_and_own_changes_are_possible(
        self, unbroken: tuple[Path, runs.Run], tmp_path: Path
    ) -> None:
        folder = shutil.copytree(unbroken[1].model_folder, tmp_path / "model")
        time.sleep(2.1)
        textclf.load(folder)  # from here on, digests are remembered
        for name in json.loads((folder / atomic.MANIFEST).read_text())["files"]:
            flip(folder / name, 10)
            with pytest.raises(ModelError, match=f"{re.escape(name)} is not as it was written"):
                textclf.load(folder)
            flip(folder / name, 10)
        textclf.load(folder)
        (folder / "README.md").write_text("my own words")
        textclf.load(folder)
        (folder / atomic.MANIFEST).unlink()
        textclf.load(folder)

    def test_what_was_read_once_is_not_read_again(
        self, unbroken: tuple[Path, runs.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = shutil.copytree(unbroken[1].model_folder, tmp_path / "model")
        hashed: list[str] = []
        sha256 = atomic.sha256
        monkeypatch.setattr("textclf.atomic.sha256", lambda path: hashed.append(path.name) or sha256(path))
        textclf.load(folder)
        assert "model.safetensors" in hashed
        monkeypatch.setattr("textclf.artifact.integrity._SETTLED_SECONDS", 0.0)
        textclf.load(folder)
        hashed.clear()
        textclf.load(folder)
        assert hashed == []
        monkeypatch.setenv("TEXTCLF_HOME", "/proc/nowhere")  # nothing can be remembered there
        textclf.load(folder)
        assert "model.safetensors" in hashed


def test_processes_that_write_one_cache_entry_at_once_all_succeed(tmp_path: Path) -> None:
    """Without any lock: the last one wins, and whoever reads finds it whole."""
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write_entry, args=(tmp_path / "entry", str(number))) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    assert atomic.verify(tmp_path / "entry") is None
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def _write_entry(path: Path, content: str) -> None:
    for _ in range(20):
        with atomic.new_folder(path, manifest=True) as draft:
            for name in "ab":
                (draft / name).write_text(content)


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


def stop_at(step: int, base: Path, data: Path, out: Path, settings: dict[str, Any] = FAST) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(InterruptedRun):
        textclf.finetune(base, data, out=out, on_event=stop, **settings)


class TestAnswersInAFile:
    """`predict FILE -o FILE` that was stopped goes on: no answer is lost and none is given twice."""

    @pytest.mark.parametrize("extension", ["tsv", "csv", "jsonl", "json"])
    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
    def test_a_stopped_file_is_gone_on_with(
        self, extension: str, number: signal.Signals, tiny_artifact: Path, tmp_path: Path
    ) -> None:
        texts = tmp_path / "texts.txt"
        texts.write_text("".join(f"where is my card number {index}\n" for index in range(700)))
        output = tmp_path / f"answers.{extension}"
        assert _predict(tiny_artifact, texts, output) == 0
        wanted = output.read_bytes()
        output.unlink()
        for _ in range(2):
            code = _predict(tiny_artifact, texts, output, stop_at=2, number=number)
            assert code == (-number if number == signal.SIGKILL else 128 + number)
            assert not output.exists()
        counted = tmp_path / "counted"
        assert _predict(tiny_artifact, texts, output, count=counted) == 0
        assert output.read_bytes() == wanted
        assert int(counted.read_text()) == 700 - 64 - 128, "what was answered before is not computed again"
        assert sorted(path.name for path in tmp_path.glob(".*")) == []

    def test_other_inputs_begin_anew(self, tiny_artifact: Path, tmp_path: Path) -> None:
        texts, output = tmp_path / "texts.txt", tmp_path / "answers.tsv"
        texts.write_text("one\n" * 300)
        assert _predict(tiny_artifact, texts, output, stop_at=2, number=signal.SIGTERM) == 143
        texts.write_text("two\n" * 300)
        assert _predict(tiny_artifact, texts, output) == 0
        lines = output.read_text().splitlines()
        assert len(lines) == 300 and all(line.endswith("\ttwo") for line in lines)


def _predict(
    model: Path,
    texts: Path,
    output: Path,
    *,
    stop_at: int = 0,
    number: signal.Signals = signal.SIGTERM,
    count: Path | None = None,
) -> int:
    """The exit code of predict in a forked process; `stop_at`: the window in which the signal comes."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        import sys

        from textclf.cli import app, predict
        from textclf.inference.prediction import Predictor

        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        predict.SYNC_SECONDS = 0.0
        answer, windows, answered = Predictor._answer, 0, 0

        def counting(self: Any, window: Any, *rest: Any) -> Any:
            nonlocal windows, answered
            windows += 1
            answered += len(window)
            if windows == stop_at:
                os.kill(os.getpid(), number)
            return answer(self, window, *rest)

        Predictor._answer = counting  # type: ignore[method-assign]
        sys.argv = ["textclf", "predict", "-m", str(model), str(texts), "-o", str(output), "--runtime", "torch"]
        try:
            app.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0
        if count is not None:
            count.write_text(str(answered))
    finally:
        os._exit(code)
