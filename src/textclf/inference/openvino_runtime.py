"""Encoded texts to logits with OpenVINO, on the CPU: in bf16 where it computes that. Imports neither torch nor
transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from textclf.artifact import graph
from textclf.artifact.folder import Artifact
from textclf.cpus import usable_cpus
from textclf.data.batching import Batch, micro_batches
from textclf.data.encoding import Encoded
from textclf.errors import MissingExtraError, ModelError
from textclf.inference.onnx_runtime import check_fit
from textclf.inference.passes import logits_in_passes

MAX_TOKENS = 1024
"""Padded tokens per forward pass, for each thread. With 512 or 2,048 MiniLM is a tenth slower or more."""

MAX_PADDING = 128
"""Padding tokens of a pass, for each thread; one more pass is cheaper than these."""

MICROSOFT = "com.microsoft"
FUSED = ("FusedMatMul", "FusedGemm", "BiasGelu", "FastGelu")
"""ONNX Runtime's own operations that OpenVINO computes as it does, tests say. Of another it might make something
else."""


class OpenVinoRuntime:
    """A finished classifier on the CPU, from its fp32 ONNX graph: in bf16, or in fp32 where the CPU has no bf16.

    Raises ModelError where OpenVINO does not take the graph, MissingExtraError without OpenVINO. Several threads may
    ask one runtime at a time.
    """

    def __init__(self, artifact: Artifact) -> None:
        openvino = require_openvino()
        self._threads = usable_cpus()
        core = openvino.Core()
        precision = "bf16" if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES") else "f32"
        settings = {
            "INFERENCE_PRECISION_HINT": precision,
            "INFERENCE_NUM_THREADS": self._threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,  # two processes would be pinned to the same cores
        }
        try:
            self._compiled = core.compile_model(core.read_model(_readable(artifact)), "CPU", settings)
        except RuntimeError as err:
            raise ModelError(
                f"{graph.graph_path(artifact.folder)} cannot be used by OpenVINO: {_reason(err)}",
                hint="use --runtime onnx or bf16",
            ) from err
        made_for = self._compiled.output(0).partial_shape[-1]
        self._pad_id = check_fit(artifact, made_for.get_length() if made_for.is_static else None)
        self._labels = len(artifact.label_set)
        self._inputs = {one.any_name for one in self._compiled.inputs}
        self._vocabulary = artifact.config.get("vocab_size")

    def logits(self, encoded: Encoded, on_progress: Callable[[int], None] | None = None) -> np.ndarray:
        """Logits in the order of the input: (rows, num_labels) float32. on_progress: told how many texts are done."""
        largest = max(self._pad_id, int(encoded.ids.max(initial=0)))
        if isinstance(self._vocabulary, int) and largest >= self._vocabulary:  # OpenVINO would compute something
            raise ModelError(
                f"OpenVINO cannot compute this graph: token {largest} is not among the {self._vocabulary} of the model",
                hint="copy the model folder again",
            )
        request = self._compiled.create_infer_request()

        def forward(batch: Batch) -> np.ndarray:
            given = graph.inputs(self._inputs, batch.input_ids, batch.attention_mask, batch.token_type_ids)
            try:
                return request.infer(given, share_inputs=True)[0]  # type: ignore[no-any-return]
            except RuntimeError as err:
                raise ModelError(
                    f"OpenVINO cannot compute this graph: {_reason(err)}", hint="use --runtime onnx or bf16"
                ) from err

        passes = micro_batches(
            np.arange(len(encoded)),
            encoded.lengths,
            max_tokens=MAX_TOKENS * self._threads,
            max_padding=MAX_PADDING * self._threads,
        )
        return logits_in_passes(
            forward, encoded, passes, labels=self._labels, pad_id=self._pad_id, on_progress=on_progress
        )


def _readable(artifact: Artifact) -> bytes:
    """The model's graph as OpenVINO reads it rightly. Raises ModelError where it is not known to."""
    from onnx import helper

    model = graph.whole(artifact.folder)
    nodes = []
    for node in model.graph.node:
        if node.domain == MICROSOFT and node.op_type not in FUSED:
            raise ModelError(
                f"{graph.graph_path(artifact.folder)}: OpenVINO has not been tried with {node.op_type}",
                hint="use --runtime onnx or bf16",
            )
        nodes.append(node)
        if node.op_type == "FusedGemm":
            # OpenVINO 2026.4 takes every activation in it but LeakyRelu for Relu: BERT's is Tanh.
            activation = next(one.s.decode() for one in node.attribute if one.name == "activation")
            kept = [one for one in node.attribute if not one.name.startswith("activation")]
            inner = f"{node.output[0]}/product"
            product = helper.make_node("Gemm", node.input, [inner], name=node.name)
            product.attribute.extend(kept)
            nodes[-1:] = [product, helper.make_node(activation, [inner], node.output)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def require_openvino() -> Any:
    """The package openvino. Raises MissingExtraError without it."""
    try:
        import openvino
    except ImportError as err:
        raise MissingExtraError(
            "--runtime openvino needs the package openvino", hint='install it: pip install "textclf[openvino]"'
        ) from err
    return openvino


def _reason(err: RuntimeError) -> str:
    """The last line that says something: those before it are places in OpenVINO's source."""
    return next((line for line in reversed(str(err).splitlines()) if line.strip()), "no reason given")
