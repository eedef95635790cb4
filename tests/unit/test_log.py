"""The log of the catalogue: versions, conflicts, and everything that may lie where a catalogue was expected."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from crawler.catalogue import log as log_module
from crawler.catalogue.fragments import Fragment
from crawler.catalogue.log import CatalogueLog, Change
from crawler.catalogue.reader import Catalogue
from crawler.catalogue.schema import SCHEMA_VERSION, log_schema
from crawler.catalogue.snapshot import Snapshot
from crawler.errors import CatalogueError, CrawlerError
from tests.tables import add_objects, parquet_files, write_object

A, B, C = "file:///a", "file:///b", "file:///c"


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return tmp_path / "catalogue"


@pytest.fixture
def log(location: Path) -> CatalogueLog:
    made = CatalogueLog(str(location))
    made.create()
    return made


def urls(location: Path, version: int | None = None) -> list[str]:
    return sorted(Catalogue(str(location), version=version).files.to_table()["url"].to_pylist())


def well_said(error: CrawlerError, *words: str) -> None:
    """Assert that a message is one line of bearable length with some words in it, and no stack of Rust."""
    text = str(error)
    assert text.isprintable()
    assert len(text) < 700
    assert "<unknown>" not in text
    for word in words:
        assert word in text


class TestCreate:
    def test_makes_an_empty_catalogue(self, location: Path, log: CatalogueLog) -> None:
        assert (log.snapshot().version, log.snapshot().fragments, log.snapshot().empty) == (0, (), True)
        assert urls(location) == []
        assert (location / "_delta_log").is_dir()

    def test_makes_the_folders_above(self, tmp_path: Path) -> None:
        CatalogueLog(str(tmp_path / "a" / "b" / "c")).create()

        assert urls(tmp_path / "a" / "b" / "c") == []

    def test_again_changes_nothing(self, location: Path, log: CatalogueLog) -> None:
        add_objects(log, [A])

        log.create()
        CatalogueLog(str(location)).create()

        assert log.snapshot().version == 1
        assert urls(location) == [A]

    def test_takes_an_empty_folder(self, location: Path) -> None:
        location.mkdir()

        CatalogueLog(str(location)).create()

        assert urls(location) == []

    def test_goes_on_where_another_run_died_making_it(self, location: Path) -> None:
        (location / "_delta_log").mkdir(parents=True)
        (location / "_delta_log" / "00000000000000000000.json.tmp").write_text("")

        CatalogueLog(str(location)).create()

        assert urls(location) == []

    def test_loses_a_race_gracefully(self, location: Path, log: CatalogueLog, monkeypatch: pytest.MonkeyPatch) -> None:
        # As seen by the loser: no log at first, and one when its own cannot be made.
        add_objects(log, [A])
        first_looks = [False]
        real = CatalogueLog.exists
        monkeypatch.setattr(CatalogueLog, "exists", lambda self: first_looks.pop() if first_looks else real(self))
        monkeypatch.setattr(CatalogueLog, "_foreign_entries", lambda _: False)

        def refuse(*_: object, **__: object) -> None:
            raise CommitFailedError("version 0 is there already")

        monkeypatch.setattr(log_module.DeltaTable, "create", refuse)

        CatalogueLog(str(location)).create()

        assert not first_looks
        assert urls(location) == [A]

    @pytest.mark.parametrize("name", ["a b", "a#b", "a?b", "a*b", "é 🔭", "it's", "100%"])
    def test_in_a_folder_of_an_odd_name(self, tmp_path: Path, name: str) -> None:
        location = tmp_path / name
        log = CatalogueLog(str(location))

        log.create()
        add_objects(log, [A])
        add_objects(log, [B])

        assert [path.name for path in tmp_path.iterdir()] == [name]
        assert urls(location) == [A, B]
        assert urls(location, 1) == [A]


class TestVersions:
    def test_each_commit_is_one(self, location: Path, log: CatalogueLog) -> None:
        for url in (A, B, C):
            add_objects(log, [url])

        assert [urls(location, version) for version in range(4)] == [[], [A], [A, B], [A, B, C]]
        assert Catalogue(str(location)).version == 3

    def test_a_commit_changes_all_tables(self, location: Path, log: CatalogueLog) -> None:
        add_objects(log, [A, B])

        catalogue = Catalogue(str(location))

        counts = [catalogue.files.count_rows(), catalogue.hdus.count_rows(), catalogue.cards.count_rows()]
        assert counts == [2, 4, 8]
        assert [len(log.snapshot().of(name)) for name in ("files", "hdus", "cards")] == [1, 1, 1]

    def test_adding_and_removing_is_one_commit(self, location: Path, log: CatalogueLog) -> None:
        old = add_objects(log, [A])
        new = write_object(log.folder, [B])

        before = log.commit(lambda _: Change(new, old), {"crawl": "run"})

        assert before is not None
        assert before.version == 1
        assert set(log.snapshot().fragments) == set(new)
        assert urls(location) == [B]
        assert urls(location, 1) == [A]

    def test_nothing_to_change_is_no_version(self, log: CatalogueLog) -> None:
        assert log.commit(lambda _: Change(), {}) is None
        assert log.snapshot().version == 0

    def test_the_fragments_that_are_read_are_those_that_were_written(self, log: CatalogueLog) -> None:
        odd = ["s3://bucket/" + "x" * 3000, "s3://bucket/é\U0001f52d\uffff'\"\\", "file:///%20a"]

        written = add_objects(log, odd)

        assert set(log.snapshot().fragments) == set(written)
        assert written[0].first_url == "file:///%20a"

    def test_a_checkpoint_loses_nothing(self, location: Path, log: CatalogueLog) -> None:
        # delta-rs writes one every hundred commits, and reads it instead of the commits from then on.
        first = add_objects(log, ["s3://bucket/" + "x" * 3000, "s3://bucket/é\U0001f52d\uffff'\""])
        add_objects(log, [A])
        DeltaTable(str(location)).create_checkpoint()
        for commit in sorted((location / "_delta_log").glob("*.json"))[:-1]:
            commit.unlink()

        assert set(first) < set(log.snapshot().fragments)
        assert len(urls(location)) == 3

    def test_metadata_is_kept_with_the_commit(self, location: Path, log: CatalogueLog) -> None:
        add_objects(log, [A], crawl="20260101T000000-00000000")

        assert DeltaTable(str(location)).history(1)[0]["crawl"] == "20260101T000000-00000000"

    def test_files_are_deleted_once_and_again(self, location: Path, log: CatalogueLog) -> None:
        fragments = write_object(log.folder, [A])

        log.delete_files(fragments)
        log.delete_files(fragments)

        assert parquet_files(location) == set()


class TestConflicts:
    def test_a_plan_is_made_again_on_what_another_committed(self, location: Path, log: CatalogueLog) -> None:
        old = add_objects(log, [A])
        other = CatalogueLog(str(location))
        new = write_object(log.folder, [C])
        seen = []

        def plan(snapshot: Snapshot) -> Change:
            seen.append(snapshot.version)
            if len(seen) == 1:
                add_objects(other, [B])
            return Change(new, old)

        before = log.commit(plan, {})

        assert seen == [1, 2]
        assert before is not None
        assert before.version == 2
        assert urls(location) == [B, C]

    def test_what_another_removed_is_not_removed_again(self, location: Path, log: CatalogueLog) -> None:
        old = add_objects(log, [A])
        other = CatalogueLog(str(location))
        plans = []

        def plan(snapshot: Snapshot) -> Change:
            plans.append(snapshot)
            if len(plans) == 1:
                other.commit(lambda _: Change([], old), {})
            return Change([], list(snapshot.fragments))

        assert log.commit(plan, {}) is None
        assert [len(snapshot.fragments) for snapshot in plans] == [3, 0]
        assert urls(location) == []

    def test_files_that_another_merged_and_deleted_are_looked_for_again(
        self, location: Path, log: CatalogueLog
    ) -> None:
        old = add_objects(log, [A])
        other = CatalogueLog(str(location))
        seen = []

        def plan(snapshot: Snapshot) -> Change:
            seen.append(snapshot.version)
            if len(seen) == 1:
                merged = write_object(other.folder, [A, B])
                other.commit(lambda _: Change(merged, old), {})
                other.delete_files(old)
            for fragment in snapshot.fragments:
                (location / fragment.path).stat()
            return Change([], list(snapshot.fragments))

        log.commit(plan, {})

        assert seen == [1, 2]
        assert urls(location) == []

    def test_files_that_are_just_gone_are_damage(self, location: Path, log: CatalogueLog) -> None:
        def plan(_: Snapshot) -> Change:
            raise FileNotFoundError(2, "No such file", "x.parquet")

        with pytest.raises(CatalogueError, match="is damaged") as caught:
            log.commit(plan, {})
        well_said(caught.value, str(location), "x.parquet")

    @pytest.mark.parametrize(
        "fault",
        [
            pytest.param(OSError(28, "No space left on device"), id="disk full"),
            pytest.param(pa.ArrowInvalid("not\nParquet"), id="damaged Parquet file"),
        ],
    )
    def test_what_fails_in_a_plan_is_said(self, log: CatalogueLog, fault: Exception) -> None:
        def plan(_: Snapshot) -> Change:
            raise fault

        with pytest.raises(CatalogueError) as caught:
            log.commit(plan, {})
        well_said(caught.value, "cannot be rewritten")

    def test_it_ends(self, location: Path, log: CatalogueLog, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(log_module, "_ATTEMPTS", 2)
        other = CatalogueLog(str(location))

        def plan(snapshot: Snapshot) -> Change:
            add_objects(other, [f"file:///{snapshot.version}"])
            return Change(write_object(log.folder, [C]))

        with pytest.raises(CatalogueError, match="2 times") as caught:
            log.commit(plan, {})
        well_said(caught.value)

    @pytest.mark.parametrize("fault", [OSError("disk full"), DeltaError("no\nbackend")], ids=["os", "delta"])
    def test_what_fails_in_a_commit_is_said(
        self, location: Path, log: CatalogueLog, monkeypatch: pytest.MonkeyPatch, fault: Exception
    ) -> None:
        def fail(*_: object, **__: object) -> None:
            raise fault

        monkeypatch.setattr(log_module.DeltaTable, "create_write_transaction", fail)

        with pytest.raises(CatalogueError, match="cannot be written") as caught:
            log.commit(lambda _: Change(write_object(log.folder, [A])), {})
        well_said(caught.value)
        assert urls(location) == []


# What may lie where a catalogue was expected. Each is given a catalogue of three versions to spoil.


def _commit(location: Path, version: int) -> Path:
    return location / "_delta_log" / f"{version:020}.json"


def _without_statistics(location: Path) -> None:
    actions = [json.loads(line) for line in _commit(location, 2).read_text().splitlines()]
    for action in actions:
        action.get("add", {}).pop("stats", None)
    _commit(location, 2).write_text("\n".join(map(json.dumps, actions)))


def _emptied(location: Path) -> None:
    shutil.rmtree(location)
    location.mkdir()


def _replaced_by(text: str) -> Callable[[Path], None]:
    def replace(location: Path) -> None:
        shutil.rmtree(location)
        location.write_text(text)

    return replace


def _of_another_program(location: Path) -> None:
    shutil.rmtree(location)
    write_deltalake(str(location), pa.table({"x": [1]}))


def _of_another_name(name: str) -> Callable[[Path], None]:
    def rename(location: Path) -> None:
        shutil.rmtree(location)
        location.mkdir()
        DeltaTable.create(str(location), schema=log_schema(), partition_by=["table"], name=name)

    return rename


def _protocol(location: Path) -> None:
    text = _commit(location, 0).read_text().replace('"minReaderVersion":1', '"minReaderVersion":99')
    _commit(location, 0).write_text(text)


def _column_type(location: Path) -> None:
    text = _commit(location, 0).read_text().replace(r"\"type\":\"string\"", r"\"type\":\"sting\"")
    _commit(location, 0).write_text(text)


SPOILED: list[tuple[str, Callable[[Path], object], str]] = [
    ("nothing", shutil.rmtree, "there is no catalogue here"),
    ("an empty folder", _emptied, "there is no catalogue here"),
    ("a file", _replaced_by("x"), "there is no catalogue here"),
    ("only Parquet files", lambda at: shutil.rmtree(at / "_delta_log"), "there is no catalogue here"),
    ("a log of no commits", lambda at: [p.unlink() for p in (at / "_delta_log").iterdir()], "there is no catalogue"),
    ("a table of another program", _of_another_program, "is a Delta table, but no catalogue of FITS headers"),
    ("a table of another name", _of_another_name("crawler-catalogue-x/1"), "no catalogue of FITS headers"),
    ("a table of no schema version", _of_another_name("crawler-catalogue"), "no catalogue of FITS headers"),
    (
        "a newer schema",
        _of_another_name(f"crawler-catalogue/{SCHEMA_VERSION + 1}"),
        f"was written by a newer release (schema {SCHEMA_VERSION + 1})",
    ),
    ("a newer protocol", _protocol, "cannot be read"),
    ("a type that is none", _column_type, "cannot be read"),
    ("garbage as first commit", lambda at: _commit(at, 0).write_text("garbage"), "cannot be read"),
    ("garbage as last commit", lambda at: _commit(at, 2).write_text("garbage"), "cannot be read"),
    ("half of the last commit", lambda at: _commit(at, 2).write_bytes(_commit(at, 2).read_bytes()[:99]), "cannot"),
    ("bytes that are no text", lambda at: _commit(at, 1).write_bytes(bytes(range(256))), "cannot be read"),
    ("an empty first commit", lambda at: _commit(at, 0).write_text(""), "cannot be read"),
    ("no first commit", lambda at: _commit(at, 0).unlink(), "cannot be read"),
    ("a commit missing", lambda at: _commit(at, 1).unlink(), "cannot be read"),
    ("files of another program", _without_statistics, "holds files that another program wrote"),
]


@pytest.fixture(params=SPOILED, ids=[name for name, _, _ in SPOILED])
def spoiled(request: pytest.FixtureRequest, location: Path, log: CatalogueLog) -> tuple[Path, str]:
    _, spoil, words = request.param
    add_objects(log, [A])
    add_objects(log, [B])
    spoil(location)
    return location, words


def test_what_is_no_catalogue_is_not_opened(spoiled: tuple[Path, str]) -> None:
    location, words = spoiled

    with pytest.raises(CatalogueError) as caught:
        Catalogue(str(location))
    well_said(caught.value, words, str(location))


def test_what_is_no_catalogue_is_not_written_to(spoiled: tuple[Path, str]) -> None:
    location, _ = spoiled
    added = [Fragment("files", "x", 1, 1, A, A)]

    with pytest.raises(CatalogueError) as caught:
        CatalogueLog(str(location)).commit(lambda now: Change(added, list(now.of("files"))), {})
    well_said(caught.value)


@pytest.mark.parametrize("version", [-1, 3, 99, 2**64, 10**30])
def test_a_version_that_is_not_there(location: Path, log: CatalogueLog, version: int) -> None:
    add_objects(log, [A])
    add_objects(log, [B])

    with pytest.raises(CatalogueError) as caught:
        Catalogue(str(location), version=version)
    well_said(caught.value, f"there is no version {version}: the latest is 2")


def test_a_version_whose_commit_is_gone(location: Path, log: CatalogueLog) -> None:
    add_objects(log, [A])
    DeltaTable(str(location)).create_checkpoint()
    _commit(location, 0).unlink()

    assert urls(location, 1) == [A]
    with pytest.raises(CatalogueError) as caught:
        Catalogue(str(location), version=0)
    well_said(caught.value, "version 0 cannot be read")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        pytest.param("file", "is a file, not a folder", id="a file"),
        pytest.param("file/below", "cannot be", id="below a file"),
        pytest.param("full", "is a folder with other things in it and no catalogue", id="a folder of other things"),
        pytest.param("log", "is a folder with other things in it", id="a file that is called as the log is"),
        pytest.param("x" * 300, "cannot be", id="a name too long"),
        pytest.param("a\0b", "cannot be", id="NUL in the name"),
        pytest.param("\udcff", "cannot be", id="a name that is not UTF-8"),
        pytest.param("a%20b", "percent escape", id="a percent escape in the name"),
    ],
)
def test_where_no_catalogue_can_be_made(tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("x")
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "_delta_log").write_text("x")
    before = sorted(tmp_path.rglob("*"))

    with pytest.raises(CatalogueError) as caught:
        CatalogueLog(str(tmp_path / name)).create()
    well_said(caught.value, words)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_that_cannot_be_written(monkeypatch: pytest.MonkeyPatch, location: Path) -> None:
    # Scripted: tests may run as root, who is refused nothing.
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(location))

    monkeypatch.setattr(log_module.DeltaTable, "create", refuse)

    with pytest.raises(CatalogueError, match=r"cannot be written: .*Permission denied") as caught:
        CatalogueLog(str(location)).create()
    well_said(caught.value)


@pytest.mark.parametrize("url", ["gs://bucket/catalogue", "https://host/catalogue/", "memory://catalogue"])
def test_a_store_on_which_no_catalogue_can_lie(url: str) -> None:
    with pytest.raises(CatalogueError, match="lies on the local disk or on s3") as caught:
        CatalogueLog(url)
    well_said(caught.value, url.partition(":")[0])
