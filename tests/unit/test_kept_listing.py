"""Listings kept beside the tables: written, taken up again, audited, deleted; and what is gone by them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as pads
import pytest

from crawler.catalogue import missing as gone_module
from crawler.catalogue.folder import Folder
from crawler.catalogue.fragments import Fragment, new_batch, write_fragment
from crawler.catalogue.log import CatalogueLog, Change
from crawler.catalogue.merge import without_urls
from crawler.catalogue.missing import gone
from crawler.catalogue.reader import Catalogue
from crawler.catalogue.records import saved_listing as kept_module
from crawler.catalogue.records.listings import delete_old, kept_listings, unfinished
from crawler.catalogue.records.saved_listing import LISTINGS, KeptListing, ListingWriter, fingerprint
from crawler.catalogue.snapshot import Snapshot
from crawler.catalogue.vacuum import ORPHAN_HOURS, vacuum
from crawler.errors import CatalogueError
from crawler.stores.base import LISTING_SCHEMA
from tests.tables import add_objects, rows_of, same_tables

NOW = datetime.now(UTC)
LONG_AGO = NOW - timedelta(days=1000)
PRINT = fingerprint(["s3://bucket/"], None, [])


@pytest.fixture
def log(tmp_path: Path) -> CatalogueLog:
    made = CatalogueLog(str(tmp_path / "catalogue"))
    made.create()
    return made


@pytest.fixture
def folder(log: CatalogueLog) -> Folder:
    return log.folder


def partition(urls: Iterable[str]) -> pa.Table:
    urls = list(urls)
    columns = {
        "url": urls,
        "size": [len(url) for url in urls],
        "etag": [f"etag of {url}" for url in urls],
        "version": [None] * len(urls),
        "last_modified": [NOW] * len(urls),
    }
    return pa.table(columns, schema=LISTING_SCHEMA)


def kept(folder: Folder, partitions: Iterable[Iterable[str]], name: str = "run", of: str = PRINT) -> KeptListing:
    """Keep a listing that ends."""
    writer = ListingWriter(folder, name, of, {"roots": ["s3://bucket/"]})
    for urls in partitions:
        writer.write(partition(urls))
    return writer.end(9, ["s3://bucket/"])


def told(folder: Folder, name: str, **changes: Any) -> None:
    """Change what ``listing.json`` says."""
    path = Path(folder.join(f"{LISTINGS}/{name}/listing.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def ago(**span: float) -> str:
    return (NOW - timedelta(**span)).isoformat()


def _damage() -> dict[str, Callable[[Path, dict[str, Any]], object]]:
    """Return what may have become of a listing: functions of its folder and of what is told of it."""

    def says(at: Path, text: str) -> None:
        (at / "listing.json").write_text(text)

    found: dict[str, Callable[[Path, dict[str, Any]], object]] = {
        "nothing told": lambda at, _: (at / "listing.json").unlink(),
        "cut": lambda at, _: says(at, '{"id"'),
        "no text": lambda at, _: (at / "listing.json").write_bytes(b"\xff\xfe\x00"),
        "not an object": lambda at, _: says(at, "[1]"),
        "nested too deep": lambda at, _: says(at, "[" * 100_000),
        "of another release": lambda at, _: says(at, '{"id": "run"}'),
        "of a later release": lambda at, told: says(at, json.dumps(told | {"more": 1})),
        "of another listing": lambda at, told: says(at, json.dumps(told | {"id": "other"})),
        "a file gone": lambda at, _: (at / "keys-00000.parquet").unlink(),
        "a file cut": lambda at, _: (at / "keys-00000.parquet").write_bytes(b"PAR1"),
        "renamed": lambda at, _: at.rename(at.with_name("the copy")),
    }
    values: dict[str, list[Any]] = {
        "fingerprint": [None, 3],
        "about": ["text", None],
        "began": [None, 7, "yesterday", "2026-01-01", "2026-01-01T00:00:00"],
        "ended": [7, "soon"],
        "finished": [[], "x"],
        "damaged": ["yes", None],
        "seen": [-1, 1.5, True, "7", None],
        "folders": [None, "file:///", [1], {"a": 1}],
        "files": [None, 3, [1], [{}]],
    }
    for name, wrong in values.items():
        for value in wrong:
            found[f"{name} {value!r}"] = partial(
                lambda at, told, name, value: says(at, json.dumps(told | {name: value})), name=name, value=value
            )
    values = {
        "name": [None, "../x.parquet", "/etc/passwd", "keys-00000.parquet/..", "listing.json"],
        "size": [-1, "7", None],
        "keys": [-1, 1e9, None],
        "partitions": [False, "x"],
        "first_url": [None, 1],
        "last_url": [None, 1],
    }
    for name, wrong in values.items():
        for value in wrong:
            found[f"file {name} {value!r}"] = partial(
                lambda at, told, name, value: says(
                    at, json.dumps(told | {"files": [{**told["files"][0], name: value}]})
                ),
                name=name,
                value=value,
            )
    return found


DAMAGE = _damage()


def listings(folder: Folder) -> set[str]:
    return {path.name for path in Path(folder.join(LISTINGS)).iterdir()}


class TestWriting:
    def test_partitions_come_back_as_they_were(self, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kept_module, "FILE_KEYS", 5)
        odd = ["s3://b/" + "x" * 5000, "s3://b/é\U0001f52d\uffff'\"\\", "file:///%20a", ""]
        given = [["c", "b"], ["a"], odd, ["z"] * 3, ["y"]]
        writer = ListingWriter(folder, "run", PRINT, {"roots": ["s3://bucket/"]})
        for urls in given:
            writer.write(partition(urls))
        writer.write(partition([]))
        written = writer.end(20, ["s3://bucket/"])

        found = unfinished(folder, PRINT, LONG_AGO)

        assert found is not None
        assert [one.to_pylist() for one in found.partitions()] == [partition(urls).to_pylist() for urls in given]
        assert all(one.schema.equals(LISTING_SCHEMA) for one in found.partitions())
        assert [(file.keys, file.partitions) for file in found.files] == [(7, 3), (4, 2)]
        assert (found.keys, found.partition_count) == (written.keys, written.partition_count) == (11, 5)
        assert (found.about, found.seen, found.folders) == ({"roots": ["s3://bucket/"]}, 20, ["s3://bucket/"])
        assert NOW <= found.began <= found.ended
        assert found.dataset().to_table().num_rows == 11

    def test_an_empty_one(self, folder: Folder) -> None:
        kept(folder, [])

        found = unfinished(folder, PRINT, LONG_AGO)

        assert found is not None
        assert list(found.partitions()) == []
        assert found.dataset().to_table().num_rows == 0

    def test_urls_between_reads_only_what_may_have_some(self, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kept_module, "FILE_KEYS", 4)
        found = kept(folder, [["b", "a"], ["d", "c"], ["f", "e"], ["a", "f"]])
        first, second = (Path(folder.join(f"{LISTINGS}/run/{file.name}")) for file in found.files)

        def between(first: str, last: str | None) -> list[list[str]]:
            return [urls.to_pylist() for urls in found.urls_between(first, last)]

        assert between("b", "d") == [["b"], ["c"], []]
        assert between("", None) == [["b", "a"], ["d", "c"], ["f", "e"], ["a", "f"]]
        assert between("g", None) == between("", "a") == []
        first.unlink()
        assert between("e", None) == [["f", "e"], ["f"]]
        second.unlink()
        assert between("g", "h") == []

    def test_fingerprints(self) -> None:
        of = fingerprint(["s3://b/", "s3://a/"], ["*.fits"], ["x"])

        assert of == fingerprint(["s3://a/", "s3://b/", "s3://a/"], ["*.fits"], ["x"])
        others = [
            fingerprint(["s3://a/"], ["*.fits"], ["x"]),
            fingerprint(["s3://b/", "s3://a/"], None, ["x"]),
            fingerprint(["s3://b/", "s3://a/"], [], ["x"]),
            fingerprint(["s3://b/", "s3://a/"], ["*.fits"], []),
        ]
        assert len({of, *others}) == 5

    def test_a_full_disk_is_one_line(self, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
        # Scripted: a small disk of its own needs root.
        writer = ListingWriter(folder, "run", PRINT, {})

        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(kept_module.pq.ParquetWriter, "write_table", full)
        with pytest.raises(CatalogueError, match=r"listing cannot be kept: .*No space left") as caught:
            writer.write(partition(["a"]))
        assert str(caught.value).isprintable()
        writer.close()


class TestResuming:
    @pytest.fixture
    def three(self, folder: Folder) -> Folder:
        """Have three listings that ended, an hour apart, and a later one of other roots."""
        for name, hours in {"old": 3, "new": 2, "newest": 1}.items():
            kept(folder, [[name]], name)
            told(folder, name, began=ago(hours=hours))
        kept(folder, [["x"]], "of others", "other")
        return folder

    @staticmethod
    def resumed(folder: Folder, newer_than: datetime = LONG_AGO) -> str | None:
        found = unfinished(folder, PRINT, newer_than)
        return None if found is None else found.id

    def test_takes_the_latest_of_the_same_roots(self, three: Folder) -> None:
        assert self.resumed(three) == "newest"
        assert unfinished(three, fingerprint([], None, []), LONG_AGO) is None
        assert [one.id for one in kept_listings(three)] == ["of others", "newest", "new", "old"]

    def test_takes_none_that_is_too_old(self, three: Folder) -> None:
        assert self.resumed(three, NOW - timedelta(hours=1.1)) == "newest"
        assert self.resumed(three, NOW - timedelta(hours=0.9)) is None

    def test_takes_no_earlier_one_once_the_latest_is_finished(self, three: Folder) -> None:
        found = unfinished(three, PRINT, LONG_AGO)
        assert found is not None

        found.finish()

        assert self.resumed(three) is None

    def test_takes_no_earlier_one_where_the_latest_did_not_end(self, three: Folder) -> None:
        ListingWriter(three, "going", PRINT, {}).write(partition(["x"]))

        assert self.resumed(three) is None

    @pytest.mark.parametrize(("hours", "takes"), [(0.9, None), (1.1, "newest")], ids=["since it began", "before"])
    def test_takes_none_where_an_earlier_one_finished(self, three: Folder, hours: float, takes: str | None) -> None:
        told(three, "old", finished=ago(hours=hours))

        assert self.resumed(three) == takes

    def test_orders_listings_by_moments_and_not_by_texts(self, three: Folder) -> None:
        told(three, "newest", began=(NOW - timedelta(hours=1)).astimezone(timezone(timedelta(hours=-11))).isoformat())

        assert self.resumed(three) == "newest"

    def test_where_nothing_was_ever_kept(self, folder: Folder) -> None:
        assert unfinished(folder, PRINT, LONG_AGO) is None
        assert kept_listings(folder) == []
        assert delete_old(folder, ORPHAN_HOURS) == (0, 0)

    @pytest.mark.parametrize("damage", DAMAGE)
    def test_takes_neither_a_damaged_one_nor_an_earlier_one_instead(self, folder: Folder, damage: str) -> None:
        kept(folder, [["a"]], "good")
        told(folder, "good", began=ago(hours=1))
        kept(folder, [["b"]], "run")
        at = Path(folder.join(f"{LISTINGS}/run"))

        DAMAGE[damage](at, json.loads((at / "listing.json").read_text()))

        assert self.resumed(folder) is None

    def test_takes_a_later_one_than_the_damaged_one(self, folder: Folder) -> None:
        kept(folder, [["b"]], "run 1")
        Path(folder.join(f"{LISTINGS}/run 1/listing.json")).write_text("{")
        kept(folder, [["b"]], "run 2")

        assert self.resumed(folder) == "run 2"

    def test_a_flipped_bit_is_found_and_the_listing_not_used_again(self, folder: Folder) -> None:
        found = kept(folder, [[f"s3://bucket/{random.Random(number).random()}" for number in range(500)]])
        path = Path(folder.join(f"{LISTINGS}/run/keys-00000.parquet"))
        data = bytearray(path.read_bytes())
        data[len(data) // 3] ^= 4
        path.write_bytes(data)

        with pytest.raises(
            CatalogueError, match="listing of run run cannot be read; run again, which lists anew"
        ) as caught:
            list(found.partitions())
        assert str(caught.value).isprintable()
        assert unfinished(folder, PRINT, LONG_AGO) is None
        assert delete_old(folder, None)[0] == 2


class TestDeleting:
    def test_by_age(self, folder: Folder) -> None:
        ages = {"finished": 40, "earlier": 41, "left": 20, "left long ago": 31, "other": 42, "dead": 31, "going": 29}
        for name in ages:
            of = "other" if name == "other" else PRINT
            writer = ListingWriter(folder, name, of, {})
            writer.write(partition(["a", "b"]))
            if name in {"dead", "going"}:
                writer.close()
            else:
                writer.end(2, [])
        for name, days in ages.items():
            finished = ago(days=days) if name in {"finished", "earlier", "other"} else None
            told(folder, name, began=ago(days=days), finished=finished)
        unknown = Path(folder.join(f"{LISTINGS}/unknown"))
        unknown.mkdir()
        (unknown / "keys-00000.parquet").write_bytes(b"x" * 7)
        doomed = [Path(folder.join(f"{LISTINGS}/{name}")) for name in ("earlier", "left long ago", "dead")]
        size = sum(path.stat().st_size for at in doomed for path in at.iterdir())

        assert delete_old(folder, ORPHAN_HOURS) == (6, size)
        assert listings(folder) == {"finished", "left", "other", "going", "unknown"}
        assert delete_old(folder, ORPHAN_HOURS) == (0, 0)

    def test_now_what_no_run_can_resume(self, folder: Folder) -> None:
        for name in ("before", "finished", "after", "later"):
            kept(folder, [["a"]], name)
        told(folder, "before", began=ago(hours=3))
        told(folder, "finished", began=ago(hours=2), finished=ago(hours=1))
        told(folder, "after", began=ago(hours=0.5))
        ListingWriter(folder, "dead", "other", {}).close()
        Path(folder.join(f"{LISTINGS}/an unknown one")).mkdir()

        assert delete_old(folder, None)[0] == 5
        assert listings(folder) == {"finished", "later"}

    def test_by_vacuum(self, log: CatalogueLog) -> None:
        add_objects(log, ["a"])
        for name in ("first", "second"):
            kept(log.folder, [["a"]], name).finish()
        ListingWriter(log.folder, "dead", PRINT, {}).close()

        assert vacuum(log.url).deleted == 2
        assert listings(log.folder) == {"second", "dead"}
        assert vacuum(log.url, now=True).deleted == 1
        assert listings(log.folder) == {"second"}
        assert Catalogue(log.url).files.count_rows() == 1


class TestBesideTheTables:
    def test_a_catalogue_is_made_where_only_a_listing_is(self, tmp_path: Path) -> None:
        log = CatalogueLog(str(tmp_path / "catalogue"))
        log.folder.make()
        kept(log.folder, [["a"]])

        log.create()

        assert add_objects(log, ["a"])
        assert unfinished(log.folder, PRINT, LONG_AGO) is not None

    def test_no_reader_sees_it(self, log: CatalogueLog) -> None:
        add_objects(log, ["a", "b"])
        kept(log.folder, [["c", "d", "e"]])
        at = log.folder.path

        assert Catalogue(log.url).files.count_rows() == 2
        assert pads.dataset(at, partitioning="hive").count_rows() == 2 + 4 + 8
        assert len(pd.read_parquet(f"{at}/table=files")) == len(dd.read_parquet(f"{at}/table=files")) == 2
        assert len(dd.read_parquet(f"{at}/table=cards")) == 8
        assert pl.scan_parquet(f"{at}/table=files/*.parquet").collect().height == 2
        assert pl.scan_delta(at).collect().height == 14
        assert duckdb.sql(f"SELECT count(*) FROM '{at}/table=*/*.parquet'").fetchall() == [(14,)]


# What is gone


@pytest.fixture
def small_runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have several runs of urls and several batches, of few urls."""
    monkeypatch.setattr(gone_module, "RUN", 10)
    monkeypatch.setattr(gone_module, "TOUCHED", 3)
    monkeypatch.setattr(gone_module, "_TOGETHER", 1)
    monkeypatch.setattr(gone_module, "_IN_MEMORY", 64)
    return


def add_files(log: CatalogueLog, urls: Iterable[str], walked_at: datetime) -> None:
    urls = sorted(urls)
    rows = rows_of("files", url=urls, walked_at=[walked_at] * len(urls))
    fragment = write_fragment(log.folder, "files", rows, new_batch("run"))
    assert fragment is not None
    added: list[Fragment] = [fragment]
    log.commit(lambda _: Change(added), {})


def found_gone(log: CatalogueLog, listing: KeptListing, **more: Any) -> list[list[str]]:
    given = {"covers": lambda _: True, "walked_before": NOW, **more}
    with gone(log.folder, log.snapshot(), listing, **given) as found:
        batches = [batch.to_pylist() for batch in found.batches()]
        assert found.count == sum(map(len, batches))
        assert batches == [batch.to_pylist() for batch in found.batches()]
        return batches


@pytest.mark.usefixtures("small_runs")
class TestGone:
    @pytest.mark.parametrize("seed", range(8))
    def test_is_what_is_held_and_not_listed(self, log: CatalogueLog, seed: int) -> None:
        chance = random.Random(seed)
        everything = [f"s3://bucket/{number:03}" for number in range(100)]
        held = chance.sample(everything, 60)
        for begin in range(0, 60, 7):  # files that overlap, or do not
            some = sorted(held)[begin : begin + 7] if seed % 2 else held[begin : begin + 7]
            add_files(log, some, NOW - timedelta(hours=1))
        listed = chance.sample(everything, chance.choice([0, 10, 50, 95]))
        cut = [listed[begin : begin + 4] for begin in range(0, len(listed), 4)]
        chance.shuffle(cut)

        batches = found_gone(log, kept(log.folder, cut))

        together = [url for batch in batches for url in batch]
        assert together == sorted(set(held) - set(listed))
        assert max(map(len, batches)) <= 4

    def test_nothing_is_of_an_empty_catalogue(self, log: CatalogueLog) -> None:
        assert found_gone(log, kept(log.folder, [["a"]])) == []

    def test_all_is_by_an_empty_listing(self, log: CatalogueLog) -> None:
        add_files(log, "abc", LONG_AGO)

        assert found_gone(log, kept(log.folder, [])) == [["a", "b", "c"]]

    def test_is_not_what_was_walked_since(self, log: CatalogueLog) -> None:
        add_files(log, ["a", "c"], NOW)
        add_files(log, ["b", "d"], NOW - timedelta(microseconds=1))

        assert found_gone(log, kept(log.folder, [["d"]])) == [["b"]]

    def test_is_not_what_the_listing_does_not_cover(self, log: CatalogueLog) -> None:
        add_files(log, ["a1", "a2", "b1", "b2"], LONG_AGO)

        assert found_gone(log, kept(log.folder, [["a1"]]), covers=lambda url: url < "b2") == [["a2", "b1"]]

    def test_of_an_object_held_twice_is_once(self, log: CatalogueLog) -> None:
        add_files(log, ["a", "b"], LONG_AGO)
        add_files(log, ["b", "c"], LONG_AGO)

        assert found_gone(log, kept(log.folder, [["c"]])) == [["a", "b"]]

    def test_left_out_batch_by_batch(self, tmp_path: Path, log: CatalogueLog) -> None:
        urls = [f"s3://bucket/{number:03}" for number in range(40)]
        for begin in range(4):
            add_objects(log, urls[begin::4])
        expected = CatalogueLog(str(tmp_path / "expected"))
        expected.create()
        add_objects(expected, urls[::3])

        def leaving_out(batch: pa.Array, now: Snapshot) -> Change:
            return without_urls(log.folder, now, batch, "later")

        # Rows of `add_objects` have no time: nothing of unknown age is removed.
        assert found_gone(log, kept(log.folder, [urls[::3]])) == []

        removed = [url for at, url in enumerate(urls) if at % 3]
        for begin in range(0, len(removed), 5):
            batch = pa.array(removed[begin : begin + 5])
            assert log.commit(partial(leaving_out, batch), {}) is not None

        same_tables(Catalogue(log.url), Catalogue(expected.url))

    def test_of_files_that_another_run_deleted(self, log: CatalogueLog) -> None:
        add_files(log, ["a"], LONG_AGO)
        listing, snapshot = kept(log.folder, [["b"]]), log.snapshot()
        log.delete_files(snapshot.fragments)

        with pytest.raises(FileNotFoundError):
            gone(log.folder, snapshot, listing, lambda _: True, NOW)

    @pytest.mark.parametrize("what", ["catalogue", "listing"])
    def test_of_damaged_files_is_one_line(self, log: CatalogueLog, what: str) -> None:
        add_files(log, ["a"], LONG_AGO)
        listing = kept(log.folder, [["b", "a"]])
        paths = [fragment.path for fragment in log.snapshot().fragments]
        path = paths[0] if what == "catalogue" else f"{LISTINGS}/run/{listing.files[0].name}"
        Path(log.folder.join(path)).write_bytes(b"garbage" * 100)

        with pytest.raises(CatalogueError, match="cannot be read") as caught:
            gone(log.folder, log.snapshot(), listing, lambda _: True, NOW)
        assert str(caught.value).isprintable()
