"""Web servers through aiohttp, which fsspec's ``storage_options`` configure in its own words.

fsspec's own `cat_file` hides whether a server honoured the range and which ETag it sent, and its `ls` decodes no
entities and follows sort links. So only its event loop is used here, with a session made as its own is (``headers``,
``client_kwargs``, ``get_client``).
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
import weakref
from collections.abc import Mapping
from functools import partial
from typing import Any

import aiohttp
import fsspec.asyn
import yarl
from aiohttp.http_exceptions import HttpProcessingError
from fsspec.implementations.http import get_client

from crawler.errors import StoreError, UsageError
from crawler.stores.errors import failed, from_status, overlong, unavailable
from crawler.stores.http.answer import UNREADABLE, Answer, Headers, Request, check_length, user_headers
from crawler.stores.http.connection import CONNECT_SECONDS, STALL_SECONDS, TOTAL_SECONDS

# Options of fsspec's HTTPFileSystem that mean nothing to a request; it hands all others to aiohttp. Redirects are
# followed here.
_NOT_OF_REQUESTS = frozenset(
    {
        "allow_redirects",
        "asynchronous",
        "block_size",
        "cache_options",
        "cache_type",
        "encoded",
        "listings_expiry_time",
        "loop",
        "max_paths",
        "max_redirects",
        "same_scheme",
        "simple_links",
        "size_policy",
        "skip_instance_cache",
        "use_listings_cache",
    }
)
# Options that hold credentials, of a session or of a request. aiohttp would send those of a session to every server.
_PRIVATE = ("auth", "cookies")
_CAUSES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str, str], ...] = (
    (TimeoutError, "timed out", "time-out"),  # aiohttp's and fsspec's time-outs are children of it
    (aiohttp.ClientConnectorDNSError, "host name not known", "no-host"),
    (ConnectionRefusedError, "connection refused", "refused"),
    (aiohttp.ClientSSLError, "certificate or TLS error", "tls"),
    (aiohttp.ClientPayloadError, "answer was cut short", "short-body"),
    ((aiohttp.ServerDisconnectedError, ConnectionResetError), "answer was cut short", "reset"),
)


class AiohttpTransport:
    """Sends requests on fsspec's event loop.

    Parameters
    ----------
    storage_options : Mapping[str, object]
        As fsspec's HTTPFileSystem takes them.

    Attributes
    ----------
    user_headers : Mapping[str, str]
        Those of the options, and of their ``client_kwargs``.
    has_credentials : bool
    total_seconds : float

    Raises
    ------
    UsageError
        Options are not of their kind.
    """

    def __init__(self, storage_options: Mapping[str, object]) -> None:
        options: dict[str, Any] = {k: v for k, v in storage_options.items() if k not in _NOT_OF_REQUESTS}
        client = options.pop("client_kwargs", None) or {}
        if not isinstance(client, Mapping):
            raise UsageError("the storage option client_kwargs is a table of options")
        client = dict(client)
        of_session, own = client.pop("headers", None) or {}, options.pop("headers", None) or {}
        self.user_headers = user_headers({**of_session, **own})
        self._credentials = {
            name: value for name in _PRIVATE if (value := options.pop(name, None) or client.pop(name, None)) is not None
        }
        self._parameters = options.pop("params", None)
        self.has_credentials = bool(self.user_headers or self._credentials or self._parameters)
        self._get_client = options.pop("get_client", get_client)
        timeout = client.get("timeout")
        self.total_seconds = (isinstance(timeout, aiohttp.ClientTimeout) and timeout.total) or TOTAL_SECONDS
        self._client: Mapping[str, Any] = {
            "timeout": aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=STALL_SECONDS),
            "auto_decompress": False,
            "trust_env": True,  # HTTP_PROXY and its kin
            **client,
        }
        self._options = options
        self._lock = threading.Lock()
        self._opened: tuple[asyncio.AbstractEventLoop, aiohttp.ClientSession] | None = None

    def send(self, request: Request) -> Answer:
        """Send one request. See `crawler.stores.http.answer.Transport.send`.

        A connection whose body was not read to its end is closed, not drained: a body can be a whole file.
        """
        loop, session = self._session()
        options = {**self._options, **(self._credentials if request.private else {})}
        if request.first and self._parameters is not None:
            options["params"] = self._parameters
        # The URL goes out as it is: yarl would encode `%2B` as `+`.
        target = yarl.URL(request.url, encoded=True)

        async def ask() -> Answer:
            async with (
                asyncio.timeout(request.deadline - time.monotonic()),
                session.request(
                    request.method, target, headers=request.headers, allow_redirects=False, **options
                ) as answer,
            ):
                pairs = ((name.decode("latin-1"), value.decode("latin-1")) for name, value in answer.raw_headers)
                headers = Headers(request.url, pairs)
                wanted = request.wanted(answer.status) if request.method != "HEAD" else 0
                body = await _read(request.url, answer, headers, wanted) if wanted else b""
                return Answer(answer.status, headers, request.url, body)

        try:
            answer: Answer = fsspec.asyn.sync(loop, ask)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise from_client_error(request.url, error) from None
        except TypeError as error:  # what aiohttp says of a storage option that it does not know
            raise failed(request.url, f"storage options are not understood: {error}") from None
        return answer

    def _session(self) -> tuple[asyncio.AbstractEventLoop, aiohttp.ClientSession]:
        with self._lock:
            if self._opened is None:
                loop: asyncio.AbstractEventLoop = fsspec.asyn.get_loop()
                made = fsspec.asyn.sync(loop, partial(self._open, loop))
                session: aiohttp.ClientSession = made
                weakref.finalize(self, hang_up, loop, session)
                self._opened = loop, session
            return self._opened

    async def _open(self, loop: asyncio.AbstractEventLoop) -> aiohttp.ClientSession:
        # Servers set no cookies: a jar would hold as many as they like, and send them back.
        session: aiohttp.ClientSession = await self._get_client(
            loop=loop, **{"cookie_jar": aiohttp.DummyCookieJar(), **self._client}
        )
        return session


async def _read(url: str, answer: aiohttp.ClientResponse, headers: Headers, wanted: int) -> bytes:
    """Read the body that is wanted, and no more than one byte too many."""
    check_length(url, headers, wanted)
    pieces, left = [], wanted + 1
    while left and (piece := await answer.content.read(left)):
        pieces.append(piece)
        left -= len(piece)
    if not left:
        raise overlong(url, wanted)
    return b"".join(pieces)


def hang_up(loop: asyncio.AbstractEventLoop, session: Any) -> None:
    """Close a session of aiohttp or aiobotocore on the loop that it is of, without waiting.

    Unlike fsspec's own finalizers: run by the garbage collector, in whatever thread it runs, one was seen to block
    the event loop of all stores for a second a session, while requests timed out.
    """
    if loop.is_running():
        asyncio.run_coroutine_threadsafe(session.close(), loop)


def _settle() -> None:
    loop = fsspec.asyn.loop[0]
    if loop is not None and loop.is_running():
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), loop).result(timeout=1)


# At exit, finalizers run before this, since they are registered later; what they began is waited for, or else
# aiohttp would complain of sessions left open.
atexit.register(_settle)


def from_client_error(url: str, error: Exception) -> StoreError:
    """Return the error that a failure of aiohttp means for ``url``. The status is told by `from_status`."""
    # aiohttp tells of a status, 400, that nobody sent.
    if isinstance(error, aiohttp.ClientResponseError) and isinstance(error.__cause__, HttpProcessingError):
        if not error.message.startswith("Bad status line"):  # of the same class since aiohttp 3.14
            return failed(url, UNREADABLE)
        return unavailable(url, "answer is not HTTP", "short-body")
    if isinstance(error, aiohttp.ClientResponseError) and error.status >= 400:
        return from_status(url, error.status)
    if isinstance(error, (ValueError, aiohttp.InvalidURL)):
        return failed(url, "is not a URL that can be asked for")
    for cause in (error, error.__cause__):
        for kinds, said, kind in _CAUSES:
            if isinstance(cause, kinds):
                return unavailable(url, said, kind)
    return unavailable(url, f"connection failed ({type(error).__name__})")
