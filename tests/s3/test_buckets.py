"""Whole buckets crawled: thousands of keys, odd ones among them, and some that fail under the crawl."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pytest

from crawler import run
from crawler.catalogue.reader import Catalogue
from crawler.crawl import Receipt, crawl_partition
from crawler.job import CrawlJob
from crawler.run import Crawl, InProcess, Report
from tests import servers
from tests.fits_files import BLOCK, bintable_hdu, header, image_hdu, structure, walk_bytes
from tests.s3 import proxy as proxies
from tests.s3.ceph import Ceph
from tests.s3.conftest import S3Server
from tests.s3.proxy import Proxy
from tests.s3.test_keys import KEYS, NOT_ON_MOTO
from tests.servers import LAST_MODIFIED, RangeServer

MANY = {"moto": 2_000, "ceph": 1_200}
"""Keys of no oddity: more than one page of a listing, and on moto more than one partition."""

FORBIDDEN, DELETED, REPLACED, EMPTY, JUNK, CUT = (
    "fails/forbidden.fits",
    "fails/deleted.fits",
    "fails/replaced.fits",
    "fails/empty.fits",
    "fails/junk",
    "fails/cut.fits",
)


def contents() -> list[bytes]:
    """Return thirty files, no two alike: one to five HDUs, within one read and beyond it."""
    made = []
    for number in range(30):
        data = image_hdu((10 + number, 7), f"NUMBER  = {number:>20}", bitpix=16)
        data += image_hdu((5, 5), "EXTNAME = 'SCI'", xtension="IMAGE") * (number % 3)
        data += bintable_hdu(24, 10 + number, "EXTNAME = 'CAT'", heap=1000) * (number % 2)
        if number % 5 == 0:  # a gap that no first read spans
            data += image_hdu((400, 400), bitpix=32, xtension="IMAGE") + image_hdu((2,), xtension="IMAGE")
        made.append(data)
    return made


@dataclass(frozen=True)
class Found:
    """A bucket that was crawled.

    Attributes
    ----------
    bodies : Mapping[str, bytes]
        By key, as they were last put.
    etags : Mapping[str, str]
        By key, as they were last put.
    rows : Mapping[str, Mapping[str, Any]]
        Of files, by key.
    asked : Counter of str
        Requests for each object, counted on the wire.
    listings : int
        Requests for pages, counted on the wire.
    """

    kind: str
    bucket: str
    catalogue: Path
    report: Report
    bodies: Mapping[str, bytes]
    etags: Mapping[str, str]
    rows: Mapping[str, Mapping[str, Any]]
    asked: Counter[str]
    listings: int


@pytest.fixture(scope="module", params=["moto", "ceph"])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Crawl a bucket once: through a proxy that counts, which on moto also forbids one key (Ceph does so by policy)."""
    server: S3Server = request.getfixturevalue(request.param)
    bucket = server.bucket()
    bodies, etags = filled(server, bucket)
    location = tmp_path_factory.mktemp("bucket") / "catalogue"
    options = server.options
    if server.kind == "ceph":
        forbid(server, bucket)
        options = dict(zip(("key", "secret"), Ceph.users["other"], strict=True))  # owners may do what they forbid

    def between(job: CrawlJob, partition: pa.Table, stop: Any) -> Receipt:
        """Delete and replace keys when they were listed, and before they are read."""
        listed = set(partition["url"].to_pylist())
        if f"s3://{bucket}/{DELETED}" in listed:
            server.client.delete_object(Bucket=bucket, Key=DELETED)
        if f"s3://{bucket}/{REPLACED}" in listed:
            bodies[REPLACED] = contents()[5]
            etags[REPLACED] = server.put(bucket, REPLACED, bodies[REPLACED])
        return crawl_partition(job, partition, stop)

    with pytest.MonkeyPatch.context() as patch, Proxy(server.endpoint) as proxy:
        for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_S3_"))]:
            patch.delenv(name)
        patch.setattr(run, "crawl_partition", between)
        if server.kind == "moto":
            proxy._server.RequestHandlerClass = Gate
        job = CrawlJob(
            roots=(f"s3://{bucket}",),
            catalogue=str(location),
            include=("*",),
            storage_options={**options, "endpoint_url": proxy.origin},
        )
        report = Crawl(job, InProcess(), lambda _: None).run()
    of_pages = ["list-type=2" in one.path for one in proxy.requests]
    asked = Counter(path for path, of_page in zip(raw_keys(proxy, bucket), of_pages, strict=True) if not of_page)
    rows = Catalogue(str(location)).files.to_table().to_pylist()
    return Found(
        server.kind,
        bucket,
        location,
        report,
        bodies,
        etags,
        {row["url"].removeprefix(f"s3://{bucket}/"): row for row in rows},
        asked,
        sum(of_pages),
    )


def raw_keys(proxy: Proxy, bucket: str) -> list[str]:
    """Return the key that each request was for, as it is."""
    return [unquote(one.path.partition("?")[0]).removeprefix(f"/{bucket}/") for one in proxy.requests]


def filled(server: S3Server, bucket: str) -> tuple[dict[str, bytes], dict[str, str]]:
    """Put all keys; return what was put, and its ETags."""
    made = contents()
    keys = [f"night{number % 7}/exp{number:05}.fits" for number in range(MANY[server.kind])]
    keys += [key for key in KEYS if server.kind != "moto" or key not in NOT_ON_MOTO]
    bodies = {key: made[number % len(made)] for number, key in enumerate(keys)}
    bodies |= dict.fromkeys((FORBIDDEN, DELETED, REPLACED), made[0])
    bodies |= {EMPTY: b"", JUNK: b"<html>404</html>\n", CUT: made[0][:-BLOCK]}
    return bodies, {key: server.put(bucket, key, body) for key, body in bodies.items()}


def forbid(server: S3Server, bucket: str) -> None:
    """Let everybody read and list the bucket, and nobody read one key of it."""
    everything = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    statements = [
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:ListBucket"], "Resource": everything},
        {"Effect": "Deny", "Action": ["s3:GetObject"], "Resource": [f"arn:aws:s3:::{bucket}/{FORBIDDEN}"]},
    ]
    policy = {"Version": "2012-10-17", "Statement": [{**one, "Principal": "*"} for one in statements]}
    server.client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))


class Gate(proxies._Handler):
    """A proxy that answers for one key as S3 does where it is forbidden."""

    def do_GET(self) -> None:  # noqa: N802 - as http.server calls it
        if FORBIDDEN not in self.path:
            super().do_GET()
            return
        self.server.owner.requests.append(servers.Request(self.command, self.path, {}))
        body = b'<?xml version="1.0"?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'
        self._send(403, {"Content-Type": "application/xml"}, body)


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
        assert found.listings == -(-len(found.bodies) // 1_000)
        assert found.rows[EMPTY]["requests"] == 0
        assert {found.rows[key]["requests"] for key in good(found)} <= {1, 2}


class OnDisk:
    """A file that a server reads by range.

    Attributes
    ----------
    read : int
        Bytes that were read of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        self.read = 0
        self._lock = threading.Lock()

    def get(self, start: int, stop: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(start)
            data = file.read(stop - start)
        with self._lock:
            self.read += len(data)
        return data


class Seeking(servers._Handler):
    """Serves `OnDisk` by range, and refuses to send it whole."""

    def _object(self, data: Any, headers: Mapping[str, str]) -> None:
        told = {"ETag": '"big"', "Last-Modified": LAST_MODIFIED, "Accept-Ranges": "bytes"}
        if self.command == "HEAD":
            self.send_response(200)
            for name, value in {**told, "Content-Length": str(data.size)}.items():
                self.send_header(name, value)
            self.end_headers()
            return
        first, _, last = headers["range"].removeprefix("bytes=").partition("-")
        start, stop = int(first), min(int(last) + 1, data.size)
        assert stop - start < 2**20, "a read of the data"
        self._send(206, data.get(start, stop), {**told, "Content-Range": f"bytes {start}-{stop - 1}/{data.size}"})


def test_three_gigabytes_are_not_read(tmp_path: Path) -> None:
    shape = (32_768, 16_384)  # of 2 bytes: 1 GiB
    headers = [
        header(*structure(shape, 16, first=b"SIMPLE  =                    T"), "OBJECT  = 'M 31'"),
        header(*structure(shape, 16, first=b"XTENSION= 'IMAGE   '", pcount=0, gcount=1), "EXTNAME = 'SCI'"),
        header(*structure(shape, 16, first=b"XTENSION= 'IMAGE   '", pcount=0, gcount=1), "EXTNAME = 'ERR'"),
        image_hdu((), "EXTNAME = 'LAST'", xtension="IMAGE"),
    ]
    path = tmp_path / "big.fits"
    offsets = []
    with path.open("wb") as file:
        for unit in headers:
            offsets.append(file.tell())
            file.write(unit)
            if unit is not headers[-1]:
                size = -(-(2**30) // BLOCK) * BLOCK
                file.truncate(file.tell() + size)
                file.seek(0, os.SEEK_END)
    big = OnDisk(path)
    assert big.size > 3 * 2**30
    assert path.stat().st_blocks * 512 < 2**20, "the disk has no holes"

    with RangeServer() as server:
        server.objects["big.fits"] = big  # type: ignore[assignment] # what `Seeking` serves
        server._server.RequestHandlerClass = Seeking
        job = CrawlJob(roots=(server.url("big.fits"),), catalogue=str(tmp_path / "catalogue"))
        report = Crawl(job, InProcess(), lambda _: None).run()

    assert dict(report.walked) == {"ok": 1}
    catalogue = Catalogue(str(tmp_path / "catalogue"))
    assert catalogue.hdus.to_table(columns=["header_offset"])["header_offset"].to_pylist() == offsets
    assert [catalogue.header(server.url("big.fits"), hdu).get("EXTNAME") for hdu in range(4)] == [
        None,
        "SCI",
        "ERR",
        "LAST",
    ]
    assert report.bytes_read == big.read
    assert big.read < big.size / 1_000
    assert report.requests == sum(request.method == "GET" for request in server.requests) == 4
