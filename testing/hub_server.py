"""A Hugging Face Hub on loopback: the part of its HTTP interface that huggingface_hub, transformers and datasets use.

The clients are the real ones; they only need another endpoint:

    with HubServer({"hf_ana": {"name": "ana", "orgs": ["org"]}}) as server:
        HfApi(endpoint=server.endpoint, token="hf_ana").create_repo("org/model")
        subprocess.run([...], env=server.environment(home, token="hf_ana"))  # endpoints are read at import

Repositories live in memory: commits are immutable snapshots, and a new repository starts with one that holds a
.gitattributes, as on the Hub. Status codes and X-Error-Code headers are the Hub's, because clients choose their
exceptions by them. Large files (LFS) are kept by a storage of another origin, `localhost` instead of `127.0.0.1`, which
takes signed addresses and no tokens. Left out: pull requests, the building of Spaces, .gitignore, multipart uploads,
pages of listings, and Xet: a client with hf_xet uploads by it without asking, unless HF_HUB_DISABLE_XET=1.
"""

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from fnmatch import fnmatch
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

import yaml

LFS_SUFFIXES = "7z arrow bin flac gz mp3 npy npz onnx parquet pickle pkl pt pth safetensors tar wav zip zst".split()
GITATTRIBUTES = "".join(f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES).encode()
REGULAR_LIMIT = 10_000_000  # bytes; larger files go to LFS whatever they are called


class HubError(Exception):
    """A reply that is an error: HTTP status, the Hub's message and its X-Error-Code."""

    def __init__(self, status: int, message: str, code: str = "", **headers: str):
        super().__init__(message)
        self.status, self.message, self.code, self.headers = status, message, code, headers


class Reply(NamedTuple):
    body: bytes = b""
    headers: dict[str, str] = {}
    status: int = 200


class Request(NamedTuple):
    """One line of the request log."""

    method: str
    path: str  # with its query, as sent
    status: int | None  # None: the connection was dropped
    range: str | None  # the Range header


@dataclass(frozen=True)
class Blob:
    data: bytes
    lfs: bool = False

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @cached_property
    def pointer(self) -> bytes:
        """Text that git keeps of a large file."""
        size = len(self.data)
        return f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\nsize {size}\n".encode()

    @cached_property
    def oid(self) -> str:
        content = self.pointer if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.lfs else self.oid


@dataclass(frozen=True)
class Commit:
    files: dict[str, Blob]
    title: str
    message: str
    author: str
    parents: tuple[str, ...]
    date: str

    @cached_property
    def sha(self) -> str:
        content = [self.title, self.message, self.author, self.parents, self.date]
        content += [(path, blob.oid) for path, blob in sorted(self.files.items())]
        return hashlib.sha1(json.dumps(content).encode()).hexdigest()

    @property
    def card(self) -> dict:
        """The metadata of README.md."""
        text = self.files["README.md"].data.decode() if "README.md" in self.files else ""
        return card_metadata(text)

    def keeps_as_lfs(self, path: str) -> bool:
        lines = self.files[".gitattributes"].data.decode().splitlines() if ".gitattributes" in self.files else []
        patterns = [line.split()[0] for line in lines if "filter=lfs" in line]
        return any(fnmatch(path, pattern) or fnmatch(PurePosixPath(path).name, pattern) for pattern in patterns)

    def entry(self, path: str, expand: bool = False) -> dict | None:
        """Return a file or folder as `tree` and `paths-info` describe it."""
        if path in self.files:
            blob = self.files[path]
            entry = {"type": "file", "path": path, "oid": blob.oid, "size": len(blob.data)}
            if blob.lfs:
                entry["lfs"] = {"oid": blob.sha256, "size": len(blob.data), "pointerSize": len(blob.pointer)}
        elif inside := sorted(name for name in self.files if name.startswith(f"{path}/")):
            oid = hashlib.sha1(json.dumps([(name, self.files[name].oid) for name in inside]).encode()).hexdigest()
            entry = {"type": "directory", "path": path, "oid": oid, "size": 0}
        else:
            return None
        return entry | ({"lastCommit": {"id": self.sha, "title": self.title, "date": self.date}} if expand else {})


def card_metadata(text: str) -> dict:
    """Return the YAML between the two lines of dashes that open a card."""
    match = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    return (yaml.safe_load(match[1]) or {}) if match else {}


@dataclass
class Repository:
    """A repository: commits, and the branches and tags that name them."""

    id: str
    type: str  # model, dataset or space
    private: bool = False
    gated: str | bool = False
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        return self.id.split("/")[0]

    def at(self, revision: str) -> Commit:
        """Return the commit of a branch, a tag or a full sha."""
        name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
        sha = self.branches.get(name) or self.tags.get(name) or revision
        if sha not in self.commits:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return self.commits[sha]

    def history(self, revision: str) -> list[Commit]:
        """Newest first."""
        commits = [self.at(revision)]
        while commits[-1].parents:
            commits.append(self.commits[commits[-1].parents[0]])
        return commits

    def commit(self, branch: str, files: dict[str, Blob], title: str, message: str, author: str) -> Commit:
        """Put a snapshot on a branch."""
        parents = (self.branches[branch],) if branch in self.branches else ()
        date = datetime.now(timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        commit = Commit(files, title, message, author, parents, date)
        self.commits[commit.sha] = commit
        self.branches[branch] = commit.sha
        return commit


@dataclass
class _Fault:
    pattern: re.Pattern
    after: int
    times: float
    status: int | None


class HubServer:
    """The server: a context manager; its threads are daemons.

    users: token -> {"name": ..., "orgs": [...], "role": "write" (the default) or "read"}. A user writes to their own
    namespace and to their organisations', and reads every public repository.
    """

    UPLOAD, DOWNLOAD, COMMIT = r"PUT /lfs/", r"GET (/lfs/|\S+/resolve/)", r"POST \S+/commit/"

    def __init__(self, users: dict[str, dict]):
        self.users = users
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.objects: dict[str, bytes] = {}  # the storage of large files, by SHA-256
        self.requests: list[Request] = []
        self.lock = threading.RLock()
        self.connections: set[socket.socket] = set()
        self._secret = secrets.token_bytes()
        self._faults: list[_Fault] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "HubServer":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_):
        """Stop; from now on connections are refused."""
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self.connections):  # clients keep them open
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def environment(self, home, token: str | None = None, **variables: str) -> dict[str, str]:
        """Return the environment of a fresh process whose Hub this is, with its caches in `home`, which has just a
        token.
        """
        ours = ("HF_", "HUGGING", "TRANSFORMERS", "PYTHON")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(ours)}
        environment |= {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1,localhost"}
        switches = ("XET", "TELEMETRY", "PROGRESS_BARS", "UPDATE_CHECK")
        environment |= {f"HF_HUB_DISABLE_{name}": "1" for name in switches}
        return environment | ({"HF_TOKEN": token} if token else {}) | variables

    def repository(self, repo_id: str, repo_type: str = "model") -> Repository:
        return self.repositories[repo_type, repo_id]

    def files(self, repo_id: str, revision: str = "main", repo_type: str = "model") -> dict[str, bytes]:
        """Return the whole snapshot of a revision, .gitattributes included: path -> content."""
        return {path: blob.data for path, blob in self.repository(repo_id, repo_type).at(revision).files.items()}

    def create(self, repo_id: str, repo_type: str = "model", private: bool = False, author: str = "hub") -> Repository:
        repository = self.repositories[repo_type, repo_id] = Repository(repo_id, repo_type, private)
        repository.commit("main", {".gitattributes": Blob(GITATTRIBUTES)}, "initial commit", "", author)
        return repository

    def fail(self, pattern: str, after: int = 0, times: float = float("inf"), status: int | None = None):
        """Let requests fail whose "METHOD /path" starts with a regular expression: UPLOAD, DOWNLOAD, COMMIT or another.

        The first `after` of them succeed, the `times` next ones fail, and the rest succeed again. A failure is an HTTP
        status, or without one a connection that breaks in the middle of the request's body, or of the reply's if the
        request has none. Clients repeat broken uploads and statuses from 500 on, for about 23 s; not 4xx, nor commits.
        """
        self._faults.append(_Fault(re.compile(pattern), after, times, status))

    def heal(self):
        """Let requests succeed again."""
        self._faults.clear()

    def _fault(self, line: str) -> _Fault | None:
        for fault in self._faults:
            if fault.pattern.match(line):
                fault.after -= 1
                if fault.after < 0 <= fault.after + fault.times:
                    return fault
        return None

    def storage(self, oid: str) -> str:
        """Return the signed address of a large file, on another origin than the endpoint's."""
        return f"{self.endpoint.replace('127.0.0.1', 'localhost')}/lfs/{oid}?signature={self.signature(oid)}"

    def signature(self, oid: str) -> str:
        return hmac.new(self._secret, oid.encode(), "sha256").hexdigest()


_ROUTES: list[tuple[str, re.Pattern, Callable]] = []
_REPO = r"/api/(?P<repo_type>model|dataset|space)s/(?P<repo_id>[^/]+/[^/]+)"
_AT = r"/(?P<revision>[^/]+)"
_FILES = (
    r"/((?P<repo_type>dataset|space)s/)?(?P<repo_id>[^/]+/[^/]+?)"  # how addresses outside the API name a repository
)


def _route(methods: str, pattern: str):
    def register(function):
        _ROUTES.extend((method, re.compile(pattern), function) for method in methods.split())
        return function

    return register


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # clients keep connections
    disable_nagle_algorithm = True
    hub: HubServer  # set in a subclass for each server

    def setup(self):
        super().setup()
        self.hub.connections.add(self.connection)

    def finish(self):
        self.hub.connections.discard(self.connection)
        with suppress(OSError):  # the other side may have hung up
            super().finish()

    # From request to reply

    def _handle(self):
        url = urlsplit(self.path)
        size = int(self.headers.get("Content-Length") or 0)
        with self.hub.lock:
            fault = self.hub._fault(f"{self.command} {url.path}")
        broken = fault is not None and fault.status is None
        if broken and size:
            self.rfile.read(size // 2)
            return self._broken()
        self.body = self.rfile.read(size)
        self.query = parse_qs(url.query)
        try:
            if "chunked" in self.headers.get("Transfer-Encoding", ""):
                self.close_connection = True
                raise HubError(411, "Length Required")
            if fault and fault.status:
                raise HubError(fault.status, "Injected failure")
            with self.hub.lock:
                self.user = None if url.path.startswith("/lfs/") else self._authenticated()
                reply = self._dispatch(url.path)
        except HubError as error:
            headers = {"X-Error-Message": error.message} | ({"X-Error-Code": error.code} if error.code else {})
            body = json.dumps({"error": error.message}).encode()
            reply = Reply(body, headers | error.headers | {"Content-Type": "application/json"}, error.status)
        self._send(reply if isinstance(reply, Reply) else _json(reply), broken)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle

    def _dispatch(self, path: str):
        for method, pattern, function in _ROUTES:
            if method == self.command and (match := pattern.fullmatch(path)):
                return function(self, **{name: unquote(text) for name, text in match.groupdict().items() if text})
        raise HubError(404, "Sorry, we can't find the page you are looking for.")

    def _send(self, reply: Reply, broken: bool):
        sent = b"" if self.command == "HEAD" else reply.body
        self._log(None if broken else reply.status)  # first: who has a reply finds its line
        self.send_response(reply.status)
        for name, value in ({"Content-Length": str(len(reply.body))} | reply.headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(sent[: len(sent) // 2] if broken else sent)
        self.close_connection |= broken

    def _broken(self):
        self._log(None)
        self.close_connection = True

    def _log(self, status: int | None):
        self.hub.requests.append(Request(self.command, self.path, status, self.headers.get("Range")))

    def log_message(self, *_):
        """Write nothing on stderr."""

    # Who may do what

    def _authenticated(self) -> dict | None:
        header = self.headers.get("Authorization")
        if header is None:
            return None
        token = header.removeprefix("Bearer ")
        if token not in self.hub.users:
            raise HubError(401, "Invalid credentials in Authorization header")
        return self.hub.users[token]

    def _writes(self, namespace: str) -> bool:
        user = self.user
        owner = user is not None and (namespace == user["name"] or namespace in user.get("orgs", []))
        return owner and user.get("role", "write") == "write"

    def _readable(self, repo_id: str, repo_type: str) -> Repository:
        repository = self.hub.repositories.get((repo_type, repo_id))
        members = [self.user["name"], *self.user.get("orgs", [])] if self.user else []
        if repository is None or (repository.private and repository.namespace not in members):
            if self.user is None:  # what is absent and what is hidden look the same
                raise HubError(401, "Invalid username or password.", "RepoNotFound")
            raise HubError(404, "Repository not found", "RepoNotFound")
        return repository

    def _writable(self, repo_id: str, repo_type: str) -> Repository:
        repository = self._readable(repo_id, repo_type)
        if self.user is None:
            raise HubError(401, "Invalid username or password.")
        if not self._writes(repository.namespace):
            raise HubError(403, f"Forbidden: you have no write access to {repo_type} {repo_id} with this token")
        return repository

    def _branch(self, repository: Repository, revision: str) -> str:
        branch = revision.removeprefix("refs/heads/")
        if branch not in repository.branches:
            raise HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
        return branch

    # Accounts and repositories

    @_route("GET", "/api/whoami-v2")
    def whoami(self):
        if self.user is None:
            raise HubError(401, "Invalid username or password.")
        role, name = self.user.get("role", "write"), self.user["name"]
        orgs = [{"type": "org", "name": org, "roleInOrg": role} for org in self.user.get("orgs", [])]
        auth = {"type": "access_token", "accessToken": {"displayName": "test", "role": role}}
        return {"type": "user", "id": name, "name": name, "fullname": name, "orgs": orgs, "auth": auth}

    @_route("POST", "/api/repos/create")
    def create(self):
        wanted = json.loads(self.body)
        if self.user is None:
            raise HubError(401, "Invalid username or password.")
        namespace, repo_type = wanted.get("organization") or self.user["name"], wanted.get("type", "model")
        if not self._writes(namespace):
            raise HubError(403, f'You don\'t have the rights to create a {repo_type} under the namespace "{namespace}"')
        repo_id = f"{namespace}/{wanted['name']}"
        url = f"{self.hub.endpoint}/{'' if repo_type == 'model' else f'{repo_type}s/'}{repo_id}"
        if repo_type == "space" and "sdk" not in wanted:
            raise HubError(400, "sdk is required for a Space")
        if (repo_type, repo_id) in self.hub.repositories:
            return _json({"error": f"You already created this {repo_type} repo: {repo_id}", "url": url}, 409)
        self.hub.create(repo_id, repo_type, wanted.get("visibility") == "private", self.user["name"])
        return {"url": url, "name": repo_id}

    @_route("DELETE", "/api/repos/delete")
    def delete(self):
        doomed = json.loads(self.body)
        repo_type, namespace = doomed.get("type", "model"), doomed.get("organization") or (self.user or {}).get("name")
        repository = self._writable(f"{namespace}/{doomed['name']}", repo_type)
        del self.hub.repositories[repo_type, repository.id]
        return {}

    @_route("PUT", _REPO + "/settings")
    def settings(self, repo_type, repo_id):
        repository, wanted = self._writable(repo_id, repo_type), json.loads(self.body)
        repository.gated = wanted.get("gated", repository.gated)
        if "visibility" in wanted:
            repository.private = wanted["visibility"] == "private"
        return {"private": repository.private, "gated": repository.gated}

    @_route("POST", "/api/validate-yaml")
    def validate_card(self):
        try:
            empty = not card_metadata(json.loads(self.body)["content"])
        except yaml.YAMLError as error:
            return _json({"errors": [{"message": str(error)}], "warnings": []}, 400)
        return {"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}] if empty else []}

    # Reading

    @_route("GET", _REPO + f"(/revision{_AT})?")
    def info(self, repo_type, repo_id, revision="main"):
        repository = self._readable(repo_id, repo_type)
        commit = repository.at(revision)
        card = commit.card
        siblings = []
        for path, blob in sorted(commit.files.items()):
            siblings.append({"rfilename": path})
            if "blobs" in self.query:
                siblings[-1] |= {"size": len(blob.data), "blobId": blob.oid}
                if blob.lfs:
                    lfs = {"sha256": blob.sha256, "size": len(blob.data), "pointerSize": len(blob.pointer)}
                    siblings[-1]["lfs"] = lfs
        info = {
            "id": repo_id, "author": repository.namespace, "sha": commit.sha, "lastModified": commit.date,
            "createdAt": repository.history("main")[-1].date, "private": repository.private, "gated": repository.gated,
            "disabled": False, "downloads": 0, "likes": 0, "cardData": card, "siblings": siblings,
            "tags": [*card.get("tags", []), *(f"license:{name}" for name in [card.get("license")] if name)],
        }  # fmt: skip
        if repo_type == "model":
            library = card.get("library_name") or ("transformers" if "config.json" in commit.files else None)
            info |= {"modelId": repo_id, "library_name": library, "pipeline_tag": card.get("pipeline_tag")}
        if "securityStatus" in self.query:
            info["securityRepoStatus"] = {"scansDone": True, "filesWithIssues": []}
        if expand := self.query.get("expand"):
            info = {key: value for key, value in info.items() if key in ("id", *expand)}
        return info

    @_route("GET", _REPO + f"/tree{_AT}(/(?P<path>.+))?")
    def tree(self, repo_type, repo_id, revision, path=""):
        commit = self._readable(repo_id, repo_type).at(revision)
        recursive, expand = self._flag("recursive"), self._flag("expand")
        root = f"{path.strip('/')}/" if path else ""
        found = set()
        for name in commit.files:
            if name.startswith(root):
                parts = name[len(root) :].split("/")
                for depth in range(1, len(parts) + 1 if recursive else 2):
                    found.add(root + "/".join(parts[:depth]))
        if root and not found:
            raise HubError(404, f"{path} does not exist on {revision}", "EntryNotFound")
        return [commit.entry(name, expand) for name in sorted(found)]

    @_route("POST", _REPO + f"/paths-info{_AT}")
    def paths_info(self, repo_type, repo_id, revision):
        commit = self._readable(repo_id, repo_type).at(revision)
        form = parse_qs(self.body.decode())
        expand = form.get("expand", ["false"])[0].lower() == "true"
        entries = [commit.entry(path.strip("/"), expand) for path in form.get("paths", [])]
        return [entry for entry in entries if entry]

    @_route("GET", _REPO + "/refs")
    def refs(self, repo_type, repo_id):
        repository = self._readable(repo_id, repo_type)

        def listed(kind, names):
            return [{"name": name, "ref": f"refs/{kind}/{name}", "targetCommit": sha} for name, sha in names.items()]

        branches, tags = listed("heads", repository.branches), listed("tags", repository.tags)
        return {"branches": branches, "tags": tags, "converts": [], "pullRequests": []}

    @_route("GET", _REPO + f"/commits{_AT}")
    def commits(self, repo_type, repo_id, revision):
        return [
            {"id": commit.sha, "title": commit.title, "message": commit.message, "date": commit.date,
             "authors": [{"user": commit.author}]}
            for commit in self._readable(repo_id, repo_type).history(revision)
        ]  # fmt: skip

    @_route("GET HEAD", _FILES + f"/resolve{_AT}/(?P<path>.+)")
    def resolve(self, repo_id, revision, path, repo_type="model"):
        repository = self._readable(repo_id, repo_type)
        if repository.gated and not self._writes(repository.namespace):
            message = f"Access to {repo_type} {repo_id} is restricted."
            raise HubError(403 if self.user else 401, message, "GatedRepo")
        commit = repository.at(revision)
        blob = commit.files.get(path)
        if blob is None:
            raise HubError(404, "Entry not found", "EntryNotFound", **{"X-Repo-Commit": commit.sha})
        name = quote(PurePosixPath(path).name)
        headers = {"X-Repo-Commit": commit.sha, "Content-Disposition": f"inline; filename*=UTF-8''{name}"}
        if blob.lfs:
            linked = {"X-Linked-Etag": f'"{blob.etag}"', "X-Linked-Size": str(len(blob.data))}
            return Reply(headers=headers | linked | {"Location": self.hub.storage(blob.sha256)}, status=302)
        return self._content(blob.data, headers | {"ETag": f'"{blob.etag}"'})

    def _flag(self, name: str) -> bool:
        return self.query.get(name, ["false"])[0].lower() in ("true", "1")

    def _content(self, data: bytes, headers: dict[str, str]) -> Reply:
        """Return a file, or the part of it that a Range header names."""
        headers = headers | {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not wanted or not any(wanted.groups()):
            return Reply(data, headers)
        first, last = wanted.groups()
        start = int(first) if first else max(0, len(data) - int(last))
        stop = min(int(last) + 1, len(data)) if first and last else len(data)
        if start >= stop:
            return Reply(b"", headers | {"Content-Range": f"bytes */{len(data)}"}, 416)
        return Reply(data[start:stop], headers | {"Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}, 206)

    # Writing

    @_route("POST", _REPO + f"/preupload{_AT}")
    def preupload(self, repo_type, repo_id, revision):
        """Return how each file is to be uploaded, and what the repository has in its place."""
        repository = self._writable(repo_id, repo_type)
        commit = repository.at(self._branch(repository, revision))
        answers = []
        for file in json.loads(self.body)["files"]:
            binary = b"\0" in base64.b64decode(file["sample"])
            lfs = commit.keeps_as_lfs(file["path"]) or binary or file["size"] > REGULAR_LIMIT
            answer = {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False}
            if file["path"] in commit.files:
                answer["oid"] = commit.files[file["path"]].etag
            answers.append(answer)
        return {"files": answers, "commitOid": commit.sha}

    @_route("POST", _FILES + r"\.git/info/lfs/objects/batch")
    def lfs_batch(self, repo_id, repo_type="model"):
        self._writable(repo_id, repo_type)
        objects = []
        for item in json.loads(self.body)["objects"]:
            entry = {"oid": item["oid"], "size": item["size"]}
            if item["oid"] not in self.hub.objects:
                verify = {"href": f"{self.hub.endpoint}/lfs/verify", "header": {}}
                entry["actions"] = {"upload": {"href": self.hub.storage(item["oid"])}, "verify": verify}
            objects.append(entry)
        return {"transfer": "basic", "objects": objects}

    @_route("PUT GET HEAD", "/lfs/(?P<oid>[0-9a-f]{64})")
    def stored(self, oid):
        if not hmac.compare_digest(self.query.get("signature", [""])[0], self.hub.signature(oid)):
            raise HubError(403, "SignatureDoesNotMatch")
        if self.command != "PUT":
            return self._content(self.hub.objects[oid], {"ETag": f'"{oid}"'})
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise HubError(400, "BadDigest")
        self.hub.objects[oid] = self.body
        return Reply()

    @_route("POST", "/lfs/verify")
    def verify(self):
        wanted = json.loads(self.body)
        if len(self.hub.objects.get(wanted["oid"], b"")) != wanted["size"]:
            raise HubError(404, f"LFS object {wanted['oid']} was not uploaded")
        return {}

    @_route("POST", _REPO + f"/commit{_AT}")
    def commit(self, repo_type, repo_id, revision):
        """Commit all of it or nothing: lines of JSON, one per operation, the header first."""
        repository = self._writable(repo_id, repo_type)
        branch = self._branch(repository, revision)
        parent = repository.at(branch)
        header, *operations = [json.loads(line) for line in self.body.splitlines()]
        expected = header["value"].get("parentCommit")
        if expected and not parent.sha.startswith(expected):
            raise HubError(412, "A commit has happened since. Please refresh and try again.")
        files = dict(parent.files)
        for operation in operations:
            _apply(operation["key"], operation["value"], files, self.hub.objects)
        value = header["value"]
        commit = repository.commit(branch, files, value["summary"], value.get("description", ""), self.user["name"])
        url = f"{self.hub.endpoint}/{repo_id}/commit/{commit.sha}"
        return {"success": True, "commitOid": commit.sha, "commitUrl": url}

    @_route("POST", _REPO + f"/tag{_AT}")
    def tag(self, repo_type, repo_id, revision):
        repository, name = self._writable(repo_id, repo_type), json.loads(self.body)["tag"]
        sha = repository.at(revision).sha
        if name in repository.tags:
            raise HubError(409, f"Tag reference exists already: {name}")
        repository.tags[name] = sha
        return {}

    @_route("POST", _REPO + "/branch/(?P<name>[^/]+)")
    def branch(self, repo_type, repo_id, name):
        repository = self._writable(repo_id, repo_type)
        sha = repository.at(json.loads(self.body or b"{}").get("startingPoint", "main")).sha
        if name in repository.branches:
            raise HubError(409, f"Reference already exists: {name}")
        repository.branches[name] = sha
        return {}

    @_route("DELETE", _REPO + "/(?P<kind>tag|branch)/(?P<name>[^/]+)")
    def delete_ref(self, repo_type, repo_id, kind, name):
        repository = self._writable(repo_id, repo_type)
        names = repository.tags if kind == "tag" else repository.branches
        if name not in names:
            raise HubError(404, f"Invalid rev id: {name}", "RevisionNotFound")
        if kind == "branch" and name == "main":
            raise HubError(403, "Cannot delete branch main")
        del names[name]
        return {}

    @_route("GET POST PUT HEAD", _REPO + "/.+")
    @_route("GET HEAD", r"/api/(?P<repo_type>model|dataset|space)s/(?P<repo_id>[^/]+)(/.+)?")
    @_route("GET HEAD", r"/((?P<repo_type>dataset|space)s/)?(?P<repo_id>[^/]+)/resolve/.+")
    def other(self, repo_id, repo_type="model"):
        """Return what is not served of a repository; and repositories without a namespace, of which there are none."""
        self._readable(repo_id, repo_type)
        raise HubError(404, "Sorry, we can't find the page you are looking for.")


def _apply(key: str, value: dict, files: dict[str, Blob], objects: dict[str, bytes]):
    """Apply one operation of a commit to a copy of its parent's files."""
    path = value["path"]
    if key == "file":
        files[path] = Blob(base64.b64decode(value["content"]))
    elif key == "lfsFile":
        if value["oid"] not in objects:
            raise HubError(400, f"LFS pointer pointed to a file that does not exist: {path}")
        files[path] = Blob(objects[value["oid"]], lfs=True)
    elif key in ("deletedFile", "deletedFolder"):
        root = path.rstrip("/")
        doomed = [name for name in files if name == root or (key == "deletedFolder" and name.startswith(f"{root}/"))]
        if not doomed:
            raise HubError(404, "A file with this name doesn't exist", "EntryNotFound")
        for name in doomed:
            del files[name]
    else:
        raise HubError(400, f"Unknown operation: {key}")


def _json(content, status: int = 200) -> Reply:
    return Reply(json.dumps(content).encode(), {"Content-Type": "application/json"}, status)
