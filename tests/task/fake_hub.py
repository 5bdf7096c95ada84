"""A hub on this machine: as much of the Hugging Face hub's interface as loading a dataset needs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class Hub(ThreadingHTTPServer):
    """Serves one dataset at one commit, and remembers what was asked of it.

    Args:
        files: Contents by path.
        commit: 40 hex digits.
    """

    def __init__(self, files: Mapping[str, bytes], commit: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.commit, self.asked = files, commit, list[str]()

    @property
    def url(self) -> str:
        """Return what HF_ENDPOINT must be."""
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serve(files: Mapping[str, bytes], commit: str) -> Iterator[Hub]:
    """Serve a dataset until the end."""
    with Hub(files, commit) as hub:
        thread = threading.Thread(target=hub.serve_forever, daemon=True)
        thread.start()
        yield hub
        hub.shutdown()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    """Answers a request; what there isn't is a 404, as `.huggingface.yaml` is for most datasets."""

    server: Hub

    def log_message(self, *_: Any) -> None:
        """Stay quiet."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(path)
        home, _, name = path.partition(f"/{self.server.commit}")
        name = name.strip("/")
        if home.endswith("/resolve") and name in self.server.files:
            self.reply(self.server.files[name])
        elif home.endswith("/tree"):
            self.reply(json.dumps(self.tree(name)).encode())
        elif home.endswith("/revision"):
            siblings = [{"rfilename": each} for each in self.server.files]
            self.reply(json.dumps({"id": home, "sha": self.server.commit, "siblings": siblings}).encode())
        else:
            self.reply(b"{}", 404)

    def tree(self, folder: str) -> list[dict[str, Any]]:
        """Return what lies in a folder."""
        parts = {tuple(name.split("/")): content for name, content in self.server.files.items()}
        inside = tuple(filter(None, folder.split("/")))
        found: dict[str, dict[str, Any]] = {}
        for path, content in parts.items():
            if path[: len(inside)] == inside:
                depth = len(inside) + 1
                kind = "file" if len(path) == depth else "directory"
                oid = hashlib.sha1(content, usedforsecurity=False).hexdigest()
                name = "/".join(path[:depth])
                found[name] = {"type": kind, "path": name, "size": len(content), "oid": oid}
        return list(found.values())

    def reply(self, content: bytes, status: int = 200) -> None:
        """Send an answer; the head alone where that was asked for."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", self.server.commit)
        self.send_header("ETag", f'"{hashlib.sha1(content, usedforsecurity=False).hexdigest()}"')
        if status == 404:
            self.send_header("X-Error-Code", "EntryNotFound")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
