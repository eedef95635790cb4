"""A catalogue on S3 itself: written, added to, removed from, read, vacuumed, and all that may be wrong."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pytest
from astropy.io import fits

from crawler.catalogue import deleting
from crawler.catalogue import vacuum as vacuuming
from crawler.catalogue.folder import open_folder
from crawler.catalogue.log import CatalogueLog, first_line
from crawler.catalogue.reader import Catalogue
from crawler.catalogue.records import listings
from crawler.catalogue.records import saved_listing as kept
from crawler.catalogue.schema import TABLES
from crawler.driver.driver import Crawl
from crawler.driver.executor import InProcess
from crawler.driver.report import Report
from crawler.errors import CatalogueError
from crawler.job.crawl_job import CrawlJob
from crawler.job.settings import Settings
from crawler.stores.base import LISTING_SCHEMA
from crawler.stores.s3.filesystem import S3Files
from tests.conftest import TREE_FILES, sibling
from tests.s3.ceph import Ceph
from tests.s3.conftest import S3Server
from tests.tables import multiset, same_tables

DEAD_SECONDS = 30.0


SEVERAL = Settings(first_partition=20, growth=1, partition=20, commit_receipts=1)
"""Several partitions and commits of few files."""


@pytest.fixture
def location(server: S3Server) -> str:
    return f"s3://{server.bucket()}/a catalogue/of ours"


def crawled(location: str, options: dict[str, Any], *roots: Path, **more: Any) -> Report:
    given = {"roots": tuple(map(str, roots)), "catalogue": location, "catalogue_options": options, "settings": SEVERAL}
    job = CrawlJob(**{**given, **more})
    return Crawl(job, InProcess(), lambda _: None).run()


def fresh(tmp_path: Path, *roots: Path) -> Catalogue:
    """Return a new catalogue on the local disk."""
    crawled(str(tmp_path / "fresh"), {}, *roots)
    return Catalogue(str(tmp_path / "fresh"))


def opened(location: str, server: S3Server) -> Catalogue:
    return Catalogue(location, storage_options=server.options)


def lying_there(location: str, server: S3Server) -> set[str]:
    """Return the Parquet files below a catalogue, as its log would name them."""
    bucket, _, prefix = location.removeprefix("s3://").partition("/")
    listed = server.client.list_objects_v2(Bucket=bucket, Prefix=prefix)["Contents"]
    keys = [entry["Key"].removeprefix(f"{prefix}/") for entry in listed]
    return {key for key in keys if key.startswith("table=")}


def in_use(location: str, server: S3Server) -> set[str]:
    return {one.path for one in opened(location, server).fragments}


def test_first_run_again_and_removal(tmp_path: Path, tree: Path, server: S3Server, location: str) -> None:
    first = crawled(location, server.options, tree)
    assert (first.files, first.skipped) == (TREE_FILES, 0)
    assert lying_there(location, server) == in_use(location, server)

    nothing = crawled(location, server.options, tree)
    assert (nothing.files, nothing.skipped, nothing.requests, nothing.version) == (0, TREE_FILES, 0, first.version)

    (tree / "night1" / "exp010.fits").write_bytes(sibling(10, exposure=99.0))
    (tree / "night1" / "new.fits").write_bytes(sibling(3))
    for number in (0, 1, 2):
        (tree / "night0" / f"exp00{number}.fits").unlink()
    again = crawled(location, server.options, tree)

    assert (again.files, again.skipped, again.removed) == (2, TREE_FILES - 4, 3)
    same_tables(opened(location, server), fresh(tmp_path, tree))


def test_reading(tree: Path, server: S3Server, location: str) -> None:
    crawled(location, server.options, tree)
    catalogue = opened(location, server)
    path = tree / "night1" / "exp012.fits"

    assert catalogue.header(str(path), 0)["OBJECT"] == "M 12"
    assert catalogue.header(path.as_uri(), 1) == fits.Header.fromstring(catalogue.header_bytes(str(path), 1))
    assert catalogue.header(str(path), 1)["NAXIS1"] == 22
    query = "SELECT count(*) AS n FROM cards JOIN files USING (url) WHERE keyword = 'OBJECT' AND status = 'ok'"
    assert catalogue.sql(query)["n"].to_pylist() == [41]
    with pytest.raises(CatalogueError, match="no HDU 9") as caught:
        catalogue.header(str(path), 9)
    assert caught.value.args
    assert "\n" not in str(caught.value)


def test_an_earlier_version(tree: Path, server: S3Server, location: str) -> None:
    first = crawled(location, server.options, tree / "night0")
    crawled(location, server.options, tree / "night1")

    earlier = Catalogue(location, version=first.version, storage_options=server.options)
    assert earlier.files.count_rows() == 10
    assert opened(location, server).files.count_rows() == 20


def test_two_runs_at_once_both_land(tmp_path: Path, tree: Path, server: S3Server, location: str) -> None:
    together = threading.Barrier(2)
    ended: list[Report | Exception] = []

    def work(night: str) -> None:
        try:
            together.wait(60)
            ended.append(crawled(location, server.options, tree / night))
        except Exception as error:
            ended.append(error)

    threads = [threading.Thread(target=work, args=(night,)) for night in ("night0", "night1")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)

    assert [getattr(one, "files", one) for one in ended] == [10, 10]
    same_tables(opened(location, server), fresh(tmp_path, tree / "night0", tree / "night1"))


def test_what_another_run_replaces_is_read(
    tree: Path, server: S3Server, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = crawled(location, server.options, tree / "night0")
    folder = open_folder(location, server.options)
    bucket, _, about = folder.join(f"{kept.LISTINGS}/{first.crawl}/{kept.ABOUT}").partition("/")
    told = server.client.get_object(Bucket=bucket, Key=about)["Body"].read()
    replaced: list[str] = []
    ask = S3Files._call_s3

    async def replaced_after(self: S3Files, operation: str, *args: Any, **asked: Any) -> Any:
        answer = await ask(self, operation, *args, **asked)
        if asked.get("Key") == about:
            replaced.append(operation)
            server.put(bucket, about, told + b" " * len(replaced))
        return answer

    monkeypatch.setattr(S3Files, "_call_s3", replaced_after)
    crawled(location, server.options, tree / "night1")

    assert "get_object" in replaced
    assert opened(location, server).files.count_rows() == 20


def test_a_commit_that_was_overtaken_is_made_again(tmp_path: Path, tree: Path, server: S3Server, location: str) -> None:
    # The inner run commits between the listing of the outer one and its commit of what it walked.
    inner: list[Report] = []

    def progress(report: Report) -> None:
        if report.files and not inner:
            inner.append(report)
            inner[0] = crawled(location, server.options, tree / "night0")

    job = CrawlJob(
        roots=(str(tree / "night1"),), catalogue=location, catalogue_options=server.options, settings=SEVERAL
    )
    outer = Crawl(job, InProcess(), progress).run()

    assert (outer.files, inner[0].files) == (10, 10)
    same_tables(opened(location, server), fresh(tmp_path, tree / "night0", tree / "night1"))


def test_vacuum_now(tree: Path, server: S3Server, location: str) -> None:
    crawled(location, server.options, tree)
    (tree / "night1" / "exp010.fits").write_bytes(sibling(10, exposure=99.0))
    (tree / "night2" / "exp020.fits").unlink()
    crawled(location, server.options, tree)
    catalogue = opened(location, server)
    stale = lying_there(location, server) - in_use(location, server)
    assert stale
    assert vacuuming.vacuum(location, storage_options=server.options).deleted == 0

    done = vacuuming.vacuum(location, now=True, storage_options=server.options)

    assert done.deleted == len(stale)
    assert done.bytes > 0
    assert lying_there(location, server) == in_use(location, server)
    folder = open_folder(location, server.options)
    for name, schema in TABLES.items():
        plain = pads.dataset(folder.join(f"table={name}"), schema=schema, filesystem=folder.filesystem)
        assert multiset(plain.to_table()) == multiset(getattr(catalogue, name).to_table())


def test_a_kept_listing(server: S3Server, location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "FILE_KEYS", 3)
    folder = open_folder(location, server.options)
    of = kept.fingerprint(["s3://bucket/"], None, [])
    long_ago = datetime.now(UTC) - timedelta(days=9)
    urls = [["s3://bucket/b", "s3://bucket/a"], ["s3://bucket/é"], ["s3://bucket/z"]]
    rows = [pa.Table.from_pylist([{"url": url} for url in some], schema=LISTING_SCHEMA) for some in urls]
    for name, partitions in {"first": rows[:1], "second": rows}.items():
        writer = kept.ListingWriter(folder, name, of, {"roots": ["s3://bucket/"]})
        for partition in partitions:
            writer.write(partition)
        writer.end(4, [])
    dead = kept.ListingWriter(folder, "dead", "other", {})
    dead.write(rows[0])
    dead.close()
    CatalogueLog(location, server.options).create()  # beside it

    found = listings.unfinished(folder, of, long_ago)

    assert found is not None
    assert (found.id, found.keys, [file.keys for file in found.files]) == ("second", 4, [3, 1])
    assert [one["url"].to_pylist() for one in found.partitions()] == urls
    assert found.dataset().count_rows() == 4
    found.finish()
    assert listings.unfinished(folder, of, long_ago) is None
    assert vacuuming.vacuum(location, now=True, storage_options=server.options).deleted == 4
    assert [one.id for one in listings.kept_listings(folder)] == ["second"]
    assert opened(location, server).files.count_rows() == 0


def test_many_files_are_deleted_with_few_requests(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deleting, "_AT_ONCE", 4)
    bucket = server.bucket()
    keys = [f"a [cat]alogue*/é?&{number}" for number in range(9)]
    for key in [*keys, "kept"]:
        server.put(bucket, key, b"x")
    folder = open_folder(f"s3://{bucket}/a [cat]alogue*", server.options)
    store = folder.filesystem.handler.fs
    asked: list[str] = []
    ask = store.call_s3
    monkeypatch.setattr(store, "call_s3", lambda method, **told: asked.append(method) or ask(method, **told))

    deleting.delete_files(folder, [f"{bucket}/{key}" for key in [*keys, "a [cat]alogue*/not there"]])
    deleting.delete_files(folder, [])

    assert asked == ["delete_objects"] * 3
    left = server.client.list_objects_v2(Bucket=bucket)["Contents"]
    assert [entry["Key"] for entry in left] == ["kept"]


def test_files_that_may_not_be_deleted(ceph: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = ceph.bucket()
    ceph.put(bucket, "catalogue/x", b"x")
    key, secret = Ceph.users["other"]
    folder = open_folder(f"s3://{bucket}/catalogue", {**ceph.options, "key": key, "secret": secret})

    with pytest.raises(PermissionError) as caught:
        deleting.delete_files(folder, [f"{bucket}/catalogue/x"])
    assert first_line(caught.value) == "AccessDenied"

    # Scripted: neither server refuses one key of several, as S3 does with a 200 (DeleteObjects, API Reference).
    refused = {"Errors": [{"Key": "catalogue/x", "Code": "AccessDenied", "Message": "Access Denied"}]}
    monkeypatch.setattr(folder.filesystem.handler.fs, "call_s3", lambda *_, **__: refused)
    with pytest.raises(OSError, match="AccessDenied: Access Denied: catalogue/x"):
        deleting.delete_files(folder, [f"{bucket}/catalogue/x", f"{bucket}/catalogue/y"])


def well_said(error: Exception) -> None:
    text = str(error)
    assert text.isprintable()
    assert len(text) < 500
    assert "secret-" not in text
    assert not text.endswith((":", " "))


OPERATIONS: dict[str, Callable[[str, dict[str, Any], Path], object]] = {
    "write": crawled,
    "read": lambda location, options, _: Catalogue(location, storage_options=options),
    "vacuum": lambda location, options, _: vacuuming.vacuum(location, now=True, storage_options=options),
}


@pytest.fixture(params=OPERATIONS)
def operation(request: pytest.FixtureRequest) -> Callable[[str, dict[str, Any], Path], object]:
    return OPERATIONS[request.param]


class TestWrong:
    """Whoever writes, reads or vacuums is told in one line, and soon."""

    def test_no_such_bucket(self, server: S3Server, tree: Path, operation: Callable[..., object]) -> None:
        with pytest.raises(CatalogueError, match=r"NoSuchBucket\b|bucket|no catalogue here") as caught:
            operation("s3://not-there-at-all/catalogue", server.options, tree / "night0")
        well_said(caught.value)

    @pytest.mark.parametrize(
        ("key", "secret"),
        [("nobody", "secret-x"), ("owner-key", "secret-x"), Ceph.users["other"]],
        ids=["unknown key", "wrong secret", "somebody else"],
    )
    def test_credentials(
        self, ceph: S3Server, tree: Path, operation: Callable[..., object], key: str, secret: str
    ) -> None:
        location = f"s3://{ceph.bucket()}/catalogue"

        with pytest.raises(CatalogueError) as caught:
            operation(location, {**ceph.options, "key": key, "secret": secret}, tree / "night0")
        well_said(caught.value)

    def test_dead_endpoint(self, moto: S3Server, tree: Path) -> None:
        def seconds(operation: Callable[..., object], options: dict[str, Any]) -> float:
            begun = time.monotonic()
            with pytest.raises(CatalogueError) as caught:
                operation("s3://bucket/catalogue", options, tree / "night0")
            well_said(caught.value)
            return time.monotonic() - begun

        with socket.socket() as held, ThreadPoolExecutor() as pool:  # bound, and nobody listens
            held.bind(("127.0.0.1", 0))
            options = {**moto.options, "endpoint_url": f"http://127.0.0.1:{held.getsockname()[1]}"}
            taken = [pool.submit(seconds, one, options) for one in OPERATIONS.values()]
            assert [one.result() < DEAD_SECONDS for one in taken] == [True] * len(OPERATIONS)

    def test_another_thing_is_there(self, server: S3Server, tree: Path) -> None:
        bucket = server.bucket()
        server.put(bucket, "folder/notes.txt", b"mine")

        with pytest.raises(CatalogueError, match="other things") as caught:
            crawled(f"s3://{bucket}/folder", server.options, tree / "night0")
        well_said(caught.value)

    def test_a_damaged_one(self, server: S3Server, tree: Path, location: str) -> None:
        crawled(location, server.options, tree / "night0")
        log = CatalogueLog(location, server.options)
        for fragment in log.snapshot().of("files"):
            log.folder.filesystem.delete_file(log.folder.join(fragment.path))

        with pytest.raises(CatalogueError, match="is damaged") as caught:
            crawled(location, server.options, tree / "night0")
        well_said(caught.value)
