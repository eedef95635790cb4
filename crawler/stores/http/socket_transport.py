"""Web servers through `http.client`, from blocking threads, over connections that are kept."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
import urllib.request
import weakref
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from crawler.errors import StoreError, UsageError
from crawler.stores.errors import failed, from_os_error, overlong, unavailable
from crawler.stores.http.answer import (
    DRAINED_BYTES,
    UNREADABLE,
    Answer,
    Headers,
    Request,
    check_length,
    origin,
    user_headers,
)
from crawler.stores.http.connection import (
    CONNECT_SECONDS,
    STALL_SECONDS,
    TOTAL_SECONDS,
    PlainConnection,
    SecureConnection,
    TooLongHeadError,
    Wire,
)
from crawler.stores.urls import one_line

_IDLE_CONNECTIONS = 128
_IDLE_SECONDS = 20.0  # servers and routers drop what is idle, some without a word
_DRAIN_SECONDS = 1.0  # for the rest of an answer of which nothing is wanted
_READ = 1 << 20
_OPTIONS = (
    "allow_invalid_certificates",
    "connect_timeout",
    "default_headers",
    "proxy_url",
    "read_timeout",
    "root_certificate",
    "timeout",
    "user_agent",
)


_CAUSES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str, str], ...] = (
    (TimeoutError, "timed out", "time-out"),
    (socket.gaierror, "host name not known", "no-host"),
    (ssl.SSLError, "certificate or TLS error", "tls"),
    ((http.client.RemoteDisconnected, ConnectionResetError), "answer was cut short", "reset"),
    (http.client.IncompleteRead, "answer was cut short", "short-body"),
    ((http.client.BadStatusLine, http.client.UnknownProtocol), "answer is not HTTP", "short-body"),
)


class _Place(NamedTuple):
    """Where a connection leads: an origin, and the proxy before it."""

    scheme: str
    host: str
    port: int
    proxy: str | None


class SocketTransport:
    """Sends requests by blocking calls.

    Parameters
    ----------
    options : Mapping[str, object]
        ``headers``: the user's own. ``client_options``, as obstore has them: ``connect_timeout``, ``read_timeout`` and
        ``timeout`` in seconds or as `datetime.timedelta`, ``default_headers``, ``user_agent``, ``proxy_url``,
        ``root_certificate`` (PEM) and ``allow_invalid_certificates``. Without ``proxy_url`` the environment names
        proxies.

    Attributes
    ----------
    user_headers : Mapping[str, str]
    has_credentials : bool
    total_seconds : float

    Raises
    ------
    UsageError
        An option that is not known, or is not of its kind.
    """

    def __init__(self, options: Mapping[str, object]) -> None:
        given = options.get("client_options") or {}
        headers = options.get("headers") or {}
        if not isinstance(given, Mapping) or not isinstance(headers, Mapping):
            raise UsageError("the storage options headers and client_options are tables")
        if unknown := sorted(str(name) for name in given if name not in _OPTIONS):
            raise UsageError(f"http has no client option {one_line(', '.join(unknown))} (known: {', '.join(_OPTIONS)})")
        self.user_headers = user_headers({**(given.get("default_headers") or {}), **headers})
        if agent := given.get("user_agent"):
            self.user_headers = {"User-Agent": str(agent), **self.user_headers}
        self.has_credentials = bool(self.user_headers)
        self.total_seconds = _seconds(given, "timeout", TOTAL_SECONDS)
        self._connect_seconds = _seconds(given, "connect_timeout", CONNECT_SECONDS)
        self._stall_seconds = _seconds(given, "read_timeout", STALL_SECONDS)
        self._proxy = None if given.get("proxy_url") is None else _proxy(given["proxy_url"])
        self._proxies = urllib.request.getproxies()
        self._trusted = given.get("root_certificate"), bool(given.get("allow_invalid_certificates"))
        self._tls: ssl.SSLContext | None = None
        self._lock = threading.Lock()
        self._idle: dict[_Place, list[PlainConnection]] = {}
        weakref.finalize(self, _hang_up, self._idle)

    def send(self, request: Request) -> Answer:
        """Send one request. See `crawler.stores.http.answer.Transport.send`."""
        place = self._place(request.url)
        while True:
            connection = self._take(place)
            is_used = connection is not None
            try:
                if connection is None:
                    connection = self._connected(place, request.deadline)
                answer, is_whole = self._exchange(connection, place, request)
            except BaseException as error:
                if connection is not None:
                    connection.wire.hang_up()
                    # A server may hang up on a connection that it kept, while the next request is sent (RFC 9112,
                    # section 9.3.1).
                    if is_used and not connection.wire.received and isinstance(error, ConnectionError):
                        continue
                if isinstance(error, (OSError, http.client.HTTPException, ValueError)):
                    raise _mapped(request.url, error) from None
                raise
            if is_whole:
                self._keep(place, connection)
            else:
                connection.wire.hang_up()
            return answer

    def _exchange(self, connection: PlainConnection, place: _Place, request: Request) -> tuple[Answer, bool]:
        """Send a request on a connection; return the answer, and whether another may follow on it."""
        connection.wire.begin(request.deadline)
        parts = urlsplit(request.url)
        target = request.url[len(parts.scheme) + 3 + len(parts.netloc) :] or "/"
        headers = dict(request.headers)
        if place.proxy is not None and place.scheme == "http":
            target = f"http://{_authority(place)}{target}"
            headers.update(_proxy_headers(place.proxy))
        if not any(name.lower() == "host" for name in headers):
            headers["Host"] = _authority(place)
        connection.request(request.method, target, headers=headers)
        response = connection.getresponse()
        connection.wire.in_head = False
        with response:
            told = Headers(request.url, response.headers.items())
            body = _body(request, response, told, connection.wire)
            is_whole = response.isclosed() and not response.will_close
        return Answer(response.status, told, request.url, body), is_whole

    def _place(self, url: str) -> _Place:
        try:
            scheme, host, port = origin(url)
        except ValueError:
            raise failed(url, "is not a URL that can be asked for") from None
        proxy = self._proxy
        named = self._proxies.get(scheme) or self._proxies.get("all")
        if proxy is None and named and not urllib.request.proxy_bypass(host):
            proxy = _proxy(named)
        return _Place(scheme, host, port, proxy)

    def _take(self, place: _Place) -> PlainConnection | None:
        """Return a kept connection that still stands."""
        while True:
            with self._lock:
                kept = self._idle.get(place)
                connection = kept.pop() if kept else None
                if kept == []:
                    del self._idle[place]
            if connection is None:
                return None
            if time.monotonic() - connection.idle_since < _IDLE_SECONDS and connection.wire.is_silent():
                return connection
            connection.wire.hang_up()

    def _keep(self, place: _Place, connection: PlainConnection) -> None:
        connection.idle_since = time.monotonic()
        dropped = None
        with self._lock:
            self._idle.setdefault(place, []).append(connection)
            if sum(map(len, self._idle.values())) > _IDLE_CONNECTIONS:
                oldest = next(iter(self._idle))
                dropped = self._idle[oldest].pop(0)
                if not self._idle[oldest]:
                    del self._idle[oldest]
        if dropped is not None:
            dropped.wire.hang_up()

    def _connected(self, place: _Place, deadline: float) -> PlainConnection:
        seconds = min(self._connect_seconds, deadline - time.monotonic())
        if seconds <= 0:
            raise TimeoutError
        host, port = place.host, place.port
        if place.proxy is not None:
            parts = urlsplit(place.proxy)
            host, port = parts.hostname or "", parts.port or 80
        if place.scheme == "https":
            connection: PlainConnection = SecureConnection(host, port, timeout=seconds, context=self._context())
            if place.proxy is not None:
                connection.set_tunnel(place.host, place.port, headers=_proxy_headers(place.proxy))
        else:
            connection = PlainConnection(host, port, timeout=seconds)
        connection.stall = self._stall_seconds
        try:
            connection.connect()
        except BaseException:
            connection.close()
            raise
        return connection

    def _context(self) -> ssl.SSLContext:
        with self._lock:
            if self._tls is None:
                certificate, trusts_any = self._trusted
                self._tls = ssl.create_default_context()
                if certificate is not None:
                    pem = certificate.decode() if isinstance(certificate, bytes) else str(certificate)
                    try:
                        self._tls.load_verify_locations(cadata=pem)
                    except (ssl.SSLError, ValueError):
                        raise UsageError("the client option root_certificate is no certificate in PEM form") from None
                if trusts_any:
                    self._tls.check_hostname, self._tls.verify_mode = False, ssl.CERT_NONE
            return self._tls


def _hang_up(idle: dict[_Place, list[PlainConnection]]) -> None:
    for kept in list(idle.values()):
        for connection in kept:
            connection.wire.hang_up()


def _body(request: Request, response: http.client.HTTPResponse, told: Headers, wire: Wire) -> bytes:
    """Read the body that is wanted, and no more than one byte too many."""
    wanted = request.wanted(response.status) if request.method != "HEAD" else 0
    if not wanted:
        if request.method == "HEAD" or (told.length or 0) <= DRAINED_BYTES:
            wire.hurry(_DRAIN_SECONDS)
            with suppress(OSError, http.client.HTTPException):
                response.read(DRAINED_BYTES)
        return b""
    check_length(request.url, told, wanted)
    pieces, left = [], wanted + 1
    while left and (piece := response.read(min(left, _READ))):
        pieces.append(piece)
        left -= len(piece)
    if not left:
        raise overlong(request.url, wanted)
    body = b"".join(pieces)
    if told.length is not None and not response.chunked and len(body) < told.length:
        raise http.client.IncompleteRead(body)
    return body


def _authority(place: _Place) -> str:
    host = f"[{place.host}]" if ":" in place.host else place.host
    return host if place.port == {"http": 80, "https": 443}[place.scheme] else f"{host}:{place.port}"


def _proxy(url: object) -> str:
    """Return the URL of an HTTP proxy."""
    text = str(url)
    text = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(text)
        good = parts.scheme == "http" and parts.hostname and (parts.port or 80)
    except ValueError:
        good = False
    if not good:
        raise UsageError("the proxy is not the URL of an HTTP proxy, such as http://host:3128")
    return text


def _proxy_headers(proxy: str) -> dict[str, str]:
    parts = urlsplit(proxy)
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Proxy-Authorization": "Basic " + b64encode(pair.encode()).decode()}


def _seconds(options: Mapping[str, Any], name: str, default: float) -> float:
    value = options.get(name, default)
    try:
        seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    except (TypeError, ValueError):
        seconds = 0.0
    if not seconds > 0:
        raise UsageError(f"the client option {name} is a number of seconds above 0")
    return seconds


def _mapped(url: str, error: Exception) -> StoreError:
    """Return the error that a failure of the socket or of `http.client` means."""
    if isinstance(error, StoreError):
        return error
    # Of the class itself is what http.client says of more than 100 headers.
    if isinstance(error, (TooLongHeadError, http.client.LineTooLong)) or type(error) is http.client.HTTPException:
        return failed(url, UNREADABLE)
    for kinds, said, kind in _CAUSES:
        if isinstance(error, kinds):
            return unavailable(url, said, kind)
    if isinstance(error, OSError):
        return from_os_error(url, error)
    return failed(url, "is not a URL that can be asked for")  # what http.client says of a path or header
