"""The Rust object_store library, through obstore: the fast way to read ranges.

Always its blocking calls, from threads, never the awaited ones: they let go of the GIL, cost less CPU, and
cannot abort the interpreter at its exit as the awaited ones sometimes do.

obstore names objects by raw paths without empty segments, dots or control characters, and encodes them for
HTTP in its own way. What it cannot name exactly, and answers with headers that it cannot read, are left to another
adapter, the fallback.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple
from urllib.parse import unquote_to_bytes, urlsplit

import obstore
import obstore.exceptions
import obstore.store
import pyarrow as pa

from crawler.errors import StoreError, UsageError
from crawler.stores.base import LISTING_SCHEMA, ByteRange, Fetched, ObjectRef, ObjectStore
from crawler.stores.failures import (
    NO_HEAD,
    changed,
    check_same,
    denied,
    failed,
    fetched,
    from_status,
    is_weak,
    missing,
    range_ignored,
    unavailable,
)
from crawler.stores.rows import BATCH_ROWS
from crawler.stores.urls import WEB_SCHEMES, one_line, scheme_of
from crawler.stores.values import describe, size_column, tag_column, time_column

# A dead address costs two connects, a stalled answer one time-out: 7 and 10 s. obstore's defaults are ten
# retries within three minutes, and no limit on a stall but 30 s for the whole answer, which is too little
# for a slow one.
CLIENT_OPTIONS = {
    "connect_timeout": timedelta(seconds=3),
    "read_timeout": timedelta(seconds=10),
    "timeout": timedelta(seconds=60),
}
RETRY_CONFIG = {
    "max_retries": 2,
    "retry_timeout": timedelta(seconds=6),
    "backoff": {
        "init_backoff": timedelta(seconds=0.2),
        "max_backoff": timedelta(seconds=2),
        "base": 3,
    },
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)  # what obstore gives where a server sends no Last-Modified

_STATUS = re.compile(r"status code: (\d{3})")
_BEYOND_END = re.compile(r"invalid range|range was invalid", re.IGNORECASE)
# FileNotFoundError: what obstore raises in fact where its documentation says NotFoundError.
_MEANINGS: tuple[tuple[tuple[type[Exception], ...], Callable[[str], StoreError]], ...] = (
    ((FileNotFoundError, obstore.exceptions.NotFoundError), missing),
    (
        (PermissionError, obstore.exceptions.PermissionDeniedError, obstore.exceptions.UnauthenticatedError),
        denied,
    ),
    ((obstore.exceptions.PreconditionError,), changed),
)
# What the text of an error, its Debug dump included, tells of its cause; the first that is found counts.
_CAUSES = (
    (re.compile(r"ConnectionRefused"), "connection refused", "refused"),
    (re.compile(r"dns error|lookup address"), "host name not known", "no-host"),
    (
        re.compile(r"invalid peer certificate|InvalidCertificate|AlertReceived|InvalidContentType"),
        "certificate or TLS error",
        "tls",
    ),
    (re.compile(r"kind: Timeout|TimedOut|timed out"), "timed out", "time-out"),
    (re.compile(r"ConnectionReset"), "answer was cut short", "reset"),
    (re.compile(r"IncompleteBody|UnexpectedEof|kind: Interrupted"), "answer was cut short", "short-body"),
    (re.compile(r"Requested \d+\.\.\d+, got \d"), "answer has other bytes than were asked for", "short-body"),
    (re.compile(r"IncompleteMessage|kind: Connect\b|error sending request|HTTP error"), "connection failed", "reset"),
)

# A character of a URL's path that object_store sends as it stands, or one that it encodes just so. Anything
# else (`%2B`, `%7e`, a query string) would reach the server as something else.
_SENT_EXACTLY = re.compile(
    r"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%(?:20|22|23|25|3C|3E|3F|5C|60|7B|7C|7D|[89A-F][0-9A-F]))+"
)
# An answer that is good but for a header that obstore cannot read: times as RFC 9110, section 5.6.7, lets servers write
# them, ETags beyond ASCII, sizes beyond 64 bits.
_UNREAD_HEADER = re.compile(r"source: Header \{|ParseContentRange|^year -?\d+ is out of range")
_LONGEST_PATH = 4096  # characters; object_store panics when a URL has 64 KiB, of which a character takes up to 12 bytes
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class _Place(NamedTuple):
    """Where an object lies: ``root`` tells the obstore store, ``path`` the object in it."""

    root: str
    path: str


class ObstoreStore:
    """Objects of ``http(s)`` and ``memory`` URLs, through obstore.

    Parameters
    ----------
    options : Mapping[str, object]
        ``headers``: sent with every HTTP request, to every server that a URL names. ``client_options`` and
        ``retry_config``: obstore's own.
    fallback : Callable[[], ObjectStore] or None
        Makes the adapter for what obstore cannot name, list or understand. Called once at most.
    memory : obstore.store.MemoryStore or None
        What ``memory://`` URLs are of.
    """

    def __init__(
        self,
        options: Mapping[str, object],
        *,
        fallback: Callable[[], ObjectStore] | None,
        memory: obstore.store.MemoryStore | None = None,
    ) -> None:
        self._options = dict(options)
        self._make_fallback = fallback
        self._fallback: ObjectStore | None = None
        self._lock = threading.Lock()
        self._stores: dict[str, Any] = {} if memory is None else {"memory://": memory}

    def list(self, url: str, limit: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield every object below ``url``. See `crawler.stores.base.ObjectStore.list`.

        HTTP has no listing that obstore could read: the fallback reads HTML indexes.
        """
        if scheme_of(url) in WEB_SCHEMES:
            return self._instead(url).list(url, limit)
        return self._list(url)

    def _list(self, url: str) -> Iterator[pa.RecordBatch]:
        place = _place(url)
        path = place.path.rstrip("/")
        if path and not _nameable(path):
            yield from self._instead(url).list(url)
            return
        try:
            stream = obstore.list(self._store(place.root), path or None, chunk_size=BATCH_ROWS, return_arrow=True)
            for batch in stream:
                yield _listed(place.root, pa.record_batch(batch))
        except (obstore.exceptions.BaseError, OSError, ValueError) as error:
            raise from_obstore(url, error) from None

    def head(self, url: str) -> ObjectRef:
        """Describe one object; of unknown size where an HTTP server refuses HEAD (405, 501)."""
        place = _place(url)
        if not _nameable(place.path):
            return self._instead(url).head(url)
        try:
            return _described(url, obstore.head(self._store(place.root), place.path))
        except (obstore.exceptions.BaseError, OSError, ValueError) as error:
            said = str(error)
            if _status(said) in NO_HEAD or "ontent-Length" in said:
                return ObjectRef(url)
            if self._make_fallback is not None and is_header_unread(error):
                return self._instead(url).head(url)
            raise from_obstore(url, error) from None

    def get(self, ref: ObjectRef, span: ByteRange) -> Fetched:
        """Read one range of an object. See `crawler.stores.base.ObjectStore.get`.

        A range that starts beyond the end costs a second request, HEAD, for the size and ETag that obstore
        does not tell of that answer; so does a whole answer, where it may be one of no bytes. An answer with a header
        that obstore cannot read costs a second GET, by the fallback.
        """
        place = _place(ref.url)
        if not _nameable(place.path):
            return self._instead(ref.url).get(ref, span)
        options: obstore.GetOptions = {"range": (span.start, span.stop)}
        if ref.etag is not None and not is_weak(ref.etag):
            options["if_match"] = self._if_match(ref)
        try:
            answer = obstore.get(self._store(place.root), place.path, options=options)
            data = answer.bytes().to_bytes()
            described = _described(ref.url, answer.meta)
        except (obstore.exceptions.BaseError, OSError, ValueError) as error:
            if self._make_fallback is not None and is_header_unread(error):
                return self._instead(ref.url).get(ref, span)
            empty = self._empty(ref, span, error)
            if empty is None:
                raise from_obstore(ref.url, error) from None
            return empty
        return fetched(ref, span, data, described)

    def _empty(self, ref: ObjectRef, span: ByteRange, error: Exception) -> Fetched | None:
        """Return what a refused range means where the object ends before it, else None."""
        said = str(error)
        if isinstance(error, obstore.exceptions.NotSupportedError):
            # A server may answer any range of an empty object with all of it, which is nothing.
            if ref.size:
                return None
            described = self.head(ref.url)
            check_same(ref, described)
            return fetched(ref, span, b"", described) if described.size == 0 else None
        if _status(said) != 416 and not _BEYOND_END.search(said):
            return None
        described = self.head(ref.url)
        if described.size is not None and span.start < described.size:
            raise changed(ref.url)  # it grew between the two requests
        return fetched(ref, span, b"", described)

    def _if_match(self, ref: ObjectRef) -> str:
        etag = ref.etag or ""
        # An ETag on the wire has quotes (RFC 9110, section 8.8.3); an inventory may have dropped them.
        return f'"{etag}"' if scheme_of(ref.url) in WEB_SCHEMES and not etag.startswith('"') else etag

    def _instead(self, url: str) -> ObjectStore:
        with self._lock:
            if self._fallback is None:
                if self._make_fallback is None:
                    raise missing(url, "obstore cannot name this object")
                self._fallback = self._make_fallback()
            return self._fallback

    def _store(self, root: str) -> Any:
        store = self._stores.get(root)
        if store is None:
            with self._lock:
                try:
                    store = self._stores.setdefault(root, _opened(root, self._options))
                except UsageError:
                    _opened("http://localhost", self._options)  # raises where it is the options, not the URL
                    raise failed(root, "is not a URL that can be asked for") from None
        return store


def _opened(root: str, options: Mapping[str, object]) -> Any:
    """Make the obstore store of one root. The next schemes go here."""
    scheme = scheme_of(root)
    if scheme not in WEB_SCHEMES:
        return obstore.store.MemoryStore()
    client: dict[str, Any] = {**CLIENT_OPTIONS, "allow_http": scheme == "http"}
    if isinstance(headers := options.get("headers"), Mapping):
        client["default_headers"] = {str(name): str(value) for name, value in headers.items()}
    if isinstance(given := options.get("client_options"), Mapping):
        client |= given
    retry: Any = options.get("retry_config", RETRY_CONFIG)
    with understood_options():
        return obstore.store.HTTPStore(root, client_options=client, retry_config=retry)  # type: ignore[arg-type]  # a TypedDict cannot be built from what users give


@contextmanager
def understood_options() -> Iterator[None]:
    """Turn what obstore says of options that it cannot read, which quotes them, into `UsageError`."""
    try:
        yield
    except (obstore.exceptions.BaseError, ValueError, TypeError):
        raise UsageError("the storage options client_options or retry_config are not such as obstore takes") from None


def _place(url: str) -> _Place:
    scheme = scheme_of(url)
    if scheme in WEB_SCHEMES:
        parts = urlsplit(url)
        path = url[len(parts.scheme) + 3 + len(parts.netloc) :]
        if not _SENT_EXACTLY.fullmatch(path):
            return _Place(f"{scheme}://{parts.netloc}", "")
        try:
            return _Place(f"{scheme}://{parts.netloc}", unquote_to_bytes(path[1:]).decode())
        except UnicodeDecodeError:
            return _Place(f"{scheme}://{parts.netloc}", "")
    return _Place("memory://", url[len("memory://") :])


def _nameable(path: str) -> bool:
    """Tell whether obstore gives just the object of this path: it renames some and refuses others."""
    if not path or len(path) > _LONGEST_PATH or _CONTROL.search(path):
        return False
    return all(segment not in ("", ".", "..") for segment in path.split("/"))


def _described(url: str, meta: Any) -> ObjectRef:
    modified = meta["last_modified"]
    return describe(
        url,
        size=meta["size"],
        etag=meta["e_tag"],
        version=meta["version"],
        modified=None if modified == _EPOCH else modified,
    )


def _listed(root: str, batch: pa.RecordBatch) -> pa.RecordBatch:
    paths = batch.column("path").to_pylist()
    columns = {
        "url": pa.array([root + path for path in paths], type=pa.string()),
        "size": size_column(batch.column("size")),
        "etag": tag_column(batch.column("e_tag")),
        "version": tag_column(batch.column("version")),
        "last_modified": time_column(batch.column("last_modified")),
    }
    return pa.record_batch([columns[name] for name in LISTING_SCHEMA.names], schema=LISTING_SCHEMA)


def _status(said: str) -> int | None:
    match = _STATUS.search(said)
    return int(match[1]) if match else None


def is_header_unread(error: Exception) -> bool:
    """Tell whether an error of obstore's says that it cannot read a header of an answer that is good otherwise."""
    return _UNREAD_HEADER.search(str(error)) is not None


def from_obstore(url: str, error: Exception) -> StoreError:
    """Return the error that one of obstore's means for ``url``.

    Only words of our own and the status are kept: obstore's text is many lines, and holds whole URLs and
    bodies.
    """
    said = str(error)
    status = _status(said)
    if status is not None:
        return from_status(url, status)
    for kinds, meaning in _MEANINGS:
        if isinstance(error, kinds):
            return meaning(url)
    if isinstance(error, obstore.exceptions.NotSupportedError) and "Range request" in said:
        return range_ignored(url)
    for pattern, cause, kind in _CAUSES:
        if pattern.search(said):
            return unavailable(url, cause, kind)
    if isinstance(error, (obstore.exceptions.InvalidPathError, ValueError)):
        return failed(url, "obstore cannot name an object here: read it with --store fsspec")
    return failed(url, f"{type(error).__name__}: {one_line(said.partition('Debug source')[0].strip(), limit=120)}")
