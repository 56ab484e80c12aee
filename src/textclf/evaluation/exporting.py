"""export(): the ONNX graphs of a finished model, and what int8 costs in answers."""

from __future__ import annotations

import csv
import dataclasses
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from textclf import atomic, presets
from textclf.artifact import folder, graph, hub, runs
from textclf.artifact.folder import Artifact
from textclf.artifact.runs import Run
from textclf.data.encoding import Encoded, encode, encode_rows
from textclf.data.rows import Rows
from textclf.errors import RefusedError, UsageError
from textclf.evaluation.evaluation import labelled_rows, targets
from textclf.inference.onnx_runtime import OnnxRuntime
from textclf.inference.quantization import LEVELS, quantize
from textclf.inference.rechecking import close
from textclf.inference.runtimes import check_head, margin_of
from textclf.metrics import measure

AIM = 0.995
"""Agreement with fp32 that int8 gives up some of its speed for."""

LEAST = 0.97
"""Agreement under which an int8 graph is refused."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """The graphs that a model folder then has.

    written: kinds written by this call, of fp32 and int8; () where they were there.
    graphs: kind -> what is recorded of it, as in onnx/graph.json.
    """

    model: str
    folder: Path
    written: tuple[str, ...]
    graphs: dict[str, dict[str, Any]]


def export(
    model: str | Path | Run | None = None,
    *,
    int8: bool = False,
    dataset: str | Path | None = None,
    split: str | None = None,
    text_column: str | None = None,
    text_pair_column: str | None = None,
    label_column: str | None = None,
    label_delimiter: str | None = None,
    label_columns: tuple[str, ...] | None = None,
    columns: tuple[str, ...] | None = None,
    force: bool = False,
    head: str | None = None,
) -> Exported:
    """Write the ONNX graph of a model that lacks it, and with `int8` one that is faster and nearly as good.

    model: run, run name or folder; None is the latest finished run. dataset, split: labelled texts on which int8 is
    compared with fp32; None is the validation split of the run's own data. text_column to columns: of dataset, as for
    `evaluate`; where any is given, an int8 graph that is there is made and measured anew. force: keep an int8 graph
    whatever it costs. head: as for `load`.

    Raises ModelError where the architecture has no graph, UsageError for a model of the Hub's cache or where int8 has
    no texts to be measured on, RefusedError where int8 agrees with fp32 on less than 97 % of them.
    """
    artifact = folder.read(hub.locate(model))
    if (artifact.folder / folder.WEIGHTS).is_symlink():
        raise UsageError(
            f"{artifact.folder} is in the Hub's cache, which is not ours to write to",
            hint="copy the folder with `cp -rL`, then export the copy",
        )
    check_head(artifact, head)
    written = []
    if not graph.belongs(artifact.folder):
        from textclf.model.exporting import write_graph  # torch: 3 s, and only where there is no graph yet

        write_graph(artifact, _ordinary_texts(artifact), head=head)
        written.append("fp32")
    named = (dataset, split, text_column, text_pair_column, label_column, label_delimiter, label_columns, columns)
    # Texts that were named are asked about, also where an int8 graph was measured on others before.
    asked = force or any(one is not None for one in named)
    if int8 and (asked or not graph.belongs(artifact.folder, "int8")):
        rows, split, name = labelled_rows(
            artifact,
            dataset,
            split or "validation",
            text_column=text_column,
            text_pair_column=text_pair_column,
            label_column=label_column,
            label_delimiter=label_delimiter,
            label_columns=label_columns,
            columns=columns,
        )
        _write_int8(artifact, rows, dataset=name, split=split, force=force)
        written.append("int8")
    return Exported(
        model=runs.title(artifact.folder),
        folder=artifact.folder,
        written=tuple(written),
        graphs={
            kind: (graph.read_facts(artifact.folder) or {})[kind]
            for kind in ("fp32", "int8")
            if graph.belongs(artifact.folder, kind)
        },
    )


def _ordinary_texts(artifact: Artifact) -> Encoded:
    """Texts that come with textclf: to compare two runtimes, any texts of people do."""
    with presets.dataset_path("quickstart").open(encoding="utf-8", newline="") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    # One as long as the model reads, too.
    texts.append(" ".join(texts))
    pairs = None if artifact.form == "text" else texts[::-1]
    return encode(texts, artifact.tokenizer(), pairs=pairs, max_length=artifact.max_length, prompt=artifact.prompt)


def _write_int8(artifact: Artifact, rows: Rows, *, dataset: str, split: str, force: bool) -> None:
    label_set = artifact.label_set
    targets_N = targets(rows, label_set)
    encoded = encode_rows(
        rows, artifact.tokenizer(), max_length=artifact.max_length, prompt=artifact.prompt, overflow=artifact.overflow
    )
    exact_RC, margin = OnnxRuntime(artifact).logits(encoded), margin_of(artifact, "int8")
    exact_NC = label_set.probabilities(encoded.per_text(exact_RC))
    with tempfile.TemporaryDirectory(dir=artifact.folder.parent, prefix=".int8.") as scratch:
        draft = dataclasses.replace(artifact, folder=Path(scratch))
        (draft.folder / folder.WEIGHTS).symlink_to((artifact.folder / folder.WEIGHTS).resolve())
        for level in LEVELS:
            quantize(artifact.folder, draft.folder, level=level)
            rough_RC = OnnxRuntime(draft, kind="int8").logits(encoded)
            alone = label_set.agreement(label_set.probabilities(encoded.per_text(rough_RC)), exact_NC)
            again_N = close(rough_RC, encoded, label_set, margin=margin)
            rows_R = encoded.rows_of(np.flatnonzero(again_N))
            rough_RC[rows_R] = exact_RC[rows_R]
            rough_NC = label_set.probabilities(encoded.per_text(rough_RC))
            agreement = label_set.agreement(rough_NC, exact_NC)
            if agreement >= AIM:
                break
        if agreement < LEAST and not force:
            raise RefusedError(
                f"int8 gives another label than fp32 to {1 - agreement:.1%} of the {len(rows):,} texts of {split}; "
                f"up to {1 - LEAST:.0%} is accepted",
                hint="--runtime bf16 loses less; --force keeps the int8 graph all the same",
            )
        with (
            atomic.new_file(artifact.folder / folder.GRAPH_INT8) as file,
            (draft.folder / folder.GRAPH_INT8).open("rb") as made,
        ):
            shutil.copyfileobj(made, file)
    before, after = (measure(targets_N, probs_NC, label_set) for probs_NC in (exact_NC, rough_NC))
    facts = {
        "weights": atomic.sha256(artifact.folder / folder.WEIGHTS),
        "level": level,
        "dataset": dataset,
        "split": split,
        "rows": len(rows),
        "agreement": agreement,
        **({"agreement_alone": alone, "computed_again": float(again_N.mean())} if margin else {}),
        **{name: {"fp32": getattr(before, name), "int8": getattr(after, name)} for name in before.HEADLINE},
    }
    graph.write_facts(artifact.folder, int8=facts)
