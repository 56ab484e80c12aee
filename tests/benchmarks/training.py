"""Training: texts a second and peak memory of textclf's defaults beside Hugging Face's Trainer."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .child import peak_mib
from .lines import Comparison, Contender, Line, Setting
from .materials import LONG, model_parts, read_texts, texts_part

WARM_UP_STEPS = 4
"""Steps of a Trainer of its own before the one that is timed."""
TIMES = 2
"""textclf is timed over so many times as many texts as the slower peers, after as many as theirs of warm-up."""

BANKING77 = 8900
"""Training texts of short lines, nearly all that banking77 has: how often textclf adds to its mean of the weights goes
by the length of the run. What the Trainer does in a step does not."""

# run_classification's defaults: padded to 128 tokens, batch 8, fp32, AdamW.
DEFAULTS = {"batch_size": 8, "padding": "max_length", "max_length": 128}
DYNAMIC_8 = {"batch_size": 8, "padding": "dynamic"}
DYNAMIC_32 = {"batch_size": 32, "padding": "dynamic", "precision": "bf16"}
TUNED = {"batch_size": 32, "padding": "dynamic", "precision": "bf16", "grouped": True}


def lines(setting: Setting) -> list[Line]:
    """Short and long texts, and a decoder; on CUDA the encoders that people use there."""
    if setting.small:
        return [_short(setting, "minilm", 320, 320, few=True)]
    if setting.device == "cuda":
        return [
            make
            for size in ("bert-base", "modernbert-base")
            for make in (_short(setting, size, BANKING77, 6400), _long(setting, size, 1600))
        ] + [_decoder(setting, 1600)]
    return [_short(setting, "minilm", BANKING77, 1600), _long(setting, "minilm", 320), _decoder(setting, 320)]


def _short(setting: Setting, size: str, rows: int, timed: int, *, few: bool = False) -> Line:
    # Whole epochs of the faster ones: the memory of a short stretch is less than that of a run.
    whole = {"timed": rows}
    peers = {
        "HF defaults (pad 128, 8, fp32)": DEFAULTS,
        "HF dynamic padding (8, fp32)": DYNAMIC_8,
        "HF dynamic padding (32, bf16)": {**DYNAMIC_32, **whole},
        "HF best-tuned (grouped, 32, bf16)": {**TUNED, **whole},
    }
    if few:
        peers = {name: peers[name] for name in list(peers)[-1:]}
    ours = {"textclf": {}} if few else {"textclf": {}, "textclf fp32": {"precision": "fp32"}}
    goals = {
        ("textclf", "HF defaults (pad 128, 8, fp32)"): 25.0,
        ("textclf", "HF dynamic padding (8, fp32)"): 7.0,
        ("textclf", "HF best-tuned (grouped, 32, bf16)"): 1.4,
        ("textclf fp32", "HF defaults (pad 128, 8, fp32)"): 15.0,
    }
    return _line(setting, "short", size, rows, timed, peers, ours, goals)


def _long(setting: Setting, size: str, rows: int) -> Line:
    # On a CPU smaller batches are the faster ones here: attention of 32 texts of 512 tokens leaves every cache.
    tuned = {**TUNED, "batch_size": 8 if setting.device == "cpu" else 32}
    best = f"HF best-tuned (grouped, {tuned['batch_size']}, bf16)"
    peers = {"HF dynamic padding (32, bf16)": DYNAMIC_32, best: tuned}
    goals = {("textclf", "HF dynamic padding (32, bf16)"): 6.0, ("textclf", best): None}
    return _line(setting, "long", size, rows, rows, peers, {"textclf": {}}, goals)


def _decoder(setting: Setting, rows: int) -> Line:
    peers = {"HF dynamic (32, fp32)": {**DYNAMIC_32, "precision": "fp32"}, "HF dynamic (32, bf16)": DYNAMIC_32}
    goals = {("textclf", "HF dynamic (32, fp32)"): None, ("textclf", "HF dynamic (32, bf16)"): 1.8}
    return _line(setting, "short", "gpt2", rows, rows, peers, {"textclf": {}}, goals)


def _line(
    setting: Setting,
    kind: str,
    size: str,
    rows: int,
    timed: int,
    peers: dict[str, dict[str, Any]],
    ours: dict[str, dict[str, Any]],
    goals: dict[tuple[str, str], float | None],
) -> Line:
    texts, make_texts = texts_part(setting, kind, rows)
    model, make_model = model_parts(setting, size)
    common = {"texts": str(texts), "timed": timed, "model": str(model), "device": setting.device}
    best = list(peers)[-1]
    memory = "peak_gpu_mib" if setting.device == "cuda" else "peak_mib"
    compared = [
        Comparison(one, peer, "texts_per_second", goal=goal)
        for (one, peer), goal in goals.items()
        if one in ours and peer in peers
    ]
    compared += [Comparison("textclf", best, memory, better="less", goal=1 / 0.65)]
    where = "" if setting.device == "cpu" else f"-{setting.device}"
    return Line(
        name=f"training-{kind}-{size}{where}",
        title=f"Training {size} on {rows:,} {kind} texts ({setting.device})",
        contenders=tuple(
            [Contender(name, "training:with_trainer", {**common, **how}) for name, how in peers.items()]
            + [Contender(name, "training:with_textclf", {**common, "settings": how}) for name, how in ours.items()]
        ),
        comparisons=tuple(compared),
        setup=(make_texts, *make_model),
        needs_data=not setting.small,
    )


def with_trainer(
    texts: str,
    timed: int,
    model: str,
    device: str,
    batch_size: int,
    padding: str,
    precision: str = "fp32",
    grouped: bool = False,
    max_length: int = LONG[1],
) -> dict[str, float]:
    """Transformers' Trainer over `timed` texts, from the first step to the last, after a few steps of warm-up."""
    import torch
    from transformers import Trainer, TrainerCallback

    class Clock(TrainerCallback):
        first = last = 0.0

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.first = self.first or _now(device)

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == state.max_steps:
                self.last = _now(device)

    torch.manual_seed(0)
    parts = trainer_parts(texts, model, padding=padding, max_length=max_length)
    how = {"device": device, "batch_size": batch_size, "precision": precision, "grouped": grouped}
    Trainer(args=trainer_arguments(**how, max_steps=WARM_UP_STEPS), **parts).train()
    gc.collect()  # else the first optimizer's state would count as the second one's memory
    clock = Clock()
    steps = timed // batch_size
    Trainer(args=trainer_arguments(**how, max_steps=steps), callbacks=[clock], **parts).train()
    return _figures(steps * batch_size / (clock.last - clock.first), texts, model, device, max_length)


def trainer_parts(texts: str, model: str, *, padding: str, max_length: int) -> dict[str, Any]:
    """Model, tokenised texts and collator, as run_classification makes them."""
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, DataCollatorWithPadding

    tokenizer = AutoTokenizer.from_pretrained(model)
    all_texts, labels = read_texts(texts)
    names = sorted(set(labels))
    rows = Dataset.from_dict({"text": all_texts, "label": [names.index(label) for label in labels]}).map(
        lambda batch: tokenizer(
            batch["text"],
            truncation=True,
            max_length=max_length,
            padding="max_length" if padding != "dynamic" else False,
        ),
        batched=True,
        remove_columns="text",
    )
    return {
        "model": AutoModelForSequenceClassification.from_pretrained(model, num_labels=len(names)),
        "train_dataset": rows,
        "processing_class": tokenizer,
        "data_collator": DataCollatorWithPadding(tokenizer),
    }


def trainer_arguments(*, device: str, batch_size: int, precision: str, grouped: bool, **more: Any) -> Any:
    """TrainingArguments that leave everything else at its default, but write and report nothing."""
    import tempfile

    from transformers import TrainingArguments

    return TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=batch_size,
        bf16=precision == "bf16",
        train_sampling_strategy="group_by_length" if grouped else "random",
        use_cpu=device == "cpu",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **more,
    )


def with_textclf(texts: str, timed: int, model: str, device: str, settings: dict[str, Any]) -> dict[str, float]:
    """textclf's own training at its defaults: the steps of some of its texts, without evaluations."""
    rows = len(read_texts(texts)[0])
    clock = StepClock(device, after=timed / rows, until=(1 + TIMES) * timed / rows)
    train_with_textclf(texts, model, device, settings, clock)
    assert clock.seconds, "an epoch of one or two steps cannot be timed: give it more texts"
    return _figures(clock.epochs * rows / clock.seconds, texts, model, device, LONG[1])


def train_with_textclf(
    texts: str, model: str, device: str, settings: dict[str, Any], observe: Callable[[Any], bool]
) -> None:
    """Run `textclf.finetune` until the observer says that it has seen enough."""
    import tempfile

    import textclf

    class SeenError(Exception):
        pass

    def watch(event: Any) -> None:
        if observe(event):
            raise SeenError

    try:
        textclf.finetune(
            model, texts, out=Path(tempfile.mkdtemp()) / "run", on_event=watch, test_size=0, device=device,
            r_drop=0,  # the peers read each text once a step; so does the default on banking77's many labels
            **settings,
        )  # fmt: skip
    except SeenError:
        return
    raise AssertionError("the run ended before enough of it was seen")


class StepClock:
    """Adds up the time between steps; a stretch with anything but steps in it is left out.

    after, until: epochs. epochs, seconds: what was counted so far.
    """

    def __init__(self, device: str, *, after: float, until: float) -> None:
        self.epochs = self.seconds = 0.0
        self._device, self._after, self._until = device, after, until
        self._before: tuple[float, float] | None = None

    def __call__(self, event: Any) -> bool:
        """Take an event of `textclf.finetune`; whether the last step that counts is done."""
        if type(event).__name__ != "StepDone":
            self._before = None
            return False
        now = _now(self._device)
        if self._before and self._before[1] >= self._after:
            self.seconds += now - self._before[0]
            self.epochs += event.epoch - self._before[1]
        self._before = (now, event.epoch)
        return bool(event.epoch >= self._until)


def _now(device: str) -> float:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()
    return time.perf_counter()


def _figures(rate: float, texts: str, model: str, device: str, max_length: int) -> dict[str, float]:
    """The figures of a training of `rate` texts a second; memory is read before anything else is computed."""
    import torch

    figures = {"texts_per_second": rate, "peak_mib": peak_mib()}
    if device == "cuda":
        figures["peak_gpu_mib"] = torch.cuda.max_memory_allocated() / 2**20
    from .flops import forward_flops, matmul_peak, token_lengths

    all_texts, _ = read_texts(texts)
    lengths_N = token_lengths(model, all_texts, max_length)
    done = 3 * forward_flops(model, lengths_N) / len(all_texts) * rate
    peak = matmul_peak(model, device, torch.bfloat16)
    return figures | {"tflops": done / 1e12, "peak_tflops": peak / 1e12, "peak_share": done / peak}
