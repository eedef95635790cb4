"""A proxy on 127.0.0.1 that records what goes over the wire to an S3 server, whoever sends it.

It stands in for the server (`Proxy.origin` as endpoint), and it is an HTTP proxy as well (``HTTP_PROXY``), which
receives requests for hosts that no name server knows.
"""

from __future__ import annotations

import http.client
from typing import ClassVar, Self
from urllib.parse import urlsplit

from tests.servers import Answer, Handler, Request, Server

_OF_CONNECTION = frozenset({"connection", "keep-alive", "proxy-connection", "transfer-encoding"})


class PassOn(Handler):
    """Has one connection to the server for each that a client has to the proxy."""

    def setup(self) -> None:
        super().setup()
        self._upstream = http.client.HTTPConnection(self.server.owner.upstream, timeout=30)

    def finish(self) -> None:
        self._upstream.close()
        super().finish()

    def answer(self) -> None:
        owner = self.server.owner
        if owner.answers:
            self._pass_on(*owner.answers.pop(0))
            return
        target = self.path
        if target.startswith("http://"):  # as proxies are asked
            parts = urlsplit(target)
            target = parts.path + ("?" + parts.query if parts.query else "")
        try:
            answer = self._ask(target)
        except ConnectionError:  # kept alive for longer than the server does
            self._upstream.close()
            answer = self._ask(target)
        self._pass_on(answer.status, dict(answer.getheaders()), answer.read())

    def _ask(self, target: str) -> http.client.HTTPResponse:
        self._upstream.putrequest(self.command, target, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in _OF_CONNECTION:
                self._upstream.putheader(name, value)
        self._upstream.endheaders()
        return self._upstream.getresponse()

    def _pass_on(self, status: int, headers: dict[str, str], body: bytes) -> None:
        told = {name: value for name, value in headers.items() if name.lower() not in _OF_CONNECTION}
        length = next((told.pop(name) for name in list(told) if name.lower() == "content-length"), None)
        self.send(status, body, told, int(length) if self.command == "HEAD" and length else None)


class Proxy:
    """Hands every request on to ``upstream``, as it is.

    Attributes
    ----------
    requests : list[Request]
        In the order they came; ``path`` as it was sent, ``host`` among the headers.
    answered : list[Answer]
        What they were answered with, each noted before it is sent.
    answers : list[tuple[int, dict[str, str], bytes]]
        Status, headers and body to answer the next requests with, in place of what upstream would say.
    """

    handler: ClassVar[type[PassOn]] = PassOn

    def __init__(self, upstream: str) -> None:
        self.upstream = upstream.removeprefix("http://")
        self.requests: list[Request] = []
        self.answered: list[Answer] = []
        self.answers: list[tuple[int, dict[str, str], bytes]] = []

    def __enter__(self) -> Self:
        self._server = Server(self, self.handler).__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()

    @property
    def origin(self) -> str:
        return self._server.origin

    @property
    def sent(self) -> list[tuple[str, str | None, bool]]:
        """Method, range and whether it was pinned, of all requests."""
        return [(one.method, one.range, one.if_match is not None) for one in self.requests]
