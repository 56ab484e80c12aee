"""What may be loaded, and what may leave: file kinds, model types, config keys, traces of this machine."""

from __future__ import annotations

import fnmatch
import getpass
import importlib.util
import re
import socket
import tempfile
from collections.abc import Container, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from textclf import paths, plugins
from textclf.artifact import folder as names
from textclf.errors import ModelError, RefusedError
from textclf.redaction import kind_of_secret

_PATH = re.compile(r"(/[^/\s]+/\S|~[^/\s]*/\S|[A-Za-z]:[\\/]|\\\\|file:)")
"""How a text begins that is a path on one machine. `/think` and `/s` are tokens, not paths."""

OWN_HEAD = "textclf"
OWN_TYPES = frozenset({OWN_HEAD, "openelm"})
"""Model types that textclf defines: a head, and a decoder. Their code is this package's, never the folder's."""

_ADAPTER = "adapter_config.json"
_DISTRIBUTED = "shard-*-model-*-of-*.safetensors"
"""Names at which transformers leaves the weights it was given to read for others: an adapter's, or those of a
distributed checkpoint."""

_MOST_LAYERS = 10_000
"""More would be built for hours before anything is compared with the weights."""

_TOKENIZER_CLASS = re.compile(r"(?!Auto)[A-Z]\w*(Tokenizer|TokenizerFast|Backend)", re.ASCII)
_TEMPLATE_NAME = re.compile(r"\w[\w.-]*", re.ASCII)

_HOMES = re.compile(r"(?:/home|/Users|/root|[A-Za-z]:\\+Users)[\\/]+[^\\/\s\"']+")
"""The home folder of anybody, in the middle of a text."""


def check_config(folder: Path) -> dict[str, Any]:
    """The config.json of a model folder, once it is safe for transformers to parse.

    Raises ModelError for a folder without one, a file that is no JSON object, or a model type that
    transformers does not know, and RefusedError for what only code from the repository could load.
    """
    path = folder / names.CONFIG
    config = names.read_json(path)
    try:
        asked = {key for key, value in _items(config) if value}
        for key, value in _items(config):
            if value:
                _check_key(key, value, str(path))
    except RecursionError as err:
        raise ModelError(f"{path} is nested too deeply for a config", hint="copy the model folder again") from err
    kind = config.get("model_type")
    if kind == OWN_HEAD and isinstance(config.get("text_config"), dict):
        kind = config["text_config"].get("model_type")  # the head is ours; the backbone is what must be known
    known = isinstance(kind, str) and (kind in OWN_TYPES or kind in _known_types())
    if known or kind in plugins.names(plugins.BACKBONES):
        return config  # an auto_map beside it stays unread: the class of transformers, or ours, is used
    if "auto_map" in asked:
        raise RefusedError(
            f"{path}: model type {kind!r} needs code from its repository, and that is never run",
            hint="choose a model of an architecture that transformers has itself, such as distilbert-base-uncased",
        )
    if not isinstance(kind, str):
        raise ModelError(f"{path} names no model_type", hint="only models in the format of transformers can be loaded")
    raise ModelError(
        f"{path}: model type {kind!r} is not known to the transformers installed here",
        hint="choose another model, or update: pip install --upgrade transformers",
    )


def check_weights(folder: Path, *, allow_bin: bool = False) -> None:
    """That a model folder has weights which can be opened safely, and nothing that is opened in their stead.

    Raises RefusedError where they exist only in PyTorch's pickle format, unless `allow_bin`, where their index
    names files outside the folder or of another format, or an adapter or parts of another checkpoint lie beside
    them, and ModelError where there are none.
    """
    listing = [file.name for file in folder.iterdir()]
    chosen = check_files(listing, where=str(folder), allow_bin=allow_bin)
    for name in (_ADAPTER, *fnmatch.filter(listing, _DISTRIBUTED)):
        if name in listing:
            raise RefusedError(
                f"{folder} holds {name}, which transformers would read beside or instead of {chosen[0]}",
                hint="merge an adapter into its model (merge_and_unload), or move the file elsewhere",
            )
    for name in chosen:
        if name.endswith(".index.json"):
            _check_index(folder, name)


def check_tokenizer_config(folder: Path) -> None:
    """That what a folder says of its tokenizer is data for transformers, and no more.

    Raises RefusedError for a class that is no tokenizer of transformers' own by its name, or templates named as
    paths, and ModelError for a file that is no JSON object.
    """
    for name in (names.TOKENIZER_CONFIG, names.CONFIG):
        path = folder / name
        if not path.is_file():
            continue
        settings = names.read_json(path)
        kind = settings.get("tokenizer_class")
        if kind and not (isinstance(kind, str) and _TOKENIZER_CLASS.fullmatch(kind)):
            raise RefusedError(
                f"{path}: {kind!r:.80} is not the name of a tokenizer of transformers",
                hint="save the tokenizer with transformers, as tokenizer.json, and give that folder: --tokenizer",
            )
        if "auto_map" in settings and kind and not _is_known_tokenizer(str(kind)):
            raise RefusedError(
                f"{path}: the tokenizer {kind!r} needs code from its repository, and that is never run",
                hint="give the folder of a tokenizer that transformers has itself: --tokenizer",
            )
        templates = settings.get("chat_template")
        for template in templates if isinstance(templates, list) else ():
            title = template.get("name") if isinstance(template, dict) else template
            if not (isinstance(title, str) and _TEMPLATE_NAME.fullmatch(title)):
                raise RefusedError(
                    f"{path}: a chat template is named {title!r:.80}, which would become a path",
                    hint="take chat_template out of the file; a classifier needs none",
                )


def _check_key(key: str, value: Any, where: str) -> None:
    """Raises RefusedError for a key of a config, at any depth, that has transformers fetch, open or run something."""
    if key in ("trust_remote_code", "custom_pipelines"):
        raise RefusedError(
            f"{where} asks for {key}: code from a repository is never run",
            hint="choose a model of an architecture that transformers has itself",
        )
    # A name with a slash is a repository of kernels, which are code.
    kernel = "implementation" in key and any(re.search(r"[/:@\\]", text) for text in _texts(value))
    if kernel or key in ("kernel_config", "use_kernels"):
        raise RefusedError(
            f"{where} asks for {key}: kernels of the Hub are code, and are never run",
            hint=f"take {key} out of the file",
        )
    backbone = key in ("use_pretrained_backbone", "use_timm_backbone") or (key == "backbone" and isinstance(value, str))
    if backbone:
        raise RefusedError(
            f"{where} asks for {key}: a model from another repository is never fetched for it",
            hint="choose a model that reads texts",
        )
    if key == "transformers_weights":
        raise RefusedError(
            f"{where} names its weights itself ({value!r:.80})", hint=f"take {key} out; weights lie in {names.WEIGHTS}"
        )
    if isinstance(value, int) and re.search(r"layers?$|blocks?$|^depth$", key) and value > _MOST_LAYERS:
        raise ModelError(f"{where}: {key} is {value:.3g}; no model has so many", hint="copy the model folder again")
    if key == "quantization_config":
        raise RefusedError(
            f"{where}: the weights are quantised, which takes packages and kernels that the file names",
            hint="choose the same model with weights that are not quantised",
        )


def _check_index(folder: Path, name: str) -> None:
    """Raises RefusedError where the index of weights in parts names a path, or a file of another format."""
    path = folder / name
    parts = names.read_json(path).get("weight_map")
    if not isinstance(parts, dict) or not all(isinstance(part, str) for part in parts.values()):
        raise ModelError(f"{path} does not say where the weights are", hint="copy the model folder again")
    ending = ".bin" if name in names.PICKLES else ".safetensors"
    for part in sorted(set(parts.values())):
        plain = Path(part).name == part and not re.search(r"[\\/:\0]", part)
        if not plain or not part.endswith(ending):
            raise RefusedError(
                f"{path} names {part!r:.120}, which is no {ending} file in its folder",
                hint="copy the model folder again, from somebody you trust",
            )
        if leads_out(folder / part, folder):
            raise RefusedError(
                f"{folder / part} is a link to a file elsewhere", hint="put the file itself in the model folder"
            )


def leads_out(path: Path, folder: Path) -> bool:
    """Whether a file in a model folder is a link to one that is neither in it nor where the Hub's cache keeps files."""
    if not path.is_symlink():
        return False
    # owner--name/snapshots/COMMIT/config.json -> ../../blobs/SHA
    homes = (folder.resolve(), folder.resolve().parent.parent / "blobs")
    return not any(path.resolve().is_relative_to(home) for home in homes)


def _is_known_tokenizer(kind: str) -> bool:
    """Whether transformers has a tokenizer of this name; to be asked for those that also name code."""
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    return any(tokenizer_class_from_name(name) is not None for name in (kind, kind.removesuffix("Fast"), f"{kind}Fast"))


def check_files(listing: Iterable[str], *, where: str, allow_bin: bool) -> tuple[str, ...]:
    """The files of a listing that hold the weights, in one format: safetensors where there is a choice.

    Raises as `check_weights`.
    """
    listing = sorted(listing)
    if names.WEIGHTS in listing:
        return (names.WEIGHTS,)
    if names.WEIGHTS_INDEX in listing:
        return (names.WEIGHTS_INDEX, *fnmatch.filter(listing, names.WEIGHT_SHARDS))
    pickles = [name for name in listing if any(fnmatch.fnmatchcase(name, pattern) for pattern in names.PICKLES)]
    if not pickles:
        raise ModelError(
            f"{where}: no weights ({names.WEIGHTS})",
            hint="this is not a whole model in the format of transformers; choose another, or copy the folder again",
        )
    if not allow_bin:
        raise RefusedError(
            f"{where} has its weights only as {pickles[0]}, in pickle format, which can carry code",
            hint="if you trust it: --allow-bin, or --set model.allow_bin=true (it is then opened with weights_only)",
        )
    return (names.PICKLES[0],) if names.PICKLES[0] in pickles else tuple(pickles)


def check_tokenizer(listing: Iterable[str], *, where: str) -> None:
    """That a listing of files holds a tokenizer. Raises ModelError, with what to do, where it does not."""
    listing = list(listing)
    if not any(fnmatch.filter(listing, pattern) for pattern in names.VOCABULARIES):
        raise ModelError(
            f"{where} comes without a tokenizer",
            hint="give the one that it was trained with, a Hub id or a folder: --tokenizer TOKENIZER\n"
            "OpenELM's is Llama 2's: accept the licence at https://huggingface.co/meta-llama/Llama-2-7b-hf, log in "
            "with `hf auth login` (or set HF_TOKEN), then --tokenizer meta-llama/Llama-2-7b-hf",
        )


def without_traces(document: Any, *, where: str, keep: Container[str] = ()) -> Any:
    """A JSON value fit to be published: paths of this machine are cut down to their last part.

    keep: texts that are the model's own, such as label names and its prompt; they stay whatever they hold.
    Raises RefusedError where a text names this machine or a home folder and cannot be cut.
    """
    if isinstance(document, dict):
        return {
            without_traces(key, where=where, keep=keep): without_traces(value, where=f"{where}: {key}", keep=keep)
            for key, value in document.items()
            if key not in names.LOADING_ONLY_KEYS
        }
    if isinstance(document, list):
        return [without_traces(item, where=where, keep=keep) for item in document]
    if not isinstance(document, str) or document in keep:
        return document
    text = last_part(document)
    check_traces(text, where=where)
    return text


def check_traces(text: str, *, where: str) -> None:
    """Raises RefusedError where a text names this machine or a home folder."""
    found = _HOMES.search(text) or _this_machine().search(text)
    if found:
        raise RefusedError(
            f"{where} holds {found[0]!r}, which names this machine or its user; nothing was pushed",
            hint="take it out of the file, then push again",
        )


def check_publishable(name: str, content: bytes | Path, *, folder: Path) -> None:
    """That a file of a model folder may be published: it lies there itself, and holds no token, key or password.

    Of weights and graphs only what they say in words is looked at: the header of a safetensors file.
    Raises RefusedError.
    """
    if isinstance(content, Path) and leads_out(content, folder):
        raise RefusedError(
            f"{name} is a link to a file outside {folder}; nothing was pushed",
            hint="put the file itself in the model folder, or take the link out",
        )
    if isinstance(content, Path):
        with content.open("rb") as file:
            if content.suffix == ".safetensors":
                content = file.read(min(int.from_bytes(file.read(8), "little"), 1 << 24))
            else:
                content = b"" if content.suffix == ".onnx" else file.read()
    found = kind_of_secret(content.decode("utf-8", "replace"))
    if found:
        raise RefusedError(
            f"{name} holds what looks like {found}; nothing was pushed",
            hint="take it out, then push again; if it was ever published, revoke it",
        )


def last_part(text: str) -> str:
    """The name of the file or folder where `text` is a path on one machine, else `text`."""
    return re.split(r"[\\/]", text.rstrip("\\/"))[-1] if _PATH.match(text) else text


@cache
def _this_machine() -> re.Pattern[str]:
    folders = [Path.home(), Path(tempfile.gettempdir()), paths.runs_dir().parent, paths.cache_dir()]
    texts = [str(folder) for folder in folders if len(folder.parts) > 2]
    # Names that are words ("ubuntu", "laptop") would be found where they mean nothing: in a data set's name, say.
    host = socket.gethostname()
    texts += [name for name in (host, host.partition(".")[0], _user()) if len(name) > 5 and not name.isalpha()]
    return re.compile("|".join(rf"(?<!\w){re.escape(text)}(?!\w)" for text in texts) or r"(?!)")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # a container whose user has no name
        return ""


def _items(document: Any) -> Iterator[tuple[str, Any]]:
    """All keys with their values, at any depth."""
    if isinstance(document, dict):
        yield from document.items()
        document = list(document.values())
    if isinstance(document, list):
        for item in document:
            yield from _items(item)


def _texts(value: Any) -> Iterator[str]:
    """All texts within a value, keys apart."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)


@cache
def _known_types() -> frozenset[str]:
    # The table is a file of plain data. To import it by its name would run all of transformers' set-up, torch
    # included: 3 s, for a command that may need neither.
    package = importlib.util.find_spec("transformers")
    for root in package.submodule_search_locations or () if package else ():
        table = Path(root, "models", "auto", "auto_mappings.py")
        spec = importlib.util.spec_from_file_location("_textclf_auto_mappings", table)
        if table.is_file() and spec and spec.loader:
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
            return frozenset(module.CONFIG_MAPPING_NAMES)
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return frozenset(CONFIG_MAPPING.keys())
