"""What a head sees of each text: the features that a linear probe learns from."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from torch import Tensor, nn

from textclf.data.batching import Batch, Packed
from textclf.data.encoding import Encoded
from textclf.model.classifier import Classifier
from textclf.model.heads import last_states
from textclf.model.modeling_textclf import pool
from textclf.model.packing import text_states, unpack
from textclf.model.scoring import scoring_batch, scoring_passes


def features(
    classifier: Classifier,
    encoded: Encoded,
    *,
    pooling: str | None,
    autocast: Callable[[], AbstractContextManager[object]],
    on_progress: Callable[[int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """What the last layer takes in, (rows, width) float32, in the order of the input; from one forward pass.

    pooling: also give the backbone's hidden states as a head that pools them so would see them; None: do not.
    autocast: the precision to compute in. Leaves the classifier in the mode it was in, and as it was about packing.
    """
    seen: dict[str, Tensor] = {}

    def keep_input(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        seen["own"] = arguments[0]

    def keep_hidden(module: nn.Module, arguments: object, output: object) -> None:
        seen["hidden"] = output.last_hidden_state  # type: ignore[attr-defined]

    assert classifier.output_layer is not None
    packed_before = classifier.packs
    if classifier.device.type == "cpu" and not packed_before:
        classifier.try_packing(max_length=int(encoded.lengths.max(initial=1)))
    hooks = [classifier.output_layer.register_forward_pre_hook(keep_input)]
    if pooling:
        hooks.append(classifier.network.base_model.register_forward_hook(keep_hidden))
    own_ND: np.ndarray | None = None
    pooled_ND: np.ndarray | None = None
    was_training = classifier.training
    classifier.eval()
    done = 0
    try:
        with torch.inference_mode(), autocast():
            for rows in scoring_passes(classifier, encoded):
                batch = scoring_batch(classifier, encoded, rows)
                classifier(batch)
                own = seen["own"]
                if own.dim() == 3:  # a head that reads one token, the last, or gives logits for every one of them
                    own = own[:, 0] if own.shape[1] == 1 else last_states(own, _mask(batch, own))
                own_ND = _put(own_ND, rows, own, len(encoded))
                if pooling:
                    pooled_ND = _put(pooled_ND, rows, _pooled(batch, seen["hidden"], pooling), len(encoded))
                done += len(rows)
                if on_progress is not None:
                    on_progress(done)
    finally:
        for hook in hooks:
            hook.remove()
        if not packed_before:
            classifier.only_pad()
        classifier.train(was_training)
    assert own_ND is not None
    return own_ND, pooled_ND


def _mask(batch: Batch | Packed, states_BTD: Tensor) -> Tensor:
    """Which tokens are real, of texts one in a row: (batch, tokens)."""
    if isinstance(batch, Batch):
        return torch.from_numpy(batch.attention_mask).to(states_BTD.device)
    real_BT = np.arange(states_BTD.shape[1]) < batch.lengths[:, None]
    return torch.from_numpy(real_BT).to(states_BTD.device)


def _pooled(batch: Batch | Packed, hidden: Tensor, pooling: str) -> Tensor:
    """(batch, width) float32. hidden: (batch, tokens, width), of a packed batch (1, tokens, width)."""
    if isinstance(batch, Batch):
        return pool(hidden, _mask(batch, hidden), pooling)
    states_BD = text_states(batch, hidden[0], pooling)
    if states_BD is None:
        return pool(*unpack(batch, hidden[0]), pooling)
    return pool(states_BD[:, None], states_BD.new_ones(len(states_BD), 1), pooling)


def _put(table: np.ndarray | None, rows: np.ndarray, values: Tensor, total: int) -> np.ndarray:
    if table is None:
        table = np.zeros((total, values.shape[1]), dtype=np.float32)
    table[rows] = values.float().cpu().numpy()
    return table
