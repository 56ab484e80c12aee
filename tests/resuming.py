"""A run that was stopped and went on, beside one that was not."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import textclf
from textclf.artifact.runs import Run
from textclf.errors import InterruptedRun
from textclf.training.events import Event, StepDone


def finetune_until(base: Path, data: Path, out: Path, *, step: int, **settings: Any) -> None:
    """Finetune, and send SIGTERM after this step; raises InterruptedRun."""

    def stop(event: Event) -> None:
        if isinstance(event, StepDone) and event.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    textclf.finetune(base, data, out=out, on_event=stop, **settings)


def stop_and_resume(base: Path, data: Path, out: Path, *, stop_at: int, **settings: Any) -> tuple[InterruptedRun, Run]:
    """Finetune, send SIGTERM after step `stop_at`, and finetune again: what was raised, and the finished run."""
    with pytest.raises(InterruptedRun) as caught:
        finetune_until(base, data, out, step=stop_at, **settings)
    return caught.value, textclf.finetune(base, data, out=out, **settings)


def same_weights(one: Run, other: Run) -> bool:
    """Whether two runs ended with the same bits."""
    ours, theirs = (load_file(run.model_folder / "model.safetensors") for run in (one, other))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
