"""A catalogue of many Parquet files: opened soon, asked for a few urls without a look at the rest, added to cheaply."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from crawler.catalogue import log as log_module
from crawler.catalogue import merge as rewrite
from crawler.catalogue.fragments import Fragment
from crawler.catalogue.log import CatalogueLog, Change
from crawler.catalogue.merge import merge_small, without_repeats, without_urls
from crawler.catalogue.reader import Catalogue
from crawler.catalogue.schema import TABLES
from crawler.catalogue.snapshot import Fragments
from crawler.errors import CatalogueError
from tests.tables import add_objects, parquet_files, same_tables

MANY = 50_000
OPEN_SECONDS = 3.0


@pytest.fixture
def log(tmp_path: Path) -> CatalogueLog:
    made = CatalogueLog(str(tmp_path / "catalogue"))
    made.create()
    return made


def spanning(*spans: tuple[str, str], rows: int = 1) -> Fragments:
    """Return files of some first and last urls."""
    columns = {
        "path": [f"table=files/{at}.parquet" for at in range(len(spans))],
        "size": [7] * len(spans),
        "rows": [rows] * len(spans),
        "first_url": [first for first, _ in spans],
        "last_url": [last for _, last in spans],
        "longest_header": [0] * len(spans),
    }
    texts = {"path", "first_url", "last_url"}
    return Fragments(
        "files", pa.table({k: pa.array(v, None if k not in texts else "string") for k, v in columns.items()})
    )


def spans(fragments: Any) -> list[tuple[str, str]]:
    return [(one.first_url, one.last_url) for one in fragments]


def some_spans(chance: random.Random, count: int) -> list[tuple[str, str]]:
    """Return spans of urls: many short ones, some long, some equal."""
    found = []
    for _ in range(count):
        first = chance.randrange(1000)
        last = first + chance.choice([0, 1, 5, 5, 5, 300])
        found.append((f"{first:04}", f"{last:04}"))
    return found


class TestFragments:
    @pytest.mark.parametrize("seed", range(5))
    def test_those_that_may_hold_urls(self, seed: int) -> None:
        chance = random.Random(seed)
        known = some_spans(chance, 60)
        fragments = spanning(*known)
        for count in (0, 1, 2, 30):
            begin = chance.randrange(1200)
            urls = sorted({f"{begin + chance.randrange(60):04}" for _ in range(count)})

            found = spans(fragments.holding(pa.array(urls, pa.string())))

            assert found == sorted(span for span in known if any(span[0] <= url <= span[1] for url in urls))

    @pytest.mark.parametrize("seed", range(5))
    def test_those_between_two_urls(self, seed: int) -> None:
        chance = random.Random(seed)
        known = some_spans(chance, 60)
        for first, last in [("", None), ("0300", None), ("0000", "0200"), ("0500", "0501"), ("2000", None), ("", "")]:
            found = spans(spanning(*known).between(first, last))

            assert found == sorted(one for one in known if one[1] >= first and (last is None or one[0] < last))

    @pytest.mark.parametrize("seed", range(5))
    def test_runs_cut_all_urls(self, seed: int) -> None:
        known = some_spans(random.Random(seed), 60)

        runs = list(spanning(*known, rows=10).runs(100))

        assert runs[0][0] == min(known)[0]
        assert [end for _, end in runs] == [*(begin for begin, _ in runs[1:]), None]
        assert 3 < len(runs) <= 6
        beginning = [sum(begin <= one[0] and (end is None or one[0] < end) for one in known) for begin, end in runs]
        assert min(beginning[:-1]) >= 10  # files of ten rows

    def test_files_of_the_same_urls_are_one_run(self) -> None:
        assert list(spanning(*[("a", "z")] * 9).runs(1)) == [("a", None)]

    def test_none(self) -> None:
        fragments = spanning()

        assert (len(fragments), fragments.rows, fragments.size, list(fragments)) == (0, 0, 0, [])
        assert fragments.holding(pa.array(["a"])) == fragments.between("", None) == list(fragments.runs(5)) == []

    def test_order_is_that_of_utf8(self) -> None:
        known = [("\uffff", "\uffff"), ("\U0001f52d", "\U0001f52d"), ("é", "é"), ("z", "z")]

        assert spans(spanning(*known)) == [known[3], known[2], known[0], known[1]]
        assert spans(spanning(*known).holding(pa.array(["\U0001f52d"]))) == [known[1]]


class TestRowsOf:
    URLS = tuple(f"file:///{number:02}" for number in range(20))

    @pytest.fixture
    def location(self, log: CatalogueLog) -> Path:
        for begin in range(0, 20, 4):
            add_objects(log, self.URLS[begin : begin + 4], etag=f"of {begin}")
        return Path(log.folder.path)

    def delete(self, location: Path, *but: int) -> None:
        """Delete the files of the table ``files`` but those that begin with some urls."""
        for fragment in Catalogue(str(location)).fragments:
            if fragment.table == "files" and fragment.first_url not in [self.URLS[at] for at in but]:
                (location / fragment.path).unlink()

    def test_only_files_that_may_hold_them_are_opened(self, location: Path) -> None:
        catalogue = Catalogue(str(location))
        self.delete(location, 4, 8)

        found = catalogue.rows_of(pa.array([self.URLS[9], self.URLS[6], "file:///065"]), ["etag", "url"])

        assert found.sort_by("url").to_pylist() == [
            {"etag": "of 4", "url": self.URLS[6]},
            {"etag": "of 8", "url": self.URLS[9]},
        ]
        assert found.schema.types == [TABLES["files"].field(name).type for name in ("etag", "url")]

    @pytest.mark.parametrize("urls", [[], ["file:///"], ["zz"], ["file:///035", "file:///036"]])
    def test_of_what_nothing_holds_nothing_is_opened(self, location: Path, urls: list[str]) -> None:
        catalogue = Catalogue(str(location))
        self.delete(location)

        found = catalogue.rows_of(pa.array(urls, pa.string()), ["url", "size"])

        assert (found.num_rows, found.column_names) == (0, ["url", "size"])

    def test_an_object_held_twice_has_both_rows(self, log: CatalogueLog, location: Path) -> None:
        add_objects(log, [self.URLS[3]], etag="other")

        found = Catalogue(str(location)).rows_of(pa.array([self.URLS[3]] * 2), ["etag"])

        assert sorted(found["etag"].to_pylist()) == ["of 0", "other"]

    def test_a_file_that_is_gone_is_told_from_a_damaged_one(self, location: Path) -> None:
        catalogue = Catalogue(str(location))
        self.delete(location, 4)
        for fragment in catalogue.fragments:
            if (location / fragment.path).exists():
                (location / fragment.path).write_bytes(b"garbage" * 100)

        with pytest.raises(FileNotFoundError):
            catalogue.rows_of(pa.array([self.URLS[0]]), ["etag"])
        with pytest.raises(CatalogueError, match="version 5 cannot be read") as caught:
            catalogue.rows_of(pa.array([self.URLS[4]]), ["etag"])
        assert str(caught.value).isprintable()

    def test_from_many_threads(self, location: Path) -> None:
        catalogue = Catalogue(str(location))

        def ask(at: int) -> list[str]:
            urls = self.URLS[at : at + 5]
            return sorted(catalogue.rows_of(pa.array(urls), ["url"])["url"].to_pylist())

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(ask, list(range(16)) * 4))
        assert found == [list(self.URLS[at : at + 5]) for at in list(range(16)) * 4]


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> CatalogueLog:
    """Return a log of so many files; there is none of them."""
    log = CatalogueLog(str(tmp_path_factory.mktemp("crowded") / "catalogue"))
    log.create()
    added = [
        Fragment(table, f"table={table}/run-{at:012x}.parquet", 9, 2000, f"s3://b/{at:09}", f"s3://b/{at:09}x", 2880)
        for table in TABLES
        for at in range(MANY // 3)
    ]
    log.commit(lambda _: Change(added), {})
    return log


class TestManyFiles:
    def test_it_is_opened_soon(self, crowded: CatalogueLog) -> None:
        begun = time.monotonic()

        catalogue = Catalogue(crowded.url)
        nothing = catalogue.rows_of(pa.array(["s3://b/", "s3://c"]), ["url"]), catalogue.files
        with pytest.raises(CatalogueError, match="cannot be read"):  # of a file that it did find
            catalogue.header_bytes("s3://b/000007777")

        assert time.monotonic() - begun < OPEN_SECONDS
        assert nothing[0].num_rows == 0
        assert catalogue.snapshot.of("hdus").rows == MANY // 3 * 2000
        assert len(catalogue.fragments) == MANY // 3 * 3

    def test_who_only_adds_does_not_look_at_them(self, crowded: CatalogueLog, monkeypatch: pytest.MonkeyPatch) -> None:
        looked: list[object] = []
        real = log_module.DeltaTable.get_add_actions
        monkeypatch.setattr(
            log_module.DeltaTable, "get_add_actions", lambda self, flatten: looked.append(1) or real(self, flatten)
        )
        new = Fragment("files", "table=files/new.parquet", 9, 1, "x", "x")

        before = crowded.commit(
            lambda now: Change([new, *without_urls(crowded.folder, now, [], "run").add]), {"crawl": "run"}
        )

        assert before is not None
        assert looked == []
        assert crowded.snapshot().of("files").holding(pa.array(["x"])) == [new]


class TestMergingStepByStep:
    @pytest.fixture(autouse=True)
    def _of_few_rows(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(rewrite, "MERGE_FROM", 2)
        monkeypatch.setattr(rewrite, "GOOD_ROWS", {"files": 16, "hdus": 32, "cards": 64})

    def test_each_commit_is_of_some_and_the_last_leaves_nothing_to_merge(
        self, tmp_path: Path, log: CatalogueLog
    ) -> None:
        urls = [f"{number:02}" for number in range(20)]
        for url in urls:
            add_objects(log, [url])
        expected = CatalogueLog(str(tmp_path / "expected"))
        expected.create()
        add_objects(expected, urls)
        commits = 0
        while log.commit(lambda now: merge_small(log.folder, now, "later", seconds=0), {}):
            commits += 1
            same_tables(Catalogue(log.url), Catalogue(expected.url))

        assert commits == 6  # of each table 16 objects, and the other 4
        assert merge_small(log.folder, log.snapshot(), "later") == Change()
        assert max(one.rows for one in log.snapshot().of("files")) == 16

    def test_crumbs_between_good_files_are_merged(self, log: CatalogueLog) -> None:
        for begin in range(0, 12, 4):
            add_objects(log, [f"{begin + at:02}" for at in range(3)])  # good: more than an eighth
            add_objects(log, [f"{begin + 3:02}"])

        log.commit(lambda now: merge_small(log.folder, now, "later"), {})

        assert spans(log.snapshot().of("files")) == [("00", "02"), ("03", "11"), ("04", "06"), ("08", "10")]
        assert Catalogue(log.url).hdus.to_table(filter=pc.field("url") == "07").num_rows == 2


def test_repeats_are_found_in_passes(tmp_path: Path, log: CatalogueLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrite, "_HASHES", 7)
    for urls in ("abcdefgh", "ghijklmn", "mnopqrsa", "tuvwxyz"):
        add_objects(log, urls, crawl="this")
    expected = CatalogueLog(str(tmp_path / "expected"))
    expected.create()
    add_objects(expected, "abcdefghijklmnopqrstuvwxyz")
    before = parquet_files(Path(log.folder.path))

    log.commit(lambda now: without_repeats(log.folder, now, "this"), {})

    same_tables(Catalogue(log.url), Catalogue(expected.url))
    assert len(parquet_files(Path(log.folder.path)) - before) == 6  # the two of the four that had what others have
