"""S3 Inventory as a source: the current objects of a bucket, as the bucket's own listing has them."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import pyarrow as pa
import pyarrow.orc
import pyarrow.parquet as pq
import pytest

from crawler.errors import ListingError
from crawler.listing import Listing, list_roots
from crawler.stores import ObjectStore, open_store
from crawler.stores.base import LISTING_SCHEMA
from tests.s3.bucket_server import BucketServer

FORMATS = ("CSV", "ORC", "Parquet")
MOMENT = datetime(2023, 11, 14, 22, 13, 20, 987_000)
SCHEMA = pa.schema(
    [
        ("bucket", pa.string()),
        ("key", pa.string()),
        ("version_id", pa.string()),
        ("is_latest", pa.bool_()),
        ("is_delete_marker", pa.bool_()),
        ("size", pa.int64()),
        ("last_modified_date", pa.timestamp("ms")),
        ("e_tag", pa.string()),
        ("storage_class", pa.string()),
    ]
)
CSV_NAMES = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag, StorageClass"
KEYS = ["a.fits", "a b+c%2F.fits", "a//b.fits", "/lead.fits", 'tab\t, "quoted"\n.fits', "Größe-🔭.fits", "notes.txt"]


def rows(keys: list[str]) -> list[dict[str, Any]]:
    """Return each key as an object, with an older version of it, and one that was deleted."""
    found = []
    for number, key in enumerate(keys):
        one = {
            "bucket": "source",
            "key": key,
            "version_id": f"v{number}",
            "is_latest": True,
            "is_delete_marker": False,
            "size": number,
            "last_modified_date": MOMENT,
            "e_tag": f"{number:032x}",
            "storage_class": "STANDARD",
        }
        found += [one, {**one, "version_id": "older", "is_latest": False}]
    return [*found, {**found[0], "key": "gone.fits", "is_delete_marker": True, "size": None, "e_tag": None}]


def written(kind: str, found: list[dict[str, Any]], schema: pa.Schema) -> bytes:
    table, sink = pa.Table.from_pylist(found, schema=schema), io.BytesIO()
    if kind == "ORC":
        pyarrow.orc.write_table(table, sink, stripe_size=64 * 1024)
    elif kind == "Parquet":
        pq.write_table(table, sink, row_group_size=700)
    else:
        text = io.StringIO()
        lines = csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\n")
        for row in table.to_pylist():
            lines.writerow([_cell(name, value) for name, value in row.items()])
        return gzip.compress(text.getvalue().encode())
    return sink.getvalue()


def _cell(name: str, value: Any) -> str:
    if name == "key":
        return quote_plus(value, safe="/")
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.") + f"{value.microsecond // 1000:03}Z"
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


class Inventory:
    """An inventory in a bucket."""

    def __init__(self, server: BucketServer, kind: str) -> None:
        self.server, self.kind = server, kind
        self.manifest: dict[str, Any] = {
            "sourceBucket": "source",
            "destinationBucket": "arn:aws:s3:::dest",
            "version": "2016-11-30",
            "creationTimestamp": "1514944800000",
            "fileFormat": kind,
            "fileSchema": CSV_NAMES if kind == "CSV" else "struct<bucket:string,key:string>",
            "files": [],
        }

    def add(self, found: list[dict[str, Any]], schema: pa.Schema = SCHEMA) -> str:
        data = written(self.kind, found, schema)
        key = f"inv/data/{len(self.manifest['files'])}"
        self.server.objects[f"dest/{key}"] = data
        md5 = hashlib.md5(data).hexdigest()
        self.manifest["files"].append({"key": key, "size": len(data), "MD5checksum": md5})
        return f"dest/{key}"

    def listing(self, *, text: str | None = None, **more: Any) -> Listing:
        content = json.dumps(self.manifest) if text is None else text
        self.server.objects["dest/inv/2023/manifest.json"] = content.encode()
        return listing(self.server, "@s3://dest/inv/2023/manifest.json", **more)

    def error(self, **more: Any) -> str:
        with pytest.raises(ListingError) as caught:
            list(self.listing(**more))
        assert str(caught.value).isprintable()
        assert "manifest.json" in str(caught.value)
        return caught.value.reason


@cache
def s3(endpoint: str) -> ObjectStore:
    return open_store("s3", {"endpoint_url": endpoint, "key": "key", "secret": "secret"})


def listing(server: BucketServer, root: str, **more: Any) -> Listing:
    def opened(url: str) -> ObjectStore:
        return s3(server.origin) if url.startswith("s3") else open_store(url)

    return list_roots([root], include=more.get("include"), exclude=(), open_store=opened)


def urls(found: Listing) -> list[str]:
    return [url for batch in found for url in batch["url"].to_pylist()]


@pytest.fixture(scope="module")
def server() -> Iterator[BucketServer]:
    with BucketServer() as started:
        yield started


@pytest.fixture(params=FORMATS)
def inventory(request: pytest.FixtureRequest, server: BucketServer) -> Inventory:
    server.objects.clear()
    return Inventory(server, request.param)


@pytest.fixture
def made(server: BucketServer) -> Callable[[str], Inventory]:
    server.objects.clear()
    return lambda kind: Inventory(server, kind)


class TestObjects:
    def test_the_current_ones_as_a_listing_has_them(self, inventory: Inventory) -> None:
        inventory.add(rows(KEYS[:3]))
        inventory.add(rows(KEYS[3:]))
        found = inventory.listing(include=["*"])
        batches = list(found)
        assert all(batch.schema == LISTING_SCHEMA for batch in batches)
        listed = [row for batch in batches for row in batch.to_pylist()]
        assert [row["url"] for row in listed] == [f"s3://source/{key}" for key in KEYS]
        assert listed[1] == {
            "url": "s3://source/a b+c%2F.fits",
            "size": 1,
            "etag": f'"{1:032x}"',
            "version": "v1",
            "last_modified": datetime.fromisoformat("2023-11-14T22:13:20+00:00"),
        }
        assert (found.seen, found.matched) == (len(KEYS), len(KEYS))
        assert not any(found.covers(url) for url in ("s3://source/a.fits", "s3://source/gone.fits"))

    def test_names_of_fits_files_by_default(self, inventory: Inventory) -> None:
        inventory.add(rows(KEYS))
        assert urls(inventory.listing()) == [f"s3://source/{key}" for key in KEYS if key.endswith(".fits")]

    def test_only_keys(self, inventory: Inventory) -> None:
        inventory.manifest["fileSchema"] = "Bucket, Key"
        inventory.add([{"bucket": "source", "key": "a.fits"}], pa.schema([SCHEMA.field("bucket"), SCHEMA.field("key")]))
        (batch,) = inventory.listing()
        assert batch.to_pylist() == [
            {"url": "s3://source/a.fits", "size": None, "etag": None, "version": None, "last_modified": None}
        ]

    def test_batches_are_bounded(self, inventory: Inventory) -> None:
        inventory.add(rows([f"{number:06}.fits" for number in range(15_000)]))
        batches = list(inventory.listing())
        assert sum(batch.num_rows for batch in batches) == 15_000
        assert max(batch.num_rows for batch in batches) <= 20_000
        assert len(batches) > 1

    def test_no_files(self, inventory: Inventory) -> None:
        assert urls(inventory.listing()) == []

    def test_local_manifest(self, inventory: Inventory, tmp_path: Path) -> None:
        inventory.add(rows(["a.fits"]))
        (tmp_path / "manifest.json").write_text(json.dumps(inventory.manifest, indent=2))
        assert urls(listing(inventory.server, f"@{tmp_path}/manifest.json")) == ["s3://source/a.fits"]


class TestFaults:
    def test_file_is_missing(self, inventory: Inventory) -> None:
        del inventory.server.objects[inventory.add(rows(KEYS))]
        assert "inventory file cannot be read: HTTP 404" in inventory.error()

    def test_file_is_another(self, inventory: Inventory) -> None:
        name = inventory.add(rows(KEYS))
        inventory.server.objects[name] += b"x"
        assert "of the manifest: s3://dest/inv/data/0" in inventory.error()

    def test_file_is_broken(self, inventory: Inventory) -> None:
        name = inventory.add(rows(KEYS))
        inventory.server.objects[name] = b"x" * len(inventory.server.objects[name])
        assert f"cannot be read as {inventory.kind.upper()}" in inventory.error()

    def test_no_key(self, inventory: Inventory) -> None:
        inventory.manifest["fileSchema"] = "Bucket, Size"
        inventory.add([{"bucket": "source"}], pa.schema([SCHEMA.field("bucket")]))
        assert "no column key" in inventory.error() or "no Key" in inventory.error()

    def test_checksum(self, made: Callable[[str], Inventory]) -> None:
        inventory = made("CSV")
        inventory.add(rows(KEYS))
        inventory.manifest["files"][0]["MD5checksum"] = "0" * 32
        assert "MD5 checksum" in inventory.error()

    def test_cut_short(self, made: Callable[[str], Inventory]) -> None:
        inventory = made("CSV")
        name = inventory.add(rows(KEYS))
        inventory.server.objects[name] = inventory.server.objects[name][:-20]
        inventory.manifest["files"][0]["size"] -= 20
        assert "cannot be read as CSV" in inventory.error()

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            pytest.param({"fileFormat": "Avro"}, "CSV, ORC and Parquet", id="format"),
            pytest.param({"sourceBucket": None}, "sourceBucket", id="no-bucket"),
            pytest.param({"files": [{"size": 1}]}, "no key", id="file-without-key"),
            pytest.param({"files": 3}, "not a whole manifest", id="no-files"),
            pytest.param({"files": [{"key": "k", "size": "x"}]}, "not a number", id="size"),
        ],
    )
    def test_manifest_is_not_whole(self, made: Callable[[str], Inventory], change: dict[str, Any], said: str) -> None:
        inventory = made("CSV")
        inventory.manifest |= change
        assert said in inventory.error()

    def test_manifest_is_broken(self, made: Callable[[str], Inventory]) -> None:
        assert "not JSON" in made("CSV").error(text='{"sourceBucket": "source",')
        assert "no sourceBucket" in made("CSV").error(text="{}")
