"""A transformers backbone under a pooled head, as a model of transformers' own kind.

This file is copied beside the weights that need it, so that plain transformers can load them:
`AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

POOLINGS = ("cls", "mean", "max", "last", "attention")
HEAD_CLASSES: dict[str, type[nn.Module]] = {}
"""Heads that are code of their own, by `head_key`; whoever loads a model puts its head here first."""


def head_key(record: Any) -> str:
    """By what a head is known that is code of its own: the SHA-256 of its file, or its name among installed heads."""
    return str(record.get("sha256") or record.get("entry_point"))


def pool(hidden_BTD: Tensor, mask_BT: Tensor, pooling: str, scores_BT: Tensor | None = None) -> Tensor:
    """One state of a text out of all of its tokens', scaled to a root mean square of 1: (batch, width) float32.

    pooling: `cls` takes the first real token, `last` the last one, `mean` and `max` all of them; `attention` their
    mean, weighted by the softmax of `scores_BT`. Which tokens are real is the mask's to say, never the token ids'.
    """
    hidden_BTD = hidden_BTD.float()  # bf16 loses digits over many tokens
    mask_BT1 = mask_BT.unsqueeze(-1)
    if pooling in ("cls", "last"):
        mask_BT = mask_BT.to(torch.int32)
        place_T = torch.arange(mask_BT.shape[1], device=mask_BT.device, dtype=torch.int32)
        index_B = (mask_BT if pooling == "cls" else place_T * mask_BT).argmax(dim=1)
        pooled_BD = hidden_BTD[torch.arange(len(index_B), device=index_B.device), index_B]
    elif pooling == "max":
        pooled_BD = hidden_BTD.masked_fill(mask_BT1 == 0, -1e30).amax(dim=1)
    elif pooling == "attention" and scores_BT is not None:
        weights_BT = torch.softmax(scores_BT.masked_fill(mask_BT == 0, -1e30), dim=1)
        pooled_BD = (hidden_BTD * weights_BT.unsqueeze(-1)).sum(dim=1)
    else:
        mask_BT1 = mask_BT1.float()
        pooled_BD = (hidden_BTD * mask_BT1).sum(dim=1) / mask_BT1.sum(dim=1).clamp(min=1)
    return pooled_BD * torch.rsqrt(pooled_BD.square().mean(dim=1, keepdim=True) + 1e-12)


class TextclfConfig(PreTrainedConfig):
    """text_config: the backbone's own config. pooling: how a text's hidden states become one, of POOLINGS.

    head_hidden: numbers in a hidden layer between pooling and logits, 0 for none. head_dropout: share of the
    numbers dropped before a layer of the head, None for the backbone's own. head_code: where the head is code of its
    author's (pooling is then None), which: `class`, and `sha256` of its file or `entry_point` and `module`.
    """

    model_type = "textclf"
    sub_configs: ClassVar[dict[str, Any]] = {"text_config": AutoConfig}

    def __init__(
        self,
        text_config: Any = None,
        pooling: str | None = "mean",
        head_hidden: int = 0,
        head_dropout: float | None = None,
        head_code: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(text_config, dict):
            text_config = AutoConfig.for_model(**text_config)
        self.text_config = text_config
        self.pooling = pooling
        self.head_hidden = head_hidden
        self.head_dropout = head_dropout
        self.head_code = head_code
        super().__init__(**kwargs)


class TextclfForSequenceClassification(PreTrainedModel):
    """logits = classifier(pooled), or classifier(gelu(dense(pooled))); pooled states have a root mean square of 1.

    Where the config names code, logits = head(hidden, mask) instead.
    """

    config_class = TextclfConfig
    config: TextclfConfig
    base_model_prefix = "backbone"
    supports_gradient_checkpointing = True
    _supports_attention_backend = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    def __init__(
        self, config: TextclfConfig, backbone: PreTrainedModel | None = None, head: nn.Module | None = None
    ) -> None:
        super().__init__(config)
        if config.head_code is None and config.pooling not in POOLINGS:
            raise ValueError(f"pooling {config.pooling!r} is not known; this file knows {', '.join(POOLINGS)}")
        self.backbone = backbone if backbone is not None else AutoModel.from_config(config.text_config)
        if getattr(self.backbone, "pooler", None) is not None:
            self.backbone.pooler = None  # a layer over the first token alone; nothing reads it here
        width, outputs = config.text_config.hidden_size, int(config.num_labels or 0)
        self.head = head
        if config.head_code is not None:
            self.head = head if head is not None else self._build_head()
            # Loading a model leaves what lies in no file without values.
            self._unsaved = {
                module: {name: getattr(module, name).clone() for name in module._non_persistent_buffers_set}
                for module in self.head.modules()
            }
            self.post_init()
            return
        share = config.head_dropout
        self.dropout = nn.Dropout(_dropout_of(config.text_config) if share is None else share)
        # Attention's first layer: how much each token counts.
        self.attention = nn.Linear(width, 1, bias=False) if config.pooling == "attention" else None
        self.dense = nn.Linear(width, config.head_hidden) if config.head_hidden else None
        self.classifier = nn.Linear(config.head_hidden or width, outputs)
        self.post_init()

    @classmethod
    def is_custom_code(cls) -> bool:
        # transformers takes care of code that overwrites loaded weights by not calling what sets up some backbones'
        # buffers (Falcon-H1's). The functions below leave loaded weights alone.
        return False

    def _build_head(self) -> nn.Module:
        key = head_key(self.config.head_code)
        if key not in HEAD_CLASSES:
            raise ValueError(f"the code of the head {self.config.head_code} was not loaded")
        sizes = {"hidden_size": self.config.text_config.hidden_size, "num_labels": int(self.config.num_labels or 0)}
        with torch.device("cpu"):  # loading builds on a device without values, and a head may compute some
            return HEAD_CLASSES[key](**sizes)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if self.config.head_code is not None:
            for name, values in self._unsaved.get(module, {}).items():
                getattr(module, name).copy_(values)
            return  # for the rest it has started itself
        if module is self.attention:
            nn.init.zeros_(module.weight)  # at first, all tokens alike: the mean
        elif module is self.dense:
            nn.init.normal_(module.weight, 0, module.in_features**-0.5)
            nn.init.zeros_(module.bias)
        elif module is self.classifier:
            nn.init.normal_(module.weight, 0, 0.02)
            nn.init.zeros_(module.bias)

    def get_input_embeddings(self) -> nn.Module:
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.backbone.set_input_embeddings(value)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Logits (batch, num_labels) of input_ids and attention_mask (batch, tokens)."""
        hidden_BTD = self.backbone(input_ids=input_ids, attention_mask=attention_mask, **kwargs).last_hidden_state
        if attention_mask is None:
            attention_mask = hidden_BTD.new_ones(hidden_BTD.shape[:2])
        if self.head is not None:
            logits_BC = self.head(hidden_BTD, attention_mask.bool())
            loss = self.loss_function(labels, logits_BC, self.config) if labels is not None else None
            return SequenceClassifierOutput(loss=loss, logits=logits_BC)
        assert self.config.pooling is not None  # a head that is code pools by itself
        scores_BT = self.attention(hidden_BTD).squeeze(-1).float() if self.attention is not None else None
        state_BD = self.dropout(pool(hidden_BTD, attention_mask, self.config.pooling, scores_BT))
        # The head's weights may be in less than fp32, which autocast would see to.
        state_BD = state_BD.to(self.classifier.weight.dtype)
        if self.dense is not None:
            state_BD = self.dropout(nn.functional.gelu(self.dense(state_BD)))
        logits_BC = self.classifier(state_BD)
        loss = self.loss_function(labels, logits_BC, self.config) if labels is not None else None
        return SequenceClassifierOutput(loss=loss, logits=logits_BC)


def _dropout_of(config: Any) -> float:
    """The dropout that the backbone was pretrained with, as far as its config says."""
    for name in ("hidden_dropout_prob", "dropout", "resid_pdrop", "hidden_dropout"):
        if isinstance(getattr(config, name, None), (int, float)):
            return float(getattr(config, name))
    return 0.1
