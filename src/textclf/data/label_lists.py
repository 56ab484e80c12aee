"""Cells that hold several labels: lists, delimited text, or one column of 0 and 1 for each label."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
from pyarrow import types

from textclf.data.files import Column, Records
from textclf.errors import DataError

LISTS = pa.large_list(pa.large_string())
"""The type of a `label` column with any number of names a row: null where nothing is known, empty where it has none."""

_ONE = (1, "1", "1.0", "true", "True", "TRUE")
_ZERO = (0, "0", "0.0", "false", "False", "FALSE")
_HIDDEN = (-1, "-1", "-1.0")

Names = Callable[[Sequence[Any]], Sequence[str | None]]
"""The label names of different values, None for what is no label."""


def holds_lists(column: Column) -> bool:
    """Whether a column has lists in it."""
    if isinstance(column, list):
        return any(isinstance(value, list) for value in column)
    kind = column.type
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def read_lists(records: Records, name: str, to_names: Names, *, declared: int | None = None) -> pa.Array:
    """A column of lists as names: LISTS. Raises DataError (file and row) for a cell that is no list of labels.

    declared: how many class names the source declares, where the lists hold their ids.
    """
    column = records.column(name)
    if not isinstance(column, list) and not (holds_lists(column) or types.is_null(column.type)):
        raise DataError(
            f"{records.file}: column {name!r} holds {str(column.type)[:60]}, and lists elsewhere",
            hint="write the labels of every split alike; --label-delimiter is for labels in one text",
        )
    cells = column if isinstance(column, list) else column.to_pylist()
    different: dict[Any, None] = {}
    for index, cell in enumerate(cells):
        if cell is None:
            continue
        if not isinstance(cell, list):
            raise _no_list(records, name, index, cell)
        for value in cell:
            if isinstance(value, (list, dict)) or value is None or (isinstance(value, str) and not value.strip()):
                kinds: dict[type, str] = {list: "a list", dict: "an object", str: "an empty name"}
                raise DataError(
                    f"{records.file}, row {records.number(index)}: a list in column {name!r} holds "
                    f"{kinds.get(type(value), 'null')}, not a label",
                    hint="each label is a name or a whole number; a text without labels has an empty list",
                )
            if declared is not None and not (type(value) is int and 0 <= value < declared):
                raise DataError(
                    f"{records.file}, row {records.number(index)}: column {name!r} holds {str(value)[:40]!r}, "
                    f"but declares {declared} class names, whose ids are 0 to {declared - 1}"
                )
            different[_key(value)] = None
    named = dict(zip(different, to_names([value for _, value in different]), strict=True))
    for index, cell in enumerate(cells):
        wrong = next((value for value in cell or () if named[_key(value)] is None), None)
        if wrong is not None:
            raise DataError(
                f"{records.file}, row {records.number(index)}: {wrong!r} in column {name!r} is no label",
                hint="a text without labels has an empty list",
            )
    return _array([None if cell is None else [named[_key(value)] for value in cell] for cell in cells])


def read_delimited(records: Records, name: str, delimiter: str) -> pa.Array:
    """A column of texts, each cut at the delimiter: LISTS. An empty cell is a row without labels.

    Raises DataError for a column of lists, or (file and row) a cell that is no text.
    """
    column = records.column(name)
    if holds_lists(column):
        raise DataError(f"{records.file}: column {name!r} holds lists already", hint="leave out --label-delimiter")
    cells = column if isinstance(column, list) else column.to_pylist()
    lists = []
    for index, cell in enumerate(cells):
        if isinstance(cell, dict):
            raise _no_list(records, name, index, cell)
        # One label alone may have been read as a number: `3` beside `3|5`.
        text = "" if cell is None or cell != cell else str(cell)
        lists.append([part.strip() for part in text.split(delimiter) if part.strip()])
    return _array(lists)


def read_indicators(records: Records, names: Sequence[str]) -> pa.Array:
    """One column of 0 and 1 (or false and true) for each label: LISTS.

    A row with -1 everywhere has labels that are kept back: null. Raises DataError (file and row) for another value.
    """
    lists: list[list[str] | None] | None = None
    hidden: list[int] = []
    for name in names:
        cells = records.values(name)
        if lists is None:
            lists, hidden = [[] for _ in cells], [0] * len(cells)
        for index, cell in enumerate(cells):
            value = cell.strip() if isinstance(cell, str) else cell
            if isinstance(value, (list, dict)) or value not in (*_ONE, *_ZERO, *_HIDDEN):
                said = "is empty" if value in (None, "") or value != value else f"holds {str(cell)[:40]!r}"
                raise DataError(
                    f"{records.file}, row {records.number(index)}: column {name!r} {said}; a column of "
                    "--label-columns holds 1 where a text has the label, else 0"
                )
            if value in _ONE:
                of_row = lists[index]
                assert of_row is not None
                of_row.append(name)
            hidden[index] += value in _HIDDEN
    assert lists is not None
    for index, count in enumerate(hidden):
        if count == len(names):
            lists[index] = None
        elif count:
            raise DataError(
                f"{records.file}, row {records.number(index)}: -1 in some of the --label-columns; it marks a row whose "
                "labels are kept back, and then stands in all of them"
            )
    return _array(lists)


def _array(lists: Sequence[Sequence[str | None] | None]) -> pa.Array:
    return pa.array([None if one is None else list(dict.fromkeys(one)) for one in lists], type=LISTS)


def _key(value: Any) -> tuple[type, Any]:
    return type(value), value  # 1, 1.0 and true are equal, and different labels


def _no_list(records: Records, name: str, index: int, cell: Any) -> DataError:
    kinds: dict[type, str] = {dict: "an object", str: "a text", bool: "true or false"}
    return DataError(
        f"{records.file}, row {records.number(index)}: column {name!r} holds {kinds.get(type(cell), 'a number')}, "
        "and lists elsewhere",
        hint="write every cell as a list; an empty one for a text without labels",
    )
