"""Nothing outside a catalogue's folder is read or deleted, whatever its log and its other files say."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake.transaction import AddAction, RemoveAction

from crawler.catalogue.log import CatalogueLog
from crawler.catalogue.reader import Catalogue
from crawler.catalogue.records.listings import delete_old, kept_listings, unfinished
from crawler.catalogue.records.runs import Run, keep_run, runs_of
from crawler.catalogue.records.saved_listing import LISTINGS, ListingWriter, fingerprint
from crawler.catalogue.vacuum import ORPHAN_HOURS, vacuum
from crawler.driver.driver import Crawl
from crawler.driver.executor import InProcess
from crawler.errors import CatalogueError
from crawler.estimation.saved import ESTIMATES, load_estimate
from crawler.job.crawl_job import CrawlJob
from crawler.stores.base import LISTING_SCHEMA
from tests.tables import add_objects

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return tmp_path / "catalogue"


@pytest.fixture
def log(location: Path) -> CatalogueLog:
    made = CatalogueLog(str(location))
    made.create()
    add_objects(made, ["file:///a", "file:///b"])
    return made


@pytest.fixture
def other(tmp_path: Path, log: CatalogueLog) -> Path:
    """Return a folder that is none of the catalogue's, with files that could be."""
    folder = tmp_path / "other"
    shutil.copytree(log.folder.path, folder)
    for table in ("files", "hdus", "cards"):
        for path in (folder / f"table={table}").iterdir():
            shutil.copy(path, folder / "x.parquet" if table == "files" else folder / f"{table}.parquet")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refused(call: Callable[[], object], words: str) -> None:
    with pytest.raises(CatalogueError, match=words) as caught:
        call()
    assert str(caught.value).isprintable()


def index(location: Path, root: Path) -> None:
    Crawl(CrawlJob(roots=(str(root),), catalogue=str(location)), InProcess(), lambda _: None).run()


PATHS = [
    "../other/x.parquet",
    "table=files/../../other/x.parquet",
    "table=files/../../other/table=files/x.parquet",
    "%2e%2e/other/x.parquet",
    "table=files/%2e%2e/%2e%2e/other/x.parquet",
    "%252e%252e/other/x.parquet",
    "{other}/x.parquet",
    "file://{other}/x.parquet",
    "s3://bucket/x.parquet",
    "_crawler/x.parquet",
    "x.parquet",
    "table=files/deeper/x.parquet",
    "table=files/.x.parquet",
    "table=files/..parquet",
    "table=files/x.txt",
    "table=cards/x.parquet",
    "table=other/x.parquet",
    "table=files/x.parquet\n",
    "",
]


class TestPathsOfTheLog:
    @pytest.fixture(params=PATHS)
    def named(self, request: pytest.FixtureRequest, log: CatalogueLog, other: Path) -> str:
        """Have the log name a file that is no catalogue's as one of the table ``files``."""
        path = request.param.format(other=other)
        size = (other / "x.parquet").stat().st_size
        stats = {
            "numRecords": 2,
            "minValues": {"url": "file:///a"},
            "maxValues": {"url": "file:///b"},
            "nullCount": {"url": 0},
        }
        commit(log, AddAction(path, size, {"table": "files"}, now(), True, json.dumps(stats)))
        return path

    @pytest.mark.usefixtures("named")
    def test_catalogue_is_not_opened(self, location: Path) -> None:
        refused(lambda: Catalogue(str(location)), "its log names .* no file of a catalogue")

    @pytest.mark.usefixtures("named")
    def test_nothing_is_deleted(self, location: Path, other: Path) -> None:
        before = contents(other), contents(location)

        refused(lambda: vacuum(str(location), now=True), "its log names .* no file of a catalogue")

        assert (contents(other), contents(location)) == before

    @pytest.mark.usefixtures("named")
    def test_nothing_is_added(self, location: Path, log: CatalogueLog, tree: Path) -> None:
        refused(lambda: index(location, tree), "its log names .* no file of a catalogue")


def now() -> int:
    return int(time.time() * 1000)


def commit(log: CatalogueLog, *actions: AddAction | RemoveAction) -> None:
    table = log.open()
    table.create_write_transaction(list(actions), mode="append", schema=table.schema(), partition_by=["table"])


def test_a_removed_file_elsewhere_is_not_deleted(location: Path, log: CatalogueLog, other: Path) -> None:
    for path in ("../other/x.parquet", f"{other}/x.parquet", "table=files/../../other/x.parquet"):
        commit(log, RemoveAction(path, True, now(), 9, {"table": "files"}))
    before = contents(other)

    assert vacuum(str(location), now=True).deleted == 0

    assert contents(other) == before
    assert Catalogue(str(location)).files.count_rows() == 2


FOLDERS = ["table=files", "table=hdus", "table=cards", "_delta_log", "_crawler"]
FOLDERS += [f"_crawler/{name}" for name in ("listings", "runs", "estimates")]


class TestFoldersThatAreLinks:
    @pytest.fixture(params=FOLDERS)
    def link(self, request: pytest.FixtureRequest, location: Path, log: CatalogueLog, other: Path) -> str:
        """Have a folder of the catalogue be a symbolic link to another's, that holds the same."""
        for folder in (location, other):
            made = CatalogueLog(str(folder)).folder
            keep_run(made, Run("run", {}))
            made.put(f"{ESTIMATES}/quote.json", b"{}")
            writer = ListingWriter(made, "dead", "print", {})
            writer.close()
        shutil.rmtree(location / request.param)
        (location / request.param).symlink_to(other / request.param, target_is_directory=True)
        return str(request.param)

    def test_catalogue_is_refused_and_nothing_deleted(self, location: Path, other: Path, link: str, tree: Path) -> None:
        before = contents(other)

        for call in (
            lambda: Catalogue(str(location)),
            lambda: vacuum(str(location), now=True),
            lambda: vacuum(str(location)),
            lambda: index(location, tree),
        ):
            refused(call, f"{link} is a symbolic link; a catalogue lies in one folder")
        assert contents(other) == before

    def test_a_link_to_the_catalogue_is_followed(self, location: Path, log: CatalogueLog, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(location, target_is_directory=True)

        assert Catalogue(str(tmp_path / "link")).files.count_rows() == 2


class TestFilesThatAreLinks:
    def link(self, location: Path, other: Path, relative: str) -> None:
        """Replace a file by a link to the same elsewhere."""
        path = location / relative
        target = other / path.name
        shutil.move(path, target)
        path.symlink_to(target)

    @pytest.mark.parametrize("table", ["files", "hdus", "cards"])
    def test_of_a_table_are_not_read(self, location: Path, log: CatalogueLog, other: Path, table: str) -> None:
        (fragment,) = log.snapshot().of(table)
        self.link(location, other, fragment.path)
        catalogue = Catalogue(str(location))

        refused(lambda: getattr(catalogue, table), "is a symbolic link, which is not followed")
        refused(lambda: catalogue.sql("SELECT 1"), "is a symbolic link, which is not followed")
        if table == "hdus":
            refused(lambda: catalogue.header_bytes("file:///a"), "is a symbolic link, which is not followed")
        if table == "files":
            refused(lambda: catalogue.rows_of(pa.array(["file:///a"]), ["url"]), "which is not followed")

    def test_of_the_log_are_not_read(self, location: Path, log: CatalogueLog, other: Path) -> None:
        self.link(location, other, "_delta_log/00000000000000000000.json")

        refused(lambda: Catalogue(str(location)), "00000000000000000000.json is a symbolic link")

    def test_orphans_are_deleted_and_not_what_they_lead_to(
        self, location: Path, log: CatalogueLog, other: Path
    ) -> None:
        link = location / "table=files" / "dead-0.parquet"
        link.symlink_to(other / "x.parquet")
        before = contents(other)

        assert vacuum(str(location), now=True).deleted == 1

        assert not link.is_symlink()
        assert contents(other) == before

    def test_of_run_records_are_not_read(self, location: Path, log: CatalogueLog, other: Path) -> None:
        for name in ("one", "two"):
            keep_run(log.folder, Run(name, {}))
        self.link(location, other, "_crawler/runs/one.json")

        assert [run.crawl for run in runs_of(log.folder)] == ["two"]

    def test_of_estimates_are_not_read(self, location: Path, log: CatalogueLog, other: Path) -> None:
        quote = json.dumps({"fingerprint": "x"})
        log.folder.put(f"{ESTIMATES}/x.json", quote.encode())
        self.link(location, other, f"{ESTIMATES}/x.json")

        with pytest.raises(OSError, match="not followed"):
            log.folder.get(f"{ESTIMATES}/x.json")
        assert load_estimate(log.folder, "x") is None


class TestListings:
    PRINT = fingerprint(["file:///"], None, [])

    @pytest.fixture
    def listing(self, log: CatalogueLog) -> Path:
        """Return the folder of a listing that ended."""
        writer = ListingWriter(log.folder, "run", self.PRINT, {})
        writer.write(pa.Table.from_pylist([{"url": "file:///a"}], schema=LISTING_SCHEMA))
        writer.end(1, ["file:///"])
        return Path(log.folder.join(f"{LISTINGS}/run"))

    def test_that_are_links_are_neither_read_nor_deleted(
        self, log: CatalogueLog, listing: Path, tmp_path: Path
    ) -> None:
        away = tmp_path / "away"
        shutil.move(listing, away)
        listing.symlink_to(away, target_is_directory=True)
        before = contents(away)

        assert unfinished(log.folder, self.PRINT, LONG_AGO) is None
        assert kept_listings(log.folder) == []
        assert delete_old(log.folder, None) == (0, 0)
        assert contents(away) == before

    def test_whose_files_are_links_are_not_resumed(self, log: CatalogueLog, listing: Path, tmp_path: Path) -> None:
        (found,) = kept_listings(log.folder)
        shutil.move(listing / "keys-00000.parquet", tmp_path / "away")
        (listing / "keys-00000.parquet").symlink_to(tmp_path / "away")

        assert unfinished(log.folder, self.PRINT, LONG_AGO) is None
        refused(lambda: list(found.partitions()), "is a symbolic link, which is not followed")
        refused(found.dataset, "is a symbolic link, which is not followed")

    @pytest.mark.parametrize("name", ["../../../away.parquet", "/etc/passwd", "../run/keys-00000.parquet"])
    def test_whose_files_have_other_names_are_not_known(
        self, log: CatalogueLog, listing: Path, tmp_path: Path, name: str
    ) -> None:
        told = json.loads((listing / "listing.json").read_text())
        told["files"][0]["name"] = name
        (listing / "listing.json").write_text(json.dumps(told))

        assert unfinished(log.folder, self.PRINT, LONG_AGO) is None
        assert kept_listings(log.folder) == []

    @pytest.mark.parametrize("hours", [None, ORPHAN_HOURS])
    def test_only_their_own_files_are_deleted(
        self, log: CatalogueLog, listing: Path, tmp_path: Path, hours: float | None
    ) -> None:
        away = tmp_path / "away"
        away.mkdir()
        (away / "keys-00000.parquet").write_bytes(b"x")
        (listing / "inner").symlink_to(away, target_is_directory=True)
        (listing / "notes.txt").write_text("mine")
        told = json.loads((listing / "listing.json").read_text())
        told["began"] = told["ended"] = "2020-01-01T00:00:00+00:00"
        (listing / "listing.json").write_text(json.dumps(told | {"damaged": True}))

        assert delete_old(log.folder, hours)[0] == 2

        assert {path.name for path in listing.iterdir()} == {"inner", "notes.txt"}
        assert contents(away) == {"keys-00000.parquet": b"x"}


@pytest.mark.parametrize(
    "told",
    [
        "[" * 100_000,
        "null",
        "7",
        "{}",
        '{"crawl": 1}',
        '{"counts": []}',
        '{"what": "x"}',
        '{"error": 7}',
        '{"began": 1}',
        '{"counts": {"usd": "1"}}',
        '{"counts": {"seconds": NaN}}',
        '{"counts": {"requests": 1%s}}' % ("0" * 400),
        '{"counts": {"walked": [1]}}',
        '{"counts": {"walked": {"ok": null}}}',
        '{"what": {"roots": 7}}',
    ],
    ids=range(15),
)
def test_a_run_record_of_anything_is_left_out(log: CatalogueLog, told: str) -> None:
    keep_run(log.folder, Run("good", {}))
    keep_run(log.folder, Run("bad", {}))
    path = Path(log.folder.join("_crawler/runs/bad.json"))
    if told.startswith('{"'):
        told = json.dumps(json.loads(path.read_text()) | json.loads(told))
    path.write_text(told)

    assert [run.crawl for run in runs_of(log.folder)] == ["good"]
