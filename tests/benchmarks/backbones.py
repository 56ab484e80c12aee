"""The probe-first recipe on backbones that know less and less: MiniLM, its last layers re-initialised.

MiniLM was trained to put texts of one meaning side by side, so its frozen features say much. Most backbones were not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .lines import Comparison, Contender, Line, Setting
from .materials import minilm

FRESH = (0, 2, 4, 6)
"""Layers of MiniLM's six, from the last, that begin with random weights."""
MAX_ROWS = 3000
HOW: dict[str, dict[str, Any]] = {
    "probe alone": {"epochs": 0},
    "probe first": {},
    "no probe, mean head": {"probe": False, "head": "mean"},
    "no probe, own head": {"probe": False, "head": "own"},
}


def lines(setting: Setting) -> list[Line]:
    """One line. Not small, and not on CUDA, where the figures would be the same."""
    if setting.small or setting.device == "cuda":
        return []
    return [_line(setting, fresh) for fresh in FRESH]


def _line(setting: Setting, fresh: int) -> Line:
    source = {"dataset": str((setting.data or Path()) / "banking77"), "fresh": fresh}
    return Line(
        name=f"backbones-{fresh}-fresh",
        title=f"Probe first, MiniLM with {fresh} of 6 layers re-initialised, {MAX_ROWS:,} rows of banking77",
        contenders=tuple(Contender(name, "backbones:of_textclf", {**source, "how": how}) for name, how in HOW.items()),
        comparisons=(
            Comparison("probe first", "no probe, mean head", "test_accuracy"),
            Comparison("probe first", "no probe, own head", "test_accuracy"),
        ),
        seeded=True,
    )


def of_textclf(dataset: str, fresh: int, how: dict[str, Any], seed: int) -> dict[str, float]:
    """The whole of `textclf.finetune` on a backbone whose last `fresh` layers begin with random weights."""
    import shutil
    import tempfile

    import transformers

    from .accuracy import of_textclf as fine_tuned

    with tempfile.TemporaryDirectory() as folder:
        network_with(fresh, seed=seed).save_pretrained(folder)
        transformers.AutoTokenizer.from_pretrained(minilm()).save_pretrained(folder)
        shutil.copytree(minilm() / "1_Pooling", Path(folder) / "1_Pooling")  # by which `auto` may take the mean
        return fine_tuned(dataset, {"max_rows": MAX_ROWS}, how, seed, model=folder)


def network_with(fresh: int, *, seed: int) -> Any:
    """MiniLM with its last `fresh` layers as they are before any training."""
    import torch
    import transformers

    network = transformers.AutoModel.from_pretrained(minilm())
    torch.manual_seed(seed)
    # A network of its own: transformers' initialisation passes over weights that were loaded, and says nothing.
    untrained = transformers.AutoModel.from_config(network.config)
    first = len(network.encoder.layer) - fresh
    for layer, new in zip(network.encoder.layer[first:], untrained.encoder.layer[first:], strict=True):
        layer.load_state_dict(new.state_dict())
    return network
