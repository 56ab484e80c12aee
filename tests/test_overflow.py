"""What becomes of texts that are longer than the model reads."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import textclf
import tiny_models
from textclf.data import cutting
from textclf.data.encoding import Encoded, encode
from textclf.model.tokenizer import backend, load_tokenizer

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_head_and_tail_are_kept(tiny_base: Path) -> None:
    tokenizer = backend(load_tokenizer(tiny_base))
    text = " ".join(f"{number % 10}" for number in range(60))
    whole = encode([text], tokenizer).row(0).tolist()
    encoded = encode([text, "1 2 3"], tokenizer, max_length=22, overflow="head-tail")
    assert encoded.row(0).tolist() == [*whole[:6], *whole[-16:]]
    assert encoded.row(1).tolist() == encode(["1 2 3"], tokenizer).row(0).tolist()
    assert (encoded.texts_cut, encoded.truncated.tolist()) == (1, [True, False])


def test_windows_show_all_of_a_text(tiny_base: Path) -> None:
    tokenizer = backend(load_tokenizer(tiny_base))
    texts = ["7", " ".join(f"{number % 10}" for number in range(60)), "1 2 3"] * 100
    whole = encode(texts, tokenizer).row(1).tolist()
    encoded = encode(texts, tokenizer, max_length=22, overflow="window")
    assert encoded.windows.tolist() == [1, 4, 1] * 100
    assert encoded.texts_cut == 100
    assert [encoded.row(row).tolist() for row in range(1, 5)] == [
        [whole[0], *whole[1 + start : 21 + start], whole[-1]] for start in (0, 15, 30, 40)
    ]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 90)), min_size=1, max_size=5), st.integers(4, 40),
    st.sampled_from(["truncate", "head-tail", "window"]), st.booleans(),
)  # fmt: skip
def test_rows_fit_and_windows_leave_nothing_of_the_moving_part_out(
    sizes: list[tuple[int, int]], limit: int, overflow: str, keep_pairs: bool
) -> None:
    size_N, pair_size_N = np.array(sizes, dtype=np.int64).T
    pieces = cutting.pieces(size_N, pair_size_N, limit, overflow=overflow, keep_pairs=keep_pairs)
    kept_R = pieces.first.head + pieces.first.tail + pieces.second.head + pieces.second.tail
    total_R = (size_N + pair_size_N)[pieces.text]
    assert (kept_R == np.minimum(total_R, limit)).all()
    assert (pieces.cut == (total_R > limit)).all()
    for text, (size, pair_size) in enumerate(sizes):
        rows = pieces.text == text
        seen = [
            set(
                np.concatenate(
                    [np.arange(start, start + head) for start, head in zip(of.start[rows], of.head[rows], strict=True)]
                )
            )
            for of in (pieces.first, pieces.second)
        ]
        if overflow == "window":
            first_moves = keep_pairs or size >= pair_size
            assert len(seen[0 if first_moves else 1]) == (size if first_moves else pair_size)
        if keep_pairs and pair_size + min(size, 1) <= limit:
            assert ((pieces.second.head + pieces.second.tail)[rows] == pair_size).all()


def test_windows_are_pooled_by_their_mean_logits() -> None:
    windows = Encoded(np.zeros(6, np.uint16), np.arange(7), np.array([False, 1, 1, 1, False, 0], bool), None,
                      np.array([0, 1, 1, 1, 2, 3]))  # fmt: skip
    logits = np.arange(12, dtype=np.float32).reshape(6, 2)
    assert windows.per_text(logits).tolist() == [[0, 1], [4, 5], [8, 9], [10, 11]]
    assert windows.take(np.array([1, 2])).text is not None


@pytest.mark.parametrize("overflow", ["head-tail", "window"])
def test_what_was_trained_is_what_answers(cli: Run, tiny_base: Path, tmp_path: Path, overflow: str) -> None:
    # The label's words stand at the end, past what is read from the start.
    rows = [(" ".join([*(["the"] * 30), text.rsplit(" ", 1)[0]]), label) for text, label in tiny_models.rows(90)]
    data, out = tmp_path / "long.csv", tmp_path / "run"
    data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows))
    said: list[str] = []
    textclf.finetune(
        tiny_base, data, max_length=24, overflow=overflow, epochs=2, learning_rate=1e-3, device="cpu", out=out,
        on_event=lambda event: said.append(getattr(event, "message", "")),
    )  # fmt: skip
    fate = "lose their middle" if overflow == "head-tail" else "windows"
    assert any("longer and" in message and fate in message for message in said)
    assert json.loads((out / "model" / "textclf.json").read_text())["overflow"] == overflow
    texts = [text for text, _ in rows]
    by_onnx, by_torch = (
        textclf.load(out, device="cpu", runtime=runtime).predict_proba(texts) for runtime in ("onnx", "torch")
    )
    np.testing.assert_allclose(by_onnx, by_torch, atol=2e-5)
    ends = textclf.load(out).predict_proba([texts[0], texts[0].rsplit(" ", 2)[0] + " other words"])
    assert np.abs(ends[0] - ends[1]).max() > 1e-4  # the end is read
    report = textclf.evaluate(out, dataset=data, device="cpu").as_dict()
    assert (report["overflow"], report["truncated"], report["metrics"]["rows"]) == (overflow, 90, 90)
    answers = textclf.load(out, device="cpu").predict(texts)
    assert report["metrics"]["accuracy"] == pytest.approx(np.mean(answers == np.array([label for _, label in rows])))
    told = cli("predict", out, data, "--verbose").stderr
    assert ("lost their middle" in told) == (overflow == "head-tail")


def test_windows_of_a_text_count_once_in_training(tiny_base: Path, tmp_path: Path) -> None:
    from textclf.config import build
    from textclf.training.learning import make_learning
    from textclf.training.workbench import assemble

    data = tmp_path / "d.csv"
    long = " ".join(["the card"] * 60)
    data.write_text("text,label\n" + "".join(f"{long if n % 2 else 'money'} {n},{'ab'[n % 2]}\n" for n in range(60)))
    config = build(
        {"data": {"dataset": str(data)}, "train": {"device": "cpu"},
         "model": {"name": str(tiny_base), "max_length": 24, "overflow": "window"}}
    )  # fmt: skip
    bench = assemble(config, lambda event: None)
    learning, train = make_learning(bench), bench.encoded["train"]
    assert train.text is not None and learning.weights is not None
    weight_of_text = np.bincount(train.text, weights=learning.weights)
    np.testing.assert_allclose(weight_of_text, weight_of_text[0], rtol=1e-5)
    assert learning.weights.mean() == pytest.approx(1)
    assert len(learning.targets) == len(train) > len(train.windows)
    assert len(bench.targets["train"]) == len(train.windows)
    assert bench.probe_rows is not None
    assert bench.probe_rows.tolist() == list(range(len(train.windows))), "the probe learns from texts, not from windows"


def test_class_weights_and_probe_take_a_text_for_one_however_many_windows_it_has(
    tiny_base: Path, tmp_path: Path
) -> None:
    from textclf.config import build
    from textclf.training.head import choose_head
    from textclf.training.learning import make_learning
    from textclf.training.workbench import assemble

    data = tmp_path / "d.csv"
    long = " ".join(["the card"] * 60)
    data.write_text("text,label\n" + "".join(f"{long if n % 2 else 'money'} {n},{'ab'[n % 2]}\n" for n in range(60)))
    config = build(
        {"data": {"dataset": str(data)}, "train": {"device": "cpu", "class_weights": "balanced"},
         "model": {"name": str(tiny_base), "max_length": 24, "overflow": "window"}}
    )  # fmt: skip
    said: list[str] = []
    bench = choose_head(assemble(config, lambda event: None), lambda event: said.append(getattr(event, "message", "")))
    learning, train = make_learning(bench), bench.encoded["train"]
    assert learning.weights is not None
    logits, targets = torch.zeros(len(train), 2), torch.from_numpy(learning.targets)
    loss_N = learning.loss(logits, targets).numpy() * learning.weights
    say_C = [loss_N[learning.targets == label].sum() for label in (0, 1)]
    assert say_C[0] == pytest.approx(say_C[1], rel=0.01), "both labels have as many texts, so the same say"
    assert any(f"linear probe on {len(train.windows)} texts" in message for message in said)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--overflow", "sideways"), "model.overflow is 'sideways'; it is one of truncate, head-tail, window"),
        (("--form", "binary", "--shuffle-choices"), "data.shuffle_choices changes nothing in form binary"),
        (("--form", "binary", "--text-pair-column", "b"), "data.text_pair_column is given beside data.form binary"),
        (("--form", "ternary"), "data.form is 'ternary'; it is one of binary, multiclass"),
    ],
)
def test_flags_reach_the_configuration_and_are_checked(cli: Run, flags: tuple[str, ...], words: str) -> None:
    refused = cli("finetune", "--model", "m", "--dataset", "d", *flags)
    assert (refused.returncode, words in refused.stderr) == (2, True), refused.stderr
