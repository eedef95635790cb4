"""What every adapter says of a failure in the same words, and when an object counts as changed.

Knows HTTP's status codes (RFC 9110, section 15), but no library.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import wraps
from http import HTTPStatus
from typing import Any, ParamSpec, TypeVar

from crawler.errors import (
    AccessDeniedError,
    CrawlerError,
    ObjectChangedError,
    ObjectNotFoundError,
    RangeIgnoredError,
    StoreError,
    StoreUnavailableError,
)
from crawler.stores.base import ByteRange, Fetched, ObjectRef
from crawler.stores.urls import one_line, printable
from crawler.text import counted

_MISSING = frozenset({HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
_DENIED = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.PROXY_AUTHENTICATION_REQUIRED})
_MAY_PASS = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})
_KINDS_OF_STATUS: Mapping[int, str] = {
    HTTPStatus.REQUEST_TIMEOUT: "time-out",
    HTTPStatus.TOO_MANY_REQUESTS: "slow-down",
    HTTPStatus.SERVICE_UNAVAILABLE: "slow-down",
}
_KINDS: tuple[tuple[type[OSError], str], ...] = (
    (ConnectionRefusedError, "refused"),
    (ConnectionError, "reset"),
    (socket.gaierror, "no-host"),
    (ssl.SSLError, "tls"),
)
_ETAG = re.compile(r'"[\x21\x23-\x7e]*"')
NO_HEAD = frozenset({HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED})
"""Answers of servers that serve GET but will not hear of HEAD."""


P = ParamSpec("P")
T = TypeVar("T")
Yielded = TypeVar("Yielded")


def sealed(call: Callable[P, T]) -> Callable[P, T]:
    """Let errors of ours leave ``call`` without the errors of libraries that they were made of.

    Python keeps those as ``__context__``, also where ``raise ... from None`` hides them, and they hold what must not be
    logged or sent to another process: whole requests, signatures, bodies of answers.
    """

    @wraps(call)
    def calling(*args: P.args, **named: P.kwargs) -> T:
        try:
            return call(*args, **named)
        except CrawlerError as error:
            raised = error
        raise _alone(raised)  # out here, where no error is being handled that could become its context

    return calling


def sealed_listing(call: Callable[P, Iterator[Yielded]]) -> Callable[P, Generator[Yielded, None, Any]]:
    """Do the same as `sealed` for a method that returns an iterator, and for what that raises."""
    begin = sealed(call)

    @wraps(call)
    def listing(*args: P.args, **named: P.kwargs) -> Generator[Yielded, None, Any]:
        return _sealed(begin(*args, **named))

    return listing


def _sealed(found: Iterator[Yielded]) -> Generator[Yielded, None, Any]:
    try:
        return (yield from found)
    except CrawlerError as error:
        raised = error
    raise _alone(raised)


def _alone(error: CrawlerError) -> CrawlerError:
    error.__cause__ = error.__context__ = None
    return error


def from_status(url: str, status: int, retry_after: object = None) -> StoreError:
    """Return the error that an HTTP status means for ``url``; see `advised`."""
    try:
        said = f"HTTP {status} {HTTPStatus(status).phrase}"
    except ValueError:
        said = f"HTTP {status}"
    if status in _MISSING:
        return missing(url, said)
    if status in _DENIED:
        return denied(url, said)
    if status == HTTPStatus.PRECONDITION_FAILED:
        return changed(url)
    if status in _MAY_PASS or (500 <= status < 600 and status != HTTPStatus.NOT_IMPLEMENTED):
        return advised(unavailable(url, said, _KINDS_OF_STATUS.get(status, "server-error")), retry_after)
    return failed(url, said)


def from_os_error(url: str, error: OSError) -> StoreError:
    """Return the error that an `OSError` of a file system means for ``url``."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)) or error.errno in {
        errno.ENAMETOOLONG,
        errno.ELOOP,
    }:
        return missing(url)
    if isinstance(error, IsADirectoryError):
        return missing(url, "is a folder, not an object")
    if error.errno == errno.ESPIPE:  # what has no offsets to read at: a fifo, a socket, a terminal
        return missing(url, "is not a regular file")
    if isinstance(error, PermissionError):
        return denied(url)
    if isinstance(error, TimeoutError):
        return unavailable(url, "timed out", "time-out")
    kind = next((kind for kinds, kind in _KINDS if isinstance(error, kinds)), "connection")
    # The system's own words: str(error) would repeat the path, and a library's text can hold anything.
    said = os.strerror(error.errno) if error.errno else type(error).__name__
    return unavailable(url, said[:1].lower() + said[1:], kind)


def missing(url: str, said: str = "no such object") -> ObjectNotFoundError:
    """Say that there is nothing at ``url``."""
    return ObjectNotFoundError(printable(url), one_line(said))


def denied(url: str, said: str = "access denied") -> AccessDeniedError:
    """Say that the credentials, or their absence, do not open ``url``."""
    return AccessDeniedError(printable(url), one_line(said))


def changed(url: str) -> ObjectChangedError:
    """Say that the object at ``url`` is not the one that was listed."""
    return ObjectChangedError(printable(url), "changed since it was listed")


def range_ignored(url: str) -> RangeIgnoredError:
    """Say that the server of ``url`` answers a range request with everything."""
    return RangeIgnoredError(
        printable(url), "server ignores range requests: copy the files to a store that serves ranges"
    )


def overlong(url: str, wanted: int, told: int | None = None) -> StoreError:
    """Say that an answer is longer than it may be. Another try would not help: nothing is wrong with the network.

    Parameters
    ----------
    url : str
    wanted : int
        Bytes that the answer may have.
    told : int or None
        Bytes that it says that it has.
    """
    said = f"answer has more than the {wanted:,} bytes that were wanted"
    return failed(url, said if told is None else f"{said}: {told:,}")


def unavailable(url: str, said: str, kind: str = "connection") -> StoreUnavailableError:
    """Say that the store of ``url`` did not answer as it should, and may do so later."""
    return StoreUnavailableError(printable(url), one_line(said), kind)


def advised(error: StoreUnavailableError, retry_after: object) -> StoreUnavailableError:
    """Add for how long the store asks to wait ("Retry-After", RFC 9110, section 10.2.3), where that is in seconds."""
    text = str(retry_after).strip()
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        return error
    return StoreUnavailableError(error.url, error.reason, error.kind, float(text))


def failed(url: str, said: str) -> StoreError:
    """Say what else went wrong."""
    return StoreError(printable(url), one_line(said))


def if_match(etag: str | None) -> str | None:
    """Return ``etag`` as If-Match has it, in quotes (RFC 9110, section 8.8.3), which S3 Inventory drops.

    None where a read cannot be pinned to it: a weak one never matches (section 13.1.1), and one of other characters
    than those that an ETag has would reach the server as something else. Such are compared with those of the answers.
    """
    quoted = etag if etag is None or etag.startswith(('"', "W/")) else f'"{etag}"'
    return quoted if quoted is not None and _ETAG.fullmatch(quoted) else None


def same_etag(one: str, other: str) -> bool:
    """Compare two ETags weakly (RFC 9110, section 8.8.3.2), quotes or not: S3 Inventory writes none."""
    return one.removeprefix("W/").strip('"') == other.removeprefix("W/").strip('"')


def fetched(asked: ObjectRef, span: ByteRange, data: bytes, answer: ObjectRef) -> Fetched:
    """Join the bytes to the object that they are of, having made sure that it is the one asked for.

    Parameters
    ----------
    asked : ObjectRef
    span : ByteRange
    data : bytes
        Body of the answer.
    answer : ObjectRef
        As the answer described the object; None where it did not tell.

    Raises
    ------
    ObjectChangedError
        ETag or size are told by both and differ.
    StoreUnavailableError
        Fewer bytes came than the object has in ``span``: the answer was cut short.
    StoreError
        More bytes came.
    """
    check_same(asked, answer)
    size = answer.size if answer.size is not None else asked.size
    wanted = len(span) if size is None else max(0, min(span.stop, size) - span.start)
    if len(data) > wanted:
        raise overlong(asked.url, wanted, len(data))
    if size is not None and len(data) < wanted:
        raise unavailable(asked.url, f"answer has {counted(len(data), 'byte')}, {wanted} were asked for", "short-body")
    return Fetched(
        data,
        ObjectRef(
            url=asked.url,
            size=size,
            etag=answer.etag if answer.etag is not None else asked.etag,
            version=answer.version if answer.version is not None else asked.version,
            last_modified=answer.last_modified if answer.last_modified is not None else asked.last_modified,
        ),
    )


def check_same(asked: ObjectRef, answer: ObjectRef) -> None:
    """Raise `ObjectChangedError` where ``answer`` describes another object than ``asked``."""
    if asked.etag is not None and answer.etag is not None and not same_etag(asked.etag, answer.etag):
        raise changed(asked.url)
    if asked.size is not None and answer.size is not None and asked.size != answer.size:
        raise changed(asked.url)
