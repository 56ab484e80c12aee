"""prepare(): a data set read, cleaned, split, examined and kept, so that every training starts from the same rows."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from textclf import atomic, config, paths
from textclf.config import DataConfig
from textclf.data import anomalies, cleaning, columns, copies, corrections, forms, quality, questions, shift
from textclf.data.choices import VERDICTS
from textclf.data.files import Records
from textclf.data.quality import Finding, Lengths
from textclf.data.rows import PAIR, SPLIT_NAMES, SPLITS, TEXT_ID, Rows, codes, number_texts, spelled
from textclf.data.sources import Source, open_source
from textclf.errors import DataError, UsageError
from textclf.labels import LabelSet, in_natural_order

PREPARATION_VERSION = 3
"""Raised whenever the same data and settings would be prepared into something else."""

_DOCUMENT = "dataset.json"
_FORGOTTEN = ("dataset", "min_label_count", "corrections")
"""Settings that do not enter the key as they are: the content of the files and the resolved count do."""
_QUICK = 2_000_000
"""Characters up to which near copies are looked for unasked: half a second."""

logger = logging.getLogger(__name__)


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


def prepare(dataset: str | Path | DataConfig, **settings: Any) -> Prepared:
    """Read, clean, split and keep a data set; a second call with the same data and settings finds it ready.

    dataset: catalog name, file, folder, Hub id `owner/name[:config]`, or a DataConfig.
    settings: fields of DataConfig, such as `text_column="body"` or `validation_size=500`.
    Raises DataError (what is wrong, file and row, how to mend it), HubError, ConfigError.
    """
    wanted = _config(dataset, settings)
    if wanted.dataset is None:
        raise UsageError("no data set was named", hint="for example --dataset banking77, or --dataset reviews.csv")
    source = open_source(wanted.dataset)
    least = wanted.min_label_count or source.min_label_count or 1
    folder = _folder(source, wanted, least)
    try:
        return _cached(folder) or _prepare(source, wanted, least, folder)
    except DataError as err:
        if source.name in err.message:
            raise
        # What is wrong with a split as a whole names no file of its own.
        raise DataError(f"{source.name}: {err.message}", hint=err.hint) from err


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
    _check_form(question_form, wanted)
    reading = _read(source, wanted, question_form)
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


# --- reading ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Reading:
    splits: dict[str, Rows]
    choice: columns.Choice
    steps: tuple[str, ...]


def _config(dataset: str | Path | DataConfig, settings: Mapping[str, Any]) -> DataConfig:
    base = dataclasses.asdict(dataset) if isinstance(dataset, DataConfig) else {"dataset": str(dataset)}
    return config.build({"data": base}, {"data": dict(settings)}, where="prepare").data


def _read(source: Source, wanted: DataConfig, form: forms.Form | None) -> _Reading:
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
    order = columns.order_of_names((part for parts in records.values() for part in parts), choice)
    if choice.names_column is not None and order is None:
        choice = dataclasses.replace(choice, names_column=None)
    steps = [*source.notes]
    splits = {}
    for split, parts in records.items():
        steps += [note for part in parts for note in part.notes]
        splits[split], notes = columns.read_rows(parts, choice, order)
        steps += notes
        steps.append(f"read {len(splits[split]):,} rows of {split} from {_files(parts)}")
    steps.append(_said(choice))
    return _Reading(splits, choice, tuple(steps))


def _read_questions(
    source: Source, records: Mapping[str, list[Records]], first: Records, wanted: DataConfig
) -> _Reading:
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
    return _Reading(splits, columns.Choice(found.question, found.answer), tuple(steps))


def _said(choice: columns.Choice) -> str:
    named = f", their order from {choice.label!r}" if choice.names_column is not None else ""
    several = ", any number of them a row" if choice.several else ""
    pairs = f" and {choice.pair!r}, in pairs" if choice.pair is not None else ""
    return f"texts are in column {choice.text!r}{pairs}, labels in {choice.label_source!r}{named}{several}"


def _files(parts: list[Any]) -> str:
    names = [part.file for part in parts]
    return ", ".join(names) if len(names) <= 3 else f"{names[0]} to {names[-1]} ({len(names)} files)"


# --- preparing --------------------------------------------------------------------------------------------------


@dataclass
class _Log:
    """What happened to the rows on the way."""

    steps: list[str] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)

    def drop(self, split: str, before: Rows, after: Rows, reason: str) -> Rows:
        if len(after) < len(before):
            self.dropped.append(Dropped(split, len(before) - len(after), reason))
        return after


def _prepare(source: Source, wanted: DataConfig, least: int, folder: Path) -> Prepared:
    form = wanted.form or source.form
    _check_form(form, wanted)
    reading = _read(source, wanted, form)
    log = _Log([*reading.steps])
    choice = reading.choice
    reading, corrected = _corrected(reading, wanted, log)
    splits = _only_labelled(source, reading, log)
    del reading  # and with it the rows that were dropped
    pa.default_memory_pool().release_unused()
    splits = _without_empty(splits, log)
    if form == "binary":  # a letter is the answer's place there, and no label
        label_set = LabelSet(VERDICTS)
        splits = _sampled(splits, wanted, log)
    else:
        splits, label_set = _labels(splits, least, wanted, log)
        splits = _sampled(splits, wanted, log)
        _check_enough(splits["train"], label_set, wanted)
    splits = number_texts(splits)
    pa.default_memory_pool().release_unused()
    splits = _split(splits, wanted, log)
    splits = _without_leaks(splits, label_set if form != "binary" else None, wanted, log)
    splits["train"] = _balanced(splits["train"], wanted, log)
    shifts = _shifts(splits, wanted)
    counts = _counts(splits, label_set) if form != "binary" else {}
    findings = quality.findings(splits, counts, _copies(splits, wanted, log), shifts)
    if form is not None:
        splits = _formed(splits, form, wanted, log)
    prepared = Prepared(
        folder=folder,
        name=source.name,
        label_set=label_set,
        splits={split: len(rows) for split, rows in splits.items()},
        label_counts=_counts(splits, label_set),
        text_column=choice.text,
        label_column=choice.label_source,
        fingerprint=_fingerprint(splits, label_set),
        repository=source.repository,
        revision=source.revision,
        dropped=tuple(log.dropped),
        findings=tuple(findings),
        steps=tuple(log.steps),
        from_cache=False,
        form=form or ("text" if choice.pair is None else "pair"),
        text_pair_column=choice.pair,
        lengths={split: quality.percentiles(anomalies.character_lengths(rows)) for split, rows in splits.items()},
        shifts=shifts,
        corrected=corrected,
    )
    _keep(prepared, splits)
    return prepared


def _check_form(form: forms.Form | None, wanted: DataConfig) -> None:
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


def _corrected(reading: _Reading, wanted: DataConfig, log: _Log) -> tuple[_Reading, corrections.Applied | None]:
    if wanted.corrections is None:
        return reading, None
    splits, applied = corrections.correct(reading.splits, wanted.corrections)
    already = f", {applied.unchanged:,} had their new label already" if applied.unchanged else ""
    log.steps.append(
        f"corrections of {applied.file}: {quality.counted(applied.relabelled, 'row')} relabelled, "
        f"{applied.dropped:,} left out{already}"
    )
    return dataclasses.replace(reading, splits=splits), applied


def _only_labelled(source: Source, reading: _Reading, log: _Log) -> dict[str, Rows]:
    """Rows with labels. A split that has none is no split; train has to have some."""
    if "train" not in reading.splits:
        raise DataError(
            f"{source.name} has no train split; it has {', '.join(reading.splits)}",
            hint="name a file train.csv (or another format), or give one file as --dataset",
        )
    if not len(reading.splits["train"]):
        raise DataError(f"{source.name}: train has no rows", hint="is the file only a header line?")
    splits = {}
    for split, rows in reading.splits.items():
        labelled = cleaning.drop_unlabelled(rows)
        if split != "train" and _is_hidden(labelled, reading.splits["train"]):
            labelled = labelled.take(np.arange(0))
        log.drop(split, rows, labelled, "no label")
        if len(labelled):
            splits[split] = labelled
        elif split != "train":
            log.steps.append(f"{split} was left out: none of its {len(rows):,} rows has a label")
    if "train" not in splits:
        raise DataError(
            f"{source.name}: no row of train has a label in column {reading.choice.label_source!r}",
            hint="choose the column of the labels with --label-column",
        )
    return splits


def _is_hidden(rows: Rows, train: Rows) -> bool:
    """Whether every label is -1, which train does not know: how test sets with labels kept back are published."""
    return set(cleaning.label_counts(rows)) == {"-1"} and "-1" not in cleaning.label_counts(train)


def _without_empty(splits: dict[str, Rows], log: _Log) -> dict[str, Rows]:
    """Train without empty texts. The source's validation and test keep them, so that scores stay comparable."""
    kept = {}
    for split, rows in splits.items():
        if split == "train":
            kept[split] = log.drop(split, rows, cleaning.drop_empty(rows), "empty text")
        else:
            kept[split] = cleaning.fill_empty(rows)
    if not len(kept["train"]):
        raise DataError("every text of train is empty", hint="choose the column of the texts with --text-column")
    return kept


def _labels(splits: dict[str, Rows], least: int, wanted: DataConfig, log: _Log) -> tuple[dict[str, Rows], LabelSet]:
    """The rows of labels that are frequent enough in train, and the label set. Raises DataError for fewer than two."""
    train = splits["train"]
    kind, other = train.kind, wanted.other_label
    counts = cleaning.label_counts(train)
    declared = train.label_order if train.label_order and counts.keys() <= set(train.label_order) else None
    if least > 1:
        splits = _without_rare(splits, counts, least, other, log)
        counts = cleaning.label_counts(splits["train"])
        declared = tuple(name for name in declared if name in counts and name != other) if declared else None
    elif other is not None:
        raise UsageError(
            f"--other-label {other} gathers labels that are rarer than --min-label-count, which is not given",
            hint=f"for example --min-label-count 20 --other-label {other}",
        )
    _check_labels(counts, least)
    _check_known(splits, counts)
    # The gathered label last: it is no name of the source's.
    last = [other] if other in counts and least > 1 else []
    names = declared or in_natural_order([name for name in counts if name not in last])
    return splits, LabelSet((*names, *last), kind)  # type: ignore[arg-type]


def _without_rare(
    splits: dict[str, Rows], counts: Counter[str], least: int, other: str | None, log: _Log
) -> dict[str, Rows]:
    """The splits without labels that are rare in train, or with these gathered under the name `other`."""
    kept = {}
    rare = {name for name, count in counts.items() if count < least}
    for split, rows in splits.items():
        unseen = cleaning.label_counts(rows).keys() - counts.keys()  # seen 0 times in train, which is below `least`
        out = rare | unseen
        if other is not None:
            kept[split] = cleaning.gather_labels(rows, out, other)
            continue
        reason = f"label with fewer than {least:,} rows in train ({_count_labels(rows, out)})"
        kept[split] = log.drop(split, rows, cleaning.drop_labels(rows, out), reason)
    if rare:
        done = "dropped" if other is None else f"gathered under {other!r}"
        log.steps.append(
            f"{done} {len(rare):,} of {len(counts):,} labels with fewer than {least:,} rows each:"
            f" {sum(counts[name] for name in rare):,} rows of train"
        )
    return {split: rows for split, rows in kept.items() if len(rows) or split == "train"}


def _count_labels(rows: Rows, names: set[str]) -> str:
    return quality.counted(len(cleaning.label_counts(rows).keys() & names), "label")


def _check_labels(counts: Counter[str], least: int) -> None:
    if not counts and least == 1:
        raise DataError("no row of train has a label", hint="is the label column the right one? See --label-column")
    if not counts:
        raise DataError(
            f"no label has {least:,} rows in train, which --min-label-count asks for",
            hint="is the label column the right one? See --label-column",
        )
    if len(counts) == 1:
        raise DataError(
            f"train has one label only, {next(iter(counts))!r}; a classifier needs at least two",
            hint="is the label column the right one? See --label-column",
        )


def _check_known(splits: dict[str, Rows], known: Counter[str]) -> None:
    for split, rows in splits.items():
        unknown = cleaning.label_counts(rows).keys() - known.keys()
        if unknown:
            index, name = LabelSet(tuple(known), rows.kind).unknown(rows.labels) or (0, "")
            raise DataError(
                f"{rows.where(index)}: label {name!r} of {split} "
                f"does not occur in train ({len(unknown):,} such labels)",
                hint="add rows of it to train, correct it, or drop what is rare in train with --min-label-count 2",
            )


def _sampled(splits: dict[str, Rows], wanted: DataConfig, log: _Log) -> dict[str, Rows]:
    if wanted.max_rows is None:
        return splits
    sampled = {}
    for number, (split, rows) in enumerate(splits.items()):
        sampled[split] = cleaning.sample(rows, wanted.max_rows, np.random.default_rng([wanted.seed, 0, number]))
        if len(sampled[split]) < len(rows):
            taken = f"{len(sampled[split]):,} of the {len(rows):,} rows of {split}"
            log.steps.append(f"took {taken} at random (seed {wanted.seed})")
    return sampled


def _check_enough(train: Rows, label_set: LabelSet, wanted: DataConfig) -> None:
    """Raise DataError when train cannot show every label once."""
    if cleaning.label_counts(train).total() < len(label_set):
        more = "raise --max-rows" if wanted.max_rows else "add rows, or drop rare labels with --min-label-count"
        raise DataError(f"train has {quality.counted(len(train), 'row')} for {len(label_set):,} labels", hint=more)
    if len(cleaning.label_counts(train)) < 2:
        raise DataError(f"the {len(train):,} rows drawn from train have one label only", hint="raise --max-rows")


def _split(splits: dict[str, Rows], wanted: DataConfig, log: _Log) -> dict[str, Rows]:
    """Train, validation and test, cut from train where the source has none."""
    train = splits.pop("train")  # not kept beside what is left of it
    total = len(train)
    sizes = {"test": wanted.test_size, "validation": wanted.validation_size}
    cut = {}
    for number, (split, size) in enumerate(sizes.items()):
        rows = cleaning.rows_wanted(size, total)
        if split in splits or not rows:
            continue
        train, cut[split] = cleaning.cut(train, rows, np.random.default_rng([wanted.seed, 1, number]), split=split)
        pa.default_memory_pool().release_unused()
        number_of_rows = quality.counted(len(cut[split]), "row")
        how = "stratified by label" if train.kind == "single" else "at random, as rows have several labels"
        log.steps.append(f"cut {number_of_rows} off train for {split}, {how} (seed {wanted.seed})")
    ready = {**splits, **cut, "train": train}
    return {split: ready[split] for split in SPLITS if split in ready}


def _copies(splits: dict[str, Rows], wanted: DataConfig, log: _Log) -> copies.Copies:
    exact = dict(zip(splits, codes(list(splits.values()), "text"), strict=True))
    characters = sum(int(anomalies.character_lengths(rows).sum()) for rows in splits.values())
    near = wanted.thorough or characters <= _QUICK
    skipped = f"near copies were not looked for in {characters:,} characters of text; --thorough does"
    if not near and skipped not in log.steps:
        log.steps.append(skipped)
    return copies.find_copies(splits, exact, near=near)


def _without_leaks(
    splits: dict[str, Rows], label_set: LabelSet | None, wanted: DataConfig, log: _Log
) -> dict[str, Rows]:
    """The splits without the texts that train shares with the others, as `data.drop_leaks` says.

    label_set: labels that train has to keep, None where rows are not what has them.
    """
    if wanted.drop_leaks is None:
        return splits
    found = _copies(splits, wanted, log)
    others = [split for split in splits if split != "train"]
    kept = dict(splits)
    if wanted.drop_leaks == "train":
        elsewhere = np.concatenate([np.zeros(0, np.int64), *(found.loose[split] for split in others)])
        kept["train"] = splits["train"].keep(~_met(found, "train", elsewhere))
        log.drop("train", splits["train"], kept["train"], "a copy of it is in validation or test")
        if label_set is not None:
            lost = [name for name in label_set.names if not cleaning.label_counts(kept["train"])[name]]
            lost = [name for name in lost if cleaning.label_counts(splits["train"])[name]]
            if lost:
                raise DataError(
                    f"--drop-leaks train leaves no row of label {lost[0]!r} in train: all have copies elsewhere",
                    hint="--drop-leaks test drops the copies in validation and test instead",
                )
        return kept
    for split in others:
        kept[split] = splits[split].keep(~_met(found, split, found.loose["train"]))
        log.drop(split, splits[split], kept[split], "a copy of it is in train")
        if not len(kept[split]):
            raise DataError(
                f"--drop-leaks test leaves no row in {split}: all have copies in train",
                hint="--drop-leaks train drops the copies in train instead",
            )
    return kept


def _met(found: copies.Copies, split: str, elsewhere: np.ndarray) -> np.ndarray:
    """Which rows of a split have a copy, or a near copy, among these numbers of texts: (rows,) bool."""
    texts_N = found.loose[split]
    met_N = np.isin(texts_N, elsewhere)
    if found.near is not None:
        for one, other in ((0, 1), (1, 0)):
            near = found.near[np.isin(found.near[:, one], elsewhere)]
            met_N |= np.isin(texts_N, near[:, other])
    return met_N  # type: ignore[no-any-return]


def _shifts(splits: dict[str, Rows], wanted: DataConfig) -> dict[str, float]:
    if not wanted.thorough:
        return {}
    found = {split: shift.split_shift(splits["train"], splits[split], seed=wanted.seed) for split in splits}
    return {split: area for split, area in found.items() if area is not None and split != "train"}


def _balanced(train: Rows, wanted: DataConfig, log: _Log) -> Rows:
    """Train with no more rows of each label than `data.balance` says."""
    if wanted.balance is None:
        return train
    if train.kind == "multi":
        raise UsageError(
            "--balance is for one label a row: leaving out rows of one label would leave out others with it",
            hint="--class-weights balanced weighs labels instead",
        )
    most = min(cleaning.label_counts(train).values()) if wanted.balance == "min" else wanted.balance
    kept = cleaning.cap_labels(train, most, np.random.default_rng([wanted.seed, 2]))
    if len(kept) < len(train):
        taken = f"{len(kept):,} of the {len(train):,} rows of train"
        log.steps.append(f"kept {taken}, at most {most:,} a label, drawn at random (seed {wanted.seed})")
    return kept


def _formed(splits: dict[str, Rows], form: forms.Form, wanted: DataConfig, log: _Log) -> dict[str, Rows]:
    """Questions, once they are split, as rows of a form."""
    ready = {}
    for split, rows in splits.items():
        shuffles = wanted.shuffle_choices and split == "train"
        shuffle = np.random.default_rng([wanted.seed, 3]) if shuffles else None
        ready[split] = forms.formed(rows, form, shuffle=shuffle)
        if shuffle is not None:
            log.steps.append(f"put the choices of each question of train into a random order (seed {wanted.seed})")
        if form == "binary":
            log.steps.append(f"made {len(ready[split]):,} pairs of the {len(rows):,} questions of {split}")
    return ready


def _counts(splits: dict[str, Rows], label_set: LabelSet) -> dict[str, dict[str, int]]:
    counted = {split: cleaning.label_counts(rows) for split, rows in splits.items()}
    return {split: {name: counts[name] for name in label_set.names} for split, counts in counted.items()}


# --- keeping ----------------------------------------------------------------------------------------------------


def _folder(source: Source, wanted: DataConfig, least: int) -> Path:
    settings = {name: value for name, value in dataclasses.asdict(wanted).items() if name not in _FORGOTTEN}
    settings["form"] = wanted.form or source.form
    settings["corrections"] = corrections.digest(wanted.corrections) if wanted.corrections is not None else None
    key = json.dumps([PREPARATION_VERSION, source.identity(), least, settings], sort_keys=True)
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return paths.cache_dir() / "prepared" / f"{paths.slug(source.name)}-{digest[:12]}"


def _fingerprint(splits: dict[str, Rows], label_set: LabelSet) -> str:
    digest = hashlib.sha256(json.dumps([label_set.names, {s: len(rows) for s, rows in splits.items()}]).encode())
    for rows in splits.values():
        for column in ("text", "label", *([PAIR] if rows.pair_column is not None else [])):
            for piece in spelled(rows.table.column(column)):
                digest.update(piece)
    return digest.hexdigest()


def _keep(prepared: Prepared, splits: dict[str, Rows]) -> None:
    from pyarrow import parquet

    with atomic.new_folder(prepared.folder, manifest=True) as draft:
        for split, rows in splits.items():
            parquet.write_table(rows.table.drop_columns(TEXT_ID), draft / f"{split}.parquet", compression="zstd")
        atomic.write_json(draft / _DOCUMENT, _document(prepared))


def _document(prepared: Prepared) -> dict[str, Any]:
    document = dataclasses.asdict(prepared)
    for name in ("folder", "from_cache", "label_set"):
        del document[name]
    label_set = prepared.label_set
    return {"version": PREPARATION_VERSION, "labels": list(label_set.names), "kind": label_set.kind, **document}


def _cached(folder: Path) -> Prepared | None:
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
    from pyarrow import parquet

    try:
        return parquet.ParquetFile(path).read()  # read_table loads 40 MB of code for folders and filters
    except (OSError, pa.ArrowException) as err:
        raise DataError(
            f"{path} cannot be read; the cache was changed meanwhile", hint="run the command again: it is made anew"
        ) from err
