"""Which columns hold the texts and the labels, and their values as text and label names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from textclf.data import label_lists
from textclf.data.files import Column, Records
from textclf.data.questions import find_questions
from textclf.data.rows import Rows, concatenate, make_rows
from textclf.errors import DataError

TEXT_NAMES = (
    "text", "sentence", "tweet", "question", "query", "utterance", "content", "review", "review_text", "body",
    "message", "document", "abstract", "comment", "post", "headline", "description", "title", "input", "texts",
)  # fmt: skip
"""Column names of texts, in lower case, the surest first."""
LABEL_NAMES = (
    "label", "labels", "class", "intent", "intents", "category", "categories", "target", "topic", "sentiment",
    "emotion", "answer", "label_text", "label_name", "class_name", "output",
)  # fmt: skip

_PAIRS = (
    ("premise", "hypothesis"), ("sentence1", "sentence2"), ("question1", "question2"), ("text", "text_pair"),
    ("text1", "text2"),
)  # fmt: skip
"""Column names of two texts that are surely meant as a pair."""
_COMPANIONS = {"sentence": ("question",), "question": ("sentence", "context", "passage")}
"""A text beside one of these is likely half of a pair; which comes first is for the user to say."""
_NAMES_OF_IDS = ("{}_text", "{}_name", "{}_str")
"""Where sets in the manner of MTEB and SetFit keep the names of an integer column `{}`."""
_INDEX = re.compile(r"(unnamed: \d+|__index_level_\d+__|index|idx|)", re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d+(\.0*)?")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_SURROGATE = re.compile("[\ud800-\udfff]")
_SHOWN = 40


@dataclass(frozen=True)
class Choice:
    """The columns of a data set.

    names_column: the names of an integer `label` column, where they stand beside it.
    pair: the second texts, None for single texts.
    several: rows have any number of labels, in lists; in one text with a `delimiter` between them; or in
        `indicators`, one column of 0 and 1 for each label, and then `label` is the first of those.
    """

    text: str
    label: str
    names_column: str | None = None
    pair: str | None = None
    several: bool = False
    delimiter: str | None = None
    indicators: tuple[str, ...] = ()

    @property
    def label_sources(self) -> tuple[str, ...]:
        """The columns that labels are taken from."""
        return self.indicators or (self.names_column or self.label,)

    @property
    def label_source(self) -> str:
        """Their names, for people."""
        return ", ".join(self.label_sources)


def choose(
    records: Records,
    *,
    text_column: str | None,
    label_column: str | None,
    label_delimiter: str | None = None,
    label_columns: tuple[str, ...] | None = None,
    text_pair_column: str | None = None,
) -> Choice:
    """Find the columns by name, unless told. Raises DataError, listing the columns, when unsure."""
    names = records.names
    if not names:
        raise DataError(f"{records.file} holds no rows")
    if label_columns is not None:
        return _indicators(records, text_column, text_pair_column, label_columns)
    told = {"--text-column": text_column, "--text-pair-column": text_pair_column, "--label-column": label_column}
    for flag, given in told.items():
        if given is not None:
            require(records, given, flag)
    twice = [given for given in told.values() if given is not None and list(told.values()).count(given) > 1]
    if twice:
        raise DataError(f"{records.file}: column {twice[0]!r} cannot be both the text and the label, nor both texts")
    pair = text_pair_column
    if text_column is None and pair is None:
        text_column, pair = find_pair(names, label_column)
    text = text_column or _find([name for name in names if name != pair], TEXT_NAMES, other=label_column)
    label = label_column or _find([name for name in names if name != pair], LABEL_NAMES, other=text)
    label = label or _declared_class(records, text)
    useful = [name for name in names if not _INDEX.fullmatch(name.strip()) and name != pair]
    if len(useful) == 2:
        text = text or next((name for name in useful if name != label and label), None)
        label = label or next((name for name in useful if name != text and text), None)
    if text_column is None and text is not None and pair is None:
        _refuse_half(records, text)
    if text is None or label is None:
        raise _unsure(records, text, label)
    require(records, text, "--text-column")
    require(records, label, "--label-column")
    if label_delimiter is not None or label_lists.holds_lists(records.column(label)):
        return Choice(text, label, pair=pair, several=True, delimiter=label_delimiter)
    names_column = None if label_column is not None or label in records.class_names else _names_column(records, label)
    return Choice(text, label, names_column, pair)


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
        ids, texts = _plain(part.column(choice.label)), _plain(part.column(choice.names_column))
        for number, name in set(zip(map(_as_id, ids), texts, strict=True)):
            if number is None or number < 0:
                continue
            if not isinstance(name, str) or names.setdefault(number, name) != name:
                return None
    return tuple(names[number] for number in sorted(names)) if len(set(names.values())) == len(names) else None


def _indicators(records: Records, text_column: str | None, pair: str | None, names: tuple[str, ...]) -> Choice:
    for name in names:
        require(records, name, "--label-columns")
    others = [name for name in records.names if name not in names and not _INDEX.fullmatch(name.strip())]
    if text_column is None and pair is None:
        text_column, pair = find_pair(others)
    if pair is not None:
        require(records, pair, "--text-pair-column")
    others = [name for name in others if name != pair]
    text = text_column or _find(others, TEXT_NAMES, other=None) or (others[0] if len(others) == 1 else None)
    if text is None:
        raise _unsure(records, text, names[0])
    require(records, text, "--text-column")
    if text in names or pair in names:
        used = text if text in names else pair
        raise DataError(f"{records.file}: column {used!r} cannot be both the text and a label")
    return Choice(text, names[0], pair=pair, several=True, indicators=names)


# --- which columns ----------------------------------------------------------------------------------------------


def _find(names: Sequence[str], known: Sequence[str], *, other: str | None) -> str | None:
    by_lower: dict[str, str] = {}
    for name in names:
        if name != other:
            by_lower.setdefault(name.strip().lower(), name)
    return next((by_lower[name] for name in known if name in by_lower), None)


def find_pair(names: Sequence[str], label: str | None = None) -> tuple[str | None, str | None]:
    """The columns of both texts, where their names leave no doubt."""
    for first, second in _PAIRS:
        found = (_find(names, (first,), other=label), _find(names, (second,), other=label))
        if None not in found:
            return found
    return None, None


def _declared_class(records: Records, text: str | None) -> str | None:
    """The one column that the source declares to be of classes."""
    declared = [name for name in records.class_names if name in records.names and name != text]
    return declared[0] if len(declared) == 1 else None


def _names_column(records: Records, label: str) -> str | None:
    for pattern in _NAMES_OF_IDS:
        name = pattern.format(label)
        if name in records.names and name != label:
            ids = {_as_id(value) for value in set(_hashable(_plain(records.column(label)))) if value not in (None, "")}
            return name if ids and None not in ids else None
    return None


def _refuse_half(records: Records, text: str) -> None:
    if find_questions(records) is not None:
        raise DataError(
            f"{records.file}: questions with choices; say how a model should read them",
            hint="--form multiclass (question and choices together, the answer a letter) or --form binary (each choice "
            f"by itself, correct or not); to classify by {text!r} alone: --text-column {text}",
        )
    lower = {name.strip().lower(): name for name in records.names}
    beside = [name for name in _COMPANIONS.get(text.strip().lower(), ()) if name in lower]
    if beside:
        raise DataError(
            f"{records.file}: column {text!r} stands beside {lower[beside[0]]!r}; are they pairs of texts?",
            hint=f"if so: --text-column {text} --text-pair-column {lower[beside[0]]}; "
            f"to classify by {text!r} alone: --text-column {text}",
        )


def require(records: Records, column: str, flag: str) -> None:
    """Raise DataError, with the nearest name, unless there is one column of this name."""
    count = records.names.count(column)
    if count == 1:
        return
    if count > 1:
        raise DataError(
            f"{records.file}: {count} columns are named {column!r}",
            hint=f"rename one of them in the file, or choose another with {flag}",
        )
    by_lower = {name.lower(): name for name in records.names}
    close = difflib.get_close_matches(column.lower(), list(by_lower), n=1)
    nearest = f"; did you mean {by_lower[close[0]]!r}?" if close and len(by_lower[close[0]]) <= _SHOWN else ""
    raise DataError(
        f"{records.file}: no column {column!r} ({flag}){nearest}", hint=f"its columns are: {_listed(records.names)}"
    )


def _unsure(records: Records, text: str | None, label: str | None) -> DataError:
    names = records.names
    if len(names) == 1:
        return DataError(
            f"{records.file}: one column only, {_listed(names)}; a column of texts and one of labels are needed",
            hint="if the file has no header line, name its columns: --columns text,label",
        )
    missing = {(True, True): "the texts and the labels", (True, False): "the texts", (False, True): "the labels"}
    flags = " ".join(
        flag for flag, found in (("--text-column NAME", text), ("--label-column NAME", label)) if found is None
    )
    hint = f"say it with {flags}"
    if "." in records.file:  # a file, not a split of the Hub
        hint += "; if the file has no header line, name its columns in order: --columns text,label"
    return DataError(
        f"{records.file}: cannot tell which column holds {missing[(text is None, label is None)]}"
        f" among {_listed(names)}",
        hint=hint,
    )


def _listed(names: Sequence[str]) -> str:
    """Column names for a message. What is too long for a name is a text in a file without header, and is not shown."""
    shown = [repr(name) if len(name) <= _SHOWN else f"({len(name):,} characters)" for name in names[:12]]
    return ", ".join(shown) + (f" and {len(names) - 12} more" if len(names) > 12 else "")


# --- texts ------------------------------------------------------------------------------------------------------


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


# --- labels -----------------------------------------------------------------------------------------------------


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
        labels = _without_hidden(labels, records.column(choice.label))
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
    written_as_floats = all(isinstance(value, str) and _WHOLE.fullmatch(value) for value in values if value)
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


def _without_hidden(labels: pa.Array, ids: Column) -> pa.Array:
    """Labels, null where the id beside them is -1: the mark of labels that are kept back."""
    hidden = pa.array([_as_id(value) == -1 for value in _plain(ids)], type=pa.bool_())
    return pc.if_else(hidden, pa.scalar(None, pa.large_string()), labels)


# --- values -----------------------------------------------------------------------------------------------------


def _plain(column: Column) -> list[Any]:
    return column if isinstance(column, list) else column.to_pylist()


def _hashable(values: Iterable[Any]) -> list[Any]:
    return [value if not isinstance(value, (list, dict)) else repr(value) for value in values]


def _as_id(value: Any) -> int | None:
    """A whole number, however it is written; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return int(value.partition(".")[0]) if _WHOLE.fullmatch(value) and len(value) < 20 else None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None


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
