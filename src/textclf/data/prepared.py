"""A prepared data set: what is known of it, and its folder in the cache."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from textclf import atomic
from textclf.data import corrections, mapped
from textclf.data.columnar import open_parquet, parquet_table
from textclf.data.quality import Finding, Lengths
from textclf.data.rows import TEXT_ID, Rows, spelled
from textclf.errors import DataError, ResourceError, UsageError
from textclf.labels import LabelSet

logger = logging.getLogger(__name__)


PREPARATION_VERSION = 3
"""Raised whenever the same data and settings would be prepared into something else."""
_DOCUMENT = "dataset.json"


@dataclass(frozen=True)
class Dropped:
    """Rows of a split of the source that were left out, and why."""

    split: str
    rows: int
    reason: str


@dataclass(frozen=True)
class Prepared:
    """A data set ready to train on. Its splits lie in `folder` as parquet.

    name: catalog name, Hub id, or the last name of the file or folder.
    splits: rows of train, validation and, unless forgone, test.
    label_counts: split -> label -> rows, for every label of the set, in its order.
    fingerprint: SHA-256 of the content (texts, labels, splits, order of the labels), wherever it came from.
    repository, revision: id and commit on the Hub, or None.
    steps: what was read and cut, in words.
    form: how rows are shown to a model: `text`, `pair`, or for questions with choices `binary` or `multiclass`.
    text_pair_column: column of the second texts of pairs.
    lengths: how many characters the texts of each split have. shifts: split -> ROC-AUC of telling its texts from those
        of train, where that was asked for. corrected: what a file of corrections did.
    from_cache: whether an earlier preparation was taken.
    """

    folder: Path
    name: str
    label_set: LabelSet
    splits: dict[str, int]
    label_counts: dict[str, dict[str, int]]
    text_column: str
    label_column: str
    fingerprint: str
    repository: str | None
    revision: str | None
    dropped: tuple[Dropped, ...]
    findings: tuple[Finding, ...]
    steps: tuple[str, ...]
    from_cache: bool
    form: str = "text"
    text_pair_column: str | None = None
    lengths: dict[str, Lengths] = field(default_factory=dict)
    shifts: dict[str, float] = field(default_factory=dict)
    corrected: corrections.Applied | None = None

    def rows(self, split: str) -> Rows:
        """The rows of one split; texts and labels are never null. Raises UsageError for a split that is not there."""
        if split not in self.splits:
            raise UsageError(f"{self.name} has no {split} split; it has {', '.join(self.splits)}")
        return Rows(_read_parquet(self.folder / f"{split}.parquet"), self.label_set.names)


def fingerprint_of(splits: dict[str, Rows], label_set: LabelSet) -> str:
    """SHA-256 of the content, as in `Prepared`."""
    digest = hashlib.sha256(json.dumps([label_set.names, {s: len(rows) for s, rows in splits.items()}]).encode())
    for rows in splits.values():
        first, *second = rows.text_names
        for column in (first, "label", *second):
            for piece in spelled(rows.table.column(column)):
                digest.update(piece)
    return digest.hexdigest()


def keep(prepared: Prepared, splits: dict[str, Rows]) -> None:
    """Write the folder."""
    from pyarrow import parquet

    with atomic.new_folder(prepared.folder, manifest=True) as draft:
        for split, rows in splits.items():
            table = rows.table.drop_columns(TEXT_ID)
            at_once = max(1, len(table) * mapped.LARGE // max(mapped.LARGE, table.nbytes))  # rows held until written
            parquet.write_table(table, draft / f"{split}.parquet", compression="zstd", row_group_size=at_once)
        atomic.write_json(draft / _DOCUMENT, _document(prepared))


def _document(prepared: Prepared) -> dict[str, Any]:
    document = dataclasses.asdict(prepared)
    for name in ("folder", "from_cache", "label_set"):
        del document[name]
    label_set = prepared.label_set
    return {"version": PREPARATION_VERSION, "labels": list(label_set.names), "kind": label_set.kind, **document}


def cached(folder: Path) -> Prepared | None:
    """What an earlier preparation left; None when there is nothing, or it is damaged."""
    if not folder.is_dir():
        return None
    damage = atomic.verify(folder)
    if damage is not None:
        logger.warning("%s is damaged (%s) and is made anew", folder, damage)
        return None
    document = json.loads((folder / _DOCUMENT).read_text(encoding="utf-8"))
    del document["version"]
    return Prepared(
        folder=folder,
        label_set=LabelSet(tuple(document.pop("labels")), document.pop("kind")),
        dropped=tuple(Dropped(**dropped) for dropped in document.pop("dropped")),
        findings=tuple(Finding(**finding) for finding in document.pop("findings")),
        steps=tuple(document.pop("steps")),
        lengths={split: Lengths(**lengths) for split, lengths in document.pop("lengths").items()},
        corrected=corrections.Applied(**corrected) if (corrected := document.pop("corrected")) else None,
        from_cache=True,
        **document,
    )


def _read_parquet(path: Path) -> pa.Table:
    try:
        return parquet_table(open_parquet(path))  # read_table loads 40 MB of code for folders and filters
    except ResourceError:
        raise
    except (OSError, pa.ArrowException) as err:
        raise DataError(
            f"{path} cannot be read; the cache was changed meanwhile", hint="run the command again: it is made anew"
        ) from err
