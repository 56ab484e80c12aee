"""Classifier: a backbone and its head; a batch in, logits out; save and load."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from textclf.artifact.folder import Artifact
from textclf.data.batching import Batch, Packed
from textclf.data.encoding import Encoded
from textclf.errors import UsageError
from textclf.labels import LabelSet
from textclf.model import head_code
from textclf.model.adapters import Lora
from textclf.model.backbone import (
    can_be_pooled,
    general_pooling,
    has_own_head,
    head_names,
    load_backbone,
    load_finished,
    save,
    tells_types,
    under_code,
    under_head,
)
from textclf.model.device import on_device
from textclf.model.head_code import HeadCode
from textclf.model.heads import OwnHead, last_states
from textclf.model.layers import depths, layers
from textclf.model.modeling_textclf import TextclfForSequenceClassification
from textclf.model.packing import PackedForward, packed_forward
from textclf.model.trial import Reading, try_reading
from textclf.model.vocabulary import CompactVocabulary, compact


class Classifier(nn.Module):
    """A network whose logits follow the order of `label_set`.

    pad_id: token id of padding; any id does, as the mask hides it.
    reading: how the network reads a batch. fresh: names of parameters that started from nothing, () for a finished
    classifier.
    """

    def __init__(
        self,
        network: PreTrainedModel,
        label_set: LabelSet,
        *,
        pad_id: int,
        reading: Reading,
        fresh: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.network = network
        self.label_set = label_set
        self.pad_id = pad_id
        self.reading = reading
        self.fresh = fresh
        self._own_head = OwnHead(network)
        self._packed: PackedForward | None = None
        self._vocabulary: CompactVocabulary | None = None
        self._lora: Lora | None = None
        self._code_output: nn.Linear | None = None

    @classmethod
    def from_pretrained(
        cls,
        folder: Path,
        label_set: LabelSet,
        tokenizer: PreTrainedTokenizerBase,
        *,
        allow_bin: bool = False,
        head: str | None = None,
    ) -> Classifier:
        """A pretrained model with a fresh head. head: what `model.head` asks for; a head that is code is built at once.

        See `load_backbone`, `under_code` and `head_code.try_head` for what is raised.
        """
        network, fresh, code = load_backbone(folder, label_set, tokenizer, allow_bin=allow_bin, head=head)
        pad_id = int(network.config.pad_token_id)
        reading = try_reading(network, pad_id=pad_id, where=str(folder))
        made = cls(network, label_set, pad_id=pad_id, reading=reading, fresh=fresh)
        if code is not None:
            made._use_code(code)
        return made

    @classmethod
    def from_artifact(cls, artifact: Artifact, *, head: str | None = None) -> Classifier:
        """A finished classifier. head: the code of its head, where it is code. What is raised: `load_finished`."""
        network = load_finished(artifact.folder, artifact.label_set, head=head)
        pad_id = int(network.config.pad_token_id or 0)
        reading = try_reading(network, pad_id=pad_id, where=str(artifact.folder))
        return cls(network, artifact.label_set, pad_id=pad_id, reading=reading).eval()

    @property
    def device(self) -> torch.device:
        return self.network.device

    @property
    def model_type(self) -> str:
        """What transformers calls the architecture of the backbone."""
        backbone: Any = self.network.base_model
        return str(backbone.config.model_type)

    @property
    def positions(self) -> int:
        """Tokens that the network can take at most."""
        config = self.network.config.get_text_config()
        declared = getattr(config, "max_position_embeddings", None) or 0
        embeddings = getattr(self.network.base_model, "embeddings", None)
        table = getattr(embeddings, "position_embeddings", None)
        # RoBERTa's kin count positions from padding_idx + 1.
        offset = table.padding_idx + 1 if isinstance(table, nn.Embedding) and table.padding_idx is not None else 0
        return int(declared - offset) if declared > 0 else sys.maxsize  # XLNet says -1: there is no end

    @property
    def has_dropout(self) -> bool:
        """Whether a layer of the backbone drops numbers as it learns."""
        return any(isinstance(one, nn.Dropout) and one.p > 0 for one in self.network.base_model.modules())

    @property
    def width(self) -> int:
        """Numbers in a hidden state."""
        return int(self.network.config.get_text_config().hidden_size)

    def freeze(self, what: int | str) -> int:
        """Leave embeddings, and so many layers above them, as they are: how many numbers that is.

        what: `embeddings` or a number of layers. Raises UsageError for more layers than there are.
        """
        wanted = what if isinstance(what, int) else 0
        there = len(layers(self.network))
        if wanted > there:
            raise UsageError(
                f"model.freeze is {wanted}; this {self.network.config.model_type} model has {there} layers"
            )
        frozen = 0
        for name, depth in depths(self.network).items():
            if depth <= wanted:
                parameter = self.network.get_parameter(name)
                parameter.requires_grad_(False)
                frozen += parameter.numel()
        return frozen

    def depths(self) -> dict[str, int]:
        """How deep each of the backbone's parameters lies, by its name in this module; see `layers.depths`."""
        return {f"network.{name}": depth for name, depth in depths(self.network).items()}

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
    def head(self) -> str:
        """`own` for the architecture's own head, `code` for one of the user's, else how states are pooled."""
        if self.head_record is not None:
            return "code"
        pooled = isinstance(self.network, TextclfForSequenceClassification)
        return self.network.config.pooling if pooled else "own"  # type: ignore[no-any-return]

    @property
    def head_record(self) -> dict[str, str] | None:
        """What config.json says of a head that is code, None for other heads."""
        return getattr(self.network.config, "head_code", None)

    @property
    def architecture_has_head(self) -> bool:
        """Whether transformers has a head of its own for the backbone's architecture."""
        return has_own_head(self.network.base_model.config)

    @property
    def is_of_transformers(self) -> bool:
        """Whether plain transformers has the whole network, with its head."""
        return type(self.network).__module__.partition(".")[0] == "transformers"

    def other_pooling(self, pooling: str | None) -> str | None:
        """This pooling, if a head over it would be another than the architecture's own, and fits the backbone."""
        same = pooling == "last" and self.reading.reads_last
        return pooling if can_be_pooled(self.network) and not same else None

    @property
    def general_head(self) -> str:
        """The pooling that fits this kind of network best, all else being unknown."""
        return general_pooling(self.network)

    def has_head(self, head: str, *, hidden: int | None = None) -> bool:
        """Whether its head is this one; hidden: with a hidden layer of so many numbers, None for any."""
        return self.head == head and (hidden is None or hidden == getattr(self.network.config, "head_hidden", 0))

    @property
    def output_layer(self) -> nn.Linear | None:
        """The last layer: hidden numbers in, one logit per label out. None for a head of code that ends otherwise."""
        if self.head_record is not None:
            return self._code_output
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
        output = self.output_layer
        if output is None:
            return not head_names(self.network).isdisjoint(self.fresh)
        return any(self.network.get_parameter(name) is output.weight for name in self.fresh)

    @property
    def can_be_probed(self) -> bool:
        """Whether what the last layer takes in means something already, though the head has learnt nothing."""
        output = self.output_layer
        if self.head_record is None or output is None:
            return output is not None
        head = [self.network.get_parameter(name) for name in head_names(self.network)]
        last = {id(parameter) for parameter in output.parameters()}
        return not any(parameter.requires_grad and id(parameter) not in last for parameter in head)

    def use_head(self, pooling: str, *, hidden: int = 0) -> None:
        """Replace the head by layers over pooled hidden states, with fresh weights."""
        self._exchange(under_head(self.network, self.label_set, pooling, hidden=hidden))

    def _use_code(self, code: HeadCode) -> None:
        """Have a head of this code, fresh where the network came with another, and know the linear layer it ends in."""
        sizes = {"hidden_size": self.width, "num_labels": len(self.label_set)}
        # Another one is tried: a head may keep something of what it saw.
        output = head_code.try_head(code, head_code.build(code, **sizes), **sizes)
        if self.head_record is None:
            self._exchange(under_code(self.network, self.label_set, code))
        if output is not None:
            last = self.network.get_submodule(f"head.{output}")
            assert isinstance(last, nn.Linear)
            self._code_output = last

    def _exchange(self, network: PreTrainedModel) -> None:
        self.network = network
        self.fresh = tuple(sorted(head_names(self.network)))
        self.reading = replace(self.reading, reads_last=False)
        self._own_head = OwnHead(self.network)
        self._packed = None

    def set_head_dropout(self, share: float) -> None:
        """Drop this share of the numbers before each layer of a pooled head."""
        assert isinstance(self.network, TextclfForSequenceClassification)
        self.network.dropout.p = self.network.config.head_dropout = share

    def add_lora(self, rank: int) -> None:
        """Let adapters learn in place of the backbone, until `merge_lora`. See `adapters.Lora` for what is raised."""
        self._lora = Lora(self.network, rank=rank, kept_learning=self.fresh)

    def save_lora(self, folder: Path, *, base: str, revision: str | None) -> None:
        """Write what the adapters and the head have learnt, alone. See `adapters.Lora.save` for the arguments."""
        assert self._lora is not None
        self._lora.save(folder, base=base, revision=revision)

    def merge_lora(self) -> None:
        """Have a plain network again, with what the adapters have learnt."""
        if self._lora is not None:
            self._lora.merge()
            self._lora = None

    def try_packing(self, *, max_length: int) -> bool:
        """From now on take packed batches too, if the architecture gives the same logits that way."""
        self._packed = None
        if not self.reading.alone:
            self._packed = packed_forward(
                self.network, pad_id=self.pad_id, max_length=max_length, reads_last=self.reading.reads_last
            )
        return self.packs

    def only_pad(self) -> None:
        """From now on take padded batches only."""
        self._packed = None

    @property
    def packs(self) -> bool:
        """Whether it takes packed batches."""
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
        with self._packed.lock if self._packed is not None else nullcontext():
            return self._padded(batch)

    def _padded(self, batch: Batch) -> Tensor:
        input_ids_BT = on_device(batch.input_ids, self.device)
        mask_BT = on_device(batch.attention_mask, self.device)
        types_BT = None
        if batch.token_type_ids is not None:
            types_BT = on_device(batch.token_type_ids, self.device)
        if not self.reading.alone:
            return self.logits(input_ids_BT, mask_BT, types_BT)
        lengths = batch.attention_mask.sum(axis=1).tolist()
        texts = [(slice(row, row + 1), slice(length)) for row, length in enumerate(lengths)]
        return torch.cat(
            [
                self.logits(input_ids_BT[text], mask_BT[text], types_BT[text] if types_BT is not None else None)
                for text in texts
            ]
        )

    def logits(self, input_ids_BT: Tensor, mask_BT: Tensor, types_BT: Tensor | None = None) -> Tensor:
        """Logits (batch, num_labels) of padded token ids. What is padding is the mask's to say.

        types_BT: which text of a pair a token belongs to, where the network asks.
        """
        inputs = {"input_ids": input_ids_BT, "attention_mask": mask_BT}
        if types_BT is not None:
            inputs["token_type_ids"] = types_BT
        if not self.reading.reads_last:
            return self.network(**inputs).logits  # type: ignore[no-any-return]
        hidden_BTD = self.network.base_model(**inputs).last_hidden_state
        return self._own_head.of_states(last_states(hidden_BTD, mask_BT))

    def head_parameters(self) -> set[str]:
        """Names, in this module, of the head's parameters."""
        return {f"network.{name}" for name in head_names(self.network)}

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors as transformers does, with the code of a model that it has not."""
        save(self.network, folder)
