"""The labelled rows of a data set as its source has them: columns found, nothing cleaned and nothing cut."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from textclf.config import DataConfig
from textclf.data import cleaning, columns, forms, questions, values
from textclf.data.files import Records
from textclf.data.rows import SPLIT_NAMES, Rows
from textclf.data.sources import Source, open_source
from textclf.errors import DataError, UsageError

logger = logging.getLogger(__name__)


def read_labelled(
    dataset: str | Path,
    *,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    label_delimiter: str | None = None,
    label_columns: tuple[str, ...] | None = None,
    columns: tuple[str, ...] | None = None,
    form: str = "text",
    split: str = "test",
) -> Rows:
    """The labelled rows of one split of a data set, as the source has them, for measuring a model on other data.

    A lone file, which has no splits, gives all its rows. Rows without label are left out with a warning; an
    empty text is kept. form: what the model reads, as in `Prepared`. Raises DataError when the source has splits
    but not this one, no label at all, or single texts where the model reads pairs.
    """
    source = open_source(str(dataset))
    wanted = DataConfig(
        text_column=text_column,
        text_pair_column=text_pair_column,
        label_column=label_column,
        label_delimiter=label_delimiter,
        label_columns=label_columns,
        columns=columns,
    )
    question_form: forms.Form | None = "binary" if form == "binary" else "multiclass" if form == "multiclass" else None
    check_form(question_form, wanted)
    reading = read(source, wanted, question_form)
    if form in ("text", "pair") and (reading.choice.pair is not None) != (form == "pair"):
        raise DataError(
            f"{source.name} has single texts; this model reads pairs of texts"
            if form == "pair"
            else f"{source.name} has pairs of texts; this model reads single texts",
            hint="name the columns with --text-column" + (" and --text-pair-column" if form == "pair" else ""),
        )
    name = SPLIT_NAMES.get(split, split) if source.has_splits else "train"
    if name not in reading.splits:
        raise DataError(f"{source.name} has no {split} split; it has {', '.join(reading.splits)}")
    rows = reading.splits[name]
    labelled = cleaning.drop_unlabelled(rows)
    if not len(labelled):
        raise DataError(f"{source.name}: no row has a label in column {reading.choice.label_source!r}")
    if len(labelled) < len(rows):
        logger.warning("%s: %s rows without label are left out", source.name, f"{len(rows) - len(labelled):,}")
    filled = cleaning.fill_empty(labelled)
    return forms.formed(filled, question_form) if question_form is not None else filled


def read_column(
    dataset: str | Path, column: str, rows: Rows, *, columns_of_file: tuple[str, ...] | None = None
) -> list[Any]:
    """What another column of a data set says of rows that were read from it: (rows,), None where it says nothing.

    columns_of_file: names of all columns of a csv or tsv without a header line. Raises DataError where a file that
    the rows come from has no such column.
    """
    wanted = set(pc.unique(rows.table.column("file")).to_pylist())
    said: dict[tuple[str, int], Any] = {}
    for parts in open_source(str(dataset)).records(columns_of_file).values():
        for part in parts:
            if part.file in wanted:
                columns.require(part, column, "--slice-by")
                said |= {(part.file, part.number(place)): one for place, one in enumerate(part.values(column))}
    places = zip(rows.table.column("file").to_pylist(), rows.table.column("row").to_pylist(), strict=True)
    return [said.get(place) for place in places]


@dataclass(frozen=True)
class Reading:
    """The rows of each split, the columns that they are from, and what was done, in words."""

    splits: dict[str, Rows]
    choice: columns.Choice
    steps: tuple[str, ...]


def read(source: Source, wanted: DataConfig, form: forms.Form | None) -> Reading:
    """The rows of each split, with the columns found or told; questions as `read_questions` gives them."""
    records = source.records(wanted.columns)
    first = records.get("train") or next(iter(records.values()))
    if form is not None:
        return _read_questions(source, records, first[0], wanted)
    choice = columns.choose(
        first[0],
        text_column=wanted.text_column,
        text_pair_column=wanted.text_pair_column,
        label_column=wanted.label_column,
        label_delimiter=wanted.label_delimiter,
        label_columns=wanted.label_columns,
    )
    order = values.order_of_names((part for parts in records.values() for part in parts), choice)
    if choice.names_column is not None and order is None:
        choice = dataclasses.replace(choice, names_column=None)
    steps = [*source.notes]
    splits = {}
    for split, parts in records.items():
        steps += [note for part in parts for note in part.notes]
        splits[split], notes = values.read_rows(parts, choice, order)
        steps += notes
        steps.append(f"read {len(splits[split]):,} rows of {split} from {_files(parts)}")
    steps.append(_said(choice))
    return Reading(splits, choice, tuple(steps))


def _read_questions(
    source: Source, records: Mapping[str, list[Records]], first: Records, wanted: DataConfig
) -> Reading:
    found = questions.require_questions(first, text_column=wanted.text_column, label_column=wanted.label_column)
    steps = [*source.notes]
    splits = {}
    for split, parts in records.items():
        steps += [note for part in parts for note in part.notes]
        splits[split] = questions.read_questions(parts, found)
        steps.append(f"read {len(splits[split]):,} questions of {split} from {_files(parts)}")
    assert found.answer is not None
    listed = ", ".join(map(repr, found.choices))
    steps.append(f"questions are in column {found.question!r}, choices in {listed}, answers in {found.answer!r}")
    return Reading(splits, columns.Choice(found.question, found.answer), tuple(steps))


def _said(choice: columns.Choice) -> str:
    named = f", their order from {choice.label!r}" if choice.names_column is not None else ""
    several = ", any number of them a row" if choice.several else ""
    pairs = f" and {choice.pair!r}, in pairs" if choice.pair is not None else ""
    return f"texts are in column {choice.text!r}{pairs}, labels in {choice.label_source!r}{named}{several}"


def _files(parts: list[Any]) -> str:
    names = [part.file for part in parts]
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} to {names[-1]} ({len(names)} files)"


def check_form(form: forms.Form | None, wanted: DataConfig) -> None:
    """Raises UsageError for settings that mean nothing to questions, or to anything else."""
    if wanted.shuffle_choices and form != "multiclass":
        raise UsageError(
            "--shuffle-choices is for questions with choices that are read together",
            hint="give --form multiclass too, or leave it out",
        )
    if form is None:
        return
    together = "keeps the choices of a question together"
    rare = wanted.min_label_count if wanted.min_label_count != 1 else None  # 1 drops nothing
    for flag, given, why in (
        ("--text-pair-column", wanted.text_pair_column, "finds question and choices itself"),
        ("--label-delimiter", wanted.label_delimiter, "has one answer a question"),
        ("--label-columns", wanted.label_columns, "has one answer a question"),
        ("--other-label", wanted.other_label, "has letters or verdicts as labels"),
        ("--balance", wanted.balance if form == "binary" else None, together),
        ("--min-label-count", rare if form == "binary" else None, together),
    ):
        if given is not None:
            raise UsageError(f"{flag} does not go with form {form}, which {why}", hint=f"leave out {flag}")
