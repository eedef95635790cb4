"""Folder indexes as bytes: which links a page has, whatever else it holds."""

from __future__ import annotations

import time

import pytest

from crawler.stores.http.index_page import Page, parse_page

ROOT = "http://host/top/"


def links(body: bytes, content_type: str = "text/html; charset=utf-8", root: str = ROOT) -> list[str]:
    return [url.removeprefix(root) for url in parse_page(Page(root, root, body, content_type))]


@pytest.mark.parametrize(
    ("body", "found"),
    [
        pytest.param('<a href="a.fits">', ["a.fits"], id="double-quotes"),
        pytest.param("<a href='a.fits'>", ["a.fits"], id="single-quotes"),
        pytest.param("<a href=a.fits>", ["a.fits"], id="no-quotes"),
        pytest.param("<A\nCLASS=x HREF\n=\n'a.fits'/>", ["a.fits"], id="spaces-and-capitals"),
        pytest.param('<a href="a&amp;b.fits">', ["a&b.fits"], id="entity"),
        pytest.param('<a href="first" href="second">', ["first"], id="twice"),
        pytest.param('<a href><a href=""><a name="x">', [], id="no-target"),
        pytest.param('<img alt="<a href=no>"><a href="a.fits">', ["a.fits"], id="tag-in-a-value"),
        pytest.param("<abbr href=no><b><a href=a.fits>", ["a.fits"], id="other-tags"),
        pytest.param("<!-- <a href=no> --><a href=a.fits>", ["a.fits"], id="comment"),
        pytest.param("<!--><a href=a.fits>", ["a.fits"], id="empty-comment"),
        pytest.param("<!-- <a href=a.fits>", ["a.fits"], id="comment-without-end"),
        pytest.param("<script>'<a href=no>'</script><a href=a.fits>", ["a.fits"], id="script"),
        pytest.param("<style><a href=no></STYLE ><a href=a.fits>", ["a.fits"], id="style"),
        pytest.param("<a href=a.fits><a href=no", ["a.fits"], id="tag-without-end"),
        pytest.param("1 < 2 <3> </a> <a href=a.fits>", ["a.fits"], id="no-tags"),
        pytest.param('<a href="&#' + "9" * 5000 + ';">', ["&"], id="endless-number"),
    ],
)
def test_links_are_those_of_a_browser(body: str, found: list[str]) -> None:
    assert links(body.encode()) == found


@pytest.mark.parametrize(
    "charset", ["idna", "punycode", "undefined", "unicode_escape", "rot13", "hex", "no-such", "utf-16", "latin-1"]
)
def test_any_charset_is_read(charset: str) -> None:
    links(b"<a href=a\xff.fits>" * 2, f"text/html; charset={charset}")


def test_charset_is_heeded() -> None:
    assert links("<a href='é.fits'>".encode("latin-1"), "text/html; charset=latin-1") == ["%C3%A9.fits"]


@pytest.mark.parametrize(
    ("root", "href", "found"),
    [
        ("http://host/~me/", "/%7Eme/a.fits", ["a.fits"]),
        ("http://host/%7Eme/", "/~me/a/", ["a/"]),
        ("http://host/a%20b/", "/a%20b/%7e.fits", ["%7e.fits"]),
        ("http://host/a/b/", "/a%2Fb/c.fits", []),
        ("http://host/", "/a%2Fb/c.fits", ["a%2Fb/c.fits"]),
        ("http://host/a/", "/ab/c.fits", []),
    ],
)
def test_links_are_written_as_the_root_is(root: str, href: str, found: list[str]) -> None:
    assert links(f"<a href='{href}'>".encode(), root=root) == found


@pytest.mark.parametrize(
    "piece", [b"<a ", b"<a href=x b", b"<a href='", b'<a x="', b"<!--", b"<?", b"</", b"<a =", b"<a x   ", b"<title>"]
)
def test_page_of_broken_tags_takes_no_longer_than_its_size_asks_for(piece: bytes) -> None:
    begun = time.monotonic()
    links(piece * (400_000 // len(piece)))
    assert time.monotonic() - begun < 20  # half a second; html.parser took minutes for a tenth of it
