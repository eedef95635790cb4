"""Vacuum: what plain readers of the folder see before and after, and what is kept for whom."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.dataset as pads
import pytest
from deltalake import DeltaTable

from crawler.catalogue import log as log_module
from crawler.catalogue.log import CatalogueLog
from crawler.catalogue.reader import Catalogue
from crawler.catalogue.schema import TABLES
from crawler.catalogue.vacuum import ORPHAN_HOURS, RETENTION_HOURS, Vacuumed, vacuum
from crawler.driver.driver import Crawl
from crawler.driver.executor import InProcess
from crawler.driver.report import Report
from crawler.errors import CatalogueError
from crawler.job.crawl_job import CrawlJob
from tests.conftest import TREE_FILES, sibling
from tests.tables import multiset, parquet_files, same_tables, write_object

HOUR = 3600.0


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return tmp_path / "catalogue"


def crawled(location: Path, *roots: Path) -> Report:
    job = CrawlJob(roots=tuple(map(str, roots)), catalogue=str(location))
    return Crawl(job, InProcess(), lambda _: None).run()


@pytest.fixture
def twice(location: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a catalogue of which a second run replaced and removed files."""
    crawled(location, tree)
    for path in tree.glob("night1/*.fits"):
        path.write_bytes(sibling(7, exposure=99.0))
    (tree / "night2" / "exp020.fits").unlink()
    assert crawled(location, tree).removed == 1
    return location


def seen_plainly(location: Path) -> dict[str, Counter[Any]]:
    """Return the rows that pyarrow finds in each table's folder, which knows nothing of the log."""
    tables = {name: pads.dataset(location / f"table={name}", schema=schema) for name, schema in TABLES.items()}
    return {name: multiset(dataset.to_table()) for name, dataset in tables.items()}


def seen(catalogue: Catalogue) -> dict[str, Counter[Any]]:
    return {name: multiset(getattr(catalogue, name).to_table()) for name in TABLES}


def current(location: Path) -> set[str]:
    return {one.path for one in Catalogue(str(location)).fragments}


def ages(paths: list[Path], hours: float) -> None:
    """Make files look as if they were written some hours ago."""
    then = time.time() - hours * HOUR
    for path in paths:
        os.utime(path, (then, then))


class TestNow:
    def test_plain_readers_see_stale_rows_before_and_exactly_the_catalogue_after(self, twice: Path) -> None:
        before = Catalogue(str(twice))
        expected = seen(before)
        stale = seen_plainly(twice)
        for name in TABLES:
            assert stale[name] > expected[name], name
        superfluous = [twice / path for path in parquet_files(twice) - current(twice)]
        size = sum(path.stat().st_size for path in superfluous)

        done = vacuum(str(twice), now=True)

        assert done == Vacuumed(len(superfluous), size)
        assert parquet_files(twice) == current(twice)
        assert seen_plainly(twice) == expected == seen(Catalogue(str(twice)))
        assert seen(before) == expected  # who opened the latest version goes on reading it

    def test_again_deletes_nothing(self, twice: Path) -> None:
        vacuum(str(twice), now=True)
        version = Catalogue(str(twice)).version

        assert vacuum(str(twice), now=True) == Vacuumed(0, 0)
        assert Catalogue(str(twice)).version == version

    def test_after_a_first_run_deletes_nothing(self, location: Path, tree: Path) -> None:
        crawled(location, tree)

        assert vacuum(str(location), now=True) == Vacuumed(0, 0)
        assert seen_plainly(location) == seen(Catalogue(str(location)))

    def test_of_an_empty_catalogue(self, location: Path) -> None:
        CatalogueLog(str(location)).create()

        assert vacuum(str(location), now=True) == Vacuumed(0, 0)
        assert Catalogue(str(location)).files.count_rows() == 0

    def test_deletes_what_a_dead_run_wrote_and_never_committed(self, location: Path, tree: Path) -> None:
        crawled(location, tree)
        expected = seen(Catalogue(str(location)))
        orphans = write_object(CatalogueLog(str(location)).folder, ["file:///gone/a.fits"], crawl="dead")

        assert vacuum(str(location), now=True) == Vacuumed(3, sum(one.size for one in orphans))
        assert parquet_files(location) == current(location)
        assert seen_plainly(location) == expected

    def test_the_same_index_goes_on_as_if_nothing_was(self, twice: Path, tree: Path, tmp_path: Path) -> None:
        vacuum(str(twice), now=True)

        assert crawled(twice, tree).skipped == TREE_FILES - 1
        (tree / "night1" / "exp010.fits").write_bytes(sibling(1))
        assert crawled(twice, tree).files == 1
        crawled(tmp_path / "fresh", tree)
        same_tables(Catalogue(str(twice)), Catalogue(str(tmp_path / "fresh")))

    def test_an_earlier_version_is_gone_and_says_so(self, twice: Path) -> None:
        vacuum(str(twice), now=True)
        earliest = next(version for version in range(9) if CatalogueLog(str(twice)).snapshot(version).fragments)
        (url,) = Catalogue(str(twice)).sql("SELECT min(url) AS url FROM hdus")["url"].to_pylist()

        with pytest.raises(CatalogueError) as caught:
            Catalogue(str(twice), version=earliest).header_bytes(url)
        assert "\n" not in str(caught.value)

    def test_leaves_what_is_not_the_catalogues(self, twice: Path) -> None:
        notes = [twice / "notes.txt", twice / "table=cards" / "notes.txt", twice / "plots" / "a.png"]
        for path in notes:
            path.parent.mkdir(exist_ok=True)
            path.write_text("mine")

        vacuum(str(twice), now=True)

        assert [path.exists() for path in notes] == [True] * 3


class TestByAge:
    """Without ``now``: earlier versions can be opened while they are retained, and runs that go on lose nothing."""

    def test_what_was_just_replaced_is_kept(self, twice: Path) -> None:
        files = parquet_files(twice)

        assert vacuum(str(twice)) == Vacuumed(0, 0)
        assert parquet_files(twice) == files

    @pytest.mark.parametrize(
        ("hours", "goes"), [(RETENTION_HOURS - 1, False), (RETENTION_HOURS + 1, True)], ids=["younger", "older"]
    )
    def test_what_was_replaced_some_time_ago(
        self, location: Path, tree: Path, monkeypatch: pytest.MonkeyPatch, hours: float, goes: bool
    ) -> None:
        crawled(location, tree)
        then = time.time() - hours * HOUR
        for path in tree.glob("night1/*.fits"):
            path.write_bytes(sibling(7, exposure=99.0))
        with monkeypatch.context() as patch:
            patch.setattr(log_module.time, "time", lambda: then)
            crawled(location, tree)
        expected, files = seen(Catalogue(str(location))), parquet_files(location)
        stale = files - current(location)
        assert stale

        done = vacuum(str(location))

        assert done.deleted == (len(stale) if goes else 0)
        assert parquet_files(location) == (files - stale if goes else files)
        assert seen(Catalogue(str(location))) == expected

    @pytest.mark.parametrize(
        ("hours", "goes"),
        [(0, False), (RETENTION_HOURS + 1, False), (ORPHAN_HOURS - 1, False), (ORPHAN_HOURS + 1, True)],
        ids=["new", "older than versions", "younger than any run", "older than any run"],
    )
    def test_orphans(self, location: Path, tree: Path, hours: float, goes: bool) -> None:
        crawled(location, tree)
        folder = CatalogueLog(str(location)).folder
        orphans = {one.path for one in write_object(folder, ["file:///gone/a.fits"], crawl="dead")}
        ages([location / path for path in orphans], hours)
        ages([location / path for path in current(location)], ORPHAN_HOURS + 1)  # however old, they are in use
        expected = seen(Catalogue(str(location)))

        done = vacuum(str(location))

        assert done.deleted == (3 if goes else 0)
        assert parquet_files(location) == current(location) | (set() if goes else orphans)
        assert seen(Catalogue(str(location))) == expected

    def test_old_files_that_were_replaced_of_late_are_kept(self, twice: Path) -> None:
        ages([twice / path for path in parquet_files(twice)], ORPHAN_HOURS + 1)
        files = parquet_files(twice)

        assert vacuum(str(twice)) == Vacuumed(0, 0)
        assert parquet_files(twice) == files


class TestErrors:
    @pytest.mark.parametrize("now", [False, True], ids=["by age", "now"])
    def test_nothing_there(self, location: Path, now: bool) -> None:
        with pytest.raises(CatalogueError, match="no catalogue here") as caught:
            vacuum(str(location), now=now)

        assert "\n" not in str(caught.value)
        assert not location.exists()

    def test_a_folder_of_other_things(self, tree: Path) -> None:
        files = sorted(tree.rglob("*"))

        with pytest.raises(CatalogueError, match="no catalogue here"):
            vacuum(str(tree), now=True)
        assert sorted(tree.rglob("*")) == files

    def test_another_delta_table(self, location: Path) -> None:
        schema = pads.dataset([], schema=TABLES["cards"]).schema
        DeltaTable.create(str(location), schema=schema)
        (location / "mine.parquet").write_bytes(b"of somebody else")

        with pytest.raises(CatalogueError, match="no catalogue of FITS headers") as caught:
            vacuum(str(location), now=True)

        assert "\n" not in str(caught.value)
        assert (location / "mine.parquet").exists()

    def test_a_file(self, location: Path) -> None:
        location.write_text("not a folder")

        with pytest.raises(CatalogueError) as caught:
            vacuum(str(location), now=True)
        assert "\n" not in str(caught.value)
        assert location.read_text() == "not a folder"
