"""The head that an architecture brings, run on hidden states that were computed already."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPoolingAndCrossAttentions


class OwnHead:
    """The same network with its backbone exchanged for hidden states: whatever the architecture's head does with them
    is done by its own code. Parameters are shared, not copied.
    """

    def __init__(self, network: PreTrainedModel) -> None:
        self._network = network
        self._head = copy.copy(network)
        self._computed = _Computed()

    def __call__(self, hidden_BTD: Tensor, *, input_ids: Tensor, mask_BT: Tensor) -> Tensor:
        """Logits (batch, num_labels). input_ids (batch, tokens): some heads look there for padding."""
        # At each call: layers of the network may have been exchanged since the last one.
        self._head._modules = {**self._network._modules, self._network.base_model_prefix: self._computed}
        self._head.training = self._network.training
        self._computed.output = BaseModelOutputWithPoolingAndCrossAttentions(
            last_hidden_state=hidden_BTD, pooler_output=_pooled(self._network.base_model, hidden_BTD)
        )
        try:
            return self._head(input_ids=input_ids, attention_mask=mask_BT).logits  # type: ignore[no-any-return]
        finally:
            self._computed.output = None

    def of_states(self, states_BD: Tensor) -> Tensor:
        """Logits (batch, num_labels) of a head that makes one state of each text, which is given: as of a single token.

        Where it is the last token's, transformers would compute the logits of every token and then pick one, by looking
        for the pad token's id.
        """
        pad_id = self._network.config.get_text_config().pad_token_id
        any_id = states_BD.new_full((len(states_BD), 1), 1 if pad_id == 0 else 0, dtype=torch.long)
        return self(states_BD.unsqueeze(1), input_ids=any_id, mask_BT=torch.ones_like(any_id))


def last_states(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The state of each text's last real token: (batch, width)."""
    place_T = torch.arange(mask_BT.shape[1], device=mask_BT.device, dtype=torch.int32)
    last_B = (place_T * mask_BT.to(torch.int32)).argmax(dim=1)
    return hidden_BTD[torch.arange(len(last_B), device=last_B.device), last_B]


class _Computed(nn.Module):
    """Stands in for a backbone whose output is there already."""

    output: BaseModelOutputWithPoolingAndCrossAttentions | None = None

    def forward(self, *args: object, **kwargs: object) -> BaseModelOutputWithPoolingAndCrossAttentions:
        assert self.output is not None
        return self.output


def _pooled(base: Any, hidden_BTD: Tensor) -> Tensor | None:
    pooler = getattr(base, "pooler", None)
    if pooler is None:
        return None
    activation = getattr(base, "pooler_activation", None)  # ALBERT keeps the two parts of its pooler apart
    return activation(pooler(hidden_BTD[:, 0])) if activation is not None else pooler(hidden_BTD)  # type: ignore[no-any-return]
