"""How a network reads a batch, found by trying it on a few texts: architectures differ, and none says so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from textclf.errors import ModelError
from textclf.model.heads import OwnHead, last_states
from textclf.model.modeling_textclf import TextclfForSequenceClassification

LENGTHS = (24, 5)
"""Tokens of the texts of the trial: the short one is mostly padding."""
TOLERANCE = 1e-4
"""Largest difference in fp32 that is rounding, as a share of the largest logit, or of the largest number in a state."""


@dataclass(frozen=True)
class Reading:
    """reads_last: the head is a function of the last real token's state. alone: a text's logits change with the texts
    that it is padded to, so that it must be computed by itself.
    """

    reads_last: bool
    alone: bool


def try_reading(network: PreTrainedModel, *, pad_id: int, where: str) -> Reading:
    """Run a network on texts beside each other and by themselves. Raises ModelError where it does not take them."""
    base: Any = network.base_model
    kind = base.config.model_type
    was_training = network.training
    network.eval()
    seen: list[Tensor] = []
    hook = network.base_model.register_forward_hook(lambda module, args, output: seen.append(_hidden(output)))
    try:
        with torch.inference_mode():
            ids_BT, mask_BT = _texts(network, pad_id)
            together_BC = network(input_ids=ids_BT, attention_mask=mask_BT).logits
            short = slice(1, 2), slice(0, LENGTHS[1])
            alone_1C = network(input_ids=ids_BT[short], attention_mask=mask_BT[short]).logits
            reads_last = not isinstance(network, TextclfForSequenceClassification) and _reads_last(
                network, seen[0], mask_BT, together_BC
            )
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError, NotImplementedError) as err:
        first = str(err).strip().split("\n", 1)[0]
        raise ModelError(
            f"{where}: a {kind} model cannot classify texts of token ids and a mask: {type(err).__name__}: {first}",
            hint="choose a text model, for example distilbert-base-uncased",
        ) from err
    finally:
        hook.remove()
        network.train(was_training)
    hidden_together, hidden_alone = seen[0][1:, : LENGTHS[1]], seen[1]
    # Logits may hide a difference that is there: the first token's state feels the end of a text least.
    states_differ = hidden_together.shape == hidden_alone.shape and not _equal(hidden_together, hidden_alone)
    return Reading(reads_last=reads_last, alone=states_differ or not _equal(together_BC[1:], alone_1C))


def _texts(network: PreTrainedModel, pad_id: int) -> tuple[Tensor, Tensor]:
    embeddings: Any = network.get_input_embeddings()
    vocabulary = int(embeddings.weight.shape[0])
    config = network.config.get_text_config()
    end = getattr(config, "eos_token_id", None)
    avoided = {pad_id, config.pad_token_id, end if isinstance(end, int) else None}
    ordinary = np.setdiff1d(np.arange(min(vocabulary, 1000)), [one for one in avoided if one is not None])
    ids = np.random.default_rng(0).choice(ordinary, size=(len(LENGTHS), LENGTHS[0]))
    mask = np.arange(LENGTHS[0])[None, :] < np.array(LENGTHS)[:, None]
    ids[~mask] = pad_id
    if getattr(config, "is_encoder_decoder", False) and isinstance(end, int):  # what T5's and BART's heads look for
        ids[np.arange(len(LENGTHS)), np.array(LENGTHS) - 1] = end
    device = network.device
    return torch.from_numpy(ids).to(device), torch.from_numpy(mask.astype(np.int64)).to(device)


def _reads_last(network: PreTrainedModel, hidden_BTD: Tensor, mask_BT: Tensor, expected_BC: Tensor) -> bool:
    if hidden_BTD.shape[:2] != mask_BT.shape:
        return False
    try:
        got_BC = OwnHead(network).of_states(last_states(hidden_BTD, mask_BT))
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError):
        return False  # a head that wants more than hidden states
    return got_BC.shape == expected_BC.shape and _equal(got_BC, expected_BC)


def _hidden(output: Any) -> Tensor:
    hidden = getattr(output, "last_hidden_state", None)
    return hidden if hidden is not None else output[0]  # type: ignore[no-any-return]


def _equal(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() <= TOLERANCE * other.abs().max())
