"""Values of S3 listings, answers and inventories that mean nothing: each is unknown, a row or one clear line."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet as pq
import pytest

from crawler.stores import Adapter
from tests.hostile import COLUMNS, GOOD, HEADERS, NO_TEXT, TYPES, described, indexed, listing_error, raw_text
from tests.s3.bucket_server import BucketServer
from tests.servers import Content, etag_of


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

    def listing_error(self, root: str) -> str:
        return listing_error(root, options={"endpoint_url": self.origin, "key": "key", "secret": "secret"})


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


@pytest.fixture
def server() -> Iterator[PageServer]:
    with PageServer(
        {f"{bucket}/{name}.fits": GOOD for bucket in ("bucket", "source") for name in ("good", "odd")}
    ) as made:
        yield made


class TestListings:
    def test_entry_without_meaning_is_a_row(self, tmp_path: Path, server: PageServer) -> None:
        server.objects |= {f"bucket/{name}.fits": GOOD for name in ENTRIES}
        server.list(*[f"<Key>{name}.fits</Key>{said}" for name, said in ENTRIES.items()])
        found = described(server.index(tmp_path))
        assert {name: one[:4] for name, one in found.items()} == dict.fromkeys(
            ("good", *ENTRIES), ("ok", None, len(GOOD), etag_of(GOOD))
        )

    @pytest.mark.parametrize("store", ["obstore", "fsspec"])
    def test_odd_key_is_a_row(self, tmp_path: Path, server: PageServer, store: Adapter) -> None:
        server.objects |= {f"bucket/{unquote(key)}.fits": GOOD for key in KEYS.values()}
        keys = [f"<Key>{key}.fits</Key>{OWN}" for key in KEYS.values()]
        server.list(*keys, "<Key>folder/</Key><Size>0</Size>")
        rows = server.index(tmp_path, store=store)
        assert rows.pop("s3://bucket/good.fits")["status"] == "ok"
        assert {url: row["status"] for url, row in rows.items()} == {
            # The server reads no line of 100 kB.
            f"s3://bucket/{unquote(key)}.fits": "unreadable" if name == "endless" else "ok"
            for name, key in KEYS.items()
        }

    def test_keys_that_are_no_utf_8_are_rows(self, tmp_path: Path, server: PageServer) -> None:
        server.list("<Key>%FF.fits</Key>", "<Key>%FE.fits</Key>", "<Key>%ED%A0%80.fits</Key>")
        rows = server.index(tmp_path)
        assert rows.pop("s3://bucket/good.fits")["status"] == "ok"
        assert [row["status"] for row in rows.values()] == ["unreadable"] * 3

    def test_same_key_twice_is_one_row(self, tmp_path: Path, server: PageServer) -> None:
        server.list(f"<Key>odd.fits</Key>{OWN}", f"<Key>odd.fits</Key>{OWN}")
        assert len(server.index(tmp_path)) == 2

    def test_entry_without_key_is_one_line(self, server: PageServer) -> None:
        for entry in ("", "<Key/>", OWN, "<Key></Key>" + OWN):
            server.list(entry)
            assert "without a key" in server.listing_error("s3://bucket/")

    def test_page_that_is_no_listing_is_one_line(self, server: PageServer) -> None:
        bomb = "".join(f'<!ENTITY x{n} "{f"&x{n - 1};" * 10}">' for n in range(1, 12))
        for page in (
            b"hello",
            b"",
            b"\0" * 100,
            b"<ListBucketResult><Contents><Key>a.fits</Key>",
            f'<!DOCTYPE a [<!ENTITY x0 "x">{bomb}]><ListBucketResult>&x11;</ListBucketResult>'.encode(),
            b'<?xml version="1.0" encoding="utf-7"?><ListBucketResult/>',
            b'<?xml version="1.0" encoding="nosuch"?><ListBucketResult/>',
            b"<ListBucketResult><Name>\xff</Name></ListBucketResult>",
            b"<html>welcome</html>",
            b"<ListBucketResult><IsTruncated>maybe</IsTruncated></ListBucketResult>",
            b"<ListBucketResult><IsTruncated>True</IsTruncated></ListBucketResult>",
            b"<Error>" + b"<a>" * 100_000 + b"</a>" * 100_000 + b"</Error>",
        ):
            server.page = page
            server.listing_error("s3://bucket/")

    def test_what_is_around_the_entries_does_not_matter(self, tmp_path: Path, server: PageServer) -> None:
        for before, after in (
            ("<!DOCTYPE a>", ""),
            ('<!DOCTYPE a [<!ENTITY x "x">]>', "<Other>&x;</Other>"),
            ("", "<a>" * 100_000 + "</a>" * 100_000),
            ("", "<KeyCount>many</KeyCount><MaxKeys>-1</MaxKeys>"),
        ):
            server.list(f"<Key>odd.fits</Key>{OWN}", before=before, after=after)
            rows = server.index(tmp_path)
            assert [row["status"] for row in rows.values()] == ["ok", "ok"]


@pytest.mark.parametrize("store", ["obstore", "fsspec"])
def test_header_without_meaning_is_unknown(tmp_path: Path, server: PageServer, store: Adapter) -> None:
    server.objects |= {f"bucket/{name}.fits": GOOD for name in HEADERS}
    server.said = {f"bucket/{name}.fits": said for name, (said, _, _) in HEADERS.items()}
    server.list(*[f"<Key>{name}.fits</Key>" for name in HEADERS])
    found = described(server.index(tmp_path, store=store))
    assert found.pop("good")[0] == "ok"
    # Neither library reads an answer with a header that is not UTF-8.
    assert found.pop("etag-latin-1") == ("unreadable", "answer has a header that is not UTF-8", None, None, None)
    assert found == {
        name: ("ok", None, len(GOOD), etag_of(GOOD) if etag == "own" else etag, modified)
        for name, (_, etag, modified) in HEADERS.items()
        if name != "etag-latin-1"
    }


INVENTORY_NAMES = {"etag": "e_tag", "version": "version_id", "last_modified": "last_modified_date"}
LINES = {
    "negative": '"source","negative.fits","-1","","",""',
    "words": '"source","words.fits","large","a\tb","yesterday","true"',
    "huge": f'"source","huge.fits","{"9" * 5_000}","","99999-01-01T00:00:00Z","TRUE"',
    "another": '"source","another.fits","0","not the one","9999-12-31T23:59:59-12:00",""',
}


def inventory(server: PageServer, tmp_path: Path, kind: str, *files: bytes, **changes: Any) -> str:
    """Write an inventory, and return its root."""
    names = [f"data/{number}" for number in range(len(files))]
    server.objects |= {f"dest/{name}": data for name, data in zip(names, files, strict=True)}
    said = {
        "sourceBucket": "source",
        "destinationBucket": "arn:aws:s3:::dest",
        "fileFormat": kind,
        "fileSchema": "Bucket, Key, Size, ETag, LastModifiedDate, IsLatest",
        "files": [{"key": name, "size": len(data)} for name, data in zip(names, files, strict=True)],
    }
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(said | changes))
    return f"@{path}"


def inventory_file(kind: str, columns: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    table = pa.table({"key": pa.array(["good.fits", "odd.fits"]), **columns})
    if kind == "ORC":
        pyarrow.orc.write_table(table, sink)
    else:
        pq.write_table(table, sink)
    return sink.getvalue()


class TestInventory:
    @pytest.mark.parametrize("kind", ["ORC", "Parquet"])
    def test_value_without_meaning_is_a_row(self, tmp_path: Path, server: PageServer, kind: str) -> None:
        """Each column is that of a file of its own."""
        files = {}
        for name, (column, values) in COLUMNS.items():
            keys = pa.array([f"good-{name}.fits", f"odd-{name}.fits"])
            try:
                files[name] = inventory_file(kind, {"key": keys, INVENTORY_NAMES.get(column, column): values})
            except (pa.ArrowException, OSError):
                continue  # there is no such column in this format
        assert len(files) > len(COLUMNS) - 3
        objects = [f"{kind}-{name}" for name in files for kind in ("good", "odd")]
        server.objects |= {f"source/{name}.fits": GOOD for name in objects}
        found = described(server.index(tmp_path, inventory(server, tmp_path, kind, *files.values())))
        assert {name: one[:4] for name, one in found.items()} == dict.fromkeys(
            objects, ("ok", None, len(GOOD), etag_of(GOOD))
        )

    @pytest.mark.parametrize("kind", ["ORC", "Parquet"])
    def test_column_without_meaning_is_one_line(self, tmp_path: Path, server: PageServer, kind: str) -> None:
        for column, values in TYPES.values():
            name = INVENTORY_NAMES.get(column, column)
            root = inventory(server, tmp_path, kind, inventory_file(kind, {name: values}))
            said = server.listing_error(root)
            assert f"column {name} is " in said
            assert "s3://dest/data/0" in said

    def test_object_that_cannot_be_told_is_one_line(self, tmp_path: Path, server: PageServer) -> None:
        twice = io.BytesIO()
        pq.write_table(pa.table([pa.array(["a"]), pa.array([1]), pa.array([2])], names=["key", "size", "size"]), twice)
        for data in (
            inventory_file("Parquet", {"key": pa.array(["good.fits", None])}),
            inventory_file("Parquet", {"key": raw_text(b"good.fits", NO_TEXT)}),
            inventory_file("Parquet", {"key": pa.array([["good.fits"], []])}),
            inventory_file("Parquet", {"is_latest": pa.array(["true", "perhaps"])}),
            inventory_file("Parquet", {"is_delete_marker": pa.array([[True], [False]])}),
            twice.getvalue(),
        ):
            assert "s3://dest/data/0" in server.listing_error(inventory(server, tmp_path, "Parquet", data))

    def test_csv_value_without_meaning_is_a_row(self, tmp_path: Path, server: PageServer) -> None:
        server.objects |= {f"source/{name}.fits": GOOD for name in LINES}
        data = gzip.compress("".join(f"{line}\n" for line in LINES.values()).encode())
        found = described(server.index(tmp_path, inventory(server, tmp_path, "CSV", data)))
        assert {name: one[:3] for name, one in found.items()} == dict.fromkeys(LINES, ("ok", None, len(GOOD)))

    def test_csv_keys_that_are_no_utf_8_are_rows(self, tmp_path: Path, server: PageServer) -> None:
        lines = "".join(f'"source","{key}","","","",""\n' for key in ("good.fits", "%FF.fits", "%FE.fits", "%00.fits"))
        rows = server.index(tmp_path, inventory(server, tmp_path, "CSV", gzip.compress(lines.encode())))
        assert rows.pop("s3://source/good.fits")["status"] == "ok"
        assert [row["status"] for row in rows.values()] == ["unreadable"] * 3

    def test_csv_that_cannot_be_read_is_one_line(self, tmp_path: Path, server: PageServer) -> None:
        for lines in (
            b'"source","a.fits"\n',
            b'"source",\xff,"","","",""\n',
            b"\0" * 100,
            b'"source","","","","",""',
            b'"',
        ):
            root = inventory(server, tmp_path, "CSV", gzip.compress(lines))
            assert "s3://dest/data/0" in server.listing_error(root)

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
            {"files": [{"key": "data/0", "size": -1}]},
            {"files": [{"key": "data/0", "size": True}]},
            {"files": [{"key": "data/0", "size": 2**70}]},
            {"files": [{"key": "data/0", "size": float("nan")}]},
            {"files": [{"key": "data/0", "MD5checksum": ["a"]}]},
            {"files": [7]},
            {"files": ["data/0"]},
            {"files": {"key": "data/0"}},
            {"files": None},
        ],
        ids=ascii,
    )
    def test_manifest_without_meaning_is_one_line(
        self, tmp_path: Path, server: PageServer, changes: dict[str, Any]
    ) -> None:
        data = gzip.compress(b'"source","good.fits","","","",""\n')
        server.listing_error(inventory(server, tmp_path, "CSV", data, **changes))

    def test_manifest_of_odd_json_is_one_line(self, tmp_path: Path, server: PageServer) -> None:
        for text in (
            '{"a":' * 100_000,
            '{"a":' + "[" * 100_000,
            '{"a":' + "9" * 5_000 + "}",
            '{"a":NaN}',
            '{"\\ud800":1}',
        ):
            (tmp_path / "manifest.json").write_text(text)
            assert "manifest" in server.listing_error(f"@{tmp_path}/manifest.json")
