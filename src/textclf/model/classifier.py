"""Classifier: a backbone and its head; a batch in, logits out; save and load."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from textclf.artifact.folder import Artifact
from textclf.data.batching import Batch, Packed
from textclf.data.encoding import Encoded
from textclf.errors import UsageError
from textclf.labels import LabelSet
from textclf.model.backbone import head_names, load_backbone, load_finished, mean_pooled, silent, tells_types
from textclf.model.modeling_textclf import TextclfForSequenceClassification
from textclf.model.packing import PackedForward, packed_forward
from textclf.model.vocabulary import CompactVocabulary, compact


class Classifier(nn.Module):
    """A network whose logits follow the order of `label_set`.

    pad_id: token id of padding; any id does, as the mask hides it.
    fresh: names of parameters that started from nothing, () for a finished classifier.
    """

    def __init__(
        self, network: PreTrainedModel, label_set: LabelSet, *, pad_id: int, fresh: tuple[str, ...] = ()
    ) -> None:
        super().__init__()
        self.network = network
        self.label_set = label_set
        self.pad_id = pad_id
        self.fresh = fresh
        self._packed: PackedForward | None = None
        self._vocabulary: CompactVocabulary | None = None

    @classmethod
    def from_pretrained(
        cls, folder: Path, label_set: LabelSet, tokenizer: PreTrainedTokenizerBase, *, allow_bin: bool = False
    ) -> Classifier:
        """A pretrained model with a fresh head. See `load_backbone` for what is raised."""
        network, fresh = load_backbone(folder, label_set, tokenizer, allow_bin=allow_bin)
        return cls(network, label_set, pad_id=int(network.config.pad_token_id), fresh=fresh)

    @classmethod
    def from_artifact(cls, artifact: Artifact) -> Classifier:
        """A finished classifier. Raises ModelError where weights are missing."""
        network = load_finished(artifact.folder, artifact.label_set)
        pad_id = network.config.pad_token_id
        return cls(network, artifact.label_set, pad_id=int(pad_id) if pad_id is not None else 0).eval()

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def positions(self) -> int:
        """Tokens that the network can take at most."""
        config = self.network.config.get_text_config()
        declared = getattr(config, "max_position_embeddings", None) or 0
        embeddings = getattr(self.network.base_model, "embeddings", None)
        table = getattr(embeddings, "position_embeddings", None)
        # RoBERTa's kin count positions from padding_idx + 1.
        offset = table.padding_idx + 1 if isinstance(table, nn.Embedding) and table.padding_idx is not None else 0
        return int(declared - offset) if declared else sys.maxsize

    @property
    def width(self) -> int:
        """Numbers in a hidden state."""
        return int(self.network.config.get_text_config().hidden_size)

    def checkpoint_activations(self) -> None:
        """Compute activations twice instead of keeping them. Raises UsageError where the architecture cannot."""
        if not self.network.supports_gradient_checkpointing:
            raise UsageError(
                f"{self.network.config.model_type} models have no gradient checkpointing",
                hint="lower --micro-batch-size instead",
            )
        enable = getattr(self.network, "activation_checkpointing_enable", self.network.gradient_checkpointing_enable)
        enable()

    @property
    def head(self) -> Literal["own", "mean"]:
        """`own` for the architecture's own head, else how states are pooled: `mean`."""
        return "mean" if isinstance(self.network, TextclfForSequenceClassification) else "own"

    @property
    def output_layer(self) -> nn.Linear:
        """The last layer: hidden numbers in, one logit per label out."""
        head = head_names(self.network)
        found = [
            module
            for name, module in self.network.named_modules()
            if f"{name}.weight" in head and isinstance(module, nn.Linear) and module.out_features == len(self.label_set)
        ]
        return found[-1]

    @property
    def has_fresh_output(self) -> bool:
        """Whether the last layer has learnt nothing yet."""
        return any(self.network.get_parameter(name) is self.output_layer.weight for name in self.fresh)

    def use_mean_head(self) -> None:
        """Replace the head by one linear layer over the mean of the hidden states, with fresh weights."""
        self.network = mean_pooled(self.network, self.label_set)
        self.fresh = ("classifier.bias", "classifier.weight")
        self._packed = None

    def try_packing(self, *, max_length: int) -> bool:
        """From now on take packed batches too, if the architecture gives the same logits that way."""
        self._packed = packed_forward(self.network, pad_id=self.pad_id, max_length=max_length)
        return self._packed is not None

    def compact_vocabulary(self, texts: Iterable[Encoded]) -> bool:
        """Keep only the embeddings of these texts' tokens, until `restore_vocabulary`, where that saves much."""
        self._vocabulary = compact(self.network, texts, pad_id=self.pad_id)
        return self._vocabulary is not None

    def restore_vocabulary(self) -> None:
        """Have all embeddings again, with what was learnt."""
        if self._vocabulary is not None:
            self._vocabulary.restore()
            self._vocabulary = None

    @property
    def tells_types(self) -> bool:
        """Whether the network has embeddings for the first and the second text of a pair (`token_type_ids`)."""
        return tells_types(self.network)

    def forward(self, batch: Batch | Packed) -> Tensor:
        """Logits of a batch: (batch, num_labels), on the network's device, in the precision of the context."""
        if batch.token_type_ids is not None and not self.tells_types:
            batch = replace(batch, token_type_ids=None)
        if self._vocabulary is not None:
            batch = replace(batch, input_ids=self._vocabulary.translate(batch.input_ids))
        if isinstance(batch, Packed):
            assert self._packed is not None
            return self._packed(batch)
        input_ids_BT = torch.from_numpy(batch.input_ids).to(self.device, non_blocking=True)
        mask_BT = torch.from_numpy(batch.attention_mask).to(self.device, non_blocking=True)
        types = {}
        if batch.token_type_ids is not None:
            types["token_type_ids"] = torch.from_numpy(batch.token_type_ids).to(self.device, non_blocking=True)
        return self.network(input_ids=input_ids_BT, attention_mask=mask_BT, **types).logits  # type: ignore[no-any-return]

    def head_parameters(self) -> set[str]:
        """Names, in this module, of the head's parameters."""
        return {f"network.{name}" for name in head_names(self.network)}

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors as transformers does."""
        with silent():
            self.network.save_pretrained(folder)
