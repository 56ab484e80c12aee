"""Flip single bits and cut files of a checkpoint and of a model folder: each change has to be noticed."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

from textclf import atomic
from textclf.artifact import graph, hub
from textclf.errors import ModelError
from textclf.model import exporting

from .scene import scene, wait
from .signals import at_step


def campaign(*, count: int, seed: int = 0, with_graph: bool = True) -> dict[str, object]:
    """Damage every file in turn, at random places, half of all in each folder. Returns what loaded all the same.

    count: flipped bits; there are a fifth as many cuts.
    with_graph: the model folder has its ONNX graph too, which takes some seconds to make.
    """
    draw = random.Random(seed)

    def graph_too() -> None:
        exporting.MAX_BYTES = 1 << 31 if with_graph else 0

    with scene() as stage:
        place = stage.folder / "stopped"
        assert wait(stage.start(place, at_step(9, signal.SIGTERM))) == 143
        kept = place / "run/checkpoints/step-9"
        assert wait(stage.start(stage.folder / "whole", graph_too)) == 0
        model = stage.folder / "whole/run/model"
        os.environ["TEXTCLF_HOME"] = str(stage.folder / "home")
        time.sleep(2.1)  # so that the folder's digests are remembered: damage must show all the same
        assert checkpoint_loads(kept) and model_loads(model)
        passed = []
        for kind, times in (("flip", count), ("cut", count // 5)):
            for number in range(times):
                folder, loads = ((kept, checkpoint_loads), (model, model_loads))[number % 2]
                files = sorted(
                    path
                    for path in folder.rglob("*")
                    if path.is_file() and path.name != "README.md" and path.parent.name != "plots"
                )
                path = files[number // 2 % len(files)]
                whole = path.read_bytes()
                where = draw.randrange(len(whole.rstrip()))  # a line end after JSON says nothing
                damaged = bytearray(whole)
                if kind == "flip":
                    damaged[where] ^= 1 << draw.randrange(8)
                else:
                    del damaged[where:]
                path.write_bytes(damaged)
                if loads(folder):
                    passed.append(f"{kind} in {path.relative_to(folder)} at {where} of {len(whole)}")
                path.write_bytes(whole)
        assert checkpoint_loads(kept) and model_loads(model)
    return {"flips": count, "cuts": count // 5, "wrong": passed}


def checkpoint_loads(folder: Path) -> bool:
    """Whether a resume would take this checkpoint."""
    return atomic.verify(folder) is None


def model_loads(folder: Path) -> bool:
    """Whether predict would take this model, with its graph where it has one."""
    try:
        hub.locate(folder)
    except ModelError:
        return False
    return graph.belongs(folder) if (folder / "onnx").exists() else True
