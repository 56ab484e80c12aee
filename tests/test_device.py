"""Which library computes fp32 products on the CPU at hand, and copies to a device."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from textclf.model.device import on_device

PROGRAM = """
import json, torch
from textclf.model import device

{before}
found = torch.cpu.get_capabilities()
torch.cpu.get_capabilities = lambda: {{**found, "cpu_name": {name!r}}}
device.pick_device("cpu")
one, other = torch.randn(512, 1536), torch.randn(1536, 384)
error = float((one @ other - one.double() @ other.double()).abs().max())
now = torch.backends.mkldnn.matmul.fp32_precision, torch.get_float32_matmul_precision()
print(json.dumps([*now, error]))
"""
AMX_HIDDEN = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}
CHOSEN = "torch.backends.mkldnn.matmul.fp32_precision = 'ieee'"


@pytest.mark.parametrize(
    ("name", "before", "environment", "switched"),
    [
        ("AMD EPYC 9R14", "", AMX_HIDDEN, True),
        ("AMD EPYC 9R14", CHOSEN, AMX_HIDDEN, False),  # as the program around it wants
        ("AMD EPYC 9R14", "", {}, not torch.cpu.get_capabilities().get("amx_bf16")),  # with AMX it would round
        ("Intel Xeon", "", AMX_HIDDEN, False),
    ],
)
def test_fp32_products_go_to_onednn_where_that_is_fp32(
    name: str, before: str, environment: dict[str, str], switched: bool
) -> None:
    if not torch.cpu.get_capabilities().get("avx512_f"):
        switched = False
    program = PROGRAM.format(name=name, before=before)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", **environment}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    precision, for_all, error = json.loads(done.stdout)
    assert (precision == "bf16", for_all) == (switched, "medium" if switched else "highest")
    assert error < 1e-2  # bf16: 0.1 and more


@pytest.mark.parametrize(("quota", "threads"), [(1, 1), (64, 2)])
def test_torch_gets_no_more_threads_than_the_quota_allows(quota: int, threads: int) -> None:
    program = (
        "import torch\n"
        "from textclf.model import device\n"
        f"device.allowed_cpus = lambda: {quota}\n"
        "print(device.pick_device('cpu').reason, torch.get_num_threads())\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("CPU, 1 thread (" if threads == 1 else f"CPU, {threads} threads (")
    assert done.stdout.split()[-1] == str(threads)


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "bool"])
def test_an_array_on_the_cpu_keeps_its_dtype_and_memory(dtype: str) -> None:
    values = np.array([[1, 0], [1, 1]], dtype=dtype)
    tensor = on_device(values, torch.device("cpu"))
    assert np.array_equal(tensor.numpy(), values)
    assert tensor.numpy().dtype == values.dtype
    assert np.shares_memory(tensor.numpy(), values)


@pytest.mark.parametrize(
    ("kind", "expected"), [("mps", [("to mps", False)]), ("cuda", [("pinned", True), ("to cuda", True)])]
)
def test_a_copy_is_waited_for_unless_from_pinned_memory_to_cuda(
    kind: str, expected: list[tuple[str, bool]], monkeypatch: pytest.MonkeyPatch
) -> None:
    # torch without waiting reads memory for MPS that was given back, and says nothing; no such device is at hand.
    asked: list[tuple[str, bool]] = []

    def to(tensor: torch.Tensor, device: torch.device, *, non_blocking: bool = False) -> torch.Tensor:
        asked.append((f"to {device.type}", non_blocking))
        return tensor

    def pin_memory(tensor: torch.Tensor) -> torch.Tensor:
        asked.append(("pinned", True))
        return tensor

    monkeypatch.setattr(torch.Tensor, "to", to)
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    on_device(np.arange(3), torch.device(kind))
    assert asked == expected
