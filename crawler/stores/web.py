"""Web servers through aiohttp: ranged reads whose headers are seen, and HTML folder indexes.

fsspec's own `cat_file` hides whether a server honoured the range and which ETag it sent, and its `ls` decodes
no entities and follows sort links. So only its event loop is used here, with a session made as its own is,
which ``storage_options`` configure in the same words (``headers``, ``client_kwargs``, ``get_client``).

Nothing is tried twice here: retrying is above, for all stores alike.
"""

from __future__ import annotations

import asyncio
import atexit
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableSequence, Sequence
from functools import partial
from typing import Any, NamedTuple

import aiohttp
import fsspec.asyn
import pyarrow as pa
import yarl
from aiohttp.http_exceptions import HttpProcessingError
from fsspec.implementations.http import get_client

from crawler.errors import ObjectNotFoundError, StoreError
from crawler.stores.base import ByteRange, Fetched, ObjectRef
from crawler.stores.failures import (
    NO_HEAD,
    check_same,
    failed,
    fetched,
    from_status,
    is_weak,
    missing,
    range_ignored,
    unavailable,
)
from crawler.stores.index_page import Page, parse_page
from crawler.stores.rows import batches
from crawler.stores.urls import below, web_url
from crawler.stores.values import describe, http_time_of, size_of

CONNECT_SECONDS = 3.0
STALL_SECONDS = 10.0
"""Longest wait for the next bytes of an answer."""
_TOTAL_SECONDS = 120.0
_MAX_DEPTH = 64
# The header that says which bytes a 206 holds, "bytes 0-9/100", or how many a 416 could have had, "bytes
# */100" (RFC 9110, section 14.4).
_CONTENT_RANGE = "Content-Range"
# Options of fsspec's HTTPFileSystem that mean nothing to a request; it hands all others to aiohttp.
_NOT_OF_REQUESTS = frozenset(
    {
        "asynchronous",
        "block_size",
        "cache_options",
        "cache_type",
        "encoded",
        "listings_expiry_time",
        "loop",
        "max_paths",
        "same_scheme",
        "simple_links",
        "size_policy",
        "skip_instance_cache",
        "use_listings_cache",
    }
)
_CAUSES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str, str], ...] = (
    (TimeoutError, "timed out", "time-out"),  # aiohttp's and fsspec's time-outs are children of it
    (aiohttp.ClientConnectorDNSError, "host name not known", "no-host"),
    (ConnectionRefusedError, "connection refused", "refused"),
    (aiohttp.ClientSSLError, "certificate or TLS error", "tls"),
    (aiohttp.ClientPayloadError, "answer was cut short", "short-body"),
    ((aiohttp.ServerDisconnectedError, ConnectionResetError), "answer was cut short", "reset"),
)


class _Answer(NamedTuple):
    """What a server said. ``body`` is empty where it was not asked for."""

    status: int
    headers: Mapping[str, str]
    url: str
    body: bytes


class WebStore:
    """Objects and folder indexes of ``http`` and ``https`` servers.

    Parameters
    ----------
    storage_options : Mapping[str, object]
        As fsspec's HTTPFileSystem takes them. Headers are sent to every server that a URL names.
    """

    def __init__(self, storage_options: Mapping[str, object]) -> None:
        options: dict[str, Any] = {k: v for k, v in storage_options.items() if k not in _NOT_OF_REQUESTS}
        self._headers: Mapping[str, str] = options.pop("headers", None) or {}
        self._get_client = options.pop("get_client", get_client)
        self._client: Mapping[str, Any] = {
            "timeout": aiohttp.ClientTimeout(
                total=_TOTAL_SECONDS, sock_connect=CONNECT_SECONDS, sock_read=STALL_SECONDS
            ),
            "auto_decompress": False,
            "trust_env": True,  # HTTP_PROXY and its kin, as obstore honours them
            **(options.pop("client_kwargs", None) or {}),
        }
        self._request = {"allow_redirects": True, **options}
        self._lock = threading.Lock()
        self._opened: tuple[asyncio.AbstractEventLoop, aiohttp.ClientSession] | None = None

    def list(self, url: str, limit: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield every object that the HTML index of the folder ``url``, and those of its subfolders, link to.

        Only links below ``url`` count, or below what it redirects to. Links with a query string are left
        out where they lead to a folder: they sort it. An index tells no sizes: all columns but ``url`` are
        null. A subfolder that is linked to but gone (404) is skipped; any other that cannot be read ends
        the listing.

        Raises
        ------
        ObjectNotFoundError
            There is no such folder.
        StoreError
            The answer is no HTML page, or folders nest without end.
        """
        return batches(self._walk(below(url)), limit)

    def head(self, url: str) -> ObjectRef:
        """Describe one object; of unknown size where the server refuses HEAD (405, 501)."""
        answer = self._ask("HEAD", url, {}, lambda _: False)
        if answer.status in NO_HEAD:
            return ObjectRef(url)
        if answer.status != 200:
            raise _refused(url, answer)
        return _described(url, answer.headers, _number(answer.headers.get("Content-Length")))

    def get(self, ref: ObjectRef, span: ByteRange) -> Fetched:
        """Read one range of an object. See `crawler.stores.base.ObjectStore.get`."""
        headers = {"Range": f"bytes={span.start}-{span.stop - 1}"}
        if ref.etag is not None and not is_weak(ref.etag):
            headers["If-Match"] = ref.etag if ref.etag.startswith('"') else f'"{ref.etag}"'
        answer = self._ask("GET", ref.url, headers, lambda status: status == 206)
        if answer.status == 206:
            start, size = _content_range(ref.url, answer.headers)
            if start != span.start:
                raise failed(ref.url, f"answer begins at byte {start}, {span.start} was asked for")
            return fetched(ref, span, answer.body[: len(span)], _described(ref.url, answer.headers, size))
        if answer.status == 416:
            _, size = _content_range(ref.url, answer.headers)
            return fetched(ref, span, b"", _described(ref.url, answer.headers, size))
        if answer.status != 200:
            raise _refused(ref.url, answer)
        whole = _described(ref.url, answer.headers, _number(answer.headers.get("Content-Length")))
        check_same(ref, whole)
        if whole.size == 0:  # no range of nothing can be satisfied: some servers send nothing, whole
            return fetched(ref, span, b"", whole)
        raise range_ignored(ref.url)

    def _walk(self, folder: str) -> Iterator[ObjectRef]:
        root, links = self._page(folder, web_url(folder))
        seen: set[str] = {root}
        # What is left to list, next one last: links of a page in the order of their URLs.
        left: MutableSequence[tuple[str, int]] = [(url, 1) for url in reversed(links)]
        while left:
            url, depth = left.pop()
            if not url.endswith("/"):
                yield ObjectRef(url)
                continue
            if depth > _MAX_DEPTH:
                raise failed(url, f"folders nest deeper than {_MAX_DEPTH} levels, as links in a loop do")
            try:
                final, links = self._page(url, root)
            except ObjectNotFoundError:
                continue
            if final not in seen:
                seen.add(final)
                left.extend((link, depth + 1) for link in reversed(links))

    def _page(self, url: str, root: str) -> tuple[str, Sequence[str]]:
        """Return the URL that an index was found at, and its links below ``root`` in order."""
        answer = self._ask("GET", url, {}, lambda status: status == 200)
        if answer.status != 200:
            error = _refused(url, answer)
            raise missing(url, "no such folder") if isinstance(error, ObjectNotFoundError) else error
        if answer.headers.get("Content-Type", "text/html").partition(";")[0].strip().lower() not in (
            "text/html",
            "application/xhtml+xml",
        ):
            raise failed(url, "is no folder index: the answer is not HTML")
        base = below(answer.url.partition("?")[0])
        # A redirect of the root itself moves everything below it.
        root = base if url == root else root
        return base, parse_page(Page(base, root, answer.body, answer.headers.get("Content-Type", "")))

    def _ask(self, method: str, url: str, headers: Mapping[str, str], wants_body: Callable[[int], bool]) -> _Answer:
        """Send one request, and read the body of the answer only where its status is one that is wanted.

        A connection whose body was not read is closed, not drained: a body can be a whole file.
        """
        loop, session = self._session()
        # Bytes as they are stored, not as a proxy might compress them: offsets are of the stored ones.
        sent = {"Accept-Encoding": "identity", **self._headers, **headers}
        # The URL goes out as it is: yarl would encode `%2B` as `+`.
        target = yarl.URL(url, encoded=True)

        async def ask() -> _Answer:
            async with session.request(method, target, headers=sent, **self._request) as answer:
                body = await answer.read() if wants_body(answer.status) else b""
                return _Answer(answer.status, answer.headers, str(answer.url), body)

        return _answered(url, ask, loop)

    def _session(self) -> tuple[asyncio.AbstractEventLoop, aiohttp.ClientSession]:
        with self._lock:
            if self._opened is None:
                loop: asyncio.AbstractEventLoop = fsspec.asyn.get_loop()
                made = fsspec.asyn.sync(loop, partial(self._get_client, loop=loop, **self._client))
                session: aiohttp.ClientSession = made
                weakref.finalize(self, hang_up, loop, session)
                self._opened = loop, session
            return self._opened


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


def _answered(url: str, ask: Callable[[], Awaitable[_Answer]], loop: object) -> _Answer:
    try:
        answer: _Answer = fsspec.asyn.sync(loop, ask)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise from_client_error(url, error) from None
    except TypeError as error:  # what aiohttp says of a storage option that it does not know
        raise failed(url, f"storage options are not understood: {error}") from None
    return answer


def _refused(url: str, answer: _Answer) -> StoreError:
    return from_status(url, answer.status, answer.headers.get("Retry-After"))


def from_client_error(url: str, error: Exception) -> StoreError:
    """Return the error that a failure of aiohttp means for ``url``. The status is told by `from_status`."""
    if isinstance(error.__cause__, HttpProcessingError):  # aiohttp tells of a status, 400, that nobody sent
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


def _described(url: str, headers: Mapping[str, str], size: int | None) -> ObjectRef:
    modified = http_time_of(headers.get("Last-Modified"))
    return describe(url, size=size, etag=headers.get("ETag"), modified=modified)


def _content_range(url: str, headers: Mapping[str, str]) -> tuple[int | None, int | None]:
    """Return the first byte and the size of the whole, each None where it is not told."""
    value = headers.get(_CONTENT_RANGE, "")
    unit, _, rest = value.partition(" ")
    span, slash, size = rest.partition("/")
    if value and (unit.lower() != "bytes" or not slash):
        raise failed(url, f"answer has a Content-Range that cannot be read: {value}")
    return _number(span.partition("-")[0]), _number(size)


def _number(text: str | None) -> int | None:
    return size_of((text or "").strip())
