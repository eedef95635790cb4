"""Values that no honest lister, server or file system says: each becomes a row or one clear line, and ends no crawl."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

import fsspec
import fsspec.spec
import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import crawler
from crawler.catalogue.folder import open_folder
from crawler.catalogue.fragments import new_batch, read_fragment, write_fragment
from crawler.catalogue.reader import Catalogue
from crawler.catalogue.schema import TABLES
from crawler.errors import ListingError
from crawler.fits.layouts import product_of
from crawler.fits.units import Hdu
from crawler.listing import list_roots
from crawler.stores import Adapter, ObjectRef, open_store
from crawler.stores.values import describe, writable
from crawler.worker import partition as crawl
from crawler.worker.tables import tables_of
from crawler.worker.walk import FileResult, walk_steps
from tests.conftest import sibling
from tests.s3.bucket_server import BucketServer
from tests.servers import Content, RangeHandler, RangeServer, etag_of

GOOD = sibling(0)
MODIFIED = datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)


def indexed(tmp_path: Path, *roots: str, **more: Any) -> dict[str, dict[str, Any]]:
    """Crawl, and return the rows of the table ``files`` by URL, read back in every way that there is."""
    catalogue = str(tmp_path / f"catalogue-{uuid.uuid4().hex[:8]}")
    crawler.index(roots, catalogue, **more)
    return read_back(catalogue)


def read_back(catalogue: str) -> dict[str, dict[str, Any]]:
    opened = Catalogue(catalogue)
    rows: list[dict[str, Any]] = opened.files.to_table().sort_by("url").to_pylist()
    urls = pa.array([row["url"] for row in rows])
    assert opened.rows_of(urls, TABLES["files"].names).sort_by("url").to_pylist() == rows
    for table in TABLES:
        by_sql = opened.sql(f"SELECT * FROM {table}")
        assert by_sql.num_rows == getattr(opened, table).count_rows()
        assert len(by_sql.to_pylist()) == by_sql.num_rows
    assert len({row["url"] for row in rows}) == len(rows)
    assert all(row["error"] is None or row["error"].isprintable() for row in rows)
    assert not [row for row in rows if row["status"] == "crashed"]
    return {row["url"]: row for row in rows}


def listing_error(tmp_path: Path, *roots: str, **more: Any) -> str:
    """Crawl roots that cannot be listed, and return why."""
    with pytest.raises(ListingError) as caught:
        indexed(tmp_path, *roots, **more)
    assert str(caught.value).isprintable()
    return str(caught.value)


class TestLocal:
    @pytest.fixture
    def any_time(self) -> Iterator[Path]:
        """Return a folder on a file system that keeps all 64 bits of a time, as ext4 does not."""
        if not Path("/dev/shm").is_dir():
            pytest.skip("no tmpfs at /dev/shm")
        folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
        yield folder
        shutil.rmtree(folder)

    @pytest.mark.parametrize("store", ["auto", "obstore", "fsspec"])
    def test_modification_time_out_of_range_is_unknown(self, any_time: Path, tmp_path: Path, store: Adapter) -> None:
        seconds = {
            "beyond-9999": 253_402_300_800,
            "beyond-int64-of-microseconds": 10**13,
            "before-1": -62_135_596_801,
            "far-before-1": -(10**13),
            "last": 253_402_300_799,
            "first": -62_135_596_800,
            "negative": -1,
            "good": 1_700_000_000,
        }
        for name, moment in seconds.items():
            path = any_time / f"{name}.fits"
            path.write_bytes(GOOD)
            os.utime(path, (moment, moment))
            assert path.stat().st_mtime == moment
        rows = indexed(tmp_path, str(any_time), store=store)
        found = {url.rpartition("/")[2].removesuffix(".fits"): row for url, row in rows.items()}
        assert {row["status"] for row in rows.values()} == {"ok"}
        assert {name for name, row in found.items() if row["last_modified"] is not None} == {
            "last",
            "first",
            "negative",
            "good",
        }
        assert found["last"]["last_modified"] == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
        assert found["first"]["last_modified"] == datetime(1, 1, 1, tzinfo=UTC)
        if store == "auto":
            assert all(row["pinned"] for row in rows.values())

    def test_odd_names_are_rows(self, tmp_path: Path) -> None:
        folder = tmp_path / "files"
        folder.mkdir()
        names = [b"\xff\xfe", b"new\nline", b"%00", b"%", b" ", b"a\\b", b"::", b"s3:", b"#1", b"\x7f\x01", b"x" * 250]
        for name in names:
            Path(os.fsdecode(bytes(folder) + b"/" + name + b".fits")).write_bytes(GOOD)
        rows = indexed(tmp_path, str(folder))
        assert [row["status"] for row in rows.values()] == ["ok"] * len(names)


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


# What a header says, and what the columns etag and last_modified hold of it; "own" is what the server says by itself.
HEADERS = {
    "time-beyond-9999": ({"Last-Modified": "Fri, 31 Dec 9999 23:59:59 -1200"}, "own", None),
    "time-before-1": ({"Last-Modified": "Mon, 01 Jan 0000 00:00:00 +1200"}, "own", None),
    "time-of-words": ({"Last-Modified": "yesterday"}, "own", None),
    "time-empty": ({"Last-Modified": ""}, "own", None),
    "time-of-commas": ({"Last-Modified": " , , "}, "own", None),
    "day-huge": ({"Last-Modified": "Fri, 31 Dec 99999999999999999999 23:59:59 GMT"}, "own", None),
    "time-of-rfc-850": ({"Last-Modified": "Tuesday, 14-Nov-23 22:13:20 GMT"}, "own", MODIFIED),
    "time-of-asctime": ({"Last-Modified": "Tue Nov 14 22:13:20 2023"}, "own", MODIFIED),
    "zone-huge": ({"Last-Modified": "Fri, 31 Dec 2020 23:59:59 +999999"}, "own", None),
    "etag-latin-1": ({"ETag": '"caf\xe9"'}, None, MODIFIED),
    "etag-utf-8": ({"ETag": '"caf\xc3\xa9"'}, None, MODIFIED),
    "etag-empty": ({"ETag": ""}, None, MODIFIED),
    "etag-tab": ({"ETag": '"a\tb"'}, None, MODIFIED),
    "etag-long": ({"ETag": '"' + "x" * 7_000 + '"'}, None, MODIFIED),
    "size-huge": ({"Content-Range": "bytes 0-9/" + "9" * 30}, "own", MODIFIED),
    "size-endless": ({"Content-Range": "bytes 0-9/" + "9" * 5_000}, "own", MODIFIED),
    "size-of-words": ({"Content-Range": "bytes 0-9/all"}, "own", MODIFIED),
}


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
    "above": (LINK.format("../a.fits").encode() + LINK.format("//other.invalid/a.fits").encode(), 1),
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


class TestWeb:
    @pytest.mark.parametrize("store", ["obstore", "fsspec"])
    @pytest.mark.parametrize(("said", "etag", "modified"), HEADERS.values(), ids=HEADERS)
    def test_header_without_meaning_is_unknown(
        self, tmp_path: Path, store: Adapter, said: dict[str, str], etag: str | None, modified: datetime | None
    ) -> None:
        with SaidServer({"good.fits": GOOD, "odd.fits": GOOD}) as server:
            server.said["odd.fits"] = said
            rows = indexed(tmp_path, server.origin + "/", store=store)
        assert rows[server.url("good.fits")]["status"] == "ok"
        odd = rows[server.url("odd.fits")]
        assert (odd["status"], odd["error"], odd["size"]) == ("ok", None, len(GOOD))
        assert odd["etag"] == (etag_of(GOOD) if etag == "own" else etag)
        assert odd["last_modified"] == modified
        assert odd["pinned"] == (etag is not None)

    @pytest.mark.parametrize(("before", "others"), PAGES.values(), ids=PAGES)
    def test_links_of_an_index_are_rows(self, tmp_path: Path, before: bytes, others: int) -> None:
        good = (LINK.format("good.fits") + LINK.format("deep/good.fits")).encode()
        with SaidServer({"good.fits": GOOD, "deep/good.fits": GOOD}) as server:
            server.pages[""] = before + good, "text/html"
            rows = indexed(tmp_path, server.origin + "/", include=["*"])
            assert rows.pop(server.url("good.fits"))["status"] == "ok"
            assert rows.pop(server.url("deep/good.fits"))["status"] == "ok"
        assert [row["status"] for row in rows.values()] == ["unreadable"] * others

    @pytest.mark.parametrize("charset", CHARSETS)
    def test_charset_that_is_none_is_utf_8(self, tmp_path: Path, charset: str) -> None:
        with SaidServer({"good.fits": GOOD}) as server:
            server.pages[""] = b"\xff" + LINK.format("good.fits").encode(), f"text/html; charset={charset}"
            rows = indexed(tmp_path, server.origin + "/")
        assert [row["status"] for row in rows.values()] == ["ok"]


# What a file system says of an object beside its name, and the row's size, etag and last_modified.
INFO: dict[str, tuple[dict[str, Any], tuple[Any, Any, Any]]] = {
    "nothing": ({}, (len(GOOD), None, None)),
    "size-text": ({"size": str(len(GOOD))}, (len(GOOD), None, None)),
    "size-words": ({"size": "large"}, (len(GOOD), None, None)),
    "size-float": ({"size": float(len(GOOD))}, (len(GOOD), None, None)),
    "size-nan": ({"size": float("nan")}, (len(GOOD), None, None)),
    "size-negative": ({"size": -1}, (len(GOOD), None, None)),
    "size-huge": ({"size": 2**70}, (len(GOOD), None, None)),
    "mtime-nan": ({"mtime": float("nan")}, (len(GOOD), None, None)),
    "mtime-infinite": ({"mtime": float("inf")}, (len(GOOD), None, None)),
    "mtime-huge": ({"mtime": 1e20}, (len(GOOD), None, None)),
    "mtime-words": ({"mtime": "now"}, (len(GOOD), None, None)),
    "mtime-list": ({"mtime": [1]}, (len(GOOD), None, None)),
    "mtime-odd-created-good": ({"mtime": "now", "created": MODIFIED}, (len(GOOD), None, None)),
    "etag-surrogate": ({"ETag": "\udcff"}, (len(GOOD), None, None)),
    "etag-newline": ({"ETag": "a\nb"}, (len(GOOD), None, None)),
    "etag-nul": ({"ETag": "\0"}, (len(GOOD), None, None)),
    "etag-long": ({"ETag": "x" * 10**6}, (len(GOOD), None, None)),
    "etag-bytes": ({"ETag": b"\x00\xff"}, (len(GOOD), "00ff", None)),
    "etag-number": ({"ETag": 17}, (len(GOOD), "17", None)),
    "version-list": ({"version": ["a"]}, (len(GOOD), None, None)),
}


class HostileFileSystem(fsspec.spec.AbstractFileSystem):  # type: ignore[misc] # fsspec is untyped
    """Says of ``hostile://`` objects what `told` holds."""

    protocol = "hostile"
    told: ClassVar[list[dict[str, Any]]] = []

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        for entry in self.told:
            if "fails" in entry:
                raise entry["fails"]
        return [dict(entry) for entry in self.told]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        name = self._strip_protocol(path)
        for entry in self.told:
            if entry["name"] == name:
                return {"type": "file", **entry}
        raise FileNotFoundError(path)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        info = self.info(path)
        if "raises" in info:
            raise info["raises"]
        return GOOD[start:end]


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return what the file system ``hostile://`` says of its objects; one is good."""
    fsspec.register_implementation("hostile", HostileFileSystem, clobber=True)
    told = [{"name": "bucket/good.fits", "type": "file", "size": len(GOOD)}]
    monkeypatch.setattr(HostileFileSystem, "told", told)
    return told


class TestFileSystems:
    @pytest.mark.parametrize(("said", "expected"), INFO.values(), ids=INFO)
    def test_value_without_meaning_is_unknown(
        self, tmp_path: Path, hostile: list[dict[str, Any]], said: dict[str, Any], expected: tuple[Any, Any, Any]
    ) -> None:
        hostile.append({"name": "bucket/odd.fits", "type": "file", **said})
        rows = indexed(tmp_path, "hostile://bucket/")
        assert {row["status"] for row in rows.values()} == {"ok"}
        odd = rows["hostile://bucket/odd.fits"]
        assert (odd["size"], odd["etag"], odd["last_modified"]) == expected
        assert odd["version"] is None

    @pytest.mark.parametrize(
        "error",
        [
            KeyError("size"),
            TypeError("no"),
            AttributeError("x"),
            AssertionError(),
            RuntimeError("\udcff\n"),
            EOFError(),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_error_of_any_kind_is_a_row_or_one_line(
        self, tmp_path: Path, hostile: list[dict[str, Any]], error: Exception
    ) -> None:
        hostile.append({"name": "bucket/odd.fits", "type": "file", "raises": error})
        rows = indexed(tmp_path, "hostile://bucket/")
        assert rows["hostile://bucket/good.fits"]["status"] == "ok"
        assert rows["hostile://bucket/odd.fits"]["status"] == "unreadable"
        hostile.append({"name": "bucket/x.fits", "fails": error})
        assert type(error).__name__ in listing_error(tmp_path, "hostile://bucket/")

    @pytest.mark.parametrize(
        ("name", "url"),
        [
            pytest.param("\udcff", "\\udcff", id="not-utf-8"),
            pytest.param("a\0b", "a\0b", id="nul"),
            pytest.param("a\nb", "a\nb", id="newline"),
            pytest.param("a::b", "a::b", id="colons"),
            pytest.param("s3://[", "s3://[", id="url"),
            pytest.param("x" * 100_000, "x" * 100_000, id="long"),
            pytest.param("%ff%00", "%ff%00", id="percent"),
        ],
    )
    def test_odd_name_is_a_row(self, tmp_path: Path, hostile: list[dict[str, Any]], name: str, url: str) -> None:
        hostile.append({"name": f"bucket/{name}.fits", "size": len(GOOD)})  # and no type
        rows = indexed(tmp_path, "hostile://bucket/")
        assert rows["hostile://bucket/good.fits"]["status"] == "ok"
        odd = rows[f"hostile://bucket/{url}.fits"]
        assert odd["status"] == ("ok" if name == url else "unreadable")

    def test_panic_of_a_library_is_a_crashed_row(self, tmp_path: Path, hostile: list[dict[str, Any]]) -> None:
        class PanicException(BaseException):  # as those of libraries in Rust, which can only be caught by this name
            pass

        hostile.append({"name": "bucket/odd.fits", "type": "file", "raises": PanicException("at the\ndisco")})
        crawler.index("hostile://bucket/", str(tmp_path / "catalogue"))
        rows = Catalogue(str(tmp_path / "catalogue")).files.to_table().sort_by("url").to_pylist()
        assert [row["status"] for row in rows] == ["ok", "crashed"]
        assert "PanicException" in rows[1]["error"]
        assert rows[1]["error"].isprintable()

    def test_entry_that_names_nothing_is_one_line(self, tmp_path: Path, hostile: list[dict[str, Any]]) -> None:
        hostile.append({"type": "file"})
        assert "without a name" in listing_error(tmp_path, "hostile://bucket/")
        hostile[-1] = {"name": "elsewhere/a.fits", "type": "file"}
        assert "elsewhere/a.fits" in listing_error(tmp_path, "hostile://bucket/")


class PageHandler(BucketServer.handler):  # type: ignore[misc] # a class variable
    """Answers every listing with `PageServer.page`, and adds headers to objects."""

    def answer(self) -> None:
        if "list-type=2" in self.path:
            self.send(200, self.server.owner.page, {"Content-Type": "application/xml"})
        else:
            super().answer()

    def send(self, status: int, body: Content, headers: Any, length: int | None = None) -> None:
        said = self.server.owner.said.get(self.path.removeprefix("/"), {})
        super().send(status, body, {**headers, **said}, length)


class PageServer(BucketServer):
    """Serves what a `BucketServer` does, and `page` as the listing of every bucket."""

    handler = PageHandler

    def __init__(self, objects: Any) -> None:
        super().__init__(objects)
        self.page = b""
        self.said: dict[str, dict[str, str]] = {}

    def list(self, *entries: str, before: str = "", after: str = "") -> None:
        """Answer listings with some entries, the last of which is good."""
        good = f"<Contents><Key>good.fits</Key><Size>{len(GOOD)}</Size></Contents>"
        page = "".join([*(f"<Contents>{entry}</Contents>" for entry in entries), good])
        self.page = (
            f'<?xml version="1.0"?>{before}<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>bucket</Name><EncodingType>url</EncodingType><IsTruncated>false</IsTruncated>{page}{after}"
            "</ListBucketResult>"
        ).encode()

    def index(self, tmp_path: Path, *roots: str, store: Adapter = "auto") -> dict[str, dict[str, Any]]:
        options = {"endpoint_url": self.origin, "key": "key", "secret": "secret"}
        return indexed(tmp_path, *(roots or ("s3://bucket/",)), storage_options=options, store=store)


OWN = f"<Size>{len(GOOD)}</Size>"
# What an entry of a page says beside its key, and the row's etag; every size is found, and no time is known.
ENTRIES: dict[str, str] = {
    "nothing": "",
    "size-negative": "<Size>-1</Size>",
    "size-of-words": "<Size>large</Size>",
    "size-empty": "<Size></Size>",
    "size-huge": f"<Size>{2**63}</Size>",
    "size-endless": f"<Size>{'9' * 5_000}</Size>",
    "size-float": "<Size>1e3</Size>",
    "size-twice": f"{OWN}<Size>3</Size>",
    "size-nested": "<Size><Size>3</Size></Size>",
    "time-of-words": f"{OWN}<LastModified>yesterday</LastModified>",
    "time-empty": f"{OWN}<LastModified/>",
    "time-beyond-9999": f"{OWN}<LastModified>9999-12-31T23:59:59-12:00</LastModified>",
    "time-far": f"{OWN}<LastModified>99999-01-01T00:00:00Z</LastModified>",
    "time-before-1": f"{OWN}<LastModified>0000-01-01T00:00:00Z</LastModified>",
    "time-huge": f"{OWN}<LastModified>{10**30}</LastModified>",
    "etag-empty": f"{OWN}<ETag/>",
    "etag-newline": f"{OWN}<ETag>a&#10;b</ETag>",
    "etag-not-ascii": f"{OWN}<ETag>é\U0001f52d</ETag>",
    "etag-long": f"{OWN}<ETag>{'x' * 10**6}</ETag>",
    "etag-of-another": f"{OWN}<ETag>&quot;other&quot;</ETag>",
    "size-of-another": "<Size>3</Size>",
    "size-zero": "<Size>0</Size>",
    "size-too-large": f"<Size>{2**62}</Size>",
}
KEYS = {
    "nul": "%00",
    "control": "%01%1f%7f%C2%85",
    "newline": "a%0Ab%0D",
    "slashes": "a//b///",
    "dots": "./../.",
    "url": "https%3A//host/[",
    "question": "a?b#c%25d%2500",
    "long": "x" * 1_024,
    "endless": "x" * 100_000,
    "astral": "%F0%9F%94%AD",
    "colons": "a::b",
}


class TestS3:
    @pytest.fixture
    def server(self) -> Iterator[PageServer]:
        with PageServer({"bucket/good.fits": GOOD, "bucket/odd.fits": GOOD}) as server:
            yield server

    @pytest.mark.parametrize("said", ENTRIES.values(), ids=ENTRIES)
    def test_entry_without_meaning_is_a_row(self, tmp_path: Path, server: PageServer, said: str) -> None:
        server.list(f"<Key>odd.fits</Key>{said}")
        rows = server.index(tmp_path)
        assert rows["s3://bucket/good.fits"]["status"] == "ok"
        odd = rows["s3://bucket/odd.fits"]
        assert (odd["status"], odd["size"], odd["etag"]) == ("ok", len(GOOD), etag_of(GOOD))

    @pytest.mark.parametrize("store", ["obstore", "fsspec"])
    @pytest.mark.parametrize("key", KEYS.values(), ids=KEYS)
    def test_odd_key_is_a_row(self, tmp_path: Path, server: PageServer, key: str, store: Adapter) -> None:
        name = unquote(key) + ".fits"
        server.objects[f"bucket/{name}"] = GOOD
        server.list(f"<Key>{key}.fits</Key>{OWN}", "<Key>folder/</Key><Size>0</Size>")
        rows = server.index(tmp_path, store=store)
        assert rows["s3://bucket/good.fits"]["status"] == "ok"
        odd = rows[f"s3://bucket/{name}"]
        assert (odd["status"], odd["error"]) == ("ok", None) or key in (KEYS["endless"], KEYS["dots"])

    def test_keys_that_are_no_utf_8_are_rows(self, tmp_path: Path, server: PageServer) -> None:
        server.list("<Key>%FF.fits</Key>", "<Key>%FE.fits</Key>", "<Key>%ED%A0%80.fits</Key>")
        rows = server.index(tmp_path)
        assert rows["s3://bucket/good.fits"]["status"] == "ok"
        odd = [row["status"] for url, row in rows.items() if "good" not in url]
        assert odd == ["unreadable"] * 3

    def test_same_key_twice_is_one_row(self, tmp_path: Path, server: PageServer) -> None:
        server.list(f"<Key>odd.fits</Key>{OWN}", f"<Key>odd.fits</Key>{OWN}")
        assert len(server.index(tmp_path)) == 2

    @pytest.mark.parametrize("entry", ["", "<Key/>", OWN, "<Key></Key>" + OWN])
    def test_entry_without_key_is_one_line(self, tmp_path: Path, server: PageServer, entry: str) -> None:
        server.list(entry)
        with pytest.raises(ListingError, match="without a key") as caught:
            server.index(tmp_path)
        assert str(caught.value).isprintable()

    def test_page_that_is_no_listing_is_one_line(self, tmp_path: Path, server: PageServer) -> None:
        bomb = "".join(f'<!ENTITY x{n} "{f"&x{n - 1};" * 10}">' for n in range(1, 12))
        pages = {
            "words": b"hello",
            "empty": b"",
            "nul": b"\0" * 100,
            "cut": b"<ListBucketResult><Contents><Key>a.fits</Key>",
            "bomb": f'<!DOCTYPE a [<!ENTITY x0 "x">{bomb}]><ListBucketResult>&x11;</ListBucketResult>'.encode(),
            "deep-error": b"<Error>" + b"<a>" * 100_000 + b"</a>" * 100_000 + b"</Error>",
            "utf-7": b'<?xml version="1.0" encoding="utf-7"?><ListBucketResult/>',
            "not-utf-8": b"<ListBucketResult><Name>\xff</Name></ListBucketResult>",
            "html": b"<html>welcome</html>",
            "truncated-maybe": b"<ListBucketResult><IsTruncated>maybe</IsTruncated></ListBucketResult>",
            "truncated-capital": b"<ListBucketResult><IsTruncated>True</IsTruncated></ListBucketResult>",
        }
        for name, page in pages.items():
            server.page = page
            with pytest.raises(ListingError) as caught:
                server.index(tmp_path)
            assert str(caught.value).isprintable(), name

    def test_what_is_around_the_entries_does_not_matter(self, tmp_path: Path, server: PageServer) -> None:
        deep = "<a>" * 100_000 + "</a>" * 100_000
        for before, after in (
            ("<!DOCTYPE a>", ""),
            ('<!DOCTYPE a [<!ENTITY x "x">]>', "<Other>&x;</Other>"),
            ("", deep),
            ("", "<KeyCount>many</KeyCount><MaxKeys>-1</MaxKeys>"),
        ):
            server.list(f"<Key>odd.fits</Key>{OWN}", before=before, after=after)
            rows = server.index(tmp_path)
            assert [row["status"] for row in rows.values()] == ["ok", "ok"]

    @pytest.mark.parametrize("store", ["obstore", "fsspec"])
    @pytest.mark.parametrize(("said", "etag", "modified"), HEADERS.values(), ids=HEADERS)
    def test_header_without_meaning_is_unknown(
        self,
        tmp_path: Path,
        server: PageServer,
        store: Adapter,
        said: dict[str, str],
        etag: str | None,
        modified: datetime | None,
    ) -> None:
        server.list("<Key>odd.fits</Key>")
        server.said["bucket/odd.fits"] = said
        rows = server.index(tmp_path, store=store)
        assert rows["s3://bucket/good.fits"]["status"] == "ok"
        odd = rows["s3://bucket/odd.fits"]
        if "\xe9" in said.get("ETag", ""):  # neither library reads an answer with such a header
            assert (odd["status"], odd["error"]) == ("unreadable", "answer has a header that is not UTF-8")
            return
        assert (odd["status"], odd["error"], odd["size"]) == ("ok", None, len(GOOD))
        assert odd["etag"] == (etag_of(GOOD) if etag == "own" else etag)
        assert odd["last_modified"] == modified


NO_TEXT = b"\xff\xfe"
MILLISECONDS = pa.timestamp("ms")


def raw_text(*values: bytes) -> pa.Array:
    """Return a column that says that it is text, whatever its bytes are."""
    return pa.array(values, pa.binary()).view(pa.string())


# A column of the files of an inventory or of a key file: that of a good object, and that of an odd one, which all the
# same is found to be what it is.
COLUMNS: dict[str, tuple[str, pa.Array]] = {
    "size-negative": ("size", pa.array([len(GOOD), -1])),
    "size-huge": ("size", pa.array([len(GOOD), 2**62])),
    "size-unsigned": ("size", pa.array([len(GOOD), 2**64 - 1], pa.uint64())),
    "size-nan": ("size", pa.array([float(len(GOOD)), float("nan")])),
    "size-fraction": ("size", pa.array([float(len(GOOD)), 0.5])),
    "size-text": ("size", pa.array([str(len(GOOD)), "large"])),
    "size-decimal": ("size", pa.array([Decimal(len(GOOD)), Decimal(-1)])),
    "size-zero": ("size", pa.array([len(GOOD), 0])),
    "size-too-small": ("size", pa.array([len(GOOD), 2880])),
    "size-null": ("size", pa.nulls(2)),
    "etag-newline": ("etag", pa.array([None, "a\nb"])),
    "etag-no-text": ("etag", raw_text(b"", NO_TEXT)),
    "etag-bytes": ("etag", pa.array([None, NO_TEXT], pa.binary())),
    "etag-number": ("etag", pa.array([None, 7])),
    "etag-long": ("etag", pa.array([None, "x" * 10**6])),
    "version-nul": ("version", pa.array([None, "\0"])),
    "time-of-seconds-far": ("last_modified", pa.array([0, 2**62]).cast(pa.timestamp("s"))),
    "time-of-milliseconds-far": ("last_modified", pa.array([0, -(2**62)]).cast(MILLISECONDS)),
    "time-of-microseconds-far": ("last_modified", pa.array([0, 2**63 - 1]).cast(pa.timestamp("us", "UTC"))),
    "time-of-nanoseconds": ("last_modified", pa.array([0, 2**63 - 1]).cast(pa.timestamp("ns"))),
    "time-of-no-zone": ("last_modified", pa.array([0, 1]).cast(pa.timestamp("s", "Nowhere/City"))),
    "time-of-words": ("last_modified", pa.array(["2020-01-01T00:00:00Z", "yesterday"])),
    "time-of-days": ("last_modified", pa.array([0, 2**31 - 1], pa.int32()).cast(pa.date32())),
}
TYPES: dict[str, tuple[str, pa.Array]] = {
    "size-list": ("size", pa.array([[1], [2]])),
    "size-logical": ("size", pa.array([True, False])),
    "size-struct": ("size", pa.array([{"a": 1}, {"a": 2}])),
    "etag-list": ("etag", pa.array([["a"], ["b"]])),
    "etag-real": ("etag", pa.array([1.5, 2.5])),
    "time-real": ("last_modified", pa.array([1.5, 2.5])),
    "time-list": ("last_modified", pa.array([[1], [2]])),
}
INVENTORY_NAMES = {"etag": "e_tag", "version": "version_id", "last_modified": "last_modified_date"}


class TestInventory:
    @pytest.fixture
    def server(self) -> Iterator[PageServer]:
        with PageServer({"source/good.fits": GOOD, "source/odd.fits": GOOD}) as server:
            yield server

    def manifest(self, server: PageServer, tmp_path: Path, kind: str, data: bytes, **changes: Any) -> str:
        """Write an inventory of one file, and return its root."""
        server.objects["dest/data"] = data
        said = {
            "sourceBucket": "source",
            "destinationBucket": "arn:aws:s3:::dest",
            "fileFormat": kind,
            "fileSchema": "Bucket, Key, Size, ETag, LastModifiedDate, IsLatest",
            "files": [{"key": "data", "size": len(data)}],
        }
        path = tmp_path / "manifest.json"
        path.write_text(json.dumps(said | changes))
        return f"@{path}"

    @staticmethod
    def file(kind: str, columns: dict[str, Any]) -> bytes:
        sink = io.BytesIO()
        table = pa.table({"key": pa.array(["good.fits", "odd.fits"]), **columns})
        if kind == "ORC":
            pyarrow.orc.write_table(table, sink)
        else:
            pq.write_table(table, sink)
        return sink.getvalue()

    @pytest.mark.parametrize("kind", ["ORC", "Parquet"])
    @pytest.mark.parametrize(("name", "column"), COLUMNS.values(), ids=COLUMNS)
    def test_value_without_meaning_is_a_row(
        self, tmp_path: Path, server: PageServer, kind: str, name: str, column: pa.Array
    ) -> None:
        try:
            data = self.file(kind, {INVENTORY_NAMES.get(name, name): column})
        except (pa.ArrowException, OSError):
            pytest.skip(f"{kind} holds no column of {column.type}")
        rows = server.index(tmp_path, self.manifest(server, tmp_path, kind, data))
        assert {row["status"] for row in rows.values()} == {"ok"}
        assert [row["etag"] for row in rows.values()] == [etag_of(GOOD)] * 2

    @pytest.mark.parametrize("kind", ["ORC", "Parquet"])
    @pytest.mark.parametrize(("name", "column"), TYPES.values(), ids=TYPES)
    def test_column_without_meaning_is_one_line(
        self, tmp_path: Path, server: PageServer, kind: str, name: str, column: pa.Array
    ) -> None:
        name = INVENTORY_NAMES.get(name, name)
        root = self.manifest(server, tmp_path, kind, self.file(kind, {name: column}))
        with pytest.raises(ListingError, match=f"column {name} is .*s3://dest/data"):
            server.index(tmp_path, root)

    @pytest.mark.parametrize(
        "columns",
        [
            {"key": pa.array(["good.fits", None])},
            {"key": raw_text(b"good.fits", NO_TEXT)},
            {"key": pa.array([["good.fits"], []])},
            {"is_latest": pa.array(["true", "perhaps"])},
            {"is_delete_marker": pa.array([[True], [False]])},
        ],
        ids=["null", "not-utf-8", "list", "latest-of-words", "marker-list"],
    )
    def test_object_that_cannot_be_told_is_one_line(
        self, tmp_path: Path, server: PageServer, columns: dict[str, pa.Array]
    ) -> None:
        root = self.manifest(server, tmp_path, "Parquet", self.file("Parquet", columns))
        with pytest.raises(ListingError, match="s3://dest/data") as caught:
            server.index(tmp_path, root)
        assert str(caught.value).isprintable()

    def test_column_twice_is_one_line(self, tmp_path: Path, server: PageServer) -> None:
        sink = io.BytesIO()
        pq.write_table(pa.table([pa.array(["a"]), pa.array([1]), pa.array([2])], names=["key", "size", "size"]), sink)
        with pytest.raises(ListingError, match="s3://dest/data"):
            server.index(tmp_path, self.manifest(server, tmp_path, "Parquet", sink.getvalue()))

    @pytest.mark.parametrize(
        "line",
        [
            '"source","odd.fits","-1","","",""',
            '"source","odd.fits","large","a\tb","yesterday","true"',
            f'"source","odd.fits","{"9" * 5_000}","","99999-01-01T00:00:00Z","TRUE"',
            '"source","odd.fits","0","not the one","9999-12-31T23:59:59-12:00",""',
        ],
        ids=["negative", "words", "huge", "another"],
    )
    def test_csv_value_without_meaning_is_a_row(self, tmp_path: Path, server: PageServer, line: str) -> None:
        data = gzip.compress(f'"source","good.fits","{len(GOOD)}","","",""\n{line}\n'.encode())
        rows = server.index(tmp_path, self.manifest(server, tmp_path, "CSV", data))
        assert {url: row["status"] for url, row in rows.items()} == {
            "s3://source/good.fits": "ok",
            "s3://source/odd.fits": "ok",
        }

    def test_csv_keys_that_are_no_utf_8_are_rows(self, tmp_path: Path, server: PageServer) -> None:
        lines = "".join(f'"source","{key}","","","",""\n' for key in ("good.fits", "%FF.fits", "%FE.fits", "%00.fits"))
        rows = server.index(tmp_path, self.manifest(server, tmp_path, "CSV", gzip.compress(lines.encode())))
        assert [row["status"] for row in rows.values()].count("unreadable") == 3
        assert rows["s3://source/good.fits"]["status"] == "ok"

    @pytest.mark.parametrize(
        "lines",
        [b'"source","a.fits"\n', b'"source",\xff,"","","",""\n', b"\0" * 100, b'"source","","1","","",""\n', b'"'],
        ids=["short", "not-utf-8", "nul", "no-key", "quote"],
    )
    def test_csv_that_cannot_be_read_is_one_line(self, tmp_path: Path, server: PageServer, lines: bytes) -> None:
        with pytest.raises(ListingError, match="s3://dest/data") as caught:
            server.index(tmp_path, self.manifest(server, tmp_path, "CSV", gzip.compress(lines)))
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize(
        "changes",
        [
            {"sourceBucket": "\ud800"},
            {"destinationBucket": "\ud800"},
            {"sourceBucket": "\0"},
            {"sourceBucket": "a/b\n"},
            {"sourceBucket": ["source"]},
            {"fileSchema": "\ud800"},
            {"fileSchema": 7},
            {"fileFormat": {"a": 1}},
            {"files": [{"key": "\ud800"}]},
            {"files": [{"key": "data", "size": -1}]},
            {"files": [{"key": "data", "size": True}]},
            {"files": [{"key": "data", "size": 2**70}]},
            {"files": [{"key": "data", "size": float("nan")}]},
            {"files": [{"key": "data", "MD5checksum": ["a"]}]},
            {"files": [7]},
            {"files": ["data"]},
            {"files": {"key": "data"}},
            {"files": None},
        ],
        ids=str,
    )
    def test_manifest_without_meaning_is_one_line(
        self, tmp_path: Path, server: PageServer, changes: dict[str, Any]
    ) -> None:
        data = gzip.compress(b'"source","good.fits","","","",""\n')
        root = self.manifest(server, tmp_path, "CSV", data, **changes)
        with pytest.raises(ListingError) as caught:
            server.index(tmp_path, root)
        assert str(caught.value).isprintable()

    @pytest.mark.parametrize(
        "text",
        ['{"a":' * 100_000, '{"a":' + "[" * 100_000, '{"files": ' + "9" * 5_000 + "}", '{"a": NaN}', '{"\\ud800": 1}'],
        ids=["deep", "deep-list", "endless-number", "nan", "surrogate"],
    )
    def test_manifest_of_odd_json_is_one_line(self, tmp_path: Path, server: PageServer, text: str) -> None:
        (tmp_path / "manifest.json").write_text(text)
        with pytest.raises(ListingError, match="manifest") as caught:
            server.index(tmp_path, f"@{tmp_path}/manifest.json")
        assert str(caught.value).isprintable()


# Lines of a key file beside that of a good object: how the row of each is described, or why the listing ends.
UNREADABLE = ("unreadable", "")
LINES: dict[str, tuple[bytes, tuple[str, str]]] = {
    "data": (b"data://text/plain,hello", UNREADABLE),
    "data-base64": (b"data://;base64,////", UNREADABLE),
    "dir": (b"dir:///etc", UNREADABLE),
    "reference": (b"reference://a", UNREADABLE),
    "zip": (b"zip://a.fits", UNREADABLE),
    "memory": (b"memory://a.fits", UNREADABLE),
    "simplecache": (b"simplecache://a.fits", UNREADABLE),
    "chained": (b"simplecache::memory://a.fits", UNREADABLE),
    "chained-scheme": (b"zip://a.fits::memory://b", UNREADABLE),
    "no-bucket": (b"s3:///a.fits", UNREADABLE),
    "only-scheme": (b"s3://", UNREADABLE),
    "bucket": (b"s3://bucket", UNREADABLE),
    "bucket-odd": (b"s3://b\\<>/a.fits", UNREADABLE),
    "no-host": (b"http://", UNREADABLE),
    "port": (b"http://127.0.0.1:99999/a.fits", UNREADABLE),
    "host-odd": (b"http://a b/c.fits", UNREADABLE),
    "latin-1-path": (b"caf\xe9.fits", UNREADABLE),
    "control": (b"a\x01\x1b[2J.fits", UNREADABLE),
    "long": (b"x" * 60_000, UNREADABLE),
    "long-of-s3": (b"s3://bucket/" + b"x" * 60_000, UNREADABLE),
    "folder": (b"/", UNREADABLE),
    "unknown": (b"nosuch://a", ("error", "line 2: no store reads nosuch://")),
    "bracket": (b"http://[", ("error", "line 2: is not a URL: http://[")),
    "computer": (b"file://other/a.fits", ("error", "line 2: file://other/a.fits names another computer")),
    "password": (b"ftp://user:secret@host/a.fits", ("error", "line 2: ftp://host/a.fits holds a user or password")),
    "latin-1-key": (b"s3://bucket/caf\xe9.fits", ("error", "line 2: not UTF-8")),
    "surrogate": (b"s3://bucket/\xed\xa0\x80", ("error", "line 2: not UTF-8")),
    "latin-1-web": (b"http://127.0.0.1/caf\xe9", ("error", "line 2: not UTF-8")),
    "nul": (b"a\0b", ("error", "line 2: holds a NUL byte")),
    "nul-of-s3": (b"s3://bucket/a\0b", ("error", "line 2: holds a NUL byte")),
    "nul-above": (b"../a\0b", ("error", "line 2: holds a NUL byte")),
    "nul-encoded": (b"file:///a%00b", ("error", "line 2: holds a NUL byte")),
    "endless": (b"x" * 70_000, ("error", "line 2 is longer than")),
}


class TestKeyFiles:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "good.fits").write_bytes(GOOD)
        return tmp_path

    @pytest.fixture
    def keys(self, folder: Path) -> Path:
        return folder / "keys"

    @pytest.mark.parametrize(("line", "expected"), LINES.values(), ids=LINES)
    def test_line_is_a_row_or_told_by_its_number(
        self, folder: Path, keys: Path, line: bytes, expected: tuple[str, str]
    ) -> None:
        keys.write_bytes(b"good.fits\n" + line + b"\n")
        with BucketServer() as server:
            options = {"endpoint_url": server.origin, "key": "key", "secret": "secret"} if b"s3:" in line else {}
            kind, said = expected
            if kind == "error":
                assert said in listing_error(folder, f"@{keys}", storage_options=options)
                return
            rows = indexed(folder, f"@{keys}", storage_options=options)
        good = rows.pop((folder / "good.fits").as_uri())
        assert good["status"] == "ok"
        assert [row["status"] for row in rows.values()] == [kind]

    def test_text_in_other_encodings(self, folder: Path, keys: Path) -> None:
        for encoding in ("utf-16", "utf-16-le", "utf-32"):
            keys.write_bytes("good.fits\n".encode(encoding))
            assert "line 1: holds a NUL byte" in listing_error(folder, f"@{keys}")
        keys.write_bytes(b"\xef\xbb\xbfgood.fits\r\n\r\n \n#\xff\n")
        assert [row["status"] for row in indexed(folder, f"@{keys}").values()] == ["ok"]

    def test_link_in_a_circle_is_told_by_its_line(self, folder: Path, keys: Path) -> None:
        (folder / "loop").symlink_to("loop")
        keys.write_text("good.fits\nloop/../x.fits\n")
        rows = indexed(folder, f"@{keys}")
        assert rows[(folder / "good.fits").as_uri()]["status"] == "ok"

    @pytest.mark.parametrize(("name", "column"), COLUMNS.values(), ids=COLUMNS)
    def test_value_without_meaning_is_a_row(self, folder: Path, keys: Path, name: str, column: pa.Array) -> None:
        (folder / "odd.fits").write_bytes(GOOD)
        try:
            pq.write_table(pa.table({"url": ["good.fits", "odd.fits"], name: column}), keys)
        except pa.ArrowException:
            pytest.skip(f"Parquet holds no column of {column.type}")
        rows = indexed(folder, f"@{keys}")
        assert [(row["status"], row["size"]) for row in rows.values()] == [("ok", len(GOOD))] * 2

    @pytest.mark.parametrize(("name", "column"), [*TYPES.values(), ("last_modified", pa.array([1, 2]))], ids=str)
    def test_column_without_meaning_is_one_line(self, folder: Path, keys: Path, name: str, column: pa.Array) -> None:
        pq.write_table(pa.table({"url": ["good.fits", "odd.fits"], name: column}), keys)
        assert f"column {name} is " in listing_error(folder, f"@{keys}")

    def test_column_url_of_any_text(self, folder: Path, keys: Path) -> None:
        names = pa.array(["good.fits", "good.fits"])
        columns = (names.dictionary_encode(), names.cast(pa.large_string()), names.cast(pa.binary()))
        for column in columns:
            pq.write_table(pa.table({"url": column}), keys)
            assert [row["status"] for row in indexed(folder, f"@{keys}").values()] == ["ok"]

    def test_column_url_that_names_nothing_is_one_line(self, folder: Path, keys: Path) -> None:
        for column, said in (
            (pa.array([[1]]), "column url is list"),
            (pa.array([{"url": "a"}]), "column url is struct"),
            (pa.array([1.5]), "column url is double"),
            (pa.array(["good.fits", None]), "row 2: column url is empty"),
            (pa.array(["good.fits", ""]), "row 2: column url is empty"),
            (pa.array(["good.fits", "s3://b/\0"]), "row 2: holds a NUL byte"),
            (pa.array(["good.fits", "nosuch://a"]), "row 2: no store reads nosuch://"),
            (raw_text(b"good.fits", b"s3://b/" + NO_TEXT), "row 2: not UTF-8"),
            (pa.nulls(1), "row 1: column url is empty"),
        ):
            pq.write_table(pa.table({"url": column}), keys)
            assert said in listing_error(folder, f"@{keys}")
        pq.write_table(pa.table({"url": raw_text(b"good.fits", b"caf\xe9.fits")}), keys)
        assert [row["status"] for row in indexed(folder, f"@{keys}").values()] == ["unreadable", "ok"]
        pq.write_table(pa.table([names := pa.array(["a"]), names], names=["url", "url"]), keys)
        assert "more than one column url" in listing_error(folder, f"@{keys}")
        pq.write_table(pa.table({"name": names}), keys)
        assert "no column url" in listing_error(folder, f"@{keys}")

    def test_damaged_parquet_is_one_line(self, folder: Path, keys: Path) -> None:
        """Bytes changed at random: whatever a file says, it is read, or one line says why not."""
        table = {"url": ["good.fits"] * 50, "size": [len(GOOD)] * 50, "etag": ["x"] * 50}
        pq.write_table(pa.table(table), keys)
        whole, draw = keys.read_bytes(), random.Random(7)
        told = 0
        for _ in range(300):
            data = bytearray(whole)
            for _ in range(draw.choice((1, 3, 30))):
                data[draw.randrange(4, len(data))] = draw.randrange(256)
            keys.write_bytes(data[: draw.choice((len(data), len(data), draw.randrange(len(data))))])
            found = list_roots([f"@{keys}"], include=None, exclude=(), open_store=open_store)
            with contextlib.suppress(ListingError):
                for batch in found:
                    batch.to_pylist()
            told += not found.ended
        assert 0 < told < 300


HDU = Hdu(0, "primary", 0, 2880, 2880, 0, 8, (), 0, 1, GOOD[:80])
# Results that no walk should give: what becomes of them must not be what becomes of all files.
RESULTS: dict[str, Callable[[ObjectRef], FileResult]] = {
    "size": lambda ref: FileResult(replace(ref, size=2**70)),
    "etag": lambda ref: FileResult(replace(ref, etag="\udcff")),
    "url": lambda ref: FileResult(replace(ref, url=ref.url + "\udcff")),
    "status": lambda ref: FileResult(ref, "\ud800"),
    "trailing-bytes": lambda ref: FileResult(ref, trailing_bytes=2**64),
    "requests": lambda ref: FileResult(ref, requests=2**40),
    "hdu-kind": lambda ref: FileResult(ref, hdus=[replace(HDU, kind="\ud800")]),
    "hdu-shape": lambda ref: FileResult(ref, hdus=[replace(HDU, shape=(2**70,))]),
    "hdu-bitpix": lambda ref: FileResult(ref, hdus=[replace(HDU, bitpix=2**20)]),
    "hdu-offset": lambda ref: FileResult(ref, hdus=[replace(HDU, header_offset=-(2**70))]),
    "hdu-header": lambda ref: FileResult(ref, hdus=[replace(HDU, header=b"x" * 81)]),
}


class TestRows:
    @pytest.mark.parametrize("made", RESULTS.values(), ids=RESULTS)
    def test_result_that_cannot_be_written_is_a_crashed_row(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[[ObjectRef], FileResult]
    ) -> None:
        """A fault of this program is put into two of nine walks."""
        folder = tmp_path / "files"
        folder.mkdir()
        for number in range(9):
            (folder / f"{number}.fits").write_bytes(GOOD)

        def faulty(store: Any, ref: ObjectRef, *more: Any) -> Any:
            result = yield from walk_steps(store, ref, *more)
            return made(ref) if ref.url.endswith(("/3.fits", "/8.fits")) else result

        monkeypatch.setattr(crawl, "walk_steps", faulty)
        report = crawler.index(str(folder), str(tmp_path / "catalogue"))
        assert report.walked == {"ok": 7, "crashed": 2}
        found = Catalogue(str(tmp_path / "catalogue"))
        rows = found.files.to_table().sort_by("url").to_pylist()
        assert [row["status"] for row in rows] == ["ok"] * 3 + ["crashed"] + ["ok"] * 4 + ["crashed"]
        assert all("cannot be written" in rows[odd]["error"] and rows[odd]["error"].isprintable() for odd in (3, 8))
        assert found.hdus.count_rows() == 7 * 3
        assert found.cards.count_rows() > 0

    @settings(max_examples=60, deadline=None)
    @given(
        text=st.text(st.characters(exclude_categories=()), max_size=700),
        header=st.binary(min_size=80, max_size=80),
        whole=st.integers(-(2**63), 2**63 - 1),
        seconds=st.integers(-62_135_596_800, 253_402_300_799),
    )
    def test_what_a_walk_finds_can_be_written_and_read(
        self, tmp_path_factory: pytest.TempPathFactory, text: str, header: bytes, whole: int, seconds: int
    ) -> None:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
        ref = describe(writable(f"s3://{text}"), size=whole, etag=text, version=text, modified=moment)
        name = header.decode("latin-1")
        hdu = Hdu(0, name, whole, whole, whole, whole, 8, (whole,), whole, whole, b"EXTNAME = '" + header[:69])
        results = [FileResult(ref, "corrupt", text, hdus=[hdu], trailing_bytes=whole), FileResult(ObjectRef("a"))]
        folder = open_folder(str(tmp_path_factory.mktemp("rows")))
        for table, rows in tables_of(results, "run", moment).items():
            fragment = write_fragment(folder, table, rows, new_batch("run"))
            if fragment is not None:
                json.loads(fragment.stats())
                assert read_fragment(folder, fragment).num_rows == rows.num_rows == len(rows.to_pylist())
        assert product_of(ref.url)
