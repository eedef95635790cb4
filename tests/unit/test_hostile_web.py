"""Values of web servers that mean nothing: each is unknown, a row or one clear line, and ends no crawl."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from crawler.stores import Adapter
from tests.hostile import GOOD, HEADERS, MODIFIED, described, indexed
from tests.servers import Content, RangeHandler, RangeServer, etag_of


class SaidHandler(RangeHandler):
    """Adds headers to answers, by decoded path, and answers some paths with a page."""

    def answer(self) -> None:
        page = self.server.owner.pages.get(self.path.removeprefix("/"))
        if page is None:
            super().answer()
        else:
            body, kind = page
            self.send(200, body, {"Content-Type": kind})

    def send(self, status: int, body: Content, headers: Any, length: int | None = None) -> None:
        said = self.server.owner.said.get(self.path.removeprefix("/"), {})
        super().send(status, body, {**headers, **said}, length)


class SaidServer(RangeServer):
    """Serves what a `RangeServer` does, with ``pages`` and the headers of ``said`` in place of its own, by path."""

    handler = SaidHandler

    def __init__(self, objects: Any) -> None:
        super().__init__(objects)
        self.said: dict[str, dict[str, str]] = {}
        self.pages: dict[str, tuple[bytes, str]] = {}


# What an index page has before the links to two good objects, and how many more objects are listed.
LINK = '<a href="{}">x</a>'
PAGES: dict[str, tuple[bytes, int]] = {
    "data": (LINK.format("data:text/html,<a href=x.fits>").encode(), 0),
    "javascript": (LINK.format("javascript:alert(1)//.fits").encode(), 0),
    "bracket": (LINK.format("http://[/a.fits").encode(), 0),
    "port": (LINK.format("http://127.0.0.1:99999999/a.fits").encode(), 0),
    "surrogate": (LINK.format("&#xD800;.fits").encode(), 1),
    "surrogate-bytes": (LINK.format("\udced\udca0\udc80.fits").encode(errors="surrogateescape"), 1),
    "nul": (LINK.format("a\0b.fits").encode(), 1),
    "nul-encoded": (LINK.format("a%00b.fits").encode(), 1),
    "newline": (LINK.format("a\nb\tc.fits").encode(), 1),
    "percent": (LINK.format("%zz%.fits").encode(), 1),
    "latin-1": (LINK.format("caf\xe9.fits").encode("latin-1"), 1),
    "long": (LINK.format("x" * 100_000 + ".fits").encode(), 1),
    "entity": (LINK.format("&#99999999999999999999;&nosuch;.fits").encode(), 1),
    "empty": (b"<a href><a href=><a href=''><a>", 0),
    "above": (LINK.format("../a.fits").encode() + LINK.format("//other.invalid/a.fits").encode(), 0),
    "many": (b"".join(LINK.format(f"?{number}").encode() for number in range(3_000)), 0),
    "comment": (b"<!-- " + LINK.format("x.fits").encode() + b" -->", 0),
    "script": (b"<script>'" + LINK.format("x.fits").encode() + b"'</script>", 0),
    "nested": (b"<b>" * 100_000, 0),
    "declarations": (b"<![ <!x <? </ < <!- <>" * 5_000, 0),
    "unclosed": (b"<a <a <a x='" * 5_000 + b"'>", 0),
    "unclosed-links": (b'<a href="' * 20_000 + b'">', 1),
}
CHARSETS = (
    "utf-7",
    "idna",
    "rot13",
    "zlib",
    "undefined",
    "punycode",
    "unicode_escape",
    "mbcs",
    "x" * 1_000,
    "\xff",
    "",
)


@pytest.mark.parametrize("store", ["obstore", "fsspec"])
def test_header_without_meaning_is_unknown(tmp_path: Path, store: Adapter) -> None:
    with SaidServer({f"{name}.fits": GOOD for name in ("good", *HEADERS)}) as server:
        server.said = {f"{name}.fits": said for name, (said, _, _) in HEADERS.items()}
        rows = indexed(tmp_path, server.origin + "/", store=store)
    assert described(rows) == {
        "good": ("ok", None, len(GOOD), etag_of(GOOD), MODIFIED),
        **{
            name: ("ok", None, len(GOOD), etag_of(GOOD) if etag == "own" else etag, modified)
            for name, (_, etag, modified) in HEADERS.items()
        },
    }
    assert all(row["pinned"] == (row["etag"] is not None) for row in rows.values())


def test_links_of_an_index_are_rows(tmp_path: Path) -> None:
    """Each page is the index of a folder with two good objects."""
    with SaidServer({f"{name}/{good}.fits": GOOD for name in PAGES for good in ("good", "deep/good")}) as server:
        for name, (before, _) in PAGES.items():
            good = (LINK.format("good.fits") + LINK.format("deep/good.fits")).encode()
            server.pages[f"{name}/"] = before + good, "text/html"
        rows = indexed(tmp_path, *[f"{server.origin}/{name}/" for name in PAGES], include=["*"])
    found: dict[str, Counter[str]] = {name: Counter() for name in PAGES}
    for url, row in rows.items():
        found[url.removeprefix(server.origin).split("/")[1]][row["status"]] += 1
    assert found == {name: Counter(ok=2) + Counter(unreadable=others) for name, (_, others) in PAGES.items()}


def test_charset_that_is_none_is_utf_8(tmp_path: Path) -> None:
    with SaidServer({f"{number}/good.fits": GOOD for number in range(len(CHARSETS))}) as server:
        for number, charset in enumerate(CHARSETS):
            page = b"\xff" + LINK.format("good.fits").encode()
            server.pages[f"{number}/"] = page, f"text/html; charset={charset}"
        rows = indexed(tmp_path, server.origin + "/")
    assert [row["status"] for row in rows.values()] == ["ok"] * len(CHARSETS)
