"""What the figures were measured on and with."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from textclf.cpus import usable_cpus

PACKAGES = (
    "textclf", "torch", "transformers", "accelerate", "datasets", "tokenizers", "onnxruntime", "scikit-learn", "numpy",
)  # fmt: skip


def describe(gpu: str | None) -> dict[str, Any]:
    """Machine and versions, for the report. `kind` is what stored ratios are kept by."""
    flags, name = _processor()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = usable_cpus()
    return {
        "kind": f"cuda {gpu}" if gpu else f"{_capability(flags)}, {threads} threads",
        "processor": name,
        "cores": cores,
        "threads": threads,
        "gpu": gpu,
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {"python": platform.python_version()} | _versions(),
    }


def gpu_name() -> dict[str, str | None]:
    """The name of the CUDA device, or None: asked in a process of its own, as it imports torch."""
    import torch

    return {"gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None}


def _processor() -> tuple[set[str], str]:
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    flags = re.search(r"^(?:flags|Features)\s*: (.*)$", text, re.MULTILINE)
    name = re.search(r"^model name\s*: (.*)$", text, re.MULTILINE)
    return set(flags[1].split()) if flags else set(), name[1] if name else platform.processor() or platform.machine()


def _capability(flags: set[str]) -> str:
    """What decides how fast matmul is. bf16 is in the first two only."""
    for flag in ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "bf16", "asimd"):
        if flag in flags:
            return flag
    return platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
