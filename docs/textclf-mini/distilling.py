"""The smaller model learns to give the states of the larger one, word by word and as the mean of a text.

Words, not tokens, because the two cut rare words into different pieces.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor
from transformers import BertModel

from textclf.data.batching import Packed, pack
from textclf.data.encoding import Encoded
from textclf.model.norms import norms_in_autocast
from textclf.model.packing import ATTENTION, PackedLayout

POOLED_WEIGHT = 2.0
"""Of the loss on means of texts, beside the loss on words: both are shares of what guessing the mean would leave."""


@dataclass(frozen=True)
class Tokens:
    """Texts as tokens, and which word each token is of.

    encoded: as textclf has it. word: (tokens,) int64, counted through all texts; the first and the last token of a
    text are words too. words: (texts + 1,) int64; the words of text i are words[i] to words[i + 1].
    """

    encoded: Encoded
    word: np.ndarray
    words: np.ndarray


@dataclass(frozen=True)
class States:
    """What the teacher says. of_words: (words, width) float16, on disk. of_texts: (texts, width) float32."""

    of_words: np.ndarray
    of_texts: np.ndarray


def tokenise(tokenizer: Tokenizer, texts: Sequence[str]) -> Tokens:
    """The tokens of texts, none cut."""
    ids, word, lengths, sizes = [], [], [], []
    first = 0
    for start in range(0, len(texts), 1000):
        for encoding in tokenizer.encode_batch(list(texts[start : start + 1000])):
            inner = encoding.word_ids[1:-1]
            size = (inner[-1] + 1 if inner else 0) + 2
            ids.append(np.array(encoding.ids, dtype=np.uint16))
            word.append(np.array([0, *(1 + number for number in inner), size - 1]) + first)
            lengths.append(len(encoding.ids))
            sizes.append(size)
            first += size
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    encoded = Encoded(np.concatenate(ids), offsets, np.zeros(len(texts), dtype=bool))
    return Tokens(encoded, np.concatenate(word), np.concatenate([[0], np.cumsum(sizes)]))


def teach(teacher: BertModel, tokens: Tokens, folder: Path, *, say: Callable[[str], None]) -> States:
    """The teacher's last states on all texts, computed in bf16, kept in `folder`."""
    _pack(teacher.eval())
    width = teacher.config.hidden_size
    of_words = np.lib.format.open_memmap(
        folder / "words.npy", mode="w+", dtype=np.float16, shape=(int(tokens.words[-1]), width)
    )
    of_texts = np.zeros((len(tokens.encoded), width), dtype=np.float32)
    started, done = time.monotonic(), 0
    batches = _batches(np.argsort(tokens.encoded.lengths, kind="stable"), tokens.encoded.lengths, 8192)
    for number, rows in enumerate(batches):
        with torch.inference_mode():
            words_WD, texts_BD, places_W = _forward(teacher, tokens, rows)
        of_words[places_W] = words_WD.numpy()
        of_texts[rows] = texts_BD.numpy()
        done += int(tokens.encoded.lengths[rows].sum())
        if number % 50 == 0:
            say(f"teacher: {done:,} tokens, {done / (time.monotonic() - started):,.0f} a second")
    of_words.flush()
    np.save(folder / "texts.npy", of_texts)
    return States(of_words, of_texts)


def kept_states(folder: Path) -> States:
    """What `teach` has kept in a folder."""
    return States(np.load(folder / "words.npy", mmap_mode="r"), np.load(folder / "texts.npy"))


def distil(
    student: BertModel,
    tokens: Tokens,
    states: States,
    *,
    passes: float,
    batch_tokens: int,
    learning_rate: float,
    seed: int,
    say: Callable[[str], None],
) -> list[tuple[int, float, float]]:
    """Bring the student's states near the teacher's by AdamW, and give (step, loss on words, loss on texts) now and
    then, each as a share of the variance. The last texts are held out, and the last line is about those."""
    torch.manual_seed(seed)
    _pack(student.train())
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # the targets are exact, and noise would only blur them
    held_out = min(2000, len(tokens.encoded) // 20)
    rows_N = np.arange(len(tokens.encoded) - held_out)
    sample = np.sort(np.random.default_rng(seed).choice(len(states.of_words), 20_000, replace=False))
    word_variance = float(states.of_words[sample].astype(np.float32).var(axis=0).mean())
    variance_D = states.of_texts.var(axis=0)
    # One of MiniLM's dimensions hardly ever changes: it is not worth an exact answer.
    text_variance_D = torch.from_numpy(variance_D.clip(min=variance_D.mean() / 10))
    plan: list[np.ndarray] = []
    for number in range(int(np.ceil(passes))):
        order = np.random.default_rng([seed, number]).permutation(rows_N)
        order = order[: int(len(order) * min(1.0, passes - number))]
        plan += _batches(order, tokens.encoded.lengths, batch_tokens)
    matrices = [p for p in student.parameters() if p.dim() > 1]
    vectors = [p for p in student.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.01}, {"params": vectors, "weight_decay": 0.0}],
        lr=learning_rate, betas=(0.9, 0.98), fused=True,
    )  # fmt: skip
    warmup = max(1, len(plan) // 25)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, (len(plan) - step) / (len(plan) - warmup))
    )

    def losses(rows: np.ndarray) -> tuple[Tensor, Tensor]:
        words_WD, texts_BD, places_W = _forward(student, tokens, rows)
        wanted_WD = torch.from_numpy(states.of_words[places_W].astype(np.float32))
        wanted_BD = torch.from_numpy(states.of_texts[rows])
        on_words = (words_WD - wanted_WD).square().mean() / word_variance
        return on_words, ((texts_BD - wanted_BD).square() / text_variance_D).mean()

    history, recent, started = [], [], time.monotonic()
    for step, rows in enumerate(plan):
        on_words, on_texts = losses(rows)
        (on_words + POOLED_WEIGHT * on_texts).backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad(set_to_none=True)
        recent.append((on_words.item(), on_texts.item()))
        if (step + 1) % 50 == 0 or step + 1 == len(plan):
            history.append((step + 1, *np.mean(recent, axis=0).round(4).tolist()))
            recent = []
            left = (time.monotonic() - started) / (step + 1) * (len(plan) - step - 1)
            say(f"step {step + 1} of {len(plan)}: words {history[-1][1]}, texts {history[-1][2]}; {left:.0f} s left")
    student.eval()
    rest = np.arange(len(rows_N), len(tokens.encoded))
    with torch.inference_mode():
        found = [[loss.item() for loss in losses(rows)] for rows in _batches(rest, tokens.encoded.lengths, 8192)]
    history.append((len(plan), *np.mean(found, axis=0).round(4).tolist()))
    say(f"held out: words {history[-1][1]}, texts {history[-1][2]}")
    return history


def _pack(model: BertModel) -> None:
    model.config._attn_implementation = ATTENTION
    norms_in_autocast(model)


def _forward(model: BertModel, tokens: Tokens, rows: np.ndarray) -> tuple[Tensor, Tensor, np.ndarray]:
    """Last states of the words of these texts (words, width), their means over tokens (texts, width), and where in
    all words they are (words,)."""
    batch = pack(tokens.encoded, rows, pad_id=0)
    with torch.autocast("cpu", torch.bfloat16):
        hidden_TD = model(
            input_ids=torch.from_numpy(batch.input_ids)[None],
            position_ids=torch.from_numpy(batch.position_ids)[None],
            packing=PackedLayout(batch, torch.device("cpu")),
        ).last_hidden_state[0]
    hidden_TD = hidden_TD.float()
    word_T, places_W = _words(tokens, batch)
    text_T = torch.from_numpy(np.where(batch.text < 0, len(rows), batch.text))
    words_WD = _mean_by(hidden_TD, torch.from_numpy(word_T), len(places_W) + 1)[:-1]
    return words_WD, _mean_by(hidden_TD, text_T, len(rows) + 1)[:-1], places_W


def _words(tokens: Tokens, batch: Packed) -> tuple[np.ndarray, np.ndarray]:
    """For each token of a packed batch the word of the batch, the last one for padding; and the words' places."""
    first_B = tokens.words[batch.rows]
    sizes_B = tokens.words[batch.rows + 1] - first_B
    in_batch_B = np.cumsum(sizes_B) - sizes_B
    word_T = np.full(len(batch.input_ids), int(sizes_B.sum()))
    real_T = batch.text >= 0
    text_T = batch.text[real_T]
    in_all_T = tokens.word[tokens.encoded.offsets[batch.rows[text_T]] + batch.position_ids[real_T]]
    word_T[real_T] = in_all_T - first_B[text_T] + in_batch_B[text_T]
    places_W = np.repeat(first_B - in_batch_B, sizes_B) + np.arange(int(sizes_B.sum()))
    return word_T, places_W


def _mean_by(states_TD: Tensor, group_T: Tensor, groups: int) -> Tensor:
    sums_GD = states_TD.new_zeros(groups, states_TD.shape[1]).index_add(0, group_T, states_TD)
    counts_G = torch.bincount(group_T, minlength=groups).clamp(min=1)
    return sums_GD / counts_G[:, None]


def _batches(order: np.ndarray, lengths: np.ndarray, tokens: int) -> list[np.ndarray]:
    """Cut rows, in their order, into batches of about so many tokens."""
    batch_N = np.cumsum(lengths[order]) // tokens
    return np.split(order, np.flatnonzero(np.diff(batch_N)) + 1)
