"""push(model, id) -> url: a fine-tuned model onto the Hub, in one commit, with its card."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textclf import __version__
from textclf.artifact import card, consent, folder, graph, remote, screening
from textclf.artifact.hub import is_hub_id, locate, matches
from textclf.errors import HubError, ModelError, UsageError

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo

_CLEANED = (folder.CONFIG, folder.TOKENIZER_CONFIG, folder.TEXTCLF, folder.GRAPH_FACTS, "special_tokens_map.json")
"""Files that may name this machine, and are pushed without."""


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What a push did, or with `dry_run` what it would do.

    commit: None before the repository has one.
    files: what the repository then holds of this model, with sizes in bytes.
    created: the repository is new; changed: it did not hold these files before.
    private: as it is on the Hub, which for a repository that was there already may not be what was asked.
    note: what the user should know besides, or None.
    """

    url: str
    repo_id: str
    commit: str | None
    files: tuple[tuple[str, int], ...]
    created: bool
    changed: bool
    private: bool
    note: str | None = None


def push(
    model: str | os.PathLike[str] | None = None,
    repo_id: str | None = None,
    *,
    public: bool = False,
    dry_run: bool = False,
    message: str | None = None,
) -> Pushed:
    """Publish a fine-tuned model as `repo_id` (owner/name) on the Hub, in one commit.

    A new repository is private unless `public`; one that exists keeps its visibility. The model card is
    written for this repository; the folder on disk stays as it is. To push the same model again changes
    nothing. With `dry_run` nothing is written.
    Raises UsageError (repo_id), ModelError (no such model, not made by textclf), RefusedError (a file
    names this machine, holds a secret, or is a link to another place), HubError (log-in, rights, a
    repository that holds something else, network).
    """
    _check_repo_id(repo_id)
    assert repo_id is not None
    artifact = folder.read(locate(model))
    if artifact.facts is None:
        raise ModelError(
            f"{artifact.folder} was not made by textclf: it has no {folder.TEXTCLF}",
            hint="push a run or its model folder: textclf runs",
        )
    from huggingface_hub import HfApi

    api = HfApi(library_name="textclf", library_version=__version__)
    logged_in = remote.has_token()
    info = None
    if logged_in or not dry_run:
        _check_rights(remote.ask(api.whoami, about=repo_id), repo_id)
        info = _existing(api, repo_id)
    listing = [file.rfilename for file in info.siblings or []] if info else []
    _check_not_taken(listing, repo_id)
    repo_id = info.id if info else repo_id  # a repository that was renamed answers with its new name
    content = _content(artifact, repo_id)
    done = Pushed(
        url=f"{remote.endpoint()}/{repo_id}",
        repo_id=repo_id,
        commit=info.sha if info else None,
        files=tuple(
            (name, len(data) if isinstance(data, bytes) else data.stat().st_size) for name, data in content.items()
        ),
        created=info is None,
        changed=True,
        private=bool(info.private) if info else not public,
        note=_note(info, public) if logged_in else "not logged in: a push will need `hf auth login`, or HF_TOKEN",
    )
    if dry_run:
        return done
    if info is None:
        remote.ask(lambda: api.create_repo(repo_id, private=not public, exist_ok=True), about=repo_id)
    try:
        commit = _commit(api, repo_id, content, listing, message or _message(artifact))
    except HubError as err:
        if info is None:
            left = f"the repository {repo_id} was made and is still empty; the same command fills it"
            err.hint = f"{err.hint}\n{left}" if err.hint else left
        raise
    return dataclasses.replace(done, commit=commit, changed=info is None or commit != info.sha)


def _check_repo_id(repo_id: str | None) -> None:
    if repo_id and repo_id.count("/") == 1 and is_hub_id(repo_id):
        return
    raise UsageError(
        f"{repo_id!r} is not of the form OWNER/NAME" if repo_id else "the name of the repository is missing",
        hint="OWNER is your user name or organisation on the Hub; NAME has letters, digits, '-', '_' and '.'.\n"
        "textclf push OWNER/NAME publishes the latest run, textclf push MODEL OWNER/NAME another model",
    )


def _check_rights(account: dict[str, Any], repo_id: str) -> None:
    role = account.get("auth", {}).get("accessToken", {}).get("role")
    name = account.get("name", "")
    if role == "read":
        raise HubError(
            f"{repo_id}: the token of {name} may only read",
            hint="make one that may write (https://huggingface.co/settings/tokens), then `hf auth login` or HF_TOKEN",
        )
    owners = [name, *(org.get("name", "") for org in account.get("orgs") or [])]
    owner = repo_id.partition("/")[0]
    # A fine-grained token need not list every organisation it may write to: the Hub will judge.
    if role == "write" and owner.lower() not in [known.lower() for known in owners]:
        others = f" or {', '.join(owners[1:6])}" if owners[1:] else ""
        raise HubError(
            f"{repo_id}: you are {name}, and may not write to what {owner} owns",
            hint=f"push to {name}/{repo_id.partition('/')[2]}"
            + (f", or to an organisation of yours:{others[3:]}" if others else ""),
        )


def _existing(api: HfApi, repo_id: str) -> ModelInfo | None:
    try:
        return remote.ask(lambda: api.model_info(repo_id, timeout=10), about=repo_id)
    except HubError as err:
        if remote.missing(err):
            return None
        raise


def _check_not_taken(listing: list[str], repo_id: str) -> None:
    if folder.TEXTCLF in listing or set(listing) <= {".gitattributes", folder.CARD}:
        return
    raise HubError(
        f"{repo_id} holds something else already: {len(listing)} files, and no {folder.TEXTCLF}; nothing was pushed",
        hint="choose another name, or delete that repository on the Hub first",
    )


def _content(artifact: folder.Artifact, repo_id: str) -> dict[str, bytes | Path]:
    """Every file as it will be on the Hub: weights and vocabulary as they are, JSON without traces of this machine.

    Without ONNX graphs that were made from other weights.
    """
    content: dict[str, bytes | Path] = {}
    cleaned: dict[str, Any] = {}
    graphs = {"fp32": folder.GRAPH, "int8": folder.GRAPH_INT8}
    left_out = {folder.CARD, *(name for kind, name in graphs.items() if not graph.belongs(artifact.folder, kind))}
    if left_out.issuperset(graphs.values()):
        left_out.add(folder.GRAPH_FACTS)
    for path in sorted(artifact.folder.rglob("*")):
        name = path.relative_to(artifact.folder).as_posix()
        if name in left_out or not path.is_file() or not matches(name, folder.PUBLISHED):
            continue
        content[name] = path
        if name == folder.HEAD_CODE:
            _check_code(path, artifact)
        if name in _CLEANED:
            document = json.loads(path.read_text(encoding="utf-8"))
            cleaned[name] = screening.without_traces(
                document, where=name, keep=(*artifact.label_set.names, artifact.prompt or "")
            )
            if name == folder.GRAPH_FACTS:
                cleaned[name] = graph.signed(cleaned[name])
            if cleaned[name] != document:
                content[name] = (json.dumps(cleaned[name], ensure_ascii=False, indent=2) + "\n").encode()
    if "sha256" in (artifact.config.get("head_code") or {}) and folder.HEAD_CODE not in content:
        raise ModelError(
            f"{artifact.folder} lacks {folder.HEAD_CODE}, the code of its head; nothing was pushed",
            hint="copy the whole folder, or fine-tune again",
        )
    facts = folder.facts_of(cleaned[folder.TEXTCLF], where=folder.TEXTCLF)
    clean = dataclasses.replace(artifact, config=cleaned[folder.CONFIG], facts=facts)
    content = {folder.CARD: card.render(clean, repo_id=repo_id).encode(), **content}
    for name, data in content.items():
        screening.check_publishable(name, data, folder=artifact.folder)
    return content


def _check_code(path: Path, artifact: folder.Artifact) -> None:
    """That the code of a head is what the model was trained with. Raises ModelError, or RefusedError where it names
    this machine."""
    source = path.read_bytes().decode("utf-8", "replace")
    if consent.digest(source) != (artifact.config.get("head_code") or {}).get("sha256"):
        raise ModelError(
            f"{path} is not the code that the model was trained with; nothing was pushed",
            hint="put the file back as it was, or fine-tune again with the code as it is now",
        )
    screening.check_traces(source, where=folder.HEAD_CODE)


def _commit(api: HfApi, repo_id: str, content: dict[str, bytes | Path], listing: list[str], message: str) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    additions = [
        CommitOperationAdd(path_in_repo=name, path_or_fileobj=data if isinstance(data, bytes) else str(data))
        for name, data in content.items()
    ]
    # What an earlier push left and this model has not: a shard, a vocabulary. Files of other kinds are the owner's.
    stale = [name for name in listing if name not in content and matches(name, folder.PUBLISHED)]
    deletions = [CommitOperationDelete(path_in_repo=name, is_folder=False) for name in stale]
    commit = remote.ask(
        lambda: api.create_commit(repo_id, [*additions, *deletions], commit_message=message), about=repo_id
    )
    return str(commit.oid)


def _note(info: ModelInfo | None, public: bool) -> str | None:
    if info is None or bool(info.private) != public:
        return None
    now, asked = ("private", "public") if info.private else ("public", "private")
    return f"{info.id} exists and stays {now}; to make it {asked}, use its settings page on the Hub"


def _message(artifact: folder.Artifact) -> str:
    assert artifact.facts is not None
    dataset = screening.last_part(artifact.facts.dataset or "") or "own data"
    base = screening.last_part(artifact.facts.base_model or "") or "a classifier"
    return f"{base} fine-tuned on {dataset}, by textclf {__version__}"
