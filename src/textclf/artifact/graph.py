"""The ONNX graph of a model folder: whether it belongs to the weights beside it, and a session of it.

The graph holds the computation only. Its weights are those of model.safetensors, which ONNX Runtime maps into
memory: nothing lies on the disk twice, and a session starts without reading what it does not need.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from textclf import atomic
from textclf.artifact import folder as names
from textclf.artifact import integrity
from textclf.errors import ModelError

if TYPE_CHECKING:
    import onnxruntime

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""The last of them only in the graph of a model of text pairs that tells the two texts apart."""
OUTPUT = "logits"

SCHEMA_VERSION = 1
_CHECKSUM = "checksum"


def read_facts(folder: Path) -> dict[str, Any] | None:
    """What is recorded of the graphs in a model folder, None where there are none or they are not for us to read.

    `fp32` and `int8`, where there is such a graph, hold `layout` or `weights`, by which it knows its weights, and
    how it was checked: see docs/reference/files.md.
    """
    try:
        document = json.loads((folder / names.GRAPH_FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("schema_version") != SCHEMA_VERSION:
        return None
    has_digests = any(isinstance(facts, dict) and "sha256" in facts for facts in document.values())
    is_whole = document.get(_CHECKSUM) == signed(document)[_CHECKSUM]
    return document if is_whole or not (has_digests or _CHECKSUM in document) else None  # early graphs had neither


def write_facts(folder: Path, **graphs: dict[str, Any]) -> None:
    """Record what is known of graphs by name, and the SHA-256 of each, beside what is recorded of others."""
    known = {kind: {**facts, "sha256": atomic.sha256(graph_path(folder, kind))} for kind, facts in graphs.items()}
    document = {**(read_facts(folder) or {}), **known, "schema_version": SCHEMA_VERSION}
    atomic.write_json(folder / names.GRAPH_FACTS, signed(document))


def signed(document: dict[str, Any]) -> dict[str, Any]:
    """What is recorded of graphs, with a checksum of it, by which `read_facts` knows that it is whole."""
    bare = {key: value for key, value in document.items() if key != _CHECKSUM}
    return {**bare, _CHECKSUM: hashlib.sha256(json.dumps(bare, sort_keys=True).encode()).hexdigest()}


def belongs(folder: Path, kind: str = "fp32") -> bool:
    """Whether a model folder has a whole graph of this kind (fp32 or int8) that was made from the weights in it.

    The fp32 graph reads its weights from the file, so that file's layout decides; the int8 graph holds
    rounded weights of its own, so the whole file does.
    """
    facts = (read_facts(folder) or {}).get(kind)
    weights = folder / names.WEIGHTS
    if not isinstance(facts, dict) or not graph_path(folder, kind).is_file() or not weights.is_file():
        return False
    name = graph_path(folder, kind).relative_to(folder).as_posix()
    if facts.get("sha256", found := integrity.digests(folder, (name,))[name]) != found:
        return False
    if kind == "fp32":
        return bool(facts.get("layout") == layout(weights))
    return bool(facts.get("weights") == integrity.digests(folder, (names.WEIGHTS,))[names.WEIGHTS])


def graph_path(folder: Path, kind: str = "fp32") -> Path:
    """Where the graph of a kind lies."""
    return folder / {"fp32": names.GRAPH, "int8": names.GRAPH_INT8}[kind]


@dataclass(frozen=True)
class Place:
    """Where a tensor lies in a safetensors file: offset and length in bytes from the file's start."""

    dtype: str
    shape: list[int]
    offset: int
    length: int


def places(weights: Path) -> dict[str, Place]:
    """Every tensor of a safetensors file by name."""
    with weights.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    header.pop("__metadata__", None)
    found = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        found[name] = Place(entry["dtype"], entry["shape"], 8 + size + start, end - start)
    return found


def refer(tensor: Any, place: Place) -> None:
    """Make an ONNX tensor refer to its place in the model folder's weights instead of holding values."""
    tensor.ClearField("raw_data")
    tensor.data_location = tensor.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", names.WEIGHTS), ("offset", place.offset), ("length", place.length)):
        tensor.external_data.add(key=key, value=str(value))


def whole(folder: Path) -> Any:
    """The fp32 graph as an ONNX model with its weights in it, for what reads no safetensors.

    Raises ModelError where it asks for more than its weights.
    """
    import onnx

    try:
        model = onnx.load_from_string(graph_path(folder).read_bytes())
        values = np.memmap(folder / names.WEIGHTS, dtype=np.uint8, mode="r")
        for tensor in model.graph.initializer:
            if tensor.data_location == tensor.EXTERNAL:
                place = {entry.key: entry.value for entry in tensor.external_data}
                start, length = int(place["offset"]), int(place["length"])
                if place["location"] != names.WEIGHTS or not 0 <= start <= start + length <= len(values):
                    raise ValueError(f"{tensor.name} is not in {names.WEIGHTS}")
                tensor.ClearField("external_data")
                tensor.ClearField("data_location")
                tensor.raw_data = values[start : start + length].tobytes()
        # What is left outside would be looked for in the folder that the process runs in.
        if any(tensor.data_location == tensor.EXTERNAL for tensor in _tensors(model)):
            raise ValueError("some of its constants lie elsewhere")
        return model
    except Exception as err:  # protobuf's own kinds derive from nothing but Exception
        raise ModelError(
            f"{graph_path(folder)} cannot be used: {err}", hint="write it anew: textclf export MODEL"
        ) from err


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor in an ONNX message, however deep."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if hasattr(value, "add") else (value,):  # repeated or single
                yield from _tensors(part)


def layout(weights: Path) -> str:
    """SHA-256 of where each tensor lies in a safetensors file, and of the file's size."""
    with weights.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = file.read(min(size, 1 << 27))
    return hashlib.sha256(header + str(weights.stat().st_size).encode()).hexdigest()


def open_session(folder: Path, kind: str = "fp32", *, threads: int = 1) -> onnxruntime.InferenceSession:
    """A session on the CPU. The graph was optimised when it was written: nothing is searched for again here.

    Raises ModelError where ONNX Runtime does not take the graph.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_mem_pattern = False  # plans for one shape; ours change with every batch
    options.add_session_config_entry("session.force_spinning_stop", "1")  # between batches the CPU is the tokenizer's
    weights = folder / names.WEIGHTS
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder.resolve()))
    if weights.resolve().parent != folder.resolve():
        # A snapshot in the Hub's cache is made of links, and ONNX Runtime rightly follows none out of its folder.
        with weights.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        options.add_external_initializers_from_files_in_memory([names.WEIGHTS], [content], [len(content)])
    try:
        # From bytes: a path would make its own folder the one that weights are looked for in.
        return ort.InferenceSession(graph_path(folder, kind).read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as err:  # ONNX Runtime's own kinds derive from nothing but Exception
        first = str(err).strip().split("\n", 1)[0]
        raise ModelError(
            f"{graph_path(folder, kind)} cannot be used: {first}", hint="write it anew: textclf export MODEL"
        ) from err


def run(
    session: onnxruntime.InferenceSession,
    input_ids: np.ndarray,
    attention_mask: np.ndarray,
    token_type_ids: np.ndarray | None = None,
) -> np.ndarray:
    """Logits of one batch: int64 arrays (batch, tokens) to (batch, num_labels) float32. What the graph has no input for
    is left out. Raises ModelError where ONNX Runtime fails, such as for a token that the graph does not know."""
    wanted = [one.name for one in session.get_inputs()]
    try:
        return session.run([OUTPUT], inputs(wanted, input_ids, attention_mask, token_type_ids))[0]  # type: ignore[no-any-return]
    except Exception as err:  # ONNX Runtime's own kinds derive from nothing but Exception
        first = str(err).strip().split("\n", 1)[0]
        raise ModelError(
            f"ONNX Runtime cannot compute this graph: {first}", hint="copy the model folder again"
        ) from err


def inputs(
    wanted: Collection[str],
    input_ids: np.ndarray,
    attention_mask: np.ndarray,
    token_type_ids: np.ndarray | None = None,
) -> dict[str, np.ndarray]:
    """A batch by the names of a graph's inputs; of what it has no input for, nothing."""
    if token_type_ids is None:  # single texts
        token_type_ids = np.zeros_like(input_ids)
    given = zip(INPUTS, (input_ids, attention_mask, token_type_ids), strict=True)
    return {name: values for name, values in given if name in wanted}
