"""Which head a run gets, and where it starts: the choice between linear probes, and what training needs after it."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from textclf.model.backbone import pretrained_pooling
from textclf.model.dropout import pool_dropout
from textclf.model.features import features
from textclf.model.norms import norms_in_autocast
from textclf.training.events import Notice, Observer, Phase, ignore
from textclf.training.probe import LinearProbe, clearly_better, fit_probe
from textclf.training.workbench import Workbench, needs_start


def choose_head(bench: Workbench, observe: Observer = ignore) -> Workbench:
    """Fit linear probes, take the head that `model.head` asks for or they speak for, and start it from its probe."""
    started = time.monotonic()
    wanted = bench.config.model.head
    classifier = bench.classifier
    own = classifier.head
    if not needs_start(classifier, wanted):
        observe(Notice("the model brings a head for these very labels; learning goes on from it"))
        return replace(with_head(bench, own), baseline=True)
    rows_N = bench.probe_rows
    if rows_N is None:
        return with_head(bench, "mean" if wanted == "mean" else own)
    probes = _probes(bench, rows_N, observe)
    head = "mean" if "mean" in probes and (own not in probes or clearly_better(probes["mean"], probes[own])) else own
    bench = with_head(bench, head)
    probes[head].start(bench.classifier.output_layer)
    spent = time.monotonic() - started
    found = ", ".join(f"{name} head {probe.right.mean():.3f} (C {probe.c:g})" for name, probe in probes.items())
    right = "subset accuracy" if bench.prepared.label_set.multi else "accuracy"
    observe(Notice(f"linear probe on {len(rows_N):,} texts in {spent:.0f} s: {right} when held out {found}"))
    if head != own:
        why = "as asked" if wanted == "mean" else "the model was pretrained with it, and the probe is clearly better"
        observe(
            Notice(
                f"head: the mean of the hidden states ({why}); plain transformers then needs trust_remote_code=True "
                "to load the model (--head own keeps the architecture's)"
            )
        )
    return replace(bench, baseline=True, spent=spent)


def with_head(bench: Workbench, head: str) -> Workbench:
    """The workbench with this head, `own` or `mean`, ready for training."""
    classifier, device = bench.classifier, bench.device
    if head == "mean" and classifier.head != "mean":
        torch.manual_seed(bench.config.train.seed)
        classifier.use_mean_head()
    if device.kind == "cpu":
        pool_dropout(classifier.network)
        norms_in_autocast(classifier.network)
    classifier.to(device.torch_device)
    # On a GPU, padded batches keep to the kernels that transformers chooses; see docs/explanation/training-speed.md.
    packs = (
        device.kind == "cpu"
        and not bench.config.train.gradient_checkpointing
        and classifier.try_packing(max_length=bench.max_length)
    )
    classifier.compact_vocabulary(bench.encoded.values())
    config = replace(bench.config, model=replace(bench.config.model, head=classifier.head))
    return replace(bench, config=config, packs=packs)


def _probes(bench: Workbench, rows_N: np.ndarray, observe: Observer) -> dict[str, LinearProbe]:
    """A probe for each head that is asked for: `own`, `mean` or both."""
    classifier, train, wanted = bench.classifier, bench.config.train, bench.config.model.head
    pooled = classifier.head == "own" and (
        wanted == "mean" or (wanted == "auto" and pretrained_pooling(bench.base.folder) == "mean")
    )
    own_ND, mean_ND = features(
        classifier,
        bench.encoded["train"].take(rows_N),
        pooled=pooled,
        autocast=bench.device.autocast,
        on_progress=lambda done: observe(Phase("features", done, len(rows_N))),
    )
    fit = partial(
        fit_probe,
        targets=bench.targets["train"][rows_N],
        label_set=bench.prepared.label_set,
        balanced=train.class_weights == "balanced",
        seed=train.seed,
    )
    probes: dict[str, LinearProbe] = {}
    if mean_ND is not None:
        probes["mean"] = fit(mean_ND, bias=True, scale=False)
    if wanted != "mean":
        # Raw hidden states are of any size; pooled ones have been brought to one.
        has_bias = classifier.output_layer.bias is not None
        probes[classifier.head] = fit(own_ND, bias=has_bias, scale=classifier.head == "own")
    return probes
