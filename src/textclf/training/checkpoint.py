"""The whole state of a run, saved so that it goes on as if it had never stopped. safetensors and JSON only."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.optim import Optimizer

from textclf import atomic
from textclf.errors import ModelError
from textclf.model.classifier import Classifier
from textclf.training.averaging import WeightAverage

WEIGHTS = "weights.safetensors"
AVERAGE = "average.safetensors"
OPTIMIZER = "optimizer.safetensors"
STATE = "state.json"
START = "step-0"
"""The checkpoint of a classifier that could answer before its first step."""


@dataclass
class Progress:
    """Where a run stands; all that is not a tensor.

    step: optimizer steps done. evaluated_step: when validation was last scored. loss: mean of the last steps,
    whose own are in `recent`. seconds: training time so far, over all sittings. best_score, best_loss: of the
    checkpoint at best_step on validation, the score being higher for better. stale: evaluations since the score
    last rose. scaler: of fp16, or None. parts: how many pieces a micro-batch is cut into, more than 1 after the device
    ran out of memory. surroundings: what exactness depends on besides data and settings; see exactness.py.
    The order of texts and the random numbers of a step follow from the seed and the step alone.
    """

    step: int = 0
    evaluated_step: int = 0
    loss: float = 0.0
    recent: list[float] = field(default_factory=list)
    seconds: float = 0.0
    best_score: float | None = None
    best_loss: float | None = None
    best_step: int | None = None
    stale: int = 0
    stopped_early: str | None = None
    finished: bool = False
    scaler: dict[str, Any] | None = None
    parts: int = 1
    surroundings: dict[str, str] = field(default_factory=dict)


def save(
    folder: Path,
    progress: Progress,
    classifier: Classifier,
    optimizer: Optimizer,
    average: WeightAverage | None,
    *,
    keep: int,
) -> None:
    """Write `step-N` under `folder`, then delete all but the newest `keep`, the best and `START`.

    What lies ahead of it goes too: a run that began again before it will write it anew. With `keep` 1 the new one is
    read back and verified before the other goes.
    """
    path = folder / f"step-{progress.step}"
    with atomic.new_folder(path, manifest=True) as draft:
        _write({name: tensor.contiguous() for name, tensor in _weights(classifier).items()}, draft / WEIGHTS)
        if average is not None:
            _write(average.tensors(), draft / AVERAGE)
        _write(_optimizer_tensors(classifier, optimizer), draft / OPTIMIZER)
        atomic.write_json(draft / STATE, asdict(progress))
    if keep == 1 and atomic.verify(path) is not None:
        return
    kept = [step for step in _steps(folder) if step <= progress.step][-keep:]
    for step in _steps(folder):
        if step not in (0, *kept, progress.best_step):
            shutil.rmtree(folder / f"step-{step}", ignore_errors=True)


def expected_bytes(classifier: Classifier, *, averaging: bool) -> int:
    """What one checkpoint takes on disk: all weights, and of those that learn two moments and perhaps their mean."""
    sizes = [(one.numel(), one.requires_grad) for one in classifier.parameters()]
    learning = sum(count for count, learns in sizes if learns)
    return 4 * (sum(count for count, _ in sizes) + (2 + averaging) * learning)


def newest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that is whole, and a line for each newer one that is not."""
    damaged: list[str] = []
    for step in reversed(_steps(folder)):
        path = folder / f"step-{step}"
        problem = atomic.verify(path)
        if problem is None:
            return path, damaged
        damaged.append(f"checkpoint {path.name} is damaged ({problem}) and was passed over")
    return None, damaged


def progress_of(path: Path) -> Progress:
    """Where a run stood at a checkpoint. Raises ModelError where that cannot be read."""
    try:
        return Progress(**json.loads((path / STATE).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as err:
        raise ModelError(f"{path}: its {STATE} cannot be read: {err}", hint="start anew with --overwrite") from err


def load(path: Path, classifier: Classifier, optimizer: Optimizer, average: WeightAverage | None) -> Progress:
    """Put the state of a checkpoint into all that learns. Raises ModelError if it does not fit."""
    progress = progress_of(path)
    _load_weights(path, WEIGHTS, classifier)
    try:
        if average is not None:
            kept = load_file(path / AVERAGE)
            for name, mean in average.tensors().items():
                mean.copy_(kept[name])
        tensors = load_file(path / OPTIMIZER)
        names = {parameter: name for name, parameter in classifier.named_parameters()}
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                prefix = names[parameter] + "/"
                state = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
                if state:
                    # AdamW counts its steps in a tensor on the CPU, or beside the parameter when fused on CUDA.
                    optimizer.state[parameter] = {key: value.to(parameter.device) for key, value in state.items()}
    except (SafetensorError, OSError, KeyError, RuntimeError) as err:
        raise ModelError(
            f"{path}: the checkpoint does not fit this model: {err}", hint="start anew with --overwrite"
        ) from err
    return progress


def load_best(path: Path, classifier: Classifier) -> None:
    """Put the weights that a checkpoint was judged by into the classifier. Raises ModelError where it is damaged."""
    _check_whole(path)
    _load_weights(path, WEIGHTS, classifier)
    if (path / AVERAGE).is_file():
        _load_weights(path, AVERAGE, classifier)


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint by their names, on the CPU. Raises ModelError where it is damaged."""
    _check_whole(path)
    return load_file(path / WEIGHTS)


def _check_whole(path: Path) -> None:
    problem = atomic.verify(path)
    if problem is not None:
        raise ModelError(f"checkpoint {path.name} is damaged ({problem})", hint="start anew with --overwrite")


def _load_weights(path: Path, name: str, classifier: Classifier) -> None:
    try:
        classifier.load_state_dict(load_file(path / name), strict=False)
    except (SafetensorError, OSError, RuntimeError) as err:
        raise ModelError(
            f"{path}: the checkpoint does not fit this model: {err}", hint="start anew with --overwrite"
        ) from err


def _steps(folder: Path) -> list[int]:
    if not folder.is_dir():
        return []
    names = (child.name.removeprefix("step-") for child in folder.iterdir() if child.name.startswith("step-"))
    return sorted(int(name) for name in names if name.isdecimal())


def _weights(classifier: Classifier) -> dict[str, torch.Tensor]:
    # Tied weights are one tensor under two names; safetensors takes each tensor once.
    parameters = dict(classifier.named_parameters(remove_duplicate=True))
    buffers = {name: buffer for name, buffer in classifier.state_dict().items() if name not in parameters}
    seen = {parameter.data_ptr() for parameter in parameters.values()}
    return {**parameters, **{name: buffer for name, buffer in buffers.items() if buffer.data_ptr() not in seen}}


def _optimizer_tensors(classifier: Classifier, optimizer: Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{name}/{key}": value
        for name, parameter in classifier.named_parameters()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, torch.Tensor)
    }


def _write(tensors: dict[str, torch.Tensor], path: Path) -> None:
    save_file({name: tensor.detach() for name, tensor in tensors.items()}, path)
