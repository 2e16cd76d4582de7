"""A hub on loopback: real HTTP, the Hugging Face hub's own URL layout, headers and error codes.

Stock clients work against it unchanged, with ``HF_ENDPOINT`` set: ``huggingface_hub``, ``transformers``, ``datasets``.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_RESOLVE = re.compile(r"^/(?P<kind>datasets/)?(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>.+)$")
_API = re.compile(
    r"^/api/(?P<kind>models|datasets)/(?P<id>[^/]+/[^/]+?)(?:/(?P<what>revision|tree|paths-info)/(?P<rest>.*))?$"
)


@dataclass
class Repository:
    """One repository at one commit."""

    kind: str
    id: str
    folder: Path
    token: str | None
    commit: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.id.encode(), usedforsecurity=False)
        for path in self.files():
            digest.update(path.read_bytes())
        self.commit = digest.hexdigest()

    def files(self) -> list[Path]:
        return sorted(path for path in self.folder.rglob("*") if path.is_file())

    def entry(self, path: Path) -> dict[str, Any]:
        content = path.read_bytes()
        etag = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        return {"type": "file", "path": path.relative_to(self.folder).as_posix(), "size": len(content), "oid": etag}


class LoopbackHub:
    """The server; use it as a context manager.

    Attributes:
        requests: method, path and whether a token was sent, for every request so far.
        cut_short: files whose path ends so break off half-way.
    """

    def __init__(self) -> None:
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.requests: list[tuple[str, str, bool]] = []
        self.cut_short: set[str] = set()
        hub = self

        class Handler(_Handler):
            served = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> LoopbackHub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, kind: str, repository: str, folder: Path, token: str | None = None) -> str:
        """Serve a folder as a repository of ``models`` or ``datasets``; returns its commit."""
        made = Repository(kind, repository, folder, token)
        self.repositories[kind, repository] = made
        return made.commit

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """For a client's process: this hub, and a cache of its own."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "TRANSFORMERS_"))}
        return {**kept, "HF_ENDPOINT": self.url, "HF_HOME": str(home), "FEATHERWEIGHT_CACHE": str(home / "fw"), **more}


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

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.served.requests.append((self.command, path, "Authorization" in self.headers))
        if match := _RESOLVE.match(path):
            repository = self._repository("datasets" if match["kind"] else "models", match["id"], match["revision"])
            if repository:
                self._file(repository, match["path"])
        elif match := _API.match(path):
            rest = match["rest"] or "main"
            repository = self._repository(match["kind"], match["id"], rest.partition("/")[0])
            if repository:
                self._api(repository, match["what"], rest.partition("/")[2], body)
        else:
            self._error(HTTPStatus.NOT_FOUND, "", "Not here")

    def _repository(self, kind: str, name: str, revision: str) -> Repository | None:
        found = self.served.repositories.get((kind, name))
        sent = self.headers.get("Authorization")
        if found is None or (found.token and sent != f"Bearer {found.token}"):
            # As the real hub: it does not tell a stranger which private repositories exist.
            status = HTTPStatus.NOT_FOUND if sent else HTTPStatus.UNAUTHORIZED
            self._error(status, "RepoNotFound", "Repository not found")
            return None
        if revision not in {"main", found.commit}:
            self._error(HTTPStatus.NOT_FOUND, "RevisionNotFound", "Invalid rev id")
            return None
        return found

    def _api(self, repository: Repository, what: str | None, inner: str, body: bytes) -> None:
        entries = [repository.entry(path) for path in repository.files()]
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
                    "id": repository.id, "sha": repository.commit, "private": bool(repository.token), "gated": False,
                    "disabled": False, "downloads": 0, "likes": 0, "tags": [], "siblings": siblings,
                    "lastModified": "2026-01-01T00:00:00.000Z", "createdAt": "2026-01-01T00:00:00.000Z",
                }
            )  # fmt: skip

    def _file(self, repository: Repository, name: str) -> None:
        path = repository.folder / name
        if not path.is_file():
            self._error(HTTPStatus.NOT_FOUND, "EntryNotFound", "Entry not found", repository.commit)
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
        self.send_header("ETag", f'"{repository.entry(path)["oid"]}"')
        self.send_header("X-Repo-Commit", repository.commit)
        self.end_headers()
        if self.command == "HEAD":
            return
        if any(name.endswith(suffix) for suffix in self.served.cut_short):
            self.wfile.write(content[start : start + (end - start) // 2])
            self.close_connection = True
        else:
            self.wfile.write(content[start:end])

    def _json(self, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(HTTPStatus.OK)
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
