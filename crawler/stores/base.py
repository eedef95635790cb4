"""What every store can do, whatever it is made of.

Knows neither obstore nor fsspec, and nothing of FITS.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

import pyarrow as pa

LISTING_SCHEMA = pa.schema(
    [
        pa.field("url", pa.string(), nullable=False),
        pa.field("size", pa.int64()),
        pa.field("etag", pa.string()),
        pa.field("version", pa.string()),
        pa.field("last_modified", pa.timestamp("us", tz="UTC")),
    ]
)
"""Columns of a listing. All but ``url`` may be null: a key file or a web server may not tell."""


@dataclass(frozen=True, slots=True)
class ByteRange:
    """A run of bytes of one object.

    Attributes
    ----------
    start : int
        First byte, counted from 0.
    stop : int
        One past the last byte; greater than ``start``.
    """

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """One object as it was listed or last seen.

    Attributes
    ----------
    url : str
        As the catalogue writes it: percent-encoded for ``file`` and ``http(s)``, raw key for all others.
    size : int or None
        Bytes; None where the listing did not tell.
    etag : str or None
        The store's name for this very content. Reads are pinned to it where it is known.
    version : str or None
        Version id, on versioned buckets.
    last_modified : datetime or None
        Aware, UTC.
    """

    url: str
    size: int | None = None
    etag: str | None = None
    version: str | None = None
    last_modified: datetime | None = None


class Fetched(NamedTuple):
    """Bytes of an object, and the object that they are of.

    Attributes
    ----------
    data : bytes
        Exactly the range asked for, cut at the end of the object; empty where the range starts at or beyond it.
    ref : ObjectRef
        The object as the store described it in the same answer, so that a read of an object of unknown size
        and ETag pins the reads after it. Fields that the answer did not tell are those of the ref that was asked for.
    """

    data: bytes
    ref: ObjectRef


class Moved(NamedTuple):
    """A folder that redirects to another, which is not below the one that is listed.

    Attributes
    ----------
    url : str
        As it is linked to, with a slash at its end.
    to : str
        Where it is, with a slash at its end.
    """

    url: str
    to: str


class ObjectStore(Protocol):
    """Objects that can be listed and read by range. Safe to use from many threads at once.

    Every method raises `crawler.errors.StoreError` or one of its children, and nothing else of the library below: no
    error of a library is its ``__cause__`` or ``__context__``.
    Stores are made on the worker from options (`crawler.stores.open_store`) and are never pickled.
    """

    def list(self, url: str, limit: int | None = None) -> Iterator[pa.RecordBatch]:
        """Yield every object below ``url`` as record batches of `LISTING_SCHEMA`.

        Parameters
        ----------
        url : str
            A folder or prefix. Objects are yielded in no promised order. A generator may return a sequence of `Moved`:
            folders that it did not list.
        limit : int, optional
            Objects that the caller takes, at most: nothing is read before it is needed for them. More may be yielded.

        Raises
        ------
        ObjectNotFoundError
            There is no such folder (where the store knows folders).
        """
        ...

    def head(self, url: str) -> ObjectRef:
        """Describe one object, reading none of it.

        Raises
        ------
        ObjectNotFoundError
            There is no such object, or it is a folder.
        """
        ...

    def get(self, ref: ObjectRef, span: ByteRange) -> Fetched:
        """Read one range of ``ref``, in one request.

        Where ``ref.etag`` is known, only of that content.

        Raises
        ------
        ObjectChangedError
            The object is no longer the one that ``ref`` names.
        RangeIgnoredError
            The server answered with the whole object. Its body is not read.
        """
        ...
