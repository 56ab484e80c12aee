"""Dropout whose masks are slices of one that was drawn before: drawing them anew costs a fifth of a step on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

POOL = 1 << 22
"""Elements of the mask that slices are taken from, at a place drawn for each use."""
ALIGNMENT = 32


class PooledDropout(nn.Dropout):
    """As nn.Dropout. The place of each slice comes from torch's generator, so a seed gives the same masks again."""

    def __init__(self, p: float, pools: dict[tuple[float, torch.dtype], Tensor]) -> None:
        super().__init__(p)
        self._pools = pools  # shared by the layers of a network

    def forward(self, states: Tensor) -> Tensor:
        if not self.training or self.p == 0 or states.numel() > POOL // 2:
            return super().forward(states)
        key = (self.p, states.dtype)
        if key not in self._pools:
            self._pools[key] = _draw(*key)
        start = int(torch.randint((POOL - states.numel()) // ALIGNMENT, ())) * ALIGNMENT
        return states * self._pools[key][start : start + states.numel()].view(states.shape)


def pool_dropout(network: nn.Module) -> None:
    """Put PooledDropout in place of every nn.Dropout of a network on the CPU."""
    pools: dict[tuple[float, torch.dtype], Tensor] = {}
    for module in list(network.modules()):
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, PooledDropout(child.p, pools).train(child.training))


def _draw(p: float, dtype: torch.dtype) -> Tensor:
    # Of a generator of its own: a run that resumes must find the same pool whenever it first needs it.
    kept = torch.rand(POOL, generator=torch.Generator().manual_seed(0)) >= p
    return kept.to(dtype).div_(1 - p)
