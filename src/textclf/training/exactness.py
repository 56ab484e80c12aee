"""What a run depends on besides data and settings; a resumed one needs all of it to go on bit for bit."""

from __future__ import annotations

import platform

import numpy as np
import tokenizers
import torch
import transformers

import textclf
from textclf.model.device import Device


def surroundings(device: Device) -> dict[str, str]:
    """Versions, device and threads, by name, as they are now."""
    is_cuda = device.kind == "cuda"
    return {
        "textclf": textclf.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "numpy": np.__version__,
        "device": torch.cuda.get_device_name(device.torch_device) if is_cuda else device.kind,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
        "precision": device.precision,
    }


def environment(device: Device) -> dict[str, str]:
    """What a run and its model say of it: versions, the kind of device and the precision."""
    now = surroundings(device)
    versions = {name: now[name] for name in ("textclf", "python", "torch", "transformers")}
    return {**versions, "device": device.kind, "precision": device.precision}


def difference(before: dict[str, str], now: dict[str, str]) -> str | None:
    """What has changed, in words; None where nothing has."""
    changed = [
        f"{name} was {before.get(name, 'unknown')}, is {now[name]}" for name in now if before.get(name) != now[name]
    ]
    if not changed:
        return None
    return f"not exactly as an unbroken run: {'; '.join(changed)}"
