"""What a web server answers, and what of an answer is believed. Pure: sends nothing.

A web server may be anybody's, so every part of an answer has a limit, and what contradicts itself is an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote, urljoin, urlsplit

from crawler.errors import UsageError
from crawler.stores.base import ByteRange
from crawler.stores.errors import failed, overlong
from crawler.stores.urls import WEB_SAFE, WEB_SCHEMES, one_line, printable, web_url

REDIRECTS = 10
"""Redirects that one request follows, at most."""

INTERIM_ANSWERS = 16
"""Interim answers (1xx, RFC 9110, section 15.2) before an answer, at most."""

HEAD_BYTES = 256 * 1024
"""Bytes of the status line and the headers of one answer, interim answers (1xx) included, at most."""

DRAINED_BYTES = 16 * 1024
"""Bytes of an unwanted body that are read, at most, so that the connection can be used again; else it is closed."""

UNREADABLE = "answer has headers that cannot be read: too long, too many, or not of HTTP"

# Status codes that name another URL for the same request (RFC 9110, section 15.4).
_MOVED = frozenset({301, 302, 303, 307, 308})
# Headers that an answer has once. Two values that differ leave open which one is meant (RFC 9110, section 5.3).
_SINGLE = frozenset({"content-length", "content-range", "content-type", "etag", "last-modified", "location"})
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, section 5.6.2
_PORTS = {"http": 80, "https": 443}
_LARGEST = 2**63 - 1


def user_headers(given: Mapping[Any, Any]) -> dict[str, str]:
    """Return the headers that a user gives.

    Raises
    ------
    UsageError
        One is not of a form that HTTP has (RFC 9110, section 5.5). It is not shown: it may be a secret.
    """
    headers = {str(name): str(value) for name, value in given.items()}
    for name, value in headers.items():
        if not _TOKEN.fullmatch(name) or any(char in "\r\n\0" or ord(char) > 255 for char in value):
            raise UsageError("the storage option headers holds a name or value that no HTTP header can have")
    return headers


class Headers(Mapping[str, str]):
    """Headers of an answer, found by name in upper or lower case; bytes outside ASCII are read as ISO-8859-1.

    Parameters
    ----------
    url : str
        For messages.
    pairs : iterable of (str, str)
        As they came.

    Raises
    ------
    StoreError
        A header that an answer has once is there with two values.
    """

    def __init__(self, url: str, pairs: Iterable[tuple[str, str]]) -> None:
        self._values: dict[str, str] = {}
        for given, value in pairs:
            name = given.lower()
            # A value that is folded over lines is one line (RFC 9112, section 5.2).
            text = " ".join(value.split()) if "\n" in value or "\r" in value else value.strip()
            if self._values.setdefault(name, text) != text and name in _SINGLE:
                raise failed(url, f"answer has two headers {one_line(given, limit=40)} that differ")

    def __getitem__(self, name: str) -> str:
        return self._values[name.lower()]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def length(self) -> int | None:
        """Value of Content-Length; None where it is not there, or no number."""
        return number(self.get("Content-Length"))


class Request(NamedTuple):
    """One request, which is sent once.

    Attributes
    ----------
    method, url : str
    headers : Mapping[str, str]
        All that are sent but those that HTTP itself needs.
    private : bool
        The URL is of the origin that the user named: credentials of the user may be sent there.
    first : bool
        No redirect led to the URL.
    wanted : Callable[[int], int]
        Given the status, returns how many bytes of the body are wanted; 0 for none. A longer body is an error, and is
        not read to its end.
    deadline : float
        When the request is given up, on the clock of `time.monotonic`.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    private: bool
    first: bool
    wanted: Callable[[int], int]
    deadline: float


class Answer(NamedTuple):
    """What a server answered. ``body`` is empty where it was not wanted."""

    status: int
    headers: Headers
    url: str
    body: bytes


class Transport(Protocol):
    """Sends requests over connections that it keeps. Safe to use from many threads."""

    @property
    def user_headers(self) -> Mapping[str, str]:
        """Headers that the user gave."""
        ...

    @property
    def has_credentials(self) -> bool:
        """Whether the user gave headers, or anything else that not every server may see."""
        ...

    @property
    def total_seconds(self) -> float:
        """Seconds that a request may take, redirects included."""
        ...

    def send(self, request: Request) -> Answer:
        """Send one request, and follow no redirect.

        Raises
        ------
        StoreError
            There is no answer, or its body is longer than wanted.
        """
        ...


def check_length(url: str, headers: Headers, wanted: int) -> None:
    """Raise `StoreError` where an answer says that its body is longer than wanted."""
    if headers.length is not None and headers.length > wanted:
        raise overlong(url, wanted, headers.length)


def origin(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of an http URL (RFC 9110, section 4.3.1).

    Raises
    ------
    ValueError
        It has none of its own.
    """
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if scheme not in WEB_SCHEMES or not parts.hostname:
        raise ValueError(url)
    return scheme, parts.hostname, parts.port or _PORTS[scheme]


def redirected(asked: str, answer: Answer) -> str | None:
    """Return the URL that an answer names in its place; None where it names none.

    Parameters
    ----------
    asked : str
        What was asked for first, for messages.
    answer : Answer

    Raises
    ------
    StoreError
        The URL is not of the web.
    """
    location = answer.headers.get("Location")
    if answer.status not in _MOVED or not location:
        return None
    try:
        # Bytes that no URL may hold are encoded one by one: many servers send paths as raw UTF-8.
        url = web_url(urljoin(answer.url, quote(location.strip().encode("latin-1"), safe=WEB_SAFE + "?#")))
        origin(url)
        parts = urlsplit(url)
        # A user that the other server names is nobody that the user of this program is.
        url = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl() if "@" in parts.netloc else url
    except ValueError:
        raise failed(asked, f"redirects to {printable(location)}, which is not followed") from None
    return url


def check_range(url: str, value: str | None, kind: str | None, span: ByteRange) -> int | None:
    """Return the size of the whole object, where a partial answer (206) tells it.

    An answer that ends before the range does is no error here: `crawler.stores.errors.fetched` knows what was
    wanted.

    Parameters
    ----------
    url : str
    value, kind : str or None
        Content-Range and Content-Type of the answer.
    span : ByteRange

    Raises
    ------
    StoreError
        The answer is not of the range that was asked for, or does not say of which it is.
    """
    if value is None:
        kind = one_line((kind or "").partition(";")[0], limit=40) or "no"
        raise failed(url, f"answer does not say which bytes it holds ({kind} Content-Type)")
    unit, _, rest = value.partition(" ")
    bounds, slash, whole = rest.partition("/")
    first, dash, last = bounds.partition("-")
    start, end, size = number(first), number(last), number(whole)
    told = unit.lower() == "bytes" and slash and dash and (size is not None or whole.strip() == "*")
    if not told or start is None or end is None or end < start or (size is not None and end >= size):
        raise failed(url, f"answer has a Content-Range that cannot be read: {one_line(value, limit=80)}")
    if start != span.start or end >= span.stop:
        raise failed(url, f"answer has bytes {start} to {end}, asked for were {span.start} to {span.stop - 1}")
    return size


def unsatisfied_size(headers: Headers) -> int | None:
    """Return the size of the whole object that an answer 416 tells, ``bytes */100`` (RFC 9110, section 15.5.17)."""
    return number(headers.get("Content-Range", "").rpartition("/")[2])


def number(text: str | None) -> int | None:
    """Return a number of bytes as a header has it; None where it is none, or one that no object can have."""
    text = (text or "").strip()
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(_LARGEST))):
        return None
    return value if (value := int(text)) <= _LARGEST else None
