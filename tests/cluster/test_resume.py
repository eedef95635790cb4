"""Crawls that are killed after their listing ended, and resumed: the command again finishes the work."""

from __future__ import annotations

import json
import signal
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

from crawler import api
from crawler.catalogue.reader import Catalogue
from crawler.cli import main
from crawler.cli.output import as_json, summary
from crawler.cluster import DaskExecutor, local_client
from crawler.driver.driver import Crawl
from crawler.driver.executor import InProcess
from crawler.driver.report import Report
from crawler.job.crawl_job import CrawlJob
from crawler.job.settings import Settings
from tests.cluster.driven import driven
from tests.conftest import TREE_FILES, sibling
from tests.tables import same_tables

LOW = Settings(first_partition=5, growth=1, partition=5, commit_receipts=1, reused_keys=TREE_FILES)
"""Many partitions and commits of few files, and a listing of the tree is just large enough to be resumed."""

LISTING = "_crawler/listings"


@pytest.fixture(scope="module")
def client() -> Any:
    with local_client(2) as made:
        yield made


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return tmp_path / "catalogue"


def crawled(location: Path, *roots: Path, client: Client | None = None, **options: Any) -> Report:
    """Crawl roots to the end."""
    given = {"roots": tuple(map(str, roots)), "catalogue": str(location), "settings": LOW, **options}
    return Crawl(CrawlJob(**given), DaskExecutor(client) if client else InProcess(), lambda _: None).run()


def killed(location: Path, root: Path, at: str = "after commit", number: int = 3, **more: Any) -> None:
    """Crawl a root until the process is killed, once its listing has ended."""
    told = {"at": at, "number": number, "listed": True, "settings": {"reused_keys": TREE_FILES}, **more}
    done = driven(location, [str(root)], **told)
    assert done.returncode == -signal.SIGKILL, done.stderr


def names(location: Path) -> set[str]:
    """Return the names of the files that have a row."""
    urls = Catalogue(str(location)).files.to_table(columns=["url"])["url"].to_pylist()
    return {url.rpartition("/")[2] for url in urls}


def listings(location: Path) -> list[dict[str, Any]]:
    """Return what is told of each listing, the earliest first."""
    told = [json.loads(path.read_text()) for path in (location / LISTING).glob("*/listing.json")]
    return sorted(told, key=lambda one: one["began"])


def tell(location: Path, listing: dict[str, Any], **changes: Any) -> None:
    """Change what is told of a listing."""
    path = location / LISTING / listing["id"] / "listing.json"
    path.write_text(json.dumps({**listing, **changes}))


def earlier(listing: dict[str, Any], **span: float) -> str:
    return (datetime.fromisoformat(listing["began"]) - timedelta(**span)).isoformat()


class TestKilledAfterTheListing:
    @pytest.mark.parametrize(
        ("at", "number", "workers"),
        [
            pytest.param("before fragment", 1, 0, id="nothing written"),
            pytest.param("after commit", 3, 0, id="some commits"),
            pytest.param("after commit", 9, 0, id="all but the last step"),
            pytest.param("before commit", 1, 2, id="nothing committed on a cluster"),
            pytest.param("after commit", 3, 2, id="some commits on a cluster"),
        ],
    )
    def test_the_same_command_finishes_the_run(
        self,
        tmp_path: Path,
        location: Path,
        tree: Path,
        request: pytest.FixtureRequest,
        at: str,
        number: int,
        workers: int,
    ) -> None:
        killed(location, tree, at, number, workers=workers)
        (left,) = listings(location)
        before = names(location)

        report = crawled(location, tree, client=request.getfixturevalue("client") if workers else None)

        crawled(tmp_path / "undisturbed", tree)
        same_tables(Catalogue(str(location)), Catalogue(str(tmp_path / "undisturbed")))
        assert report.listed_at == datetime.fromisoformat(left["began"])
        assert (report.seen, report.listed) == (TREE_FILES + 1, TREE_FILES)
        assert (report.skipped, report.files) == (len(before), TREE_FILES - len(before))
        assert (report.vanished, report.removed, report.listing_ended) == (0, 0, True)
        again = crawled(location, tree)
        assert (again.listed_at, again.skipped) == (None, TREE_FILES)

    def test_twice_in_a_row(self, tmp_path: Path, location: Path, tree: Path) -> None:
        killed(location, tree)
        killed(location, tree, listed=False)
        (left,) = listings(location)

        report = crawled(location, tree)

        assert report.listed_at == datetime.fromisoformat(left["began"])
        assert 0 < report.files < TREE_FILES - 10
        crawled(tmp_path / "undisturbed", tree)
        same_tables(Catalogue(str(location)), Catalogue(str(tmp_path / "undisturbed")))

    @pytest.mark.parametrize("on_cluster", [False, True], ids=["in process", "on a cluster"])
    def test_files_deleted_changed_and_added_since(
        self, tmp_path: Path, location: Path, tree: Path, request: pytest.FixtureRequest, on_cluster: bool
    ) -> None:
        killed(location, tree, "before commit", 1)  # nothing is in the catalogue
        (tree / "night1" / "exp010.fits").unlink()
        (tree / "night2" / "exp020.fits").unlink()
        (tree / "night1" / "exp011.fits").write_bytes(sibling(11, exposure=99.0) + bytes(2880))
        (tree / "night1" / "added.fits").write_bytes(sibling(3))

        report = crawled(location, tree, client=request.getfixturevalue("client") if on_cluster else None)

        assert report.listed_at is not None
        assert (report.vanished, report.walked["unreadable"], report.files) == (2, 0, TREE_FILES - 2)
        assert report.first_error is None
        assert not names(location) & {"exp010.fits", "exp020.fits", "added.fits"}
        following = crawled(location, tree)
        assert (following.listed_at, following.files, following.removed) == (None, 1, 0)
        crawled(tmp_path / "undisturbed", tree)
        same_tables(Catalogue(str(location)), Catalogue(str(tmp_path / "undisturbed")))

    def test_what_vanished_is_said(self, location: Path, tree: Path) -> None:
        killed(location, tree, "before commit", 1)
        (tree / "night1" / "exp010.fits").unlink()

        report = crawled(location, tree)

        assert "vanished   1 file, deleted since the listing" in summary(report)
        assert json.loads(as_json(report))["vanished"] == 1

    def test_an_older_row_of_what_vanished_stays_until_the_next_listing(self, location: Path, tree: Path) -> None:
        crawled(location, tree)
        changed = tree / "night1" / "exp010.fits"
        changed.write_bytes(sibling(10, exposure=99.0))
        killed(location, tree, "before commit", 1)
        changed.unlink()

        report = crawled(location, tree)

        assert (report.vanished, report.removed, report.files) == (1, 0, 0)
        assert "exp010.fits" in names(location)
        assert crawled(location, tree).removed == 1
        assert "exp010.fits" not in names(location)

    def test_what_was_gone_when_it_was_listed_is_removed(self, tmp_path: Path, location: Path, tree: Path) -> None:
        crawled(location, tree)
        (tree / "night1" / "exp010.fits").unlink()
        (tree / "night1" / "new.fits").write_bytes(sibling(1))
        killed(location, tree, "before commit", 1, settings={"reused_keys": 1})

        report = crawled(location, tree)

        assert report.listed_at is not None
        assert (report.removed, report.files) == (1, 1)
        crawled(tmp_path / "undisturbed", tree)
        same_tables(Catalogue(str(location)), Catalogue(str(tmp_path / "undisturbed")))

    def test_in_a_fresh_listing_a_missing_file_is_a_row(self, location: Path, tree: Path) -> None:
        missing = tree / "night1" / "missing.fits"
        keys = tree.parent / "keys.txt"
        keys.write_text(missing.as_uri())

        report = crawled(location, Path(f"@{keys}"))

        assert (report.vanished, report.walked["unreadable"]) == (0, 1)
        assert names(location) == {"missing.fits"}


class TestWhichListing:
    def test_one_that_is_large_enough(self, location: Path, tree: Path) -> None:
        killed(location, tree)

        report = crawled(location, tree, settings=replace(LOW, reused_keys=TREE_FILES + 1))

        assert report.listed_at is None

    @pytest.mark.parametrize(("hours", "resumed"), [(LOW.reused_hours - 1, True), (LOW.reused_hours + 1, False)])
    def test_one_that_is_young_enough(self, location: Path, tree: Path, hours: float, resumed: bool) -> None:
        killed(location, tree)
        (left,) = listings(location)
        tell(location, left, began=(datetime.now(UTC) - timedelta(hours=hours)).isoformat())

        assert (crawled(location, tree).listed_at is not None) == resumed

    def test_none_where_another_listing_is_asked_for(self, location: Path, tree: Path) -> None:
        killed(location, tree)

        assert crawled(location, tree, relist=True).listed_at is None

    def test_none_of_other_roots_or_filters(self, location: Path, tree: Path) -> None:
        killed(location, tree)

        assert crawled(location, tree / "night1").listed_at is None
        assert crawled(location, tree, exclude=("*.gz",)).listed_at is None

    def test_an_older_one_is_not_resumed_once_a_later_one_finished(
        self, tmp_path: Path, location: Path, tree: Path
    ) -> None:
        killed(location, tree)
        crawled(location, tree, relist=True)
        (tree / "night1" / "exp010.fits").unlink()

        report = crawled(location, tree)

        assert report.listed_at is None
        assert (report.vanished, report.walked["unreadable"], report.removed) == (0, 0, 1)
        crawled(tmp_path / "undisturbed", tree)
        same_tables(Catalogue(str(location)), Catalogue(str(tmp_path / "undisturbed")))

    def test_none_where_an_earlier_one_finished_since(self, location: Path, tree: Path) -> None:
        killed(location, tree)
        crawled(location, tree, relist=True)
        _, finished = listings(location)
        tell(location, finished, began=earlier(listings(location)[0], hours=1))

        assert crawled(location, tree).listed_at is None

    def test_an_older_one_is_not_resumed_where_the_latest_did_not_end(self, location: Path, tree: Path) -> None:
        killed(location, tree)
        with_another(location, ended=None)

        assert crawled(location, tree).listed_at is None

    def test_the_latest_of_two_that_ended(self, location: Path, tree: Path) -> None:
        killed(location, tree)
        (left,) = listings(location)
        killed(location, tree, settings={"reused_keys": 10**9})
        (tree / "night1" / "exp010.fits").unlink()

        report = crawled(location, tree)

        assert report.listed_at == datetime.fromisoformat(listings(location)[1]["began"])
        assert report.listed_at > datetime.fromisoformat(left["began"])


def with_another(location: Path, **changes: Any) -> None:
    """Have a later listing of the same, which is told of as the only one but for changes."""
    (left,) = listings(location)
    later = f"{left['id'][:-1]}~"
    (location / LISTING / later).mkdir()
    tell(location, {**left, "id": later}, began=earlier(left, seconds=-1), **changes)


class TestDamaged:
    def test_crawl_lists_again(self, tmp_path: Path, location: Path, tree: Path) -> None:
        killed(location, tree)
        (left,) = listings(location)
        tell(location, left, files=[{**left["files"][0], "name": "../keys-00000.parquet"}])

        report = crawled(location, tree)

        assert report.listed_at is None
        crawled(tmp_path / "undisturbed", tree)
        same_tables(Catalogue(str(location)), Catalogue(str(tmp_path / "undisturbed")))

    def test_an_older_one_is_not_resumed_instead(self, location: Path, tree: Path) -> None:
        killed(location, tree)
        with_another(location)
        later = sorted((location / LISTING).iterdir())[1]
        (later / "listing.json").write_text("{")

        assert crawled(location, tree).listed_at is None


def test_the_command_says_where_all_that_is_left_vanished(
    location: Path, tree: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    night = tree / "night1"
    killed(location, night, "before commit", 1)
    for path in night.iterdir():
        path.unlink()
    build = api.build_job
    low = replace(LOW, reused_keys=1)
    monkeypatch.setattr(api, "build_job", lambda *args, **named: replace(build(*args, **named), settings=low))
    monkeypatch.setattr(sys, "argv", ["crawler", "index", str(night), "-c", str(location), "--workers", "0"])

    with pytest.raises(SystemExit) as ended:
        main()

    assert ended.value.code == 1
    out, err = capsys.readouterr()
    assert "vanished   10 files, deleted since the listing" in out
    assert err == (
        "crawler: all 10 files to walk were deleted since the listing; run the same command again to list again\n"
    )
