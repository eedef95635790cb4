"""Rows left out of Parquet files, and small files merged: nothing else changes."""

from __future__ import annotations

from pathlib import Path

import pytest

from crawler.catalogue import merge as rewrite
from crawler.catalogue.fragments import Fragment
from crawler.catalogue.log import CatalogueLog, Change
from crawler.catalogue.merge import merge_small, without_repeats, without_urls
from crawler.catalogue.reader import Catalogue
from tests.tables import add_objects, multiset, parquet_files, same_tables, write_object


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return tmp_path / "catalogue"


@pytest.fixture
def log(location: Path) -> CatalogueLog:
    made = CatalogueLog(str(location))
    made.create()
    return made


def catalogue_of(tmp_path: Path, *urls: str, etag: str = "1") -> Catalogue:
    """Return a catalogue that was written in one go."""
    log = CatalogueLog(str(tmp_path / "expected"))
    log.create()
    add_objects(log, urls, etag=etag)
    return Catalogue(log.url)


def applied(log: CatalogueLog, change: Change) -> Catalogue:
    log.commit(lambda _: change, {})
    return Catalogue(log.url)


class TestWithoutUrls:
    def test_only_files_that_hold_them_are_rewritten(self, tmp_path: Path, log: CatalogueLog) -> None:
        held = add_objects(log, ["a", "c", "e"])
        add_objects(log, ["b", "d", "f"])  # of the same range of urls
        add_objects(log, ["x", "y"])

        change = without_urls(log.folder, log.snapshot().fragments, {"c", "e", "nowhere"}, "later")

        assert set(change.remove) == set(held)
        assert {(one.table, one.rows, one.first_url, one.last_url) for one in change.add} == {
            ("files", 1, "a", "a"),
            ("hdus", 2, "a", "a"),
            ("cards", 4, "a", "a"),
        }
        same_tables(applied(log, change), catalogue_of(tmp_path, "a", "b", "d", "f", "x", "y"))

    def test_a_file_of_which_nothing_is_left_is_removed(self, log: CatalogueLog) -> None:
        held = add_objects(log, ["a", "b"])

        change = without_urls(log.folder, log.snapshot().fragments, ["b", "a"], "later")

        assert change.add == []
        assert set(change.remove) == set(held)

    @pytest.mark.parametrize("urls", [[], ["aa"], ["A"], ["z"]], ids=["none", "between", "before", "behind"])
    def test_of_what_nothing_holds_nothing_is_read_or_written(
        self, location: Path, log: CatalogueLog, urls: list[str]
    ) -> None:
        add_objects(log, ["a", "b"])
        before = parquet_files(location)

        assert without_urls(log.folder, log.snapshot().fragments, urls, "later") == Change()
        assert parquet_files(location) == before

    def test_what_was_written_together_keeps_having_one_name(self, log: CatalogueLog) -> None:
        add_objects(log, ["a", "b"])
        add_objects(log, ["a", "c"])

        change = without_urls(log.folder, log.snapshot().fragments, ["a"], "later")

        together: dict[str, set[str]] = {}
        for fragment in change.add:
            together.setdefault(fragment.batch, set()).add(fragment.table)
        assert list(together.values()) == [{"files", "hdus", "cards"}] * 2

    def test_where_it_fails_it_leaves_no_files(
        self, location: Path, log: CatalogueLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add_objects(log, ["a", "b"])
        fragments = log.snapshot().fragments
        before = parquet_files(location)
        monkeypatch.setattr(rewrite, "write_fragment", failing_at(3, rewrite.write_fragment))

        with pytest.raises(OSError, match="disk full"):
            without_urls(log.folder, fragments, ["a"], "later")
        assert parquet_files(location) == before


def failing_at(number: int, function: object) -> object:
    """Return the function, failing at its n-th call."""
    calls = iter(range(1, 100))

    def call(*args: object) -> object:
        if next(calls) == number:
            raise OSError(28, "disk full")
        return function(*args)  # type: ignore[operator]

    return call


class TestWithoutRepeats:
    def test_each_object_is_left_in_once(self, tmp_path: Path, log: CatalogueLog) -> None:
        for urls in (["a", "b"], ["b", "c"], ["c", "a", "d"]):
            add_objects(log, urls, crawl="this")

        change = without_repeats(log.folder, log.snapshot(), "this")

        same_tables(applied(log, change), catalogue_of(tmp_path, "a", "b", "c", "d"))

    def test_three_times_the_same(self, tmp_path: Path, log: CatalogueLog) -> None:
        for _ in range(3):
            add_objects(log, ["a"], crawl="this")

        change = without_repeats(log.folder, log.snapshot(), "this")

        assert (len(change.add), len(change.remove)) == (0, 6)
        same_tables(applied(log, change), catalogue_of(tmp_path, "a"))

    def test_rows_of_one_file_stay_together(self, log: CatalogueLog) -> None:
        # The two walks differ: a file replaced meanwhile. Its rows must all be of the one or the other.
        add_objects(log, ["a", "b"], crawl="this", etag="old")
        add_objects(log, ["a", "c"], crawl="this", etag="new")

        catalogue = applied(log, without_repeats(log.folder, log.snapshot(), "this"))

        (etag,) = catalogue.sql("SELECT etag FROM files WHERE url = 'a'")["etag"].to_pylist()
        values = catalogue.sql("SELECT value FROM cards WHERE url = 'a'")["value"].to_pylist()
        headers = catalogue.sql("SELECT header FROM hdus WHERE url = 'a'")["header"].to_pylist()
        assert values == [etag] * 4
        assert all(header.decode().endswith(etag) for header in headers)

    def test_after_one_of_the_two_was_rewritten(self, tmp_path: Path, log: CatalogueLog) -> None:
        add_objects(log, ["a", "b"], crawl="this")
        add_objects(log, ["b", "c"], crawl="this")
        applied(log, without_urls(log.folder, log.snapshot().fragments, ["a"], "this"))
        add_objects(log, ["a"], crawl="this")
        applied(log, without_urls(log.folder, log.snapshot().fragments, ["c"], "this"))

        change = without_repeats(log.folder, log.snapshot(), "this")

        same_tables(applied(log, change), catalogue_of(tmp_path, "a", "b"))

    def test_other_runs_are_not_looked_at(self, location: Path, log: CatalogueLog) -> None:
        old = add_objects(log, ["a", "b"], crawl="other")
        add_objects(log, ["c"], crawl="this")
        for fragment in old:
            (location / fragment.path).unlink()

        assert without_repeats(log.folder, log.snapshot(), "this") == Change()
        assert without_repeats(log.folder, log.snapshot(), "none") == Change()

    def test_where_it_fails_it_leaves_no_files(
        self, location: Path, log: CatalogueLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for urls in (["a", "b"], ["b", "c"], ["c", "d"]):
            add_objects(log, urls, crawl="this")
        snapshot, before = log.snapshot(), parquet_files(location)
        monkeypatch.setattr(rewrite, "write_fragment", failing_at(5, rewrite.write_fragment))

        with pytest.raises(OSError, match="disk full"):
            without_repeats(log.folder, snapshot, "this")
        assert parquet_files(location) == before


class TestMergeSmall:
    @pytest.fixture(autouse=True)
    def merging_two(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rewrite, "MERGE_FROM", 2)

    def test_rows_are_the_same_in_one_file_a_table(self, tmp_path: Path, log: CatalogueLog) -> None:
        for urls in (["e", "f"], ["a", "é"], ["c", "d"]):
            add_objects(log, urls)

        catalogue = applied(log, merge_small(log.folder, log.snapshot(), "later"))

        assert sorted(one.table for one in catalogue.fragments) == ["cards", "files", "hdus"]
        same_tables(catalogue, catalogue_of(tmp_path, "a", "c", "d", "e", "f", "é"))
        keywords = catalogue.cards.to_table(columns=["keyword"])["keyword"].to_pylist()
        assert keywords == sorted(keywords)

    def test_what_is_merged_is_not_merged_again(self, log: CatalogueLog) -> None:
        add_objects(log, ["a"])
        add_objects(log, ["b"])
        applied(log, merge_small(log.folder, log.snapshot(), "later"))

        assert merge_small(log.folder, log.snapshot(), "later") == Change()

    @pytest.mark.parametrize("limit", [16, 24], ids="{} rows at most".format)
    def test_no_file_becomes_too_long(
        self, tmp_path: Path, log: CatalogueLog, monkeypatch: pytest.MonkeyPatch, limit: int
    ) -> None:
        monkeypatch.setattr(rewrite, "GOOD_ROWS", dict.fromkeys(rewrite.GOOD_ROWS, limit))
        for url in "abcdefghijklmnopqrst":
            add_objects(log, [url])

        catalogue = applied(log, merge_small(log.folder, log.snapshot(), "later"))

        assert max(one.rows for one in catalogue.fragments) <= limit
        assert len([one for one in catalogue.fragments if one.table == "files"]) <= 2
        same_tables(catalogue, catalogue_of(tmp_path, *"abcdefghijklmnopqrst"))

    def test_good_files_are_not_touched(self, log: CatalogueLog, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rewrite, "GOOD_ROWS", {"files": 16, "hdus": 32, "cards": 64})
        good = add_objects(log, ["a", "b", "c"])
        small = add_objects(log, ["d"]) + add_objects(log, ["e"])

        change = merge_small(log.folder, log.snapshot(), "later")

        assert set(change.remove) == set(small)
        assert not set(change.remove) & set(good)

    def test_once_told_to_stop_it_leaves_the_rest(self, tmp_path: Path, log: CatalogueLog) -> None:
        add_objects(log, ["a"])
        add_objects(log, ["b"])
        answers = iter([False, True])

        change = merge_small(log.folder, log.snapshot(), "later", lambda: next(answers))

        assert {one.table for one in change.remove} == {"files"}
        same_tables(applied(log, change), catalogue_of(tmp_path, "a", "b"))

    def test_where_it_fails_it_leaves_no_files(
        self, location: Path, log: CatalogueLog, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add_objects(log, ["a"])
        add_objects(log, ["b"])
        before = parquet_files(location)
        monkeypatch.setattr(rewrite, "write_fragment", failing_at(3, rewrite.write_fragment))

        with pytest.raises(OSError, match="disk full"):
            merge_small(log.folder, log.snapshot(), "later")
        assert parquet_files(location) == before

    def test_of_an_empty_catalogue(self, log: CatalogueLog) -> None:
        assert merge_small(log.folder, log.snapshot(), "later") == Change()


def test_same_tables_tells_a_difference(tmp_path: Path, log: CatalogueLog) -> None:
    add_objects(log, ["a"])
    add_objects(log, ["a"])

    with pytest.raises(AssertionError, match=r"files: 1 rows only in the first:\n    1 x .*'url': 'a'"):
        same_tables(Catalogue(log.url), catalogue_of(tmp_path, "a"))


def test_multisets_leave_out_what_is_of_the_run(log: CatalogueLog) -> None:
    fragments: list[Fragment] = write_object(log.folder, ["a"], etag="x")
    log.commit(lambda _: Change(fragments), {})

    (row,) = multiset(Catalogue(log.url).files.to_table())

    assert dict(row)["etag"] == "x"
    assert not {"crawl", "walked_at", "requests", "bytes_read"} & set(dict(row))
