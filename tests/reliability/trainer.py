"""transformers' Trainer under the harness of kills.py, for comparison: the same model, texts, steps and saves.

The script of each run is that of its own examples (run_classification): look for the last checkpoint with
`get_last_checkpoint`, and give it to `train(resume_from_checkpoint=...)`.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.trainer_utils import get_last_checkpoint

from . import kills
from .scene import finished, forked, tiny_models

ROWS = (96, 24)
"""Of train and validation: 18 steps, as those of ours."""


def campaign(*, count: int, seed: int = 0) -> dict[str, object]:
    """As `kills.campaign`."""
    return kills.campaign(count=count, seed=seed, stage=scene())


@dataclass(frozen=True)
class TrainerScene:
    """A tiny model and 120 rows; 18 steps, with an evaluation and a checkpoint every 4, of which two are kept."""

    folder: Path
    base: Path

    def start(self, place: Path) -> int:
        """Fork a process that trains in `place`, from the last checkpoint there if there is one. Returns its id."""
        return forked(place, lambda: self._train(place / "run"))

    def finish(self, place: Path) -> str:
        """Train to the end; the SHA-256 of the weights. Raises FailedError for an exception."""
        finished(self.start(place), place)
        return hashlib.sha256((place / "run/model.safetensors").read_bytes()).hexdigest()

    def where(self, place: Path) -> str:
        """How far a run had come, by its newest checkpoint."""
        if (place / "run/model.safetensors").exists():
            return "after the model"
        newest = get_last_checkpoint(str(place / "run")) if (place / "run").is_dir() else None
        if newest is None:
            return "before the first checkpoint"
        whole = {path.name for path in (self.folder / "undisturbed/run/checkpoint-18").iterdir()}
        missing = sorted(whole - {path.name for path in Path(newest).iterdir()})
        return f"newest checkpoint without {', '.join(missing)}" if missing else "newest checkpoint has all its files"

    def _train(self, out: Path) -> int:
        torch.use_deterministic_algorithms(True)
        set_seed(0)
        tokenizer = AutoTokenizer.from_pretrained(self.base)
        rows = tiny_models.rows(sum(ROWS))
        encoded: list[dict[str, Any]] = [
            {**tokenizer(text, truncation=True), "label": "abc".index(label)} for text, label in rows
        ]
        arguments = TrainingArguments(
            output_dir=str(out),
            num_train_epochs=3,
            per_device_train_batch_size=16,
            eval_strategy="steps",
            eval_steps=4,
            save_strategy="steps",
            save_steps=4,
            save_total_limit=2,
            seed=0,
            use_cpu=True,
            report_to="none",
            disable_tqdm=True,
        )
        trainer = Trainer(
            model=AutoModelForSequenceClassification.from_pretrained(self.base, num_labels=3),
            args=arguments,
            train_dataset=encoded[: ROWS[0]],  # type: ignore[arg-type]  # any sequence will do
            eval_dataset=encoded[ROWS[0] :],  # type: ignore[arg-type]
            processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer),
        )
        trainer.train(resume_from_checkpoint=get_last_checkpoint(str(out)) if out.is_dir() else None)
        trainer.save_model()
        return 0


@contextlib.contextmanager
def scene() -> Iterator[TrainerScene]:
    """A scene in a folder of its own, gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="textclf-trainer-"))
    try:
        yield TrainerScene(folder, tiny_models.pretrained(folder / "base"))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
