"""The Rust object_store library, through obstore: local files and memory on request, and what S3 needs of it.

Always its blocking calls, from threads, never the awaited ones: they let go of the GIL, cost less CPU, and
cannot abort the interpreter at its exit as the awaited ones sometimes do.

obstore names objects by raw paths without empty segments, dots or control characters. What it cannot name exactly is
read through another adapter, the fallback.

It reads no web servers, which may be anybody's: it follows redirects with all headers, reads the body of an error
without a limit, and can be told neither to stop.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import obstore
import obstore.exceptions
import obstore.store
import pyarrow as pa

from crawler.errors import StoreError, UsageError
from crawler.stores.base import LISTING_SCHEMA, ByteRange, Fetched, ObjectRef, ObjectStore
from crawler.stores.failures import (
    changed,
    denied,
    failed,
    fetched,
    from_status,
    missing,
    range_ignored,
    sealed,
    sealed_listing,
    unavailable,
)
from crawler.stores.rows import BATCH_ROWS
from crawler.stores.urls import file_path, file_url, one_line, scheme_of

# obstore's defaults are no limit on a stall but 30 s for the whole answer, which is too little for a slow one.
CLIENT_OPTIONS = {
    "connect_timeout": timedelta(seconds=3),
    "read_timeout": timedelta(seconds=10),
    "timeout": timedelta(seconds=60),
}
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
    (re.compile(r"IncompleteMessage|kind: Connect\b|error sending request|HTTP error"), "connection failed", "reset"),
)

_OTHER_RANGE = re.compile(r"Requested (\d{1,20})\.\.(\d{1,20}), got (\d{1,20})\.\.(\d{1,20})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
# Rust's local store keeps names ending in #1 for uploads under way.
_UPLOAD = re.compile(r"#\d+(/|$)")


class _Place(NamedTuple):
    """Where an object lies: ``root`` tells the obstore store, ``path`` the object in it."""

    root: str
    path: str


class ObstoreStore:
    """Objects of ``file`` and ``memory`` URLs, through obstore.

    Parameters
    ----------
    fallback : Callable[[], ObjectStore] or None
        Makes the adapter for what obstore cannot name or list. Called once at most.
    memory : obstore.store.MemoryStore or None
        What ``memory://`` URLs are of.
    """

    def __init__(
        self,
        *,
        fallback: Callable[[], ObjectStore] | None,
        memory: obstore.store.MemoryStore | None = None,
    ) -> None:
        self._make_fallback = fallback
        self._fallback: ObjectStore | None = None
        self._lock = threading.Lock()
        self._stores: dict[str, Any] = {} if memory is None else {"memory://": memory}

    @sealed_listing
    def list(self, url: str) -> Iterator[pa.RecordBatch]:
        """Yield every object below ``url``. See `crawler.stores.base.ObjectStore.list`."""
        place = _place(url.rstrip("/") if scheme_of(url) == "file" else url)
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

    @sealed
    def head(self, url: str) -> ObjectRef:
        """Describe one object. See `crawler.stores.base.ObjectStore.head`."""
        place = _place(url)
        if not _nameable(place.path):
            return self._instead(url).head(url)
        try:
            return _described(url, obstore.head(self._store(place.root), place.path))
        except (obstore.exceptions.BaseError, OSError, ValueError) as error:
            raise from_obstore(url, error) from None

    @sealed
    def get(self, ref: ObjectRef, span: ByteRange) -> Fetched:
        """Read one range of an object. See `crawler.stores.base.ObjectStore.get`."""
        place = _place(ref.url)
        if not _nameable(place.path):
            return self._instead(ref.url).get(ref, span)
        options: obstore.GetOptions = {"range": (span.start, span.stop)}
        if ref.etag is not None:
            options["if_match"] = ref.etag
        try:
            answer = obstore.get(self._store(place.root), place.path, options=options)
            data = answer.bytes().to_bytes()
            described = _described(ref.url, answer.meta)
        except (obstore.exceptions.BaseError, OSError, ValueError) as error:
            empty = self._empty(ref, span, error)
            if empty is None:
                raise from_obstore(ref.url, error) from None
            return empty
        return fetched(ref, span, data, described)

    def _empty(self, ref: ObjectRef, span: ByteRange, error: Exception) -> Fetched | None:
        """Return what a refused range means where the object ends before it, else None."""
        if not _BEYOND_END.search(str(error)):
            return None
        described = self.head(ref.url)
        if described.size is not None and span.start < described.size:
            raise changed(ref.url)  # it grew between the two requests
        return fetched(ref, span, b"", described)

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
                store = self._stores.setdefault(root, _opened(root))
        return store


def _opened(root: str) -> Any:
    """Make the obstore store of one root."""
    return obstore.store.LocalStore("/") if scheme_of(root) == "file" else obstore.store.MemoryStore()


@contextmanager
def understood_options() -> Iterator[None]:
    """Turn what obstore says of options that it cannot read, which quotes them, into `UsageError`."""
    try:
        yield
    except (obstore.exceptions.BaseError, ValueError, TypeError):
        raise UsageError("the storage options client_options or retry_config are not such as obstore takes") from None


def _place(url: str) -> _Place:
    scheme = scheme_of(url)
    if scheme == "file":
        return _Place("file://", file_path(url)[1:])
    return _Place("memory://", url[len("memory://") :])


def _nameable(path: str) -> bool:
    """Tell whether obstore gives just the object of this path: it renames some and refuses others."""
    if not path or _CONTROL.search(path) or _UPLOAD.search(path):
        return False
    try:
        path.encode()
    except UnicodeEncodeError:  # a file name that is no UTF-8
        return False
    return all(segment not in ("", ".", "..") for segment in path.split("/"))


def _described(url: str, meta: Any) -> ObjectRef:
    return ObjectRef(
        url=url,
        size=meta["size"],
        etag=meta["e_tag"],
        version=meta["version"],
        last_modified=meta["last_modified"],
    )


def _listed(root: str, batch: pa.RecordBatch) -> pa.RecordBatch:
    paths = batch.column("path").to_pylist()
    urls = [file_url("/" + path) if root == "file://" else root + path for path in paths]
    columns = {
        "url": pa.array(urls, type=pa.string()),
        "size": batch.column("size"),
        "etag": batch.column("e_tag"),
        "version": batch.column("version"),
        "last_modified": batch.column("last_modified"),
    }
    return pa.record_batch([columns[f.name].cast(f.type) for f in LISTING_SCHEMA], schema=LISTING_SCHEMA)


def _status(said: str) -> int | None:
    match = _STATUS.search(said)
    return int(match[1]) if match else None


def from_obstore(url: str, error: Exception) -> StoreError:  # noqa: PLR0911 - one for each kind
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
    if (other := _OTHER_RANGE.search(said)) is not None:
        start, stop, got_start, got_stop = (int(number) for number in other.groups())
        said = f"answer has bytes {got_start} to {got_stop - 1}, asked for were {start} to {stop - 1}"
        is_part = got_start == start and got_stop < stop
        return unavailable(url, said, "short-body") if is_part else failed(url, said)
    for pattern, cause, kind in _CAUSES:
        if pattern.search(said):
            return unavailable(url, cause, kind)
    if isinstance(error, (obstore.exceptions.InvalidPathError, ValueError)):
        return failed(url, "obstore cannot name an object here: read it with --store fsspec")
    return failed(url, f"{type(error).__name__}: {one_line(said.partition('Debug source')[0].strip(), limit=120)}")
