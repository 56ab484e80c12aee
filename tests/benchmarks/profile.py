"""Where the time of a training step goes, as shares, and how near the whole comes to the machine's matmul peak."""

from __future__ import annotations

import time
from typing import Any

from .lines import Contender, Line, Setting
from .materials import LONG, model_parts, read_texts, texts_part
from .training import TUNED, train_with_textclf, trainer_arguments, trainer_parts

SHARES: dict[str, str] = {
    "optimizer": "Optimizer. aten::_fused_adam aten::_foreach aten::lerp aten::addcdiv aten::addcmul",
    "attention": "aten::_scaled_dot_product aten::_flash_attention aten::_efficient_attention flex_attention",
    "matmul": "aten::mm aten::addmm aten::bmm aten::baddbmm aten::linear aten::matmul aten::mv aten::mkldnn mkldnn",
    "softmax_and_loss": "aten::_softmax aten::_log_softmax aten::nll_loss aten::cross_entropy",
    "layer_norm": "aten::native_layer_norm aten::layer_norm",
    "activation": "aten::gelu aten::silu aten::relu aten::tanh",
    "dropout": "aten::native_dropout aten::dropout aten::bernoulli aten::random_",
    "embedding": "aten::embedding aten::index_select aten::index aten::_index_put aten::gather",
    "copies": "aten::copy_ aten::clone aten::to aten::_to_copy aten::contiguous aten::cat aten::fill_ aten::zero_",
    "elementwise": "aten::add aten::mul aten::div aten::sub aten::sum aten::where aten::masked_fill",
}
"""Share -> how the names of its operations begin; the first share that fits takes an operation."""


def lines(setting: Setting) -> list[Line]:
    """textclf beside Trainer best-tuned, on short and on long texts. Not small: it compares nothing."""
    if setting.small:
        return []
    return [_line(setting, "short", 1600), _line(setting, "long", 320)]


def _line(setting: Setting, kind: str, count: int) -> Line:
    texts, make_texts = texts_part(setting, kind, count)
    size = "minilm" if setting.device == "cpu" else "bert-base"
    model, make_model = model_parts(setting, size)
    common = {"texts": str(texts), "model": str(model), "device": setting.device}
    where = "" if setting.device == "cpu" else f"-{setting.device}"
    return Line(
        name=f"profile-{kind}{where}",
        title=f"Where the time of {size}'s training goes, {kind} texts ({setting.device})",
        contenders=(
            Contender("HF best-tuned (grouped, 32, bf16)", "profile:of_trainer", common),
            Contender("textclf", "profile:of_textclf", common),
        ),
        setup=(make_texts, *make_model),
    )


class Profiled:
    """torch's profiler around a stretch of steps. The first call starts it, `stop` ends it; both may come twice."""

    def __init__(self, device: str) -> None:
        from torch.profiler import ProfilerActivity, profile

        self._by_device = device == "cuda"
        activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * self._by_device
        self._profile = profile(activities=activities)
        self._started: float | None = None
        self._seconds: float | None = None

    def start(self) -> None:
        if self._started is None:
            self._profile.__enter__()
            self._started = time.perf_counter()

    def stop(self) -> None:
        if self._started is not None and self._seconds is None:
            self._seconds = time.perf_counter() - self._started
            self._profile.__exit__(None, None, None)

    @property
    def stopped(self) -> bool:
        return self._seconds is not None

    def shares(self) -> dict[str, float]:
        """Share of the wall time by kind of work; `python_and_waiting` is what no operation accounts for."""
        from torch.autograd import DeviceType

        assert self._seconds is not None, "nothing was profiled"
        found = dict.fromkeys([*SHARES, "other"], 0.0)
        # On CUDA every operation has the time of its kernels; the kernels, which are listed too, would count twice.
        for event in (one for one in self._profile.key_averages() if one.device_type == DeviceType.CPU):
            microseconds = event.self_device_time_total if self._by_device else event.self_cpu_time_total
            found[_kind(event.key)] += microseconds / 1e6 / self._seconds
        return found | {"python_and_waiting": max(0.0, 1 - sum(found.values()))}


def of_trainer(texts: str, model: str, device: str) -> dict[str, Any]:
    """The second half of an epoch of transformers' Trainer at its best."""
    from transformers import Trainer, TrainerCallback

    profiled = Profiled(device)

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == state.max_steps:
                profiled.stop()
            elif state.global_step == state.max_steps // 2:
                profiled.start()

    how = {name: value for name, value in TUNED.items() if name != "padding"}
    parts = trainer_parts(texts, model, padding=TUNED["padding"], max_length=LONG[1])
    arguments = trainer_arguments(device=device, num_train_epochs=1, **how)
    Trainer(args=arguments, callbacks=[Watch()], **parts).train()
    return profiled.shares() | _peaks(texts, model, device)


def of_textclf(texts: str, model: str, device: str) -> dict[str, Any]:
    """The second epoch of textclf's training at its defaults, evaluations left out."""
    profiled = Profiled(device)

    def watch(event: Any) -> bool:
        if type(event).__name__ != "StepDone":
            profiled.stop()
        elif event.epoch > 1:
            profiled.start()
        return profiled.stopped

    train_with_textclf(texts, model, device, {}, watch)
    return profiled.shares() | _peaks(texts, model, device)


def _kind(operation: str) -> str:
    return next((share for share, names in SHARES.items() if operation.startswith(tuple(names.split()))), "other")


def _peaks(texts: str, model: str, device: str) -> dict[str, float]:
    """The peak of matmuls of the model's shapes in bf16 and fp32, in the same process, right after the steps."""
    import torch

    from .flops import forward_flops, matmul_peak, token_lengths

    all_texts, _ = read_texts(texts)
    flops = 3 * forward_flops(model, token_lengths(model, all_texts, LONG[1])) / len(all_texts)
    return {
        "gflop_per_text": flops / 1e9,
        "peak_bf16_tflops": matmul_peak(model, device, torch.bfloat16) / 1e12,
        "peak_fp32_tflops": matmul_peak(model, device, torch.float32) / 1e12,
    }
