"""A transformers backbone under a pooled linear head, as a model of transformers' own kind.

This file is copied beside the weights that need it, so that plain transformers can load them:
`AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)`.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput


def mean_pool(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """The mean of a text's hidden states, scaled to a root mean square of 1: (batch, width) float32."""
    # In fp32: bf16 loses digits over many tokens.
    mask_BT1 = mask_BT.unsqueeze(-1).float()
    mean_BD = (hidden_BTD.float() * mask_BT1).sum(dim=1) / mask_BT1.sum(dim=1).clamp(min=1)
    return mean_BD * torch.rsqrt(mean_BD.square().mean(dim=1, keepdim=True) + 1e-12)


class TextclfConfig(PreTrainedConfig):
    """text_config: the backbone's own config. pooling: how a text's hidden states become one, "mean"."""

    model_type = "textclf"
    sub_configs: ClassVar[dict[str, Any]] = {"text_config": AutoConfig}

    def __init__(self, text_config: Any = None, pooling: str = "mean", **kwargs: Any) -> None:
        if isinstance(text_config, dict):
            text_config = AutoConfig.for_model(**text_config)
        self.text_config = text_config
        self.pooling = pooling
        super().__init__(**kwargs)


class TextclfForSequenceClassification(PreTrainedModel):
    """logits = classifier(pooled hidden states, scaled to a root mean square of 1)."""

    config_class = TextclfConfig
    config: TextclfConfig
    base_model_prefix = "backbone"
    supports_gradient_checkpointing = True
    _supports_attention_backend = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    def __init__(self, config: TextclfConfig, backbone: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        if config.pooling != "mean":
            raise ValueError(f"pooling {config.pooling!r} is not known; this file knows 'mean'")
        self.backbone = backbone if backbone is not None else AutoModel.from_config(config.text_config)
        if getattr(self.backbone, "pooler", None) is not None:
            self.backbone.pooler = None  # a layer over the first token alone; nothing reads it here
        self.dropout = nn.Dropout(getattr(config.text_config, "hidden_dropout_prob", 0.1))
        self.classifier = nn.Linear(config.text_config.hidden_size, int(config.num_labels or 0))
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        if module is self.classifier:
            module.weight.data.normal_(0, 0.02)
            module.bias.data.zero_()

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
        pooled_BD = mean_pool(hidden_BTD, attention_mask)
        logits_BC = self.classifier(self.dropout(pooled_BD))
        loss = self.loss_function(labels, logits_BC, self.config) if labels is not None else None
        return SequenceClassifierOutput(loss=loss, logits=logits_BC)
