"""A proxy on 127.0.0.1 that records what goes over the wire to an S3 server, whoever sends it.

It stands in for the server (`Proxy.origin` as endpoint), and it is an HTTP proxy as well (``HTTP_PROXY``), which
receives requests for hosts that no name server knows.
"""

from __future__ import annotations

import contextlib
import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

from tests.servers import Request

_OF_CONNECTION = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding"})


class Proxy:
    """Hands every request on to ``upstream``, as it is.

    Attributes
    ----------
    requests : list[Request]
        In the order they came; ``path`` as it was sent, ``host`` among the headers.
    answers : list[tuple[int, dict[str, str], bytes]]
        Status, headers and body to answer the next requests with, in place of what upstream would say.
    """

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream.removeprefix("http://")
        self.requests: list[Request] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = []

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.owner = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def sent(self) -> list[tuple[str, str | None, bool]]:
        """Method, range and whether it was pinned, of all requests."""
        return [(one.method, one.range, one.if_match is not None) for one in self.requests]


class _Server(ThreadingHTTPServer):
    owner: Proxy


class _Handler(BaseHTTPRequestHandler):
    # A connection a request: no thread is left waiting for the next one when the server stops.
    protocol_version = "HTTP/1.0"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        owner = self.server.owner
        owner.requests.append(Request(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
        if owner.answers:
            self._send(*owner.answers.pop(0))
            return
        target = self.path
        if target.startswith("http://"):  # as proxies are asked
            parts = urlsplit(target)
            target = parts.path + ("?" + parts.query if parts.query else "")
        upstream = http.client.HTTPConnection(owner.upstream, timeout=30)
        try:
            upstream.putrequest(self.command, target, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _OF_CONNECTION:
                    upstream.putheader(name, value)
            upstream.endheaders()
            answer = upstream.getresponse()
            body = answer.read()
            self._send(answer.status, dict(answer.getheaders()), body)
        finally:
            upstream.close()

    def do_HEAD(self) -> None:
        self.do_GET()

    def _send(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in _OF_CONNECTION | {"content-length"}:
                self.send_header(name, value)
        length = next((v for k, v in headers.items() if k.lower() == "content-length"), None)
        self.send_header("Content-Length", length if self.command == "HEAD" and length else str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            with contextlib.suppress(ConnectionError):  # clients may hang up
                self.wfile.write(body)
