"""How deep in a backbone a parameter lies: what freezing and layer-wise learning rates go by."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

LEAST_SHARE = 0.1
"""A list of modules is a stack of layers when it holds at least this share of the largest such list's parameters."""


def layers(network: PreTrainedModel) -> list[nn.Module]:
    """The layers of a backbone from the embeddings up; of an encoder and a decoder, the encoder's first.

    Layers that share their weights (ALBERT's) are one.
    """
    stacks = [stack for stack in _outermost_lists(network.base_model) if _size(stack)]
    largest = max(map(_size, stacks), default=0)
    return [layer for stack in stacks if _size(stack) >= LEAST_SHARE * largest for layer in _flat(stack)]


def depths(network: PreTrainedModel) -> dict[str, int]:
    """Depth of each of the backbone's parameters by its name in `network`: 0 for embeddings, then 1 for the first
    layer, and one more than the last layer's for what comes after all layers.
    """
    stack = layers(network)
    in_layer = {parameter: depth for depth, layer in enumerate(stack, start=1) for parameter in layer.parameters()}
    tables = {
        parameter
        for module in network.base_model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters()
    }
    found = {}
    for name, parameter in network.named_parameters():
        if name.startswith(network.base_model_prefix + "."):
            # Also what belongs to embeddings without being a table: their norm, their projection.
            embeds = parameter in tables or "emb" in name
            found[name] = in_layer.get(parameter, 0 if embeds else len(stack) + 1)
    return found


def _outermost_lists(module: nn.Module) -> list[nn.ModuleList]:
    found: list[nn.ModuleList] = []
    for child in module.children():
        found += [child] if isinstance(child, nn.ModuleList) else _outermost_lists(child)
    return found


def _flat(stack: nn.ModuleList) -> list[nn.Module]:
    # Funnel keeps its layers in blocks.
    return [one for layer in stack for one in (_flat(layer) if isinstance(layer, nn.ModuleList) else [layer])]


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
