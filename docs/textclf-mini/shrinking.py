"""A smaller BERT out of a larger one: fewer word pieces, fewer layers, narrower ones. Nothing is learnt here."""

from __future__ import annotations

import copy
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from transformers import BertModel

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def kept_pieces(tokenizer: Tokenizer, texts: Iterable[str], *, size: int, least: int = 2) -> list[str]:
    """The word pieces that stay, `size` of them, in the order of their ids.

    First the special ones and the single characters of Latin and Greek script, digits, marks and signs; then what
    the texts use at least `least` times; then by id: BERT's vocabulary is sorted by how frequent a piece was in its
    own English corpora, so the first ones are the frequent ones.
    """
    by_id = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    counts = Counter(id for encoding in tokenizer.encode_batch(list(texts)) for id in encoding.ids)
    kept = {piece for piece, _ in by_id if piece in SPECIAL or _is_character(piece)}
    used = [(piece, counts[id]) for piece, id in by_id if counts[id] >= least]
    kept |= {piece for piece, _ in sorted(used, key=lambda item: -item[1])[: size - len(kept)]}
    for piece, _ in by_id:
        if len(kept) >= size:
            break
        if not piece.startswith("[unused") and not _is_other_script(piece):
            kept.add(piece)
    return [piece for piece, _ in by_id if piece in kept]


def smaller_tokenizer(path: Path, pieces: Sequence[str]) -> Tokenizer:
    """The tokenizer of a tokenizer.json with these word pieces alone, numbered in the order given; it never cuts."""
    document = json.loads(path.read_text(encoding="utf-8"))
    document["truncation"] = document["padding"] = None
    ids = {piece: number for number, piece in enumerate(pieces)}
    document["model"]["vocab"] = ids
    for token in document["added_tokens"]:
        token["id"] = ids[token["content"]]
    for token in document["post_processor"]["special_tokens"].values():
        token["ids"] = [ids[name] for name in token["tokens"]]
    return Tokenizer.from_str(json.dumps(document))


def smaller_model(
    teacher: BertModel, *, pieces: Sequence[int], layers: Sequence[int], importance: torch.Tensor | None, width: int
) -> BertModel:
    """A BertModel with the teacher's weights: embeddings of `pieces`, these of its layers, and of each layer's
    feed-forward neurons the `width` most important ones.

    importance: (layers, neurons) of the teacher, needed where width is less than it has.
    """
    config = copy.deepcopy(teacher.config)
    config.vocab_size, config.num_hidden_layers, config.intermediate_size = len(pieces), len(layers), width
    config.pad_token_id = 0
    student = BertModel(config)
    state = teacher.state_dict()
    made = {name: value for name, value in state.items() if not name.startswith("encoder.layer.")}
    made["embeddings.word_embeddings.weight"] = state["embeddings.word_embeddings.weight"][list(pieces)]
    for place, layer in enumerate(layers):
        prefix = f"encoder.layer.{layer}."
        of_layer = {name.removeprefix(prefix): value for name, value in state.items() if name.startswith(prefix)}
        if width < teacher.config.intermediate_size:
            assert importance is not None
            best = importance[layer].topk(width).indices.sort().values
            of_layer["intermediate.dense.weight"] = of_layer["intermediate.dense.weight"][best]
            of_layer["intermediate.dense.bias"] = of_layer["intermediate.dense.bias"][best]
            of_layer["output.dense.weight"] = of_layer["output.dense.weight"][:, best]
        made |= {f"encoder.layer.{place}.{name}": value.clone() for name, value in of_layer.items()}
    student.load_state_dict(made)
    return student


@torch.inference_mode()
def neuron_importance(model: BertModel, tokenizer: Tokenizer, texts: Sequence[str]) -> torch.Tensor:
    """How much each feed-forward neuron adds to the states on these texts: (layers, neurons).

    The root mean square of its activation times the length of its outgoing weights.
    """
    squares = torch.zeros(model.config.num_hidden_layers, model.config.intermediate_size)
    count = 0

    def count_in(layer: int):  # type: ignore[no-untyped-def]
        def hook(module: object, arguments: object, states: torch.Tensor) -> None:
            squares[layer] += states.float().square().sum(dim=(0, 1))

        return hook

    hooks = [layer.intermediate.register_forward_hook(count_in(i)) for i, layer in enumerate(model.encoder.layer)]
    for text in texts:
        ids = tokenizer.encode(text).ids[:256]
        model(torch.tensor([ids]))
        count += len(ids)
    for hook in hooks:
        hook.remove()
    outgoing = torch.stack([layer.output.dense.weight.norm(dim=0) for layer in model.encoder.layer])
    return (squares / count).sqrt() * outgoing


def _is_character(piece: str) -> bool:
    return len(piece.removeprefix("##")) == 1 and not _is_other_script(piece)


def _is_other_script(piece: str) -> bool:
    """Whether a piece holds a letter that is neither Latin nor Greek."""
    letters = (character for character in piece if unicodedata.category(character)[0] in "LM")
    return any(not unicodedata.name(letter, "").startswith(("LATIN", "GREEK", "COMBINING")) for letter in letters)
