"""Which runtime computes a model's logits, so that predict, eval and the library choose alike."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from textclf.artifact import graph
from textclf.artifact.folder import Artifact
from textclf.data.encoding import Encoded
from textclf.errors import ModelError, UsageError

logger = logging.getLogger(__name__)

RUNTIMES = ("auto", "onnx", "int8", "torch", "bf16", "openvino")
ROUNDED = {"int8": 1.0, "bf16": 0.2, "openvino": 0.2}
"""onnx and torch give the same labels; int8 (ONNX Runtime), bf16 (torch) and openvino (bf16) are faster and round. What
lies within this margin of another answer, in logits, is therefore computed in fp32 as well. Of MiniLM's logits on the
3,080 test texts of banking77, fine-tuned or with a probe alone, none moved by more than 0.1 in bf16, and the widest
margin at which int8 gave another label was 0.71, and 0.81 of one that had learnt from 1,600 texts only. Within 1.0 are
7 to 14 % of the texts, within 0.2 1 to 2 %."""


_UNCHECKED = "answers that are close to another are not computed again in fp32"


class Runtime(Protocol):
    """What computes logits: (rows, num_labels) float32, in the order of the input."""

    def logits(self, encoded: Encoded, on_progress: Callable[[int], None] | None = None) -> np.ndarray: ...


def check(runtime: str, device: str) -> None:
    """Raises UsageError for a runtime that is not known, or that never runs on this device."""
    if runtime not in RUNTIMES:
        raise UsageError(f"runtime {runtime!r} is not known", hint=f"one of {', '.join(RUNTIMES)}")
    if runtime in ("onnx", "int8", "openvino") and device not in ("auto", "cpu"):
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

    One that rounds is `Rechecked` on a CPU where the model has its graph.

    head: leave to run the code of a head that is code, `FILE.py:CLASS`; only torch needs it.
    Raises UsageError as `check` and `check_head`, ModelError where a graph is asked for and there is none of these
    weights, RefusedError for a head whose code is not allowed, MissingExtraError for openvino without its package.
    """
    check(runtime, device)
    check_head(artifact, head)
    if runtime == "auto":
        there = device in ("auto", "cpu") and graph.graph_path(artifact.folder).is_file()
        fits = there and (device == "cpu" or not _gpu_answers())
        runtime = "onnx" if fits and _has_graph(artifact, "torch computes, and slower") else "torch"
    if runtime in ("torch", "bf16"):
        from textclf.inference.torch_runtime import TorchRuntime  # 3 s

        by_torch = TorchRuntime(artifact, device=device, precision="bf16" if runtime == "bf16" else "fp32", head=head)
        # Elsewhere than on the CPU an exact runtime would be a second model in memory.
        rounds = runtime == "bf16" and by_torch.device.kind == "cpu"
        return rechecked(artifact, by_torch, runtime) if rounds and _has_graph(artifact, _UNCHECKED) else by_torch
    kind = "int8" if runtime == "int8" else "fp32"
    if not graph.belongs(artifact.folder, kind):
        there = graph.graph_path(artifact.folder, kind).is_file()
        flag = " --int8" if kind == "int8" else ""
        raise ModelError(
            f"{artifact.folder}: {'its' if there else 'no'} {kind} ONNX graph"
            + (" is damaged, or was made from other weights" if there else ""),
            hint=f"write it: textclf export{flag} {artifact.folder}",
        )
    if runtime == "openvino":
        from textclf.inference.openvino_runtime import OpenVinoRuntime

        return rechecked(artifact, OpenVinoRuntime(artifact), runtime)
    from textclf.inference.onnx_runtime import OnnxRuntime

    by_onnx = OnnxRuntime(artifact, kind=kind)
    return rechecked(artifact, by_onnx, runtime) if kind == "int8" and _has_graph(artifact, _UNCHECKED) else by_onnx


def _has_graph(artifact: Artifact, otherwise: str) -> bool:
    """Whether a model has its fp32 graph. Where it has one that is not its own, a warning says what happens instead."""
    found = graph.belongs(artifact.folder)
    if not found and graph.graph_path(artifact.folder).is_file():
        logger.warning(
            "%s: its fp32 ONNX graph is damaged, or was made from other weights: %s", artifact.folder, otherwise
        )
    return found


def rechecked(artifact: Artifact, rounded: Runtime, runtime: str) -> Runtime:
    """A runtime that rounds, with the exact one beside it of a model that has its graph.

    As it is where nothing would be computed again.
    """
    margin = margin_of(artifact, runtime)
    if not margin:
        return rounded
    from textclf.inference.onnx_runtime import OnnxRuntime
    from textclf.inference.rechecking import Rechecked

    return Rechecked(rounded, OnnxRuntime(artifact), artifact.label_set, margin=margin)


def margin_of(artifact: Artifact, runtime: str) -> float:
    """The margin, in logits, under which an answer of a runtime that rounds is computed again; 0 where none is, as
    where questions are answered choice by choice: a row is no answer there.
    """
    return 0.0 if artifact.form == "binary" else ROUNDED[runtime]


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
