"""Files and folders on this machine as sources."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textclf import atomic
from textclf.data import files
from textclf.data.files import DataFile, Records, data_file
from textclf.data.forms import Form
from textclf.data.records import read_records
from textclf.data.rows import SPLIT_NAMES
from textclf.data.splits import assign_splits, no_known_split
from textclf.errors import DataError

_SHARD = re.compile(r"[-_.]\d+(-of-\d+)?(-[0-9a-f]{6,})?$")
"""What numbers the parts of one split: `-00000-of-00002`, `_3`, and the hash that older files carry."""
_METADATA = {
    "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "dataset.json", "state.json", "config.json",
    "label_names.json", "manifest.json",
}  # fmt: skip
"""Files beside the data that are no rows, in lower case."""


@dataclass(frozen=True)
class LocalSource:
    """Files on this machine."""

    name: str
    splits: Mapping[str, tuple[DataFile, ...]]
    has_splits: bool
    notes: tuple[str, ...] = ()
    repository: str | None = None
    revision: str | None = None
    min_label_count: int | None = None
    form: Form | None = None

    def identity(self) -> str:
        digest = hashlib.sha256()
        for split, parts in self.splits.items():
            for part in parts:
                digest.update(json.dumps([split, part.name, _digest(part)]).encode())
        return f"files {digest.hexdigest()}"

    def records(self, columns: tuple[str, ...] | None = None) -> dict[str, list[Records]]:
        return {split: [read_records(part, columns=columns) for part in parts] for split, parts in self.splits.items()}


def open_file(path: Path) -> LocalSource:
    """One file, all of it train. Raises DataError for one that is not read."""
    file = data_file(path)
    if file is None:
        raise files.unsupported(path)
    if not path.is_file():
        raise DataError(f"{path} is neither a file nor a folder", hint="write the rows to a file first")
    return LocalSource(path.resolve().name, {"train": (file,)}, has_splits=False)


def open_folder(folder: Path) -> LocalSource:
    """A folder of files named as splits. Raises DataError when there are none."""
    name = folder.resolve().name
    try:
        saved = _saved_to_disk(folder)
        if saved is not None:
            return LocalSource(name, *saved)
        for level in ([folder], [folder / "data"], _subfolders(folder)):
            found = _split_files(folder, level)
            if found is not None:
                return LocalSource(name, *found)
    except PermissionError as err:
        raise DataError(f"{folder} cannot be read: permission denied", hint=f"try: chmod -R +rX {folder}") from err
    raise _no_splits(folder)


def _split_files(
    folder: Path, level: Iterable[Path]
) -> tuple[dict[str, tuple[DataFile, ...]], bool, tuple[str, ...]] | None:
    """The files of each split among the folders of one level; None when nothing there can be read as splits."""
    candidates: dict[str, list[DataFile]] = {}
    for place in level:
        for split_name, file in _candidates(folder, place):
            candidates.setdefault(split_name, []).append(file)
    chosen, notes = assign_splits(candidates)
    if not chosen:
        # One file, whatever its name, or the numbered parts of one: all of it is train.
        if len(candidates) != 1:
            return None
        chosen = {"train": next(iter(candidates))}
    splits, unread = _one_format({split: candidates[source] for split, source in chosen.items()})
    if unread:
        notes.append(f"left unread, since the same split is there in a more exact format: {', '.join(unread)}")
    return splits, bool(assign_splits(candidates)[0]), tuple(notes)


def _candidates(folder: Path, place: Path) -> Iterator[tuple[str, DataFile]]:
    """The data files right in a folder, or in a subfolder that is named as a split, with what they call their split."""
    if not place.is_dir():
        return
    for entry in sorted(place.iterdir()):
        if entry.name.startswith(".") or entry.name.lower() in _METADATA:
            continue
        if entry.is_file():
            file = data_file(entry, name=entry.relative_to(folder).as_posix())
            if file is not None:
                yield _split_name(entry), file
        elif entry.name.lower() in SPLIT_NAMES and entry.is_dir():
            for inner in sorted(entry.rglob("*")):
                file = data_file(inner, name=inner.relative_to(folder).as_posix())
                if file is not None and inner.is_file() and not inner.name.startswith("."):
                    yield entry.name.lower(), file


def _split_name(path: Path) -> str:
    stem = path.name
    while Path(stem).suffix.lower() in (*files.FORMATS, *files.COMPRESSIONS):
        stem = Path(stem).stem
    return _SHARD.sub("", stem)


def _subfolders(folder: Path) -> list[Path]:
    inner = [entry for entry in sorted(folder.iterdir()) if entry.is_dir() and not entry.name.startswith(".")]
    return inner + [entry / "data" for entry in inner]


def _one_format(candidates: dict[str, list[DataFile]]) -> tuple[dict[str, tuple[DataFile, ...]], list[str]]:
    """The files of the most typed format that all splits have, else that each has; and the names of the others."""
    order = [kind + packed for kind in files.FORMATS.values() for packed in ("", *files.COMPRESSIONS)]
    kinds = {split: {file.kind for file in found} for split, found in candidates.items()}
    common = set.intersection(*kinds.values())
    splits, unread = {}, []
    for split, found in candidates.items():
        best = min(common or kinds[split], key=order.index)
        splits[split] = tuple(file for file in found if file.kind == best)
        unread += [file.name for file in found if file.kind != best]
    return splits, unread


def _saved_to_disk(folder: Path) -> tuple[dict[str, tuple[DataFile, ...]], bool, tuple[str, ...]] | None:
    """What `datasets` wrote with save_to_disk: a folder of splits, or one data set."""
    listing = folder / "dataset_dict.json"
    if listing.is_file():
        names = _json_file(listing).get("splits")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise DataError(f"{listing} does not list the splits")
        chosen, notes = assign_splits(names)
        if not chosen:
            raise no_known_split(str(folder), names)
        return {split: _arrow_files(folder, folder / name) for split, name in chosen.items()}, True, tuple(notes)
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        return {"train": _arrow_files(folder, folder)}, False, ()
    return None


def _arrow_files(root: Path, folder: Path) -> tuple[DataFile, ...]:
    # Only the listed files: map() leaves cache-*.arrow files beside them.
    listed = _json_file(folder / "state.json").get("_data_files")
    try:
        paths = [folder / Path(entry["filename"]).name for entry in listed]  # type: ignore[union-attr]
    except (KeyError, TypeError):
        raise DataError(f"{folder / 'state.json'} does not list the data files") from None
    for path in paths:
        if not path.is_file():
            raise DataError(f"{path} is missing, though state.json lists it", hint="copy the whole folder again")
    return tuple(DataFile(path, path.relative_to(root).as_posix(), "arrow") for path in paths)


def _json_file(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} is missing", hint="copy the whole folder again") from None
    except (OSError, ValueError) as err:
        raise DataError(f"{path} cannot be read: {type(err).__name__}") from err
    return document if isinstance(document, dict) else {}


def _digest(file: DataFile) -> str:
    try:
        return atomic.sha256(file.path)
    except OSError as err:
        raise DataError(f"{file.path} cannot be read: {(err.strerror or str(err)).lower()}") from err


def _no_splits(folder: Path) -> DataError:
    files_here = [entry for entry in sorted(folder.iterdir()) if data_file(entry)]
    found = [entry.name for entry in files_here if entry.name.lower() not in _METADATA]
    what = f"it holds {', '.join(found[:6])}" if found else f"it holds no data file ({files.READABLE})"
    return DataError(
        f"{folder}: no file of this folder is named as a split; {what}",
        hint="name the files train.csv, validation.csv and test.csv (or another format), or give one file as --dataset",
    )
