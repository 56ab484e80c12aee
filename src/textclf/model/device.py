"""Which device and number format the machine at hand is best served with, and why."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from textclf.cpus import allowed_cpus
from textclf.errors import ResourceError, UsageError


@dataclass(frozen=True)
class Device:
    """Where the network runs and in which precision its forward and backward pass are computed.

    precision: fp32, bf16 or fp16; weights and optimizer are always fp32.
    reason: one line for the user.
    """

    torch_device: torch.device
    precision: str
    reason: str

    @property
    def kind(self) -> str:
        """cpu, cuda or mps."""
        return self.torch_device.type

    @property
    def pass_tokens(self) -> int:
        """Tokens of a forward pass in training: enough to fill the device, few enough for its caches and memory."""
        return 2048 if self.kind == "cpu" else 16384

    @property
    def max_padding(self) -> int | None:
        """Padding tokens of a forward pass that one more pass is cheaper than; None where passes are dear.

        On a CPU a pass costs little beside its tokens; on a GPU many kernels have to be started for each.
        """
        return 64 if self.kind == "cpu" else None

    def autocast(self) -> AbstractContextManager[object]:
        """The mixed-precision context of a forward pass; does nothing in fp32."""
        if self.precision == "fp32":
            return nullcontext()
        return torch.autocast(self.kind, dtype=_DTYPES[self.precision])

    def peak_memory(self) -> int | None:
        """Bytes at most held so far: of the device on CUDA, of the process on the CPU; None where unknown."""
        if self.kind == "cuda":
            return int(torch.cuda.max_memory_allocated(self.torch_device))
        if self.kind == "mps":
            return int(torch.mps.driver_allocated_memory())
        try:
            import resource
            import sys
        except ImportError:  # Windows
            return None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return int(peak if sys.platform == "darwin" else peak * 1024)


def on_device(values: np.ndarray, device: torch.device) -> Tensor:
    """An array as a tensor on the device, of the same shape and dtype; on the CPU over the same memory.

    To CUDA from pinned memory, so that nobody waits for the copy. Elsewhere with waiting: MPS would read on in memory
    that has been given back, and compute with what it finds there (pytorch/pytorch#189690).
    """
    tensor = torch.from_numpy(values)
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(wanted: str = "auto", precision: str = "auto") -> Device:
    """Pick CUDA, MPS or CPU, and the precision of training on it. torch gets no more threads than `allowed_cpus`.

    Raises UsageError for a name that is no device, ResourceError for one that this machine lacks.
    """
    device, why_device = _pick_kind(wanted)
    # Threads beyond a container's quota stop all of them for most of the time; torch counts cores only.
    if (cpus := allowed_cpus()) < torch.get_num_threads():
        torch.set_num_threads(cpus)
    if device.type == "cpu":
        _multiply_by_onednn()
    chosen, why_precision = _pick_precision(device, precision)
    return Device(device, chosen, f"{_describe(device)} ({why_device}), {chosen} ({why_precision})")


def _pick_kind(wanted: str) -> tuple[torch.device, str]:
    if wanted == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device()), "a CUDA device is there"
        if torch.backends.mps.is_available():
            return torch.device("mps"), "Apple's MPS is there"
        return torch.device("cpu"), "no CUDA or MPS device was found"
    try:
        device = torch.device(wanted)
    except RuntimeError as err:
        raise UsageError(f"device {wanted!r} is not known", hint="use auto, cpu, mps, cuda or cuda:N") from err
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ResourceError(
            f"device {wanted}: this machine has {torch.cuda.device_count()} CUDA devices that torch can use",
            hint="check `nvidia-smi`, and that torch was installed with CUDA; --device cpu always works",
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ResourceError("device mps: torch finds no Apple GPU here", hint="--device cpu always works")
    if device.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"device {wanted!r} is not supported", hint="use auto, cpu, mps, cuda or cuda:N")
    return device, "as asked"


def _pick_precision(device: torch.device, wanted: str) -> tuple[str, str]:
    if wanted != "auto":
        return wanted, "as asked"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "the GPU computes it natively"
        return "fp16", "the GPU has no bf16; gradients are scaled"
    if device.type == "cpu" and _cpu_has_bf16():
        return "bf16", "the CPU computes it natively"
    return "fp32", "bf16 is not native here"


def _cpu_has_bf16() -> bool:
    """Whether the CPU has instructions for bf16 matrices: emulated, it would be slower than fp32."""
    found = _capabilities()
    return any(bool(found.get(name)) for name in ("avx512_bf16", "amx_bf16", "amx", "bf16"))


@functools.cache
def _multiply_by_onednn() -> None:
    """Let oneDNN compute the fp32 products of this process where MKL leaves AVX-512 unused, as on AMD's CPUs: half as
    fast again in training.

    torch's switch for that lets oneDNN round to bf16 as well, of which it makes use with AMX alone: so what it does
    here is looked at first. What a program around textclf has set is left alone, and so is a machine with a GPU, whose
    products the switch is for too.
    """
    mkldnn: Any = torch.backends.mkldnn
    found = _capabilities()
    slow = found.get("avx512_f") and "AMD" in str(found.get("cpu_name"))
    if not slow or torch.cuda.is_available() or mkldnn.matmul.fp32_precision != "none":
        return
    # Not by mkldnn.matmul.fp32_precision: torch.get_float32_matmul_precision, which torch.compile asks, then raises.
    torch.set_float32_matmul_precision("medium")
    generator = torch.Generator().manual_seed(0)
    for inner in (384, 1536):
        one, other = torch.randn(256, inner, generator=generator), torch.randn(inner, 384, generator=generator)
        if (one @ other - one.double() @ other.double()).abs().max() > 1e-2:  # fp32: 1e-4, bf16: 0.1 and more
            torch.set_float32_matmul_precision("highest")


def _capabilities() -> dict[str, object]:
    """What torch knows of the CPU; nothing where it is too old to tell, and fp32 by MKL is right everywhere."""
    found: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return found


def _describe(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}"
    threads = torch.get_num_threads()
    return {"cpu": f"CPU, {threads} thread{'s' * (threads > 1)}", "mps": "Apple GPU (MPS)"}[device.type]


def is_out_of_memory(err: RuntimeError) -> bool:
    """Whether torch could not get the memory it asked for, on a GPU or, in words only, on a CPU or Apple's GPU."""
    said = str(err)
    return isinstance(err, torch.OutOfMemoryError) or "can't allocate memory" in said or "out of memory" in said
