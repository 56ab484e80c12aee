"""Training without the embedding rows that no text needs.

A row that never occurs gets no gradient, and without weight decay AdamW then leaves it as it was. Taking it out
changes nothing but the cost: the table is half of a small model, and the optimizer would walk through all of it
at every step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from textclf.data.encoding import Encoded

WORTHWHILE = 0.75
"""A table is cut when at most this share of its rows is needed."""
CHUNK = 1 << 20
"""Tokens looked at together: ids may lie in a file that is larger than memory."""
LOW_IDS = 1000
"""Ids up to that of the pad token stay where they are when it is below this: RoBERTa's kin count positions by it."""


class CompactVocabulary:
    """The network's embedding table cut down to the tokens of some texts, until `restore`."""

    def __init__(self, network: PreTrainedModel, kept: np.ndarray) -> None:
        self._network: Any = network
        self._embedding = cast(nn.Embedding, network.get_input_embeddings())
        self._kept = torch.from_numpy(kept)
        self._full = self._embedding.weight.detach()
        self._padding_idx = self._embedding.padding_idx
        self._config = self._network.config.get_text_config()
        self._pad_token_id = self._config.pad_token_id
        self._new_id = np.full(len(self._full), -1, dtype=np.int64)
        self._new_id[kept] = np.arange(len(kept))
        self._set(self._full[self._kept].clone())
        if self._padding_idx is not None:
            self._embedding.padding_idx = int(self._new_id[self._padding_idx])
        self._set_pad(int(self._new_id[self._pad_token_id]))

    def translate(self, ids: np.ndarray) -> np.ndarray:
        """Token ids of the whole table as ids of the small one, int64. A token that was left out fails an assertion."""
        new_ids: np.ndarray = self._new_id[ids]
        assert new_ids.min(initial=0) >= 0
        return new_ids

    def restore(self) -> None:
        """Give the network its whole table back, with the rows that have learnt."""
        self._full[self._kept] = self._embedding.weight.detach().to(self._full.device)
        self._set(self._full)
        self._embedding.padding_idx = self._padding_idx
        self._set_pad(self._pad_token_id)

    def _set(self, table: Tensor) -> None:
        self._embedding.weight = nn.Parameter(table, requires_grad=self._embedding.weight.requires_grad)
        self._embedding.num_embeddings = len(table)

    def _set_pad(self, pad_id: int) -> None:
        self._network.config.pad_token_id = pad_id
        self._config.pad_token_id = pad_id


def compact(network: PreTrainedModel, texts: Iterable[Encoded], *, pad_id: int) -> CompactVocabulary | None:
    """Cut the table of a network down to the tokens of these texts; None where that is not worth it or not safe."""
    embedding: Any = network.get_input_embeddings()
    config = network.config.get_text_config()
    tied = any("embed" in name for name in getattr(network, "all_tied_weights_keys", None) or {})
    if not isinstance(embedding, nn.Embedding) or tied or config.is_encoder_decoder or config.pad_token_id is None:
        return None
    used = np.zeros(embedding.num_embeddings, dtype=bool)
    for encoded in texts:
        for start in range(0, len(encoded.ids), CHUNK):
            used[encoded.ids[start : start + CHUNK]] = True
    for token in (pad_id, config.pad_token_id, embedding.padding_idx):
        if token is not None:
            used[token] = True
            if token < LOW_IDS:
                used[:token] = True
    return CompactVocabulary(network, np.flatnonzero(used)) if used.mean() <= WORTHWHILE else None
