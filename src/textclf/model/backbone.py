"""Load a pretrained encoder or decoder with a classification head of the right size."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from textclf.artifact import folder as names
from textclf.errors import ModelError, RefusedError
from textclf.labels import LabelSet
from textclf.model.modeling_textclf import TextclfConfig, TextclfForSequenceClassification

AutoConfig.register("textclf", TextclfConfig)
AutoModelForSequenceClassification.register(TextclfConfig, TextclfForSequenceClassification)
# Saved models then name the file that defines them, and bring it along.
TextclfConfig.register_for_auto_class()
TextclfForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")

BATCH_DEPENDENT = frozenset({"fnet", "convbert"})
"""Model types whose answer for a text changes with the texts padded beside it: no mask reaches their mixing."""


def load_backbone(
    folder: Path, label_set: LabelSet, tokenizer: PreTrainedTokenizerBase, *, allow_bin: bool = False
) -> tuple[PreTrainedModel, tuple[str, ...]]:
    """A pretrained model in fp32 with a fresh head for `label_set`, and the names of its fresh parameters.

    The head is the architecture's own. A head that the folder brings is kept where its label names are the
    same. Call `torch.manual_seed` before: it decides the fresh weights. Raises ModelError where the folder
    has no weights, weights of another architecture, or a type that transformers cannot classify with.
    """
    config = _config(folder)
    if config.model_type in BATCH_DEPENDENT:
        raise ModelError(
            f"{folder}: {config.model_type} models answer differently depending on the texts beside a text",
            hint="choose another model, for example distilbert-base-uncased",
        )
    if type(config) not in AutoModelForSequenceClassification._model_mapping:
        raise ModelError(
            f"{folder}: transformers has no sequence classification for model type {config.model_type!r}",
            hint="choose a BERT-, RoBERTa-, ModernBERT-, GPT-2-, Llama- or Qwen-type model",
        )
    same_labels = getattr(config, "id2label", None) == label_set.id2label
    config.id2label, config.label2id = label_set.id2label, label_set.label2id
    config.problem_type = label_set.problem_type
    config.pad_token_id = tokenizer.pad_token_id
    if getattr(config, "use_cache", None):
        config.use_cache = False  # keys and values are for generating; here they only cost memory
    network, loading = _load(folder, config, allow_bin=allow_bin)
    head = head_names(network)
    fresh = set(loading["missing_keys"]) | {_name(key) for key in loading["mismatched_keys"]}
    # Checkpoints of masked language models lack the pooler over the first token.
    lost = sorted(name for name in fresh - head - _rebuilt(network) if ".pooler." not in name)
    if lost:
        raise ModelError(
            f"{folder}: the weights lack {len(lost)} parts of a {config.model_type} model, such as {lost[0]}",
            hint="the file does not belong to this config.json; download the model again",
        )
    if not same_labels:
        fresh |= _start_afresh(network, head - fresh)
    _check_vocabulary(network, tokenizer, folder)
    return network, tuple(sorted(fresh))


def load_finished(folder: Path, label_set: LabelSet) -> PreTrainedModel:
    """A finished classifier in fp32, every weight from the folder. Raises ModelError where any is missing."""
    config = _config(folder)
    if type(config) not in AutoModelForSequenceClassification._model_mapping:
        raise ModelError(
            f"{folder}: model type {config.model_type!r} is not known to transformers {transformers.__version__}"
        )
    network, loading = _load(folder, config, allow_bin=False)
    missing = sorted({*loading["missing_keys"], *map(_name, loading["mismatched_keys"])} - _rebuilt(network))
    if missing:
        raise ModelError(
            f"{folder}: {len(missing)} weights are missing, such as {missing[0]}: this is no finished classifier",
            hint="fine-tune it first: textclf finetune --model ... --dataset ...",
        )
    if network.config.num_labels != len(label_set):
        raise ModelError(
            f"{folder}: {len(label_set)} label names, but the model has {network.config.num_labels} outputs"
        )
    return network


def mean_pooled(network: PreTrainedModel, label_set: LabelSet) -> PreTrainedModel:
    """The backbone of a network under a fresh linear head over the mean of its hidden states."""
    backbone: Any = network.base_model
    backbone.config._name_or_path = ""  # the folder on this machine is nobody's business
    config = TextclfConfig(
        text_config=backbone.config,
        pooling="mean",
        id2label=label_set.id2label,
        label2id=label_set.label2id,
        problem_type=label_set.problem_type,
        pad_token_id=network.config.pad_token_id,
        attn_implementation=backbone.config._attn_implementation,
    )
    return TextclfForSequenceClassification(config, backbone)


def pretrained_pooling(folder: Path) -> str | None:
    """How the model in a folder was pretrained to pool, if it says so as sentence-transformers do: `mean`."""
    try:
        said = json.loads((folder / names.POOLING).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(said, dict):
        return None
    modes = [name for name, value in said.items() if name.startswith("pooling_mode") and value is True]
    # Newer folders name the mode instead.
    return "mean" if modes == ["pooling_mode_mean_tokens"] or said.get("pooling_mode") == "mean" else None


def tells_types(network: PreTrainedModel) -> bool:
    """Whether a network has embeddings for the first and the second text of a pair."""
    kinds = getattr(network.config.get_text_config(), "type_vocab_size", None) or 0
    return kinds > 1 and "token_type_ids" in inspect.signature(network.base_model.forward).parameters


def head_names(network: PreTrainedModel) -> set[str]:
    """Names of the parameters that are the head's: all that lie outside the base model."""
    prefix = network.base_model_prefix + "."
    return {name for name, _ in network.named_parameters() if not name.startswith(prefix)}


def _config(folder: Path) -> Any:
    try:
        with silent():
            return AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as err:  # strict configs raise many kinds, all of them about this one file
        first = str(err).strip().split("\n", 1)[0]
        raise ModelError(f"{folder / 'config.json'} is not a config that transformers reads: {first}") from err


def _load(folder: Path, config: Any, *, allow_bin: bool) -> tuple[PreTrainedModel, dict[str, Any]]:
    if not allow_bin and not any(folder.glob("*.safetensors")) and any(folder.glob("*.bin")):
        raise RefusedError(
            f"{folder}: the weights are in PyTorch's pickle format (.bin) only, which can carry code",
            hint="if you trust its author: --set model.allow_bin=true",
        )
    try:
        with silent():
            network, loading = AutoModelForSequenceClassification.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,  # v5's default is the checkpoint's own, and bf16 weights do not train well
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=None if allow_bin else True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except MemoryError:
        raise
    except Exception as err:  # safetensors, OSError, RuntimeError...: all mean a bad folder
        first = str(err).strip().split("\n", 1)[0]
        raise ModelError(
            f"{folder}: the model cannot be loaded: {first}", hint="download or copy the folder again"
        ) from err
    return network, loading


def _start_afresh(network: PreTrainedModel, names: set[str]) -> set[str]:
    """Draw the last layer of somebody else's head anew: its outputs meant other labels."""
    drawn = set()
    outputs = network.config.num_labels
    for name in sorted(names):
        parameter = network.get_parameter(name)
        if parameter.shape[0] == outputs:
            with torch.no_grad():
                if parameter.dim() > 1:
                    parameter.normal_(0, getattr(network.config, "initializer_range", None) or 0.02)
                else:
                    parameter.zero_()
            drawn.add(name)
    return drawn


def _rebuilt(network: PreTrainedModel) -> set[str]:
    """Names that never lie in a file: buffers and tied weights."""
    tied = getattr(network, "all_tied_weights_keys", None) or {}
    return {name for name, _ in network.named_buffers()} | set(tied)


def _check_vocabulary(network: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    embeddings = network.get_input_embeddings()
    if isinstance(embeddings, torch.nn.Embedding) and len(tokenizer) > embeddings.num_embeddings:
        raise ModelError(
            f"{folder}: the tokenizer has {len(tokenizer)} tokens, the model only {embeddings.num_embeddings}",
            hint="model and tokenizer do not belong together",
        )


def _name(key: Any) -> str:
    return key[0] if isinstance(key, (tuple, list)) else str(key)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """No load report, no progress bar: what matters of them is checked and said here."""
    verbosity = transformers.logging.get_verbosity()
    bars = transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers.logging.set_verbosity(verbosity)
        if bars:
            transformers.logging.enable_progress_bar()
