"""Questions with choices in files: found among the columns and read, whatever way answers and choices are written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from textclf.data.choices import LETTERS, checked_choices, shown
from textclf.data.files import Records
from textclf.data.rows import PAIR, QUESTION, Rows, concatenate, make_rows
from textclf.errors import DataError

CHOICES = "choices"
"""Column of rows that are whole questions: their choices, a list of strings."""
SUBJECT = "subject"
"""Column of a question's subject, where the source has one."""

LIST = pa.list_(pa.large_string())
"""The type of CHOICES."""

_QUESTIONS = ("question", "question_stem", "stem", "query", "prompt", "goal", "ctx", "text", "sentence")
_LISTS = ("choices", "options", "endings", "candidates")
_ANSWERS = (
    "answer", "answerkey", "answer_key", "label", "correct_answer", "correct", "correct_option", "cop", "target",
    "gold", "answer_index", "answer_idx",
)  # fmt: skip
_SUBJECTS = ("subject", "category", "topic", "subject_name")
_ONE_CHOICE = re.compile(r"((?:choice|option|op|ending|sol)?_?)([a-h]|\d)")
_INDEX = re.compile(r"(\d{1,3})(?:\.0*)?")  # `1.0`: as pandas writes the integers of a column that has gaps
_LETTER = re.compile(r"\(?([A-Za-z])[).]?")


@dataclass(frozen=True)
class QuestionColumns:
    """Where questions lie. choices: one column of lists, or a column for each choice. answer, subject: None where
    there is none."""

    question: str
    choices: tuple[str, ...]
    answer: str | None
    subject: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """All of them that every file has to have."""
        return (self.question, *self.choices)


def find_questions(
    records: Records, *, text_column: str | None = None, label_column: str | None = None
) -> QuestionColumns | None:
    """The columns of questions, choices and answers by their names; None where there is no question or no choices."""
    by_lower = {name.strip().lower().replace(" ", "_").replace("-", "_"): name for name in reversed(records.names)}

    def known(names: Sequence[str], given: str | None = None) -> str | None:
        return given if given is not None else next((by_lower[name] for name in names if name in by_lower), None)

    whole = known(_LISTS)
    choices = (whole,) if whole is not None else _choice_columns(by_lower)
    answer = known([name for name in _ANSWERS if by_lower.get(name) not in choices], label_column)
    question = known([name for name in _QUESTIONS if by_lower.get(name) != answer], text_column)
    if question is None or not choices:
        return None
    subject = known([name for name in _SUBJECTS if by_lower.get(name) not in (answer, question)])
    return QuestionColumns(question, choices, answer, subject)


def require_questions(records: Records, *, text_column: str | None, label_column: str | None) -> QuestionColumns:
    """`find_questions` where there has to be all of it. Raises DataError, listing the columns."""
    for flag, given in (("--text-column", text_column), ("--label-column", label_column)):
        if given is not None and given not in records.names:
            raise DataError(f"{records.file}: no column {given!r} ({flag})", hint=_listed(records))
    found = find_questions(records, text_column=text_column, label_column=label_column)
    if found is None:
        raise DataError(
            f"{records.file}: no question with choices, which --form asks for",
            hint="name the columns question, choices (lists, or choice1, choice2, ... or A, B, ...) and answer; "
            + _listed(records),
        )
    if found.answer is None:
        raise DataError(
            f"{records.file}: no column of answers beside {found.question!r}",
            hint="name it answer (index from 0, letter, or the choice's text), or give --label-column; "
            + _listed(records),
        )
    return found


def read_questions(parts: Sequence[Records], columns: QuestionColumns) -> Rows:
    """The questions of the files of one split: `text` the question, `text_pair` its choices as they are shown to a
    multiclass model, `label` the letter of its answer (null where there is none), and the columns QUESTION, CHOICES
    and SUBJECT.

    Raises DataError, naming file and row, for choices that are missing, fewer than two or not as many as their
    labels, and for an answer that is none of them.
    """
    read = [_read_part(part, columns) for part in parts]
    rows = concatenate(read)
    most = max((len(choices) for choices in rows.table.column(CHOICES).to_pylist()), default=0)
    return replace(rows, label_order=tuple(LETTERS[:most]))


def _choice_columns(by_lower: Mapping[str, str]) -> tuple[str, ...]:
    """The longest run of columns that are called as choices are: A, B, ...; choice1, choice2, ...; option_a, ..."""
    runs: dict[tuple[str, bool], dict[str, str]] = {}
    for lower, name in by_lower.items():
        match = _ONE_CHOICE.fullmatch(lower)
        if match and (match[1] or match[2].isalpha()):
            runs.setdefault((match[1], match[2].isalpha()), {})[match[2]] = name
    found: tuple[str, ...] = ()
    for run in runs.values():
        for order in ("abcdefgh", "0123456789", "123456789"):
            names = []
            for mark in order:
                if mark not in run:
                    break
                names.append(run[mark])
            if len(names) == len(run) and len(names) > max(1, len(found)):
                found = tuple(names)
    return found


def _read_part(records: Records, columns: QuestionColumns) -> Rows:
    for name in columns.names:
        if records.names.count(name) != 1:
            raise DataError(f"{records.file}: no column {name!r}, or several", hint=_listed(records))
    questions = [None if value is None else str(value) for value in records.values(columns.question)]
    cells = [records.values(name) for name in columns.choices]
    choices: list[tuple[str, ...]] = []
    marks: list[tuple[str, ...] | None] = []
    for index, values in enumerate(zip(*cells, strict=True)):
        where = f"{records.file}, row {records.number(index)}"
        value, own = _unpacked(where, values[0]) if len(columns.choices) == 1 else (list(values), None)
        choices.append(checked_choices(value, where, padded=len(columns.choices) > 1))
        marks.append(own)
    labels: list[str | None] = [None] * len(questions)
    if columns.answer is not None and columns.answer in records.names:
        labels = _answers(records, columns.answer, choices, marks)
    rows = make_rows(questions, labels, file=records.file, row_numbers=records.numbers)
    table = rows.table.append_column(PAIR, pa.array(map(shown, choices), pa.large_string()))
    table = table.append_column(QUESTION, pa.array(np.arange(len(questions)), pa.int64()))
    table = table.append_column(CHOICES, pa.array(map(list, choices), LIST))
    subjects = [""] * len(questions)
    if columns.subject is not None and columns.subject in records.names:
        subjects = ["" if value is None else str(value) for value in records.values(columns.subject)]
    return replace(rows, table=table.append_column(SUBJECT, pa.array(subjects, pa.large_string())))


def _unpacked(where: str, value: Any) -> tuple[Any, tuple[str, ...] | None]:
    """The list in a cell, also as JSON, and what its choices are called in `{"text": [...], "label": [...]}`."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise DataError(
                f"{where}: choices begin with [ but are no JSON list",
                hint='write them as ["one", "two"], or in columns of their own: choice1, choice2, ...',
            ) from None
    if isinstance(value, dict) and isinstance(value.get("text"), list):
        labels = value.get("label")
        if labels is not None and len(labels) != len(value["text"]):
            raise DataError(
                f"{where}: {len(value['text'])} choices but {len(labels)} labels of choices",
                hint="each choice has one label",
            )
        return value["text"], None if labels is None else tuple(map(str, labels))
    return value, None


def _answers(
    records: Records, name: str, choices: Sequence[tuple[str, ...]], marks: Sequence[tuple[str, ...] | None]
) -> list[str | None]:
    """The letter of each answer, None where there is none."""
    declared = records.class_names.get(name)
    values = [_plain_answer(value) for value in records.values(name)]
    if declared is not None and not all(_LETTER.fullmatch(one) for one in declared):
        values = [declared[one] if isinstance(one, int) and 0 <= one < len(declared) else one for one in values]
    read = _reader(values, choices, marks)
    labels: list[str | None] = []
    for index, (value, own) in enumerate(zip(values, choices, strict=True)):
        place = None if value is None else read(value, own, marks[index])
        if value is not None and (place is None or not 0 <= place < len(own)):
            said = f"index {value}" if isinstance(value, int) else "a text" if len(str(value)) > 3 else repr(value)
            times = own.count(str(value))
            fault = f"is the text of {times} of" if times > 1 else "is none of"
            raise DataError(
                f"{records.file}, row {records.number(index)}: the answer ({said}) {fault} its {len(own)} choices",
                hint=f"an answer is an index from 0 to {len(own) - 1}, a letter from A to {LETTERS[len(own) - 1]}, "
                "or the choice's text, the same way in the whole file",
            )
        labels.append(None if place is None else LETTERS[place])
    return labels


_Reader: TypeAlias = Callable[[Any, tuple[str, ...], "tuple[str, ...] | None"], "int | None"]


def _reader(
    values: Sequence[Any], choices: Sequence[tuple[str, ...]], marks: Sequence[tuple[str, ...] | None]
) -> _Reader:
    """How the answers of a file are to be read: one way for all, the first that fits every row, else most."""

    def by_mark(value: Any, own: tuple[str, ...], marked: tuple[str, ...] | None) -> int | None:
        return marked.index(str(value)) if marked is not None and str(value) in marked else None

    def by_index(value: Any, own: tuple[str, ...], marked: tuple[str, ...] | None) -> int | None:
        match = _INDEX.fullmatch(str(value).strip())
        return int(match[1]) if match else None

    def by_letter(value: Any, own: tuple[str, ...], marked: tuple[str, ...] | None) -> int | None:
        match = _LETTER.fullmatch(str(value).strip())
        return LETTERS.index(match[1].upper()) if match else None

    def by_text(value: Any, own: tuple[str, ...], marked: tuple[str, ...] | None) -> int | None:
        text = str(value)
        if text not in own:
            text, own = text.strip(), tuple(choice.strip() for choice in own)
        return own.index(text) if own.count(text) == 1 else None  # of two alike, which one is right is not said

    numbers = any(isinstance(value, int) for value in values)
    ways: list[_Reader] = [by_index] if numbers else [by_mark, by_letter, by_text, by_index]
    present = [row for row in zip(values, choices, marks, strict=True) if row[0] is not None]

    def fits(way: _Reader) -> int:
        places = [(way(*row), len(row[1])) for row in present]
        return sum(place is not None and 0 <= place < count for place, count in places)

    return max(ways, key=fits)


def _plain_answer(value: Any) -> int | str | None:
    """An index as int, anything else as text; None for null, blank, NaN and -1, the mark of what is kept back."""
    if value is None or value != value or value == -1:
        return None
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int):
        return value
    text = str(value)
    return None if not text.strip() or text.strip() == "-1" else text


def _listed(records: Records) -> str:
    names = [repr(name) if len(name) <= 40 else f"({len(name):,} characters)" for name in records.names[:12]]
    return f"its columns are: {', '.join(names)}"
