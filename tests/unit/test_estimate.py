"""`crawler.estimation`: statistics by simulation, the sample, and estimates beside what runs of local files take."""

from __future__ import annotations

import json
import math
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import crawler as package
from crawler.catalogue.folder import open_folder
from crawler.driver.report import Report
from crawler.errors import UsageError
from crawler.estimation import (
    Estimate,
    EstimateProgress,
    Interval,
    Spent,
    compare,
    estimate,
    fingerprint_of,
    load_estimate,
    save_estimate,
)
from crawler.estimation import census as census_module
from crawler.estimation.census import Census
from crawler.estimation.saved import ESTIMATES
from crawler.estimation.statistics import Stratum, quantile, total
from crawler.job.crawl_job import CrawlJob
from crawler.job.scope import Scope
from crawler.stores import ObjectRef
from tests.conftest import TREE_FILES
from tests.fits_files import entry, image_hdu
from tests.servers import RangeServer
from tests.unit.test_cli import Run, commands, outside

POPULATIONS = 200
LEAST_COVERAGE = 0.90
SECRET = "hush-hush"


@pytest.fixture
def crawler(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return commands(monkeypatch, capsys, tmp_path)


Population = list[list[tuple[float, float]]]
"""Requests and bytes of each file of each product."""


def product(requests: Iterable[float], chance: random.Random) -> list[tuple[float, float]]:
    """Return files that read some blocks with each request, as many as others of the product as a rule."""
    blocks = chance.randint(2, 12)
    return [(count, 2880 * (count * blocks + (chance.random() < 0.1) * chance.randint(0, 30))) for count in requests]


def homogeneous(chance: random.Random) -> Population:
    """Products whose files are alike, but for one in fifty of some."""
    products = []
    for _ in range(8):
        usual, odd, share = chance.randint(1, 70), chance.randint(2, 12), chance.choice([0, 0.0, 0.02])
        files = chance.randint(100, 800)
        products.append(product((usual + odd * (chance.random() < share) for _ in range(files)), chance))
    return products


def mixed(chance: random.Random) -> Population:
    """Products of several layouts each, and one of files that differ all."""
    products = []
    for _ in range(6):
        kinds = [chance.randint(1, 40) for _ in range(chance.randint(2, 5))]
        products.append(product((chance.choice(kinds) for _ in range(chance.randint(100, 800))), chance))
    return [*products, product((1 + chance.random() * 60 for _ in range(500)), chance)]


def heavy_tailed(chance: random.Random) -> Population:
    """Archive files: 2 requests in the middle, 10 of one in ten, 225 at most."""
    return [product((min(225, 1 + int(chance.lognormvariate(0.7, 1.25))) for _ in range(2000)), chance)]


def estimated(products: Population, chance: random.Random, sample: int = 200) -> list[Interval]:
    """Estimate a population by a sample in proportion to the files of each product, and three of each at least."""
    files = sum(map(len, products))
    chosen = [chance.sample(costs, max(3, math.ceil(sample * len(costs) / files))) for costs in products]
    return [
        total(
            [
                Stratum(len(costs), values, max(1.25 * sum(values) / len(values), *values))
                for costs, walked in zip(products, chosen, strict=True)
                for values in [[one[what] for one in walked]]
            ]
        )
        for what in (0, 1)
    ]


class TestIntervals:
    @pytest.mark.parametrize(
        ("population", "sample"),
        [
            pytest.param(homogeneous, 200, id="homogeneous"),
            pytest.param(mixed, 200, id="mixed"),
            pytest.param(heavy_tailed, 200, id="heavy-tailed"),
            pytest.param(heavy_tailed, 40, id="heavy-tailed-of-few-files"),
        ],
    )
    def test_intervals_hold_the_truth(self, population: Callable[[random.Random], Population], sample: int) -> None:
        held = [0, 0]  # requests, bytes
        for seed in range(POPULATIONS):
            chance = random.Random(seed)
            products = population(chance)
            for what, span in enumerate(estimated(products, chance, sample)):
                held[what] += math.fsum(one[what] for costs in products for one in costs) in span
        assert min(held) >= LEAST_COVERAGE * POPULATIONS, held

    def test_intervals_of_uniform_products_are_narrow(self) -> None:
        span, _ = estimated(homogeneous(random.Random(1)), random.Random(2))
        assert (span.high - span.low) / span.value < 0.1

    def test_interval_without_width_means_every_file_was_walked(self) -> None:
        alike = total([Stratum(1000, [2.0] * 30, unlike=9.0)])
        assert alike.value == 2000
        assert alike.low < 2000 < alike.high
        assert total([Stratum(30, [2.0] * 30, unlike=9.0)]) == Interval.exact(60)

    def test_interval_of_equal_files_allows_for_unlike_ones(self) -> None:
        """Rule of three: thirty equal files do not exclude that one file in ten is unlike them."""
        alike = total([Stratum(10**6, [2.0] * 30, unlike=9.0)])
        assert 2e6 + 7e6 / 30 < alike.high < 2e6 + 7e6 * 3 / 10

    def test_slack_widens_both_ends(self) -> None:
        assert total([Stratum(30, [2.0] * 30, unlike=9.0)], slack=3.0) == Interval(60, 57, 63)

    def test_low_end_is_at_least_a_request_for_each_file(self) -> None:
        assert total([Stratum(1000, [1.0, 1.0, 1.0], unlike=90.0)], least=1000.0).low == 1000

    def test_one_file_in_the_sample_gives_a_wide_interval(self) -> None:
        span = total([Stratum(50, [2.0], unlike=4.0)])
        assert span.low < 50
        assert span.high > 200

    def test_interval_of_borrowed_costs_is_wider(self) -> None:
        costs = [1.0, 2.0, 3.0]
        own, borrowed = (total([Stratum(3, costs, 9.0, borrowed)]) for borrowed in (False, True))
        assert own == Interval.exact(6)
        assert borrowed.low < 6 < borrowed.high

    @pytest.mark.parametrize(("freedom", "t"), [(1, 12.706), (4.7, 2.776), (12, 2.179), (30, 2.042), (math.inf, 1.960)])
    def test_quantiles_are_those_of_student(self, freedom: float, t: float) -> None:
        assert quantile(freedom) == pytest.approx(t, abs=2e-3)


def counted(counts: dict[str, int]) -> Census:
    """Return the census of a listing of some files of each product, mixed."""
    census = Census()
    left = Counter(counts)
    number = 0
    while left:
        for name in list(left):
            census.add(number // 1000, ObjectRef(f"{name}{number}", 1000))
            number += 1
            left[name] -= 1
            if not left[name]:
                del left[name]
    return census


class TestCensus:
    def test_sample_is_the_same_each_time(self) -> None:
        first, again = (
            [(group.files, [ref.url for ref in group.held[: group.count]]) for group in one.groups(40, 1)]
            for one in (counted({"a.fits": 500, "b.fits": 50}) for _ in range(2))
        )
        assert first == again

    def test_sample_is_in_proportion_and_has_files_of_each_product(self) -> None:
        groups = counted({"a.fits": 900, "b.fits": 90, "c.fits": 2}).groups(100, 1)
        assert {group.files: group.count for group in groups} == {900: 91, 90: 10, 2: 2}

    def test_sample_is_random(self) -> None:
        """Each tenth of a listing has its share of the sample."""
        (group,) = counted({"a.fits": 20_000}).groups(2000, 1)
        tenths = Counter(int(ref.url.removeprefix("a.fits")) // 2000 for ref in group.held[: group.count])
        assert set(tenths) == set(range(10))
        assert all(140 < share < 260 for share in tenths.values())

    @pytest.mark.parametrize("products", [5999, 6001])
    def test_small_products_are_pooled_and_none_is_lost(self, monkeypatch: pytest.MonkeyPatch, products: int) -> None:
        monkeypatch.setattr(census_module, "COUNTED", 6000)
        census = counted(
            {"z.fits": 5000} | {f"kind{chr(97 + at % 26)}x{'y' * (at // 26)}.fits": 3 for at in range(products)}
        )
        groups = census.groups(400, 2)
        assert census.products == min(6000, products + 1)
        assert len(groups) <= 50
        assert sum(group.files for group in groups) == census.files == products * 3 + 5000
        assert sum(len(group.held) for group in groups) <= census_module.HELD
        assert 390 <= sum(group.count for group in groups) <= 600
        assert any(group.files == 5000 and group.products == 1 for group in groups)

    def test_fewer_files_are_held_than_are_listed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(census_module, "HELD", 100)
        (group,) = counted({"a.fits": 1000}).groups(400, 1)
        assert (group.files, len(group.held), group.count) == (1000, 100, 100)

    def test_each_worker_visits_each_product_once(self) -> None:
        for workers, visits in ((1, 1), (2, 2), (9, 3)):
            (group,) = counted({"a.fits": 2500}).groups(40, workers)  # in three partitions
            assert group.visits == visits

    def test_few_large_compressed_files_are_walked(self) -> None:
        census = Census()
        for number in range(1000):
            census.add(0, ObjectRef(f"a{number}.fits.gz", 100_000_000))
        (group,) = census.groups(400, 1)
        assert group.count == 20

    def test_repeated_urls_are_counted_each_time(self) -> None:
        census = Census()
        for _ in range(3):
            census.add(0, ObjectRef("s3://bucket/a.fits", 5))
        assert [group.count for group in census.groups(400, 1)] == [3]

    @pytest.mark.parametrize(("sizes", "suffix", "unlike"), [(1, "fits", 0), (10_000, "fits", 1), (1, "fits.gz", 1)])
    def test_files_of_unequal_size_are_unlike(self, sizes: int, suffix: str, unlike: float) -> None:
        census = Census()
        for number in range(400):
            census.add(0, ObjectRef(f"s3://bucket/a{number}.{suffix}", 1000 + number % sizes))
        (group,) = census.groups(40, 1)
        assert group.unlike() == unlike


ESTIMATE = Estimate(
    fingerprint="f" * 32,
    estimated_at="2026-01-01T00:00:00+00:00",
    complete=True,
    seen=12,
    listed=11,
    unchanged=1,
    files=10,
    bytes_stored=10**9,
    products=2,
    statuses={"ok": 3, "corrupt": 1},
    first_error=None,
    workers=2,
    concurrency=32,
    requests=Interval(1_203_111.0, 1_190_000.0, 1_240_000.0),
    list_requests=1,
    bytes_read=Interval(1e6, 9e5, 1.2e6),
    hdus=Interval(20.0, 20.0, 20.0),
    cards=Interval(200.0, 190.0, 210.0),
    catalogue_bytes=Interval(1e5, 8e4, 1.3e5),
    charged=True,
    usd_requests=Interval(0.48, 0.47, 0.50),
    usd_transfer=Interval.exact(0.0),
    usd_compute=Interval(0.01, 0.004, 0.03),
    duration=Interval(180.0, 72.0, 540.0),
    limited_by="CPU",
    request_seconds=0.03,
    spent=Spent(4, 12, 1, 40_000, 1e-5, 0.5),
)


class TestSavedEstimate:
    def test_json_is_read_back(self) -> None:
        assert Estimate.from_json(ESTIMATE.to_json()) == ESTIMATE
        assert json.loads(ESTIMATE.to_json())["requests"]["high"] == 1_240_000
        assert json.loads(ESTIMATE.to_json())["usd"]["value"] == pytest.approx(0.49)

    @pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"files": 1}', b"\xff", "[" * 100_000])
    def test_other_json_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError):  # noqa: PT011 - whichever json finds
            Estimate.from_json(text)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("files", "10"),
            ("files", True),
            ("files", None),
            ("requests", 12),
            ("requests", {"value": 1, "low": 1}),
            ("requests", {"value": float("nan"), "low": 1, "high": 2}),
            ("requests", {"value": 1, "low": 1, "high": float("inf")}),
            ("requests", {"value": 10**400, "low": 1, "high": 2}),
            ("statuses", {"ok": "many"}),
            ("statuses", []),
            ("spent", {}),
            ("complete", 1),
        ],
    )
    def test_value_of_a_wrong_type_is_refused(self, name: str, value: object) -> None:
        text = json.dumps(json.loads(ESTIMATE.to_json()) | {name: value})
        with pytest.raises(ValueError, match="not an estimate"):
            Estimate.from_json(text)

    def test_is_found_beside_the_catalogue(self, tmp_path: Path) -> None:
        folder = open_folder(str(tmp_path))
        assert load_estimate(folder, ESTIMATE.fingerprint) is None
        save_estimate(folder, ESTIMATE)
        assert load_estimate(folder, ESTIMATE.fingerprint) == ESTIMATE

    @pytest.mark.parametrize("content", [b"", b"{", b"\x00\xff" * 100, b'{"files": 3}', b"other", "a folder"])
    def test_damaged_or_foreign_file_is_ignored(self, bucket: Path, tmp_path: Path, content: bytes | str) -> None:
        location = tmp_path / "made"
        found = estimate(str(bucket), str(location), include=["s*.fits"], workers=0, sample=10)
        saved = location / ESTIMATES / f"{found.fingerprint}.json"
        if content == b"other":
            saved.write_text(ESTIMATE.to_json())
        elif isinstance(content, bytes):
            saved.write_bytes(content)
        else:
            saved.unlink()
            saved.mkdir()
        report = package.index(str(bucket), str(location), include=["s*.fits"])
        assert (report.files, report.estimated) == (SPECTRA, [])

    def test_fingerprint_depends_on_what_is_read(self) -> None:
        job = CrawlJob(("a", "b"), "c", include=("*.fits", "*.fz"), storage_options={"key": SECRET})
        same = CrawlJob(("b", "a"), "elsewhere", include=("*.fz", "*.fits"), storage_options={"key": "another"})
        assert fingerprint_of(job) == fingerprint_of(same)
        for other in (
            replace(job, roots=("a",)),
            replace(job, include=None),
            replace(job, exclude=("x",)),
            replace(job, scope=Scope(max_hdus=1)),
        ):
            assert fingerprint_of(other) != fingerprint_of(job)

    def test_run_is_compared_with_it(self) -> None:
        report = Report("id", "c", requests=1_203_111, bytes_read=10**6, hdus=20, cards=200, usd=0.481, seconds=180.0)
        report.walked["ok"] = 10
        assert compare(ESTIMATE, report) == [
            "files     10 (estimate: 10)",
            "requests  1.2 million (estimate: 1.19 to 1.24 million)",
            "read      1 MB (estimate: 900 kB to 1.2 MB)",
            "HDUs      20 (estimate: 20)",
            "cards     200 (estimate: 190 to 210)",
            "time      3 min (estimate: 72 s to 9 min)",
            "cost      $0.48 (estimate: $0.47 to $0.50)",
        ]
        assert "for a part of the files" in compare(replace(ESTIMATE, complete=False), report)[1]
        assert not any(line.startswith("cost") for line in compare(replace(ESTIMATE, charged=False), report))


RAW, SPECTRA = 120, 60
"""Files of two products."""


def files_of_two_products() -> Iterator[tuple[str, bytes]]:
    """Yield images of one layout but for every fiftieth, and spectra of two layouts."""
    data = bytes(100_000)
    for number in range(RAW):
        odd = 50_000 if number % 50 == 7 else 0
        first = image_hdu((100_000 + odd,), entry("OBJECT", f"M {number}"), data=data)
        rest = [image_hdu((100_000,), entry("EXTVER", at), xtension="IMAGE", data=data) for at in range(3)]
        yield f"raw/exp{number:04}.fits", b"".join([first, *rest])
    for number in range(SPECTRA):
        units = [image_hdu((), entry("OBJECT", f"S {number}"))]
        units += [image_hdu((100_000,), xtension="IMAGE", data=data)] * (2 if number % 2 else 5)
        yield f"spec/s{number:04}_x1d.fits", b"".join(units)


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bucket")
    for name, data in files_of_two_products():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


class TestEstimate:
    def test_sample_of_every_file_is_exact_in_rows(self, bucket: Path, tmp_path: Path) -> None:
        found = estimate(str(bucket), workers=0, sample=1000)
        report = package.index(str(bucket), str(tmp_path / "made"))
        assert found.spent.files == found.files == found.listed == RAW + SPECTRA
        assert (found.products, found.statuses) == (2, {"ok": RAW + SPECTRA})
        assert (found.hdus, found.cards.value) == (Interval.exact(report.hdus), report.cards)
        assert found.requests.value == pytest.approx(report.requests, rel=0.02)
        assert found.bytes_read.value == pytest.approx(report.bytes_read, rel=0.1)
        assert report.requests in found.requests
        assert report.bytes_read in found.bytes_read
        stored = sum(one.size for one in package.Catalogue(str(tmp_path / "made")).fragments)
        assert stored in found.catalogue_bytes
        assert report.seconds < found.duration.high

    def test_max_hdus_of_one_is_one_request_a_file(self, bucket: Path) -> None:
        found = estimate(str(bucket), workers=0, sample=40, max_hdus=1)
        assert found.hdus.value == found.requests.value == RAW + SPECTRA
        assert found.statuses == {"partial": found.spent.files}

    def test_each_worker_learns_each_product(self, bucket: Path) -> None:
        one, many = (estimate(str(bucket), workers=workers, sample=300) for workers in (1, 3))
        assert many.bytes_read.value > one.bytes_read.value
        assert many.duration.value < one.duration.value

    def test_local_files_cost_no_requests(self, bucket: Path) -> None:
        found = estimate(str(bucket), sample=10)
        assert found.usd_requests == found.usd_transfer == Interval.exact(0.0)
        assert found.usd_compute.value > 0
        assert found.list_requests == 0

    def test_max_keys_limit_the_files(self, bucket: Path) -> None:
        assert estimate(str(bucket), sample=10, max_keys=10**6).complete
        part = estimate(str(bucket), sample=10, max_keys=7)
        assert (part.complete, part.listed, part.files) == (False, 7, 7)

    def test_unchanged_files_are_not_counted(self, tmp_path: Path, tree: Path) -> None:
        catalogue = str(tmp_path / "made")
        package.index(str(tree), catalogue)
        files = sorted(tree.rglob("exp*.fits"))
        files[3].write_bytes(files[4].read_bytes() + bytes(2880))
        found = estimate(str(tree), catalogue)
        assert (found.listed, found.unchanged, found.files) == (TREE_FILES, TREE_FILES - 1, 1)
        files[3].write_bytes(files[4].read_bytes())
        package.index(str(tree), catalogue)
        nothing = estimate(str(tree), catalogue)
        assert (nothing.files, nothing.requests, nothing.catalogue_bytes) == (
            0,
            Interval.exact(0),
            Interval.exact(0),
        )

    def test_bad_files_are_counted(self, tree: Path) -> None:
        found = estimate(str(tree), workers=0)
        assert found.statuses == {"ok": TREE_FILES - 3, "truncated": 1, "not-fits": 2}

    @pytest.mark.parametrize(
        "wrong",
        [{"sample": 0}, {"max_keys": 0}, {"concurrency": 0}, {"max_hdus": 0}, {"workers": -1}, {"costs": {"x": 1}}],
    )
    def test_wrong_argument_is_a_usage_error(self, tmp_path: Path, wrong: dict[str, int]) -> None:
        with pytest.raises(UsageError):
            estimate(str(tmp_path), **wrong)  # type: ignore[arg-type]

    def test_web_files_without_etags_or_sizes_are_estimated(self) -> None:
        data = image_hdu((300_000,)) + image_hdu((300_000,), xtension="IMAGE")
        with RangeServer({f"night/exp{number:03}.fits": data for number in range(30)}) as server:
            server.etags = "none"
            found = estimate(server.url("night/"), workers=0, sample=10)
            read = sum(1 for one in server.requests if one.range)
        assert read == found.spent.requests
        assert found.hdus.value == 60

    def test_unreadable_file_is_named(self) -> None:
        data = image_hdu((10,))
        with RangeServer({f"exp{number}.fits": data for number in range(8)}) as server:
            server.status["exp3.fits"] = 403
            found = estimate(server.url(""), workers=0)
        assert found.statuses == {"ok": 7, "unreadable": 1}
        assert found.first_error is not None
        assert "exp3.fits" in found.first_error

    def test_pooled_products_are_estimated(self, tmp_path: Path) -> None:
        """Each of 60 products has three files; the sample has room for two products apart."""
        rest = image_hdu((300_000,), xtension="IMAGE", data=bytes(600_000))
        for at in range(60):
            name = "".join(chr(97 + int(digit)) for digit in f"{at:02}")
            for number in range(3):
                (tmp_path / f"{name}-{number}.fits").write_bytes(image_hdu() + rest * (1 + at % 3))
        found = estimate(str(tmp_path), workers=0, sample=30)
        report = package.index(str(tmp_path), str(tmp_path / "made"))
        assert found.products == 60
        for actual, span in ((report.requests, found.requests), (report.bytes_read, found.bytes_read)):
            assert actual in span
            assert span.low < span.high
        assert report.hdus in found.hdus

    def test_files_that_all_differ_in_size_are_estimated(self, tmp_path: Path) -> None:
        for number in range(80):
            data = bytes(100_000 + 2880 * (number * 37 % 80))  # in no order that has to do with the names
            units = [image_hdu(), *[image_hdu((len(data) // 2,), xtension="IMAGE", data=data)] * 3]
            (tmp_path / f"exp{number:03}.fits").write_bytes(b"".join(units))
        # One walk at a time: what a walk knows of the files before it would otherwise depend on chance.
        found = estimate(str(tmp_path), workers=0, sample=20, concurrency=1)
        report = package.index(str(tmp_path), str(tmp_path / "made"), concurrency=1)
        assert report.requests in found.requests
        assert report.bytes_read in found.bytes_read

    def test_progress_counts_the_listing_and_the_sample(self, bucket: Path) -> None:
        states: list[EstimateProgress] = []
        found = estimate(str(bucket), workers=0, sample=20, progress=states.append)
        assert states[0].sample == states[0].walked == 0
        assert [one.seen for one in states] == sorted(one.seen for one in states)
        assert {one.listed for one in states if one.sample} == {RAW + SPECTRA}
        walked = [one.walked for one in states if one.sample]
        assert walked == list(range(found.spent.files + 1))
        assert states[-1].sample == found.spent.files

    def test_catalogue_that_is_a_file_is_refused(self, bucket: Path, tmp_path: Path) -> None:
        (tmp_path / "made").write_text("notes")
        with pytest.raises(package.CrawlerError, match="is a file, not a folder"):
            estimate(str(bucket), str(tmp_path / "made"), sample=5)

    def test_paths_are_taken_for_roots_and_catalogue(self, bucket: Path, tmp_path: Path) -> None:
        found = estimate(bucket / "spec", tmp_path / "made", sample=5)
        assert load_estimate(open_folder(str(tmp_path / "made")), found.fingerprint) == found


def lines_of(out: str) -> dict[str, str]:
    """Return the lines of the table by their names; what goes on below a line is part of it."""
    lines: dict[str, str] = {}
    for line in out.splitlines():
        name = line[:10].strip() or list(lines)[-1]
        lines[name] = f"{lines[name]} {line.strip()}" if name in lines else line[10:].strip()
    return lines


class TestCommand:
    def test_table_has_a_line_for_each_figure(self, crawler: Run, bucket: Path) -> None:
        ended = crawler("estimate", bucket, "--sample", 20, "--workers", 1)
        assert (ended.code, ended.err) == (0, "")
        assert all(len(line) <= 80 for line in ended.out.splitlines())
        lines = lines_of(ended.out)
        assert list(lines) == ["listed", "files", "requests", "read", "store", "time", "workers", "catalogue", "sample"]
        assert lines["listed"] == f"{RAW + SPECTRA} objects, {RAW + SPECTRA} of them FITS files by name"
        assert lines["store"].startswith("$0: local disks and web servers charge nothing")
        assert lines["time"].endswith("on 1 worker, limited by CPU")
        assert list(Path().iterdir()) == []

    def test_estimate_is_saved_and_compared(self, crawler: Run, bucket: Path) -> None:
        ended = crawler("estimate", bucket, "--sample", 10, "-c", "made", "--json", "--include", "s*.fits")
        found = Estimate.from_json(ended.out)
        assert found.files == SPECTRA
        assert load_estimate(open_folder("made"), found.fingerprint) == found
        indexed = crawler("index", bucket, "-c", "made", "--include", "s*.fits", "--workers", 0)
        assert indexed.code == 0
        assert f"estimate   files     {SPECTRA} (estimate: {SPECTRA})" in indexed.out

    def test_job_file_gives_the_roots(self, crawler: Run, bucket: Path) -> None:
        job = f'[crawl]\nroots = ["{bucket}"]\ninclude = ["exp*"]\nallow_removals = true\n[cluster]\nscheduler = "tcp://x:1"\n'
        Path("job.toml").write_text(job)
        ended = crawler("estimate", "--job", "job.toml", "--sample", 10, "--json")
        assert (ended.code, ended.err) == (0, "")
        assert Estimate.from_json(ended.out).files == RAW

    def test_bad_files_are_named(self, crawler: Run, tree: Path) -> None:
        assert f"of {TREE_FILES} files: 2 not-fits, 1 truncated" in crawler("estimate", tree).out

    def test_max_keys_are_noted(self, crawler: Run, bucket: Path) -> None:
        ended = crawler("estimate", bucket, "--sample", 5, "--max-keys", 1)
        assert "the listing stopped after 1 object " in ended.out

    @pytest.mark.parametrize(
        ("args", "code", "said"),
        [
            pytest.param([], 2, "there is nothing to estimate: name ROOTS", id="no-roots"),
            pytest.param(["none"], 1, "cannot list none: no such file or folder", id="no-folder"),
            pytest.param(["."], 1, "nothing found in .: there are no objects", id="empty"),
            pytest.param(["nowhere://a/b"], 2, "no store reads nowhere:// URLs", id="no-store"),
            pytest.param([".", "--sample", "0"], 2, "Invalid value for '--sample'", id="no-sample"),
            pytest.param([".", "--job", "none.toml"], 2, "job file none.toml: No such file", id="no-job-file"),
        ],
    )
    def test_faults_are_one_line(self, crawler: Run, args: list[str], code: int, said: str) -> None:
        ended = crawler("estimate", *args)
        assert (ended.code, ended.out) == (code, "")
        assert ended.fault.startswith(said)

    def test_folder_of_other_things_is_refused(self, crawler: Run, bucket: Path) -> None:
        Path("thesis").mkdir()
        Path("thesis/chapter.tex").write_text("...")
        ended = crawler("estimate", bucket, "-c", "thesis")
        assert ended.code == 1
        assert "other things in it" in ended.fault
        assert [path.name for path in Path("thesis").iterdir()] == ["chapter.tex"]

    def test_unreadable_sample_is_one_line(self, crawler: Run) -> None:
        with RangeServer({"a.fits": image_hdu((10,))}) as server:
            server.status["GET"] = 403
            ended = crawler("estimate", server.url("a.fits"), "-c", "made")
        assert ended.code == 1
        assert ended.fault.startswith("no file of the sample could be read; the first: ")
        assert not Path("made").exists()

    @pytest.mark.parametrize(
        "roots", [pytest.param(["a.fits", "b.fits"], id="while-it-lists"), pytest.param([""], id="while-it-walks")]
    )
    def test_interrupt_is_one_line_and_exit_130(self, tmp_path: Path, roots: list[str]) -> None:
        with RangeServer({"a.fits": image_hdu((10,)), "b.fits": image_hdu((20,))}) as server:
            release = server.stall("b.fits")
            urls = [server.url(root) for root in roots]
            with outside("estimate", *urls, "-c", tmp_path / "made", stdout=subprocess.PIPE) as process:
                while not any(asked.path == "/b.fits" for asked in server.requests):
                    assert process.poll() is None
                    time.sleep(0.01)
                process.send_signal(signal.SIGINT)
                out, err = process.communicate(timeout=30)
            release.set()
        assert (process.returncode, out, err.strip()) == (130, b"", b"crawler: interrupted")
        assert not (tmp_path / "made").exists()

    def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(
        self, crawler: Run, bucket: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("crawler.cli.output.PLAIN_SECONDS", 0.0)
        ended = crawler("estimate", bucket, "--sample", 10)
        said = ended.err.splitlines()
        assert any(line.startswith(f"listing: {RAW + SPECTRA} objects, ") for line in said)
        assert any(line.startswith("sample: 10 of ") for line in said)
        assert "sample:" not in ended.out
