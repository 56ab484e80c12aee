"""From the name of a data set (file, folder, catalog name, Hub id) to the records of its splits."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import json
import logging
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from textclf import atomic, presets
from textclf.data import files
from textclf.data.catalog import CATALOG, nearest
from textclf.data.files import DataFile, Records, data_file
from textclf.data.records import read_records
from textclf.data.rows import SPLIT_NAMES, SPLITS
from textclf.errors import DataError, HubError

if TYPE_CHECKING:
    from datasets import DatasetDict

_SHARD = re.compile(r"[-_.]\d+(-of-\d+)?(-[0-9a-f]{6,})?$")
"""What numbers the parts of one split: `-00000-of-00002`, `_3`, and the hash that older files carry."""
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_METADATA = {
    "dataset_info.json", "dataset_infos.json", "dataset_dict.json", "dataset.json", "state.json", "config.json",
    "label_names.json", "manifest.json",
}  # fmt: skip
"""Files beside the data that are no rows, in lower case."""


class Source(Protocol):
    """Where a data set comes from.

    name: short, for people; never an absolute path.
    repository: the id on the Hub, or None. revision: the commit there, or None.
    has_splits: whether the source itself divides the rows into splits; a lone file does not, its rows are train.
    notes: what was decided in finding the splits, in words.
    min_label_count: what the catalog knows to be sensible, or None.
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

    def identity(self) -> str:
        """A text that changes whenever the content may have changed."""

    def records(self, columns: tuple[str, ...] | None = None) -> dict[str, list[Records]]:
        """The records of each split (train, validation, test), opened, file by file."""


def open_source(dataset: str) -> Source:
    """Find a data set: a file or folder, one that we ship, one of the catalog, or a Hub id `owner/name[:config]`.

    Raises DataError (missing or unreadable file, folder without splits) or HubError.
    """
    path = Path(dataset).expanduser()
    if _exists(path):
        return _open_folder(path) if path.is_dir() else _open_file(path)
    if dataset in presets.shipped_data():
        return dataclasses.replace(_open_file(presets.dataset_path(dataset)), name=dataset)
    if dataset in CATALOG:
        entry = CATALOG[dataset]
        return _open_hub(entry.repo, entry.config, name=dataset, min_label_count=entry.min_label_count)
    repo, colon, config = dataset.partition(":")
    if files.looks_like_file(dataset) or not _HUB_ID.fullmatch(repo) or repo.startswith("."):
        raise _missing(path)
    if colon and not config:
        raise DataError(f"{dataset}: no configuration after the colon", hint=f"write {repo}:NAME, or {repo} alone")
    return _open_hub(repo, config or None, name=dataset)


# --- files and folders ------------------------------------------------------------------------------------------


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

    def identity(self) -> str:
        digest = hashlib.sha256()
        for split, parts in self.splits.items():
            for part in parts:
                digest.update(json.dumps([split, part.name, _digest(part)]).encode())
        return f"files {digest.hexdigest()}"

    def records(self, columns: tuple[str, ...] | None = None) -> dict[str, list[Records]]:
        return {split: [read_records(part, columns=columns) for part in parts] for split, parts in self.splits.items()}


def _open_file(path: Path) -> LocalSource:
    file = data_file(path)
    if file is None:
        raise files.unsupported(path)
    if not path.is_file():
        raise DataError(f"{path} is neither a file nor a folder", hint="write the rows to a file first")
    return LocalSource(path.resolve().name, {"train": (file,)}, has_splits=False)


def _open_folder(folder: Path) -> LocalSource:
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


def assign_splits(names: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Which of the source's split names is train, validation and test, with notes on those left out.

    A name proper (`dev`) goes before one that only contains it (`auxiliary_train`, `dev_matched`), which
    is taken when there is nothing else; of several, the one that comes first in SPLIT_NAMES.
    """
    names = list(names)
    chosen: dict[str, str] = {}
    by_lower = {name.lower(): name for name in reversed(names)}
    for known, split in SPLIT_NAMES.items():
        if known in by_lower:
            chosen.setdefault(split, by_lower[known])
    notes = []
    for name in sorted(names):
        words = [SPLIT_NAMES[word] for word in re.split(r"[^a-z]+", name.lower()) if word in SPLIT_NAMES]
        if words and name not in chosen.values() and words[-1] not in chosen:
            chosen[words[-1]] = name
            notes.append(f"{words[-1]} is read from {name}")
    unread = [name for name in names if name not in chosen.values()]
    if chosen and unread:
        notes.append(f"left unread, being no split or a second one of its kind: {', '.join(unread[:8])}")
    return {split: chosen[split] for split in SPLITS if split in chosen}, notes


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
            raise _no_known_split(str(folder), names)
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


def _no_known_split(name: str, splits: list[str]) -> DataError:
    return DataError(f"{name}: no split is called train, validation or test; its splits are {', '.join(splits[:8])}")


def _digest(file: DataFile) -> str:
    try:
        return atomic.sha256(file.path)
    except OSError as err:
        raise DataError(f"{file.path} cannot be read: {(err.strerror or str(err)).lower()}") from err


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


def _no_splits(folder: Path) -> DataError:
    files_here = [entry for entry in sorted(folder.iterdir()) if data_file(entry)]
    found = [entry.name for entry in files_here if entry.name.lower() not in _METADATA]
    what = f"it holds {', '.join(found[:6])}" if found else f"it holds no data file ({files.READABLE})"
    return DataError(
        f"{folder}: no file of this folder is named as a split; {what}",
        hint="name the files train.csv, validation.csv and test.csv (or another format), or give one file as --dataset",
    )


# --- the Hub ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HubSource:
    """A data set of the Hub, or of the cache that `datasets` keeps of it."""

    name: str
    repository: str
    config: str | None
    revision: str | None
    min_label_count: int | None = None
    loaded: DatasetDict | None = field(default=None, repr=False)
    """Loaded already where that was the only way to learn the revision."""
    notes: tuple[str, ...] = ()
    has_splits: bool = True

    def identity(self) -> str:
        version = self.revision or " ".join(str(split._fingerprint) for split in (self.loaded or {}).values())
        return f"hub {self.repository} {self.config} {version}"

    def records(self, columns: tuple[str, ...] | None = None) -> dict[str, list[Records]]:
        if columns is not None:
            raise DataError(f"{self.name}: a set on the Hub names its columns itself", hint="leave --columns out")
        splits = self.loaded if self.loaded is not None else _load(self.repository, self.config, self.revision)
        chosen, notes = assign_splits(list(splits))
        if not chosen:
            raise _no_known_split(self.name, list(splits))
        return {ours: [_hub_records(self.name, theirs, splits[theirs], notes)] for ours, theirs in chosen.items()}


def _hub_records(name: str, split: str, dataset: Any, notes: list[str]) -> Records:
    said, notes[:] = tuple(notes), []  # of the set as a whole: once, with its first split
    names = {column: tuple(f.names) for column, f in dataset.features.items() if type(f).__name__ == "ClassLabel"}

    def column(column_name: str) -> Any:
        return dataset.select_columns([column_name]).with_format("arrow")[:].column(column_name)

    return Records(f"{name} {split}", tuple(dataset.column_names), column, names, None, said)


def _open_hub(repo: str, config: str | None, *, name: str, min_label_count: int | None = None) -> HubSource:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError

    try:
        info = HfApi().dataset_info(repo)
    except GatedRepoError as err:
        raise _gated(repo) from err
    except RepositoryNotFoundError as err:
        raise _unknown(repo) from err
    except HFValidationError as err:
        raise _unknown(repo) from err
    except HfHubHTTPError as err:
        if err.response is not None and err.response.status_code in (401, 403):
            raise HubError(
                f"{repo}: the Hub refused the access token ({err.response.status_code})",
                hint="log in again with `hf auth login`, or unset HF_TOKEN",
            ) from err
        return _from_cache(repo, config, name, min_label_count, err)
    except (_transport_error(), OSError) as err:
        return _from_cache(repo, config, name, min_label_count, err)
    # A short id such as `imdb` has a full one, and only that one can be loaded (datasets 5.2 with hub 2.4).
    return HubSource(name, info.id, config, info.sha, min_label_count)


def _from_cache(
    repo: str, config: str | None, name: str, min_label_count: int | None, unreachable: Exception
) -> HubSource:
    """The set as `datasets` has it cached. Raises HubError when it has not."""
    from datasets.packaged_modules.cache.cache import Cache
    from huggingface_hub.errors import OfflineModeIsEnabled

    offline = isinstance(unreachable, OfflineModeIsEnabled)
    reason = "HF_HUB_OFFLINE is set" if offline else f"the Hub cannot be reached ({type(unreachable).__name__})"
    try:
        # Not load_dataset: it would ask the Hub again, for half a minute, before it looks here.
        with _quietly():
            builder = Cache(
                repo_id=repo, dataset_name=repo.rpartition("/")[2], config_name=config, version="auto", hash="auto"
            )
            loaded = builder.as_dataset()
    except (ValueError, OSError) as err:
        what = f"no copy of {repo}" + (f" {config}" if config else "")
        known = "" if "/" in repo else f"{_no_such_name(repo)}; "
        raise HubError(
            f"{known}{reason}, and the cache of `datasets` holds {what}",
            hint=_nearest_hint(repo) or "check the network, HF_ENDPOINT and HF_HUB_OFFLINE, or give a file instead",
        ) from err
    revision = _cached_revision(loaded)
    note = f"{reason}: read from the cache of `datasets`, commit {revision or 'unknown'}"
    return HubSource(name, repo, config, revision, min_label_count, loaded, (note,))


def _load(repo: str, config: str | None, revision: str | None) -> DatasetDict:
    """Load with `datasets`. Raises DataError for a wrong configuration, HubError for the rest."""
    with _hub_errors(repo, config):
        import datasets

        with _quietly():
            loaded = datasets.load_dataset(repo, config, revision=revision)
    if not isinstance(loaded, datasets.DatasetDict):
        raise HubError(f"{repo}: {type(loaded).__name__} where a set of splits was expected")
    return loaded


@contextmanager
def _hub_errors(repo: str, config: str | None) -> Iterator[None]:
    from huggingface_hub.errors import GatedRepoError, HfUriError

    try:
        yield
    except ValueError as err:
        if isinstance(err, HfUriError):
            raise _unknown(repo) from err
        raise _configuration(repo, config, err) from err
    except RuntimeError as err:
        if "scripts are no longer supported" not in str(err):
            raise
        raise HubError(
            f"{repo} is published as a loading script, which `datasets` no longer runs",
            hint="look on the Hub for a copy of it in parquet or csv, or give a file as --dataset",
        ) from err
    except Exception as err:
        from datasets.exceptions import DataFilesNotFoundError, DatasetGenerationError, DatasetNotFoundError

        if isinstance(err, GatedRepoError) or (isinstance(err, DatasetNotFoundError) and "gated" in str(err)):
            raise _gated(repo) from err
        if isinstance(err, DatasetNotFoundError):
            raise _unknown(repo) from err
        if isinstance(err, DataFilesNotFoundError):
            raise DataError(f"{repo} holds no data file that can be read") from err
        if isinstance(err, DatasetGenerationError):
            raise DataError(f"{repo}: its files cannot be read ({_first_line(err.__cause__ or err)})") from err
        if isinstance(err, (_transport_error(), OSError)):
            raise HubError(
                f"{repo} could not be fetched from the Hub: {_first_line(err)}",
                hint="check the network, HF_ENDPOINT and HF_HUB_OFFLINE, and try again",
            ) from err
        raise


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the warnings of the Hub's libraries, and without progress bars unless somebody sits before a terminal."""
    import datasets

    loggers = [logging.getLogger(name) for name in ("datasets", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    had_bars = not datasets.are_progress_bars_disabled()
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if had_bars:
            datasets.enable_progress_bars()


def _configuration(repo: str, config: str | None, err: ValueError) -> DataError:
    listed = re.search(r"(?:configs|Available): \[(.*?)\]", str(err), re.DOTALL)
    if listed is None:
        return DataError(f"{repo} cannot be read: {_first_line(err)}")
    known = re.findall(r"'([^']*)'", listed[1])
    near = difflib.get_close_matches(config or "", known, n=1)
    example = near[0] if near else known[0] if known else "NAME"
    return DataError(
        f"{repo} has no configuration {config!r}" if config else f"{repo} has several configurations; choose one",
        hint=f"for example --dataset {repo}:{example}; it has {', '.join(known[:12])}",
    )


def _cached_revision(loaded: DatasetDict) -> str | None:
    """The commit in the addresses that `datasets` noted when it fetched the files: hf://datasets/owner/name@COMMIT/..."""
    for dataset in loaded.values():
        for address in dataset.info.download_checksums or {}:
            match = re.search(r"@([0-9a-f]{40})/", str(address))
            if match:
                return match[1]
    return None


def _unknown(repo: str) -> HubError:
    if "/" not in repo:
        return HubError(_no_such_name(repo) + ", and the Hub knows no such data set", hint=_nearest_hint(repo))
    folder = f"{repo} is no file or folder here, and " if Path(repo).parent.is_dir() else ""
    return HubError(
        f"{folder}the Hub has no data set {repo}, or it is private",
        hint="check the spelling; for a private set log in with `hf auth login` or set HF_TOKEN",
    )


def _no_such_name(name: str) -> str:
    return f"{name} is no file, folder or catalog name ({', '.join(CATALOG)})"


def _nearest_hint(name: str) -> str | None:
    near = nearest(name)
    return f"did you mean {near}?" if near else None


def _gated(repo: str) -> HubError:
    return HubError(
        f"{repo} is gated: the Hub gives it only to accounts that accepted its terms",
        hint=f"accept them at https://huggingface.co/datasets/{repo}, then log in with `hf auth login` or set HF_TOKEN",
    )


def _transport_error() -> type[Exception]:
    """What the HTTP library under huggingface_hub raises; which library that is depends on the version."""
    from huggingface_hub.errors import HfHubHTTPError

    base: type[Exception] = HfHubHTTPError.__bases__[0]
    return base


def _first_line(err: BaseException) -> str:
    return (str(err).strip().split("\n")[0] or type(err).__name__)[:200]
