"""URLs as the catalogue writes them: made from what users type, taken apart, and made safe to print.

Pure: looks at no store. Keys of ``file`` and ``http(s)`` URLs are percent-encoded, all others are raw.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote, quote_from_bytes, unquote, unquote_plus, unquote_to_bytes, urlsplit

from crawler.errors import UsageError

PathOrUrl = str | os.PathLike[str]
"""What public calls take for a file, a folder or a URL."""

WEB_SCHEMES = frozenset({"http", "https"})
ENCODED_SCHEMES = WEB_SCHEMES | {"file"}
"""Schemes whose URLs are percent-encoded."""

S3_SCHEMES = frozenset({"s3", "s3a", "s3n"})
"""S3, and the names that Hadoop has for it."""

# Amazon's own addresses of S3 ("Methods for accessing a general purpose bucket", "Amazon S3 dual-stack endpoints",
# Amazon S3 User Guide), with the bucket before them or in the path. Not those of China, which another partition of
# AWS serves: s3:// could not tell.
_S3_HOST = re.compile(
    r"(?:(?P<bucket>[a-z0-9][a-z0-9.\-]*)\.)?s3(?:-fips)?"
    r"(?:[.-](?:dualstack\.)?[a-z]{2}(?:-[a-z]+)+-[0-9]|-external-1|-accelerate(?:\.dualstack)?)?"
    r"\.amazonaws\.com(?::80|:443)?",
    re.IGNORECASE,
)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://|(file):/", re.IGNORECASE)
_SHORTENED_URL = re.compile(r"(?!file:)[A-Za-z][A-Za-z0-9+.\-]+:/[^/]", re.IGNORECASE)
"""A URL after `pathlib.Path` has dropped one of its slashes. Without the second, a file URL still is one."""
_PASSWORD = re.compile(r"(?<=://)[^/?#@]*:[^/?#@]*@")
_WEB_USER = re.compile(r"(?<=://)[^/?#]*@")
WEB_SAFE = "!$&'()*+,;=:@-._~/%[]"
"""Characters that may stand unencoded in a path or query (RFC 3986, section 3.3 and 3.4), '%' and the brackets that
servers write raw included: whatever is already encoded must be left exactly as it is."""

# GitHub's URLs look as if they had a password, github://organisation:repository@branch/path, but have none.
_NO_PASSWORD = frozenset({"github"})


def text_of(place: PathOrUrl) -> str:
    """Return a path or URL as the text that a user would type.

    Parameters
    ----------
    place : str or os.PathLike
        A `pathlib.Path` is always a path: one that begins with ``@`` is no key file.

    Raises
    ------
    UsageError
        Neither text nor a path, or a `pathlib.Path` that was made of a URL.
    """
    if isinstance(place, str):
        return place
    try:
        path = os.fsdecode(place)
    except TypeError:
        raise UsageError(f"a path or URL is expected, not {type(place).__name__}") from None
    if _SHORTENED_URL.match(path):
        raise UsageError(f"pathlib.Path drops a slash of URLs, as in {printable(path)}: give the URL as a string")
    return f"./{path}" if path.startswith("@") else path


def texts_of(places: PathOrUrl | Iterable[PathOrUrl]) -> tuple[str, ...]:
    """Return one path or URL, or several, as the texts that a user would type."""
    if isinstance(places, str | bytes | os.PathLike) or not isinstance(places, Iterable):
        return (text_of(places),)
    return tuple(text_of(place) for place in places)


def scheme_of(url: str) -> str:
    """Return the scheme of ``url`` in lower case, or ``''`` where it is a plain path."""
    match = _SCHEME.match(url)
    return (match[1] or match[2]).lower() if match else ""


def as_url(root: str) -> str:
    """Turn what a user typed into the URL that the catalogue writes.

    Parameters
    ----------
    root : str
        A URL of any scheme, or a local path: absolute, relative to the working folder, or with ``~``.

    Returns
    -------
    str
        Percent-encoded for ``file`` and ``http(s)``: encoding that is there already is kept, in the form
        that it has; only characters that no URL may hold are encoded, and a fragment is dropped. As it is
        for all others. Amazon's web addresses of S3, ``s3a`` and ``s3n`` become ``s3``, unless they have a query
        string: a signed URL is read as it stands.

    Raises
    ------
    UsageError
        Empty, or no URL; or a URL with a password, or on the web a user: every URL of a crawl is written to the
        catalogue, where none may stand.
    """
    if not root:
        raise UsageError("an empty string is neither a path nor a URL")
    try:
        return _url_of(root)
    except UnicodeError:
        raise UsageError(f"not UTF-8: {printable(root)}") from None
    except ValueError:  # of urllib, as for "http://["
        raise UsageError(f"is not a URL: {printable(root)}") from None


def _url_of(root: str) -> str:
    scheme = scheme_of(root)
    if not scheme:
        return _url_of_typed_path(root)
    if scheme == "file":
        return file_url(file_path(root))
    root.encode()  # a UnicodeError, where the catalogue could not hold it
    url = scheme + root[len(scheme) :]
    named = scheme in WEB_SCHEMES and "@" in url.partition("://")[2].partition("/")[0]
    if named or (scheme not in _NO_PASSWORD and _PASSWORD.search(url)):
        raise UsageError(
            f"{printable(url)} holds a user or password, which would be written to the catalogue: "
            "give it as a storage option instead"
        )
    if scheme in S3_SCHEMES:
        return "s3" + url[len(scheme) :]
    if scheme not in WEB_SCHEMES:
        return url
    if (of_s3 := _s3_url(url)) is not None:
        return of_s3
    url = web_url(url)
    parts = urlsplit(url)
    # The path of an origin alone is "/" (RFC 9110, section 4.2.3).
    return url if parts.path else parts._replace(path="/").geturl()


def _s3_url(url: str) -> str | None:
    """Return the ``s3`` URL of what one of Amazon's web addresses names, or None where it is none.

    The region that it names is lost: the catalogue's URL has no place for it. The store finds it out again.
    """
    parts = urlsplit(url)
    host = _S3_HOST.fullmatch(parts.netloc)
    if host is None or parts.query or "?" in url:
        return None
    # In a path, too, S3 takes a plus for a blank; a plus is %2B.
    path = unquote_plus(parts.path.removeprefix("/"), errors="surrogateescape")
    found = f"{host['bucket']}/{path}" if host["bucket"] else path
    if found.startswith("/") or not found or any("\udc80" <= char <= "\udcff" for char in found):
        return None
    return f"s3://{found}"


def _url_of_typed_path(path: str) -> str:
    # `..` after a symbolic link means the parent of what is linked to: only resolving knows it. Otherwise
    # links stay as typed, so that the catalogue names files as the user does.
    try:
        expanded = Path(path).expanduser()
        absolute = expanded.resolve() if ".." in expanded.parts else expanded.absolute()
    except RuntimeError as error:  # nobody of this name has a home, or links lead in a circle
        raise UsageError(f"{one_line(str(error))}: {printable(path)}") from None
    return file_url(str(absolute))


def web_url(url: str) -> str:
    """Encode what may not stand in an http URL (spaces, non-ASCII), leave the rest, drop the fragment."""
    address, question, query = url.partition("#")[0].partition("?")
    return quote(address, safe=WEB_SAFE) + question + quote(query, safe=WEB_SAFE + "?")


def file_url(path: str) -> str:
    """Return the ``file`` URL of an absolute path, as `pathlib.PurePath.as_uri` does, any bytes included."""
    return "file://" + quote_from_bytes(os.fsencode(path))


def file_path(url: str) -> str:
    """Return the path of a ``file`` URL, bytes that are no UTF-8 as `os.fsdecode` has them.

    Lenient: a ``#`` or ``?`` that should have been encoded is part of the path, since no file URL has a
    query.
    """
    rest = url[len("file:") :]
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host.lower() not in {"", "localhost"}:
            raise UsageError(f"{printable(url)} names another computer: a file URL begins with file:///")
        rest = slash + path
    return os.fsdecode(unquote_to_bytes(os.fsencode(rest))) or "/"


def below(folder: str) -> str:
    """Return the prefix that the URLs of all objects below ``folder`` have: one slash at its end."""
    return folder if folder.endswith("/") else folder + "/"


def readable(url: str, text: str) -> str:
    """Decode ``text``, a part of ``url``, to the name that a person would give it."""
    return unquote(text, errors="surrogateescape") if "%" in text and scheme_of(url) in ENCODED_SCHEMES else text


def printable(url: str) -> str:
    """Return ``url`` for a message: one line, without user name, password or (http) query string."""
    scheme = scheme_of(url)
    if scheme in WEB_SCHEMES:
        url = _WEB_USER.sub("", url.partition("#")[0], count=1)
        address, question, _ = url.partition("?")
        url = address + ("?..." if question else "")
    elif scheme not in _NO_PASSWORD:
        url = _PASSWORD.sub("", url, count=1)
    return one_line(url, limit=2000)


def one_line(text: str, *, limit: int = 200) -> str:
    """Return ``text`` fit for one line of any terminal: control characters and lone surrogates escaped."""
    text = "".join(c if c.isprintable() else _escaped(c) for c in text)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _escaped(char: str) -> str:
    return " " if char.isspace() and char not in "\r\n\t\v\f" else char.encode("unicode_escape").decode("ascii")
