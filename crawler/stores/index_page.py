"""Links of an HTML folder index. Pure: bytes in, URLs out."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

from crawler.stores.urls import web_url

_CHARSET = re.compile(r"charset=[\"']?([\w\-]+)", re.IGNORECASE)


class Page(NamedTuple):
    """A folder index as a server sent it.

    Attributes
    ----------
    base : str
        URL that the page was found at, with a slash at its end: relative links start here.
    root : str
        URL of the outermost folder of the listing, with a slash at its end.
    body : bytes
    content_type : str
        Header of that name.
    """

    base: str
    root: str
    body: bytes
    content_type: str


def parse_page(page: Page) -> list[str]:
    """Return the URLs below ``page.root`` that the page links to, each once, sorted.

    Folders end in a slash. Percent-encoding is that of the link. Left out: the folder itself and what is
    above it, other servers, folders with a query string (Apache's ``?C=M;O=A`` sorts), fragments.
    """
    links = _Links()
    links.feed(page.body.decode(_encoding(page.content_type), errors="replace"))
    links.close()
    found = {_resolved(href, page) for href in links.hrefs}
    return sorted(url for url in found if url is not None)


def _encoding(content_type: str) -> str:
    match = _CHARSET.search(content_type)
    encoding = match[1] if match else "utf-8"
    try:
        "".encode(encoding)
    except LookupError:
        return "utf-8"
    return encoding


def _resolved(href: str, page: Page) -> str | None:
    try:
        url = web_url(urljoin(page.base, href.strip()))
        link, root, base = urlsplit(url), urlsplit(page.root), urlsplit(page.base)
    except ValueError:  # a link such as "http://[": not ours
        return None
    if (link.scheme, link.netloc) != (root.scheme, root.netloc):
        return None
    # Compared decoded, since servers write the same path as /~me/ here and /%7Eme/ there.
    path = unquote(link.path, errors="surrogateescape")
    if path in (_decoded(base.path), _decoded(root.path)) or not path.startswith(_decoded(root.path)):
        return None
    return None if link.path.endswith("/") and link.query else url


def _decoded(path: str) -> str:
    return unquote(path, errors="surrogateescape")


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.hrefs: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the target of every ``<a href>``, entities decoded."""
        if tag == "a":
            self.hrefs.extend(value for name, value in attrs if name == "href" and value)
