"""textclf: labelled text in, a served classifier out.

>>> import textclf
>>> run = textclf.finetune(model="distilbert-base-uncased", dataset="banking77")
>>> classifier = textclf.load(run)
>>> classifier.predict(["where is my card?"])
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "prepare": "textclf.data.preparation",
    "finetune": "textclf.training.finetuning",
    "finetune_seeds": "textclf.training.seeds",
    "evaluate": "textclf.evaluation.evaluation",
    "compare": "textclf.evaluation.comparison",
    "audit": "textclf.evaluation.audit",
    "export": "textclf.evaluation.exporting",
    "load": "textclf.inference.prediction",
    "report": "textclf.evaluation.report",
    "push": "textclf.artifact.publishing",
    "TextclfError": "textclf.errors",
}

__all__ = ["__version__", *_PUBLIC]

if TYPE_CHECKING:
    from textclf.artifact.publishing import push as push
    from textclf.data.preparation import prepare as prepare
    from textclf.errors import TextclfError as TextclfError
    from textclf.evaluation.audit import audit as audit
    from textclf.evaluation.comparison import compare as compare
    from textclf.evaluation.evaluation import evaluate as evaluate
    from textclf.evaluation.exporting import export as export
    from textclf.evaluation.report import report as report
    from textclf.inference.prediction import load as load
    from textclf.training.finetuning import finetune as finetune
    from textclf.training.seeds import finetune_seeds as finetune_seeds


def __getattr__(name: str) -> Any:
    # Resolved on first use, so that `import textclf` stays light.
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'textclf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
