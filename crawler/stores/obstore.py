"""The Rust object_store library, through obstore: memory on request, and what S3 needs of it.

Always its blocking calls, from threads, never the awaited ones: they let go of the GIL, cost less CPU, and
cannot abort the interpreter at its exit as the awaited ones sometimes do.

It reads no web servers: it follows redirects with all headers, reads the body of an error without a limit, and has no
option against either. It reads no local files: see `crawler.stores.local`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import obstore
import obstore.exceptions
import obstore.store
import pyarrow as pa

from crawler.errors import StoreError, UsageError
from crawler.stores.base import LISTING_SCHEMA, ByteRange, Fetched, ObjectRef
from crawler.stores.batches import BATCH_ROWS
from crawler.stores.errors import (
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
from crawler.stores.urls import one_line
from crawler.stores.values import describe, size_column, tag_column, time_column

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
# An answer that is good but for a header that obstore cannot read: times as RFC 9110, section 5.6.7, lets servers write
# them, ETags beyond ASCII, sizes beyond 64 bits.
_UNREAD_HEADER = re.compile(r"source: Header \{|ParseContentRange|^year -?\d+ is out of range")
_LONGEST_PATH = 4096  # characters; object_store panics when a URL has 64 KiB, of which a character takes up to 12 bytes
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class ObstoreStore:
    """Objects of ``memory`` URLs, through obstore.

    Parameters
    ----------
    memory : obstore.store.MemoryStore or None
        What the URLs are of.
    """

    def __init__(self, memory: obstore.store.MemoryStore | None = None) -> None:
        self._memory = obstore.store.MemoryStore() if memory is None else memory

    @sealed_listing
    def list(self, url: str, limit: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield every object below ``url``. See `crawler.stores.base.ObjectStore.list`."""
        path = _path(url, folder=True)
        try:
            stream = obstore.list(self._memory, path or None, chunk_size=BATCH_ROWS, return_arrow=True)
            for batch in stream:
                yield _listed(pa.record_batch(batch))
        except (obstore.exceptions.BaseError, OSError, ValueError) as error:
            raise from_obstore(url, error) from None

    @sealed
    def head(self, url: str) -> ObjectRef:
        """Describe one object. See `crawler.stores.base.ObjectStore.head`."""
        try:
            return _described(url, obstore.head(self._memory, _path(url)))
        except (obstore.exceptions.BaseError, OSError, ValueError) as error:
            raise from_obstore(url, error) from None

    @sealed
    def get(self, ref: ObjectRef, span: ByteRange) -> Fetched:
        """Read one range of an object. See `crawler.stores.base.ObjectStore.get`."""
        options: obstore.GetOptions = {"range": (span.start, span.stop)}
        if ref.etag is not None:
            options["if_match"] = ref.etag
        try:
            answer = obstore.get(self._memory, _path(ref.url), options=options)
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


@contextmanager
def understood_options() -> Iterator[None]:
    """Turn what obstore says of options that it cannot read, which quotes them, into `UsageError`."""
    try:
        yield
    except (obstore.exceptions.BaseError, ValueError, TypeError):
        raise UsageError("the storage options client_options or retry_config are not such as obstore takes") from None


def _path(url: str, *, folder: bool = False) -> str:
    """Return the path of an object or folder.

    Raises
    ------
    ObjectNotFoundError
        obstore renames or refuses the path, so there is no such object.
    """
    path = url[len("memory://") :]
    path = path.rstrip("/") if folder else path
    if not (folder and not path) and (
        _CONTROL.search(path) or any(segment in ("", ".", "..") for segment in path.split("/"))
    ):
        raise missing(url, "obstore cannot name this object")
    return path


def _described(url: str, meta: Any) -> ObjectRef:
    return describe(url, size=meta["size"], etag=meta["e_tag"], version=meta["version"], modified=meta["last_modified"])


def _listed(batch: pa.RecordBatch) -> pa.RecordBatch:
    columns = {
        "url": pa.array([f"memory://{path}" for path in batch.column("path").to_pylist()], type=pa.string()),
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
