"""The switchboard: what installed packages add to textclf by entry point, a name and the object behind it."""

from __future__ import annotations

from importlib import metadata

from textclf.errors import UsageError

HEADS = "textclf.heads"
"""Entry point group of heads: classes as in docs/how-to/own-head.md."""
BACKBONES = "textclf.backbones"
"""Of backbones: a model type, and the module that registers its classes with transformers when it is imported."""


def names(group: str) -> list[str]:
    """The names that installed packages register in a group, sorted."""
    return sorted({entry.name for entry in metadata.entry_points(group=group)})


def load(group: str, name: str) -> object:
    """The object behind a name. Raises UsageError where no package registers it, or its package cannot be imported."""
    found = [entry for entry in metadata.entry_points(group=group) if entry.name == name]
    if not found:
        known = ", ".join(names(group)) or "none"
        raise UsageError(
            f"no installed package has {name!r} in the entry points {group}", hint=f"installed there: {known}"
        )
    entry = found[0]
    try:
        return entry.load()
    except Exception as err:  # whatever a foreign package raises when it is imported
        first = str(err).strip().split("\n", 1)[0]
        raise UsageError(
            f"{name} ({entry.value}) cannot be imported: {type(err).__name__}: {first}",
            hint="update or reinstall the package that brings it",
        ) from err
