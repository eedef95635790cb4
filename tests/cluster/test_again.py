"""The same index again: what changed is walked, what is gone is removed, and only where that is certain."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from crawler import context, executors, run
from crawler.catalogue.reader import Catalogue
from crawler.errors import ListingError, StoreUnavailableError
from crawler.executors import InProcess
from crawler.job import CrawlJob
from crawler.report import Report
from crawler.run import Crawl
from crawler.stores import ByteRange, Fetched, ObjectRef, ObjectStore, open_store
from tests.conftest import sibling
from tests.tables import parquet_files, same_tables

FILES = 120
TENTH = FILES // 10


@pytest.fixture(autouse=True)
def _several_partitions_and_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FIRST_PARTITION": 20, "GROWTH": 1, "PARTITION": 20, "COMMIT_RECEIPTS": 2}.items():
        monkeypatch.setattr(run, name, value)


@pytest.fixture(scope="session")
def contents() -> list[bytes]:
    return [sibling(number) for number in range(12)]


@pytest.fixture
def survey(contents: list[bytes], tmp_path: Path) -> Path:
    """Return a folder of `FILES` files in three folders."""
    root = tmp_path / "survey"
    for number in range(FILES):
        path = root / f"night{number % 3}" / f"exp{number:03}.fits"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents[number % len(contents)])
    return root


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return tmp_path / "catalogue"


class Watched:
    """A store that records what is read, fails for some urls, and whose listing breaks off.

    Attributes
    ----------
    read : list of str
        Url of each range that was asked for.
    failing : set of str
        Urls that cannot be read.
    listed_before_it_fails : int or None
        Objects that the listing yields before it raises; None for all.
    """

    def __init__(self) -> None:
        self.read: list[str] = []
        self.failing: set[str] = set()
        self.listed_before_it_fails: int | None = None
        self._store: ObjectStore = open_store("file")

    def list(self, url: str) -> Iterator[pa.RecordBatch]:
        left = self.listed_before_it_fails
        for batch in self._store.list(url):
            if left is not None and batch.num_rows > left:
                yield batch.slice(0, left)
                raise StoreUnavailableError(f"{url}/night2", "input/output error")
            yield batch
            left = None if left is None else left - batch.num_rows

    def head(self, url: str) -> ObjectRef:
        return self._store.head(url)

    def get(self, ref: ObjectRef, span: ByteRange) -> Fetched:
        self.read.append(ref.url)
        if ref.url in self.failing:
            raise StoreUnavailableError(ref.url, "timed out")
        return self._store.get(ref, span)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    """Return the store that every crawl of the test lists and reads with."""
    store = Watched()
    for module in (run, context):
        monkeypatch.setattr(module, "open_store", lambda *_, **__: store)
    return store


def crawled(location: Path, *roots: Path | str, **options: Any) -> Report:
    """Crawl roots to the end, in process."""
    return Crawl(job(location, *roots, **options), InProcess(), lambda _: None).run()


def job(location: Path, *roots: Path | str, **options: Any) -> CrawlJob:
    return CrawlJob(roots=tuple(map(str, roots)), catalogue=str(location), **options)


def fresh(tmp_path: Path, *roots: Path | str, **options: Any) -> Catalogue:
    """Return a new catalogue of roots as they are now."""
    crawled(tmp_path / "fresh", *roots, **options)
    return Catalogue(str(tmp_path / "fresh"))


def urls(location: Path) -> set[str]:
    """Return the urls of a catalogue, having seen that the three tables agree on them."""
    catalogue = Catalogue(str(location))
    found = catalogue.files.to_table(columns=["url"])["url"].to_pylist()
    assert len(found) == len(set(found))
    of_ok = catalogue.sql("SELECT url FROM files WHERE n_hdus > 0")["url"].to_pylist()
    for table in (catalogue.hdus, catalogue.cards):
        assert set(table.to_table(columns=["url"])["url"].to_pylist()) == set(of_ok)
    return set(found)


def nth(survey: Path, *numbers: int) -> list[Path]:
    """Return the files of some numbers."""
    return [survey / f"night{number % 3}" / f"exp{number:03}.fits" for number in numbers]


def remove(paths: list[Path]) -> set[str]:
    """Delete files; return their urls."""
    for path in paths:
        path.unlink()
    return {path.as_uri() for path in paths}


def test_five_changed_five_added_five_removed(
    tmp_path: Path, location: Path, survey: Path, watched: Watched, contents: list[bytes]
) -> None:
    first = crawled(location, survey)
    watched.read.clear()
    changed = nth(survey, 1, 20, 55, 80, 119)
    added = [survey / "night1" / "exp500.fits", *(survey / "night3" / f"exp{number}.fits" for number in range(4))]
    (survey / "night3").mkdir()
    for path in changed:
        path.write_bytes(sibling(3, exposure=77.0) + bytes(2880))
    for path in added:
        path.write_bytes(contents[5])
    gone = remove(nth(survey, 0, 30, 31, 77, 118))

    second = crawled(location, survey)

    assert (first.files, first.skipped, first.removed) == (FILES, 0, 0)
    assert (second.files, second.skipped, second.removed, second.withheld) == (10, FILES - 10, 5, 0)
    assert set(watched.read) == {path.as_uri() for path in changed + added}
    assert second.requests == len(watched.read)
    assert not gone & urls(location)
    same_tables(Catalogue(str(location)), fresh(tmp_path, survey))
    assert parquet_files(location) >= {one.path for one in Catalogue(str(location)).fragments}


def test_again_and_again_ends_where_a_fresh_crawl_does(tmp_path: Path, location: Path, survey: Path) -> None:
    for night in range(6):
        remove(nth(survey, night, 60 + night))
        (survey / "night0" / f"new{night}.fits").write_bytes(sibling(night))
        nth(survey, 100 + night)[0].write_bytes(sibling(2, exposure=float(night)))
        crawled(location, survey)

    same_tables(Catalogue(str(location)), fresh(tmp_path, survey))


class TestTooManyGone:
    """More than a tenth of the catalogue: a disk that is not mounted looks like that."""

    def test_nothing_is_removed_until_it_is_allowed(self, tmp_path: Path, location: Path, survey: Path) -> None:
        crawled(location, survey)
        everything = urls(location)
        gone = remove(nth(survey, *range(TENTH + 1)))

        withheld = crawled(location, survey)

        assert (withheld.removed, withheld.withheld) == (0, TENTH + 1)
        assert urls(location) == everything
        allowed = crawled(location, survey, allow_removals=True)
        assert (allowed.removed, allowed.withheld) == (TENTH + 1, 0)
        assert urls(location) == everything - gone
        same_tables(Catalogue(str(location)), fresh(tmp_path, survey))

    def test_what_changed_is_replaced_all_the_same(self, location: Path, survey: Path) -> None:
        crawled(location, survey)
        remove(nth(survey, *range(TENTH + 1)))
        nth(survey, 100)[0].write_bytes(sibling(1, exposure=5.5))

        report = crawled(location, survey)

        assert (report.files, report.withheld) == (1, TENTH + 1)
        query = "SELECT DISTINCT real FROM cards WHERE keyword = 'EXPTIME' AND url LIKE '%exp100.fits'"
        assert Catalogue(str(location)).sql(query)["real"].to_pylist() == [5.5]

    def test_a_tenth_is_removed(self, tmp_path: Path, location: Path, survey: Path) -> None:
        crawled(location, survey)
        remove(nth(survey, *range(TENTH)))

        report = crawled(location, survey)

        assert (report.removed, report.withheld) == (TENTH, 0)
        same_tables(Catalogue(str(location)), fresh(tmp_path, survey))

    def test_an_empty_folder_removes_nothing_until_it_is_allowed(self, location: Path, survey: Path) -> None:
        crawled(location, survey)
        version = Catalogue(str(location)).version
        remove(nth(survey, *range(FILES)))

        report = crawled(location, survey)

        assert report.nothing_found is not None
        assert "\n" not in report.nothing_found
        assert report.removed == 0
        assert Catalogue(str(location)).version == version
        assert crawled(location, survey, allow_removals=True).removed == FILES
        assert urls(location) == set()


class TestNotOurs:
    """What this run would not have listed says nothing of what is gone."""

    def test_other_roots(self, location: Path, survey: Path) -> None:
        crawled(location, survey / "night0", survey / "night1")
        everything = urls(location)
        (here,) = remove(nth(survey, 3))
        remove(nth(survey, 1, 4))

        report = crawled(location, survey / "night0")

        assert report.removed == 1
        assert urls(location) == everything - {here}

    def test_a_root_whose_name_begins_alike(self, location: Path, survey: Path) -> None:
        beside = survey.with_name("survey2")
        beside.mkdir()
        (beside / "a.fits").write_bytes(sibling(0))
        crawled(location, survey, beside)
        (beside / "a.fits").unlink()

        assert crawled(location, survey).removed == 0
        assert (beside / "a.fits").as_uri() in urls(location)

    @pytest.mark.parametrize(
        ("filters", "kept"),
        [
            ({}, "notes.dat"),
            ({"include": ("night1/*",)}, "night0/exp003.fits"),
            ({"include": ("*.dat",)}, "night0/exp003.fits"),
            ({"exclude": ("night0/*",)}, "night0/exp003.fits"),
        ],
        ids=["the default include", "another folder included", "another suffix included", "excluded"],
    )
    def test_other_filters(self, location: Path, survey: Path, filters: dict[str, Any], kept: str) -> None:
        for name in ("notes.dat", "other.dat"):
            (survey / name).write_bytes(sibling(4))
        crawled(location, survey, include=("*.fits", "*.dat"))
        everything = urls(location)
        (survey / kept).unlink()

        report = crawled(location, survey, **filters)

        assert (report.removed, report.withheld) == (0, 0)
        assert urls(location) == everything

    def test_what_the_same_filters_match_is_removed(self, location: Path, survey: Path) -> None:
        crawled(location, survey, include=("night1/*",))
        everything = urls(location)
        gone = remove(nth(survey, 1, 4))

        assert crawled(location, survey, include=("night1/*",)).removed == 2
        assert urls(location) == everything - gone

    def test_key_files(self, tmp_path: Path, location: Path, survey: Path) -> None:
        keys = tmp_path / "keys.txt"
        keys.write_text("\n".join(path.as_uri() for path in nth(survey, *range(FILES))))
        crawled(location, f"@{keys}")
        everything = urls(location)
        remove(nth(survey, 118, 119))
        keys.write_text("\n".join(path.as_uri() for path in nth(survey, *range(100))))

        report = crawled(location, f"@{keys}", allow_removals=True)

        assert (report.removed, report.withheld) == (0, 0)
        assert urls(location) == everything

    def test_a_named_file(self, location: Path, survey: Path) -> None:
        crawled(location, survey)
        everything = urls(location)
        remove(nth(survey, 1, 2))

        report = crawled(location, *nth(survey, 0), allow_removals=True)

        assert (report.removed, report.withheld, report.skipped) == (0, 0, 1)
        assert urls(location) == everything

    def test_a_folder_beside_a_key_file_removes_its_own(self, tmp_path: Path, location: Path, survey: Path) -> None:
        keys = tmp_path / "keys.txt"
        keys.write_text("\n".join(path.as_uri() for path in nth(survey, 1, 4, 7)))
        crawled(location, survey)
        everything = urls(location)
        (here,) = remove(nth(survey, 3))
        remove(nth(survey, 10))

        report = crawled(location, survey / "night0", f"@{keys}")

        assert report.removed == 1
        assert urls(location) == everything - {here}


class TestListingThatDoesNotEnd:
    """Who has not seen everything does not know what is gone."""

    def test_because_a_folder_cannot_be_listed(
        self, tmp_path: Path, location: Path, survey: Path, watched: Watched
    ) -> None:
        crawled(location, survey)
        everything = urls(location)
        gone = remove(nth(survey, 1, 2, 3))
        nth(survey, 0)[0].write_bytes(sibling(1, exposure=5.5))
        watched.listed_before_it_fails = 60

        with pytest.raises(ListingError, match=r"input/output error: .*night2") as caught:
            crawled(location, survey, allow_removals=True)

        assert "\n" not in str(caught.value)
        assert urls(location) == everything
        watched.listed_before_it_fails = None
        assert crawled(location, survey).removed == len(gone)
        same_tables(Catalogue(str(location)), fresh(tmp_path, survey))

    def test_because_another_root_is_not_there(self, tmp_path: Path, location: Path, survey: Path) -> None:
        crawled(location, survey)
        everything = urls(location)
        remove(nth(survey, 1, 2, 3))

        with pytest.raises(ListingError, match="missing") as caught:
            crawled(location, survey, tmp_path / "missing", allow_removals=True)

        assert "\n" not in str(caught.value)
        assert urls(location) == everything

    def test_because_it_was_interrupted(self, tmp_path: Path, location: Path, survey: Path) -> None:
        crawled(location, survey)
        everything = urls(location)
        gone = remove(nth(survey, 1, 2, 3))
        second: Crawl

        def stop_after_first(report: Report) -> None:
            if report.skipped:
                second._stop.set()  # as a signal does

        second = Crawl(job(location, survey, allow_removals=True), InProcess(), stop_after_first)
        report = second.run()

        assert report.interrupted
        assert (report.removed, report.withheld) == (0, 0)
        assert urls(location) == everything
        assert crawled(location, survey).removed == len(gone)
        same_tables(Catalogue(str(location)), fresh(tmp_path, survey))

    def test_because_a_partition_failed(
        self, tmp_path: Path, location: Path, survey: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        crawled(location, survey)
        everything = urls(location)
        remove(nth(survey, 1, 2, 3))
        with monkeypatch.context() as patch:
            patch.setattr(executors, "crawl_partition", _raising(StoreUnavailableError("file:///x", "worker lost")))
            with pytest.raises(StoreUnavailableError):
                crawled(location, survey, allow_removals=True)

        assert urls(location) == everything
        crawled(location, survey)
        same_tables(Catalogue(str(location)), fresh(tmp_path, survey))


def _raising(error: Exception) -> Callable[..., Any]:
    def call(*_: object) -> None:
        raise error

    return call


class TestUnreadable:
    def test_are_tried_again_and_become_ok(
        self, tmp_path: Path, location: Path, survey: Path, watched: Watched
    ) -> None:
        paths = nth(survey, 7, 50, 111)
        watched.failing = {path.as_uri() for path in paths}
        first = crawled(location, survey)
        assert dict(first.walked) == {"ok": FILES - 3, "unreadable": 3}
        assert first.first_error is not None
        assert "timed out" in first.first_error
        assert "\n" not in first.first_error

        again = crawled(location, survey)
        assert (dict(again.walked), again.skipped, again.removed) == ({"unreadable": 3}, FILES - 3, 0)
        assert urls(location) == {path.as_uri() for path in nth(survey, *range(FILES))}

        watched.failing.clear()
        third = crawled(location, survey)
        assert (dict(third.walked), third.skipped) == ({"ok": 3}, FILES - 3)
        same_tables(Catalogue(str(location)), fresh(tmp_path, survey))

    def test_do_not_take_the_place_of_a_row_that_is_good(
        self, tmp_path: Path, location: Path, survey: Path, watched: Watched
    ) -> None:
        # The file is there unchanged: it is not read, so that nothing can fail.
        crawled(location, survey)
        watched.failing = {path.as_uri() for path in nth(survey, 7, 50, 111)}
        watched.read.clear()

        assert crawled(location, survey).skipped == FILES
        assert watched.read == []
        same_tables(Catalogue(str(location)), fresh_of(tmp_path, survey, watched))


def fresh_of(tmp_path: Path, survey: Path, watched: Watched) -> Catalogue:
    """Return a new catalogue, read by a store that fails no more."""
    watched.failing.clear()
    return fresh(tmp_path, survey)


def test_two_runs_of_one_root_at_once_remove_once(tmp_path: Path, location: Path, survey: Path) -> None:
    crawled(location, survey)
    remove(nth(survey, 1, 2, 3))
    together = threading.Barrier(2)
    failures: list[Exception] = []

    def work() -> None:
        try:
            together.wait(60)
            crawled(location, survey)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)

    assert failures == []
    same_tables(Catalogue(str(location)), fresh(tmp_path, survey))
