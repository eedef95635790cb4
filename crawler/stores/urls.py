"""URLs as the catalogue writes them: made from what users type, taken apart, and made safe to print.

Pure: looks at no store. Keys of ``file`` and ``http(s)`` URLs are percent-encoded, all others are raw.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, quote_from_bytes, unquote, unquote_plus, unquote_to_bytes, urlsplit

from crawler.errors import UsageError

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
_PASSWORD = re.compile(r"(?<=://)[^/?#@]*:[^/?#@]*@")
_WEB_USER = re.compile(r"(?<=://)[^/?#]*@")
WEB_SAFE = "!$&'()*+,;=:@-._~/%[]"
"""Characters that may stand unencoded in a path or query (RFC 3986, section 3.3 and 3.4), '%' and the brackets that
servers write raw included: whatever is already encoded must be left exactly as it is."""

# GitHub's URLs look as if they had a password, github://organisation:repository@branch/path, but have none.
_NO_PASSWORD = frozenset({"github"})


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
        Empty, or a URL with a password, or on the web a user: every URL of a crawl is written to the catalogue, where
        none may stand.
    """
    if not root:
        raise UsageError("an empty string is neither a path nor a URL")
    scheme = scheme_of(root)
    if not scheme:
        return _url_of_typed_path(root)
    if scheme == "file":
        return file_url(file_path(root))
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
    expanded = Path(path).expanduser()
    absolute = expanded.resolve() if ".." in expanded.parts else expanded.absolute()
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
