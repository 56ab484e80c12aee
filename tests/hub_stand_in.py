"""A stand-in for the Hugging Face Hub on loopback, in the standard library: repositories, tokens, LFS, faults.

The real clients (huggingface_hub, transformers, datasets) download from it and push to it. Large files are
served by a second origin, as the Hub's are, where no token may arrive. Clients read HF_ENDPOINT when they are
imported, so they run in a process of their own, with `environment(...)`.

    with HubStandIn() as hub:
        hub.add_model("distilbert/distilbert-base-uncased", folder, aliases=("distilbert-base-uncased",))
        subprocess.run([...], env={**os.environ, **hub.environment(tmp_path)})
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
import threading
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

WRITE_TOKEN = "hf_" + "w" * 34
READ_TOKEN = "hf_" + "r" * 34
OTHER_TOKEN = "hf_" + "o" * 34

LFS_SUFFIXES = (".safetensors", ".bin", ".parquet", ".arrow", ".onnx", ".gz", ".zip", ".model")
LFS_SIZE = 10_000_000
DATE = "2026-01-02T03:04:05.000Z"


@dataclass(frozen=True)
class Blob:
    """One file's content."""

    data: bytes
    lfs: bool

    @property
    def oid(self) -> str:
        """What the client compares: SHA-256 of LFS files, git's blob hash of the others."""
        return self.sha256 if self.lfs else self.git_oid

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def git_oid(self) -> str:
        return hashlib.sha1(b"blob %d\0" % len(self.data) + self.data).hexdigest()


@dataclass(frozen=True)
class Commit:
    oid: str
    title: str
    files: dict[str, Blob]


@dataclass
class Repo:
    """A repository: its commits, newest last."""

    kind: str
    id: str
    private: bool = False
    gated: bool = False
    commits: list[Commit] = field(default_factory=list)
    tags: dict[str, str] = field(default_factory=dict)

    def commit(self, title: str, files: dict[str, Blob]) -> Commit:
        seed = json.dumps([self.id, title, len(self.commits), {path: blob.oid for path, blob in sorted(files.items())}])
        made = Commit(hashlib.sha1(seed.encode()).hexdigest(), title, files)
        self.commits.append(made)
        return made

    def at(self, revision: str) -> Commit | None:
        if revision in ("main", "HEAD", "refs/heads/main"):
            return self.commits[-1]
        oid = self.tags.get(revision, revision)
        return next((commit for commit in self.commits if commit.oid == oid), None)

    @property
    def files(self) -> dict[str, bytes]:
        """Path -> content, as the main branch has it."""
        return {path: blob.data for path, blob in self.commits[-1].files.items()}


@dataclass(frozen=True)
class Account:
    name: str
    role: str
    orgs: tuple[str, ...] = ()


@dataclass
class Fault:
    """What goes wrong with the next `times` requests that match."""

    pattern: re.Pattern[str]
    times: int
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    cut_after: int | None = None
    held: Held | None = None


@dataclass
class Held:
    """An answer that stops on its way. reached: so far it came. released: it goes on."""

    reached: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        self.reached.set()
        self.released.wait(120)


@dataclass(frozen=True)
class Request:
    """One line of the log. origin: "hub" or "lfs"."""

    origin: str
    method: str
    path: str
    token: str | None
    body: bytes = b""


class HubStandIn:
    """Two servers on loopback: the Hub (`url`) and the origin of its large files (`lfs_url`)."""

    def __init__(self) -> None:
        self.repos: dict[tuple[str, str], Repo] = {}
        self.aliases: dict[tuple[str, str], str] = {}
        self.accounts = {
            WRITE_TOKEN: Account("alice", "write", ("acme",)),
            READ_TOKEN: Account("alice", "read"),
            OTHER_TOKEN: Account("mallory", "write"),
        }
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.objects: dict[str, bytes] = {}
        self.lock = threading.RLock()
        self._servers: list[ThreadingHTTPServer] = []

    def __enter__(self) -> HubStandIn:
        for handler in (_HubHandler, _LfsHandler):
            server = _Server(("127.0.0.1", 0), handler)
            server.daemon_threads = True
            server.hub = self  # type: ignore[attr-defined]
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
            self._servers.append(server)
        return self

    def __exit__(self, *_: object) -> None:
        for fault in self.faults:
            if fault.held is not None:
                fault.held.released.set()
        for server in self._servers:
            server.shutdown()
            server.server_close()
        self._servers.clear()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._servers[0].server_port}"

    @property
    def lfs_url(self) -> str:
        return f"http://127.0.0.1:{self._servers[1].server_port}"

    def environment(self, home: Path, *, token: str | None = None) -> dict[str, str]:
        """Variables that send the clients of a new process here, with a cache of their own under `home`."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home / "huggingface"),
            "HF_TOKEN": token or "",
            "HF_HUB_OFFLINE": "0",
            # With hf_xet installed, uploads would go by xet alone.
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }

    def add_model(
        self,
        repo_id: str,
        files: Path | Mapping[str, bytes | str],
        *,
        aliases: Iterable[str] = (),
        private: bool = False,
        gated: bool = False,
    ) -> Repo:
        """A model repository with a folder's files, or with these. `aliases` are answered with a redirect."""
        return self._add("model", repo_id, files, aliases, private, gated)

    def add_dataset(
        self,
        repo_id: str,
        files: Path | Mapping[str, bytes | str],
        *,
        aliases: Iterable[str] = (),
        private: bool = False,
        gated: bool = False,
    ) -> Repo:
        """A data set repository, as `add_model`."""
        return self._add("dataset", repo_id, files, aliases, private, gated)

    def model(self, repo_id: str) -> Repo:
        return self.repos["model", repo_id]

    def fail(
        self, pattern: str, status: int, *, times: int = 1, retry_after: int | None = None, body: bytes | None = None
    ) -> None:
        """Answer the next `times` requests whose "METHOD /path" matches with a status."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        self.faults.append(Fault(re.compile(pattern), times, status=status, headers=headers, body=body))

    def cut(self, pattern: str, *, after: int, times: int = 1) -> None:
        """Close the connection after this many bytes of the body."""
        self.faults.append(Fault(re.compile(pattern), times, cut_after=after))

    def hold(self, pattern: str, *, after: int = 0) -> Held:
        """Stop the next answer after this many bytes of its body, or before it begins, until it is released or the
        stand-in ends."""
        held = Held()
        self.faults.append(Fault(re.compile(pattern), 1, cut_after=after, held=held))
        return held

    def writes(self) -> list[Request]:
        """The requests that changed something, or would have."""
        harmless = ("/preupload/", "/paths-info/", "/api/validate-yaml")
        return [
            r for r in self.requests if r.method not in ("GET", "HEAD") and not any(part in r.path for part in harmless)
        ]

    def matching(self, pattern: str) -> list[Request]:
        return [r for r in self.requests if re.search(pattern, f"{r.method} {r.path}")]

    def _add(
        self,
        kind: str,
        repo_id: str,
        files: Path | Mapping[str, bytes | str],
        aliases: Iterable[str],
        private: bool,
        gated: bool,
    ) -> Repo:
        if isinstance(files, Path):
            files = {p.relative_to(files).as_posix(): p.read_bytes() for p in sorted(files.rglob("*")) if p.is_file()}
        repo = self.repos[kind, repo_id] = Repo(kind, repo_id, private, gated)
        contents = {path: data.encode() if isinstance(data, str) else data for path, data in files.items()}
        repo.commit("initial commit", {path: Blob(data, _is_lfs(path, len(data))) for path, data in contents.items()})
        self.aliases.update({(kind, alias): repo_id for alias in aliases})
        return repo


def _is_lfs(path: str, size: int) -> bool:
    return path.endswith(LFS_SUFFIXES) or size > LFS_SIZE


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):  # a client that was killed
            super().handle_error(request, client_address)


class _Answer(Exception):
    """The answer to a request, from wherever it is known."""

    def __init__(self, status: int, body: Any = b"", **headers: str) -> None:
        self.status, self.headers = status, {name.replace("_", "-"): value for name, value in headers.items()}
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        if not isinstance(body, bytes):
            self.headers.setdefault("Content-Type", "application/json")


def _error(status: int, message: str, code: str | None = None) -> _Answer:
    headers = {"X_Error_Message": message} | ({"X_Error_Code": code} if code else {})
    return _Answer(status, {"error": message}, **headers)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    origin = ""

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        hub = self.hub = self.server.hub  # type: ignore[attr-defined]
        # Read the whole body before any answer: what is left on a kept connection would be taken for a request.
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            self.content = b"".join(iter(self._chunk, b""))
        else:
            length = int(self.headers.get("Content-Length") or 0)
            self.content = self.rfile.read(length)
            if len(self.content) < length:  # whoever asked died while asking: that is no request
                self.close_connection = True
                return
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.token = token
        with hub.lock:
            hub.requests.append(Request(self.origin, self.command, self.path, token, self.content[:1_000_000]))
            line = f"{self.command} {self.path}"
            fault = next((f for f in hub.faults if f.times > 0 and f.pattern.search(line)), None)
            if fault:
                fault.times -= 1
            if fault and fault.status:
                self._send(_Answer(fault.status, fault.body or {"error": "a fault, as ordered"}, **fault.headers), None)
                return
            try:
                url = urllib.parse.urlsplit(self.path)
                self.query = urllib.parse.parse_qs(url.query)
                answer = self.respond(urllib.parse.unquote(url.path))
            except _Answer as raised:
                answer = raised
        self._send(answer, fault.cut_after if fault else None, fault.held if fault else None)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET

    def respond(self, path: str) -> _Answer:
        raise NotImplementedError

    def _chunk(self) -> bytes:
        size = int(self.rfile.readline().split(b";")[0], 16)
        data = self.rfile.read(size)
        self.rfile.readline()
        return data

    def _send(self, answer: _Answer, cut_after: int | None, held: Held | None = None) -> None:
        body, status, span = (
            answer.body,
            answer.status,
            re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or ""),
        )
        if span and status == 200:
            first, last = int(span[1]), min(int(span[2] or len(body)), len(body) - 1)
            answer.headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
            body, status = body[first : last + 1], 206
        if held is not None and not cut_after:
            held.stop()
            held, cut_after = None, None
        self.send_response(status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        if cut_after is not None:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body if cut_after is None else body[:cut_after])
        if held is not None:
            self.wfile.flush()
            held.stop()
            self.wfile.write(body[cut_after:])
        if cut_after is not None:
            self.close_connection = True


class _LfsHandler(_Handler):
    """The origin of large files: addresses carry their own permission, a token has no business here."""

    origin = "lfs"

    def respond(self, path: str) -> _Answer:
        sha256 = path.rsplit("/", 1)[-1]
        if self.command == "PUT":
            if hashlib.sha256(self.content).hexdigest() != sha256:
                return _error(400, "the content is not what was announced")
            self.hub.objects[sha256] = self.content
            return _Answer(200)
        stored = self.hub.objects.get(sha256)
        return _error(404, "no such object") if stored is None else _Answer(200, stored, ETag=f'"{sha256}"')


class _HubHandler(_Handler):
    origin = "hub"

    def respond(self, path: str) -> _Answer:
        self.account: Account | None = self.hub.accounts.get(self.token) if self.token else None
        if self.token and not self.account:
            return _error(401, "Invalid credentials in Authorization header")
        if path == "/api/whoami-v2":
            return self._whoami()
        if path == "/api/validate-yaml":
            return _Answer(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(self.content))
        if found := re.fullmatch(r"/(datasets/)?(.+?)\.git/info/lfs/objects/batch", path):
            return self._lfs_batch(self._repo("dataset" if found[1] else "model", found[2]))
        if found := re.fullmatch(r"/(datasets/)?([^/]+(?:/[^/]+)?)/resolve/([^/]+)/(.+)", path):
            return self._resolve(self._repo("dataset" if found[1] else "model", found[2]), found[3], found[4])
        if found := re.fullmatch(r"/api/(model|dataset)s/(.+)", path):
            return self._api(found[1], found[2])
        return _error(404, f"nothing at {path}")

    def _api(self, kind: str, rest: str) -> _Answer:
        parts = rest.split("/")
        actions = {"revision", "tree", "paths-info", "preupload", "commit", "commits", "refs"}
        length = 1 if len(parts) == 1 or parts[1] in actions else 2
        repo = self._repo(kind, "/".join(parts[:length]))
        action, *arguments = parts[length:] or [""]
        if action == "refs":
            branches = [{"name": "main", "ref": "refs/heads/main", "targetCommit": repo.commits[-1].oid}]
            tags = [{"name": name, "ref": f"refs/tags/{name}", "targetCommit": oid} for name, oid in repo.tags.items()]
            return _Answer(200, {"branches": branches, "tags": tags, "converts": []})
        commit = self._commit_of(repo, arguments[0] if arguments else "main")
        if action in ("", "revision"):
            return _Answer(200, self._info(repo, commit))
        if action == "tree":
            return _Answer(200, self._tree(commit, "/".join(arguments[1:])))
        if action == "paths-info":
            form = urllib.parse.parse_qs(self.content.decode())
            paths = form.get("paths", []) if form else json.loads(self.content)["paths"]
            return _Answer(200, [_entry(path, commit.files[path]) for path in paths if path in commit.files])
        if action == "commits":
            listed = [{"id": c.oid, "title": c.title, "message": "", "authors": [], "date": DATE} for c in repo.commits]
            return _Answer(200, listed[::-1])
        if action == "preupload":
            return self._preupload(repo, commit)
        if action == "commit":
            return self._commit(repo, commit)
        return _error(404, f"no action {action}")

    def _repo(self, kind: str, repo_id: str) -> Repo:
        full = self.hub.aliases.get((kind, repo_id))
        if full:
            place = f"/{repo_id}" if not self.path.startswith("/datasets") else f"/datasets/{repo_id}"
            there = place.removesuffix(repo_id) + full
            if self.path.startswith("/api/"):
                place, there = f"/api/{kind}s/{repo_id}", f"/api/{kind}s/{full}"
            raise _Answer(307, b"", Location=self.path.replace(place, there, 1))
        repo = self.hub.repos.get((kind, repo_id))
        if repo and (not repo.private or self._may_see(repo)):
            return repo
        if self.account:
            raise _error(404, "Repository not found", "RepoNotFound")
        raise _error(401, "Invalid username or password.", "RepoNotFound")

    def _may_see(self, repo: Repo) -> bool:
        return self.account is not None and repo.id.split("/")[0] in (self.account.name, *self.account.orgs)

    def _may_write(self, repo: Repo) -> None:
        if not self.account:
            raise _error(401, "Invalid username or password.")
        if self.account.role != "write" or not self._may_see(repo):
            raise _error(403, "you are not allowed to write to this repository")

    def _commit_of(self, repo: Repo, revision: str) -> Commit:
        commit = repo.at(revision)
        if commit is None:
            raise _error(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return commit

    def _whoami(self) -> _Answer:
        if not self.account:
            return _error(401, "Invalid username or password.")
        return _Answer(
            200,
            {
                "type": "user",
                "name": self.account.name,
                "orgs": [{"name": org, "roleInOrg": "write"} for org in self.account.orgs],
                "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": self.account.role}},
            },
        )

    def _create(self, wanted: dict[str, Any]) -> _Answer:
        if not self.account:
            return _error(401, "Invalid username or password.")
        owner = wanted.get("organization") or self.account.name
        kind, repo_id = wanted.get("type") or "model", f"{owner}/{wanted['name']}"
        if self.account.role != "write" or owner not in (self.account.name, *self.account.orgs):
            return _error(403, f'You don\'t have the rights to create a {kind} under the namespace "{owner}"')
        url = f"{self.hub.url}/{'datasets/' if kind == 'dataset' else ''}{repo_id}"
        if (kind, repo_id) in self.hub.repos:
            return _Answer(409, {"error": f"You already created this {kind} repo", "url": url})
        private = wanted.get("visibility") == "private" or wanted.get("private") is True
        repo = self.hub.repos[kind, repo_id] = Repo(kind, repo_id, private)
        repo.commit("initial commit", {".gitattributes": Blob(b"*.safetensors filter=lfs\n", False)})
        return _Answer(200, {"url": url, "name": repo_id, "id": repo_id})

    def _info(self, repo: Repo, commit: Commit) -> dict[str, Any]:
        blobs = "blobs" in self.query
        return {
            "_id": "0" * 24,
            "id": repo.id,
            "modelId": repo.id,
            "author": repo.id.split("/")[0],
            "sha": commit.oid,
            "private": repo.private,
            "gated": "manual" if repo.gated else False,
            "disabled": False,
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "lastModified": DATE,
            "createdAt": DATE,
            "siblings": [
                {"rfilename": path} | ({"size": len(blob.data), "blobId": blob.git_oid} if blobs else {})
                for path, blob in commit.files.items()
            ],
        }

    def _tree(self, commit: Commit, under: str) -> list[dict[str, Any]]:
        prefix = f"{under}/" if under else ""
        recursive = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        inside = [path for path in commit.files if path.startswith(prefix)]
        if under and not inside:
            raise _error(404, f"{under} does not exist", "EntryNotFound")
        folders: dict[str, None] = {}
        for path in inside:
            parts = path.removeprefix(prefix).split("/")[:-1]
            for depth in range(1, (len(parts) if recursive else min(len(parts), 1)) + 1):
                folders[prefix + "/".join(parts[:depth])] = None
        files = [path for path in inside if recursive or "/" not in path.removeprefix(prefix)]
        directories = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": path} for path in folders]
        return directories + [_entry(path, commit.files[path]) for path in files]

    def _resolve(self, repo: Repo, revision: str, path: str) -> _Answer:
        if repo.gated and not self._may_see(repo):
            return _error(403 if self.account else 401, f"Access to model {repo.id} is restricted.", "GatedRepo")
        commit = self._commit_of(repo, revision)
        blob = commit.files.get(path)
        if blob is None:
            return _Answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", X_Repo_Commit=commit.oid)
        facts = {"X_Repo_Commit": commit.oid, "ETag": f'"{blob.oid}"', "Accept_Ranges": "bytes"}
        if not blob.lfs:
            return _Answer(200, blob.data, **facts)
        self.hub.objects[blob.sha256] = blob.data
        facts |= {"X_Linked_Size": str(len(blob.data)), "X_Linked_Etag": f'"{blob.oid}"'}
        return _Answer(302, b"", Location=f"{self.hub.lfs_url}/object/{blob.sha256}", **facts)

    def _preupload(self, repo: Repo, commit: Commit) -> _Answer:
        self._may_write(repo)
        files = []
        for file in json.loads(self.content)["files"]:
            there = commit.files.get(file["path"])
            mode = "lfs" if _is_lfs(file["path"], file["size"]) else "regular"
            known = {"oid": there.oid} if there else {}
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, **known})
        return _Answer(200, {"files": files})

    def _lfs_batch(self, repo: Repo) -> _Answer:
        self._may_write(repo)
        answers = []
        for wanted in json.loads(self.content)["objects"]:
            answer = {"oid": wanted["oid"], "size": wanted["size"]}
            if wanted["oid"] not in self.hub.objects:
                answer["actions"] = {"upload": {"href": f"{self.hub.lfs_url}/upload/{wanted['oid']}"}}
            answers.append(answer)
        return _Answer(200, {"transfer": "basic", "objects": answers})

    def _commit(self, repo: Repo, parent: Commit) -> _Answer:
        self._may_write(repo)
        files, title = dict(parent.files), ""
        for line in self.content.splitlines():
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if key == "header":
                title = value["summary"]
                if value.get("parentCommit") not in (None, parent.oid):
                    return _error(412, "A commit has happened since. Please refresh and try again.")
            elif key == "file":
                files[value["path"]] = Blob(base64.b64decode(value["content"]), False)
            elif key == "lfsFile":
                if value["oid"] not in self.hub.objects:
                    return _error(400, f"LFS object {value['oid']} was never uploaded")
                files[value["path"]] = Blob(self.hub.objects[value["oid"]], True)
            elif key == "deletedFile":
                if files.pop(value["path"], None) is None:
                    return _error(404, "A file with this name doesn't exist", "EntryNotFound")
            elif key == "deletedFolder":
                files = {p: b for p, b in files.items() if not p.startswith(value["path"].rstrip("/") + "/")}
        made = repo.commit(title, files)
        url = f"{self.hub.url}/{repo.id}/commit/{made.oid}"
        return _Answer(200, {"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""})


def _entry(path: str, blob: Blob) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "oid": blob.git_oid, "size": len(blob.data), "path": path}
    if blob.lfs:
        entry["lfs"] = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": 134}
    return entry
