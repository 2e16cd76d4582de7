"""A hub on loopback: real HTTP, the Hugging Face hub's own URL layout, headers and error codes.

Stock clients work against it unchanged, with ``HF_ENDPOINT`` set: ``huggingface_hub``, ``transformers``, ``datasets``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import tempfile
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_RESOLVE = re.compile(r"^/(?P<kind>datasets/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)$")
_API = re.compile(
    r"^/api/(?P<kind>models|datasets)/(?P<id>[^/]+/[^/]+?)"
    r"(?:/(?P<what>revision|tree|paths-info|preupload|commit)/(?P<rest>.*))?$"
)
_LFS = re.compile(r"^/(?P<id>[^/]+/[^/]+)\.git/info/lfs/objects/batch$")
_BLOB = re.compile(r"^/lfs/(?P<id>[^/]+/[^/]+)/(?P<oid>[0-9a-f]{64})$")
_LARGE = (".safetensors", ".bin", ".parquet")  # by LFS, as a hub's own .gitattributes say


@dataclass
class Repository:
    """One repository: folders of files, each as it was at a commit; the last is ``main``."""

    kind: str
    id: str
    folder: Path
    token: str | None
    folders: dict[str, Path] = field(init=False, default_factory=dict)
    messages: list[str] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.add(self.folder, "initial commit")

    @property
    def commit(self) -> str:
        return list(self.folders)[-1]

    def add(self, folder: Path, message: str) -> None:
        self.folder = folder
        digest = hashlib.sha1(f"{self.id} {len(self.folders)}".encode(), usedforsecurity=False)
        for path in self.files():
            digest.update(path.read_bytes())
        self.folders[digest.hexdigest()] = folder
        self.messages.append(message)

    def files(self, commit: str | None = None) -> list[Path]:
        folder = self.folders[commit] if commit else self.folder
        return sorted(path for path in folder.rglob("*") if path.is_file())

    def entry(self, path: Path, commit: str | None = None) -> dict[str, Any]:
        content = path.read_bytes()
        name = path.relative_to(self.folders[commit or self.commit]).as_posix()
        return {"type": "file", "path": name, "size": len(content), "oid": _git_hash(content)}


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class LoopbackHub:
    """The server; use it as a context manager.

    Attributes:
        requests: method, path and whether a token was sent, for every request so far.
        cut_short: files whose path ends so break off half-way.
        writers: token to the account that it may write for; others' tokens are unknown here.
        uploading: is set once the upload of a large file has begun.
        hold: the upload of a large file stops half-way until this is set.
        drop: where the next connection breaks off: in an ``upload``, before a ``commit``, or before its ``answer``.
    """

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[tuple[str, str, bool]] = []
        self.cut_short: set[str] = set()
        self.writers: dict[str, str] = {}
        self.uploading = threading.Event()
        self.hold = threading.Event()
        self.hold.set()
        self.drop: str | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="hub-"))
        hub = self

        class Handler(_Handler):
            served = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> LoopbackHub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.hold.set()
        self._server.shutdown()
        self._server.server_close()
        shutil.rmtree(self.folder)

    def add(self, kind: str, repository: str, folder: Path, token: str | None = None) -> str:
        """Serve a folder as a repository of ``models`` or ``datasets``; returns its commit."""
        made = Repository(kind, repository, folder, token)
        self.repositories[kind, repository] = made
        return made.commit

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """For a client's process: this hub, and a cache of its own."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
        ours = {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "FEATHERWEIGHT_CACHE": str(home / "fw")}
        return {**kept, **ours, "HF_HUB_DISABLE_XET": "1", **more}

    def create(self, repository: str, token: str | None) -> None:
        """A new repository as the real hub makes it, with one commit; private where there is a token."""
        folder = self.new_folder()
        (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
        self.add("models", repository, folder, token)

    def blob(self, repository: str, oid: str) -> Path:
        """Where the content of a large file lies, which each repository has for itself."""
        return self.folder / f"{repository.replace('/', '--')}-{oid}"

    def new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder))


def _listed(entries: list[dict[str, Any]], folder: str, recursive: bool) -> list[dict[str, Any]]:
    """A folder's files and, unless they are listed themselves, its folders."""
    inside = [entry for entry in entries if not folder or entry["path"].startswith(f"{folder}/")]
    if recursive:
        return inside
    depth = len(folder.split("/")) if folder else 0
    direct = [entry for entry in inside if entry["path"].count("/") == depth]
    folders = {"/".join(entry["path"].split("/")[: depth + 1]) for entry in inside if entry not in direct}
    return direct + [{"type": "directory", "path": path, "oid": "0", "size": 0} for path in sorted(folders)]


class _Handler(BaseHTTPRequestHandler):
    served: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Keep quiet; ``requests`` has it all."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    @property
    def _token(self) -> str | None:
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.served.requests.append((self.command, path, "Authorization" in self.headers))
        if match := _BLOB.match(path):
            self._store(match["id"], match["oid"])
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.served.writers and self._token and not self._is_known():
            self._error(HTTPStatus.UNAUTHORIZED, "", "Invalid credentials in Authorization header")
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path == "/api/validate-yaml":
            self._validate(json.loads(body)["content"])
        elif match := _LFS.match(path):
            if self._may_write(match["id"]):
                self._batch(match["id"], json.loads(body))
        elif match := _RESOLVE.match(path):
            repository = self._repository("datasets" if match["kind"] else "models", match["id"], match["revision"])
            if repository:
                self._file(repository, self._commit_of(repository, match["revision"]), match["path"])
        elif match := _API.match(path):
            revision, _, inner = (match["rest"] or "main").partition("/")
            if repository := self._repository(match["kind"], match["id"], revision):
                self._asked(repository, self._commit_of(repository, revision), match["what"], inner, body)
        else:
            self._error(HTTPStatus.NOT_FOUND, "", "Not here")

    def _repository(self, kind: str, name: str, revision: str) -> Repository | None:
        found = self.served.repositories.get((kind, name))
        if found is None or (found.token and self._token != found.token):
            # As the real hub: it does not tell a stranger which private repositories exist.
            status = HTTPStatus.NOT_FOUND if self._token else HTTPStatus.UNAUTHORIZED
            self._error(status, "RepoNotFound", "Repository not found")
            return None
        if revision not in {"main", *found.folders}:
            self._error(HTTPStatus.NOT_FOUND, "RevisionNotFound", "Invalid rev id")
            return None
        return found

    def _commit_of(self, repository: Repository, revision: str) -> str:
        return repository.commit if revision == "main" else revision

    def _is_known(self) -> bool:
        return self._token in self.served.writers or any(
            one.token == self._token for one in self.served.repositories.values()
        )

    def _may_write(self, name: str) -> bool:
        if self.served.writers.get(self._token or "") == name.partition("/")[0]:
            return True
        status = HTTPStatus.FORBIDDEN if self._token else HTTPStatus.UNAUTHORIZED
        self._error(status, "", "you don't have the rights to write here")
        return False

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        if not self._may_write(name):
            return
        if ("models", name) in self.served.repositories:
            self._error(HTTPStatus.CONFLICT, "", "You already created this model repo")
            return
        self.served.create(name, self._token if asked["visibility"] == "private" else None)
        self._json({"url": f"{self.served.url}/{name}"})

    def _validate(self, card: str) -> None:
        """As the hub's own check goes: the header is YAML, and its model index can be read."""
        import yaml
        from huggingface_hub.repocard_data import model_index_to_eval_results

        try:
            found = model_index_to_eval_results(yaml.safe_load(card.split("---")[1])["model-index"])
            assert all(one.dataset_name and isinstance(one.metric_value, float) for one in found[1])
        except (ValueError, LookupError, AssertionError, yaml.YAMLError) as error:
            self._json({"errors": [{"message": str(error)}], "warnings": []}, HTTPStatus.BAD_REQUEST)
        else:
            self._json({"errors": [], "warnings": []})

    def _preupload(self, repository: Repository, body: bytes) -> None:
        files = []
        for one in json.loads(body)["files"]:
            is_large, there = one["path"].endswith(_LARGE), repository.folder / one["path"]
            oid = None
            if there.is_file():
                content = there.read_bytes()
                oid = hashlib.sha256(content).hexdigest() if is_large else _git_hash(content)
            mode = "lfs" if is_large else "regular"
            files.append({"path": one["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._json({"files": files})

    def _batch(self, name: str, asked: dict[str, Any]) -> None:
        objects = []
        for one in asked["objects"]:
            is_there = self.served.blob(name, one["oid"]).is_file()
            upload = {"upload": {"href": f"{self.served.url}/lfs/{name}/{one['oid']}"}}
            objects.append({**one, **({} if is_there else {"actions": upload})})
        self._json({"transfer": "basic", "objects": objects})

    def _breaks_off(self, where: str) -> bool:
        """Whether the connection ends here, once."""
        if self.served.drop != where:
            return False
        self.served.drop = None
        self.close_connection = True
        return True

    def _store(self, name: str, oid: str) -> None:
        length = int(self.headers["Content-Length"])
        content = self.rfile.read(length // 2)
        self.served.uploading.set()
        self.served.hold.wait()
        if self._breaks_off("upload"):
            return
        content += self.rfile.read(length - length // 2)
        if hashlib.sha256(content).hexdigest() == oid:
            self.served.blob(name, oid).write_bytes(content)
            self._json({})

    def _commit(self, repository: Repository, body: bytes) -> None:
        """All of it or nothing: a folder beside the last one's, which then is ``main``."""
        if self._breaks_off("commit"):
            return
        header, *operations = [json.loads(line) for line in body.splitlines()]
        if header["value"].get("parentCommit", repository.commit) != repository.commit:
            self._error(HTTPStatus.PRECONDITION_FAILED, "", "The branch has moved")
            return
        folder = self.served.new_folder()
        shutil.copytree(repository.folder, folder, dirs_exist_ok=True)
        for one in operations:
            value = one["value"]
            target = folder / value["path"]
            if one["key"] == "file":
                target.write_bytes(base64.b64decode(value["content"]))
            elif one["key"] == "lfsFile":
                shutil.copyfile(self.served.blob(repository.id, value["oid"]), target)
            else:
                assert one["key"] == "deletedFile", one
                target.unlink()
        repository.add(folder, header["value"]["summary"])
        if not self._breaks_off("answer"):
            self._json({"commitUrl": f"{self.served.url}/{repository.id}", "commitOid": repository.commit})

    def _asked(self, repository: Repository, commit: str, what: str | None, inner: str, body: bytes) -> None:
        if what not in {"preupload", "commit"}:
            self._api(repository, commit, what, inner, body)
        elif self._may_write(repository.id):
            getattr(self, f"_{what}")(repository, body)

    def _api(self, repository: Repository, commit: str, what: str | None, inner: str, body: bytes) -> None:
        entries = [repository.entry(path, commit) for path in repository.files(commit)]
        if what == "tree":
            self._json(_listed(entries, inner.strip("/"), "recursive=true" in self.path.lower()))
        elif what == "paths-info":
            wanted = json.loads(body)["paths"]
            folders = {Path(entry["path"]).parent.as_posix() for entry in entries}
            known = [{"type": "directory", "path": path, "oid": "0", "size": 0} for path in wanted if path in folders]
            self._json([entry for entry in entries if entry["path"] in wanted] + known)
        else:
            siblings = [{"rfilename": entry["path"], "size": entry["size"]} for entry in entries]
            self._json(
                {
                    "id": repository.id, "sha": commit, "private": bool(repository.token), "gated": False,
                    "disabled": False, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings,
                    "lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z",
                }
            )  # fmt: skip

    def _file(self, repository: Repository, commit: str, name: str) -> None:
        path = repository.folders[commit] / name
        if not path.is_file():
            self._error(HTTPStatus.NOT_FOUND, "EntryNotFound", "Entry not found", commit)
            return
        content = path.read_bytes()
        start, end = 0, len(content)
        wanted = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if wanted:
            start, end = int(wanted[1]), min(int(wanted[2]) + 1 if wanted[2] else end, end)
        self.send_response(HTTPStatus.PARTIAL_CONTENT if wanted else HTTPStatus.OK)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(content)}")
        self.send_header("Content-Length", str(end - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{repository.entry(path, commit)["oid"]}"')
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if self.command == "HEAD":
            return
        if any(name.endswith(suffix) for suffix in self.served.cut_short):
            self.wfile.write(content[start : start + (end - start) // 2])
            self.close_connection = True
        else:
            self.wfile.write(content[start:end])

    def _json(self, content: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _error(self, status: HTTPStatus, code: str, message: str, commit: str | None = None) -> None:
        body = json.dumps({"error": message}).encode()
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        if commit:
            self.send_header("X-Repo-Commit", commit)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
