"""From the name of a data set (file, folder, catalog name, Hub id) to the records of its splits."""

from __future__ import annotations

import dataclasses
import difflib
import re
from pathlib import Path
from typing import Protocol

from textclf import paths, presets
from textclf.data import files
from textclf.data.catalog import CATALOG
from textclf.data.files import Records
from textclf.data.forms import Form
from textclf.data.hub_sets import open_hub
from textclf.data.local import open_file, open_folder
from textclf.errors import DataError

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


class Source(Protocol):
    """Where a data set comes from.

    name: short, for people; never an absolute path.
    repository: the id on the Hub, or None. revision: the commit there, or None.
    has_splits: whether the source itself divides the rows into splits; a lone file does not, its rows are train.
    notes: what was decided in finding the splits, in words.
    min_label_count, form: what the catalog knows to be sensible, or None.
    """

    @property
    def name(self) -> str: ...
    @property
    def repository(self) -> str | None: ...
    @property
    def revision(self) -> str | None: ...
    @property
    def has_splits(self) -> bool: ...
    @property
    def notes(self) -> tuple[str, ...]: ...
    @property
    def min_label_count(self) -> int | None: ...
    @property
    def form(self) -> Form | None: ...

    def identity(self) -> str:
        """A text that changes whenever the content may have changed."""

    def records(self, columns: tuple[str, ...] | None = None) -> dict[str, list[Records]]:
        """The records of each split (train, validation, test), opened, file by file."""


def open_source(dataset: str) -> Source:
    """Find a data set: a file or folder, one that we ship, one of the catalog, or a Hub id `owner/name[:config]`.

    Raises DataError (missing or unreadable file, folder without splits), HubError, or RefusedError (a set of the Hub
    that lists files elsewhere).
    """
    path = paths.expanded(dataset)
    if _exists(path):
        return open_folder(path) if path.is_dir() else open_file(path)
    if dataset in presets.shipped_data():
        return dataclasses.replace(open_file(presets.dataset_path(dataset)), name=dataset)
    if dataset in CATALOG:
        entry = CATALOG[dataset]
        found = open_hub(entry.repo, entry.config, name=dataset)
        return dataclasses.replace(found, min_label_count=entry.min_label_count, form=entry.form)
    repo, colon, config = dataset.partition(":")
    if files.looks_like_file(dataset) or not _HUB_ID.fullmatch(repo) or repo.startswith("."):
        raise _missing(path)
    if colon and not config:
        raise DataError(f"{dataset}: no configuration after the colon", hint=f"write {repo}:NAME, or {repo} alone")
    return open_hub(repo, config or None, name=dataset)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as err:
        raise DataError(f"{path} cannot be reached: {err.strerror}") from err


def _missing(path: Path) -> DataError:
    parent = path.parent
    if path.is_symlink():
        return DataError(f"{path} is a link that leads nowhere")
    if not _exists(parent):
        return DataError(f"{path} does not exist; neither does the folder {parent}")
    beside = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    near = difflib.get_close_matches(path.name, beside, n=1)
    return DataError(f"{path} does not exist", hint=f"did you mean {parent / near[0]}?" if near else None)
