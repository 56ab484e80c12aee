"""A prompt: words around every text, the same in training and in prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from textclf.config import PLACE

if TYPE_CHECKING:
    from tokenizers import Tokenizer


@dataclass(frozen=True)
class Prompt:
    """What stands before and after a text. A text is put in as it is; nothing in it is read as a template."""

    before: str
    after: str

    @classmethod
    def of(cls, template: str | None) -> Prompt | None:
        """The prompt of a template that holds `{text}` once; None for none."""
        if template is None:
            return None
        before, _, after = template.partition(PLACE)
        return cls(before, after)

    def around(self, texts: Any) -> Any:
        """Texts with the prompt around each, of the kind they were: a list, or a column of arrow. None is empty."""
        if isinstance(texts, Sequence):
            return [f"{self.before}{text or ''}{self.after}" for text in texts]
        import pyarrow as pa
        import pyarrow.compute as pc

        before, after, nothing = (pa.scalar(part, pa.large_string()) for part in (self.before, self.after, ""))
        return pc.binary_join_element_wise(
            before, pc.fill_null(texts.cast(pa.large_string()), ""), after, nothing, null_handling="replace"
        )

    def ending(self, tokenizer: Tokenizer) -> list[int]:
        """The tokens of what stands after the text. A text that is too long loses its own end, not these."""
        if not self.after:
            return []
        # Behind a letter, as a text would have it: some tokenizers put a blank before the first word.
        whole = tokenizer.encode(f"a{self.after}", add_special_tokens=False)
        return [index for index, (start, _) in zip(whole.ids, whole.offsets, strict=True) if start >= 1]
