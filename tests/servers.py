"""A web server of ranges on 127.0.0.1, which records what it is asked and misbehaves as told.

    with RangeServer({"night/a.fits": data}) as server:
        store.get(ObjectRef(server.url("night/a.fits")), ByteRange(0, 10))
        assert [request.range for request in server.requests] == ["bytes=0-9"]

Everything that can be switched is a plain attribute, and may be changed while the server runs.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from email.utils import formatdate
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal, Self
from urllib.parse import quote, unquote

LAST_MODIFIED = formatdate(1_700_000_000, usegmt=True)


@dataclass(frozen=True)
class Request:
    """One request as it came over the wire: ``path`` is raw, with the query string."""

    method: str
    path: str
    headers: Mapping[str, str]  # names in lower case

    @property
    def range(self) -> str | None:
        return self.headers.get("range")

    @property
    def if_match(self) -> str | None:
        return self.headers.get("if-match")


class Folder(MutableMapping[str, bytes]):
    """The files below a local folder, as a mapping from relative path to content. Reads them anew each
    time."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def __getitem__(self, name: str) -> bytes:
        try:
            return (self._root / name).read_bytes()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            raise KeyError(name) from None

    def __setitem__(self, name: str, data: bytes) -> None:
        path = self._root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def __delitem__(self, name: str) -> None:
        (self._root / name).unlink()

    def __iter__(self) -> Iterator[str]:
        for folder, _, names in os.walk(self._root):
            for name in names:
                yield (Path(folder) / name).relative_to(self._root).as_posix()

    def __len__(self) -> int:
        return sum(1 for _ in self)


class RangeServer:
    """Serves ``objects`` by range, and an HTML index of every folder (a path that ends in a slash).

    Attributes
    ----------
    objects : MutableMapping[str, bytes]
        Content by decoded path, without the slash at its beginning.
    requests : list[Request]
        Everything that was asked, in the order it came.
    etags : {"strong", "weak", "none"}
    ignore_range : bool
        Answer every GET with 200 and the whole object.
    ignore_if_match : bool
    index_links : list[str]
        ``href`` values put into every index before its own links, as they are.
    status : dict[str, int]
        Status to answer with, by decoded path; ``"HEAD"`` and ``"GET"`` for every request of that method.
    stalled : dict[str, threading.Event]
        Paths whose answers wait until the event is set. All are set when the server stops.
    redirects : dict[str, str]
        Location to redirect to, by decoded path.
    """

    def __init__(self, objects: MutableMapping[str, bytes] | Path | None = None) -> None:
        self.objects: MutableMapping[str, bytes]
        self.objects = Folder(objects) if isinstance(objects, Path) else {} if objects is None else objects
        self.requests: list[Request] = []
        self.etags: Literal["strong", "weak", "none"] = "strong"
        self.ignore_range = False
        self.ignore_if_match = False
        self.index_links: list[str] = []
        self.status: dict[str, int] = {}
        self.stalled: dict[str, threading.Event] = {}
        self.redirects: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._server = _Server(self)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for event in list(self.stalled.values()):
            event.set()
        self._server.shutdown()
        self._thread.join()
        self._server.hang_up()
        self._server.server_close()
        if self._server.failures:
            raise self._server.failures[0]

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def url(self, path: str) -> str:
        """Return the URL of a decoded path, percent-encoded as most servers write it."""
        return f"{self.origin}/{quote(path, errors='surrogateescape')}"

    def stall(self, path: str) -> threading.Event:
        """Let answers for ``path`` wait for the event that is returned."""
        return self.stalled.setdefault(path, threading.Event())


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # server_close waits for them, so that no socket is left behind
    request_queue_size = 256

    def __init__(self, owner: RangeServer) -> None:
        self.owner = owner
        self.connections: set[socket.socket] = set()
        self.failures: list[BaseException] = []
        self.lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), _Handler)

    def hang_up(self) -> None:
        """End connections that clients keep alive: their threads wait for a next request."""
        with self.lock:
            for connection in self.connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:
                    continue  # the client was faster

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):  # clients may hang up
            self.failures.append(error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: else Nagle and delayed ACKs cost 40 ms an answer
    disable_nagle_algorithm = True
    server: _Server

    def setup(self) -> None:
        super().setup()
        with self.server.lock:
            self.server.connections.add(self.connection)

    def finish(self) -> None:
        with self.server.lock:
            self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        owner = self.server.owner
        headers = {name.lower(): value for name, value in self.headers.items()}
        owner.requests.append(Request(self.command, self.path, headers))
        path = unquote(self.path.partition("?")[0], errors="surrogateescape").removeprefix("/")
        if path in owner.stalled:
            owner.stalled[path].wait()
        status = owner.status.get(path, owner.status.get(self.command))
        if status is not None:
            self._send(status, b"<html>\nan error\n</html>", {"Content-Type": "text/html"})
        elif path in owner.redirects:
            self._send(302, b"", {"Location": owner.redirects[path]})
        elif path in owner.objects:
            self._object(owner.objects[path], headers)
        elif path.endswith("/") or not path:
            self._index(path)
        else:
            self._send(404, b"no such file", {"Content-Type": "text/plain"})

    def _object(self, data: bytes, headers: Mapping[str, str]) -> None:
        owner = self.server.owner
        etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        told = {"Content-Type": "application/fits", "Last-Modified": LAST_MODIFIED, "Accept-Ranges": "bytes"}
        if owner.etags != "none":
            told["ETag"] = etag if owner.etags == "strong" else f"W/{etag}"
        wanted = headers.get("if-match")
        # Strong comparison: a weak ETag matches nothing (RFC 9110, section 13.1.1).
        if wanted is not None and not owner.ignore_if_match and (wanted != etag or owner.etags != "strong"):
            self._send(412, b"", told)
            return
        span = headers.get("range")
        if span is None or owner.ignore_range or self.command == "HEAD":
            self._send(200, data, told)
            return
        first, _, last = span.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1 if last else len(data), len(data))
        if start >= len(data):
            self._send(416, b"", {**told, "Content-Range": f"bytes */{len(data)}"})
        else:
            self._send(206, data[start:stop], {**told, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"})

    def _index(self, path: str) -> None:
        owner = self.server.owner
        inside = [name[len(path) :] for name in list(owner.objects) if name.startswith(path)]
        if not inside and path:
            self._send(404, b"no such folder", {"Content-Type": "text/plain"})
            return
        # A relative link with a colon in its first segment would be read as a scheme: hence "./".
        names = sorted({name.partition("/")[0] + "/" * ("/" in name) for name in inside})
        links = owner.index_links + ["./" + quote(name, errors="surrogateescape") for name in names]
        body = "".join(f'<li><a href="{escape(link)}">{escape(link)}</a></li>\n' for link in links)
        page = f"<!DOCTYPE html><html><body><ul>\n{body}</ul></body></html>"
        self._send(200, page.encode(), {"Content-Type": "text/html; charset=utf-8"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status, HTTPStatus(status).phrase)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
