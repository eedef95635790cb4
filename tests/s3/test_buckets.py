"""Whole buckets crawled: thousands of keys, odd ones among them, and some that fail under the crawl."""

from __future__ import annotations

import json
import mmap
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from crawler.catalogue.reader import Catalogue
from crawler.driver import executor as executors
from crawler.driver.driver import Crawl
from crawler.driver.executor import InProcess
from crawler.driver.report import Report
from crawler.job.crawl_job import CrawlJob
from crawler.worker.partition import Receipt, crawl_partition
from tests.fits_files import BLOCK, bintable_hdu, header, image_hdu, structure, walk_bytes
from tests.s3.bucket_server import PAGE, BucketServer
from tests.s3.ceph import Ceph
from tests.s3.conftest import S3Server
from tests.s3.proxy import Proxy
from tests.s3.test_keys import KEYS
from tests.servers import Content, etag_of

MANY = {"ranges": 2_000, "ceph": 1_000}
"""Keys of no oddity: more than one page of a listing, and several partitions."""

FORBIDDEN, DELETED, REPLACED, EMPTY, JUNK, CUT = (
    "fails/forbidden.fits",
    "fails/deleted.fits",
    "fails/replaced.fits",
    "fails/empty.fits",
    "fails/junk",
    "fails/cut.fits",
)
KINDS = [f"{one}{other}" for one in "abcdef" for other in "vwxyz"]
"""Words of names: those of files that are alike have one in common, as the files of a product have."""
BIG = "huge/three_gigabytes.fits"


@cache
def contents() -> list[bytes]:
    """Return thirty files, no two alike: one to five HDUs, within one read and beyond it."""
    made = []
    for number in range(30):
        data = image_hdu((10 + number, 7), f"NUMBER  = {number:>20}", bitpix=16)
        data += image_hdu((5, 5), "EXTNAME = 'SCI'", xtension="IMAGE") * (number % 3)
        data += bintable_hdu(24, 10 + number, "EXTNAME = 'CAT'", heap=1000) * (number % 2)
        if number % 5 == 0:  # a gap that no first read spans
            data += image_hdu((250, 250), bitpix=32, xtension="IMAGE") + image_hdu((2,), xtension="IMAGE")
        made.append(data)
    return made


def three_gigabytes(path: Path) -> mmap.mmap:
    """Write a file whose data are holes, and return what is in it."""
    shape = (32_768, 16_384)  # of 2 bytes: 1 GiB
    extension: dict[str, Any] = {"first": b"XTENSION= 'IMAGE   '", "pcount": 0, "gcount": 1}
    headers = [
        header(*structure(shape, 16, first=b"SIMPLE  =                    T"), "OBJECT  = 'M 31'"),
        header(*structure(shape, 16, **extension), "EXTNAME = 'SCI'"),
        header(*structure(shape, 16, **extension), "EXTNAME = 'ERR'"),
    ]
    with path.open("w+b") as file:
        for unit in headers:
            file.write(unit)
            file.seek(-(-(2**30) // BLOCK) * BLOCK, os.SEEK_CUR)
        file.write(image_hdu((), "EXTNAME = 'LAST'", xtension="IMAGE"))
        file.flush()
        assert path.stat().st_blocks * 512 < 2**20, "the disk has no holes"
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@dataclass(frozen=True)
class Bucket:
    """A bucket to be crawled.

    Attributes
    ----------
    name : str
    wire : BucketServer or Proxy
        Where it is reached, and what counts.
    options : Mapping[str, Any]
        Credentials of whoever crawls it.
    put : callable
        Takes a key and its content, and returns its ETag.
    delete : callable
    forbid : callable
        Lets nobody read a key.
    """

    name: str
    wire: BucketServer | Proxy
    options: Mapping[str, Any]
    put: Callable[[str, Any], str]
    delete: Callable[[str], object]
    forbid: Callable[[str], object]


@contextmanager
def on_ranges() -> Iterator[Bucket]:
    """Serve a bucket from here."""
    with BucketServer() as server:

        def put(key: str, data: Content) -> str:
            server.objects[f"survey/{key}"] = data
            return etag_of(data)

        yield Bucket(
            "survey",
            server,
            {"key": "any", "secret": "any"},
            put,
            lambda key: server.objects.pop(f"survey/{key}"),
            lambda key: server.status.update({f"survey/{key}": 403}),
        )


@contextmanager
def on_ceph(ceph: S3Server) -> Iterator[Bucket]:
    """Make a bucket on Ceph, which somebody else crawls: owners may do what they forbid."""
    name = ceph.bucket()
    with Proxy(ceph.endpoint) as proxy:
        yield Bucket(
            name,
            proxy,
            dict(zip(("key", "secret"), Ceph.users["other"], strict=True)),
            lambda key, data: ceph.put(name, key, data),
            lambda key: ceph.client.delete_object(Bucket=name, Key=key),
            lambda key: forbid(ceph, name, key),
        )


@dataclass(frozen=True)
class Found:
    """A bucket that was crawled.

    Attributes
    ----------
    bodies : Mapping[str, Content]
        By key, as they were last put.
    etags : Mapping[str, str]
        By key, as they were last put.
    rows : Mapping[str, Mapping[str, Any]]
        Of files, by key.
    asked : Counter of str
        Requests for each object, counted on the wire.
    sent : Counter of str
        Bytes of each object, counted on the wire.
    listings : int
        Requests for pages, counted on the wire.
    """

    bucket: str
    catalogue: Path
    report: Report
    bodies: Mapping[str, Any] = field(repr=False)  # or a failure would show them
    etags: Mapping[str, str]
    rows: Mapping[str, Mapping[str, Any]]
    asked: Counter[str]
    sent: Counter[str]
    listings: int


@pytest.fixture(scope="module", params=["ranges", "ceph"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Found]:
    """Crawl a bucket once, in one run, and count what goes over the wire."""
    folder = tmp_path_factory.mktemp("bucket")
    with ExitStack() as stack:
        if request.param == "ceph":
            bucket = stack.enter_context(on_ceph(request.getfixturevalue("ceph")))
        else:
            bucket = stack.enter_context(on_ranges())
        bodies = filled(MANY[request.param])
        if request.param == "ranges":
            bodies[BIG] = three_gigabytes(folder / "big.fits")
        with ThreadPoolExecutor(8) as pool:
            etags = dict(zip(bodies, pool.map(bucket.put, bodies, bodies.values()), strict=True))
        bucket.forbid(FORBIDDEN)

        def between(job: CrawlJob, partition: pa.Table, stop: Any) -> Receipt:
            """Delete and replace keys when they were listed, and before they are read."""
            listed = set(partition["url"].to_pylist())
            if f"s3://{bucket.name}/{DELETED}" in listed:
                bucket.delete(DELETED)
            if f"s3://{bucket.name}/{REPLACED}" in listed:
                bodies[REPLACED] = contents()[5]
                etags[REPLACED] = bucket.put(REPLACED, bodies[REPLACED])
            return crawl_partition(job, partition, stop)

        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_S3_"))]:
            patch.delenv(name)
        patch.setattr(executors, "crawl_partition", between)
        job = CrawlJob(
            roots=(f"s3://{bucket.name}",),
            catalogue=str(folder / "catalogue"),
            include=("*",),
            storage_options={**bucket.options, "endpoint_url": bucket.wire.origin},
        )
        report = Crawl(job, InProcess(), lambda _: None).run()

        asked: Counter[str] = Counter()
        sent: Counter[str] = Counter()
        listings = 0
        for answer in bucket.wire.answered:
            path, _, query = answer.request.path.partition("?")
            if "list-type=2" in query:
                listings += 1
                continue
            key = unquote(path).removeprefix(f"/{bucket.name}/")
            asked[key] += 1
            sent[key] += answer.body if answer.status < 300 else 0  # what else is said is not of the object
        assert len(bucket.wire.answered) == len(bucket.wire.requests)
        rows = Catalogue(str(folder / "catalogue")).files.to_table().to_pylist()
        by_key = {row["url"].removeprefix(f"s3://{bucket.name}/"): row for row in rows}
        yield Found(bucket.name, folder / "catalogue", report, bodies, etags, by_key, asked, sent, listings)


def filled(many: int) -> dict[str, Content]:
    """Return what is put, by key."""
    made = contents()
    keys = [f"night{number % 7}/exp{number:05}_{KINDS[number % len(made)]}.fits" for number in range(many)]
    bodies: dict[str, Content] = {key: made[number % len(made)] for number, key in enumerate(keys + KEYS)}
    bodies |= dict.fromkeys((FORBIDDEN, DELETED, REPLACED), made[0])
    return bodies | {EMPTY: b"", JUNK: b"<html>404</html>\n", CUT: made[0][:-BLOCK]}


def forbid(server: S3Server, bucket: str, key: str) -> None:
    """Let everybody read and list the bucket, and nobody read one key of it."""
    everything = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    statements = [
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": everything},
        {"Effect": "Deny", "Action": ["s3:GetObject"], "Resource": [f"arn:aws:s3:::{bucket}/{key}"]},
    ]
    policy = {"Version": "2012-10-17", "Statement": [{**one, "Principal": "*"} for one in statements]}
    server.client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))


def good(found: Found) -> list[str]:
    """Return the keys that nothing was done to."""
    return [key for key in found.bodies if not key.startswith("fails/")]


class TestBucket:
    def test_every_key_is_a_row_and_no_other(self, found: Found) -> None:
        assert set(found.rows) == set(found.bodies)
        assert Catalogue(str(found.catalogue)).files.count_rows() == len(found.bodies)
        assert found.report.seen == found.report.listed == found.report.files == len(found.bodies)
        assert found.report.listing_ended
        assert not found.report.interrupted

    def test_every_good_key_is_whole(self, found: Found) -> None:
        walked = {body: walk_bytes(body) for body in set(found.bodies.values())}
        wrong = []
        for key in good(found):
            body, row = found.bodies[key], found.rows[key]
            expected = ("ok", None, len(walked[body].hdus), len(body), found.etags[key], 0, True)
            shown = ("status", "error", "n_hdus", "size", "etag", "trailing_bytes", "pinned")
            if tuple(row[name] for name in shown) != expected:
                wrong.append((key, expected, row))
        assert not wrong, f"{len(wrong)} rows are wrong: {wrong[:3]}"
        counts = Catalogue(str(found.catalogue)).sql("SELECT url, count(*) AS n FROM hdus GROUP BY url").to_pylist()
        hdus = {row["url"].removeprefix(f"s3://{found.bucket}/"): row["n"] for row in counts}
        assert hdus == {key: row["n_hdus"] for key, row in found.rows.items() if row["n_hdus"]}

    def test_every_header_is_that_of_its_key(self, found: Found) -> None:
        headers = Catalogue(str(found.catalogue)).hdus.to_table(columns=["url", "hdu", "header"]).to_pylist()
        walked = {body: walk_bytes(body).hdus for body in set(found.bodies.values())}
        for row in headers:
            body = found.bodies[row["url"].removeprefix(f"s3://{found.bucket}/")]
            assert row["header"] == walked[body][row["hdu"]].header, row["url"]

    @pytest.mark.parametrize(
        ("key", "status", "said"),
        [
            pytest.param(FORBIDDEN, "unreadable", "403", id="forbidden"),
            pytest.param(DELETED, "unreadable", "no such object", id="deleted"),
            pytest.param(EMPTY, "not-fits", "", id="empty"),
            pytest.param(JUNK, "not-fits", "", id="junk"),
            pytest.param(CUT, "truncated", "", id="cut"),
        ],
    )
    def test_what_fails_is_a_row_that_says_why(self, found: Found, key: str, status: str, said: str) -> None:
        row = found.rows[key]

        assert (row["status"], row["size"], row["etag"]) == (status, len(found.bodies[key]), found.etags[key])
        assert said in row["error"]
        assert row["error"].isprintable()
        assert row["n_hdus"] == (len(walk_bytes(found.bodies[key]).hdus) if key == CUT else 0)

    def test_what_was_replaced_is_what_it_became(self, found: Found) -> None:
        row, body = found.rows[REPLACED], found.bodies[REPLACED]

        assert (row["status"], row["error"], row["pinned"]) == ("ok", None, True)
        assert (row["size"], row["etag"]) == (len(body), found.etags[REPLACED])
        assert row["n_hdus"] == len(walk_bytes(body).hdus)

    def test_counts_are_those_of_the_rows(self, found: Found) -> None:
        statuses = Counter(row["status"] for row in found.rows.values())
        assert found.report.walked == statuses
        assert statuses == {"ok": len(good(found)) + 1, "unreadable": 2, "not-fits": 2, "truncated": 1}
        assert found.report.hdus == sum(row["n_hdus"] for row in found.rows.values())
        assert found.report.bytes_read == sum(row["bytes_read"] for row in found.rows.values())
        assert found.report.first_error is not None
        assert found.report.first_error.isprintable()

    def test_requests_are_those_on_the_wire(self, found: Found) -> None:
        counted = Counter({key: row["requests"] for key, row in found.rows.items() if row["requests"]})
        assert counted == found.asked
        assert found.report.requests == found.asked.total()
        assert found.listings == -(-len(found.bodies) // PAGE)
        assert found.rows[EMPTY]["requests"] == 1  # a listing may be wrong
        assert {found.rows[key]["requests"] for key in good(found) if key != BIG} <= {1, 2}

    def test_bytes_are_those_on_the_wire(self, found: Found) -> None:
        counted = Counter({key: row["bytes_read"] for key, row in found.rows.items() if row["bytes_read"]})
        assert counted == +found.sent
        assert found.report.bytes_read == found.sent.total() > 0

    @pytest.mark.parametrize("found", ["ranges"], indirect=True)
    def test_three_gigabytes_are_not_read(self, found: Found) -> None:
        catalogue = Catalogue(str(found.catalogue))
        url = f"s3://{found.bucket}/{BIG}"
        unit = BLOCK + -(-(2**30) // BLOCK) * BLOCK
        hdus = catalogue.hdus.to_table(columns=["header_offset"], filter=pc.field("url") == url)

        assert hdus["header_offset"].to_pylist() == [0, unit, 2 * unit, 3 * unit]
        assert [catalogue.header(url, hdu).get("EXTNAME") for hdu in range(4)] == [None, "SCI", "ERR", "LAST"]
        assert found.rows[BIG]["size"] == len(found.bodies[BIG]) == 3 * unit + BLOCK > 3 * 2**30
        assert found.asked[BIG] == 4

    @pytest.mark.parametrize("found", ["ranges"], indirect=True)
    def test_hardly_anything_of_the_bucket_is_read(self, found: Found) -> None:
        assert len(found.bodies) > 2_000
        assert found.sent.total() < sum(row["size"] for row in found.rows.values()) / 100
