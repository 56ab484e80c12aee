"""prepare(): a data set read, cleaned, split, examined and kept, so that every training starts from the same rows."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from textclf import config, paths
from textclf.config import DataConfig
from textclf.data import anomalies, cleaning, copies, corrections, forms, quality, shift
from textclf.data.choices import VERDICTS
from textclf.data.labelled import Reading, check_form, read
from textclf.data.prepared import PREPARATION_VERSION, Dropped, Prepared, cached, fingerprint_of, keep
from textclf.data.rows import SPLITS, Rows, codes, number_texts
from textclf.data.sources import Source, open_source
from textclf.errors import DataError, UsageError
from textclf.labels import LabelSet, in_natural_order

_FORGOTTEN = ("dataset", "min_label_count", "corrections")
"""Settings that do not enter the key as they are: the content of the files and the resolved count do."""
_QUICK = 2_000_000
"""Characters up to which near copies are looked for unasked: half a second."""


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
        return cached(folder) or _prepare(source, wanted, least, folder)
    except DataError as err:
        if source.name in err.message:
            raise
        # What is wrong with a split as a whole names no file of its own.
        raise DataError(f"{source.name}: {err.message}", hint=err.hint) from err


def _config(dataset: str | Path | DataConfig, settings: Mapping[str, Any]) -> DataConfig:
    base = dataclasses.asdict(dataset) if isinstance(dataset, DataConfig) else {"dataset": str(dataset)}
    return config.build({"data": base}, {"data": dict(settings)}, where="prepare").data


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
    check_form(form, wanted)
    reading = read(source, wanted, form)
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
        fingerprint=fingerprint_of(splits, label_set),
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
    keep(prepared, splits)
    return prepared


def _corrected(reading: Reading, wanted: DataConfig, log: _Log) -> tuple[Reading, corrections.Applied | None]:
    if wanted.corrections is None:
        return reading, None
    splits, applied = corrections.correct(reading.splits, wanted.corrections, other_label=wanted.other_label)
    already = f", {applied.unchanged:,} had their new label already" if applied.unchanged else ""
    log.steps.append(
        f"corrections of {applied.file}: {quality.counted(applied.relabelled, 'row')} relabelled, "
        f"{applied.dropped:,} left out{already}"
    )
    return dataclasses.replace(reading, splits=splits), applied


def _only_labelled(source: Source, reading: Reading, log: _Log) -> dict[str, Rows]:
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
        if not len(kept["train"]):
            raise DataError(
                "--drop-leaks train leaves no row in train: all have copies in validation or test",
                hint="--drop-leaks test drops the copies in validation and test instead",
            )
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
    train, others = splits["train"], [split for split in splits if split != "train"]
    found = {split: shift.split_shift(train, splits[split], seed=wanted.seed) for split in others}
    return {split: area for split, area in found.items() if area is not None}


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


def _folder(source: Source, wanted: DataConfig, least: int) -> Path:
    settings = {name: value for name, value in dataclasses.asdict(wanted).items() if name not in _FORGOTTEN}
    settings["form"] = wanted.form or source.form
    settings["corrections"] = corrections.digest(wanted.corrections) if wanted.corrections is not None else None
    key = json.dumps([PREPARATION_VERSION, source.identity(), least, settings], sort_keys=True)
    digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
    return paths.cache_dir() / "prepared" / f"{paths.slug(source.name)}-{digest[:12]}"
