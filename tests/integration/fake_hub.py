"""A hub of one's own on localhost: the few endpoints that huggingface_hub asks, and its faults."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGE = 20_000


@dataclass
class Hub:
    """Repositories by name, each a folder for each revision; `cut` ends so many downloads early."""

    revisions: dict[str, dict[str, Path]]
    gated: set[str] = field(default_factory=set)
    cut: int = 0
    asked: list[str] = field(default_factory=list)
    url: str = ""

    def commit(self, repo: str, revision: str) -> str:
        """A commit hash that follows from what the revision holds."""
        folder = self.revisions[repo][revision]
        whole = hashlib.sha1(revision.encode())
        for path in sorted(folder.iterdir()):
            whole.update(path.name.encode() + path.read_bytes())
        return whole.hexdigest()

    def folder(self, repo: str, revision: str) -> Path | None:
        """The folder of a revision, by its name or by its commit."""
        for name, folder in self.revisions.get(repo, {}).items():
            if revision in (name, self.commit(repo, name)):
                return folder
        return None

    def environment(self, home: Path) -> dict[str, str]:
        """What leads a program to this hub, with a cache of its own."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "NO_PROXY": "*",
        }


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Answer for `hub` until the block ends."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _answering(hub))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _answering(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Answer(_Answer):
        of = hub

    return Answer


class _Answer(BaseHTTPRequestHandler):
    of: Hub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.of.asked.append(f"{self.command} {path}")
        parts = path.strip("/").split("/")
        api = parts[:2] == ["api", "models"]
        repo = "/".join(parts[2:4] if api else parts[:2])
        if repo not in self.of.revisions:
            return self._refuse(404, "RepoNotFound", body)
        if repo in self.of.gated:
            return self._refuse(403, "GatedRepo", body)
        if api and parts[4:] == ["refs"]:
            return self._json(self._refs(repo), body)
        revision = parts[5] if api else parts[3]
        folder = self.of.folder(repo, revision)
        if folder is None:
            return self._refuse(404, "RevisionNotFound", body)
        name = next(n for n in self.of.revisions[repo] if self.of.revisions[repo][n] == folder)
        commit = self.of.commit(repo, name)
        if api and parts[4] == "tree":
            return self._json([_entry(file) for file in sorted(folder.iterdir())], body)
        if api:
            files = [{"rfilename": file.name} for file in sorted(folder.iterdir())]
            return self._json({"id": repo, "sha": commit, "siblings": files}, body)
        return self._file(folder / parts[4], commit, body)

    def _refs(self, repo: str) -> dict[str, list[dict[str, str]]]:
        branches = [
            {
                "name": name,
                "ref": f"refs/heads/{name}",
                "targetCommit": self.of.commit(repo, name),
            }
            for name in self.of.revisions[repo]
        ]
        return {"branches": branches, "tags": [], "converts": []}

    def _json(self, value: object, body: bool) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"}, body)

    def _refuse(self, status: int, code: str, body: bool) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code}, body)

    def _file(self, path: Path, commit: str, body: bool) -> None:
        if not path.is_file():
            return self._refuse(404, "EntryNotFound", body)
        data, headers = path.read_bytes(), {"X-Repo-Commit": commit, "ETag": f'"{_etag(path)}"'}
        if path.stat().st_size >= LARGE:
            headers |= {"X-Linked-Etag": f'"{_etag(path)}"', "X-Linked-Size": str(len(data))}
        begin = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0]
        status, first = (206, int(begin)) if int(begin) else (200, 0)
        if status == 206:
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        if body and self.of.cut and len(data) >= LARGE:
            self.of.cut -= 1
            return self._send(status, data[first:], headers, body, only=(len(data) - first) // 2)
        return self._send(status, data[first:], headers, body)

    def _send(
        self, status: int, data: bytes, headers: dict[str, str], body: bool, only: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(data[:only])
        if only is not None:
            self.close_connection = True


def _etag(path: Path) -> str:
    """The hub names large files by SHA-256, small ones by git's hash of a blob."""
    data = path.read_bytes()
    if len(data) >= LARGE:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _entry(path: Path) -> dict[str, object]:
    size, oid = path.stat().st_size, hashlib.sha1(path.read_bytes()).hexdigest()
    entry: dict[str, object] = {"type": "file", "path": path.name, "size": size, "oid": oid}
    if size >= LARGE:
        entry["lfs"] = {"oid": _etag(path), "size": size, "pointerSize": 134}
    return entry
