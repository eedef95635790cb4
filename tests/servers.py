"""A web server of ranges on 127.0.0.1, which records what it is asked and misbehaves as told.

    with RangeServer({"night/a.fits": data}) as server:
        store.get(ObjectRef(server.url("night/a.fits")), ByteRange(0, 10))
        assert [request.range for request in server.requests] == ["bytes=0-9"]

Everything that can be switched is a plain attribute, and may be changed while the server runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self
from urllib.parse import quote, unquote

LAST_MODIFIED = formatdate(1_700_000_000, usegmt=True)

Content = bytes | mmap.mmap
"""What an object holds: bytes, or a file that is too large to be held."""


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


class Answer(NamedTuple):
    """What a request was answered with: ``body`` counts bytes."""

    request: Request
    status: int
    body: int


class Server(ThreadingHTTPServer):
    """Listens on 127.0.0.1 from ``with`` to its end, on behalf of ``owner``; clients may keep connections alive."""

    daemon_threads = False  # server_close waits for them, so that no socket is left behind
    request_queue_size = 256

    def __init__(self, owner: Any, handler: type[Handler]) -> None:
        self.owner = owner
        self._connections: set[socket.socket] = set()
        self._failures: list[BaseException] = []
        self.accepted = 0
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", 0), handler)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.hang_up()  # the threads of connections wait for a next request
        self.server_close()
        if self._failures:
            raise self._failures[0]

    def hang_up(self) -> None:
        """Close all connections."""
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):  # the client was faster
                    connection.shutdown(socket.SHUT_RDWR)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._connections.add(request)
            self.accepted += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ConnectionError):  # clients may hang up
            self._failures.append(error)


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD on one connection; requests and answers are noted in those lists of the server's owner."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet: else Nagle and delayed ACKs cost 40 ms an answer
    disable_nagle_algorithm = True
    server: Server
    asked: Request

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.asked = Request(self.command, self.path, {name.lower(): value for name, value in self.headers.items()})
        self.server.owner.requests.append(self.asked)
        self.answer()

    def answer(self) -> None:
        """Send what `asked` is answered with."""
        raise NotImplementedError

    def send(self, status: int, body: Content, headers: Mapping[str, str], length: int | None = None) -> None:
        """Send an answer; ``length`` is what it says of its body, where an answer to HEAD has none at hand."""
        sent = b"" if self.command == "HEAD" else body
        self.server.owner.answered.append(Answer(self.asked, status, len(sent)))
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(sent)


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


@lru_cache(64)
def etag_of(data: Content) -> str:
    """Return a strong ETag; that of a file is told by its begin and its size."""
    told = data if isinstance(data, bytes) else data[: 2**20] + str(len(data)).encode()
    return f'"{hashlib.sha256(told).hexdigest()[:16]}"'


class RangeHandler(Handler):
    """What `RangeServer` answers."""

    def answer(self) -> None:
        owner = self.server.owner
        path = unquote(self.path.partition("?")[0], errors="surrogateescape").removeprefix("/")
        if path in owner.stalled:
            owner.stalled[path].wait()
        status = owner.status.get(path, owner.status.get(self.command))
        if owner.refused:
            owner.refused -= 1
            self.send(503, b"", {})
        elif status is not None:
            self.send(status, b"<html>\nan error\n</html>", {"Content-Type": "text/html"})
        elif path in owner.redirects:
            self.send(owner.redirect_status, b"", {"Location": owner.redirects[path]})
        elif path in owner.objects:
            self.send_object(owner.objects[path])
        elif path.endswith("/") or not path:
            self.send_index(path)
        else:
            self.send(404, owner.error_body, {"Content-Type": "text/plain"})

    def send_object(self, data: Content) -> None:
        """Send an object, or a range of it."""
        owner = self.server.owner
        etag = etag_of(data)
        kind = owner.content_types.get(unquote(self.path).removeprefix("/").partition("?")[0], "application/fits")
        told = {"Content-Type": kind, "Last-Modified": LAST_MODIFIED, "Accept-Ranges": "bytes", **owner.told}
        if owner.etags != "none":
            told["ETag"] = etag if owner.etags == "strong" else f"W/{etag}"
        wanted = self.asked.if_match
        # Strong comparison: a weak ETag matches nothing (RFC 9110, section 13.1.1).
        if wanted is not None and not owner.ignore_if_match and (wanted != etag or owner.etags != "strong"):
            self.send(412, b"", told)
            return
        span = self.asked.range
        if span is None or owner.ignore_range or self.command == "HEAD":
            self.send(200, data, told)
            return
        first, _, last = span.removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1 if last else len(data), len(data))
        if start >= len(data):
            self.send(416, b"", {**told, "Content-Range": f"bytes */{len(data)}"})
        else:
            self.send(206, data[start:stop], {**told, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"})

    def send_index(self, path: str) -> None:
        """Send the index page of a folder."""
        owner = self.server.owner
        inside = [name[len(path) :] for name in list(owner.objects) if name.startswith(path)]
        if not inside and path:
            self.send(404, b"no such folder", {"Content-Type": "text/plain"})
            return
        # A relative link with a colon in its first segment would be read as a scheme: hence "./".
        names = sorted({name.partition("/")[0] + "/" * ("/" in name) for name in inside})
        links = owner.index_links + ["./" + quote(name, errors="surrogateescape") for name in names]
        body = "".join(f'<li><a href="{escape(link)}">{escape(link)}</a></li>\n' for link in links)
        page = f"<!DOCTYPE html><html><body><ul>\n{body}</ul></body></html>"
        self.send(200, page.encode(), {"Content-Type": "text/html; charset=utf-8"})


class RangeServer:
    """Serves ``objects`` by range, and an HTML index of every folder (a path that ends in a slash).

    Attributes
    ----------
    objects : MutableMapping[str, Content]
        By decoded path, without the slash at its beginning.
    requests : list[Request]
        Everything that was asked, in the order it came.
    answered : list[Answer]
        Everything that was answered, each noted before it is sent.
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
    refused : int
        Requests that are still to be answered with 503.
    redirect_status : int
    error_body : bytes
        What is sent with 404.
    told : dict[str, str]
        More headers of objects.
    content_types : dict[str, str]
        Content-Type of objects that are no FITS files, by decoded path.
    """

    handler: ClassVar[type[Handler]] = RangeHandler

    def __init__(self, objects: MutableMapping[str, Any] | Path | None = None) -> None:
        self.objects: MutableMapping[str, Any]
        self.objects = Folder(objects) if isinstance(objects, Path) else {} if objects is None else objects
        self.requests: list[Request] = []
        self.answered: list[Answer] = []
        self.etags: Literal["strong", "weak", "none"] = "strong"
        self.ignore_range = False
        self.ignore_if_match = False
        self.index_links: list[str] = []
        self.status: dict[str, int] = {}
        self.stalled: dict[str, threading.Event] = {}
        self.redirects: dict[str, str] = {}
        self.refused = 0
        self.redirect_status = 302
        self.error_body = b"no such file"
        self.told: dict[str, str] = {}
        self.content_types: dict[str, str] = {}

    def __enter__(self) -> Self:
        self._server = Server(self, self.handler).__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for event in list(self.stalled.values()):
            event.set()
        self._server.__exit__()

    @property
    def origin(self) -> str:
        return self._server.origin

    def url(self, path: str) -> str:
        """Return the URL of a decoded path, percent-encoded as most servers write it."""
        return f"{self.origin}/{quote(path, errors='surrogateescape')}"

    @property
    def connections(self) -> int:
        """Connections that were accepted."""
        return self._server.accepted

    def hang_up(self) -> None:
        """Close all connections, as a server does with idle ones."""
        self._server.hang_up()

    def stall(self, path: str) -> threading.Event:
        """Let answers for ``path`` wait for the event that is returned."""
        return self.stalled.setdefault(path, threading.Event())
