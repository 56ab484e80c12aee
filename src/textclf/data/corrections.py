"""A person's review of `textclf audit`: rows with another label, and rows to leave out."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from textclf.data.files import data_file, unsupported
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
    """A label, or a list of them in JSON, as it stands in a cell."""
    return guarded(label if isinstance(label, str) else json.dumps(list(label), ensure_ascii=False))


def digest(path: str) -> str:
    """SHA-256 of a file. Raises DataError where it cannot be read."""
    try:
        return hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()
    except OSError as err:
        raise DataError(f"{path} cannot be read: {err.strerror}", hint="--corrections names a csv file") from err


def read_verdicts(path: str) -> dict[tuple[str, int], Verdict]:
    """The rows of a file with something in the column `correction`, by file and row of the data.

    Raises DataError for a file without the columns or without a verdict, and for two verdicts on one row.
    """
    file = data_file(Path(path).expanduser())
    if file is None:
        raise unsupported(Path(path))
    records = read_records(file)
    missing = [name for name in NEEDED if name not in records.names]
    if missing:
        raise DataError(
            f"{file.name} has no column {missing[0]!r}; corrections have {', '.join(NEEDED)}",
            hint="textclf audit writes such a file",
        )
    columns = [_cells(records.column(name)) for name in NEEDED]
    found: dict[tuple[str, int], Verdict] = {}
    for index, (name, row, label, correction) in enumerate(zip(*columns, strict=True)):
        if not correction.strip():
            continue
        where = f"{file.name}, row {records.number(index)}"
        number = row.strip().removesuffix(".0")  # what spreadsheets make of whole numbers
        if not (number.isascii() and number.isdecimal()):
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


def correct(splits: Mapping[str, Rows], path: str) -> tuple[dict[str, Rows], Applied]:
    """The splits with the corrections of a file.

    Raises DataError for a row that is not in the data or has another label there than it had when it was audited, and
    for a label that no row has.
    """
    verdicts = read_verdicts(path)
    left = set(verdicts)
    names = {name for rows in splits.values() for label in rows.labels for name in _names(label)}
    known = {cell: name for name in names for cell in (guarded(name), name)}
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
            key = next((key for key in ((file, row), (guarded(file), row)) if key in verdicts), None)
            if key is None:
                continue
            left.discard(key)
            verdict, now = verdicts[key], labels[index]
            new = None if verdict.correction == DROP else _new(verdict, known, rows)
            if new is not None and _same(new, now):
                unchanged += 1
                continue
            if verdict.label not in _cells_of(now):
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


def _cells(column: object) -> list[str]:
    values = column.to_pylist() if isinstance(column, (pa.Array, pa.ChunkedArray)) else list(column)  # type: ignore[call-overload]
    return ["" if value is None else str(value) for value in values]


def _names(label: Label | None) -> tuple[str, ...]:
    return (label,) if isinstance(label, str) else tuple(label or ())


def _cells_of(label: Label | None) -> list[str]:
    """How a label may stand in a cell."""
    if label is None:
        return [""]
    plain = label if isinstance(label, str) else json.dumps(list(label), ensure_ascii=False)
    return [plain, guarded(plain)]


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
    table = rows.table
    return replace(
        rows, table=table.set_column(table.schema.get_field_index("label"), "label", pa.chunked_array([values]))
    )
