"""``--max-usd``: a run spends no more, and the same command comes further or says what it needs."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from distributed import Client

from crawler.catalogue.reader import Catalogue
from crawler.cluster import DaskExecutor, local_client
from crawler.driver import driver as run
from crawler.driver.budget import Budget, dollars
from crawler.driver.driver import Crawl
from crawler.driver.executor import Executor, InProcess
from crawler.driver.report import Report
from crawler.errors import ObjectNotFoundError, UsageError
from crawler.fits.policy import Costs
from crawler.job.crawl_job import CrawlJob
from crawler.job.settings import Settings
from crawler.stores.base import LISTING_SCHEMA
from tests.fits_files import image_hdu
from tests.s3.bucket_server import BucketServer
from tests.tables import same_tables
from tests.unit.test_cli import Run, commands

FILES = 1_000
LIST, GET = 5e-6, 4e-7  # dollars a request
SMALL = Settings(first_partition=300, partition=300)


@pytest.fixture(scope="module")
def server() -> Iterator[BucketServer]:
    """Serve a bucket of files that one request reads, and of other things."""
    files = {f"survey/{number:04}.fits": image_hdu((number,)) for number in range(FILES)}
    others = {f"mixed/{number:04}.txt": b"" for number in range(2_999)}
    many = b"".join(image_hdu((60_000,), xtension="IMAGE" if at else None) for at in range(40))
    with BucketServer({**files, **others, "mixed/z.fits": image_hdu((1,)), "deep/x.fits": many}) as made:
        yield made


@pytest.fixture(autouse=True)
def _no_requests_yet(server: BucketServer) -> None:
    server.requests.clear()
    server.status.clear()


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return tmp_path / "catalogue"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with local_client(2) as made:
        yield made


def options(server: BucketServer) -> dict[str, str]:
    return {"endpoint_url": server.origin, "key": "any", "secret": "any"}


def job(server: BucketServer, location: Path, bucket: str, limit: float | None, **more: Any) -> CrawlJob:
    given = {"storage_options": options(server), "settings": SMALL, "max_usd": limit, **more}
    return CrawlJob(roots=(f"s3://{bucket}",), catalogue=str(location), **given)


def crawled(job: CrawlJob, executor: Executor | None = None) -> Report:
    return Crawl(job, executor or InProcess(), lambda _: None).run()


def needed(text: str) -> float:
    """Return the amount that a message says is needed."""
    (amount,) = re.findall(r"at least \$([0-9.]+) is needed", text)
    return float(amount)


class TestRepeated:
    @pytest.mark.parametrize("executor", ["in process", "on a cluster"])
    def test_each_run_comes_further_and_spends_no_more(
        self, tmp_path: Path, location: Path, server: BucketServer, executor: str, request: pytest.FixtureRequest
    ) -> None:
        on = InProcess() if executor == "in process" else DaskExecutor(request.getfixturevalue("client"))
        limit = 0.0002
        walked = 0
        runs = 0
        while walked < FILES:
            runs += 1
            server.requests.clear()
            report = crawled(job(server, location, "survey", limit), on)
            asked = [one.path for one in server.requests]
            lists = sum("list-type=2" in path for path in asked)
            spent = lists * LIST + (len(asked) - lists) * GET
            assert spent <= limit
            assert report.usd == pytest.approx(spent)
            assert report.skipped <= walked < walked + report.files
            walked += report.files
            stopped = f"{dollars(report.usd)} of --max-usd $0.0002 is spent"
            assert report.stopped == (stopped if walked < FILES else None)
        assert 2 < runs < 6
        crawled(job(server, tmp_path / "undisturbed", "survey", None))
        same_tables(Catalogue(str(location)), Catalogue(str(tmp_path / "undisturbed")))

    def test_by_the_command(
        self,
        location: Path,
        server: BucketServer,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        crawler: Run = commands(monkeypatch, capsys, tmp_path)
        arguments = ["index", "s3://survey", "-c", location, "--workers", 0, "--endpoint-url", server.origin]
        arguments += ["--storage-option", "key=any", "--storage-option", "secret=any", "--max-usd", "0.0003"]

        first, second = crawler(*arguments), crawler(*arguments)

        assert first.code == 1
        assert re.fullmatch(
            r"crawler: \$0\.00029\d* of --max-usd \$0\.0003 is spent; what was walked is in the catalogue, the same "
            r"command goes on from there\n",
            first.err,
        )
        assert "cost       $0.00029" in first.out
        assert (second.code, second.err) == (0, "")


class TestTooLittle:
    def test_for_a_single_file_is_wrong_usage(self, location: Path, server: BucketServer) -> None:
        with pytest.raises(UsageError, match=r"--max-usd \$0.000001 does not pay for a single file") as caught:
            crawled(job(server, location, "survey", 1e-6))

        assert server.requests == []
        assert crawled(job(server, location, "survey", needed(str(caught.value)))).files > 0

    def test_for_more_than_the_listing_says_what_is_needed(self, location: Path, server: BucketServer) -> None:
        limit = 3 * LIST + 3e-6  # a file that nothing is known of is taken for ten requests

        report = crawled(job(server, location, "mixed", limit))

        assert (report.files, report.listing_requests) == (0, 3)
        assert report.stopped is not None
        assert "does not pay for the next file" in report.stopped
        again = crawled(job(server, location, "mixed", limit))
        assert again.stopped == report.stopped
        done = crawled(job(server, location, "mixed", needed(report.stopped)))
        assert (done.files, done.stopped) == (1, None)

    def test_for_the_listing_stops_it(self, location: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = EndlessStore()
        monkeypatch.setattr(run, "open_store", lambda *_, **__: store)
        try:
            report = crawled(CrawlJob(roots=("s3://bucket/",), catalogue=str(location), max_usd=0.001))
        finally:
            store.over.set()

        assert not report.interrupted
        assert report.nothing_found is None
        assert report.stopped is not None
        assert report.stopped.startswith("--max-usd $0.001 does not pay for the listing, which has cost $0.00")
        assert not location.exists()

    def test_for_more_than_what_is_walked_by_each_run(self, location: Path, server: BucketServer) -> None:
        server.status.update({f"survey/{number:04}.fits": 403 for number in range(FILES)})
        first = crawled(job(server, location, "survey", 0.0002))

        second = crawled(job(server, location, "survey", 0.0002))

        assert first.walked.keys() == {"unreadable"}
        assert first.stopped is not None
        assert first.stopped.endswith("is spent")
        assert second.rewalked == second.files > 0
        assert second.stopped is not None
        assert "files that the catalogue had already" in second.stopped

    def test_for_the_very_last_file_is_no_reason_to_stop(self, location: Path, server: BucketServer) -> None:
        report = crawled(job(server, location, "deep", 0.0021, costs=Costs(usd_per_gb=10.0)))

        assert report.usd > 0.0021
        assert (report.stopped, report.files, report.walked["ok"]) == (None, 1, 1)


@dataclass
class EndlessStore:
    """Lists pages for ever, of objects that are not FITS files."""

    list_requests: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def head(self, url: str) -> Any:
        raise ObjectNotFoundError(url, "no such object")

    def list(self, _: str) -> Iterator[pa.RecordBatch]:
        while not self.over.is_set():
            self.list_requests += 1
            yield pa.RecordBatch.from_pylist(
                [{"url": f"s3://bucket/{self.list_requests:09}.txt"}], schema=LISTING_SCHEMA
            )


class TestBudget:
    def test_nothing_is_charged_for_a_disk_or_a_web_server(self) -> None:
        for root in ("/data", "file:///data/", "https://host/data/", "http://host/"):
            budget = Budget(CrawlJob(roots=(root,), catalogue="c", max_usd=1e-9))
            report = Report("id", "c", requests=10**9, listing_requests=10**9)
            assert budget.affordable(report) == float("inf")
            assert (budget.spent(report), budget.is_spent(report)) == (0.0, False)

    def test_files_under_way_are_counted_as_paid(self) -> None:
        budget = Budget(CrawlJob(roots=("s3://b/",), catalogue="c", max_usd=1e-3))
        report = Report("id", "c", listing_requests=100)

        before = budget.affordable(report)
        budget.hand_out(25)
        under_way = budget.affordable(report)
        report.skipped = 25

        assert (before, under_way, budget.affordable(report)) == (125, 100, 125)

    def test_requests_and_bytes_of_files_count_and_not_the_listing(self) -> None:
        budget = Budget(CrawlJob(roots=("s3://b/",), catalogue="c", max_usd=1.0))
        report = Report("id", "c", listing_requests=100_000, requests=10)
        report.walked["ok"] = 10
        budget.hand_out(10)

        assert budget.affordable(report) == int((1.0 - 0.5 - 10 * GET) / (2 * GET))

    def test_files_that_took_no_requests_do_not_make_the_others_free(self) -> None:
        budget = Budget(CrawlJob(roots=("s3://b/",), catalogue="c", max_usd=1e-4))
        report = Report("id", "c")
        report.walked["not-fits"] = 300
        budget.hand_out(300)

        assert budget.affordable(report) == 250

    @pytest.mark.parametrize(
        ("amount", "shown", "enough"),
        [
            (0, "$0.00", "$0.00"),
            (0.0003, "$0.0003", "$0.0003"),
            (0.00029951, "$0.0003", "$0.0003"),
            (0.00029941, "$0.000299", "$0.0003"),
            (1.5e-6, "$0.0000015", "$0.0000015"),
            (0.4, "$0.40", "$0.40"),
            (0.99951, "$1.00", "$1.00"),
            (1.001, "$1.00", "$1.01"),
            (12345.678, "$12,345.68", "$12,345.68"),
        ],
    )
    def test_amounts_for_a_person(self, amount: float, shown: str, enough: str) -> None:
        assert (dollars(amount), dollars(amount, up=True)) == (shown, enough)
