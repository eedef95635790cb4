"""Links of an HTML folder index. Pure: bytes in, URLs out.

Tags are found as the HTML Standard has a browser do it (section 13.2.5, "Tokenization"), in one pass. `html.parser` of
Python 3.11 takes a minute for 40 kB of tags that do not end, and four times that for twice as many.
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
# Encodings of the Encoding Standard, as Python names them. Python knows other codecs, which are no encodings of pages:
# some never end (punycode), others fail for every page (idna, undefined).
_ENCODING = re.compile(
    r"utf-?8|utf-?16([lb]e)?|us-ascii|iso-?8859-?[0-9]{1,2}|latin-?1|windows-125[0-8]|windows-874|koi8-[ru]|macintosh"
    r"|gbk|gb2312|gb18030|big5|euc-jp|euc-kr|iso-2022-jp|shift[_-]jis",
    re.IGNORECASE,
)
_SPACE, _NAME = r"[\x20\t\n\f\r]", r"[^\x20\t\n\f\r/>]"
_TAG = re.compile(r"<(?:(?P<comment>!--)|(?P<name>[a-z][^ \t\n\f\r/>]*))", re.IGNORECASE)
# One attribute, or the end of the tag. A value whose quote is not closed goes on to the end of the page.
_ATTRIBUTE = re.compile(
    rf"""[\x20\t\n\f\r/]* (?: (?P<end> >) | (?P<name> {_NAME} [^\x20\t\n\f\r/>=]*) (?: {_SPACE}* = {_SPACE}*
    (?: "(?P<double>[^"]*)(?:"|\Z) | '(?P<single>[^']*)(?:'|\Z) | (?P<bare>[^\x20\t\n\f\r>]+) | (?=>) ) )? )""",
    re.VERBOSE,
)
# What these elements hold is text, whatever it looks like.
_TEXT_ENDS = {name: re.compile(f"</{name}", re.IGNORECASE) for name in ("script", "style", "textarea", "title")}


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
    found = {_resolved(href, page) for href in dict.fromkeys(_hrefs(text))}
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
    # Compared decoded, since servers write the same path as /~me/ here and /%7Eme/ there; written as the root is.
    depth = root.path.count("/")
    above, rest = link.path.split("/")[:depth], "/".join(link.path.split("/")[depth:])
    if _decoded("/".join(above) + "/") != _decoded(root.path) or _decoded(link.path) == _decoded(base.path) or not rest:
        return None
    if rest.endswith("/") and link.query:
        return None
    return page.root + rest + ("?" + link.query if link.query else "")


def _decoded(path: str) -> str:
    return unquote(path, errors="surrogateescape")


def _hrefs(text: str) -> Iterator[str]:
    """Yield the target of every ``<a href>``, entities decoded."""
    at = 0
    comments_end = True
    while (tag := _TAG.search(text, at)) is not None:
        at = tag.end()
        if tag["comment"]:
            end = text.find("-->", at - 2) if comments_end else -1  # "<!-->" is a whole comment
            comments_end = end >= 0
            at = max(at, end)  # what begins a comment that does not end is text
            continue
        name, target = tag["name"].lower(), None
        while (attribute := _ATTRIBUTE.match(text, at)) is not None and attribute["end"] is None:
            at = attribute.end()
            if target is None and attribute["name"].lower() == "href":  # the first of several counts
                target = attribute["double"] or attribute["single"] or attribute["bare"] or ""
        if attribute is None:  # a tag that does not end is none
            return
        at = attribute.end()
        if name == "a" and target:
            yield _unescaped(target)
        elif name in _TEXT_ENDS:
            text_end = _TEXT_ENDS[name].search(text, at)
            if text_end is None:
                return
            at = text_end.start()


def _unescaped(text: str) -> str:
    try:
        return unescape(text)
    except ValueError:  # a character reference of thousands of digits
        return text
