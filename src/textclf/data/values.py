"""The values of the chosen columns as rows: texts, and labels by their names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from textclf.data import label_lists
from textclf.data.columns import WHOLE, Choice, as_id, require
from textclf.data.files import Records
from textclf.data.rows import Rows, concatenate, make_rows
from textclf.errors import DataError

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_rows(
    records: Sequence[Records], choice: Choice, label_order: tuple[str, ...] | None
) -> tuple[Rows, list[str]]:
    """Texts and label names of the files of one split, with notes of what had to be changed.

    A split without the label column gives rows without labels.
    """
    notes: list[str] = []
    parts = []
    labelled = any(source in part.names for part in records for source in choice.label_sources)
    for part in records:
        require(part, choice.text, "--text-column")
        for source in choice.label_sources if labelled else ():
            require(part, source, "--label-columns" if choice.indicators else "--label-column")
        texts = _texts(part, choice.text, notes)
        pairs = None
        if choice.pair is not None:
            require(part, choice.pair, "--text-pair-column")
            pairs = _texts(part, choice.pair, notes)
        labels, declared = _labels(part, choice, len(texts))
        order = label_order or declared
        parts.append(make_rows(texts, labels, pairs=pairs, file=part.file, label_order=order, row_numbers=part.numbers))
    return concatenate(parts), notes


def order_of_names(records: Iterable[Records], choice: Choice) -> tuple[str, ...] | None:
    """The label names in the order of the ids that stand beside them; None unless each id has one name of its own."""
    if choice.names_column is None:
        return None
    names: dict[int, str] = {}
    for part in records:
        if choice.label not in part.names or choice.names_column not in part.names:
            continue
        ids, texts = part.values(choice.label), part.values(choice.names_column)
        for number, name in set(zip(map(as_id, ids), texts, strict=True)):
            if number is None or number < 0:
                continue
            if not isinstance(name, str) or names.setdefault(number, name) != name:
                return None
    return tuple(names[number] for number in sorted(names)) if len(set(names.values())) == len(names) else None


def _texts(records: Records, name: str, notes: list[str]) -> pa.ChunkedArray | pa.Array:
    column = records.column(name)
    if isinstance(column, list):
        return _json_texts(records, name, column, notes)
    if _is_list(column.type) or types.is_nested(column.type):
        raise DataError(
            f"{records.file}: column {name!r} holds lists or groups ({_kind(column.type)}), not texts",
            hint="choose the column of the texts with --text-column, or join the parts of each text into one",
        )
    if types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return _cast_text(records, name, column)


def _json_texts(records: Records, name: str, values: list[Any], notes: list[str]) -> pa.Array:
    try:
        return pa.array(values, type=pa.large_string())
    except (pa.ArrowException, UnicodeEncodeError):
        pass
    texts = [_json_text(records, name, index, value) for index, value in enumerate(values)]
    halves = sum(1 for text in texts if text is not None and _SURROGATE.search(text))
    if halves:
        notes.append(
            f"{records.file}: {halves:,} texts with half a surrogate pair, which UTF-8 cannot hold: now U+FFFD"
        )
        texts = [text and _SURROGATE.sub("\ufffd", text) for text in texts]
    return pa.array(texts, type=pa.large_string())


def _json_text(records: Records, name: str, index: int, value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return str(value)
    raise DataError(
        f"{records.file}, row {records.number(index)}: column {name!r} holds {_json_kind(value)}, not a text",
        hint="choose the column of the texts with --text-column, or join the parts of each text into one",
    )


def _cast_text(records: Records, name: str, column: pa.ChunkedArray) -> pa.ChunkedArray:
    try:
        return column.cast(pa.large_string())
    except pa.ArrowException as err:
        raise DataError(f"{records.file}: column {name!r} holds {_kind(column.type)}, not texts") from err


def _labels(records: Records, choice: Choice, count: int) -> tuple[pa.Array, tuple[str, ...] | None]:
    """Label names, null where there is none, and the order that the source declares."""
    source = choice.label_sources[0]
    if source not in records.names:
        return pa.nulls(count, label_lists.LISTS if choice.several else pa.large_string()), None
    if choice.several:
        return _several_labels(records, choice)
    column = records.column(source)
    declared = records.class_names.get(source)
    if isinstance(column, list):
        unique = dict.fromkeys(_scalars(records, source, column))
        names = _label_names(records, source, [value for _, value in unique], declared)
        by_value = dict(zip(unique, names, strict=True))
        labels = pa.array([by_value[(type(value), value)] for value in column], type=pa.large_string())
    else:
        labels = _arrow_labels(records, source, column, declared)
    if choice.names_column is not None and choice.label in records.names:
        labels = _without_hidden(labels, records.values(choice.label))
    return labels, declared


def _several_labels(records: Records, choice: Choice) -> tuple[pa.Array, tuple[str, ...] | None]:
    name = choice.label
    declared = records.class_names.get(name)
    if choice.indicators:
        return label_lists.read_indicators(records, choice.indicators), choice.indicators
    if choice.delimiter is not None:
        return label_lists.read_delimited(records, name, choice.delimiter), None
    labels = label_lists.read_lists(
        records,
        name,
        lambda values: _label_names(records, name, values, declared),
        declared=len(declared) if declared is not None else None,
    )
    return labels, declared


def _arrow_labels(records: Records, name: str, column: pa.ChunkedArray, declared: tuple[str, ...] | None) -> pa.Array:
    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if _is_list(kind):
        raise _multi_label(records, name)
    simple = (types.is_integer, types.is_floating, types.is_boolean, types.is_null, _is_text)
    if not any(check(kind) for check in simple):
        raise DataError(
            f"{records.file}: column {name!r} holds {_kind(kind)}, which cannot be labels",
            hint="choose the column of the labels with --label-column",
        )
    column = column.cast(kind)
    if _is_text(kind) or types.is_null(kind):
        column = _cast_text(records, name, column)
    encoded = column.combine_chunks().dictionary_encode()
    values = encoded.dictionary
    names = _label_names(records, name, values.to_pylist(), declared if types.is_integer(kind) else None)
    return pa.array(names, type=pa.large_string()).take(encoded.indices)


def _label_names(
    records: Records, column: str, values: Sequence[Any], declared: tuple[str, ...] | None
) -> list[str | None]:
    """The names of a column's different values; None for what is no label: null, blank, NaN, -1 of a ClassLabel."""
    if declared is not None:
        return [_declared_name(records, column, value, declared) for value in values]
    numbers = [value for value in values if isinstance(value, float) and value == value]
    if any(not value.is_integer() for value in numbers) or _are_measures(values):
        raise DataError(
            f"{records.file}: column {column!r} holds numbers with fractions, not labels",
            hint="choose another column with --label-column, or write classes as names, such as 'low' and 'high'",
        )
    written_as_floats = all(isinstance(value, str) and WHOLE.fullmatch(value) for value in values if value)
    return [_name(value, whole=written_as_floats) for value in values]


def _name(value: Any, *, whole: bool) -> str | None:
    if value is None or value != value:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        if not value.strip():
            return None
        # `1.0`: how spreadsheets and pandas write the integers of a column that has gaps.
        return value.partition(".")[0] if whole and "." in value else _SURROGATE.sub("\ufffd", value)
    return str(int(value))


def _declared_name(records: Records, column: str, value: Any, declared: tuple[str, ...]) -> str | None:
    if value is None or value == -1:
        return None
    if not 0 <= value < len(declared):
        known = f"{len(declared)} class names"
        raise DataError(f"{records.file}: column {column!r} holds the id {value}, but declares {known}")
    return declared[int(value)]


def _are_measures(values: Sequence[Any]) -> bool:
    """Whether a column of text holds numbers only, and some of them have fractions."""
    texts = [value for value in values if isinstance(value, str) and value.strip()]
    if not texts or not all(_NUMBER.fullmatch(text) for text in texts):
        return False
    return any(not float(text).is_integer() for text in texts if len(text) < 300)


def _scalars(records: Records, name: str, column: list[Any]) -> list[tuple[type, Any]]:
    for index, value in enumerate(column):
        if isinstance(value, list):
            raise _multi_label(records, name, records.number(index))
        if isinstance(value, dict):
            raise DataError(
                f"{records.file}, row {records.number(index)}: column {name!r} holds an object, not a label",
                hint="choose the column of the labels with --label-column",
            )
    return [(type(value), value) for value in column]


def _multi_label(records: Records, name: str, row: int | None = None) -> DataError:
    where = f"{records.file}, row {row}" if row is not None else records.file
    return DataError(
        f"{where}: column {name!r} holds lists, and one label a row elsewhere",
        hint="write every cell of every split as a list, or choose another column with --label-column",
    )


def _without_hidden(labels: pa.Array, ids: Sequence[Any]) -> pa.Array:
    """Labels, null where the id beside them is -1: the mark of labels that are kept back."""
    hidden = pa.array([as_id(value) == -1 for value in ids], type=pa.bool_())
    return pc.if_else(hidden, pa.scalar(None, pa.large_string()), labels)


def _is_text(kind: pa.DataType) -> bool:
    return bool(
        types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
        or types.is_binary(kind) or types.is_large_binary(kind)
    )  # fmt: skip


def _is_list(kind: pa.DataType) -> bool:
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _kind(kind: pa.DataType) -> str:
    return str(kind)[:60]


def _json_kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else "an object"
