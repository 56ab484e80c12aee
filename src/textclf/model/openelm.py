"""OpenELM (Mehta et al. 2024, https://arxiv.org/abs/2404.14619), a decoder that transformers has not.

Its layers differ in width: the heads of attention and the feed-forward units grow from the first layer to the last.
Written from the paper. Parameters have the names of Apple's checkpoints on the Hub; those of CoreNet's lack the
`transformer.` in front.

This file is copied beside the weights that need it, so that plain transformers can load them:
`AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)`.

Axes: B batch, T tokens, D hidden, H query heads, G key and value heads, d numbers of a head, C labels, V vocabulary.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import create_causal_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput, CausalLMOutput, SequenceClassifierOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


def make_divisible(value: float, divisor: int) -> int:
    """The multiple of `divisor` nearest to `value`, or the next one where that would be less than nine tenths of it."""
    nearest = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * value else nearest


class OpenELMConfig(PreTrainedConfig):
    """Sizes of an OpenELM model, under the names of Apple's config.json.

    qkv_multipliers: width of the queries as a share of model_dim: one number, or those of the first and the last
    layer, between which they grow evenly. ffn_multipliers: likewise for the feed-forward units, or one for each layer.
    num_query_heads, num_kv_heads: heads of each layer; None: by qkv_multipliers, and num_gqa_groups times fewer for
    keys and values. rope_freq_constant: base of the rotary frequencies. max_context_length: tokens it was trained on.

    Raises ValueError for settings that no published model has: other norms, no norm of queries and keys, no gate,
    an output layer of its own.
    """

    model_type = "openelm"
    attribute_map: ClassVar[dict[str, str]] = {
        "hidden_size": "model_dim",
        "num_hidden_layers": "num_transformer_layers",
        "max_position_embeddings": "max_context_length",
    }

    def __init__(
        self,
        vocab_size: int = 32000,
        max_context_length: int = 2048,
        num_transformer_layers: int = 16,
        model_dim: int = 1280,
        head_dim: int = 64,
        qkv_multipliers: float | list[float] = (0.5, 1.0),  # type: ignore[assignment]
        num_query_heads: list[int] | None = None,
        num_kv_heads: list[int] | None = None,
        num_gqa_groups: int = 4,
        ffn_multipliers: float | list[float] = (0.5, 4.0),  # type: ignore[assignment]
        ffn_dim_divisor: int = 256,
        rope_freq_constant: float = 10000,
        initializer_range: float = 0.02,
        bos_token_id: int | None = 1,
        eos_token_id: int | None = 2,
        **kwargs: Any,
    ) -> None:
        layers = num_transformer_layers
        self.vocab_size = vocab_size
        self.max_context_length = max_context_length
        self.num_transformer_layers = layers
        self.model_dim = model_dim
        self.head_dim = head_dim
        self.qkv_multipliers = qkv_multipliers
        self.num_gqa_groups = num_gqa_groups
        self.num_query_heads = num_query_heads or [
            make_divisible(model_dim * share, head_dim * num_gqa_groups) // head_dim
            for share in _per_layer("qkv_multipliers", qkv_multipliers, layers)
        ]
        self.num_kv_heads = num_kv_heads or [heads // num_gqa_groups for heads in self.num_query_heads]
        self.ffn_multipliers = _per_layer("ffn_multipliers", ffn_multipliers, layers)
        self.ffn_dim_divisor = ffn_dim_divisor
        self.rope_freq_constant = rope_freq_constant
        self.initializer_range = initializer_range
        for name, only in _ONLY.items():
            if kwargs.get(name, only) != only:
                raise ValueError(f"{name} is {kwargs[name]!r}; OpenELM models have {only!r}")
            kwargs[name] = only
        for name, heads in (("num_query_heads", self.num_query_heads), ("num_kv_heads", self.num_kv_heads)):
            if len(heads) != layers:
                raise ValueError(f"{name} has {len(heads)} numbers for {layers} layers")
        if any(q % kv for q, kv in zip(self.num_query_heads, self.num_kv_heads, strict=True)):
            raise ValueError("num_kv_heads does not divide num_query_heads in every layer")
        kwargs["tie_word_embeddings"] = True  # share_input_output_layers in transformers' words
        super().__init__(**{**kwargs, "bos_token_id": bos_token_id, "eos_token_id": eos_token_id})

    @property
    def ffn_dims(self) -> list[int]:
        """Feed-forward units of each layer."""
        return [make_divisible(share * self.model_dim, self.ffn_dim_divisor) for share in self.ffn_multipliers]


_ONLY: dict[str, Any] = {
    "activation_fn_name": "swish",
    "normalization_layer_name": "rms_norm",
    "normalize_qk_projections": True,
    "ffn_with_glu": True,
    "share_input_output_layers": True,
}
"""Settings of CoreNet's in which all published models agree."""


def _per_layer(name: str, shares: float | list[float] | tuple[float, ...], layers: int) -> list[float]:
    """One number for each layer, with two digits where they are interpolated, as those of the published models."""
    if isinstance(shares, int | float):
        return [float(shares)] * layers
    if len(shares) == layers:
        return [float(share) for share in shares]
    if len(shares) != 2:
        raise ValueError(f"{name} has {len(shares)} numbers for {layers} layers; give one, two, or one for each layer")
    first, last = shares
    return [round(first + (last - first) * layer / max(layers - 1, 1), 2) for layer in range(layers)]


class OpenELMRMSNorm(nn.RMSNorm):
    """states / sqrt(mean of their squares + 1e-6) * weight, over the last axis, computed in fp32."""

    def __init__(self, size: int) -> None:
        super().__init__(size, eps=1e-6)

    def forward(self, states: Tensor) -> Tensor:
        # torch's own takes no weight of another dtype, and in training the weights are fp32 where states are bf16.
        return F.rms_norm(states.float(), self.normalized_shape, self.weight.float(), self.eps).to(states.dtype)


def rotary(position_ids_BT: Tensor, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the angles that turn a head's pairs of numbers: each (batch, 1, tokens, head_dim) float32.

    As in RoFormer (Su et al. 2021), number i paired with number i + head_dim / 2.
    """
    exponent = torch.arange(0, head_dim, 2, device=position_ids_BT.device).float() / head_dim
    angles_BTd = position_ids_BT.float().unsqueeze(-1) * base**-exponent
    angles_B1Td = torch.cat([angles_BTd, angles_BTd], dim=-1).unsqueeze(1)
    return angles_B1Td.cos(), angles_B1Td.sin()


def rotate(states_BHTd: Tensor, cos_B1Td: Tensor, sin_B1Td: Tensor) -> Tensor:
    """Queries or keys turned by the angles of their positions, computed in fp32."""
    first, second = states_BHTd.float().chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return (states_BHTd.float() * cos_B1Td + turned * sin_B1Td).to(states_BHTd.dtype)


def attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    """Attention by plain products, what transformers calls eager: (batch, tokens, heads, head_dim), and the weights."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores_BHTT = query @ key.transpose(-1, -2) * kwargs["scaling"]
    if attention_mask is not None:
        scores_BHTT = scores_BHTT + attention_mask
    weights_BHTT = scores_BHTT.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return (weights_BHTT @ value).transpose(1, 2), weights_BHTT


class OpenELMAttention(nn.Module):
    """Causal attention in which several heads of queries share one of keys and values, with normed queries and keys."""

    def __init__(self, config: OpenELMConfig, layer: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer
        self.is_causal = True
        self.head_dim = config.head_dim
        self.heads, self.kv_heads = config.num_query_heads[layer], config.num_kv_heads[layer]
        self.num_key_value_groups = self.heads // self.kv_heads  # transformers' attention functions look for it
        self.qkv_proj = nn.Linear(config.model_dim, (self.heads + 2 * self.kv_heads) * self.head_dim, bias=False)
        self.q_norm = OpenELMRMSNorm(self.head_dim)
        self.k_norm = OpenELMRMSNorm(self.head_dim)
        self.out_proj = nn.Linear(self.heads * self.head_dim, config.model_dim, bias=False)

    def forward(
        self, states_BTD: Tensor, cos_B1Td: Tensor, sin_B1Td: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> Tensor:
        heads_BHTd = self.qkv_proj(states_BTD).unflatten(-1, (-1, self.head_dim)).transpose(1, 2)
        query_BHTd, key_BGTd, value_BGTd = heads_BHTd.split([self.heads, self.kv_heads, self.kv_heads], dim=1)
        query_BHTd = rotate(self.q_norm(query_BHTd), cos_B1Td, sin_B1Td)
        key_BGTd = rotate(self.k_norm(key_BGTd), cos_B1Td, sin_B1Td)
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, attention)
        attended_BTHd, _ = attend(
            self, query_BHTd, key_BGTd, value_BGTd, mask, dropout=0.0, scaling=self.head_dim**-0.5, **kwargs
        )
        return self.out_proj(attended_BTHd.flatten(-2))  # type: ignore[no-any-return]


class OpenELMFeedForward(nn.Module):
    """proj_2(silu(gate) * units), gate and units both from proj_1 (Shazeer 2020, "GLU variants")."""

    def __init__(self, config: OpenELMConfig, layer: int) -> None:
        super().__init__()
        units = config.ffn_dims[layer]
        self.proj_1 = nn.Linear(config.model_dim, 2 * units, bias=False)
        self.proj_2 = nn.Linear(units, config.model_dim, bias=False)

    def forward(self, states_BTD: Tensor) -> Tensor:
        gate, units = self.proj_1(states_BTD).chunk(2, dim=-1)
        return self.proj_2(F.silu(gate) * units)  # type: ignore[no-any-return]


class OpenELMDecoderLayer(GradientCheckpointingLayer):
    """Attention and feed-forward, each of normed states and added to what it took in."""

    def __init__(self, config: OpenELMConfig, layer: int) -> None:
        super().__init__()
        self.attn = OpenELMAttention(config, layer)
        self.ffn = OpenELMFeedForward(config, layer)
        self.attn_norm = OpenELMRMSNorm(config.model_dim)
        self.ffn_norm = OpenELMRMSNorm(config.model_dim)

    def forward(
        self, states_BTD: Tensor, cos_B1Td: Tensor, sin_B1Td: Tensor, mask: Tensor | None, **kwargs: Any
    ) -> Tensor:
        states_BTD = states_BTD + self.attn(self.attn_norm(states_BTD), cos_B1Td, sin_B1Td, mask, **kwargs)
        return states_BTD + self.ffn(self.ffn_norm(states_BTD))  # type: ignore[no-any-return]


class OpenELMPreTrainedModel(PreTrainedModel):
    """What the models below have in common."""

    config_class = OpenELMConfig
    config: OpenELMConfig
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _no_split_modules = ["OpenELMDecoderLayer"]  # noqa: RUF012 - as transformers declares it
    _input_embed_layer = "token_embeddings"
    _supports_attention_backend = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True


class OpenELMModel(OpenELMPreTrainedModel):
    """Token ids to hidden states."""

    def __init__(self, config: OpenELMConfig) -> None:
        super().__init__(config)
        self.token_embeddings = nn.Embedding(config.vocab_size, config.model_dim)
        self.layers = nn.ModuleList(
            OpenELMDecoderLayer(config, layer) for layer in range(config.num_transformer_layers)
        )
        self.norm = OpenELMRMSNorm(config.model_dim)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_hidden_states: bool = False,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Hidden states (batch, tokens, model_dim) of input_ids and attention_mask (batch, tokens) int64."""
        states_BTD = self.token_embeddings(input_ids) if inputs_embeds is None else inputs_embeds
        if position_ids is None:
            position_ids = torch.arange(states_BTD.shape[1], device=states_BTD.device).unsqueeze(0)
        mask = create_causal_mask(
            config=self.config,
            inputs_embeds=states_BTD,
            attention_mask=attention_mask,
            past_key_values=None,
            position_ids=position_ids,
        )
        cos_B1Td, sin_B1Td = rotary(position_ids, self.config.head_dim, self.config.rope_freq_constant)
        every = [states_BTD]
        for layer in self.layers:
            states_BTD = layer(states_BTD, cos_B1Td, sin_B1Td, mask, position_ids=position_ids, **kwargs)
            every.append(states_BTD)
        every[-1] = states_BTD = self.norm(states_BTD)
        return BaseModelOutput(
            last_hidden_state=states_BTD, hidden_states=tuple(every) if output_hidden_states else None
        )


class OpenELMForCausalLM(OpenELMPreTrainedModel):
    """The logits of each next token, by the embeddings themselves. Keeps no keys and values for generating."""

    _tied_weights_keys = {"lm_head.weight": "transformer.token_embeddings.weight"}  # noqa: RUF012

    def __init__(self, config: OpenELMConfig) -> None:
        super().__init__(config)
        self.transformer = OpenELMModel(config)
        self.lm_head = nn.Linear(config.model_dim, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutput:
        """Logits (batch, tokens, vocab_size) of input_ids and attention_mask (batch, tokens) int64."""
        output = self.transformer(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        logits_BTV = self.lm_head(output.last_hidden_state)
        loss = self.loss_function(logits_BTV, labels, self.config.vocab_size) if labels is not None else None
        return CausalLMOutput(loss=loss, logits=logits_BTV, hidden_states=output.hidden_states)


class OpenELMForSequenceClassification(OpenELMPreTrainedModel):
    """logits = score(hidden state of a text's last token)."""

    def __init__(self, config: OpenELMConfig) -> None:
        super().__init__(config)
        self.transformer = OpenELMModel(config)
        self.score = nn.Linear(config.model_dim, int(config.num_labels or 0), bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutput:
        """Logits (batch, num_labels) of input_ids and attention_mask (batch, tokens) int64, padded on either side."""
        output = self.transformer(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        states_BTD = output.last_hidden_state
        place_T = torch.arange(states_BTD.shape[1], device=states_BTD.device)
        # By the mask and not by the pad token: a text may hold the token that stands in for it.
        last_B = place_T[-1] if attention_mask is None else (place_T * attention_mask).argmax(dim=-1)
        logits_BC = self.score(states_BTD[torch.arange(len(states_BTD), device=states_BTD.device), last_B])
        loss = self.loss_function(labels, logits_BC, self.config) if labels is not None else None
        return SequenceClassifierOutput(loss=loss, logits=logits_BC, hidden_states=output.hidden_states)
