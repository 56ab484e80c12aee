"""A finished classifier to an ONNX graph: the computation alone, its weights left in model.safetensors.

Here and not in inference/, because training writes the graph of every model it makes, and the two do not know
each other.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedModel

import textclf
from textclf import atomic, paths
from textclf.artifact import folder as names
from textclf.artifact import graph
from textclf.artifact.folder import Artifact
from textclf.data.batching import Batch, collate
from textclf.data.encoding import Encoded
from textclf.errors import ModelError, ResourceError
from textclf.model.classifier import Classifier

MAX_BYTES = 1 << 30
"""Weights of a model that gets a graph. Larger ones want a GPU, and to trace and check them would take minutes."""

MAX_DIFFERENCE = 1e-4
"""Between the logits of the graph and of torch, as a share of the largest logit where that is above 1."""

DIGEST_BYTES = 32
"""SHA-256 of an outline, before it in its file."""

MAX_CHECKED = 64
"""Texts that a graph is checked on."""

# Slower than the two nodes that it replaces: 397 against 452 texts/s for MiniLM (ONNX Runtime 1.31, AVX-512).
_SLOWER_FUSIONS = ["SkipLayerNormFusion"]


def write_graph(artifact: Artifact, encoded: Encoded, *, head: str | None = None) -> None:
    """Write the ONNX graph of an artifact, once it gives what torch gives.

    encoded: real texts to check it on; of many, a few dozen of all lengths are taken. head: the code of its head.
    Raises ModelError, its message one line for the user, where the model is too large, its architecture cannot be
    traced, or the graph's answers differ; the folder then is as it was.
    """
    weights = artifact.folder / names.WEIGHTS
    if not weights.is_file() or weights.stat().st_size > MAX_BYTES:
        raise ModelError(f"no ONNX graph: the weights are larger than {MAX_BYTES >> 30} GB; predict will use torch")
    classifier = Classifier.from_artifact(artifact, head=head)
    if classifier.reading.alone:
        raise ModelError(
            f"no ONNX graph: a {classifier.network.config.model_type} model answers differently for texts that are "
            "padded; predict will use torch"
        )
    types = encoded.second is not None and classifier.tells_types
    batches = _sample(encoded, classifier.pad_id)
    with torch.inference_mode():
        expected = [classifier(batch).numpy() for batch in batches]
    with suppress(ValueError):  # an architecture that has one way only
        # Plain matrix products: fewer nodes than what PyTorch's fused attention unfolds into, and as exact.
        classifier.network.set_attn_implementation("eager")

    def linked(outline: bytes) -> tuple[bytes, float]:
        document = _linked(outline, classifier.network, weights)
        return document, _difference(document, weights, batches, expected)

    outline, document, difference = _kept(classifier, types=types), b"", np.inf
    if outline is not None:
        with suppress(Exception):  # whatever is wrong with it, there is another way
            document, difference = linked(outline)
    if not difference <= MAX_DIFFERENCE:
        outline = _outline(classifier, types=types)
        document, difference = linked(outline)
        if not difference <= MAX_DIFFERENCE:
            raise ModelError(
                f"no ONNX graph: its logits differ from torch's by {difference:.1e}; predict will use torch"
            )
        _keep(outline, classifier, types=types)
    with atomic.new_file(artifact.folder / names.GRAPH) as file:
        file.write(document)
    facts = {"layout": graph.layout(weights), "torch": torch.__version__, "rows": sum(map(len, batches))}
    graph.write_facts(artifact.folder, fp32={**facts, "max_difference": float(f"{difference:.1e}")})


def _difference(document: bytes, weights: Path, batches: list[Batch], expected: list[np.ndarray]) -> float:
    """How far a graph's logits are from these, at most, as a share of the largest where that is above 1."""
    with tempfile.TemporaryDirectory() as scratch:
        draft = Path(scratch)
        (draft / names.WEIGHTS).symlink_to(weights.resolve())
        (draft / names.GRAPH).parent.mkdir()
        (draft / names.GRAPH).write_bytes(document)
        session = graph.open_session(draft)
        got = [graph.run(session, batch.input_ids, batch.attention_mask, batch.token_type_ids) for batch in batches]
    return max(float(np.abs(a - b).max() / max(1.0, np.abs(a).max())) for a, b in zip(expected, got, strict=True))


def _kept(classifier: Classifier, *, types: bool) -> bytes | None:
    """The outline of a network of this shape that was traced before; None where there is none that is whole."""
    try:
        document = _place(classifier, types=types).read_bytes() if _may_be_kept(classifier.network) else b""
    except (OSError, RuntimeError):  # a loop of links
        return None
    digest, outline = document[:DIGEST_BYTES], document[DIGEST_BYTES:]
    return outline if digest == hashlib.sha256(outline).digest() else None


def _keep(outline: bytes, classifier: Classifier, *, types: bool) -> None:
    """Keep an outline for `_kept`, where that can be done: the next run can do without."""
    if _may_be_kept(classifier.network):
        with suppress(OSError, RuntimeError, ResourceError), atomic.new_file(_place(classifier, types=types)) as file:
            file.write(hashlib.sha256(outline).digest() + outline)


def _may_be_kept(network: PreTrainedModel) -> bool:
    """Whether `_place` tells a network from all others: not where code from elsewhere computes, which may be another
    tomorrow, nor where buffers are learnt, as they are constants of the graph."""
    packages = {type(module).__module__.partition(".")[0] for module in network.modules()}
    learnt = network.state_dict().keys() - {name for name, _ in network.named_parameters(remove_duplicate=False)}
    return packages <= {"textclf", "torch", "transformers"} and not learnt


def _place(classifier: Classifier, *, types: bool) -> Path:
    """Where the outline of a network is kept. Its name is made of everything about the network but its weights and what
    its labels are called."""
    import onnx
    import onnxruntime
    import onnxscript

    network = classifier.network
    config = network.config.to_dict()
    called = ("id2label", "label2id", "_name_or_path", "architectures")
    known = {
        "config": {name: value for name, value in config.items() if name not in called},
        "modules": repr(network),
        "parameters": [(name, list(one.shape)) for name, one in network.named_parameters(remove_duplicate=False)],
        "types": types,
        "versions": [one.__version__ for one in (textclf, torch, transformers, onnx, onnxscript, onnxruntime)],
    }
    digest = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()
    return paths.cache_dir() / "graphs" / f"{digest[:32]}.bin"


def _outline(classifier: Classifier, *, types: bool) -> bytes:
    """The network as an ONNX graph whose weights are inputs: what it does with any weights. Takes seconds."""
    with tempfile.TemporaryDirectory() as scratch:
        return _optimised(_traced(classifier, types=types), classifier.network, Path(scratch))


class _Logits(nn.Module):
    """The classifier with tensors in and one tensor out, which is what a graph has; its weights are the network's."""

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.network = classifier.network
        self._logits = classifier.logits

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        return self._logits(input_ids, attention_mask, token_type_ids)


def _traced(classifier: Classifier, *, types: bool) -> Any:
    """The network as an ONNX model, its weights by name. types: with token_type_ids as a third input."""
    network = classifier.network
    input_ids_BT = torch.randint(1, 50, (2, 16))
    mask_BT = torch.ones_like(input_ids_BT)
    mask_BT[1, 10:] = 0
    inputs = [input_ids_BT, mask_BT, torch.zeros_like(input_ids_BT)][: 3 if types else 2]
    anything = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    try:
        with torch.no_grad(), _quiet():
            program = torch.onnx.export(
                _Logits(classifier).eval(),
                tuple(inputs),
                input_names=list(graph.INPUTS[: len(inputs)]),
                output_names=[graph.OUTPUT],
                dynamic_shapes=(anything,) * len(inputs),
                dynamo=True,
                optimize=False,  # it would fold weights into new ones, which lie in no file
                verbose=False,
            )
        return program.model_proto  # type: ignore[union-attr]
    except Exception as err:  # whatever tracing meets in a foreign architecture
        raise ModelError(
            f"no ONNX graph: torch {torch.__version__} cannot trace a {network.config.model_type} model "
            f"({type(err).__name__}); predict will use torch"
        ) from err


def _optimised(model: Any, network: PreTrainedModel, scratch: Path) -> bytes:
    """The graph optimised, for any CPU.

    While the optimiser works the weights are inputs, of which it knows only the shape: what it makes of the graph
    then holds for any weights, and refers to them by name.
    """
    import onnx
    import onnxruntime as ort

    named = {f"network.{name}" for name, _ in network.named_parameters(remove_duplicate=False)}
    tensors = list(model.graph.initializer)
    del model.graph.initializer[:]
    for tensor in tensors:
        if tensor.name in named:
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            model.graph.input.append(value)
        else:
            model.graph.initializer.append(tensor)  # a buffer, a constant
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(scratch / "optimised")
    try:
        ort.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"], disabled_optimizers=_SLOWER_FUSIONS
        )
    except Exception as err:  # ONNX Runtime's own kinds derive from nothing but Exception
        raise ModelError(
            f"no ONNX graph: ONNX Runtime {ort.__version__} does not take a {network.config.model_type} model; "
            "predict will use torch"
        ) from err
    return (scratch / "optimised").read_bytes()


def _linked(outline: bytes, network: PreTrainedModel, weights: Path) -> bytes:
    """An outline with every weight a reference to its place in the file."""
    import onnx

    named = {f"network.{name}": parameter for name, parameter in network.named_parameters(remove_duplicate=False)}
    optimised = onnx.load_from_string(outline)
    places = graph.places(weights)
    in_file = {network.get_parameter(name).data_ptr(): place for name, place in places.items() if _has(network, name)}
    inputs = [value for value in optimised.graph.input if value.name not in graph.INPUTS]
    for value in inputs:
        optimised.graph.input.remove(value)
        parameter = named[value.name]
        if [size.dim_value for size in value.type.tensor_type.shape.dim] != list(parameter.shape):
            raise ModelError(f"no ONNX graph: its outline is of another network than {weights}")
        place = in_file.get(parameter.data_ptr())  # by address: of tied weights only one is in the file
        if place is None or place.dtype != "F32" or place.shape != list(parameter.shape):
            raise ModelError(
                f"no ONNX graph: {value.name.removeprefix('network.')} is not in {weights.name} in fp32; "
                "predict will use torch"
            )
        tensor = optimised.graph.initializer.add(
            name=value.name, data_type=onnx.TensorProto.FLOAT, dims=parameter.shape
        )
        graph.refer(tensor, place)
    return bytes(optimised.SerializeToString())


def _has(network: nn.Module, name: str) -> bool:
    try:
        network.get_parameter(name)
    except AttributeError:  # a buffer
        return False
    return True


def _sample(encoded: Encoded, pad_id: int) -> list[Batch]:
    """Texts of all lengths, a few at a time, so that every batch has padding."""
    by_length = np.argsort(encoded.lengths, kind="stable")
    chosen = by_length[np.linspace(0, len(by_length) - 1, min(MAX_CHECKED, len(by_length))).astype(np.int64)]
    return [collate(encoded, chosen[start : start + 8], pad_id=pad_id) for start in range(0, len(chosen), 8)]


@contextmanager
def _quiet() -> Iterator[None]:
    """No word of the exporter's about what it does, what it lacks and what it will become."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
