"""The data sets that are known by a short name: where they are on the Hub and what is special about them."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Entry:
    """A known data set.

    repo, config: its id on the Hub.
    min_label_count, form: what data.min_label_count and data.form are for this set unless the user says otherwise.
    """

    repo: str
    config: str | None = None
    min_label_count: int | None = None
    form: Literal["binary", "multiclass"] | None = None


CATALOG = {
    # PolyAI/banking77 still ships a loading script, which datasets>=4 does not run (datasets#7693).
    "banking77": Entry("legacy-datasets/banking77"),
    "tweet_eval/hate": Entry("cardiffnlp/tweet_eval", "hate"),
    "tweet_eval/irony": Entry("cardiffnlp/tweet_eval", "irony"),
    "tweet_eval/emotion": Entry("cardiffnlp/tweet_eval", "emotion"),
    "mmlu/binary": Entry("cais/mmlu", "all", form="binary"),
    "mmlu/multiclass": Entry("cais/mmlu", "all", form="multiclass"),
    # 10 labels of about 5,000 rows, and 28,631 labels of one row each.
    "scientific": Entry("knowledgator/Scientific-text-classification", min_label_count=100),
}


def nearest(name: str) -> str | None:
    """The catalog name that a mistyped one may have meant."""
    close = difflib.get_close_matches(name.lower(), list(CATALOG), n=1)
    return close[0] if close else None
