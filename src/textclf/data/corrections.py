"""A person's review of `textclf audit`: rows with another label, and rows to leave out."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from textclf import paths
from textclf.characters import UNSEEN, field
from textclf.data.files import Records, data_file, unsupported
from textclf.data.label_lists import LISTS
from textclf.data.records import read_records
from textclf.data.rows import Rows
from textclf.data.spreadsheets import guarded
from textclf.errors import DataError
from textclf.labels import Label

CORRECTION = "correction"
"""Column of the reviewer's verdict: empty (the row stays as it is), a label, or DROP."""
DROP = "(drop)"
NEEDED = ("file", "row", "label", CORRECTION)
_DIGITS = 18
"""Of the longest number of a row: what fits into an int64."""


@dataclass(frozen=True)
class Verdict:
    """What a reviewer said of one row. correction: as it was written. where: of the verdict, for messages."""

    label: str
    correction: str
    where: str


@dataclass(frozen=True)
class Applied:
    """What became of a file of corrections. file: its name. unchanged: rows that had the new label already."""

    file: str
    sha256: str
    relabelled: int
    dropped: int
    unchanged: int


def shown(label: Label) -> str:
    """A label, or a list of them in JSON, as it stands in a cell: neither a terminal nor a spreadsheet acts on it."""
    if isinstance(label, str):
        return field(guarded(label))
    return UNSEEN.sub(lambda match: json.dumps(match[0])[1:-1], json.dumps(list(label), ensure_ascii=False))


def digest(path: str) -> str:
    """SHA-256 of a file. Raises DataError where it cannot be read."""
    try:
        return hashlib.sha256(paths.expanded(path).read_bytes()).hexdigest()
    except OSError as err:
        raise DataError(f"{path} cannot be read: {err.strerror}", hint="--corrections names a csv file") from err


def read_verdicts(path: str) -> dict[tuple[str, int], Verdict]:
    """The rows of a file with something in the column `correction`, by file and row of the data.

    Raises DataError for a file without the columns or without a verdict, and for two verdicts on one row.
    """
    file = data_file(paths.expanded(path))
    if file is None:
        raise unsupported(Path(path))
    records = read_records(file)
    missing = [name for name in NEEDED if name not in records.names]
    if missing:
        raise DataError(
            f"{file.name} has no column {missing[0]!r}; corrections have {', '.join(NEEDED)}",
            hint="textclf audit writes such a file",
        )
    columns = [_cells(records, name) for name in NEEDED]
    found: dict[tuple[str, int], Verdict] = {}
    for index, (name, row, label, correction) in enumerate(zip(*columns, strict=True)):
        if not correction.strip():
            continue
        where = f"{file.name}, row {records.number(index)}"
        number = row.strip().removesuffix(".0")  # what spreadsheets make of whole numbers
        if not (number.isascii() and number.isdecimal() and len(number) <= _DIGITS):
            raise DataError(
                f"{where}: row is {row!r}, not the number of a row", hint="leave the columns file, row and label alone"
            )
        key = (name, int(number))
        before = found.setdefault(key, Verdict(label, correction.strip(), where))
        if before.correction != correction.strip():
            raise DataError(f"{where}: another correction of {name}, row {number} than in {before.where}")
    if not found:
        raise DataError(
            f"{file.name} corrects nothing: its column {CORRECTION!r} is empty in every row",
            hint=f"write the right label there, or {DROP}, for the rows that are wrong",
        )
    return found


def is_reviewed(path: Path) -> bool:
    """Whether a file is there and has a verdict in it, right or wrong: the work of a person."""
    try:
        file = data_file(path) if path.is_file() else None
        records = read_records(file) if file is not None else None
    except DataError:
        return False
    return (
        records is not None
        and CORRECTION in records.names
        and any(cell.strip() for cell in _cells(records, CORRECTION))
    )


def correct(
    splits: Mapping[str, Rows], path: str, *, other_label: str | None = None
) -> tuple[dict[str, Rows], Applied]:
    """The splits with the corrections of a file.

    other_label: under what name rare labels are gathered later, as they were when the rows were audited.

    Raises DataError for a row that is not in the data or has another label there than it had when it was audited, and
    for a label that no row has.
    """
    verdicts = read_verdicts(path)
    left = set(verdicts)
    names = {name for rows in splits.values() for label in rows.labels for name in _names(label)}
    names |= {other_label} if other_label is not None else set()
    # As a person may type a label, and, which wins, as audit writes it.
    known = {cell: name for write in (str, guarded, shown) for name in names for cell in (write(name),)}
    if DROP in names:
        raise DataError(f"a label of the data is called {DROP!r}, which in corrections means: leave the row out")
    done: dict[str, Rows] = {}
    relabelled = dropped = unchanged = 0
    wanted = np.array(sorted({row for _, row in verdicts}), dtype=np.int64)
    for split, rows in splits.items():
        candidates = np.flatnonzero(np.isin(rows.table.column("row").to_numpy(), wanted))
        labels = rows.labels if len(candidates) else []
        kept = np.ones(len(rows), dtype=bool)
        changed = False
        for index in candidates.tolist():
            file, row = rows.table.column("file")[index].as_py(), rows.table.column("row")[index].as_py()
            cells = (file, guarded(file), shown(file))
            key = next(((cell, row) for cell in cells if (cell, row) in verdicts), None)
            if key is None:
                continue
            left.discard(key)
            verdict, now = verdicts[key], labels[index]
            new = None if verdict.correction == DROP else _new(verdict, known, rows)
            if new is not None and _same(new, now):
                unchanged += 1
                continue
            if not _was(verdict.label, now, other_label):
                raise DataError(
                    f"{verdict.where}: {rows.where(index)} was audited with label {verdict.label!r}, "
                    f"and has {_cells_of(now)[0]!r} now",
                    hint="the data has changed since; audit it again",
                )
            if new is None:
                kept[index] = False
                dropped += 1
            else:
                labels[index] = new
                changed = True
                relabelled += 1
        done[split] = (_with_labels(rows, labels) if changed else rows).keep(kept)
    if left:
        (file, row) = min(left)
        raise DataError(
            f"{verdicts[file, row].where}: {file}, row {row} is not in the data",
            hint="the corrections were made for other data",
        )
    return done, Applied(Path(path).name, digest(path), relabelled, dropped, unchanged)


def _cells(records: Records, name: str) -> list[str]:
    return ["" if value is None else str(value) for value in records.values(name)]


def _names(label: Label | None) -> tuple[str, ...]:
    return (label,) if isinstance(label, str) else tuple(label or ())


def _cells_of(label: Label | None) -> list[str]:
    """How a label may stand in a cell."""
    if label is None:
        return [""]
    plain = label if isinstance(label, str) else json.dumps(list(label), ensure_ascii=False)
    return [plain, guarded(plain), shown(label)]


def _was(cell: str, now: Label | None, other_label: str | None) -> bool:
    """Whether a cell of the review names the label that a row has now: several of them in any order, rare ones under
    the name that they are gathered under."""
    if cell in _cells_of(now):
        return True
    if now is None or isinstance(now, str):
        return now is not None and other_label is not None and cell in (other_label, guarded(other_label))
    try:
        names = {str(name) for name in json.loads(cell)}
    except (ValueError, TypeError):
        return False
    gathered = set(now) - names
    return names - {other_label} <= set(now) and bool(gathered) == (other_label in names - set(now))


def _same(one: Label, other: Label | None) -> bool:
    return one == other if isinstance(one, str) else other is not None and set(one) == set(other)


def _new(verdict: Verdict, known: Mapping[str, str], rows: Rows) -> Label:
    if rows.kind == "single":
        return _known(verdict.correction, known, verdict.where)
    try:
        names = json.loads(verdict.correction)
    except ValueError:
        names = [verdict.correction]
    if not isinstance(names, list):
        names = [verdict.correction]
    return tuple(_known(str(name), known, verdict.where) for name in names)


def _known(name: str, known: Mapping[str, str], where: str) -> str:
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, list(known), n=1)
    raise DataError(
        f"{where}: no row of the data has the label {name!r}",
        hint=f"did you mean {known[near[0]]!r}?" if near else f"write a label of the data, or {DROP}",
    )


def _with_labels(rows: Rows, labels: list[Label | None]) -> Rows:
    kind = LISTS if rows.kind == "multi" else pa.large_string()
    values = pa.array(
        [None if label is None else label if isinstance(label, str) else list(label) for label in labels], kind
    )
    return rows.with_columns(label=pa.chunked_array([values]))
