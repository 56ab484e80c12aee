"""What may be loaded, and what may leave: file kinds, model types, config keys, traces of this machine."""

from __future__ import annotations

import fnmatch
import getpass
import importlib.util
import json
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

_PATH = re.compile(r"(/[^/\s]+/\S|~[^/\s]*/\S|[A-Za-z]:[\\/]|\\\\|file:)")
"""How a text begins that is a path on one machine. `/think` and `/s` are tokens, not paths."""

OWN_HEAD = "textclf"
OWN_TYPES = frozenset({OWN_HEAD, "openelm"})
"""Model types that textclf defines: a head, and a decoder. Their code is this package's, never the folder's."""

_HOMES = re.compile(r"(?:/home|/Users|/root|[A-Za-z]:\\+Users)[\\/]+[^\\/\s\"']+")
"""The home folder of anybody, in the middle of a text."""


def check_config(folder: Path) -> dict[str, Any]:
    """The config.json of a model folder, once it is safe for transformers to parse.

    Raises ModelError for a folder without one, a file that is no JSON object, or a model type that
    transformers does not know, and RefusedError for what only code from the repository could load.
    """
    path = folder / names.CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        asked = {key for key, value in _items(config) if value}
    except FileNotFoundError as err:
        raise ModelError(f"{folder}: no {names.CONFIG}", hint="this is not a model folder") from err
    except OSError as err:
        raise ModelError(f"{path} cannot be read: {err.strerror}") from err
    except (ValueError, RecursionError) as err:
        raise ModelError(f"{path} is not valid JSON: {err}", hint="copy the model folder again") from err
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not a JSON object", hint="copy the model folder again")
    for key in ("trust_remote_code", "custom_pipelines"):
        if key in asked:
            raise RefusedError(
                f"{path} asks for {key}: code from a repository is never run",
                hint="choose a model of an architecture that transformers has itself",
            )
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
    """That a model folder has weights which can be opened safely.

    Raises RefusedError where they exist only in PyTorch's pickle format, unless `allow_bin`, and
    ModelError where there are none.
    """
    check_files([file.name for file in folder.iterdir()], where=str(folder), allow_bin=allow_bin)


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
            hint="if you trust it: --set model.allow_bin=true (it is then opened with weights_only)",
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
