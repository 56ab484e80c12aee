"""Low-rank adapters (LoRA, Hu et al. 2021, arXiv 2106.09685) beside the layers of a backbone: saved, and merged in the
end."""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from textclf.errors import MissingExtraError, ModelError
from textclf.model.backbone import head_names
from textclf.model.layers import layers


class Lora:
    """Adapters of one rank at every linear layer of a network that may learn, and all else frozen but the head.

    kept_learning: names of parameters outside the head that learn as well, because they started from nothing.
    Draws from torch's generator. Raises ModelError for an architecture that adapters do not fit, MissingExtraError
    without peft.
    """

    def __init__(self, network: PreTrainedModel, *, rank: int, kept_learning: Iterable[str]) -> None:
        peft = require_peft()
        names = {module: name for name, module in network.named_modules()}
        targets = [
            module
            for layer in layers(network)
            for module in layer.modules()
            if isinstance(module, (nn.Linear, Conv1D)) and module.weight.requires_grad
        ]
        if not targets:
            raise ModelError(
                f"LoRA finds no linear layer that may learn in this {network.config.model_type} model",
                hint="leave out --lora, or freeze fewer layers",
            )
        head = head_names(network)
        beside = set(kept_learning) - head
        settings = peft.LoraConfig(
            r=rank,
            lora_alpha=2 * rank,
            target_modules=[names[module] for module in targets],
            fan_in_fan_out=any(isinstance(module, Conv1D) for module in targets),
        )
        try:
            self._model = peft.LoraModel(network, settings, "default")
        except (TypeError, ValueError, RuntimeError, AttributeError) as err:
            first = str(err).strip().split("\n", 1)[0]
            raise ModelError(f"LoRA does not fit a {network.config.model_type} model: {first}") from err
        for name in head | beside:
            network.get_parameter(name).requires_grad_(True)
        self._network = network
        self._beside = sorted(_modules(head, depth=1) | _modules(beside))

    def save(self, folder: Path, *, base: str, revision: str | None) -> None:
        """Write the adapters, the head and what else learns, alone, as peft does: adapter_config.json and
        adapter_model.safetensors.

        base, revision: the pretrained model that they belong to, a Hub id and its commit or a folder; peft
        loads it first.
        """
        settings = copy(self._model.peft_config["default"])
        settings.task_type = "SEQ_CLS"
        settings.inference_mode = True
        settings.base_model_name_or_path, settings.revision = base, revision
        settings.target_modules = sorted(settings.target_modules)
        settings.modules_to_save = self._beside
        settings.save_pretrained(str(folder))
        # As peft names them: its model is two modules around ours, and the name of the adapter is left out.
        learnt = {
            f"base_model.model.{name.replace('.default.', '.')}": tensor.contiguous()
            for name, tensor in self._network.state_dict().items()
            if ".lora_" in name or any(name.startswith(f"{module}.") for module in self._beside)
        }
        save_file(learnt, folder / "adapter_model.safetensors", metadata={"format": "pt"})

    @torch.no_grad()
    def merge(self) -> None:
        """Add what the adapters have learnt to the layers, and take the adapters out: the network is a plain one."""
        vars(self._model.merge_and_unload()).pop("peft_config", None)


def _modules(parameters: Iterable[str], *, depth: int | None = None) -> set[str]:
    """Names of the modules that hold these parameters; depth: of their parts, how many count."""
    return {".".join(name.split(".")[:-1][:depth]) for name in parameters}


def require_peft() -> Any:
    """The package peft. Raises MissingExtraError without it."""
    try:
        import peft
    except ImportError as err:
        raise MissingExtraError(
            "--lora needs the package peft", hint='install it: pip install "textclf[lora]"'
        ) from err
    return peft
