"""Which head a run gets, and where it starts: the choice between linear probes, and what training needs after it."""

from __future__ import annotations

import hashlib
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import torch
from threadpoolctl import threadpool_limits

from textclf.data.encoding import Encoded
from textclf.model.backbone import pretrained_pooling
from textclf.model.classifier import Classifier
from textclf.model.dropout import pool_dropout
from textclf.model.features import features
from textclf.model.head_code import is_code
from textclf.model.modeling_textclf import POOLINGS
from textclf.training.events import Notice, Observer, Phase, ignore
from textclf.training.probe import Regression, clearly_better
from textclf.training.workbench import Workbench, asked_head, needs_start


def choose_head(bench: Workbench, observe: Observer = ignore) -> Workbench:
    """Fit linear probes, take the head that `model.head` asks for or they speak for, and start it from its probe."""
    started = time.monotonic()
    classifier, config = bench.classifier, bench.config.model
    own, asked = classifier.head, asked_head(bench.classifier, bench.config.model)
    if not needs_start(classifier, config):
        observe(Notice("the model brings a head for these very labels; learning goes on from it"))
        return with_head(bench, own)
    rows_N = bench.probe_rows
    if rows_N is None:
        head = asked or own
        bench = with_head(bench, head)
        _say_head(bench, head, own, asked, observe)
        return bench
    regressions = _regressions(bench, rows_N, asked, observe)
    # Products as small as these gain nothing from threads of BLAS, which would be in the way of torch's: a thread each.
    with (
        threadpool_limits(limits=1, user_api="blas"),
        warnings.catch_warnings(action="ignore", category=UserWarning),  # labels with fewer rows than folds
    ):
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            validated = pool.map(lambda one: one.cross_validate(seed=bench.config.train.seed), regressions.values())
            chosen = dict(zip(regressions, validated, strict=True))
        head = next(iter(chosen))
        if len(chosen) > 1 and not clearly_better(chosen[head], chosen[own]):
            head = own
        probe = regressions[head].fit(chosen[head])
    bench = with_head(bench, head)
    output = bench.classifier.output_layer
    assert output is not None
    probe.start(output)
    spent = time.monotonic() - started
    found = ", ".join(f"{name} head {one.right.mean():.3f} (C {one.c:g})" for name, one in chosen.items())
    right = "subset accuracy" if bench.prepared.label_set.multi else "accuracy"
    observe(Notice(f"linear probe on {len(rows_N):,} texts in {spent:.0f} s: {right} when held out {found}"))
    _say_head(bench, head, own, asked, observe, compared=len(chosen) > 1)
    return replace(bench, spent=spent)


def with_head(bench: Workbench, head: str) -> Workbench:
    """The workbench with this head, `own`, `code` or a pooling, ready for training."""
    classifier, device, config = bench.classifier, bench.device, bench.config.model
    if head in POOLINGS:
        if not classifier.has_head(head, hidden=config.head_hidden):
            torch.manual_seed(bench.config.train.seed)
            classifier.use_head(head, hidden=config.head_hidden or 0)
        if config.head_dropout is not None:
            classifier.set_head_dropout(config.head_dropout)
    if config.lora is not None:
        torch.manual_seed(bench.config.train.seed)
        classifier.add_lora(config.lora)
    if device.kind == "cpu":
        pool_dropout(classifier.network)
    classifier.to(device.torch_device)
    # On a GPU, padded batches keep to the kernels that transformers chooses; see docs/explanation/training-speed.md.
    packs = (
        device.kind == "cpu"
        and not bench.config.train.gradient_checkpointing
        and classifier.try_packing(max_length=bench.max_length)
    )
    classifier.compact_vocabulary(bench.encoded.values())
    said = config.head if classifier.head == "code" else classifier.head
    resolved = replace(bench.config, model=replace(config, head=said))
    return replace(bench, config=resolved, packs=packs)


def _features(
    bench: Workbench, encoded: Encoded, rows_N: np.ndarray, pooling: str | None, observe: Observer
) -> tuple[np.ndarray, np.ndarray | None]:
    """The features of these training rows; where another seed's were made by the same weights, those."""
    of = _made_by(bench.classifier, rows_N, pooling) if bench.shared is not None else ""
    if bench.shared is not None and bench.shared.features is not None and bench.shared.features[0] == of:
        return bench.shared.features[1:]
    found = features(
        bench.classifier,
        encoded,
        pooling=pooling,
        autocast=bench.device.autocast,
        on_progress=lambda done: observe(Phase("features", done, len(encoded))),
    )
    if bench.shared is not None:
        bench.shared.features = (of, *found)
    return found


def _made_by(classifier: Classifier, rows_N: np.ndarray, pooling: str | None) -> str:
    """A digest of all that features are made by: rows, pooling and every weight below the last layer.

    Some architectures have a fresh layer there, which a seed changes; most have none.
    """
    digest = hashlib.sha256(f"{classifier.head} {pooling}".encode() + rows_N.tobytes())
    last = {id(one) for one in (classifier.output_layer.parameters() if classifier.output_layer is not None else ())}
    for parameter in [*classifier.parameters(), *classifier.buffers()]:
        if id(parameter) not in last:
            digest.update(parameter.detach().reshape(-1).view(torch.uint8).cpu().numpy().data)
    return digest.hexdigest()


def _say_head(
    bench: Workbench, head: str, before: str, asked: str | None, observe: Observer, *, compared: bool = False
) -> None:
    """Which head it is, and what follows for whoever loads the model. before: what the model came with. compared: a
    probe on the pooling of its pretraining stood beside its head's.
    """
    if head == "own":
        why = " (the probe on the pooling it was pretrained with is not clearly better)" if compared else ""
        loads = "loads the model as it is"
        if not bench.classifier.is_of_transformers:
            loads = "then needs trust_remote_code=True to load the model"
        observe(Notice(f"head: the architecture's own{why}; plain transformers {loads}"))
        return
    if head == "code":
        name = bench.config.model.head if is_code(bench.config.model.head) else "the pretrained model's own code"
        observe(Notice(f"head: {name}; plain transformers then needs trust_remote_code=True to load the model"))
        if bench.device.kind == "cpu" and not bench.packs:
            observe(Notice("texts are padded, not packed: the model gives other logits for packed ones, or takes none"))
        return
    pooled = {
        "cls": "the first token",
        "mean": "the mean of the hidden states",
        "max": "the largest of the hidden states",
        "last": "the last token",
        "attention": "a learnt mean of the hidden states",
    }[head]
    otherwise = before == "own"
    if asked is not None:
        why = "as asked"
    elif before == "own":
        why = "the model was pretrained with it, and the probe is clearly better"
    elif bench.classifier.architecture_has_head:
        why = "the pretrained model has it"
    else:
        why = "transformers has no head for this architecture"
    observe(
        Notice(
            f"head: {pooled} ({why}); plain transformers then needs trust_remote_code=True to load the model"
            + (" (--head own keeps the architecture's)" if otherwise else "")
        )
    )


def _regressions(bench: Workbench, rows_N: np.ndarray, asked: str | None, observe: Observer) -> dict[str, Regression]:
    """One for each head that it may be: the pooling that is asked for or was pretrained with, the present one."""
    classifier, model = bench.classifier, bench.config.model
    present, pooling = classifier.head, asked
    if asked is not None and classifier.has_head(asked, hidden=model.head_hidden):
        pooling = None  # it is there already
    elif asked is None and model.head == "auto" and present == "own":
        pooling = classifier.other_pooling(pretrained_pooling(bench.base.folder))
    encoded = bench.encoded["train"].take(bench.encoded["train"].rows_of(rows_N))
    # Attention that has learnt nothing is the mean.
    own_RD, pooled_RD = _features(bench, encoded, rows_N, "mean" if pooling == "attention" else pooling, observe)

    def of(features_RD: np.ndarray, head: str, *, bias: bool) -> Regression:
        return Regression(
            encoded.per_text(features_RD),
            bench.targets["train"][rows_N],
            label_set=bench.prepared.label_set,
            bias=bias,
            # Means have been brought to one size, feature by feature; the states of single tokens have not.
            scale=head not in ("mean", "attention"),
            balanced=bench.config.train.class_weights == "balanced",
        )

    found = {}
    if pooling is not None and pooled_RD is not None:
        found[pooling] = of(pooled_RD, pooling, bias=True)
    if pooling is None or asked is None:
        assert classifier.output_layer is not None
        found[present] = of(own_RD, present, bias=classifier.output_layer.bias is not None)
    return found
