"""`crawler.quoting`: its statistics by simulation, its sample, and quotes of local files beside what a crawl takes."""

from __future__ import annotations

import json
import math
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import crawler as package
from crawler import run
from crawler.errors import UsageError
from crawler.job import CrawlJob
from crawler.quoting import Interval, Quote, Spent, compared, estimate, fingerprint_of, keep_quote, kept_quote
from crawler.quoting import estimate as estimating
from crawler.quoting.kept import QUOTES, in_bytes, in_dollars, in_hours, spanned, whole
from crawler.quoting.learning import Kind, Learning
from crawler.quoting.sampling import Figures, Sample, strata_of
from crawler.quoting.statistics import Stratum, quantile, total
from crawler.quoting.strata import Strata
from crawler.report import Report
from crawler.stores import ObjectRef
from crawler.stores.storage import open_folder
from crawler.walk import Scope
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


def quoted(products: Population, chance: random.Random, sample: int = 200) -> list[Interval]:
    """Return what is quoted for a population, of a sample shared out as `Strata.allotted` does."""
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
    def test_hold_the_truth(self, population: Callable[[random.Random], Population], sample: int) -> None:
        held = [0, 0]  # requests, bytes
        for seed in range(POPULATIONS):
            chance = random.Random(seed)
            products = population(chance)
            for what, span in enumerate(quoted(products, chance, sample)):
                held[what] += math.fsum(one[what] for costs in products for one in costs) in span
        assert min(held) >= LEAST_COVERAGE * POPULATIONS, held

    def test_are_useful(self) -> None:
        span, _ = quoted(homogeneous(random.Random(1)), random.Random(2))
        assert (span.high - span.low) / span.value < 0.1

    def test_are_of_no_width_only_where_every_file_was_walked(self) -> None:
        alike = total([Stratum(1000, [2.0] * 30, unlike=9.0)])
        assert alike.value == 2000
        assert alike.low < 2000 < alike.high
        assert total([Stratum(30, [2.0] * 30, unlike=9.0)]) == Interval.exactly(60)

    def test_of_alike_files_allow_for_what_thirty_of_them_cannot_exclude(self) -> None:
        """The rule of three: one file in ten may be another, and only then is it a surprise not to have seen it."""
        alike = total([Stratum(10**6, [2.0] * 30, unlike=9.0)])
        assert 2e6 + 7e6 / 30 < alike.high < 2e6 + 7e6 * 3 / 10

    def test_of_a_model_have_a_width_even_so(self) -> None:
        span = total([Stratum(30, [2.0] * 30, unlike=9.0)], model=3.0)
        assert span.low < 60 - 3 < 60 + 3 < span.high

    def test_never_promise_less_than_a_request_a_file(self) -> None:
        assert total([Stratum(1000, [1.0, 1.0, 1.0], unlike=90.0)], each=1.0).low == 1000

    def test_of_files_that_others_stand_for_are_wider(self) -> None:
        costs = [1.0, 2.0, 3.0]
        own, borrowed = (total([Stratum(3, costs, 9.0, borrowed)]) for borrowed in (False, True))
        assert own == Interval.exactly(6)
        assert borrowed.low < 6 < borrowed.high

    @pytest.mark.parametrize(("freedom", "t"), [(1, 12.706), (4.7, 2.776), (12, 2.179), (30, 2.042), (math.inf, 1.960)])
    def test_quantiles_are_students(self, freedom: float, t: float) -> None:
        assert quantile(freedom) == pytest.approx(t, abs=2e-3)


class TestLearning:
    def test_siblings_of_one_size(self) -> None:
        worker = Learning(workers=1, slots=4)
        assert [worker.meet(0, "p", "a.fits", 100).kind for _ in range(3)] == [Kind.FIRST, Kind.KNOWN, Kind.KNOWN]

    def test_nothing_is_guessed_of_a_new_size_by_one_sibling_alone(self) -> None:
        worker = Learning(workers=1, slots=1)
        assert [worker.meet(0, "p", "a.fits", size).kind for size in (1, 2, 3, 2)] == [
            Kind.FIRST,
            Kind.FIRST,
            Kind.NEW,
            Kind.KNOWN,
        ]

    def test_a_size_is_not_known_before_its_walk_ends(self) -> None:
        worker = Learning(workers=1, slots=4)
        worker.meet(0, "p", "a.fits", 1)
        met = [worker.meet(0, "p", "a.fits", 2) for _ in range(5)]
        assert [one.kind for one in met] == [Kind.FIRST] * 4 + [Kind.KNOWN]
        assert [one.crowded for one in met] == [False, True, True, True, False]

    def test_a_size_is_forgotten_after_eight_others(self) -> None:
        worker = Learning(workers=1, slots=1)
        for size in range(9):
            worker.meet(0, "p", "a.fits", size)
        worker.meet(0, "p", "a.fits", 8)
        assert worker.meet(0, "p", "a.fits", 0).kind is Kind.NEW

    def test_each_worker_learns_for_itself(self) -> None:
        workers = Learning(workers=2, slots=4)
        assert [workers.meet(worker, "p", "a.fits", 1).kind for worker in (0, 1, 0, 1)] == [
            Kind.FIRST,
            Kind.FIRST,
            Kind.KNOWN,
            Kind.KNOWN,
        ]

    def test_as_many_compressed_files_are_begun_as_can_be(self) -> None:
        worker = Learning(workers=1, slots=3)
        kinds = [worker.meet(0, "p", "a.fits.gz", size).kind for size in range(6)]
        assert kinds == [Kind.FIRST] * 3 + [Kind.KNOWN] * 3

    def test_files_of_unknown_size_stay_new(self) -> None:
        worker = Learning(workers=1, slots=1)
        assert {worker.meet(0, "p", "a.fits", None).kind for _ in range(5)} <= {Kind.FIRST, Kind.NEW}


def listed(counts: dict[str, int]) -> Strata:
    """Return the strata of a listing of so many files of each product, mixed."""
    strata = Strata()
    left = Counter(counts)
    number = 0
    while left:
        for product in list(left):
            strata.add(product, Kind.KNOWN, False, ObjectRef(f"{product}{number}", 1000))
            number += 1
            left[product] -= 1
            if not left[product]:
                del left[product]
    return strata


class TestSample:
    def test_is_the_same_each_time(self) -> None:
        first, again = (
            [
                (group.suffix, kind, [ref.url for ref in group.cells[kind].sample(count)])
                for group, kind, count in listed({"a.fits": 500, "b.fits": 50}).allotted(40)
            ]
            for _ in range(2)
        )
        assert first == again

    def test_is_shared_out_by_files_and_leaves_nobody_out(self) -> None:
        counts = {
            group.files: count for group, _, count in listed({"a.fits": 900, "b.fits": 90, "c.fits": 2}).allotted(100)
        }
        assert counts == {900: 91, 90: 10, 2: 2}

    def test_is_random(self) -> None:
        """Each tenth of a listing has its share of the sample."""
        strata = listed({"a.fits": 20_000})
        ((group, kind, count),) = strata.allotted(2000)
        tenths = Counter(int(ref.url.removeprefix("a.fits")) // 2000 for ref in group.cells[kind].sample(count))
        assert set(tenths) == set(range(10))
        assert all(140 < share < 260 for share in tenths.values())

    def test_many_products_are_pooled_and_none_is_lost(self) -> None:
        strata = listed({f"kind{chr(97 + at % 26)}{at}.fits": 3 for at in range(6000)} | {"large.fits": 5000})
        allotted = list(strata.allotted(400))
        assert len(strata.groups) <= 50
        assert sum(group.files for group in strata.groups) == strata.files == 6000 * 3 + 5000
        assert sum(len(cell.held) for group in strata.groups for cell in group.cells.values()) <= 60_000
        assert 390 <= sum(count for _, _, count in allotted) <= 600
        assert any(group.files > 4900 and not group.pooled for group in strata.groups)
        assert all(len(group.cells[kind].sample(count)) == count for group, kind, count in allotted)

    def test_pooled_files_have_equal_chances(self) -> None:
        """Those of a product that came early as those of one that came late."""
        strata = listed({f"kind{chr(97 + at % 26)}{at}.fits": 4 for at in range(5000)})
        ((group, kind, count),) = [one for one in strata.allotted(400) if one[0].pooled]
        halves = Counter(int(ref.url.rpartition(".fits")[2]) < 10_000 for ref in group.cells[kind].sample(count))
        assert abs(halves[True] - halves[False]) < 4 * math.sqrt(count)

    def test_layouts_are_told_apart_by_the_sizes_of_files(self) -> None:
        """However many of each the sample happens to have."""
        strata = Strata()
        for number in range(1000):
            strata.add("a.fits", Kind.KNOWN, False, ObjectRef(f"a{number}.fits", 9000 if number % 10 else 5000))
        (group,) = strata.groups
        short, long = (
            Figures(size, dict.fromkeys(Kind, requests), dict.fromkeys(Kind, 0.0), 1, 36)
            for size, requests in ((5000, 2.0), (9000, 7.0))
        )
        sample = Sample(strata=[(group, {Kind.KNOWN: [short] * 20 + [long] * 5})])
        span = total(*strata_of(sample, "requests")[:1])
        assert span.value == 100 * 2 + 900 * 7

    def test_partitions_are_those_of_a_crawl(self) -> None:
        module = sys.modules[estimating.__module__]
        assert (module.FIRST_PARTITION, module.GROWTH, module.PARTITION) == (
            run.FIRST_PARTITION,
            run.GROWTH,
            run.PARTITION,
        )


QUOTE = Quote(
    fingerprint="f" * 32,
    made="2026-01-01T00:00:00+00:00",
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
    lists=1,
    bytes_read=Interval(1e6, 9e5, 1.2e6),
    hdus=Interval(20.0, 20.0, 20.0),
    cards=Interval(200.0, 190.0, 210.0),
    catalogue_bytes=Interval(1e5, 8e4, 1.3e5),
    usd_requests=Interval(0.48, 0.47, 0.50),
    usd_transfer=Interval.exactly(0.0),
    usd_compute=Interval(0.01, 0.004, 0.03),
    hours=Interval(0.05, 0.02, 0.15),
    bound="CPU",
    spent=Spent(4, 12, 1, 40_000, 1e-5, 0.5),
)


class TestQuote:
    def test_to_json_and_back(self) -> None:
        assert Quote.from_json(QUOTE.to_json()) == QUOTE
        assert json.loads(QUOTE.to_json())["requests"]["high"] == 1_240_000
        assert json.loads(QUOTE.to_json())["usd"]["value"] == pytest.approx(0.49)

    @pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"files": 1}', b"\xff", "[" * 100_000])
    def test_of_no_quote(self, text: str) -> None:
        with pytest.raises(ValueError):  # noqa: PT011 - whichever json finds
            Quote.from_json(text)

    def test_kept_beside_a_catalogue(self, tmp_path: Path) -> None:
        folder = open_folder(str(tmp_path))
        assert kept_quote(folder, QUOTE.fingerprint) is None
        keep_quote(folder, QUOTE)
        assert kept_quote(folder, QUOTE.fingerprint) == QUOTE
        (tmp_path / QUOTES / f"{QUOTE.fingerprint}.json").write_text("{")
        assert kept_quote(folder, QUOTE.fingerprint) is None

    def test_fingerprint(self) -> None:
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

    def test_compared(self) -> None:
        report = Report("id", "c", requests=1_203_111, bytes_read=10**6, hdus=20, cards=200, usd=0.481, seconds=180.0)
        report.walked["ok"] = 10
        lines = compared(QUOTE, report, catalogue_bytes=99_000)
        assert lines[:3] == [
            "files      10 (quoted 10)",
            "requests   1.2 million (quoted 1.19 to 1.24 million)",
            "read       1 MB (quoted 900 kB to 1.2 MB)",
        ]
        assert lines[-3:] == [
            "dollars    $0.48 (quoted $0.47 to $0.50)",
            "hours      3 minutes (quoted 72 seconds to 9 minutes)",
            "catalogue  99 kB (quoted 80 to 130 kB)",
        ]
        assert "of a part of the files" in compared(replace(QUOTE, complete=False), report)[1]

    @pytest.mark.parametrize(
        ("shown", "said"),
        [
            (whole(999_999), "999,999"),
            (whole(123_456_789), "123 million"),
            (in_bytes(999), "999 bytes"),
            (in_bytes(4.4e10), "44 GB"),
            (in_dollars(0), "$0.00"),
            (in_dollars(0.000123), "$0.00012"),
            (in_dollars(1234.5), "$1,234.50"),
            (in_hours(12.34), "12.3 hours"),
            (in_hours(0.0001), "0.36 seconds"),
            (spanned(Interval(2, 1, 3), whole), "1 to 3"),
        ],
    )
    def test_figures_for_a_person(self, shown: str, said: str) -> None:
        assert shown == said


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
    def test_of_every_file(self, bucket: Path, tmp_path: Path) -> None:
        quote = estimate(str(bucket), workers=0, sample=1000)
        report = package.index(str(bucket), str(tmp_path / "made"))
        assert quote.spent.files == quote.files == quote.listed == RAW + SPECTRA
        assert (quote.products, quote.statuses) == (2, {"ok": RAW + SPECTRA})
        assert (quote.hdus, quote.cards.value) == (Interval.exactly(report.hdus), report.cards)
        assert quote.requests.value == pytest.approx(report.requests, rel=0.01)
        assert quote.bytes_read.value == pytest.approx(report.bytes_read, rel=0.02)
        stored = sum(one.size for one in package.Catalogue(str(tmp_path / "made")).fragments)
        assert stored in quote.catalogue_bytes
        assert report.seconds / 3600 < quote.hours.high

    def test_only_the_primary_hdus(self, bucket: Path) -> None:
        quote = estimate(str(bucket), workers=0, sample=40, max_hdus=1)
        assert quote.hdus.value == quote.requests.value == RAW + SPECTRA
        assert quote.statuses == {"partial": quote.spent.files}

    def test_each_worker_learns_each_product(self, bucket: Path) -> None:
        one, many = (estimate(str(bucket), workers=workers, sample=300) for workers in (1, 3))
        assert many.bytes_read.value > one.bytes_read.value
        assert many.hours.value < one.hours.value

    def test_local_files_cost_no_requests(self, bucket: Path) -> None:
        quote = estimate(str(bucket), sample=10)
        assert quote.usd_requests == quote.usd_transfer == Interval.exactly(0.0)
        assert quote.usd_compute.value > 0
        assert quote.lists == 0

    def test_a_part_of_the_keys(self, bucket: Path) -> None:
        assert estimate(str(bucket), sample=10, max_keys=10**6).complete
        part = estimate(str(bucket), sample=10, max_keys=7)
        assert (part.complete, part.listed, part.files) == (False, 7, 7)

    def test_files_of_the_catalogue_are_not_counted(self, tmp_path: Path, tree: Path) -> None:
        catalogue = str(tmp_path / "made")
        package.index(str(tree), catalogue)
        files = sorted(tree.rglob("exp*.fits"))
        files[3].write_bytes(files[4].read_bytes() + bytes(2880))
        quote = estimate(str(tree), catalogue)
        assert (quote.listed, quote.unchanged, quote.files) == (TREE_FILES, TREE_FILES - 1, 1)
        files[3].write_bytes(files[4].read_bytes())
        package.index(str(tree), catalogue)
        nothing = estimate(str(tree), catalogue)
        assert (nothing.files, nothing.requests, nothing.catalogue_bytes) == (
            0,
            Interval.exactly(0),
            Interval.exactly(0),
        )

    def test_bad_files_are_told(self, tree: Path) -> None:
        quote = estimate(str(tree), workers=0)
        assert quote.statuses == {"ok": TREE_FILES - 3, "truncated": 1, "not-fits": 2}

    @pytest.mark.parametrize(
        "wrong",
        [{"sample": 0}, {"max_keys": 0}, {"concurrency": 0}, {"max_hdus": 0}, {"workers": -1}, {"costs": {"x": 1}}],
    )
    def test_arguments_that_make_no_sense(self, tmp_path: Path, wrong: dict[str, int]) -> None:
        with pytest.raises(UsageError):
            estimate(str(tmp_path), **wrong)  # type: ignore[arg-type]

    def test_web_files_without_etags(self) -> None:
        data = image_hdu((300_000,)) + image_hdu((300_000,), xtension="IMAGE")
        with RangeServer({f"night/exp{number:03}.fits": data for number in range(30)}) as server:
            server.etags = "none"
            quote = estimate(server.url("night/"), workers=0, sample=10)
            read = sum(1 for one in server.requests if one.range)
        assert read == quote.spent.requests
        assert quote.hdus.value == 60

    def test_unreadable_files_are_told(self) -> None:
        data = image_hdu((10,))
        with RangeServer({f"exp{number}.fits": data for number in range(8)}) as server:
            server.status["exp3.fits"] = 403
            quote = estimate(server.url(""), workers=0)
        assert quote.statuses == {"ok": 7, "unreadable": 1}
        assert quote.first_error is not None
        assert "exp3.fits" in quote.first_error


class TestCommand:
    def test_prints_a_table(self, crawler: Run, bucket: Path) -> None:
        ended = crawler("estimate", bucket, "--sample", 20, "--workers", 1)
        assert (ended.code, ended.err) == (0, "")
        lines = dict(line.split(maxsplit=1) for line in ended.out.splitlines())
        assert list(lines) == ["listed", "files", "requests", "reads", "dollars", "time", "catalogue", "estimate"]
        assert lines["listed"] == f"{RAW + SPECTRA} objects, {RAW + SPECTRA} of FITS names"
        assert lines["time"].endswith("on 1 worker, bound by CPU")
        assert list(Path().iterdir()) == []

    def test_keeps_the_quote(self, crawler: Run, bucket: Path) -> None:
        ended = crawler("estimate", bucket, "--sample", 10, "-c", "made", "--json", "--include", "s*.fits")
        quote = Quote.from_json(ended.out)
        assert quote.files == SPECTRA
        assert kept_quote(open_folder("made"), quote.fingerprint) == quote
        assert crawler("index", bucket, "-c", "made", "--include", "s*.fits", "--workers", 0).code == 0

    def test_of_a_job_file(self, crawler: Run, bucket: Path) -> None:
        job = f'[crawl]\nroots = ["{bucket}"]\ninclude = ["exp*"]\nallow_removals = true\n[cluster]\nscheduler = "tcp://x:1"\n'
        Path("job.toml").write_text(job)
        ended = crawler("estimate", "--job", "job.toml", "--sample", 10, "--json")
        assert (ended.code, ended.err) == (0, "")
        assert Quote.from_json(ended.out).files == RAW

    def test_bad_files_of_the_sample(self, crawler: Run, tree: Path) -> None:
        assert f"sample     of {TREE_FILES} files 2 not-fits, 1 truncated\n" in crawler("estimate", tree).out

    def test_a_part_of_the_keys(self, crawler: Run, bucket: Path) -> None:
        ended = crawler("estimate", bucket, "--sample", 5, "--max-keys", 1)
        assert "the listing was broken off" in ended.out

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

    def test_where_no_catalogue_can_be(self, crawler: Run, bucket: Path) -> None:
        Path("thesis").mkdir()
        Path("thesis/chapter.tex").write_text("...")
        ended = crawler("estimate", bucket, "-c", "thesis")
        assert ended.code == 1
        assert "other things in it" in ended.fault
        assert [path.name for path in Path("thesis").iterdir()] == ["chapter.tex"]

    def test_none_can_be_read(self, crawler: Run) -> None:
        with RangeServer({"a.fits": image_hdu((10,))}) as server:
            server.status["GET"] = 403
            ended = crawler("estimate", server.url("a.fits"), "-c", "made")
        assert ended.code == 1
        assert ended.fault.startswith("none of 1 files could be read; the first: ")
        assert not Path("made").exists()

    @pytest.mark.parametrize(
        "roots", [pytest.param(["a.fits", "b.fits"], id="while-it-lists"), pytest.param([""], id="while-it-walks")]
    )
    def test_interrupted(self, tmp_path: Path, roots: list[str]) -> None:
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
