"""A web server on 127.0.0.1 that does to its clients what it should not, one way for each path.

    with HostileServer() as server:
        store.get(ObjectRef(server.url("endless-body")), SPAN)
        assert server.sent["endless-body"] < 2**23

A path is the name of a way in `WAYS`, or ``good``, with anything after a slash. Below ``/bucket/`` the same ways are
objects of S3. All bytes are written by hand: no library between would let them pass.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Self

import aiohttp
import numpy as np
from astropy.io import fits

from crawler.stores import Adapter
from crawler.stores.retry import Patience


def _file() -> bytes:
    """Return a file whose headers no one range has all."""
    image = fits.ImageHDU(np.zeros((400, 400), "int16"), name="SCI")
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), image, fits.ImageHDU(np.zeros((8, 8), "int16"))]).writeto(buffer)
    return buffer.getvalue()


DATA = _file()
ETAG = b'"strong"'
MOST = 64 * 2**20
"""Bytes that an endless way sends at most, so that a client without limits fails its test rather than the machine."""

TICK = 0.02  # seconds between two bytes of a slow answer: what a network takes, not a wait for something


class Ask:
    """One request, and the connection that it came on."""

    def __init__(self, server: HostileServer, connection: socket.socket, head: bytes) -> None:
        self.server = server
        self.connection = connection
        line, _, rest = head.partition(b"\r\n")
        self.method, self.path, _ = line.decode("latin-1").split(" ", 2)
        self.headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (one.partition(":") for one in rest.decode("latin-1").split("\r\n"))
            if name
        }
        self.name = self.path.removeprefix("/bucket").strip("/").partition("/")[0].partition("?")[0]
        span = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("range", ""))
        self.start, self.stop = (int(span[1]), min(int(span[2]) + 1, len(DATA))) if span else (0, len(DATA))
        self.number = next(server.numbers[self.name])

    @property
    def data(self) -> bytes:
        return DATA[self.start : self.stop]

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)
        self.server.sent[self.name] += len(data)

    def send_head(self, status: int | str, *lines: bytes | str) -> None:
        encoded = [line if isinstance(line, bytes) else line.encode("latin-1") for line in lines]
        self.send(b"\r\n".join([f"HTTP/1.1 {status} Something".encode(), *encoded, b"", b""]))

    def send_endless(self, piece: bytes = bytes(2**16)) -> None:
        for _ in range(MOST // len(piece) + 1):
            self.send(piece)

    def send_slowly(self, data: Iterator[int] | bytes) -> None:
        for byte in data:
            self.send(bytes([byte]))
            if self.server.over.wait(TICK):
                return

    def wait(self) -> None:
        """Say nothing more until the client hangs up."""
        while not self.server.over.is_set() and self.connection.recv(2**16):
            pass

    def reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def told(self, content_range: str | None = None, length: int | None = None, etag: bytes = ETAG) -> list[bytes]:
        """Return the headers of a good partial answer, but for what is given."""
        span = f"bytes {self.start}-{self.stop - 1}/{len(DATA)}" if content_range is None else content_range
        lines = [b"ETag: " + etag, b"Last-Modified: Tue, 14 Nov 2023 22:13:20 GMT", b"Content-Type: application/fits"]
        if span:
            lines.append(f"Content-Range: {span}".encode())
        return [*lines, f"Content-Length: {len(self.data) if length is None else length}".encode()]

    def answer(
        self, status: int | str = 206, extra: tuple[bytes, ...] = (), body: bytes | None = None, **told: Any
    ) -> None:
        self.send_head(status, *extra, *self.told(**told))
        self.send(self.data if body is None else body)


Way = Callable[[Ask], None]


def good(ask: Ask) -> None:
    if ask.method == "HEAD":
        ask.send_head(200, b"ETag: " + ETAG, f"Content-Length: {len(DATA)}")
    elif ask.start >= len(DATA):
        ask.send_head(416, f"Content-Range: bytes */{len(DATA)}", "Content-Length: 0")
    else:
        ask.answer()


def spans(text: str) -> Way:
    """Answer with a Content-Range; ``{start}``, ``{last}`` and ``{size}`` are the right ones."""

    def way(ask: Ask) -> None:
        told = {"start": ask.start, "next": ask.start + 1, "last": ask.stop - 1, "beyond": ask.stop + 50_000}
        ask.answer(content_range=text.format(**told, size=len(DATA)))

    return way


def redirects(to: str, status: int = 302) -> Way:
    return lambda ask: ask.send_head(status, f"Location: {to}", "Content-Length: 0")


def _endless_chunks(ask: Ask) -> None:
    ask.send_head(206, *ask.told()[:-1], "Transfer-Encoding: chunked")
    ask.send_endless(b"10000\r\n" + bytes(2**16) + b"\r\n")


def _endless_error(status: int) -> Way:
    def way(ask: Ask) -> None:
        ask.send_head(status, "Content-Type: text/html", f"Content-Length: {10 * MOST}")
        ask.send_endless()

    return way


def _endless(*told: int | None) -> Way:
    def way(ask: Ask) -> None:
        lines = ask.told()
        ask.send_head(206, *(lines[:-1] if told else [*lines[:-1], f"Content-Length: {10 * MOST}".encode()]))
        ask.send_endless()

    return way


def _endless_headers(ask: Ask) -> None:
    ask.send(b"HTTP/1.1 206 Partial\r\n")
    ask.send_endless(b"".join(b"X-%d: y\r\n" % number for number in range(6000)))


def _endless_line(ask: Ask) -> None:
    ask.send(b"HTTP/1.1 206 Partial\r\nX: ")
    ask.send_endless(b"y" * 2**16)


def _endless_interim(ask: Ask) -> None:
    ask.send_endless(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n" * 1000)


def _cut(ask: Ask) -> None:
    ask.send_head(206, *ask.told())
    ask.send(ask.data[: len(ask.data) // 2])


def _reset(ask: Ask) -> None:
    _cut(ask)
    ask.reset()


def _stall_in_body(ask: Ask) -> None:
    _cut(ask)
    ask.wait()


def _slow_body(ask: Ask) -> None:
    ask.send_head(206, *ask.told())
    ask.send_slowly(ask.data)


def _slow_head(ask: Ask) -> None:
    ask.send_slowly(b"HTTP/1.1 206 Partial\r\nX: " + b"y" * 2**16)


def _slow_error(ask: Ask) -> None:
    ask.send_head(500, "Content-Length: 1000000")
    ask.send_slowly(itertools.repeat(32))


def _one_interim(ask: Ask) -> None:
    ask.send(b"HTTP/1.1 103 Early Hints\r\nLink: <x>\r\n\r\n")
    good(ask)


def _multipart(ask: Ask) -> None:
    body = b"--x\r\nContent-Range: bytes 0-9/100\r\n\r\n0123456789\r\n--x--\r\n"
    ask.send_head(206, "Content-Type: multipart/byteranges; boundary=x", f"Content-Length: {len(body)}")
    ask.send(body)


def _endless_302(ask: Ask) -> None:
    ask.send_head(302, "Location: /good", f"Content-Length: {10 * MOST}")
    ask.send_endless()


def _no_etag_at_times(ask: Ask) -> None:
    ask.send_head(206, *ask.told()[ask.number % 2 :])
    ask.send(ask.data)


def _whole(ask: Ask) -> None:
    ask.answer(200, content_range="", length=len(DATA), body=DATA)


def _size_changes(ask: Ask) -> None:
    ask.answer(content_range=f"bytes {ask.start}-{ask.stop - 1}/{len(DATA) + ask.number}")


def _gzip(ask: Ask) -> None:
    ask.answer(extra=(b"Content-Encoding: gzip",))


WAYS: dict[str, Way] = {
    "endless-body": _endless(),
    "endless-until-closed": _endless(None),
    "endless-chunks": _endless_chunks,
    "endless-403": _endless_error(403),
    "endless-404": _endless_error(404),
    "endless-503": _endless_error(503),
    "endless-headers": _endless_headers,
    "endless-line": _endless_line,
    "endless-interim": _endless_interim,
    "longer": lambda ask: ask.answer(length=len(ask.data) + 1, body=ask.data + b"x"),
    "shorter": lambda ask: ask.answer(length=len(ask.data) - 1, body=ask.data[:-1]),
    "cut": _cut,
    "range-start": spans("bytes {next}-{last}/{size}"),
    "range-end": spans("bytes {start}-{beyond}/100000"),
    "range-unit": spans("items {start}-{last}/{size}"),
    "range-overflow": spans("bytes {start}-{last}/18446744073709551616"),
    "range-digits": spans("bytes {start}-{last}/" + "9" * 5000),
    "range-negative": spans("bytes -{last}/{size}"),
    "range-turned": spans("bytes {last}-{start}/{size}"),
    "range-beyond-size": spans("bytes {start}-{last}/5"),
    "range-senseless": spans("what?"),
    "range-missing": lambda ask: ask.answer(content_range=""),
    "multipart": _multipart,
    "whole": _whole,
    "etag-changes": lambda ask: ask.answer(etag=b'"%d"' % ask.number),
    "size-changes": _size_changes,
    "slow-body": _slow_body,
    "slow-head": _slow_head,
    "slow-500": _slow_error,
    "stall": Ask.wait,
    "stall-in-body": _stall_in_body,
    "redirect-loop": redirects("/redirect-loop"),
    "redirect-file": redirects("file:///etc/passwd"),
    "redirect-ftp": redirects("ftp://host/x"),
    "redirect-senseless": redirects("http://[::bad/"),
    "redirect-nowhere": lambda ask: ask.send_head(302, "Content-Length: 0"),
    "two-lengths": lambda ask: ask.answer(extra=(b"Content-Length: 7",)),
    "two-ranges": lambda ask: ask.answer(extra=(b"Content-Range: bytes 5-6/7",)),
    "two-etags": lambda ask: ask.answer(extra=(b'ETag: "other"',)),
    "long-header": lambda ask: ask.answer(extra=(b"X: " + b"y" * 2**20,)),
    "many-headers": lambda ask: ask.answer(extra=tuple(b"X-%d: y" % number for number in range(5000))),
    "nul-header": lambda ask: ask.answer(extra=(b"X: a\0b",)),
    "header-without-colon": lambda ask: ask.answer(extra=(b"what is this",)),
    "folded-etag": lambda ask: ask.answer(etag=b'"a\r\n b"'),
    "folded-range": spans("bytes\r\n {start}-{last}/{size}"),
    "no-http": lambda ask: ask.send(b"<html>hello</html>\r\n\r\n"),
    "status-0": lambda ask: ask.answer("000"),
    "status-99": lambda ask: ask.answer(99),
    "status-999": lambda ask: ask.answer(999),
    "status-word": lambda ask: ask.answer("abc"),
    "status-101": lambda ask: ask.send_head(101, "Upgrade: x", "Connection: upgrade"),
    "status-204": lambda ask: ask.send_head(204),
    "status-205": lambda ask: ask.send_head(205, "Content-Length: 0"),
    "status-304": lambda ask: ask.send_head(304),
    "reset": _reset,
    "hangs-up": lambda ask: None,
}
"""Ways that no client can make a file of."""

ODD_BUT_GOOD: dict[str, Way] = {
    "raw-etag": lambda ask: ask.answer(etag=b'"\xff\xfe\xc3\xa9"'),
    "endless-302": _endless_302,
    "etag-comes-and-goes": _no_etag_at_times,
    "one-interim": _one_interim,
    "gzip": _gzip,
    "same-twice": lambda ask: ask.answer(extra=(b"ETag: " + ETAG, b"Content-Type: application/fits")),
    "redirect-here": redirects("/good"),
}
"""Ways that are odd, and lose nothing."""

ALL = {"good": good, **WAYS, **ODD_BUT_GOOD}


QUICK = Patience(
    request_seconds=0.1,
    down_seconds=0.2,
    first_seconds=0.1,
    unlikely_seconds=0.1,
    first_pause=0.01,
    longest_pause=0.02,
)
"""Two tries, or a few."""


def options_of(adapter: Adapter, seconds: float) -> dict[str, Any]:
    """Return storage options of the web by which a request takes ``seconds`` at most, and half of that in a stall."""
    if adapter == "auto":
        return {
            "client_options": {"connect_timeout": seconds / 2, "read_timeout": seconds / 2, "timeout": seconds},
        }
    timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=seconds / 2, sock_read=seconds / 2)
    return {"client_kwargs": {"timeout": timeout}}


class HostileServer:
    """Serves `ALL`.

    Attributes
    ----------
    sent, asked : Counter
        Bytes that were sent, and requests, by name.
    heads : list of Ask
    """

    def __init__(self) -> None:
        self.sent: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.heads: list[Ask] = []
        self.numbers: dict[str, Iterator[int]] = {}
        self.over = threading.Event()
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._start(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        with self._lock:
            for connection in self._connections:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._listening.getsockname()[1]}"

    def url(self, name: str) -> str:
        return f"{self.origin}/{name}"

    def _start(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args)
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        while not self.over.is_set():
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with self._lock:
            self._connections.add(connection)
        with contextlib.suppress(OSError), connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            came = b""
            while not self.over.is_set():
                while b"\r\n\r\n" not in came:
                    if not (more := connection.recv(2**16)):
                        return
                    came += more
                head, _, came = came.partition(b"\r\n\r\n")
                if not self._answer(connection, head):
                    return
        with self._lock:
            self._connections.discard(connection)

    def _answer(self, connection: socket.socket, head: bytes) -> bool:
        """Answer a request; tell whether the connection is kept."""
        with self._lock:
            name = head.split(b" ", 2)[1].decode("latin-1").removeprefix("/bucket").strip("/").partition("/")[0]
            self.numbers.setdefault(name.partition("?")[0], itertools.count())
            ask = Ask(self, connection, head)
            self.asked[ask.name] += 1
            self.heads.append(ask)
        way = good if ask.method == "HEAD" and ask.name in WAYS else ALL.get(ask.name)
        if way is None:
            ask.send_head(404, "Content-Length: 0")
            return True
        way(ask)
        return ask.name == "good" or ask.name in ODD_BUT_GOOD
