"""Values that no honest lister, server or file system says: each becomes a row or one clear line, and ends no crawl."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import fsspec.spec
import pyarrow as pa
import pytest

import crawler
from crawler.catalogue.reader import Catalogue
from crawler.catalogue.schema import TABLES
from crawler.errors import ListingError
from crawler.stores import Adapter
from tests.conftest import sibling
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
    """Adds headers to answers, by decoded path."""

    def send(self, status: int, body: Content, headers: Any, length: int | None = None) -> None:
        said = self.server.owner.said.get(self.path.removeprefix("/"), {})
        super().send(status, body, {**headers, **said}, length)


class SaidServer(RangeServer):
    """Serves what a `RangeServer` does with the headers of ``said`` in place of its own, by decoded path."""

    handler = SaidHandler

    def __init__(self, objects: Any) -> None:
        super().__init__(objects)
        self.said: dict[str, dict[str, str]] = {}


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

    def test_entry_that_names_nothing_is_one_line(self, tmp_path: Path, hostile: list[dict[str, Any]]) -> None:
        hostile.append({"type": "file"})
        assert "without a name" in listing_error(tmp_path, "hostile://bucket/")
        hostile[-1] = {"name": "elsewhere/a.fits", "type": "file"}
        assert "elsewhere/a.fits" in listing_error(tmp_path, "hostile://bucket/")
