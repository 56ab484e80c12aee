"""The tokenizer of a pretrained model: loaded by transformers, used through its Rust core."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from textclf.artifact import screening
from textclf.data.encoding import settle
from textclf.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in a model folder, with a pad token, padding on the right, special literals read as text.

    Raises ModelError where there is none, or none with a Rust core, RefusedError where only code could read it.
    """
    screening.check_tokenizer_config(folder)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )
    except Exception as err:  # classes of many models raise many kinds, all of them about these files
        raise ModelError(
            f"{folder}: no tokenizer that can be read: {_first_line(err)}",
            hint="a model needs tokenizer.json (or vocab.txt, or a sentencepiece model) beside its weights",
        ) from err
    if not tokenizer.is_fast:
        raise ModelError(
            f"{folder}: its tokenizer ({type(tokenizer).__name__}) has no fast form",
            hint="save it as tokenizer.json with transformers, and give that folder",
        )
    if tokenizer.pad_token is None or tokenizer.pad_token_id in _ending(tokenizer):
        tokenizer.pad_token = _stand_in(tokenizer) or tokenizer.pad_token or tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise ModelError(
            f"{folder}: the tokenizer has neither a pad token nor one to stand in for it",
            hint="name one in tokenizer_config.json: a special token that no text ends in",
        )
    tokenizer.padding_side = "right"
    tokenizer.truncation_side = "right"
    tokenizer.split_special_tokens = True
    # A classifier does not chat. Templates would be saved under names that the folder gives them.
    tokenizer.chat_template = None
    for key in ("auto_map", "chat_template"):
        tokenizer.init_kwargs.pop(key, None)
    return tokenizer


def backend(tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """The Rust tokenizer, as `Tokenizer.from_file(tokenizer.json)` would give it."""
    return tokenizer.backend_tokenizer  # type: ignore[attr-defined, no-any-return]


def _stand_in(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """A token to pad with. None is attended to, but decoders of transformers find the end of a text by it."""
    ending = _ending(tokenizer)
    added = tokenizer.added_tokens_decoder
    named = [token.content for token in added.values() if token.special and "pad" in token.content.lower()]
    # The unknown token last: it stands in texts.
    for token in (*named, tokenizer.eos_token, tokenizer.bos_token, tokenizer.unk_token):
        if token is not None and tokenizer.convert_tokens_to_ids(token) not in ending:
            return str(token)
    return None


def _ending(tokenizer: PreTrainedTokenizerBase) -> set[int]:
    """Special tokens that every text ends in: what follows its last character."""
    settle(backend(tokenizer))  # some files pad every text
    encoding = backend(tokenizer).encode("a")
    inside = [index for index, special in enumerate(encoding.special_tokens_mask) if not special]
    return set(encoding.ids[inside[-1] + 1 :]) if inside else set()


def _first_line(err: BaseException) -> str:
    return str(err).strip().split("\n", 1)[0]
