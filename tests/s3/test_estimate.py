"""``crawler estimate`` of buckets: estimates beside what a crawl requests of the server, and stores that refuse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import crawler as package
from crawler.catalogue.folder import open_folder
from crawler.errors import CrawlerError
from crawler.estimation import Estimate, estimate, fingerprint_of, load_estimate
from crawler.fits.policy import read_policy
from crawler.job.crawl_job import CrawlJob
from crawler.job.scope import Scope
from tests.fits_files import image_hdu
from tests.s3.bucket_server import BucketServer
from tests.s3.ceph import Ceph
from tests.s3.conftest import S3Server
from tests.s3.fault_proxy import FaultProxy
from tests.servers import RangeServer
from tests.unit.test_cli import Run, commands
from tests.unit.test_estimate import RAW, files_of_two_products, lines_of

SECRET = "hush-hush"


@pytest.fixture
def crawler(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return commands(monkeypatch, capsys, tmp_path)


@pytest.fixture(scope="module")
def server() -> Iterator[BucketServer]:
    """Serve a bucket of two products; its name and keys, and so every sample of it, are the same each time."""
    with BucketServer({f"survey/{name}": data for name, data in files_of_two_products()}) as server:
        yield server


def options(server: BucketServer) -> dict[str, str]:
    return {"endpoint_url": server.origin, "key": "any", "secret": SECRET}


class TestEstimate:
    @pytest.mark.parametrize("sample", [40, 100])
    def test_intervals_hold_what_a_crawl_takes(self, server: BucketServer, tmp_path: Path, sample: int) -> None:
        server.requests.clear()
        how: dict[str, Any] = {
            "storage_options": options(server),
            "concurrency": 2,
        }  # hardly anything is left to chance
        found = estimate("s3://survey", workers=0, sample=sample, **how)
        asked = [one.path for one in server.requests]
        assert sum("list-type=2" in path for path in asked) == found.spent.list_requests == found.list_requests == 1
        assert sum(one.range is not None for one in server.requests) == found.spent.requests
        report = package.index("s3://survey", str(tmp_path / "made"), **how)
        for actual, span in (
            (report.requests, found.requests),
            (report.bytes_read, found.bytes_read),
            (report.hdus, found.hdus),
            (report.cards, found.cards),
        ):
            assert actual in span
            assert span.low < span.high
            assert span.value == pytest.approx(actual, rel=0.1)
        stored = sum(one.size for one in package.Catalogue(str(tmp_path / "made")).fragments)
        assert stored in found.catalogue_bytes

    def test_one_product_is_estimated_closely(self, server: BucketServer, tmp_path: Path) -> None:
        found = estimate("s3://survey/raw", workers=0, sample=30, storage_options=options(server))
        report = package.index("s3://survey/raw", str(tmp_path / "made"), storage_options=options(server))
        assert found.requests.value == pytest.approx(report.requests, rel=0.02)
        assert report.requests in found.requests
        assert (found.requests.high - found.requests.low) / found.requests.value < 0.2

    def test_estimate_is_the_same_each_time(self, server: BucketServer) -> None:
        first, again = (estimate("s3://survey", sample=30, storage_options=options(server)) for _ in range(2))
        assert (first.requests, first.bytes_read, first.cards) == (again.requests, again.bytes_read, again.cards)

    def test_prices_are_those_of_costs(self, server: BucketServer) -> None:
        costs = {"usd_per_request": 1e-3, "usd_per_list": 1.0, "usd_per_gb": 100.0, "usd_per_hour": 0.0}
        found = estimate("s3://survey", sample=30, storage_options=options(server), costs=costs)
        assert found.usd_requests.value == pytest.approx(found.requests.value * 1e-3 + 1)
        assert found.usd_transfer.high == pytest.approx(found.bytes_read.high * 1e-7)
        assert found.usd_compute.value == 0
        assert found.spent.usd == pytest.approx(found.spent.requests * 1e-3 + 1 + found.spent.bytes_read * 1e-7)

    def test_first_byte_seconds_replace_what_was_measured(self, server: BucketServer) -> None:
        slow = {"first_byte_seconds": 60.0}
        found = estimate("s3://survey", sample=30, workers=2, storage_options=options(server), costs=slow)
        assert (found.limited_by, found.request_seconds) == ("the duration of requests", 60.0)
        assert found.duration.value == pytest.approx(found.requests.value * 60 / 32 / 2, abs=2)

    def test_rate_limit_bounds_the_duration_and_the_sample(self, server: BucketServer) -> None:
        limited = estimate("s3://survey", sample=9, storage_options=options(server), max_requests_per_second=40.0)
        assert limited.limited_by == "max_requests_per_second"
        assert limited.duration.value == pytest.approx(limited.requests.value / 40, abs=2)
        assert limited.spent.seconds > (limited.spent.requests - 1) / 40

    def test_duration_on_a_slow_store_is_that_of_the_crawl(self, server: BucketServer, tmp_path: Path) -> None:
        with FaultProxy(server.origin, delay=0.1) as proxy:
            how: dict[str, Any] = {
                "storage_options": {**options(server), "endpoint_url": proxy.origin},
                "concurrency": 8,
            }
            found = estimate("s3://survey/raw", workers=0, sample=40, **how)
            report = package.index("s3://survey/raw", str(tmp_path / "made"), **how)
        assert 0.1 < found.request_seconds < 0.2
        assert found.limited_by == "the duration of requests"
        assert report.seconds in found.duration
        assert found.duration.value / 2 < report.seconds < found.duration.value * 2


class TestMaxKeys:
    @pytest.mark.parametrize(("most", "pages"), [(1, 1), (10, 1), (1000, 1), (1001, 2), (2500, 3)])
    def test_no_more_pages_are_asked_for_than_hold_the_keys(self, most: int, pages: int) -> None:
        data = image_hdu((10,))
        with BucketServer({f"survey/exp{number:05}.fits": data for number in range(12_500)}) as server:
            found = estimate("s3://survey", sample=3, max_keys=most, storage_options=options(server))
            asked = sum("list-type=2" in one.path for one in server.requests)
        assert (asked, found.list_requests) == (pages, pages)
        assert (found.listed, found.files) == (most, most)
        assert not found.complete

    def test_listing_of_fewer_keys_is_complete(self, server: BucketServer) -> None:
        found = estimate("s3://survey/raw", sample=3, max_keys=RAW + 1, storage_options=options(server))
        assert (found.complete, found.listed) == (True, RAW)

    def test_keys_that_no_filter_takes_count(self) -> None:
        with BucketServer({f"survey/{number:05}.txt": b"." for number in range(3000)}) as server:
            with pytest.raises(CrawlerError, match="1,000 objects seen, none has a FITS name"):
                estimate("s3://survey", max_keys=10, storage_options=options(server))
            assert sum("list-type=2" in one.path for one in server.requests) == 1

    def test_web_folders_beyond_the_keys_are_not_read(self) -> None:
        data = image_hdu((10,))
        names = [f"night{night:02}/exp{number}.fits" for night in range(30) for number in range(5)]
        with RangeServer(dict.fromkeys(names, data)) as server:
            found = estimate(server.url(""), workers=0, max_keys=10)
            indexes = [one.path for one in server.requests if one.path.endswith("/")]
        assert (found.listed, found.complete) == (10, False)
        assert len(indexes) == 3


class TestCommand:
    def test_estimate_is_saved_on_s3(self, crawler: Run, server: BucketServer, moto: S3Server) -> None:
        bucket = moto.bucket()
        there = [f"--catalogue-option={name}={value}" for name, value in moto.options.items()]
        store = [f"--storage-option={name}={value}" for name, value in options(server).items()]
        ended = crawler(
            "estimate", "s3://survey/raw", "-c", f"s3://{bucket}/made", *there, *store, "--json", "--sample", 9
        )
        assert (ended.code, ended.err) == (0, "")
        found = Estimate.from_json(ended.out)
        assert load_estimate(open_folder(f"s3://{bucket}/made", moto.options), found.fingerprint) == found
        assert (
            fingerprint_of(CrawlJob(("s3://survey/raw",), "elsewhere", scope=Scope(policy=read_policy())))
            == found.fingerprint
        )
        (kept,) = moto.client.list_objects_v2(Bucket=bucket)["Contents"]
        text = moto.client.get_object(Bucket=bucket, Key=kept["Key"])["Body"].read().decode()
        assert json.loads(text)["files"] == RAW
        assert SECRET not in text
        assert moto.secret not in text

    def test_table_names_cost_and_duration(self, crawler: Run, server: BucketServer) -> None:
        store = [f"--storage-option={name}={value}" for name, value in options(server).items()]
        ended = crawler("estimate", "s3://survey", *store, "--sample", 30, "--workers", 4, "--cost", "usd_per_gb=0.09")
        assert (ended.code, ended.err) == (0, "")
        lines = lines_of(ended.out)
        assert lines["requests"].endswith(" GET, 1 LIST")
        assert "for requests, $0.0" in lines["store"]
        assert " on 4 workers, limited by " in lines["time"]

    def test_file_timeout_is_an_option_of_estimate(self, crawler: Run, server: BucketServer) -> None:
        store = [f"--storage-option={name}={value}" for name, value in options(server).items()]
        ended = crawler("estimate", "s3://survey/raw", *store, "--sample", 5, "--file-timeout", 60)
        assert (ended.code, ended.err) == (0, "")

    def test_transfer_is_priced_where_bytes_are_optimized(self, server: BucketServer) -> None:
        how: dict[str, Any] = {"sample": 30, "storage_options": options(server)}
        found = estimate("s3://survey/raw", optimize="bytes", **how)
        assert found.usd_transfer.value == pytest.approx(found.bytes_read.value * 0.09e-9)
        free = estimate("s3://survey/raw", optimize="bytes", costs={"usd_per_gb": 0.0}, **how)
        assert free.usd_transfer.value == 0

    def test_unreachable_server_is_one_line(self, crawler: Run, tmp_path: Path) -> None:
        with BucketServer() as gone:
            endpoint = gone.origin
        ended = crawler("estimate", "s3://survey", "--endpoint-url", endpoint, "--anon", "-c", "made")
        assert (ended.code, ended.out) == (1, "")
        assert ended.fault.startswith("cannot list s3://survey: ")
        assert not Path("made").exists()

    def test_wrong_credentials(self, crawler: Run, ceph: S3Server) -> None:
        bucket = ceph.bucket()
        ceph.put(bucket, "a.fits", image_hdu((10,)))
        who = ["--endpoint-url", ceph.endpoint, "--storage-option=key=owner-key", f"--storage-option=secret={SECRET}"]
        assert Ceph.users["owner"][0] == "owner-key"
        ended = crawler("estimate", f"s3://{bucket}/", *who, "-c", "made")
        assert (ended.code, ended.out) == (1, "")
        assert "secret access key is wrong" in ended.fault
        assert SECRET not in ended.err
        assert not Path("made").exists()
