"""Packed batches through a transformers backbone: many texts in one row, none attending to another.

The texts of a batch are one long row of tokens to the backbone, so no layer computes on padding; only attention
cuts that row into blocks of rows of equal width and hides each text from its neighbours. This goes through
transformers' attention interface, so it serves every architecture that has it. Whether it does so rightly for
the model at hand is tried once, on a few texts, before it is used.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from textclf.data.batching import Packed, collate, pack
from textclf.data.encoding import Encoded
from textclf.model.backbone import tells_types
from textclf.model.heads import OwnHead
from textclf.model.modeling_textclf import TextclfForSequenceClassification

ATTENTION = "textclf_packed"
HIDDEN = -30000.0
"""Added to a score that must not count; finite, because a row of padding sees padding only."""
PLAIN_WIDTH = 128
"""Tokens of a row up to which plain products are the faster attention also where nothing learns."""
TRIAL_LENGTHS = (150, 2, 40, 5)
"""Tokens of the texts of the trial: past the window of local attention, and far under it."""
TOLERANCE = 2e-5
"""Largest difference of logits in fp32 between packed and padded, as a share of the largest logit (at least 1)."""


class PackedLayout:
    """Where the texts of a packed batch lie, on the device, and what each block's tokens may see."""

    def __init__(self, batch: Packed, device: torch.device) -> None:
        self.blocks = batch.blocks
        text = torch.from_numpy(batch.text)
        self._text_RW = [
            text[b.start : b.start + b.rows * b.width].view(b.rows, b.width).to(device) for b in batch.blocks
        ]
        self._masks: dict[tuple[bool, int | None, torch.dtype], list[Tensor]] = {}

    def masks(self, *, causal: bool, window: int | None, dtype: torch.dtype) -> list[Tensor]:
        """For each block what is added to its scores: (rows, 1, width, width)."""
        key = (causal, window, dtype)
        if key not in self._masks:
            self._masks[key] = [self._mask(text_RW, causal, window, dtype) for text_RW in self._text_RW]
        return self._masks[key]

    def _mask(self, text_RW: Tensor, causal: bool, window: int | None, dtype: torch.dtype) -> Tensor:
        seen = text_RW[:, None, :, None] == text_RW[:, None, None, :]
        place = torch.arange(text_RW.shape[1], device=text_RW.device)
        distance = place[:, None] - place[None, :]
        if causal:
            seen = seen & (distance >= 0)
        if window is not None:
            seen = seen & (distance.abs() < window)
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, HIDDEN)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packing: PackedLayout,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention within each text of a packed batch: query (1, heads, tokens, head_dim).

    By plain products where there will be a backward pass, which torch's fused attention is slow at on a CPU, and in
    narrow rows. `dropout` of attention weights is left out: drawing it costs a fifth of a step, and the hidden states'
    own dropout remains. See docs/explanation/training-speed.md.
    """
    causal = bool(getattr(module, "is_causal", False) if is_causal is None else is_causal)
    groups = query.shape[1] // key.shape[1]
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    learning = query.requires_grad
    query = query * scaling  # before the product: queries are fewer than scores
    parts = []
    masks = packing.masks(causal=causal, window=sliding_window, dtype=query.dtype)
    for block, mask in zip(packing.blocks, masks, strict=True):
        end = block.start + block.rows * block.width

        def of_block(states: Tensor, start: int = block.start, end: int = end, width: int = block.width) -> Tensor:
            rows_RWHd: Tensor = states.transpose(1, 2)[0, start:end].unflatten(0, (-1, width))
            return rows_RWHd.transpose(1, 2)

        query_RHWd, key_RHWd, value_RHWd = of_block(query), of_block(key), of_block(value)
        if groups > 1:
            key_RHWd, value_RHWd = (states.repeat_interleave(groups, dim=1) for states in (key_RHWd, value_RHWd))
        if learning or block.width <= PLAIN_WIDTH:
            scores_RHWW = query_RHWd @ key_RHWd.transpose(-1, -2) + mask
            states_RHWd = torch.softmax(scores_RHWW, dim=-1) @ value_RHWd
        else:
            states_RHWd = scaled_dot_product_attention(query_RHWd, key_RHWd, value_RHWd, attn_mask=mask, scale=1.0)
        parts.append(states_RHWd.transpose(1, 2).flatten(0, 1))
    output = parts[0] if len(parts) == 1 else torch.cat(parts)
    return output.unsqueeze(0), None


AttentionInterface.register(ATTENTION, packed_attention)


class PackedForward:
    """Packed batches in, logits out, with the weights and the head of `network`.

    lock: held while it computes, as the network's configuration then says which attention is meant. Whoever computes
    with the network otherwise, and has several threads, holds it too.
    """

    def __init__(self, network: PreTrainedModel, *, reads_last: bool) -> None:
        self._network = network
        self._base: Any = network.base_model
        self._head = OwnHead(network)
        self._pooling: str | None = "last" if reads_last else None
        if isinstance(network, TextclfForSequenceClassification):
            self._pooling = network.config.pooling
        self.lock = threading.Lock()
        # RoBERTa's kin count positions from padding_idx + 1.
        table = getattr(getattr(self._base, "embeddings", None), "position_embeddings", None)
        padding_idx = table.padding_idx if isinstance(table, nn.Embedding) else None
        self._first_position = 0 if padding_idx is None else padding_idx + 1

    def __call__(self, batch: Packed) -> Tensor:
        """Logits (batch, num_labels)."""
        device = self._network.device
        layout = PackedLayout(batch, device)
        input_ids = torch.from_numpy(batch.input_ids).to(device)
        position_ids = torch.from_numpy(batch.position_ids + self._first_position).to(device)
        types = {}
        if batch.token_type_ids is not None:
            types["token_type_ids"] = torch.from_numpy(batch.token_type_ids).to(device)[None]
        with self.lock:
            with _attention_of(self._base, ATTENTION):
                hidden_TD = self._base(
                    input_ids=input_ids[None], position_ids=position_ids[None], packing=layout, **types
                ).last_hidden_state[0]
            states_BD = text_states(batch, hidden_TD, self._pooling)
            if states_BD is not None:
                return self._head.of_states(states_BD)
            # The head reads a batch as it always does: one text a row, padded.
            hidden_BTD, mask_BT = unpack(batch, hidden_TD)
            padded_ids = unpack(batch, input_ids)[0]
            # Some heads find the end of a text by the pad tokens after it.
            pad_id = self._network.config.get_text_config().pad_token_id or 0
            return self._head(hidden_BTD, input_ids=padded_ids.masked_fill(~mask_BT, pad_id), mask_BT=mask_BT.long())


def text_states(batch: Packed, hidden_TD: Tensor, pooling: str | None) -> Tensor | None:
    """One state for each text of a packed batch, as `modeling_textclf.pool` makes it before it is scaled: (batch,
    width), the mean in float32. None for poolings that need more than the hidden states, or a text's side by side."""
    if pooling in ("cls", "last"):
        place_B = batch.starts if pooling == "cls" else batch.starts + batch.lengths - 1
        return hidden_TD[torch.from_numpy(place_B).to(hidden_TD.device)]
    if pooling != "mean":
        return None
    # Not by unpacking: short texts beside a long one would be mostly padding, forth and back 2 % of a step.
    first_B = np.cumsum(batch.lengths) - batch.lengths
    places = np.arange(batch.lengths.sum()) + np.repeat(batch.starts - first_B, batch.lengths)
    indices, offsets = (torch.from_numpy(one).to(hidden_TD.device) for one in (places, first_B))
    return embedding_bag(indices, hidden_TD.float(), offsets, mode="mean")


def unpack(batch: Packed, tokens_T: Tensor) -> tuple[Tensor, Tensor]:
    """What a packed batch has of each token, (tokens, ...), as one text a row, (batch, tokens, ...), 0 on padding; and
    which are real: (batch, tokens) bool."""
    place_BT = np.arange(batch.lengths.max())[None, :]
    mask = place_BT < batch.lengths[:, None]
    index_BT = torch.from_numpy(np.where(mask, batch.starts[:, None] + place_BT, 0)).to(tokens_T.device)
    mask_BT = torch.from_numpy(mask).to(tokens_T.device)
    return tokens_T[index_BT] * mask_BT.view(*mask_BT.shape, *(1,) * (tokens_T.dim() - 1)), mask_BT


def packed_forward(
    network: PreTrainedModel, *, pad_id: int, max_length: int, reads_last: bool = False
) -> PackedForward | None:
    """The packed forward pass of a network, or None where its architecture gives other logits that way.

    reads_last: the head reads the last token of a text alone, and gets no more.
    """
    base: Any = network.base_model
    parameters = inspect.signature(base.forward).parameters
    if "position_ids" not in parameters or not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return None
    lengths = [min(length, max_length) for length in TRIAL_LENGTHS]
    vocabulary = int(network.get_input_embeddings().weight.shape[0])  # type: ignore[arg-type, union-attr, index]
    ids = np.random.default_rng(0).integers(0, vocabulary, sum(lengths))
    # The pad token would hide itself.
    ids = np.where(ids == pad_id, (ids + 1) % vocabulary, ids).astype(np.int32)
    # Pairs, where the network can tell the two texts apart: they are the harder case.
    second = np.array(lengths) // 2 if tells_types(network) else None
    texts = Encoded(ids, np.cumsum([0, *lengths]), np.zeros(len(lengths), dtype=bool), second)
    rows = np.arange(len(lengths))
    forward = PackedForward(network, reads_last=reads_last)
    was_training = network.training
    network.eval()
    try:
        with torch.inference_mode():
            packed = forward(pack(texts, rows, pad_id=pad_id))
            # The long one by itself: half of a batch of all would be padding, and a program that starts waits for this.
            expected = torch.cat([_padded_logits(network, texts, part, pad_id) for part in (rows[:1], rows[1:])])
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError):
        return None  # an attention that does not go through the interface, or a head that wants more than hidden states
    finally:
        network.train(was_training)
    bound = TOLERANCE * max(1.0, float(expected.abs().max()))
    return forward if float((packed - expected).abs().max()) <= bound else None


def _padded_logits(network: PreTrainedModel, texts: Encoded, rows: np.ndarray, pad_id: int) -> Tensor:
    batch = collate(texts, rows, pad_id=pad_id)
    inputs = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask}
    if batch.token_type_ids is not None:
        inputs["token_type_ids"] = batch.token_type_ids
    moved = {name: torch.from_numpy(values).to(network.device) for name, values in inputs.items()}
    logits: Tensor = network(**moved).logits
    return logits


@contextmanager
def _attention_of(base: PreTrainedModel, name: str) -> Iterator[None]:
    before = base.config._attn_implementation
    base.config._attn_implementation = name
    try:
        yield
    finally:
        base.config._attn_implementation = before
