"""The workbench of a run: data, tokenizer, model and plan brought together before the first step."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from textclf.artifact import hub
from textclf.config import Metric, ModelConfig, Overflow, RunConfig
from textclf.data.encoded_files import cut_kept, encode_kept
from textclf.data.encoding import Encoded, encode
from textclf.data.forms import Questions, questions_of
from textclf.data.preparation import prepare
from textclf.data.prepared import Prepared
from textclf.data.rows import Rows
from textclf.errors import DataError, UsageError
from textclf.model.adapters import require_peft
from textclf.model.backbone import check_poolable
from textclf.model.classifier import Classifier
from textclf.model.device import Device, pick_device
from textclf.model.head_code import is_code, read
from textclf.model.modeling_textclf import POOLINGS
from textclf.model.norms import norms_in_autocast
from textclf.model.symbols import add_symbols, is_symbol, rows_with, symbols_in
from textclf.model.tokenizer import backend, load_tokenizer
from textclf.training.events import Notice, Observer, Phase
from textclf.training.plan import Plan, make_plan
from textclf.training.probe import rows_to_learn_from

DEFAULT_LENGTH = 512
"""Tokens that a model reads at most unless asked for more: attention's cost grows with the square."""


@dataclass
class Shared:
    """What runs that differ in their seed only need not compute twice; empty before the first of them.

    features: of the training texts, and what they were computed from. words: the baseline of words.
    """

    features: tuple[str, np.ndarray, np.ndarray | None] | None = None
    words: Any = None


@dataclass(frozen=True)
class Workbench:
    """All that a training needs, before its first step.

    encoded: of texts that are read in windows, a row is a window. targets: of texts, however many rows they have.
    questions: how rows of the data make up questions with choices, where they do.
    probe_rows: training texts that a linear probe learns from, None where there is none.
    baseline: the classifier can answer before its first step. symbols: that became tokens. packs: batches are packed.
    spent: seconds that choosing the head took. shared: what other seeds of this run have computed; None for a run by
    itself.
    """

    config: RunConfig
    prepared: Prepared
    tokenizer: PreTrainedTokenizerBase
    base: hub.Fetched
    base_name: str
    encoded: dict[str, Encoded]
    targets: dict[str, np.ndarray]
    classifier: Classifier
    device: Device
    plan: Plan
    max_length: int
    probe_rows: np.ndarray | None
    questions: dict[str, Questions]
    baseline: bool
    symbols: str = ""
    packs: bool = False
    spent: float = 0.0
    shared: Shared | None = None


def assemble(config: RunConfig, observe: Observer, *, shared: Shared | None = None) -> Workbench:
    """Prepare the data, load the model, encode, and choose what the config left open but the head."""
    if config.model.lora is not None:
        require_peft()  # before minutes go into the data
    if is_code(config.model.head):
        read(config.model.head)
    device = pick_device(config.train.device, config.train.precision)
    observe(Notice(f"device: {device.reason}"))
    prepared = prepare(config.data)
    for one in prepared.dropped:
        observe(Notice(f"left out {one.rows:,} rows of {one.split}: {one.reason}"))
    for found in prepared.findings:
        observe(Notice(f"note: {found.message}"))
    base_name = short_name(config.model.name)
    base, tokenizer_folder = _fetch(config.model)
    tokenizer = load_tokenizer(tokenizer_folder)
    torch.manual_seed(config.train.seed)
    classifier = Classifier.from_pretrained(
        base.folder, prepared.label_set, tokenizer, allow_bin=config.model.allow_bin, head=config.model.head
    )
    rows = {split: prepared.rows(split) for split in prepared.splits}
    added: list[str] = []
    if config.model.add_symbols and config.model.lora is None:
        added = _add_symbols(classifier, tokenizer, rows["train"], config.model.prompt, observe)
    if device.kind == "cpu":
        norms_in_autocast(classifier.network)
    if classifier.reading.alone:
        kind = classifier.model_type
        observe(Notice(f"{kind} models answer differently for texts that are padded: one text is read at a time"))
    if asked_head(classifier, config.model) in POOLINGS:
        check_poolable(classifier.network)  # before minutes go into a probe
    if config.model.freeze is not None:
        frozen, total = classifier.freeze(config.model.freeze), sum(one.numel() for one in classifier.parameters())
        observe(Notice(f"frozen: {frozen:,} of {total:,} numbers"))
    if config.train.gradient_checkpointing:
        classifier.checkpoint_activations()
    limit = _length_limit(classifier, tokenizer)
    wanted = config.model.max_length
    if wanted is not None and wanted > limit:
        raise UsageError(f"model.max_length is {wanted}; {base_name} reads at most {limit} tokens")
    overflow, prompt = config.model.overflow, config.model.prompt
    _check_prompt(prompt, rows["train"], tokenizer, wanted or min(limit, DEFAULT_LENGTH))
    questions = {split: some for split, part in rows.items() if (some := questions_of(part)) is not None}
    train, max_length = _encode_train(rows, tokenizer, config.model, min(limit, DEFAULT_LENGTH), observe)
    encoded = {"train": train} | {
        split: _encode(rows[split], tokenizer, max_length, split, observe, overflow, prompt)
        for split in rows
        if split != "train"
    }
    targets = {split: prepared.label_set.targets(part.labels) for split, part in rows.items()}
    fresh = needs_start(classifier, config.model)
    probe_rows = None
    if config.train.probe and fresh and config.model.head_hidden:
        observe(Notice("no linear probe: the head's hidden layer is new, and it has nothing to be fitted on"))
    elif config.train.probe and fresh and classifier.head == "code" and not classifier.can_be_probed:
        observe(Notice("no linear probe: the head does not consist of one linear layer after what has no parameters"))
    elif config.train.probe and fresh:
        output = classifier.output_layer if classifier.head == "code" else None
        width = output.in_features if output is not None else classifier.width
        probe_rows = rows_to_learn_from(targets["train"], prepared.label_set, width=width, seed=config.train.seed)
        if probe_rows is None:
            observe(Notice("no linear probe: too few texts for so many labels"))
    baseline = probe_rows is not None or not fresh
    plan = make_plan(
        replace(config.train, metric=_metric(config.train.metric, bool(questions))),
        prepared.label_set,
        rows=len(train),
        width=classifier.width,
        pass_tokens=device.pass_tokens,
        probed=baseline,
        lora=config.model.lora is not None,
        tokens=len(train.ids),
        has_dropout=classifier.has_dropout,
        questions=bool(questions),
    )
    if probe_rows is None and not plan.steps and config.model.head_hidden:
        raise UsageError(
            "a linear probe has no hidden layer, and no epoch follows it", hint="leave out --fast, or --head-hidden"
        )
    if probe_rows is None and not plan.steps and fresh and not classifier.can_be_probed:
        raise UsageError(
            f"no linear probe can start the head {config.model.head}, and no epoch follows it", hint="leave out --fast"
        )
    if not plan.steps and not fresh:
        raise UsageError(
            f"{base_name} knows these labels already, and no epoch follows in which it would learn more",
            hint="leave out --fast; textclf eval MODEL --dataset DATA measures it as it is",
        )
    if probe_rows is None and not plan.steps:
        raise DataError(
            f"{prepared.name}: too few texts for so many labels to fit a linear probe, and no epoch follows it",
            hint="leave out --fast, or drop rare labels with --min-label-count",
        )
    for message in (f"max_length {max_length} tokens: {_cut(train, overflow)}", *plan.reasons):
        observe(Notice(message))
    return Workbench(
        config=replace(config, train=plan.config, model=replace(config.model, max_length=max_length)),
        prepared=prepared,
        tokenizer=tokenizer,
        base=base,
        base_name=base_name,
        encoded=encoded,
        targets=targets,
        classifier=classifier.to(device.torch_device),
        device=device,
        plan=plan,
        probe_rows=probe_rows,
        max_length=max_length,
        questions=questions,
        baseline=baseline,
        symbols="".join(added),
        shared=shared,
    )


def asked_head(classifier: Classifier, config: ModelConfig) -> str | None:
    """The pooling that is asked for; None where the head may stay what it is. Layers of a head want one with room."""
    if config.head in POOLINGS:
        return config.head
    if classifier.head in POOLINGS:  # the pretrained model brought it
        return None if classifier.has_head(classifier.head, hidden=config.head_hidden) else classifier.head
    return classifier.general_head if config.head_hidden or config.head_dropout is not None else None


def needs_start(classifier: Classifier, config: ModelConfig) -> bool:
    """Whether the head that is wanted has learnt nothing yet."""
    asked = asked_head(classifier, config) or classifier.head
    return classifier.has_fresh_output or not classifier.has_head(asked, hidden=config.head_hidden)


def check(config: RunConfig) -> None:
    """Raise what is wrong with the data, the model or the device, without loading weights."""
    if config.model.lora is not None:
        require_peft()
    pick_device(config.train.device, config.train.precision)
    if is_code(config.model.head):
        read(config.model.head)
    prepare(config.data)
    _fetch(config.model)


def _fetch(config: ModelConfig) -> tuple[hub.Fetched, Path]:
    """The folders of model and tokenizer; the tokenizer, which is small, before the weights."""
    elsewhere = hub.fetch_tokenizer(config.tokenizer) if config.tokenizer is not None else None
    base = hub.fetch(
        config.name, revision=config.revision, allow_bin=config.allow_bin, with_tokenizer=elsewhere is None
    )
    return base, elsewhere or base.folder


def short_name(reference: str | None) -> str:
    """How a model or data set is called: a Hub id as it is, a path by its last telling part."""
    path = Path(reference or "")
    if not path.is_absolute():
        return reference or ""
    named = path.parent if path.name in ("model", "data") else path
    return named.name.split(".")[0] if path.is_file() else named.name


def _check_prompt(prompt: str | None, train: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
    if prompt is None:
        return
    if train.pair_column is not None:
        raise UsageError("model.prompt goes around single texts; these rows are pairs or questions with choices")
    tokens = int(encode([""], backend(tokenizer), prompt=prompt).lengths[0])
    if tokens >= max_length:
        raise UsageError(f"model.prompt takes {tokens} tokens; the model reads {max_length}, text included")


def _add_symbols(
    classifier: Classifier,
    tokenizer: PreTrainedTokenizerBase,
    train: Rows,
    prompt: str | None,
    observe: Observer,
) -> list[str]:
    columns = [column for column in (train.text_column, train.pair_column) if column is not None]
    seen = symbols_in(columns)
    added = add_symbols(classifier.network, tokenizer, seen.union(filter(is_symbol, prompt or "")))
    found = seen.intersection(added)
    if added:
        rows = rows_with(found, columns) if found else 0
        observe(
            Notice(
                f"{rows:,} of {len(train.text_column):,} training texts have symbols that the tokenizer does not know, "
                f"such as emoji: {len(added):,} become tokens, each beginning as the words of its Unicode name"
            )
        )
    return added


def _encode_train(
    rows: dict[str, Rows],
    tokenizer: PreTrainedTokenizerBase,
    model: ModelConfig,
    limit: int,
    observe: Observer,
) -> tuple[Encoded, int]:
    """The training texts, and the max_length that was wanted, or chosen by them up to `limit`."""
    train, wanted, overflow, prompt = rows["train"], model.max_length, model.overflow, model.prompt
    if wanted is not None:
        return _encode(train, tokenizer, wanted, "train", observe, overflow, prompt), wanted
    if train.pair_column is None and overflow == "truncate":
        encoded = _encode(train, tokenizer, limit, "train", observe, prompt=prompt)
        max_length = _choose_max_length(encoded.lengths, limit)
        return cut_kept(encoded, backend(tokenizer), max_length, prompt=prompt), max_length
    whole = _encode(train, tokenizer, None, "train", observe)
    # Choices are never cut, so the longest of any split have to fit in, with something of their question.
    least = max(_longest_pair(part, tokenizer) for part in rows.values()) + 16 if train.has_questions else 0
    max_length = _choose_max_length(whole.lengths, limit, least=least)
    return _encode(train, tokenizer, max_length, "train", observe, overflow), max_length


def _longest_pair(rows: Rows, tokenizer: PreTrainedTokenizerBase) -> int:
    assert rows.pair_column is not None
    return int(encode_kept(rows.pair_column, backend(tokenizer)).lengths.max(initial=0))


def _metric(wanted: Metric | None, questions: bool) -> Metric | None:
    """What the best checkpoint is chosen by, where rows are questions. Raises UsageError for a metric of questions
    where there are none."""
    if wanted == "question_accuracy" and not questions:
        raise UsageError(
            "train.metric is question_accuracy, but the rows are no questions with choices",
            hint="--form binary or multiclass reads them as such",
        )
    return "question_accuracy" if wanted is None and questions else wanted


def _cut(train: Encoded, overflow: Overflow) -> str:
    """What became of the training texts that are too long, in words."""
    count, total = train.texts_cut, len(train.windows)
    if not count:
        return "no training text is longer"
    fate = {
        "truncate": "lose their end",
        "head-tail": "lose their middle",
        "window": f"are read in {int(train.windows[train.windows > 1].sum()):,} windows",
    }
    return f"{count:,} of {total:,} training texts ({count / total:.1%}) are longer and {fate[overflow]}"


def _encode(
    rows: Rows,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int | None,
    split: str,
    observe: Observer,
    overflow: Overflow = "truncate",
    prompt: str | None = None,
) -> Encoded:
    texts = rows.text_column
    return encode_kept(
        texts,
        backend(tokenizer),
        pairs=rows.pair_column,
        max_length=max_length,
        prompt=prompt,
        overflow=overflow,
        keep_pairs=rows.has_questions,
        where=rows.where,
        on_progress=lambda done: observe(Phase(f"tokenise {split}", done, len(texts))),
    )


def _length_limit(classifier: Classifier, tokenizer: PreTrainedTokenizerBase) -> int:
    """Tokens that the model can take at most."""
    return min(int(tokenizer.model_max_length), classifier.positions)


def _choose_max_length(lengths_N: np.ndarray, limit: int, *, least: int = 0) -> int:
    """The first of 64, 128, 256, 512 tokens that 99 % of the texts fit in, `least` or more, at most `limit`.

    Room above the longest text seen costs nothing, as batches are padded to their own longest text only.
    """
    needed = max(least, float(np.percentile(lengths_N, 99)))
    return next((size for size in (64, 128, 256) if needed <= size and size < limit), limit)
