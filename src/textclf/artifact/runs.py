"""The run folder: its name, its state, and finding it again."""

from __future__ import annotations

import difflib
import errno
import glob
import json
import logging
import os
import re
import shutil
import socket
import statistics
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from textclf import atomic, paths
from textclf.errors import BusyError, ConfigError, ModelError, ResourceError, UsageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

STATE = "run.json"
CONFIG = "config.json"
METRICS = "metrics.jsonl"
MODEL = "model"
ADAPTER = "adapter"
CHECKPOINTS = "checkpoints"
EVALUATIONS = "eval"
LOCK = ".lock"
FORMAT = "textclf run 1"
"""What run.json says it is."""
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""How a disk says that it has no locks: some network file systems."""
_OURS = {STATE, CONFIG, METRICS, MODEL, ADAPTER, CHECKPOINTS, EVALUATIONS, LOCK}

State = Literal["new", "running", "paused", "done", "failed"]


@dataclass(frozen=True)
class Run:
    """One fine-tuning on disk.

    document: run.json as it stands: `state`, `started` and `updated` (ISO 8601, UTC), `dataset`, `model`,
        `fingerprint`, `environment`, `step`, `steps`, `metrics` (split -> name -> value), `message`.
    """

    folder: Path
    document: dict[str, Any]

    def __fspath__(self) -> str:
        return str(self.folder)

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def state(self) -> State:
        return self.document.get("state", "failed")  # type: ignore[no-any-return]

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """Split name -> metric name -> value, of the finished model; empty before that."""
        found = self.document.get("metrics")
        measured = found.items() if isinstance(found, dict) else ()
        # Others may have written the file: what is no measurement is left out.
        return {split: one for split, one in measured if isinstance(one, dict) and isinstance(one.get("rows"), int)}

    @property
    def model_folder(self) -> Path:
        """The artifact. Raises ModelError while the run has none."""
        folder = self.folder / MODEL
        if not folder.is_dir():
            raise ModelError(
                f"run {self.name} has no model yet: it is {self.state}",
                hint="finish it by giving the same `textclf finetune` command again",
            )
        return folder

    @property
    def config(self) -> dict[str, Any]:
        """The resolved RunConfig as nested values; as it was asked for, where a process was killed as it made the run.

        Raises ModelError where it cannot be read.
        """
        path, request = self.folder / CONFIG, self.document.get("request")
        try:
            if isinstance(request, dict) and not os.path.lexists(path) and is_blank(self):
                from textclf.config import as_dict, build  # a start that needs no settings does without

                return as_dict(build(request))
            document = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError, ConfigError) as err:
            raise ModelError(f"run {self.name}: its {CONFIG} cannot be read: {err}") from err
        return document if isinstance(document, dict) else {}

    @property
    def history(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl, in order: `step` with `loss` and the like, or with `validation` metrics. Of a run
        that is at work, without a line that is half written; empty where there is none."""
        try:
            text = (self.folder / METRICS).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return []
        lines = []
        for line in text.split("\n"):
            with suppress(ValueError):
                found = json.loads(line)
                if isinstance(found, dict) and isinstance(found.get("step"), int):
                    lines.append(found)
        return lines

    def update(self, **changes: Any) -> Run:
        """Write run.json with these changes, and give the run as it then stands."""
        document = {**self.document, **changes, "updated": _now()}
        atomic.write_json(self.folder / STATE, document)
        return Run(self.folder, document)


@dataclass(frozen=True)
class Group:
    """Runs that differ in `train.seed` only, as `finetune --seeds` makes them: one model, learnt several times.

    folder: what the runs' folders are called before `-seed0`, `-seed1`, ...; nothing lies there. runs: by their seeds.
    """

    folder: Path
    runs: tuple[Run, ...]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def metric(self) -> str:
        """What the best of them is chosen by, as the best checkpoint of each."""
        return str(_trained(self.runs[0].config)["metric"] or "accuracy")

    @property
    def best(self) -> Run:
        """The finished run that is best on validation, of equals the lowest seed; without a finished one the first."""
        from textclf.metrics import LOWER_IS_BETTER  # numpy comes with it

        done = [run for run in self.runs if run.state == "done" and self._value(run) is not None]
        sign = -1 if self.metric in LOWER_IS_BETTER else 1
        return max(done, key=lambda run: sign * (self._value(run) or 0.0), default=self.runs[0])

    @property
    def spread(self) -> dict[str, dict[str, tuple[float, float | None]]]:
        """Split -> metric -> mean of the finished runs, and their standard deviation; None for a single run."""
        measured = [run.metrics for run in self.runs if run.state == "done"]
        found: dict[str, dict[str, tuple[float, float | None]]] = {}
        for split, first in (measured[0] if measured else {}).items():
            found[split] = {}
            for name in first:
                values = [one[split][name] for one in measured if split in one and _is_number(one[split].get(name))]
                if name != "rows" and len(values) == len(measured):
                    deviation = statistics.stdev(values) if len(values) > 1 else None
                    found[split][name] = (statistics.fmean(values), deviation)
        return found

    def _value(self, run: Run) -> float | None:
        value = run.metrics.get("validation", {}).get(self.metric)
        return float(value) if isinstance(value, (int, float)) else None


def seed_folder(folder: Path, seed: int) -> Path:
    """Where the run of this seed lies in a group of this name."""
    return folder.with_name(f"{folder.name}-seed{seed}")


def seed_of(run: Run) -> int | None:
    """The seed that a run was asked for; None where its file does not say."""
    request = run.document.get("request")
    seed = _trained(request).get("seed") if isinstance(request, dict) else None
    return seed if isinstance(seed, int) else None


def group(folder: Path) -> Group | None:
    """The group of runs of this name, in this place; None where there is none.

    Runs that are called so, and differ in more than their seed, are none.
    """
    found = by_seed(folder)
    alike = len({_but_seed(run.document["request"]) for run in found.values()}) == 1
    return Group(folder, tuple(found.values())) if alike else None


def by_seed(folder: Path) -> dict[int, Run]:
    """The runs that are called like the runs of this group, by their seeds."""
    if folder.name in ("", ".."):
        return {}
    beside: list[Path] = []
    with suppress(OSError, ValueError):  # what the user typed may be no path at all
        beside = list(folder.parent.glob(f"{glob.escape(folder.name)}-seed*"))
    named = [run for path in beside if (run := read(path)) is not None]
    of_seed = [(seed, run) for run in named if (seed := seed_of(run)) is not None]
    return {
        seed: run for seed, run in sorted(of_seed, key=lambda one: one[0]) if run.folder == seed_folder(folder, seed)
    }


def group_of(run: Run) -> Group | None:
    """The group that a run belongs to; None for a run by itself."""
    named = re.fullmatch(r"(.+)-seed\d+", run.folder.name)
    found = group(run.folder.with_name(named[1])) if named else None
    return found if found is not None and run.folder in [one.folder for one in found.runs] else None


def check_free(folder: Path) -> None:
    """Raises UsageError where a folder for a new run holds anything but what a killed process left of `create`, and
    where its name means a group of several seeds, which nothing would reach any more."""
    if not folder.exists() and group(folder) is not None:
        raise UsageError(
            f"{folder} is the name of runs of several seeds; nothing was written",
            hint="give another folder with --out, or remove those runs: textclf runs remove",
        )
    if folder.exists() and (not folder.is_dir() or any(not _is_left(path) for path in folder.iterdir())):
        raise UsageError(
            f"{folder} holds something else already; nothing was written",
            hint="give another folder with --out, or empty this one",
        )


def create(folder: Path, request: dict[str, Any]) -> Run:
    """Make a run folder for a config as it was asked for. Raises UsageError where it holds anything."""
    check_free(folder)
    # run.json first: from then on the folder is known for a run, whatever happens.
    run = Run(folder, {"format": FORMAT, "state": "new", "started": _now(), "request": request}).update()
    atomic.write_json(folder / CONFIG, request)
    return run


def is_blank(run: Run) -> bool:
    """Whether nothing was learnt in a run yet: it has neither a checkpoint nor a model."""
    return not (run.folder / MODEL).exists() and not any((run.folder / CHECKPOINTS).glob("step-*"))


@contextmanager
def locked(run: Run) -> Iterator[None]:
    """Keep other processes out of a run while the block works. Raises BusyError naming the one that is in.

    A kernel lock, so that a process that dies leaves none behind; on Windows, which has no flock, and on disks without
    locks nothing is locked. Raises ResourceError where the folder may not be written to.
    """
    if fcntl is None:
        yield
        return
    try:
        handle = os.open(run.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as err:
        raise ResourceError(
            f"{run.folder / LOCK} cannot be written: {err.strerror}",
            hint="choose a folder you may write to with --out or TEXTCLF_HOME",
        ) from err
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as err:
            owner = os.read(handle, 200).decode("utf-8", "replace")
            raise BusyError(
                f"run {run.name} is being worked on by another process ({owner})",
                hint="wait for it, or choose another --out",
            ) from err
        except OSError as err:
            if err.errno not in _NO_LOCKS:
                raise
            logger.warning("%s: the disk has no locks; see to it that no other process works in this run", run.folder)
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
        _sweep(run.folder)
        yield
    finally:
        os.close(handle)


def read(folder: Path) -> Run | None:
    """The run in a folder, or None where there is none; another program's run.json is none of ours."""
    try:
        document = json.loads((folder / STATE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return Run(folder, document) if isinstance(document, dict) and document.get("format") == FORMAT else None


def title(model_folder: Path) -> str:
    """How a model is called: its run's name, else its folder's."""
    run = read(model_folder.parent) if model_folder.name == MODEL else None
    return run.name if run is not None else model_folder.name


def all_runs() -> list[Run]:
    """The runs in the user's runs folder, newest first."""
    folder = paths.runs_dir()
    children = [child for child in folder.iterdir() if not child.name.startswith(".")] if folder.is_dir() else []
    found = [run for child in children if (run := read(child))]
    return sorted(found, key=lambda run: (str(run.document.get("started")), run.name), reverse=True)


def at(folder: Path) -> Run | None:
    """The run in a folder, else the best run of the group of this name; None where there is neither."""
    run = read(folder)
    if run is None and not _is_there(folder) and (found := group(folder)) is not None:
        run = found.best
    return run


def find(reference: str) -> Run | None:
    """The run of this name in the runs folder, or the run folder at this path; None where there is none.

    The name, or path, of a group of several seeds means its best run.
    """
    is_name = Path(reference).name == reference and reference not in ("", "..")
    if is_name and (run := at(paths.runs_dir() / reference)):
        return run
    return at(Path(reference))


def find_group(reference: str | os.PathLike[str]) -> Group | None:
    """The group of several seeds of this name in the runs folder, or at this path; None where it is anything else."""
    is_name = isinstance(reference, str) and Path(reference).name == reference
    for place in ([paths.runs_dir() / reference] if is_name else []) + [Path(reference)]:
        if _is_there(place):
            return None
        found = group(place)
        if found is not None:
            return found
    return None


def named(reference: str) -> Run:
    """As `find`. Raises ModelError with the nearest name where there is no such run."""
    run = find(reference)
    if run is None:
        known = [run.name for run in all_runs()]
        close = difflib.get_close_matches(reference, known, n=1, cutoff=0.5)
        hint = (
            f"did you mean {close[0]}?"
            if close
            else "textclf runs lists those there are"
            if known
            else "there are no runs yet"
        )
        raise ModelError(f"there is no run {reference!r}", hint=hint)
    return run


def latest() -> Run:
    """The run that was finished last, of a group the best. Raises ModelError where there is none."""
    done = [run for run in all_runs() if run.state == "done"]
    if not done:
        raise ModelError(
            "there is no finished run yet",
            hint="make one: textclf finetune --preset quickstart",
        )
    last = max(done, key=lambda run: str(run.document.get("updated")))
    found = group_of(last)
    return last if found is None else found.best


def size(run: Run) -> int:
    """Bytes that a run takes on disk."""
    total = 0
    for parent, _, files in os.walk(run.folder):
        for name in files:
            with suppress(OSError):  # a file of a run that is at work may go while we count
                total += Path(parent, name).lstat().st_size
    return total


def is_busy(run: Run) -> bool:
    """Whether a process works in the run now. False on Windows, where nothing is locked."""
    if fcntl is None:
        return False
    try:
        handle = os.open(run.folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def remove(run: Run) -> None:
    """Delete a run with its checkpoints and model.

    Raises BusyError while a process works in it, UsageError where files lie in it that are not the run's,
    ResourceError where it cannot be deleted.
    """
    folder = run.folder.resolve()
    try:
        with locked(run):
            foreign = sorted(path.name for path in folder.iterdir() if path.name not in _OURS)
            if foreign:
                raise UsageError(
                    f"{folder} also holds {foreign[0]!r}, which is not the run's; nothing was deleted",
                    hint="move it elsewhere first",
                )
            # Out of sight in one step: a removal that is cut short leaves no half run under the name.
            doomed = folder.with_name(f".{folder.name}.{os.getpid()}.removed")
            folder.rename(doomed)
            shutil.rmtree(doomed)
    except OSError as err:
        raise ResourceError(
            f"run {run.name} cannot be removed whole: {err.strerror} ({err.filename})",
            hint="check who owns the folder, and delete what is left by hand",
        ) from err


def _trained(config: dict[str, Any]) -> dict[str, Any]:
    section = config.get("train")
    return section if isinstance(section, dict) else {}


def _but_seed(request: dict[str, Any]) -> str:
    sections = {name: dict(values) for name, values in request.items() if isinstance(values, dict)}
    sections.get("train", {}).pop("seed", None)
    return json.dumps(sections, sort_keys=True)


def _is_there(place: Path) -> bool:
    with suppress(OSError, ValueError):  # what the user typed may be no path at all
        return place.exists()
    return False


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_left(path: Path) -> bool:
    return path.name.startswith(f".{STATE}.") and path.name.endswith(".tmp")


def _sweep(folder: Path) -> None:
    """Delete what a killed process left half written; called by the one that holds the lock."""
    for place in (folder, folder / CHECKPOINTS, folder / EVALUATIONS):
        for pattern in (".*.tmp", ".*.old"):
            for left in place.glob(pattern):
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
