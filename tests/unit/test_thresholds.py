"""Counts, sizes and times at which the driver and the catalogue change their way, from both sides."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crawler.catalogue import fragments as fragments_module
from crawler.catalogue.fragments import new_batch, write_fragment
from crawler.catalogue.log import CatalogueLog
from crawler.catalogue.records.saved_listing import LISTINGS, KeptListing, ListingWriter, fingerprint
from crawler.driver.commits import Commits
from crawler.driver.driver import Crawl
from crawler.driver.executor import InProcess
from crawler.driver.spool import Spool
from crawler.errors import CatalogueError
from crawler.job.crawl_job import CrawlJob
from crawler.job.settings import Settings
from crawler.stores.base import LISTING_SCHEMA, ObjectRef
from crawler.worker import tables as rows_module
from crawler.worker.partition import Receipt
from crawler.worker.tables import tables_of
from crawler.worker.walk import FileResult
from tests.conftest import TREE_FILES
from tests.tables import rows_of, write_object


@pytest.fixture
def log(tmp_path: Path) -> CatalogueLog:
    made = CatalogueLog(str(tmp_path / "catalogue"))
    made.create()
    return made


def listed(*urls: str) -> pa.Table:
    return pa.Table.from_pylist([{"url": url} for url in urls], schema=LISTING_SCHEMA)


class TestPartitionsInMemory:
    DEPTH = 3

    def spool(self, log: CatalogueLog, count: int) -> tuple[Spool, Path]:
        """Return a spool that was filled with some partitions, and the file that has them all."""
        spool = Spool(ListingWriter(log.folder, "run", "print", {}), self.DEPTH, threading.Event())
        spool.fill((listed(f"{at}") for at in range(count)), lambda: (count, []))
        return spool, Path(log.folder.join(f"{LISTINGS}/run/keys-00000.parquet"))

    @pytest.mark.parametrize("count", [DEPTH - 1, DEPTH, DEPTH + 1, 3 * DEPTH])
    def test_each_comes_once(self, log: CatalogueLog, count: int) -> None:
        spool, _ = self.spool(log, count)

        assert [one["url"].to_pylist() for one in spool] == [[f"{at}"] for at in range(count)]

    def test_as_many_are_not_read_from_the_disk(self, log: CatalogueLog) -> None:
        spool, path = self.spool(log, self.DEPTH)
        path.unlink()

        assert len(list(spool)) == self.DEPTH

    def test_one_more_is_read_from_the_disk(self, log: CatalogueLog) -> None:
        spool, path = self.spool(log, self.DEPTH + 1)
        path.unlink()

        with pytest.raises(CatalogueError, match="listing of run run cannot be read"):
            list(spool)


class TestCommits:
    def take(self, log: CatalogueLog, settings: Settings, count: int) -> list[int]:
        """Take some receipts; return after which of them a commit was made."""
        made: list[int] = []
        taken = 0
        commits = Commits(log, "run", lambda _: made.append(taken), settings)
        for taken in range(1, count + 1):
            commits.take(Receipt(fragments=write_object(log.folder, [f"{taken}"])))
        return made

    def test_are_made_of_so_many_receipts(self, log: CatalogueLog) -> None:
        assert self.take(log, Settings(commit_seconds=1e9, commit_receipts=3), 7) == [3, 6]

    def test_are_made_after_so_many_seconds(self, log: CatalogueLog) -> None:
        settings = Settings(commit_seconds=0, commit_share=0, commit_receipts=10**9)

        assert self.take(log, settings, 3) == [1, 2, 3]

    def test_are_not_made_before_so_many_seconds(self, log: CatalogueLog) -> None:
        assert self.take(log, Settings(commit_seconds=1e9, commit_share=0, commit_receipts=10**9), 3) == []

    def test_are_not_made_before_many_times_the_last_commits_duration(self, log: CatalogueLog) -> None:
        # The first commit has none before it.
        settings = Settings(commit_seconds=0, commit_share=1e9, commit_receipts=10**9)

        assert self.take(log, settings, 3) == [1]


class TestRemovable:
    @pytest.mark.parametrize(
        ("share", "asked", "expected"),
        [(0.25, False, (1, 0)), (0.24, False, (0, 1)), (0.24, True, (1, 0))],
        ids=["as many as may be", "one too many", "one too many and asked for"],
    )
    def test_share_of_the_catalogue(
        self, log: CatalogueLog, share: float, asked: bool, expected: tuple[int, int]
    ) -> None:
        rows = rows_of("files", url="abcd", walked_at=[datetime(2020, 1, 1, tzinfo=UTC)] * 4)
        fragment = write_fragment(log.folder, "files", rows, new_batch("first"))
        assert fragment is not None
        writer = ListingWriter(log.folder, "run", "print", {})
        writer.write(listed("a", "b", "c"))
        commits = Commits(log, "run", lambda _: None, Settings(removable=share))
        commits.take(Receipt(fragments=[fragment]))
        commits.settle()

        found = commits.remove_gone(log.snapshot(), writer.end(3, []), lambda _: True, all_of_them=asked)

        assert found == expected
        assert log.snapshot().of("files").rows == 4 - expected[0]


class Wide(InProcess):
    """Crawls in this process, says that it is so many workers, and notes the sizes of what it is given."""

    def __init__(self, width: int) -> None:
        self.sizes: list[int] = []
        self._width = width

    def width(self) -> int:
        return self._width

    def map_unordered(self, job: CrawlJob, todo: Iterator[pa.Table | None], stop: threading.Event) -> Iterator[Receipt]:
        def noted() -> Iterator[pa.Table | None]:
            for partition in todo:
                self.sizes.append(partition.num_rows)
                yield partition

        yield from super().map_unordered(job, noted(), stop)


class TestShares:
    def sizes(self, log: CatalogueLog, tree: Path, width: int, **settings: int) -> list[int]:
        """Return the sizes of the partitions of a crawl whose listing ended before it, as one partition."""
        urls = sorted(path.as_uri() for path in tree.rglob("*.fits*"))
        writer = ListingWriter(log.folder, "earlier", fingerprint([str(tree)], None, ()), {})
        writer.write(listed(*urls))
        left: KeptListing = writer.end(TREE_FILES, [tree.as_uri() + "/"])
        assert left.keys == TREE_FILES
        executor = Wide(width)
        job = CrawlJob(roots=(str(tree),), catalogue=log.url, settings=Settings(reused_keys=1, **settings))
        report = Crawl(job, executor, lambda _: None).run()
        assert (report.listed_at, report.files) == (left.began, TREE_FILES)
        return executor.sizes

    def test_one_worker_gets_whole_partitions(self, log: CatalogueLog, tree: Path) -> None:
        assert self.sizes(log, tree, 1, first_partition=1) == [44]

    def test_many_workers_get_pieces_that_become_smaller(self, log: CatalogueLog, tree: Path) -> None:
        sizes = self.sizes(log, tree, 2, first_partition=3, shares=2)

        assert sum(sizes) == TREE_FILES
        assert sizes == sorted(sizes, reverse=True)
        left = TREE_FILES
        for size in sizes:
            assert size <= max(3, left // 4)
            left -= size

    def test_no_piece_is_smaller_than_the_first_partition(self, log: CatalogueLog, tree: Path) -> None:
        assert self.sizes(log, tree, 100, first_partition=22) == [22, 22]


@pytest.mark.parametrize(("limit", "groups"), [(300, [3, 1]), (299, [2, 2]), (1, [1, 1, 1, 1])])
def test_bytes_of_headers_in_a_row_group(
    log: CatalogueLog, monkeypatch: pytest.MonkeyPatch, limit: int, groups: list[int]
) -> None:
    rows = rows_of("hdus", url="abcd", hdu=[0] * 4, header=[b"x" * 100] * 4)
    each = rows["header"].nbytes / 4
    monkeypatch.setattr(fragments_module, "_HDU_GROUP_BYTES", int(limit / 100 * each))

    fragment = write_fragment(log.folder, "hdus", rows, new_batch("run"))

    assert fragment is not None
    metadata = pq.ParquetFile(log.folder.join(fragment.path)).metadata
    assert [metadata.row_group(at).num_rows for at in range(metadata.num_row_groups)] == groups


@pytest.mark.parametrize(("length", "shown"), [(20, "x" * 20), (21, "x" * 17 + "...")])
def test_characters_of_an_error(monkeypatch: pytest.MonkeyPatch, length: int, shown: str) -> None:
    monkeypatch.setattr(rows_module, "_MAX_ERROR", 20)
    result = FileResult(ObjectRef("file:///a", 1, None, None, None), "corrupt", "x" * length)

    tables = tables_of([result], "run", datetime.now(UTC))

    assert tables["files"]["error"].to_pylist() == [shown]
