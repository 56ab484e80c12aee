"""Speaking with the Hub: patient with what passes, in plain words about what does not."""

from __future__ import annotations

import errno
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from json import JSONDecodeError
from typing import TypeVar

from textclf import signals
from textclf.errors import HubError, ResourceError, TextclfError

logger = logging.getLogger(__name__)

Answer = TypeVar("Answer")

ATTEMPTS = 4
_NO_ANSWER = (JSONDecodeError, UnicodeDecodeError, AttributeError, KeyError, TypeError)
"""What the client raises over an answer that is no JSON, or not of the Hub's form."""
LONGEST_WAIT = 60.0
"""Seconds. The Hub's limits per hour answer with more, and then a person should decide whether to wait."""


class _Missing(HubError):
    """The Hub has no such repository, or none that this token may see."""


class _Unreachable(HubError):
    """No answer from the Hub: no network, offline mode, or an error of its own."""


def ask(question: Callable[[], Answer], *, about: str, revision: str | None = None) -> Answer:
    """The answer to a question to the Hub, asked again where the Hub says "busy" (429, 5xx).

    The client retries some requests by itself, but neither a commit, nor the making of a repository,
    nor a 503 on a file. Raises HubError in words about the repository `about`, and ResourceError for
    a full disk.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    for attempt in range(ATTEMPTS):
        try:
            with _quiet_client():
                return signals.leavable(question)
        except (OSError, HFValidationError, RuntimeError, *_NO_ANSWER) as err:
            fault = _cause(err)
            wait = _wait(fault, attempt) if isinstance(fault, HfHubHTTPError) else None
            if wait is None or wait > LONGEST_WAIT or attempt == ATTEMPTS - 1:
                raise _explained(fault, about, revision, wait) from err
            logger.warning("the Hub answered with an error that passes; asking again in %.0f s", wait)
            time.sleep(wait)
        except Exception as err:
            # The HTTP library's own errors; which library it is depends on the client's version.
            if isinstance(err, HfHubHTTPError.__bases__[0]):
                raise _explained(err, about, revision, None) from err
            raise
    raise AssertionError("the last attempt returns or raises")


def missing(err: HubError) -> bool:
    """Whether the Hub said that there is no such repository (or none that this token may see)."""
    return isinstance(err, _Missing)


def unreachable(err: HubError) -> bool:
    """Whether the Hub said nothing at all, so that the cache may answer in its stead."""
    return isinstance(err, _Unreachable)


def endpoint() -> str:
    """The address of the Hub: `HF_ENDPOINT`, without a password that it may hold, else huggingface.co."""
    from huggingface_hub import constants

    return re.sub(r"(?<=://)[^/@]*@", "", str(constants.ENDPOINT))


def _wait(fault: Exception, attempt: int) -> float | None:
    """Seconds until the same request may succeed; None when it never will."""
    response = fault.response  # type: ignore[attr-defined]
    if response.status_code != 429 and response.status_code < 500:
        return None
    # "policy";r=remaining;t=seconds: what the Hub sends beside or instead of Retry-After.
    limit = re.search(r"\bt=(\d+)", response.headers.get("ratelimit", "")) if response.status_code == 429 else None
    asked = response.headers.get("retry-after") or (limit[1] if limit else "")
    return float(asked) if asked.isdigit() else float(2**attempt)


def _cause(err: BaseException) -> Exception:
    """The Hub's own answer within an error that wraps it ("Error while uploading ...", "... not in the cache")."""
    from huggingface_hub.errors import HfHubHTTPError

    http_error = HfHubHTTPError.__bases__[0]
    inner: BaseException | None = err
    while inner is not None:
        if isinstance(inner, http_error):
            return inner  # type: ignore[return-value]
        inner = inner.__cause__
    return err  # type: ignore[return-value]


def _explained(err: Exception, about: str, revision: str | None, wait: float | None) -> TextclfError:
    from huggingface_hub import errors
    from huggingface_hub.constants import is_offline_mode

    at = endpoint()
    login = "log in with `hf auth login`, or set HF_TOKEN (tokens are made at https://huggingface.co/settings/tokens)"
    if isinstance(err, errors.LocalTokenNotFoundError):
        return HubError(f"{about}: not logged in to {at}", hint=login)
    if isinstance(err, errors.GatedRepoError):
        return HubError(
            f"{about} is gated: its owner asks you to accept a licence first",
            hint=f"accept it at {at}/{about}, then {login}",
        )
    if isinstance(err, errors.RepositoryNotFoundError):
        hint = "check the spelling" if has_token() else f"check the spelling; if it is private, {login}"
        return _Missing(f"{about}: no such repository on {at}, or it is private and not yours to see", hint=hint)
    if isinstance(err, errors.RevisionNotFoundError):
        return HubError(
            f"{about} has no revision {revision!r}",
            hint=f"the branches, tags and commits are at {at}/{about}/commits/main",
        )
    if isinstance(err, errors.OfflineModeIsEnabled) or (
        isinstance(err, errors.LocalEntryNotFoundError) and is_offline_mode()
    ):
        return _Unreachable(
            f"{about} is not in the cache, and offline mode keeps textclf from asking {at}",
            hint="unset HF_HUB_OFFLINE, or fetch it once where there is a network",
        )
    if isinstance(err, errors.HfHubHTTPError):
        return _explained_status(err, about, wait, login)
    if isinstance(err, (errors.FileMetadataError, *_NO_ANSWER)) and not isinstance(err, errors.HFValidationError):
        return HubError(
            f"{about}: {at} does not answer as the Hub does ({_first_line(err)})",
            hint="check HF_ENDPOINT, and whether a proxy or a log-in page stands in between",
        )
    if isinstance(err, errors.HFValidationError):
        return HubError(f"{about} is not a Hub id: {_first_line(err)}", hint="an id has the form owner/name")
    if isinstance(err, OSError) and err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS):
        from huggingface_hub import constants

        where = err.filename or constants.HF_HUB_CACHE
        return ResourceError(
            f"{about}: {where} cannot be written: {err.strerror}", hint="free some space, or set HF_HOME"
        )
    return _Unreachable(
        f"{about}: {at} cannot be reached ({_first_line(err)})",
        hint="check the network, HTTPS_PROXY and HF_ENDPOINT, then give the command again",
    )


def _explained_status(err: Exception, about: str, wait: float | None, login: str) -> TextclfError:
    response = err.response  # type: ignore[attr-defined]
    status, said = response.status_code, response.headers.get("x-error-message") or _first_line(err)
    if status == 401:
        source = "it comes from HF_TOKEN" if os.environ.get("HF_TOKEN") else "it is the one stored by `hf auth login`"
        return HubError(f"{about}: {endpoint()} does not accept the token; {source}", hint=f"get a new one: {login}")
    if status == 403:
        return HubError(
            f"{about}: the token may not do this: {said}",
            hint="use a token with write access to this owner's repositories, or another owner",
        )
    if status == 429:
        later = f"in {wait / 60:.0f} minutes" if wait and wait > 90 else "in a minute"
        return HubError(f"{about}: {endpoint()} limits how often you may ask", hint=f"give the command again {later}")
    if status >= 500:
        return _Unreachable(
            f"{about}: {endpoint()} has a problem of its own ({status})", hint="give the command again in a few minutes"
        )
    return HubError(f"{about}: {endpoint()} refused: {status} {said}")


def has_token() -> bool:
    """Whether a token is at hand, good or bad."""
    from huggingface_hub import get_token

    return get_token() is not None


def _first_line(err: Exception) -> str:
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return lines[0] if lines else type(err).__name__


@contextmanager
def _quiet_client() -> Iterator[None]:
    """The client's own warnings ("Retrying in 1s") are said by us or not at all, and its bars are for terminals."""
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    client = logging.getLogger("huggingface_hub")
    level = client.level
    client.setLevel(logging.ERROR)
    hide_bars = not sys.stderr.isatty() and not are_progress_bars_disabled()
    if hide_bars:
        disable_progress_bars()
    try:
        yield
    finally:
        client.setLevel(level)
        if hide_bars:
            enable_progress_bars()
