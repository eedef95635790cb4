"""Crawls from roots to tables: in process and on a cluster, run again, killed, interrupted, two at once."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as pads
import pytest
from deltalake import DeltaTable
from distributed import Client

from crawler.catalogue.log import CatalogueLog
from crawler.catalogue.reader import Catalogue
from crawler.cluster import DaskExecutor, local_client
from crawler.cluster import tasks as underway
from crawler.driver import background
from crawler.driver import driver as run
from crawler.driver import executor as executors
from crawler.driver.commits import Commits
from crawler.driver.driver import Crawl
from crawler.driver.executor import Executor, InProcess
from crawler.driver.report import Report
from crawler.errors import CatalogueError, ClusterError, ListingError
from crawler.job.crawl_job import CrawlJob
from crawler.job.settings import Settings
from crawler.worker.partition import Receipt
from tests.cluster.driven import driven
from tests.conftest import TREE_FILES, sibling
from tests.tables import parquet_files, same_tables


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with local_client(2) as made:
        yield made


@pytest.fixture(params=["in process", "on a cluster"])
def executor(request: pytest.FixtureRequest) -> Executor:
    return InProcess() if request.param == "in process" else DaskExecutor(request.getfixturevalue("client"))


MANY = Settings(first_partition=5, growth=1, partition=5, commit_receipts=1)
"""Many partitions, and many commits of few files."""


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return tmp_path / "catalogue"


def crawled(location: Path, *roots: Path | str, executor: Executor | None = None, **options: Any) -> Report:
    """Crawl roots to the end."""
    return Crawl(job_of(location, *roots, **options), executor or InProcess(), lambda _: None).run()


def job_of(location: Path, *roots: Path | str, **options: Any) -> CrawlJob:
    return CrawlJob(**{"roots": tuple(map(str, roots)), "catalogue": str(location), "settings": MANY, **options})


def undisturbed(tmp_path: Path, *roots: Path | str) -> Catalogue:
    """Return a new catalogue of roots as they are now."""
    location = tmp_path / "undisturbed"
    crawled(location, *roots)
    return Catalogue(str(location))


def ask(location: Path, query: str) -> list[Any]:
    """Return the rows of a query, without the names of their columns."""
    return [tuple(row.values()) for row in Catalogue(str(location)).sql(query).to_pylist()]


def no_orphans(location: Path) -> None:
    assert parquet_files(location) == {one.path for one in Catalogue(str(location)).fragments}


class TestFirstRun:
    def test_tells_what_became_of_each_file(self, location: Path, tree: Path) -> None:
        report = crawled(location, tree)

        assert dict(report.walked) == {"ok": 41, "truncated": 1, "not-fits": 2}
        statuses = ask(
            location, "SELECT split_part(url, '/', -1), status FROM files WHERE url LIKE '%odd%' ORDER BY url"
        )
        assert [name for name, _ in statuses] == ["empty.fits", "not.fits", "packed%20%C3%BC.fits.gz", "truncated.fits"]
        assert dict(statuses)["not.fits"] == "not-fits"
        assert dict(statuses)["packed%20%C3%BC.fits.gz"] == "ok"
        assert dict(statuses)["truncated.fits"] == "truncated"
        assert (report.seen, report.listed, report.files) == (TREE_FILES + 1, TREE_FILES, TREE_FILES)
        assert report.listing_ended
        assert not report.interrupted
        assert report.hdus == Catalogue(str(location)).hdus.count_rows()
        assert report.cards == Catalogue(str(location)).cards.count_rows()
        assert report.version == Catalogue(str(location)).version

    def test_gives_the_same_tables_in_process_and_on_a_cluster(
        self, tmp_path: Path, tree: Path, client: Client
    ) -> None:
        crawled(tmp_path / "a", tree)
        crawled(tmp_path / "b", tree, executor=DaskExecutor(client))

        same_tables(Catalogue(str(tmp_path / "a")), Catalogue(str(tmp_path / "b")))

    @pytest.mark.parametrize(
        "sizes",
        [(2, 1.0, 2), (3, 2.0, 20), (10_000, 1.5, 10_000)],
        ids=["two files a partition", "growing partitions", "one partition"],
    )
    def test_gives_the_same_tables_however_it_is_cut(
        self, tmp_path: Path, tree: Path, sizes: tuple[int, float, int]
    ) -> None:
        expected = undisturbed(tmp_path, tree)
        first, growth, size = sizes
        settings = replace(MANY, first_partition=first, growth=growth, partition=size)

        crawled(tmp_path / "other", tree, batch_bytes=30_000, concurrency=3, settings=settings)

        same_tables(Catalogue(str(tmp_path / "other")), expected)
        no_orphans(tmp_path / "other")

    def test_leaves_no_orphans(self, location: Path, tree: Path, executor: Executor) -> None:
        crawled(location, tree, executor=executor)

        no_orphans(location)
        assert sorted(one.table for one in Catalogue(str(location)).fragments) == ["cards", "files", "hdus"]

    def test_of_nothing_makes_no_catalogue(self, location: Path, tmp_path: Path, executor: Executor) -> None:
        (tmp_path / "empty").mkdir()

        report = crawled(location, tmp_path / "empty", executor=executor)

        assert report.nothing_found is not None
        assert not location.exists()

    def test_of_what_is_not_there_makes_no_catalogue(self, location: Path, tmp_path: Path, executor: Executor) -> None:
        with pytest.raises(ListingError):
            crawled(location, tmp_path / "missing", executor=executor)
        assert not location.exists()


def _with_duckdb(folder: str) -> int:
    with duckdb.connect() as connection:
        return connection.sql(f"SELECT * FROM read_parquet('{folder}/*.parquet')").to_arrow_table().num_rows


def _with_dask(folder: str) -> int:
    with dask.config.set(scheduler="synchronous"):
        return len(dd.read_parquet(folder))


PLAIN_READERS: dict[str, Callable[[str], int]] = {
    "pyarrow": lambda folder: pads.dataset(folder).to_table().num_rows,
    "pandas": lambda folder: len(pd.read_parquet(folder)),
    "polars scan": lambda folder: pl.scan_parquet(f"{folder}/*.parquet").select(pl.len()).collect().item(),
    "polars read": lambda folder: pl.read_parquet(f"{folder}/*.parquet").height,
    "duckdb": _with_duckdb,
    "dask": _with_dask,
}
"""Rows that a library sees in a folder of Parquet files, all columns being read."""

DELTA_READERS: dict[str, Callable[[str], list[str]]] = {
    "deltalake": lambda root: DeltaTable(root).to_pyarrow_dataset().to_table()["table"].to_pylist(),
    "polars": lambda root: pl.read_delta(root)["table"].to_list(),
}
"""The table of each row that a library sees in a Delta table, all columns being read."""


@pytest.fixture(scope="module")
def finished(_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    location = tmp_path_factory.mktemp("plain") / "catalogue"
    crawled(location, _tree)
    return location


class TestPlainReaders:
    """After a first crawl, whoever knows nothing of the log sees the same rows."""

    @pytest.mark.parametrize("name", ["files", "hdus", "cards"])
    @pytest.mark.parametrize("reader", PLAIN_READERS)
    def test_see_all_rows(self, finished: Path, name: str, reader: str) -> None:
        expected = getattr(Catalogue(str(finished)), name).count_rows()

        assert PLAIN_READERS[reader](f"{finished}/table={name}") == expected

    @pytest.mark.parametrize("reader", DELTA_READERS)
    def test_of_delta_tables_see_all_rows_of_all_tables(self, finished: Path, reader: str) -> None:
        catalogue = Catalogue(str(finished))

        tables = DELTA_READERS[reader](str(finished))

        expected = {name: getattr(catalogue, name).count_rows() for name in ("files", "hdus", "cards")}
        assert Counter(tables) == expected


class TestSecondRun:
    def test_of_the_same_skips_everything(self, location: Path, tree: Path, executor: Executor) -> None:
        first = crawled(location, tree)
        files = parquet_files(location)

        second = crawled(location, tree, executor=executor)

        assert (second.skipped, second.files, second.requests) == (TREE_FILES, 0, 0)
        assert second.version == first.version == Catalogue(str(location)).version
        assert parquet_files(location) == files

    def test_replaces_adds_and_leaves(self, tmp_path: Path, location: Path, tree: Path, executor: Executor) -> None:
        crawled(location, tree)
        before = Catalogue(str(location))
        (tree / "night1" / "exp010.fits").write_bytes(sibling(10, exposure=99.0) + bytes(2880))
        (tree / "night1" / "new.fits").write_bytes(sibling(3))
        (tree / "odd files" / "truncated.fits").write_bytes(sibling(1))

        second = crawled(location, tree, executor=executor)

        assert (second.files, second.skipped) == (3, TREE_FILES - 2)
        same_tables(Catalogue(str(location)), undisturbed(tmp_path, tree))
        assert before.sql("SELECT * FROM files").num_rows == TREE_FILES
        walked = f"SELECT split_part(url, '/', -1) FROM files WHERE crawl = '{second.crawl}' ORDER BY url"
        assert ask(location, walked) == [("exp010.fits",), ("new.fits",), ("truncated.fits",)]

    def test_rewrites_only_files_that_hold_what_changed(
        self, tmp_path: Path, location: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Commits, "merge", lambda *_: None)
        crawled(location, tree)
        before = Catalogue(str(location)).fragments
        changed = (tree / "night1" / "exp010.fits").as_uri()
        (tree / "night1" / "exp010.fits").write_bytes(sibling(10, exposure=99.0))

        crawled(location, tree)

        kept = set(Catalogue(str(location)).fragments) & set(before)
        assert {one for one in before if not one.first_url <= changed <= one.last_url} == kept
        same_tables(Catalogue(str(location)), undisturbed(tmp_path, tree))

    def test_of_another_root_adds(self, tmp_path: Path, location: Path, tree: Path, executor: Executor) -> None:
        crawled(location, tree / "night1", executor=executor)
        crawled(location, tree / "night0", executor=executor)

        same_tables(Catalogue(str(location)), undisturbed(tmp_path, tree / "night0", tree / "night1"))

    def test_walks_again_what_another_walker_walked(
        self, tmp_path: Path, location: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        crawled(location, tree)
        for module in ("crawler.worker.partition", "crawler.worker.tables"):
            monkeypatch.setattr(f"{module}.WALKER_VERSION", 10**6)

        second = crawled(location, tree)

        assert (second.files, second.skipped) == (TREE_FILES, 0)
        assert ask(location, "SELECT DISTINCT walker_version, count(*) FROM files GROUP BY 1") == [(10**6, TREE_FILES)]
        same_tables(Catalogue(str(location)), undisturbed(tmp_path, tree))


class TestKeyFiles:
    @pytest.fixture
    def keys(self, tree: Path, tmp_path: Path) -> Path:
        """A key file that names some files twice, or thrice, more than a partition apart."""
        urls = [path.as_uri() for path in sorted(tree.glob("night*/*.fits"))]
        path = tmp_path / "keys.txt"
        path.write_text("\n".join([*urls, *urls[3:20:2], *urls[:7]]))
        return path

    def test_give_each_object_once(self, tmp_path: Path, tree: Path, keys: Path, executor: Executor) -> None:
        crawled(tmp_path / "keyed", f"@{keys}", executor=executor)

        expected = undisturbed(tmp_path, *sorted(tree.glob("night*")))
        found = Catalogue(str(tmp_path / "keyed"))
        for name in ("files", "hdus", "cards"):
            assert getattr(found, name).count_rows() == getattr(expected, name).count_rows()
        no_orphans(tmp_path / "keyed")

    def test_beside_a_folder(self, tmp_path: Path, tree: Path, keys: Path, executor: Executor) -> None:
        crawled(tmp_path / "keyed", tree, f"@{keys}", executor=executor)

        assert ask(tmp_path / "keyed", "SELECT count(*), count(DISTINCT url) FROM files") == [(TREE_FILES, TREE_FILES)]

    def test_again_give_each_object_once(self, location: Path, keys: Path, executor: Executor) -> None:
        crawled(location, f"@{keys}")
        crawled(location, f"@{keys}", executor=executor)

        assert ask(location, "SELECT count(*), count(DISTINCT url) FROM files") == [(40, 40)]
        assert ask(location, "SELECT count(*), count(DISTINCT (url, hdu)) FROM hdus") == [(120, 120)]

    @pytest.mark.parametrize("at", ["before drop", "after drop"])
    def test_killed_before_repeats_are_dropped(self, location: Path, tree: Path, keys: Path, at: str) -> None:
        # With the folder beside it: its files have ETags, and would be skipped the second time.
        roots = [str(tree), f"@{keys}"]
        assert driven(location, roots, at=at).returncode == -signal.SIGKILL
        assert ask(location, "SELECT count(*) > count(DISTINCT url) FROM files") == [(True,)]

        crawled(location, *roots)

        assert ask(location, "SELECT count(*), count(DISTINCT url) FROM files") == [(TREE_FILES, TREE_FILES)]
        crawled(location, tree)
        assert ask(location, "SELECT count(*), count(DISTINCT (url, hdu)) FROM hdus WHERE url LIKE '%night%'") == [
            (120, 120)
        ]

    def test_killed_and_then_only_the_folder_is_crawled(self, location: Path, tree: Path, keys: Path) -> None:
        assert driven(location, [str(tree), f"@{keys}"], at="before drop").returncode == -signal.SIGKILL

        crawled(location, tree)

        assert ask(location, "SELECT count(*), count(DISTINCT url) FROM files") == [(TREE_FILES, TREE_FILES)]


class TestErrors:
    def test_of_the_listing_commit_what_was_walked(
        self, tmp_path: Path, location: Path, tree: Path, executor: Executor
    ) -> None:
        with pytest.raises(ListingError, match="missing"):
            crawled(location, tree, tmp_path / "missing", executor=executor)

        assert ask(location, "SELECT count(*) FROM files") == [(TREE_FILES,)]
        crawled(location, tree)
        same_tables(Catalogue(str(location)), undisturbed(tmp_path, tree))

    def test_of_writing_on_a_worker_are_the_catalogues(self, location: Path, tree: Path, executor: Executor) -> None:
        CatalogueLog(str(location)).create()
        (location / "table=cards").write_text("in the way")

        with pytest.raises(CatalogueError, match="cannot be written") as caught:
            crawled(location, tree, executor=executor)
        assert str(caught.value).isprintable()

    def test_of_one_partition_leave_the_others_to_be_committed(
        self, location: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = executors.crawl_partition

        def fail_at_the_third(job: CrawlJob, partition: pa.Table, stop: Any) -> Receipt:
            if "exp010" in str(partition["url"][0]):
                raise CatalogueError(job.catalogue, "disk full")
            return original(job, partition, stop)

        monkeypatch.setattr(executors, "crawl_partition", fail_at_the_third)

        with pytest.raises(CatalogueError, match="disk full"):
            crawled(location, tree)
        # The two before it, and the one after it where that was under way.
        assert ask(location, "SELECT count(*) FROM files") in ([(10,)], [(15,)])

    def test_of_a_damaged_catalogue_are_told_before_anything_is_walked(
        self, location: Path, tree: Path, executor: Executor
    ) -> None:
        crawled(location, tree)
        for path in (location / "table=files").iterdir():
            path.unlink()

        with pytest.raises(CatalogueError, match="is damaged") as caught:
            crawled(location, tree, executor=executor)
        assert str(caught.value).isprintable()


class TestWorkers:
    def test_one_that_dies_costs_nothing(self, tmp_path: Path, location: Path, tree: Path) -> None:
        with local_client(1) as client:
            client.run(_die_at_next_partition)

            report = crawled(location, tree, executor=DaskExecutor(client))

        assert report.files == TREE_FILES
        same_tables(Catalogue(str(location)), undisturbed(tmp_path, tree))

    def test_a_cluster_that_is_lost_leaves_what_was_walked(self, tmp_path: Path, location: Path, tree: Path) -> None:
        walked = 0
        with local_client(1) as client:

            def progress(report: Report) -> None:
                nonlocal walked
                if report.files and not walked:
                    walked = report.files
                    client.cluster.close()

            with pytest.raises(ClusterError) as caught:
                Crawl(job_of(location, tree), DaskExecutor(client), progress).run()
        assert str(caught.value).isprintable()
        assert ask(location, "SELECT count(*) FROM files") == [(walked,)]
        crawled(location, tree)
        same_tables(Catalogue(str(location)), undisturbed(tmp_path, tree))


def _die_at_next_partition() -> None:
    """On a worker: have it end as by the kernel's out-of-memory killer. The nanny starts another, without this."""
    underway.crawl_partition = lambda *_: os._exit(9)  # type: ignore[assignment]


class TestKilled:
    """``kill -9`` at any instant: the same command again finishes the work."""

    @pytest.mark.parametrize(
        ("at", "number", "workers"),
        [
            pytest.param("before create", 1, 0, id="before the catalogue is made"),
            pytest.param("after create", 1, 0, id="after the catalogue is made"),
            pytest.param("before fragment", 2, 0, id="between fragments of the first batch"),
            pytest.param("after fragment", 9, 0, id="fragments written and not committed"),
            pytest.param("before commit", 1, 0, id="before the first commit"),
            pytest.param("after commit", 1, 0, id="after the first commit"),
            pytest.param("after commit", 5, 0, id="after the fifth commit"),
            pytest.param("before merge", 1, 0, id="before the merge"),
            pytest.param("after rewritten fragment", 2, 0, id="inside the merge"),
            pytest.param("after merge", 1, 0, id="merged and not committed"),
            pytest.param("before commit", 10, 0, id="before the commit of the merge"),
            pytest.param("after commit", 10, 0, id="merge committed and old files not deleted"),
            pytest.param("after commit", 3, 2, id="on a cluster, after the third commit"),
        ],
    )
    def test_and_run_again(
        self, tmp_path: Path, location: Path, tree: Path, at: str, number: int, workers: int
    ) -> None:
        killed = driven(location, [str(tree)], at=at, number=number, workers=workers)
        assert killed.returncode == -signal.SIGKILL, killed.stderr

        crawled(location, tree)

        same_tables(Catalogue(str(location)), undisturbed(tmp_path, tree))
        assert crawled(location, tree).skipped == TREE_FILES

    @pytest.mark.parametrize(
        ("at", "number"),
        [("before rewritten fragment", 1), ("after rewritten fragment", 3), ("before commit", 1), ("after commit", 1)],
    )
    def test_while_files_are_replaced(self, tmp_path: Path, location: Path, tree: Path, at: str, number: int) -> None:
        crawled(location, tree)
        for path in [*tree.glob("night*/*5.fits")]:
            path.write_bytes(sibling(7, exposure=1.5))
        killed = driven(location, [str(tree)], at=at, number=number)
        assert killed.returncode == -signal.SIGKILL, killed.stderr

        crawled(location, tree)

        same_tables(Catalogue(str(location)), undisturbed(tmp_path, tree))


class TestInterrupted:
    @pytest.mark.parametrize("workers", [0, 2], ids=["in process", "on a cluster"])
    def test_undisturbed_it_says_nothing(self, location: Path, tree: Path, workers: int) -> None:
        done = driven(location, [str(tree)], at="nowhere", workers=workers)

        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["files"] == TREE_FILES

    def test_while_the_listing_waits_for_a_store(
        self, location: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        crawl = Crawl(job_of(location, tree), InProcess(), lambda _: None)
        never = threading.Event()

        def hanging(*_: object, **__: object) -> Iterator[pa.Table]:
            crawl._stop.set()  # as a signal does
            never.wait(60)
            yield from ()

        monkeypatch.setattr(run, "partitions", hanging)
        monkeypatch.setattr(background, "_LEAVE", 0.0)

        report = crawl.run()
        never.set()

        assert report.interrupted
        assert report.nothing_found is None
        assert not location.exists()


class TestTwoAtOnce:
    def test_one_inside_the_other(self, tmp_path: Path, location: Path, tree: Path) -> None:
        # The second begins, ends and merges what the first has committed, while that one is half way.
        inner: list[Report] = []

        def progress(report: Report) -> None:
            if report.files >= 10 and not inner:
                inner.append(report)
                inner[0] = crawled(location, tree / "night2", tree / "night0")

        outer = Crawl(job_of(location, tree / "night1", tree / "night3"), InProcess(), progress).run()

        assert (outer.files, inner[0].files) == (20, 20)
        same_tables(Catalogue(str(location)), undisturbed(tmp_path, *sorted(tree.glob("night*"))))

    def test_at_the_same_time(self, tmp_path: Path, location: Path, tree: Path) -> None:
        together = threading.Barrier(2)
        reports: list[Report] = []

        def work(night: str) -> None:
            together.wait(60)
            reports.append(crawled(location, tree / night))

        threads = [threading.Thread(target=work, args=(night,)) for night in ("night0", "night1")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)

        assert [report.files for report in reports] == [10, 10]
        same_tables(Catalogue(str(location)), undisturbed(tmp_path, tree / "night0", tree / "night1"))

    def test_one_deletes_files_of_the_version_that_the_other_began_with(
        self, tmp_path: Path, location: Path, tree: Path
    ) -> None:
        first_ended = threading.Event()
        failures: list[Exception] = []

        class Late(InProcess):
            """Begins to crawl when the first run has merged its files, and deleted those that it merged."""

            def map_unordered(
                self, job: CrawlJob, todo: Iterator[pa.Table], stop: threading.Event
            ) -> Iterator[Receipt]:
                assert job.known is not None
                begun.set()
                assert first_ended.wait(60)
                yield from super().map_unordered(job, todo, stop)

        begun = threading.Event()
        between = tree / "night0" / "exp002.fits"

        def second() -> None:
            try:
                crawled(location, between, executor=Late())
            except Exception as error:
                failures.append(error)
            finally:
                begun.set()

        thread = threading.Thread(target=second)

        def progress(report: Report) -> None:
            if report.version and not thread.ident:
                thread.start()
                assert begun.wait(60)

        others = [path for path in sorted((tree / "night0").iterdir()) if path != between]
        Crawl(job_of(location, *others), InProcess(), progress).run()
        first_ended.set()
        thread.join(60)

        assert failures == []
        same_tables(Catalogue(str(location)), undisturbed(tmp_path, tree / "night0"))
