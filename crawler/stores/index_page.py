"""Links of an HTML folder index. Pure: bytes in, URLs out.

Not html.parser, which takes minutes for 200 kB of unclosed tags, and raises `AssertionError` for others. This reads any
page once from its begin to its end, in the way of "Tokenization" in the HTML Standard, as far as links need it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from html import unescape
from typing import NamedTuple
from urllib.parse import unquote, urljoin, urlsplit

from crawler.stores.urls import web_url

_CHARSET = re.compile(r"charset=[\"']?([\w\-]+)", re.IGNORECASE)
# Encodings of the Encoding Standard, as Python names them. Python knows others that are no encodings of pages, some of
# which take for ever (punycode) or fail for any page (idna, undefined).
_ENCODING = re.compile(
    r"utf-?8|utf-?16([lb]e)?|us-ascii|iso-?8859-?[0-9]{1,2}|latin-?1|windows-125[0-8]|windows-874|koi8-[ru]|macintosh"
    r"|gbk|gb2312|gb18030|big5|euc-jp|euc-kr|iso-2022-jp|shift[_-]jis",
    re.IGNORECASE,
)
_TAG = re.compile(r"</?([A-Za-z][^\s/>]*+)")
# The end of a tag, or an attribute: its name, and its value in one of three forms. No part is given back once matched,
# and only the last quotation mark of a page can lack its partner: so the time is that of one pass.
_ATTRIBUTE = re.compile(
    r"""[\s/]*+(?:(>)|([^\s/>][^\s/>=]*+)(?:\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s"'>][^\s>]*+))?+)?+)"""
)
_ENDS = {name: re.compile(f"</{name}", re.IGNORECASE) for name in ("script", "style")}


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
    text = page.body.decode(_encoding(page.content_type), errors="replace")
    found = {_resolved(href, page) for href in _hrefs(text)}
    return sorted(url for url in found if url is not None)


def _encoding(content_type: str) -> str:
    match = _CHARSET.search(content_type)
    try:
        return codecs.lookup(match[1]).name if match and _ENCODING.fullmatch(match[1]) else "utf-8"
    except LookupError:
        return "utf-8"


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


def _hrefs(text: str) -> Iterator[str]:
    """Yield the target of every ``<a href>``, entities decoded; none of those in comments and scripts."""
    at = 0
    while (at := text.find("<", at)) >= 0:
        if text.startswith("<!--", at):
            at = text.find("-->", at)
            if at < 0:
                return
            continue
        tag = _TAG.match(text, at)
        if tag is None:
            at += 1
            continue
        name, href, at = tag[1].lower(), None, tag.end()
        while (attribute := _ATTRIBUTE.match(text, at)) is not None:
            at = attribute.end()
            if attribute[1]:
                break
            if href is None and attribute[2].lower() == "href":
                href = attribute[3] or attribute[4] or attribute[5] or ""
        if attribute is None:  # the page ends within a tag
            return
        if name == "a" and href and not tag[0].startswith("</"):
            yield unescape(href)
        if name in _ENDS and not tag[0].startswith("</"):
            end = _ENDS[name].search(text, at)
            if end is None:
                return
            at = end.start()
