"""Models by name, from this machine or the Hub: locate(MODEL) -> folder, fetch(id) -> folder."""

from __future__ import annotations

import difflib
import fnmatch
import glob
import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from textclf import pretrained
from textclf.artifact import folder, integrity, remote, runs, screening
from textclf.errors import HubError, ModelError

_PART = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?"
_HUB_ID = re.compile(rf"(?:{_PART}/)?{_PART}")


@dataclass(frozen=True)
class Fetched:
    """A model folder on this machine.

    revision: the commit it is of, of the shipped model its number; None for a folder of one's own.
    """

    folder: Path
    revision: str | None


def locate(reference: str | os.PathLike[str] | None = None) -> Path:
    """The artifact folder that MODEL means.

    In this order: the name of a run, a path (of a run folder or a model folder), a Hub id. A `Run` or
    any other path object is only ever a path; None is the run that was finished last. The name or path of a group of
    several seeds means its best run.
    Raises ModelError (nothing of that name, a run without a model, a file that is not as it was written), HubError and
    RefusedError as `fetch`.
    """
    if reference is None:
        reference = runs.latest().model_folder
    elif isinstance(reference, runs.Run):
        reference = reference.model_folder
    else:
        run = runs.find(reference) if isinstance(reference, str) else runs.at(Path(reference))
        reference = run.model_folder if run else reference
    return fetch(reference).folder  # which screens runs too: a run folder may be a stranger's


def fetch(
    reference: str | os.PathLike[str],
    *,
    revision: str | None = None,
    allow_bin: bool = False,
    with_tokenizer: bool = False,
) -> Fetched:
    """A model folder with its weights, screened: a folder as it is, as is the shipped model; a Hub id by the cache.

    Of a repository only what is needed comes here: config, tokenizer, one set of weights (safetensors;
    `.bin` only with `allow_bin` and where there is nothing else), and never code. Where the Hub cannot
    be reached the cache answers. with_tokenizer: it must bring a tokenizer, which is looked for first.
    Raises ModelError (neither a folder nor a Hub id; not a whole model), HubError (not found, gated,
    no such revision, no network), RefusedError (pickled weights, code from the repository).
    """
    local = _local_folder(reference)
    if local is not None:
        screening.check_config(local)
        if with_tokenizer:
            screening.check_tokenizer(_names_in(local), where=str(local))
        screening.check_weights(local, allow_bin=allow_bin)
        return Fetched(local, pretrained.REVISION if reference == pretrained.NAME else None)
    name = os.fspath(reference)

    def wanted(listing: list[str]) -> tuple[str, ...]:
        where = f"{name} on the Hub"
        if folder.CONFIG not in listing:
            raise ModelError(
                f"{where} has no {folder.CONFIG}", hint="only models in the format of transformers can be loaded"
            )
        if with_tokenizer:
            screening.check_tokenizer(listing, where=where)
        weights = screening.check_files(listing, where=where, allow_bin=allow_bin)
        return (*weights, *_matching(listing, folder.LOADED))

    snapshot = _fetch_from_hub(name, revision, wanted)
    screening.check_config(snapshot)
    # Other programs may have fetched more of the repository into the same folder.
    screening.check_weights(snapshot, allow_bin=allow_bin)
    return Fetched(snapshot, snapshot.name)


def fetch_tokenizer(reference: str | os.PathLike[str]) -> Path:
    """A folder with a tokenizer: a folder as it is, the shipped model's too; of a Hub id the tokenizer's files alone,
    through the Hub's cache.

    Raises ModelError (neither a folder nor a Hub id; no tokenizer there) and HubError (not found, gated, no network).
    """
    local = _local_folder(reference)
    if local is not None:
        screening.check_tokenizer(_names_in(local), where=str(local))
        return local
    name = os.fspath(reference)

    def wanted(listing: list[str]) -> tuple[str, ...]:
        screening.check_tokenizer(listing, where=f"{name} on the Hub")
        # Which class reads a vocabulary may be said in the model's config alone.
        return _matching(listing, (*folder.TOKENIZER_FILES, folder.CONFIG))

    return _fetch_from_hub(name, None, wanted)


def _local_folder(reference: str | os.PathLike[str]) -> Path | None:
    """The folder that a reference means; None for a Hub id. Raises ModelError where it can be neither."""
    name = os.fspath(reference)
    shipped = pretrained.folder(reference) if isinstance(reference, str) else None  # a path is only ever a path
    if shipped is not None:
        return shipped
    try:
        local = Path(name).expanduser()
        is_folder, exists = local.is_dir(), local.exists()
    except (OSError, RuntimeError):  # a name too long for a file, a home that nobody has
        is_folder = exists = False
    if is_folder:
        integrity.check(local)
        return local
    if exists:
        raise ModelError(f"{name} is a file", hint="give the model's folder, not a file in it")
    if not isinstance(reference, str) or not is_hub_id(name):
        raise ModelError(
            f"there is no model {name!r}: no run, no folder, and not the form of a Hub id", hint=_nearest(name)
        )
    return None


def _fetch_from_hub(repo_id: str, revision: str | None, wanted: Callable[[list[str]], tuple[str, ...]]) -> Path:
    """A snapshot with those files of a repository that `wanted` picks from its listing, or raises over."""
    from huggingface_hub import HfApi, snapshot_download

    try:
        info = remote.ask(
            lambda: HfApi().model_info(repo_id, revision=revision, timeout=10), about=repo_id, revision=revision
        )
    except HubError as err:
        if remote.unreachable(err):
            cached = _cached(repo_id, revision, wanted)
            if cached:
                return cached
        if remote.missing(err):
            err.message = f"there is no model {repo_id!r}: no run, no folder, and {err.message}"
        err.hint = _nearest(repo_id, otherwise=err.hint)
        raise
    files = wanted([file.rfilename for file in info.siblings or []])
    # Not by commit: the client notes what the branch stood for, and finds it by that note when offline.
    path = remote.ask(
        lambda: snapshot_download(repo_id, revision=revision, allow_patterns=[glob.escape(name) for name in files]),
        about=repo_id,
        revision=revision,
    )
    return Path(path)


def _cached(repo_id: str, revision: str | None, wanted: Callable[[list[str]], tuple[str, ...]]) -> Path | None:
    """The snapshot that the cache holds, if it is whole."""
    from huggingface_hub import snapshot_download

    plain = [name for name in folder.LOADED if "*" not in name]
    try:
        path = Path(snapshot_download(repo_id, revision=revision, local_files_only=True, allow_patterns=plain))
        for index in (name for name in wanted(_names_in(path)) if name.endswith(".index.json")):
            shards = set(json.loads((path / index).read_text(encoding="utf-8"))["weight_map"].values())
            if not all((path / name).is_file() for name in shards):
                return None
    except (OSError, ModelError):
        return None
    return path


def is_hub_id(name: str) -> bool:
    """Whether a name has the form of a Hub id, with an owner or without."""
    return (
        len(name) <= 96
        and bool(_HUB_ID.fullmatch(name))
        and "--" not in name
        and ".." not in name
        and not name.endswith(".git")
    )


def _nearest(name: str, *, otherwise: str | None = None) -> str | None:
    """A hint with the run or folder that was probably meant."""
    path = Path(name)
    try:
        beside = [entry.name for entry in path.parent.iterdir() if entry.is_dir()]
    except (OSError, ValueError):
        beside = []
    run = difflib.get_close_matches(name, [run.name for run in runs.all_runs()], n=1, cutoff=0.7)
    near = difflib.get_close_matches(path.name, beside, n=1, cutoff=0.7)
    if run:
        return f"did you mean the run {run[0]}?"
    if near:
        return f"did you mean the folder {path.with_name(near[0])}?"
    return otherwise or "give a run (textclf runs), a model folder, or a Hub id such as distilbert-base-uncased"


def _names_in(place: Path) -> list[str]:
    return [entry.name for entry in place.iterdir()]


def _matching(listing: list[str], patterns: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in listing if matches(name, patterns))


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a file of a model folder, by its path in it, is one that these patterns name."""
    # fnmatch's * crosses slashes: without the count, onnx/x.model would pass for x.model.
    return any(name.count("/") == pattern.count("/") and fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
