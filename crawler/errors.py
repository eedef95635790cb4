"""What can go wrong, drawn once.

::

    CrawlerError
    ├── UsageError            the caller asked for something that cannot be: fix the call
    ├── FormatError           the bytes of one file break the FITS Standard; becomes that file's row
    │   ├── NotFitsError      does not begin as a FITS file
    │   ├── TruncatedError    ends inside a unit
    │   └── CorruptError      a header cannot be read
    ├── StoreError            the store would not give the bytes of one object
    │   ├── ObjectNotFoundError   404
    │   ├── AccessDeniedError     401, 403
    │   │   └── CredentialsExpiredError   they were good, and are no more: nothing can be read with them
    │   ├── ArchivedError         in an archive such as Glacier: to be restored first
    │   ├── ObjectChangedError    the object is no longer the one that was listed
    │   ├── RangeIgnoredError     the server sends whole objects where a range was asked for
    │   └── StoreUnavailableError time-out, refused connection, 5xx: may pass
    ├── StoreDownError        nothing can be read of a store any more: the crawl cannot go on
    ├── ListingError          the roots could not be listed: the crawl cannot go on
    ├── CatalogueError        the catalogue cannot be opened, read or written
    │   └── QueryError        SQL that cannot be run
    └── ClusterError          the Dask cluster cannot be reached or was lost

Every class passes all its arguments to ``Exception.__init__``, so that each one survives pickling between Dask
workers, and each one's ``str`` is a single line that says what, where and what to do.
"""

from __future__ import annotations


class CrawlerError(Exception):
    """Base of everything this package raises on purpose."""


class UsageError(CrawlerError):
    """The caller asked for something that cannot be done as asked.

    Parameters
    ----------
    message : str
        One line.
    """


class FormatError(CrawlerError):
    """The bytes of a file break the FITS Standard in a way that ends its walk.

    Parameters
    ----------
    reason : str
        One line, without the offset.
    offset : int
        Byte of the (decompressed) file at which the fault was met.
    """

    status = "corrupt"
    """Value of ``files.status`` that this fault becomes."""

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(reason, offset)
        self.reason = reason
        self.offset = offset

    def __str__(self) -> str:
        return f"{self.reason} (byte {self.offset})"


class NotFitsError(FormatError):
    """The file does not begin with a ``SIMPLE`` card (FITS Standard 4.0, section 4.4.1.1)."""

    status = "not-fits"


class TruncatedError(FormatError):
    """The file ends inside a header or data unit."""

    status = "truncated"


class CorruptError(FormatError):
    """A header cannot be read, so that what follows it cannot be found."""

    status = "corrupt"


class StoreError(CrawlerError):
    """The store would not give the bytes of an object, or would not describe it.

    Parameters
    ----------
    url : str
        The object.
    reason : str
        One line: what the store said, and what to do where that is known.
    """

    status = "unreadable"
    """Value of ``files.status`` that this fault becomes."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason}: {self.url}"


class ObjectNotFoundError(StoreError):
    """There is no such object (404)."""


class AccessDeniedError(StoreError):
    """The store knows the object or not, but will not show it to these credentials (401, 403)."""


class CredentialsExpiredError(AccessDeniedError):
    """The credentials were good, and are no more."""


class ArchivedError(StoreError):
    """The object lies in an archive (S3 Glacier and the like), and must be restored before it can be read."""

    status = "archived"


class ObjectChangedError(StoreError):
    """The object is no longer the one that was listed (412, or another ETag)."""


class RangeIgnoredError(StoreError):
    """The server answers a range request with the whole object."""


class StoreUnavailableError(StoreError):
    """The store did not answer, or answered with an error of its own (time-out, 5xx): may pass.

    Parameters
    ----------
    url, reason : str
    kind : str
        What was wrong: ``slow-down``, ``server-error``, ``time-out``, ``reset``, ``short-body``, ``refused``,
        ``no-host``, ``tls`` or ``connection``.
    retry_after : float or None
        Seconds that the store asks to wait before it is asked again ("Retry-After", RFC 9110, section 10.2.3).
    """

    def __init__(self, url: str, reason: str, kind: str = "connection", retry_after: float | None = None) -> None:
        super().__init__(url, reason)
        self.args = (url, reason, kind, retry_after)
        self.kind = kind
        self.retry_after = retry_after


class StoreDownError(CrawlerError):
    """Nothing can be read of a store any more: it does not answer, or credentials have expired. Better go on later.

    Parameters
    ----------
    url : str
        An object that could not be read.
    reason : str
        One line.
    """

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return f"nothing can be read any more ({self.reason}): {self.url}"


class ListingError(CrawlerError):
    """A root could not be listed, so that the crawl cannot know what there is.

    Parameters
    ----------
    root : str
        As the user gave it.
    reason : str
        One line.
    """

    def __init__(self, root: str, reason: str) -> None:
        super().__init__(root, reason)
        self.root = root
        self.reason = reason

    def __str__(self) -> str:
        return f"cannot list {self.root}: {self.reason}"


class CatalogueError(CrawlerError):
    """The catalogue cannot be opened, read or written.

    Parameters
    ----------
    url : str
        The catalogue.
    reason : str
        One line.
    """

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(url, reason)
        self.url = url
        self.reason = reason

    def __str__(self) -> str:
        return f"catalogue {self.url}: {self.reason}"


class QueryError(CatalogueError):
    """SQL that cannot be parsed, bound or run."""

    def __str__(self) -> str:
        return f"query failed: {self.reason}"


class ClusterError(CrawlerError):
    """The Dask cluster cannot be reached, or was lost.

    Parameters
    ----------
    message : str
        One line.
    """
