"""Data sets of the Hub as sources, or of the cache that `datasets` keeps of them."""

from __future__ import annotations

import difflib
import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textclf import signals
from textclf.data.catalog import CATALOG, nearest
from textclf.data.files import Records
from textclf.data.forms import Form
from textclf.data.splits import assign_splits, no_known_split
from textclf.errors import DataError, HubError, RefusedError

if TYPE_CHECKING:
    from datasets import DatasetDict


_ELSEWHERE = re.compile(r"^[/~]|^[A-Za-z]:|://|::|(?:^|[\\/])\.\.(?:[\\/]|$)")
"""In a pattern of files: from the root or a home folder, an address, a chain of them, or a way up."""


@dataclass(frozen=True)
class HubSource:
    """A data set of the Hub, or of the cache that `datasets` keeps of it."""

    name: str
    repository: str
    config: str | None
    revision: str | None
    min_label_count: int | None = None
    form: Form | None = None
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
            raise no_known_split(self.name, list(splits))
        return {ours: [_hub_records(self.name, theirs, splits[theirs], notes)] for ours, theirs in chosen.items()}


def _hub_records(name: str, split: str, dataset: Any, notes: list[str]) -> Records:
    said, notes[:] = tuple(notes), []  # of the set as a whole: once, with its first split
    inner = {column: getattr(feature, "feature", feature) for column, feature in dataset.features.items()}
    names = {column: tuple(f.names) for column, f in inner.items() if type(f).__name__ == "ClassLabel"}

    def column(column_name: str) -> Any:
        return dataset.select_columns([column_name]).with_format("arrow")[:].column(column_name)

    return Records(f"{name} {split}", tuple(dataset.column_names), column, names, None, said)


def open_hub(repo: str, config: str | None, *, name: str) -> HubSource:
    """A data set by its id.

    Raises HubError when it is unknown, gated, or neither reachable nor cached, RefusedError as `check_listing`.
    """
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
        return _from_cache(repo, config, name, err)
    except (_transport_error(), OSError) as err:
        return _from_cache(repo, config, name, err)
    check_listing(repo, info.card_data.to_dict() if info.card_data is not None else {})  # type: ignore[no-untyped-call]
    # A short id such as `imdb` has a full one, and only that one can be loaded (datasets 5.2 with hub 2.4).
    return HubSource(name, info.id, config, info.sha)


def check_listing(repo: str, card: Mapping[str, Any]) -> None:
    """That the files which a data set's README lists are its own: `datasets` would open any path or address.

    card: the YAML in front of the README. Raises RefusedError.
    """
    configs = card.get("configs")
    for listed in configs if isinstance(configs, list) else ():
        asked = [listed.get("data_files"), listed.get("data_dir")] if isinstance(listed, dict) else []
        while asked:
            one = asked.pop()
            if isinstance(one, (list, tuple)):
                asked += one
            elif isinstance(one, dict):
                asked += one.values()
            elif isinstance(one, str) and _ELSEWHERE.search(one):
                raise RefusedError(
                    f"{repo} lists {one!r:.120} among its files, which lies elsewhere",
                    hint="choose another data set, or download its files and give them as --dataset",
                )


def _from_cache(repo: str, config: str | None, name: str, unreachable: Exception) -> HubSource:
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
    return HubSource(name, repo, config, revision, loaded=loaded, notes=(note,))


def _load(repo: str, config: str | None, revision: str | None) -> DatasetDict:
    """Load with `datasets`. Raises DataError for a wrong configuration, HubError for the rest."""
    with _hub_errors(repo, config):
        import datasets

        with _quietly():
            loaded = signals.leavable(lambda: datasets.load_dataset(repo, config, revision=revision))
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
