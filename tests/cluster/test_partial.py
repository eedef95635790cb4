"""The first headers of each file, and later the rest: what is walked again, and what is left alone."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from crawler import api
from crawler.catalogue.reader import Catalogue
from crawler.cluster import local_client
from crawler.driver.report import Report
from crawler.errors import UsageError
from crawler.fits.policy import Costs
from tests.fits_files import bintable_hdu, entry, image_hdu
from tests.tables import same_tables
from tests.unit.test_cli import Ended, Run, commands

BIG = 200_000
"""Bytes of data units that nobody would read to find a header behind them."""


def fits(hdus: int, number: int = 0) -> bytes:
    """Return a file of so many HDUs."""
    rest = [
        bintable_hdu(8, 100, entry("N", number)) if at % 2 else image_hdu((BIG,), xtension="IMAGE")
        for at in range(hdus)
    ]
    return image_hdu((BIG,), entry("NUMBER", number)) + b"".join(rest[1:])


FILES = {
    **{f"one{number}.fits": fits(1, number) for number in range(3)},
    **{f"two{number}.fits": fits(2, number) for number in range(4)},
    **{f"five{number}.fits": fits(5, number) for number in range(5)},
    "packed_one.fits.gz": gzip.compress(fits(1), mtime=0),
    "packed_three.fits.gz": gzip.compress(fits(3), mtime=0),
    "cut_in_the_first.fits": fits(1)[:-10_000],
    "cut_in_the_third.fits": fits(3)[:-10_000],
    "corrupt_second.fits": fits(1) + image_hdu((), "NAXIS   = -1", xtension="IMAGE"),
    "no.fits": b"<html>",
    "empty.fits": b"",
}
FOUND = {
    1: {"ok": 3, "partial": 4 + 5 + 2 + 2, "truncated": 1, "not-fits": 2},
    2: {"ok": 3 + 4 + 1, "partial": 5 + 2, "truncated": 1, "not-fits": 2, "corrupt": 1},
    None: {"ok": 3 + 4 + 5 + 2, "truncated": 2, "not-fits": 2, "corrupt": 1},
}
"""Files of each status, by how many HDUs are walked. That a compressed file has no more only those see who look."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "files"
    root.mkdir()
    for name, data in FILES.items():
        (root / name).write_bytes(data)
    return root


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return tmp_path / "catalogue"


def index(folder: Path, location: Path, **options: Any) -> Report:
    return api.index(str(folder), str(location), **options)


def fresh(folder: Path, tmp_path: Path, **options: Any) -> Catalogue:
    """Return a new catalogue of a folder as it now is."""
    index(folder, tmp_path / "fresh", **options)
    return Catalogue(str(tmp_path / "fresh"))


def statuses(location: Path) -> Counter[str]:
    rows = Catalogue(str(location)).sql("SELECT status FROM files").to_pylist()
    return Counter(row["status"] for row in rows)


def hdus_by_status(location: Path) -> dict[str, set[int]]:
    """Return how many HDUs files of each status have, having seen that the tables agree."""
    catalogue = Catalogue(str(location))
    rows = catalogue.sql(
        "SELECT f.url, any_value(f.status) status, any_value(f.n_hdus) n, count(h.hdu) found, max(h.hdu) last "
        "FROM files f LEFT JOIN hdus h ON f.url = h.url GROUP BY f.url"
    ).to_pylist()
    assert len(rows) == catalogue.files.count_rows()
    found: dict[str, set[int]] = {}
    for row in rows:
        assert row["n"] == row["found"] == (0 if row["last"] is None else row["last"] + 1)
        found.setdefault(row["status"], set()).add(row["n"])
    in_cards = catalogue.sql("SELECT count(DISTINCT (url, hdu)) n FROM cards").to_pylist()[0]["n"]
    assert in_cards == catalogue.hdus.count_rows()
    return found


class TestFirstHdus:
    @pytest.mark.parametrize("count", FOUND)
    def test_are_all_there_is_of_files_that_have_more(self, folder: Path, location: Path, count: int | None) -> None:
        report = index(folder, location, max_hdus=count)

        assert dict(report.walked) == dict(statuses(location)) == FOUND[count]
        assert hdus_by_status(location).get("partial", {count}) == {count}

    def test_cost_no_more_than_they_must(self, folder: Path, location: Path, tmp_path: Path) -> None:
        first, whole = index(folder, location, max_hdus=1), index(folder, tmp_path / "whole")

        # One request for each file, even for the compressed ones and the empty one.
        assert first.requests == first.round_trips == len(FILES)
        assert first.bytes_read < whole.bytes_read
        assert first.cards < whole.cards

    def test_on_a_cluster(self, folder: Path, location: Path, tmp_path: Path) -> None:
        with local_client(1) as client:
            report = index(folder, location, max_hdus=1, client=client)

        assert report.walked == FOUND[1]
        same_tables(Catalogue(str(location)), fresh(folder, tmp_path, max_hdus=1))


class TestAgain:
    @pytest.mark.parametrize("count", FOUND)
    def test_for_the_same_skips_all(self, folder: Path, location: Path, count: int | None) -> None:
        first = index(folder, location, max_hdus=count)
        again = index(folder, location, max_hdus=count)

        assert (again.skipped, again.files, again.requests) == (len(FILES), 0, 0)
        assert again.version == first.version

    def test_for_fewer_skips_all(self, folder: Path, location: Path) -> None:
        index(folder, location, max_hdus=2)
        before = Catalogue(str(location))
        again = index(folder, location, max_hdus=1)

        assert (again.skipped, again.files) == (len(FILES), 0)
        same_tables(Catalogue(str(location)), before)

    def test_for_more_walks_those_that_have_more(self, folder: Path, location: Path, tmp_path: Path) -> None:
        index(folder, location, max_hdus=1)
        again = index(folder, location, max_hdus=2)

        walked = again.walked
        assert again.files == FOUND[1]["partial"]
        assert again.skipped == len(FILES) - again.files
        assert walked == {"ok": 4 + 1, "partial": 5 + 2, "corrupt": 1}
        assert statuses(location) == FOUND[2]
        same_tables(Catalogue(str(location)), fresh(folder, tmp_path, max_hdus=2))

    @pytest.mark.parametrize("counts", [(1,), (2,), (1, 2), (2, 1), (1, 3, 2, 4)], ids=str)
    def test_for_all_is_a_crawl_of_all(
        self, folder: Path, location: Path, tmp_path: Path, counts: tuple[int, ...]
    ) -> None:
        for count in counts:
            index(folder, location, max_hdus=count)
        partial = statuses(location)["partial"]
        last = index(folder, location)

        assert last.files == partial > 0
        assert "partial" not in statuses(location)
        assert statuses(location) == FOUND[None]
        same_tables(Catalogue(str(location)), fresh(folder, tmp_path))
        assert index(folder, location).skipped == len(FILES)

    @pytest.mark.parametrize("count", [1, 2, 100])
    def test_of_what_is_whole_leaves_it_alone(self, folder: Path, location: Path, tmp_path: Path, count: int) -> None:
        first = index(folder, location)
        again = index(folder, location, max_hdus=count)

        assert (again.skipped, again.files, again.version) == (len(FILES), 0, first.version)
        same_tables(Catalogue(str(location)), fresh(folder, tmp_path))

    def test_walks_what_changed_as_far_as_is_asked_for(self, folder: Path, location: Path) -> None:
        index(folder, location)
        (folder / "five0.fits").write_bytes(fits(4))
        (folder / "new.fits").write_bytes(fits(3))
        again = index(folder, location, max_hdus=1)

        assert (dict(again.walked), again.skipped) == ({"partial": 2}, len(FILES) - 1)
        assert hdus_by_status(location)["partial"] == {1}
        assert statuses(location) == FOUND[None] | {"ok": FOUND[None]["ok"] - 1, "partial": 2}

    def test_of_a_file_that_lost_its_extensions_meanwhile(self, folder: Path, location: Path, tmp_path: Path) -> None:
        index(folder, location, max_hdus=1)
        (folder / "five0.fits").write_bytes(fits(1))
        index(folder, location)

        same_tables(Catalogue(str(location)), fresh(folder, tmp_path))


class TestArguments:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"max_hdus": 0}, "max_hdus must be at least 1"),
            ({"max_hdus": -1}, "max_hdus must be at least 1"),
            ({"optimize": "money"}, "optimize is one of requests, bytes, time, not 'money'"),
            ({"costs": {"usd_per_tb": 1.0}}, "no such cost: usd_per_tb"),
            ({"costs": {"usd_per_gb": -1.0}}, "usd_per_gb must be a number that is not negative"),
            ({"costs": {"in_flight": 0.0}}, "in_flight cannot be 0"),
        ],
    )
    def test_that_make_no_sense_make_no_catalogue(
        self, folder: Path, location: Path, options: dict[str, Any], said: str
    ) -> None:
        with pytest.raises(UsageError, match=said) as raised:
            index(folder, location, **options)
        assert "\n" not in str(raised.value)
        assert not location.exists()

    def test_of_costs_change_reads_and_no_row(self, tmp_path: Path) -> None:
        """Headers 50 kB apart: read at once where bytes cost nothing, jumped to where they leave the region."""
        folder = tmp_path / "apart"
        folder.mkdir()
        (folder / "a.fits").write_bytes(image_hdu() + image_hdu((50_000,), xtension="IMAGE") * 8)

        requests = index(folder, tmp_path / "requests", optimize="requests")
        bytes_ = index(folder, tmp_path / "bytes", optimize="bytes")
        priced = index(folder, tmp_path / "priced", optimize="requests", costs={"usd_per_gb": 0.09})

        assert (requests.requests, bytes_.requests) == (1, 8)
        assert bytes_.bytes_read < requests.bytes_read / 5
        assert (priced.requests, priced.bytes_read) == (bytes_.requests, bytes_.bytes_read)
        for name in ("bytes", "priced"):
            same_tables(Catalogue(str(tmp_path / name)), Catalogue(str(tmp_path / "requests")))


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """Return what runs ``crawler index`` in this process, in a folder of its own."""
    run = commands(monkeypatch, capsys, tmp_path)
    return lambda *args: run("index", *args)


def refused(ended: Ended) -> str:
    """Return the one line of a command that was used wrongly."""
    assert (ended.code, ended.out) == (2, "")
    return ended.fault


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Return what `crawler.index` is given, which then does nothing."""
    given: dict[str, Any] = {}

    def record(roots: Any, catalogue: str, **options: Any) -> Report:
        given.clear()
        given.update(options, roots=roots)
        return Report("run", catalogue)

    monkeypatch.setattr(api, "index", record)
    return given


class TestCommandLine:
    def test_primary_only_is_one_hdu(self, command: Run, folder: Path) -> None:
        primary = command(folder, "-c", "primary", "--workers", 0, "--primary-only", "--json")
        first = command(folder, "-c", "first", "--workers", 0, "--max-hdus", 1, "--json")

        assert (primary.code, first.code) == (0, 0)
        assert json.loads(primary.out)["walked"] == json.loads(first.out)["walked"] == FOUND[1]
        same_tables(Catalogue("primary"), Catalogue("first"))

    def test_goes_on_from_there(self, command: Run, folder: Path, tmp_path: Path) -> None:
        command(folder, "-c", "made", "--workers", 0, "--primary-only")
        again = command(folder, "-c", "made", "--workers", 0, "--primary-only", "--json")
        assert (json.loads(again.out)["skipped"], json.loads(again.out)["walked"]) == (len(FILES), {})
        command(folder, "-c", "made", "--workers", 0)
        same_tables(Catalogue("made"), fresh(folder, tmp_path))

    @pytest.mark.parametrize(
        ("flags", "given"),
        [
            ((), {}),
            (("--primary-only",), {"max_hdus": 1}),
            (("--max-hdus", 7), {"max_hdus": 7}),
            (("--primary-only", "--max-hdus", 1), {"max_hdus": 1}),
            (("--optimize", "bytes"), {"optimize": "bytes"}),
            (("--cost", "usd_per_gb=0.02"), {"costs": {"usd_per_gb": 0.02}}),
            (("--cost", "usd_per_gb=1", "--cost", "usd_per_gb=2e-2"), {"costs": {"usd_per_gb": 0.02}}),
            (
                ("--cost", "usd_per_gb=0", "--cost", "in_flight=64", "--optimize", "requests"),
                {"costs": {"usd_per_gb": 0.0, "in_flight": 64.0}, "optimize": "requests"},
            ),
        ],
        ids=str,
    )
    def test_passes_on_what_is_said(
        self, command: Run, asked: dict[str, Any], flags: tuple[object, ...], given: dict[str, Any]
    ) -> None:
        assert command("r", "-c", "c", "--workers", 0, *flags).code == 0
        assert {name: asked[name] for name in ("max_hdus", "optimize", "costs") if name in asked} == given

    def test_takes_every_cost(self, command: Run, asked: dict[str, Any]) -> None:
        names = [one.name for one in fields(Costs)]
        flags = [text for number, name in enumerate(names) for text in ("--cost", f"{name}={number}.5")]
        assert command("r", "-c", "c", *flags).code == 0
        assert asked["costs"] == {name: number + 0.5 for number, name in enumerate(names)}

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            (("--primary-only", "--max-hdus", 2), "--primary-only is --max-hdus 1: give one of them"),
            (("--max-hdus", 0), "--max-hdus"),
            (("--max-hdus", "all"), "--max-hdus"),
            (("--optimize", "money"), "--optimize"),
            (("--optimize", ""), "--optimize"),
            (("--cost", "usd_per_tb=1"), "usd_per_request, usd_per_list, usd_per_gb"),
            (("--cost", "usd_per_gb"), "--cost"),
            (("--cost", "usd_per_gb="), "--cost"),
            (("--cost", "=1"), "--cost"),
            (("--cost", "usd_per_gb=cheap"), "--cost"),
            (("--cost", "usd_per_gb=-1"), "--cost"),
            (("--cost", "usd_per_gb=nan"), "--cost"),
            (("--cost", "usd_per_gb=inf"), "--cost"),
            (("--cost", "usd_per_gb=1=2"), "--cost"),
            (("--cost", "mb_per_second=0"), "mb_per_second and in_flight cannot be 0"),
        ],
        ids=str,
    )
    def test_says_in_one_line_what_is_wrong(
        self, command: Run, folder: Path, flags: tuple[object, ...], said: str
    ) -> None:
        assert said in refused(command(folder, "-c", "made", "--workers", 0, *flags))
        assert not Path("made").exists()


class TestJobFile:
    JOB = """\
[crawl]
roots = ["r"]
catalogue = "c"
optimize = "bytes"
max_hdus = 3

[costs]
usd_per_gb = 0.02
in_flight = 8

[cluster]
workers = 0
"""

    @pytest.mark.parametrize(
        ("flags", "given"),
        [
            ((), {}),
            (("--primary-only",), {"max_hdus": 1}),
            (("--max-hdus", 5), {"max_hdus": 5}),
            (("--optimize", "time"), {"optimize": "time"}),
            (("--cost", "in_flight=9"), {"costs": {"usd_per_gb": 0.02, "in_flight": 9.0}}),
            (("--cost", "usd_per_hour=1"), {"costs": {"usd_per_gb": 0.02, "in_flight": 8, "usd_per_hour": 1.0}}),
        ],
        ids=str,
    )
    def test_lies_under_the_command_line(
        self, command: Run, asked: dict[str, Any], flags: tuple[object, ...], given: dict[str, Any]
    ) -> None:
        Path("job.toml").write_text(self.JOB)
        assert command("--job", "job.toml", *flags).code == 0
        told = {"optimize": "bytes", "max_hdus": 3, "costs": {"usd_per_gb": 0.02, "in_flight": 8}}
        assert {name: asked[name] for name in told} == told | given

    def test_is_walked_as_far_as_it_says(self, command: Run, folder: Path) -> None:
        Path("job.toml").write_text(self.JOB.replace('["r"]', f'["{folder}"]').replace("max_hdus = 3", "max_hdus = 1"))
        assert json.loads(command("--job", "job.toml", "--json").out)["walked"] == FOUND[1]

    @pytest.mark.parametrize(
        ("old", "new", "said"),
        [
            ('"bytes"', '"money"', "job file job.toml, line 4: optimize must be one of requests, bytes, time"),
            ("max_hdus = 3", "max_hdus = 0", "job file job.toml, line 5: max_hdus must be a whole number, at least 1"),
            (
                "usd_per_gb",
                "usd_per_tb",
                "job file job.toml, line 8: [costs] has no usd_per_tb; it has usd_per_request,",
            ),
            ("in_flight = 8", "in_flight = -8", "job file job.toml, line 9: in_flight must be a number, not negative"),
            ("in_flight = 8", "in_flight = 0", "mb_per_second and in_flight cannot be 0"),
        ],
    )
    def test_that_is_wrong_names_the_line(self, command: Run, old: str, new: str, said: str) -> None:
        Path("job.toml").write_text(self.JOB.replace(old, new))
        assert said in refused(command("--job", "job.toml"))
        assert not Path("c").exists()
