"""What partitions of one run share in a process, and for how long it is kept."""

from __future__ import annotations

import threading

import pytest

from crawler.job.crawl_job import CrawlJob
from crawler.stores import ObjectRef
from crawler.worker import context
from crawler.worker.context import release, run_ids, set_rate_limit, stop_run, worker_context
from tests.fits_files import bintable_hdu, image_hdu
from tests.servers import RangeServer


@pytest.fixture
def job() -> CrawlJob:
    return CrawlJob(roots=(), catalogue="")


def test_partitions_of_one_run_share_a_context_until_it_is_released(job: CrawlJob) -> None:
    with worker_context(job) as one:
        pass
    with worker_context(job) as other:
        assert other is one
    release(job.crawl)
    with worker_context(job) as later:
        assert later is not one
    release(job.crawl)
    assert job.crawl not in run_ids()


def test_a_stop_reaches_partitions_that_begin_later(job: CrawlJob) -> None:
    stop_run(job.crawl)
    with worker_context(job) as shared:
        assert shared.is_stopped()
    release(job.crawl)


@pytest.mark.parametrize(("seconds", "kept"), [(0.0, False), (3600.0, True)])
def test_a_partition_of_another_run_releases_what_is_idle_for_long(
    job: CrawlJob, monkeypatch: pytest.MonkeyPatch, seconds: float, *, kept: bool
) -> None:
    monkeypatch.setattr(context, "IDLE_SECONDS", seconds)
    other = CrawlJob(roots=(), catalogue="")
    set_rate_limit(job.crawl, 5.0)
    with worker_context(other):
        assert (job.crawl in run_ids()) == kept
    release(other.crawl)
    release(job.crawl)


def test_a_context_in_use_is_never_idle(job: CrawlJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "IDLE_SECONDS", 0.0)
    other = CrawlJob(roots=(), catalogue="")
    with worker_context(job) as shared, worker_context(other), worker_context(job) as again:
        assert again is shared
    release(other.crawl)
    release(job.crawl)


def test_the_first_file_of_a_product_is_walked_before_its_siblings(job: CrawlJob) -> None:
    data = image_hdu((500_000,)) + bintable_hdu(8, 9)
    names = [f"night/exp{number:03}.fits" for number in range(9)]
    with RangeServer(dict.fromkeys([*names, "other.fits"], data)) as server:
        answers = server.stall(names[0])
        refs = [ObjectRef(server.url(name), len(data)) for name in [*names, "other.fits"]]
        with worker_context(job) as shared:
            done = threading.Event()
            statuses: list[str] = []

            def walk() -> None:
                statuses.extend(result.status for result in shared.walk(job, refs, lambda: False))
                done.set()

            threading.Thread(target=walk, daemon=True).start()
            while not [answer for answer in server.answered if answer.request.path == "/other.fits"]:
                assert not done.wait(0.01)
            assert {request.path for request in server.requests} == {f"/{names[0]}", "/other.fits"}
            answers.set()
            assert done.wait(20)
        assert statuses == ["ok"] * 10
        release(job.crawl)
