"""Which columns hold the texts and the labels."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from textclf.data import label_lists
from textclf.data.files import Records
from textclf.data.questions import find_questions
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
WHOLE = re.compile(r"[+-]?\d+(\.0*)?")
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
            ids = {as_id(value) for value in set(_hashable(records.values(label))) if value not in (None, "")}
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


def _hashable(values: Iterable[Any]) -> list[Any]:
    return [value if not isinstance(value, (list, dict)) else repr(value) for value in values]


def as_id(value: Any) -> int | None:
    """A whole number, however it is written; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        return int(value.partition(".")[0]) if WHOLE.fullmatch(value) and len(value) < 20 else None
    if isinstance(value, int):
        return value
    return int(value) if isinstance(value, float) and value.is_integer() else None
