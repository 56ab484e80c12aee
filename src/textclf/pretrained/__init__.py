"""The pretrained model that is shipped in the package, and what a larger one was worth beside it. How it was made:
docs/explanation/textclf-mini.md."""

from __future__ import annotations

from pathlib import Path

NAME = "textclf-mini"
REVISION = "1"
"""Of its weights: another number with every change of them."""
BASE = "sentence-transformers/all-MiniLM-L6-v2"
"""The model on the Hub that it was made from, and the larger one to try after it."""
LICENSE = "Apache-2.0"
GAINS: dict[str, float] = {
    "banking77": 0.6,
    "banking77-8": 0.5,
    "banking77-16": 0.6,
    "nlupp-banking": 1.5,
    "nlupp-hotels": 1.6,
    "scientific": 0.9,
    "tweet_eval_irony": 4.7,
    "tweet_eval_emotion": 4.4,
    "tweet_eval_hate": 0.4,
}
"""Data set -> points of test accuracy that BASE, fine-tuned, was ahead; from docs/explanation/textclf-mini.md."""
TIMES_SLOWER = 2.0
"""Of training BASE, beside training it; measured as CPU seconds there."""


def folder(reference: str) -> Path | None:
    """The folder of the shipped model, if that is what a reference to a model means."""
    return Path(__file__).parent / NAME if reference == NAME else None
