"""Which runtime computes a model's logits, so that predict, eval and the library choose alike."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from textclf.artifact import graph
from textclf.artifact.folder import Artifact
from textclf.data.encoding import Encoded
from textclf.errors import ModelError, UsageError

RUNTIMES = ("auto", "onnx", "int8", "torch", "bf16")
"""onnx and torch give the same labels; int8 (ONNX Runtime) and bf16 (torch) are faster and may differ in a few."""


class Runtime(Protocol):
    """What computes logits: (rows, num_labels) float32, in the order of the input."""

    def logits(self, encoded: Encoded, on_progress: Callable[[int], None] | None = None) -> np.ndarray: ...


def check(runtime: str, device: str) -> None:
    """Raises UsageError for a runtime that is not known, or that never runs on this device."""
    if runtime not in RUNTIMES:
        raise UsageError(f"runtime {runtime!r} is not known", hint=f"one of {', '.join(RUNTIMES)}")
    if runtime in ("onnx", "int8") and device not in ("auto", "cpu"):
        raise UsageError(f"runtime {runtime} computes on the CPU, not on {device}", hint="use --runtime torch")


def check_head(artifact: Artifact, head: str | None) -> None:
    """Raises UsageError for code of a head where the model's head is no code."""
    if head is not None and not artifact.config.get("head_code"):
        raise UsageError(
            f"--head {head} was given, and the head of {artifact.folder} is no code of its own", hint="leave out --head"
        )


def open_runtime(
    artifact: Artifact, *, device: str = "auto", runtime: str = "auto", head: str | None = None
) -> Runtime:
    """The runtime of a model. auto: torch on a GPU, ONNX Runtime on the CPU where the model has its graph, else torch.

    head: leave to run the code of a head that is code, `FILE.py:CLASS`; only torch needs it.
    Raises UsageError as `check` and `check_head`, ModelError where a graph is asked for and there is none of these
    weights, RefusedError for a head whose code is not allowed.
    """
    check(runtime, device)
    check_head(artifact, head)
    if runtime == "auto":
        fits = device in ("auto", "cpu") and graph.belongs(artifact.folder)
        runtime = "onnx" if fits and (device == "cpu" or not _gpu_answers()) else "torch"
    if runtime in ("torch", "bf16"):
        from textclf.inference.torch_runtime import TorchRuntime  # 3 s

        return TorchRuntime(artifact, device=device, precision="bf16" if runtime == "bf16" else "fp32", head=head)
    kind = "int8" if runtime == "int8" else "fp32"
    if not graph.belongs(artifact.folder, kind):
        there = graph.graph_path(artifact.folder, kind).is_file()
        flag = " --int8" if kind == "int8" else ""
        raise ModelError(
            f"{artifact.folder}: {'its' if there else 'no'} {kind} ONNX graph"
            + (" is damaged, or was made from other weights" if there else ""),
            hint=f"write it: textclf export{flag} {artifact.folder}",
        )
    from textclf.inference.onnx_runtime import OnnxRuntime

    return OnnxRuntime(artifact, kind=kind)


def check_finite(logits: np.ndarray, artifact: Artifact) -> None:
    """Raises ModelError where logits of any shape are not numbers: they would pass for scores of 0."""
    if not np.isfinite(logits).all():
        raise ModelError(
            f"{artifact.folder}: the model gives NaN or infinity instead of a score",
            hint="its weights are damaged or its training diverged; take another checkpoint or fine-tune again",
        )


def _gpu_answers() -> bool:
    """Whether there is a CUDA or ROCm device for torch. Where no driver is, torch need not be asked, which takes 3 s.

    Apple's GPU is left to --device mps: on a Mac the CPU has answered before torch has started.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
    drivers = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd", r"C:\Windows\System32\nvcuda.dll")
    if hidden or not any(Path(path).exists() for path in drivers):
        return False
    from textclf.model.device import pick_device

    return pick_device().kind == "cuda"
