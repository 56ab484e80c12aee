"""What textclf-mini reads while it is made: texts of training parts, and the check that nothing else comes in."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.csv
import pyarrow.parquet

PARTS = (
    "banking77/train.csv",
    "nlupp/banking/train.parquet",
    "nlupp/hotels/train.parquet",
    "mmlu/auxiliary_train.parquet",
    "scientific/train.parquet",
)
"""The files that are read, under the folder of data sets. All of them may be passed on: CC-BY-4.0, CC0, and MMLU's
training part CC-BY-SA-4.0 and Apache-2.0."""
JUDGED = (
    ("banking77", {}),
    ("nlupp/banking", {}),
    ("nlupp/hotels", {}),
    ("scientific", {"min_label_count": 100, "max_rows": 10_000}),
    ("scientific", {"min_label_count": 100, "max_rows": 3_000}),
)
"""Data sets and settings that models are judged on, whose validation and test rows are left out of the files above:
two of these data sets have a part for training only, which textclf cuts."""
LONGEST = 200
"""Words of a text, at most."""
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_FORBIDDEN = re.compile(r"tweet|test|valid|dev(?![a-z])|hate|irony|emotion", re.IGNORECASE)


class ForbiddenPart(Exception):
    """A file that no model that textclf ships may learn from."""


@dataclass(frozen=True)
class Corpus:
    """Texts by kind (`bank`, `exam`, `sentence`, `abstract`), and the sha256 of every file that they come from."""

    texts: dict[str, list[str]]
    files: dict[str, str]


def check_part(name: str) -> None:
    """Raises ForbiddenPart for all but training parts: tests, validation, and the tweets, whose licence is unknown."""
    if name not in PARTS or _FORBIDDEN.search(name):
        raise ForbiddenPart(f"{name} is not to be learnt from; known are {', '.join(PARTS)}")


def read(data: Path, *, parts: Sequence[str] = PARTS, seed: int) -> Corpus:
    """The corpus in a folder of data sets, without the rows that models are judged on. Raises ForbiddenPart."""
    for name in parts:
        check_part(name)
    tables, files = {}, {}
    for name in parts:
        path = data / name
        files[name] = hashlib.sha256(path.read_bytes()).hexdigest()
        tables[name] = _table(path)
    hidden = _judged_texts(data)
    texts: dict[str, list[str]] = {"bank": [], "exam": [], "sentence": [], "abstract": []}
    for name, table in tables.items():
        kind = name.split("/")[0]
        if kind == "mmlu":
            texts["exam"] += table["question"].to_pylist()
            texts["exam"] += [choice for choices in table["choices"].to_pylist() for choice in choices]
        elif kind == "scientific":
            texts["abstract"] += table["text"].to_pylist()
        else:
            texts["bank"] += table["text"].to_pylist()
    texts = {kind: _without(some, hidden) for kind, some in texts.items()}
    texts["sentence"] = _without((one for text in texts["abstract"] for one in _SENTENCE.split(text)), hidden)
    for some in texts.values():
        random.Random(seed).shuffle(some)
    return Corpus(texts, files)


def pool(corpus: Corpus, vocabulary: list[str], *, share: float, seed: int) -> list[str]:
    """The texts that are learnt from, in random order: originals, parts of them, two joined, words put in their place.

    vocabulary: whole words of the tokenizer. A word from it takes the place of every third one in some texts, so that
    the model also hears of words that these corpora never use. share: of the whole, 0 to 1; less is for trials.
    """
    rng = random.Random(seed)
    texts = corpus.texts

    def some(kind: str, most: int) -> list[str]:
        return texts[kind][: int(min(most, len(texts[kind])) * share)]

    bank, exam = some("bank", 20_000), some("exam", 25_000)
    sentences, abstracts = some("sentence", 100_000), some("abstract", 7_000)
    pooled = [*bank, *exam, *sentences, *abstracts]
    pooled += [_part(text, rng) for text in bank]
    pooled += [f"{text} {rng.choice(bank)}" for text in bank]
    pooled += [_other_words(text, vocabulary, rng) for kind in (bank, exam, sentences[::3]) for text in kind]
    pooled = [" ".join(text.split()[:LONGEST]) for text in pooled]
    rng.shuffle(pooled)
    return [text for text in pooled if text]


def _table(path: Path) -> pyarrow.Table:
    if path.suffix == ".csv":
        options = pyarrow.csv.ParseOptions(newlines_in_values=True)
        return pyarrow.csv.read_csv(path, parse_options=options)
    return pyarrow.parquet.read_table(path)


def _judged_texts(data: Path) -> set[str]:
    import textclf

    hidden = set()
    for name, settings in JUDGED:
        prepared = textclf.prepare(data / name, **settings)
        for split in ("validation", "test"):
            hidden |= {_plain(text) for text in prepared.rows(split).texts}
    return hidden


def _without(texts: Iterable[str], hidden: set[str]) -> list[str]:
    """Each text once, in the order given, without the hidden ones."""
    seen = set(hidden)
    return [text for text in texts if (plain := _plain(text)) and plain not in seen and not seen.add(plain)]


def _plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _part(text: str, rng: random.Random) -> str:
    words = text.split()
    size = rng.randint(min(3, len(words)), len(words))
    start = rng.randint(0, len(words) - size)
    return " ".join(words[start : start + size])


def _other_words(text: str, vocabulary: list[str], rng: random.Random) -> str:
    return " ".join(_replaced(text.split(), vocabulary, rng))


def _replaced(words: list[str], vocabulary: list[str], rng: random.Random) -> Iterator[str]:
    for word in words:
        yield rng.choice(vocabulary) if rng.random() < 1 / 3 else word
