"""Layer norms that pass on the precision of the context: the states between layers then stay bf16 on a CPU.

torch's autocast leaves a norm of fp32 states in fp32, so that each layer after it would convert them once more, and
everything between products would move twice the bytes. On CUDA autocast wants its norms in fp32, and has kernels
that convert on the way.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def norms_in_autocast(network: nn.Module) -> None:
    """Make every nn.LayerNorm of a network on the CPU give the dtype of the autocast context that it runs in."""
    for module in network.modules():
        if type(module) is nn.LayerNorm:
            module.register_forward_hook(_in_context)


def _in_context(module: nn.Module, arguments: object, states: Tensor) -> Tensor:
    return states.to(torch.get_autocast_dtype("cpu")) if torch.is_autocast_enabled("cpu") else states
