"""Load a pretrained encoder or decoder with a classification head of the right size."""

from __future__ import annotations

import contextlib
import inspect
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from textclf import plugins
from textclf.artifact import folder as names
from textclf.artifact import screening
from textclf.errors import ModelError
from textclf.labels import LabelSet
from textclf.model import head_code, openelm
from textclf.model.head_code import HeadCode, is_code
from textclf.model.modeling_textclf import POOLINGS, TextclfConfig, TextclfForSequenceClassification, head_key
from textclf.model.openelm import OpenELMConfig, OpenELMForCausalLM, OpenELMForSequenceClassification, OpenELMModel

AutoConfig.register("textclf", TextclfConfig)
AutoConfig.register("openelm", OpenELMConfig)
AutoModel.register(OpenELMConfig, OpenELMModel)
AutoModelForCausalLM.register(OpenELMConfig, OpenELMForCausalLM)
for _config_class, _class in (
    (TextclfConfig, TextclfForSequenceClassification),
    (OpenELMConfig, OpenELMForSequenceClassification),
):
    AutoModelForSequenceClassification.register(_config_class, _class)
    # Saved models then name the file that defines them, and bring it along.
    _config_class.register_for_auto_class()
    _class.register_for_auto_class("AutoModelForSequenceClassification")


def load_backbone(
    folder: Path,
    label_set: LabelSet,
    tokenizer: PreTrainedTokenizerBase,
    *,
    allow_bin: bool = False,
    head: str | None = None,
) -> tuple[PreTrainedModel, tuple[str, ...], HeadCode | None]:
    """A pretrained model in fp32 with a fresh head for `label_set`, and the names of its fresh parameters; and the code
    that its head is to be built from, where it is none of transformers' or of textclf's.

    The head is the architecture's own; where transformers has none for it, one linear layer over the last token of a
    causal model, over the mean of another's. A head that the folder brings is kept where its label names are the
    same. Call `torch.manual_seed` before: it decides the fresh weights. head: what `model.head` asks for; the code of a
    head that the folder brings is run only where nothing else is asked for. Raises ModelError where the folder has no
    weights, weights of another architecture, or a type that cannot classify, and RefusedError for a head whose code is
    not allowed.
    """
    config = _config(folder)
    bare = not has_own_head(config)
    if bare and type(config) not in AutoModel._model_mapping:
        raise ModelError(
            f"{folder}: transformers has no backbone for model type {config.model_type!r}",
            hint="choose a BERT-, RoBERTa-, ModernBERT-, GPT-2-, Llama- or Qwen-type model",
        )
    same_labels = not bare and getattr(config, "id2label", None) == label_set.id2label
    code = _code_wanted(config, same_labels, folder, head)
    config.id2label, config.label2id = label_set.id2label, label_set.label2id
    config.problem_type = label_set.problem_type
    config.get_text_config().pad_token_id = config.pad_token_id = tokenizer.pad_token_id
    if getattr(config, "use_cache", None):
        config.use_cache = False  # keys and values are for generating; here they only cost memory
    _check_ends(folder, config, tokenizer)
    network, loading = _load(folder, config, allow_bin=allow_bin, bare=bare)
    own = set() if bare else head_names(network)
    fresh = set(loading["missing_keys"]) | {_name(key) for key in loading["mismatched_keys"]}
    if _record(config) is not None and fresh & own:
        raise _incomplete(folder, sorted(fresh & own))
    # Checkpoints of masked language models lack the pooler over the first token.
    lost = sorted(name for name in fresh - own - _rebuilt(network) if "pooler." not in f".{name}")
    if lost:
        raise ModelError(
            f"{folder}: the weights lack {len(lost)} parts of a {config.model_type} model, such as {lost[0]}",
            hint="the file does not belong to this config.json; download the model again",
        )
    if bare:
        network = under_head(network, label_set, "last" if _is_causal(config) else "mean")
        fresh = head_names(network)
    elif not same_labels:
        fresh |= _start_afresh(network, own - fresh)
    _check_vocabulary(network, tokenizer, folder)
    return network, tuple(sorted(fresh)), code


def load_finished(folder: Path, label_set: LabelSet, *, head: str | None = None) -> PreTrainedModel:
    """A finished classifier in fp32, every weight from the folder. head: the code of its head, where it is code.

    Raises ModelError where any weight is missing or `head` is other code, RefusedError for code that is not allowed.
    """
    config = _config(folder)
    if _record(config) is not None:
        head_code.of_record(_record(config), where=folder, given=head)
    if not has_own_head(config):
        raise ModelError(
            f"{folder}: model type {config.model_type!r} is not known to transformers {transformers.__version__}"
        )
    network, loading = _load(folder, config, allow_bin=False)
    missing = sorted({*loading["missing_keys"], *map(_name, loading["mismatched_keys"])} - _rebuilt(network))
    if missing:
        raise _incomplete(folder, missing)
    if network.config.num_labels != len(label_set):
        raise ModelError(
            f"{folder}: {len(label_set)} label names, but the model has {network.config.num_labels} outputs"
        )
    return network


def under_head(network: PreTrainedModel, label_set: LabelSet, pooling: str, *, hidden: int = 0) -> PreTrainedModel:
    """The backbone of a network under a fresh pooled head. hidden: numbers in a layer between, 0 for none.

    Raises ModelError for an architecture with an encoder and a decoder, which has no states of one kind to pool.
    """
    backbone = _backbone_alone(network)
    config = _head_config(network, label_set, pooling=pooling, head_hidden=hidden)
    return TextclfForSequenceClassification(config, backbone)


def under_code(network: PreTrainedModel, label_set: LabelSet, code: HeadCode) -> PreTrainedModel:
    """The backbone of a network under a fresh head of the user's own.

    Raises ModelError where the class cannot be built, and as `under_head`.
    """
    backbone = _backbone_alone(network)
    config = _head_config(network, label_set, pooling=None, head_code=code.record)
    head = head_code.build(code, hidden_size=int(backbone.config.hidden_size), num_labels=len(label_set))
    return TextclfForSequenceClassification(config, backbone, head)


def can_be_pooled(network: PreTrainedModel) -> bool:
    """Whether a network has one hidden state for each token of a text, which a pooled head reads."""
    config: Any = network.base_model.config
    return not getattr(config, "is_encoder_decoder", False) and config.model_type != "funnel"


def check_poolable(network: PreTrainedModel) -> None:
    """Raises ModelError where no pooled head fits."""
    if not can_be_pooled(network):
        backbone: Any = network.base_model
        raise ModelError(
            f"{backbone.config.model_type} models have not one hidden state for each token; no pooled head fits them",
            hint="--head own, or choose another encoder or decoder",
        )


def _backbone_alone(network: PreTrainedModel) -> Any:
    backbone: Any = network.base_model
    check_poolable(network)
    backbone.config._name_or_path = ""  # the folder on this machine is nobody's business
    return backbone


def _head_config(network: PreTrainedModel, label_set: LabelSet, **head: Any) -> TextclfConfig:
    backbone: Any = network.base_model
    return TextclfConfig(
        **head,
        text_config=backbone.config,
        id2label=label_set.id2label,
        label2id=label_set.label2id,
        problem_type=label_set.problem_type,
        pad_token_id=network.config.pad_token_id,
        attn_implementation=backbone.config._attn_implementation,
    )


def save(network: PreTrainedModel, folder: Path) -> None:
    """Write config.json and model.safetensors as transformers does, and beside them the code that it has not."""
    with silent():
        network.save_pretrained(folder)
    if not isinstance(network, TextclfForSequenceClassification):
        return
    # Only a head's own file is brought along, and transformers knows a model by the files that one imports.
    with (folder / names.MODELLING).open("a", encoding="utf-8") as file:
        if isinstance(network.backbone, OpenELMModel):
            shutil.copyfile(openelm.__file__, folder / names.MODELLING_OPENELM)
            file.write(_WITH_OPENELM)
        record = network.config.head_code
        if record is not None:
            source, module = head_code.source_of(record), record.get("module")
            if source is not None:
                (folder / names.HEAD_CODE).write_bytes(source.encode("utf-8"))
                module = "." + names.HEAD_CODE.removesuffix(".py")
            key = json.dumps(head_key(record))
            file.write(_WITH_CODE.format(module=module, name=record["class"], key=key))


_WITH_OPENELM = """

from .openelm import OpenELMConfig, OpenELMModel  # noqa: E402

AutoConfig.register("openelm", OpenELMConfig, exist_ok=True)
AutoModel.register(OpenELMConfig, OpenELMModel, exist_ok=True)
"""

_WITH_CODE = """

from {module} import {name} as _OwnHead  # noqa: E402

HEAD_CLASSES[{key}] = _OwnHead
"""


_PRETRAINED = {
    "cls_token": "cls", "cls": "cls", "mean_tokens": "mean", "mean": "mean", "max_tokens": "max", "max": "max",
    "lasttoken": "last",
}  # fmt: skip
"""Modes of sentence-transformers' pooling, as folders name them by flags or, newer ones, by a word."""


def pretrained_pooling(folder: Path) -> str | None:
    """How the model in a folder was pretrained to pool, if it says so as sentence-transformers do: one of POOLINGS.

    None also for what no head here does, such as several poolings side by side.
    """
    try:
        said = json.loads((folder / names.POOLING).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    modes = [name for name, value in said.items() if name.startswith("pooling_mode_") and value is True]
    # Newer folders name the mode instead.
    mode = said.get("pooling_mode") or (modes[0].removeprefix("pooling_mode_") if len(modes) == 1 else None)
    return _PRETRAINED.get(mode) if isinstance(mode, str) else None


def general_pooling(network: PreTrainedModel) -> str:
    """The pooling that fits the kind of network: `last` where tokens see only those before them, else `mean`."""
    return "last" if _is_causal(network.base_model.config) else "mean"


def has_own_head(config: Any) -> bool:
    """Whether transformers, or textclf, has a classification head for a model with this config."""
    return type(config) in AutoModelForSequenceClassification._model_mapping


def tells_types(network: PreTrainedModel) -> bool:
    """Whether a network has embeddings for the first and the second text of a pair."""
    kinds = getattr(network.config.get_text_config(), "type_vocab_size", None) or 0
    return kinds > 1 and "token_type_ids" in inspect.signature(network.base_model.forward).parameters


def head_names(network: PreTrainedModel) -> set[str]:
    """Names of the parameters that are the head's: all that lie outside the base model."""
    prefix = network.base_model_prefix + "."
    return {name for name, _ in network.named_parameters() if not name.startswith(prefix)}


def _code_wanted(config: Any, same_labels: bool, folder: Path, head: str | None) -> HeadCode | None:
    """The code that the head is to be built from, None where it is none. head: as asked for.

    What takes the place of the folder's own head leaves that one's weights and code unread: `config` then names none.
    """
    record = _record(config)
    asked = head_code.read(head) if head is not None and is_code(head) else None
    if asked is None and record is not None and head not in POOLINGS:
        asked = head_code.of_record(record, where=folder)
    if record is not None and not (same_labels and asked is not None and head_key(asked.record) == head_key(record)):
        config.head_code, config.pooling = None, "mean"
    return asked


def _record(config: Any) -> Any:
    return config.head_code if isinstance(config, TextclfConfig) else None


def _incomplete(folder: Path, missing: list[str]) -> ModelError:
    return ModelError(
        f"{folder}: {len(missing)} weights are missing, such as {missing[0]}: this is no finished classifier",
        hint="fine-tune it first: textclf finetune --model ... --dataset ...",
    )


def _config(folder: Path) -> Any:
    screening.check_config(folder)
    _import_backbone(folder)
    try:
        with silent():
            config = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
    except Exception as err:  # strict configs raise many kinds, all of them about this one file
        first = str(err).strip().split("\n", 1)[0]
        raise ModelError(f"{folder / 'config.json'} is not a config that transformers reads: {first}") from err
    # It names code of the repository it came from, which is never run here, and must not be named by what is saved.
    vars(config).pop("auto_map", None)
    # How to compute attention is for this machine to choose; a folder's wish may be for a package that is not here.
    config._attn_implementation = None
    return config


def _import_backbone(folder: Path) -> None:
    """Import the installed package that registers the model type of a folder, where one does."""
    try:
        document = json.loads((folder / names.CONFIG).read_text(encoding="utf-8"))
        kinds = {document.get("model_type"), (document.get("text_config") or {}).get("model_type")}
    except (OSError, ValueError, AttributeError, TypeError):
        return  # for transformers to say what is wrong with it
    for kind in kinds & set(plugins.names(plugins.BACKBONES)):
        plugins.load(plugins.BACKBONES, kind)


def _is_causal(config: Any) -> bool:
    """Whether tokens see only those before them: transformers generates text with such models alone."""
    config = config.get_text_config()
    # Encoders have a causal class too, for use as a decoder; they say whether they are one.
    masked = type(config) in AutoModelForMaskedLM._model_mapping
    return type(config) in AutoModelForCausalLM._model_mapping and (
        not masked or bool(getattr(config, "is_decoder", False))
    )


def _check_ends(folder: Path, config: Any, tokenizer: PreTrainedTokenizerBase) -> None:
    """That texts end as the heads of T5's and BART's kin want: they read the state of the end token."""
    end = getattr(config.get_text_config(), "eos_token_id", None)
    if getattr(config, "is_encoder_decoder", False) and tokenizer("a")["input_ids"][-1] != end:
        raise ModelError(
            f"{folder}: a {config.model_type} model reads a text's end token ({end}), and its tokenizer adds none",
            hint="save the tokenizer with a template that ends in it, or choose another model",
        )


def _load(folder: Path, config: Any, *, allow_bin: bool, bare: bool = False) -> tuple[PreTrainedModel, dict[str, Any]]:
    screening.check_weights(folder, allow_bin=allow_bin)
    try:
        with silent():
            network, loading = (AutoModel if bare else AutoModelForSequenceClassification).from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,  # v5's default is the checkpoint's own, and bf16 weights do not train well
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=None if allow_bin else True,
                weights_only=True,
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
