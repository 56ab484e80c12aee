"""Secrets in texts that are to be shown or published: found by their form, or by their value in the environment."""

from __future__ import annotations

import os
import re

_FORMS = {
    "a token of Hugging Face": r"\b(?:hf|api_org)_[A-Za-z0-9]{20,}\b",
    "a token of GitHub": r"\b(?:gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{40,})\b",
    "a token of GitLab": r"\bglpat-[\w-]{20,}",
    "a key of OpenAI or Anthropic": r"\bsk-(?:proj-|ant-)?[A-Za-z0-9_-]{32,}",
    "a key of AWS": r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
    "a key of Google": r"\bAIza[\w-]{35}\b",
    "a token of Slack": r"\bxox[abeoprs]-[A-Za-z0-9-]{10,}",
    "a token of PyPI": r"\bpypi-[\w-]{50,}",
    "a private key": r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----",
    "a password in an address": r"(?<=://)[^/@\s'\"<>]+:[^/@\s'\"<>]+(?=@)",
}
_SECRET = re.compile("|".join(f"({form})" for form in _FORMS.values()))

VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_HUB_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD")
"""Of the environment; what they hold is secret whatever its form."""

_INSTEAD = "***"


def redact(text: str) -> str:
    """A text with three stars in place of every secret in it."""
    for value in _values():
        text = text.replace(value, _INSTEAD)
    return _SECRET.sub(_INSTEAD, text)


def kind_of_secret(text: str) -> str | None:
    """In words, what kind of secret a text holds; None where it holds none that is known."""
    if any(value in text for value in _values()):
        return "the token of this session"
    found = _SECRET.search(text)
    return list(_FORMS)[(found.lastindex or 1) - 1] if found else None


def _values() -> list[str]:
    # Shorter values are placeholders, and would be found where they mean nothing.
    values = (os.environ.get(name, "").strip() for name in VARIABLES)
    return [value for value in values if len(value) >= 8]
