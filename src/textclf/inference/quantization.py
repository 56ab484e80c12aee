"""The fp32 ONNX graph to one in which matrix products are computed in int8. Needs onnx; no torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from textclf import atomic
from textclf.artifact import folder as names

LEVELS = ("all products", "all but down-projections")
"""What is computed in int8, the fastest first. What enters a down-projection (its input is wider than its output) has
passed an activation function and has few large values among many small ones, which 8 bits for all of them tell badly:
for MiniLM on banking77 it costs 0.4 % of the labels to quantise them, before close answers are computed again."""

_PRODUCTS = ("FusedMatMul", "Gemm")
"""x @ W.T, as torch keeps a linear layer, and x @ W + bias, as GPT-2 does."""

_LARGEST = 63
"""Of a quantised weight: 7 bits. With 8, CPUs without VNNI overflow where two products are added in 16 bits."""


def quantize(folder: Path, destination: Path, *, level: str = LEVELS[0]) -> None:
    """Write the int8 graph of a model folder, whose fp32 graph must be there, into the folder `destination`.

    Weights are rounded once, with a scale for each output; inputs at each product, with a scale for all of it.
    Embeddings and norms stay in model.safetensors.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load(folder / names.GRAPH, load_external_data=False)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    rounded: set[str] = set()
    values = np.memmap(folder / names.WEIGHTS, dtype=np.uint8, mode="r")
    for node in list(model.graph.node):
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        weight = tensors.get(node.input[1]) if node.op_type in _PRODUCTS else None
        # Transposed and scaled products of activations are others. The few Gemm with W.T belong to heads.
        transposed = attributes.get("transB", 0) == 1
        scaled = attributes.get("alpha", 1.0) != 1.0 or attributes.get("beta", 1.0) != 1.0 or attributes.get("transA")
        if weight is None or weight.data_location != TensorProto.EXTERNAL:  # no weight of the network
            continue
        if transposed != (node.op_type == "FusedMatMul") or scaled:
            continue
        outputs, inputs = weight.dims if transposed else weight.dims[::-1]
        if level == LEVELS[1] and inputs > outputs:
            continue
        if weight.name not in rounded:  # ALBERT's layers share theirs
            rounded.add(weight.name)
            place = {entry.key: int(entry.value) for entry in weight.external_data if entry.key != "location"}
            raw = values[place["offset"] : place["offset"] + place["length"]]
            weight_ON = np.frombuffer(raw.tobytes(), dtype=np.float32).reshape(weight.dims)
            weight_ON = weight_ON if transposed else weight_ON.T
            scale_O = np.maximum(np.abs(weight_ON).max(axis=1) / _LARGEST, np.finfo(np.float32).tiny)
            rounded_IO = np.ascontiguousarray(np.rint(weight_ON / scale_O[:, None]).astype(np.int8).T)
            model.graph.initializer.extend(
                (
                    numpy_helper.from_array(rounded_IO, weight.name + ".int8"),
                    numpy_helper.from_array(scale_O.astype(np.float32), weight.name + ".scale"),
                )
            )
        bias = ["", *node.input[2:]] if len(node.input) > 2 else []  # after zero points, of which there are none
        node.op_type, node.domain = "DynamicQuantizeMatMul", "com.microsoft"
        del node.attribute[:]
        node.input[:] = [node.input[0], weight.name + ".int8", weight.name + ".scale", *bias]
    used = {name for node in model.graph.node for name in node.input}
    for tensor in list(model.graph.initializer):
        if tensor.name not in used and tensor.data_location == TensorProto.EXTERNAL:
            model.graph.initializer.remove(tensor)
    with atomic.new_file(destination / names.GRAPH_INT8) as file:
        file.write(model.SerializeToString())
