"""What is learned of siblings saves requests and changes no row, be it right, wrong or nonsense."""

from __future__ import annotations

import gzip
import hashlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crawler.catalogue.reader import Catalogue
from crawler.cluster import DaskExecutor, local_client
from crawler.driver.driver import Crawl
from crawler.driver.executor import Executor, InProcess
from crawler.driver.report import Report
from crawler.fits.layouts import Guess, Layouts
from crawler.fits.policy import ReadPolicy
from crawler.fits.units import Span
from crawler.job.crawl_job import CrawlJob
from crawler.job.scope import Scope
from crawler.job.settings import Settings
from crawler.stores.base import LISTING_SCHEMA
from crawler.worker.context import release, run_ids
from crawler.worker.partition import Receipt, crawl_partition
from crawler.worker.walk import walk_file
from tests.fits_files import BLOCK, BytesStore, bintable_hdu, entry, groups_hdu, image_hdu, walk_bytes
from tests.servers import RangeServer
from tests.tables import same_tables

SIBLINGS = 16
"""Files of each of three products."""

POLICY = ReadPolicy(first=2 * BLOCK, header=BLOCK, gap=3 * BLOCK)
"""What reading would cost if data units were as small as those of these files."""

Contents = dict[str, bytes]


def raw(number: int, *, header_blocks: int = 2, more: int = 0) -> bytes:
    """Return a file of five headers: two, two and one lie close together. Only values tell siblings apart.

    A block more of the second header is one less of its data.
    """
    comments = ["COMMENT"] * (36 * (header_blocks - 1))
    return b"".join(
        [
            image_hdu((), entry("NUMBER", number)),
            image_hdu(((12 - header_blocks) * BLOCK,), entry("NUMBER", -number), *comments, xtension="IMAGE"),
            bintable_hdu(10, 300, entry("EXTNAME", f"CAT{number:04}")),
            image_hdu((10 * BLOCK + more * BLOCK,), *["COMMENT"] * 50, xtension="IMAGE"),
            bintable_hdu(8, 9),
        ]
    )


def drizzled(number: int) -> bytes:
    """Return a file of headers far apart: three that are not as `raw` has them."""
    wide = image_hdu((6 * BLOCK,), entry("NUMBER", number), *["COMMENT"] * 100)
    return wide + image_hdu((8 * BLOCK,), entry("N", number), xtension="IMAGE") + image_hdu((5,), xtension="IMAGE")


def packed(number: int) -> bytes:
    return gzip.compress(raw(number), mtime=0)


@pytest.fixture(scope="module")
def contents() -> Contents:
    """Return files by their names: of three products, and odd ones named as if they were siblings."""
    found = {}
    for number in range(SIBLINGS):
        night = f"2024-03-{number % 3 + 1:02}"
        found[f"{night}/j{number:03}_raw.fits"] = raw(number)
        found[f"{night}/j{number:03}_drz.fits"] = drizzled(number)
        found[f"{night}/j{number:03}_cat.fits.gz"] = packed(number)
    odd = {
        "larger": raw(1, more=3),
        "larger again": raw(2, more=3),
        "much larger": raw(3, more=70),
        "same size, other places": raw(4, header_blocks=5),
        "same size, other places again": raw(5, header_blocks=5),
        "same size, one block on": raw(6, header_blocks=3),
        "cut": raw(7)[:-1000],
        "cut in a header": raw(8)[: 20 * BLOCK + 100],
        "same size, no FITS": bytes(len(raw(0))),
        "empty": b"",
        "compressed": packed(9),
        "groups": groups_hdu((4, 2), bitpix=-32, pcount=3, gcount=20) + bintable_hdu(5, 5),
        "junk behind": raw(10) + b"junk",
        "same size, corrupt": raw(11).replace(b"NAXIS   =                    2", b"NAXIS   =                   -2", 1),
    }
    assert len(odd["same size, other places"]) == len(odd["same size, one block on"]) == len(raw(0))
    for place, data in enumerate(odd.values()):
        found[f"2024-03-{place % 3 + 1:02}/j{place:03}x_raw.fits"] = data
    return found


@pytest.fixture(scope="module")
def folder(contents: Contents, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("siblings")
    for name, data in contents.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture(scope="module")
def server(contents: Contents) -> Iterator[RangeServer]:
    with RangeServer(contents) as running:
        yield running


SEVERAL = Settings(first_partition=15, growth=1, partition=15)
"""Several partitions of few files."""


def listed(server: RangeServer, path: Path, contents: Contents) -> str:
    """Write a key file that tells sizes and ETags as the bucket's inventory would; return it as a root."""
    rows = [
        {"url": server.url(name), "size": len(data), "etag": f'"{hashlib.sha256(data).hexdigest()[:16]}"'}
        for name, data in contents.items()
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return f"@{path}"


@pytest.fixture(params=["file", "http, pinned", "http, nothing known"])
def root(request: pytest.FixtureRequest, folder: Path, contents: Contents, tmp_path: Path) -> str:
    """Return where the files lie."""
    if request.param == "file":
        return str(folder)
    server: RangeServer = request.getfixturevalue("server")
    if request.param == "http, pinned":
        return listed(server, tmp_path / "keys.parquet", contents)
    return f"{server.origin}/"


def crawled(location: Path, root: str, *, executor: Executor | None = None, **options: Any) -> Report:
    """Crawl a root to the end."""
    job = CrawlJob(roots=(root,), catalogue=str(location), **{"scope": Scope(POLICY), "settings": SEVERAL, **options})
    report = Crawl(job, executor or InProcess(), lambda _: None).run()
    assert report.walked["unreadable"] == 0
    return report


def expect(location: Path, contents: Contents) -> None:
    """See that a catalogue holds what the files do, found without a crawl."""
    found = Catalogue(str(location)).sql("SELECT url, status, n_hdus FROM files").to_pylist()
    rows = {row["url"].rpartition("/2024")[2]: (row["status"], row["n_hdus"]) for row in found}
    alone = {name: BytesStore(data) for name, data in contents.items()}
    walks = {name: walk_file(store, store.ref()) for name, store in alone.items()}
    assert rows == {name[4:]: (walk.status, len(walk.hdus)) for name, walk in walks.items()}


class TestRowsAreTheSame:
    def test_learned_or_not(self, tmp_path: Path, root: str, contents: Contents) -> None:
        crawled(tmp_path / "not", root, learn=False)
        crawled(tmp_path / "learned", root, learn=True)

        same_tables(Catalogue(str(tmp_path / "learned")), Catalogue(str(tmp_path / "not")))
        expect(tmp_path / "learned", contents)

    @pytest.mark.parametrize("concurrency", [1, 3, 64])
    def test_however_many_are_read_at_once(
        self, tmp_path: Path, server: RangeServer, contents: Contents, concurrency: int
    ) -> None:
        keys = listed(server, tmp_path / "keys.parquet", contents)
        crawled(tmp_path / "not", keys, learn=False)
        crawled(tmp_path / "learned", keys, concurrency=concurrency)

        same_tables(Catalogue(str(tmp_path / "learned")), Catalogue(str(tmp_path / "not")))

    def test_on_a_cluster(self, tmp_path: Path, server: RangeServer, contents: Contents) -> None:
        keys = listed(server, tmp_path / "keys.parquet", contents)
        crawled(tmp_path / "not", keys, learn=False)
        with local_client(2) as client:
            crawled(tmp_path / "learned", keys, executor=DaskExecutor(client))

        same_tables(Catalogue(str(tmp_path / "learned")), Catalogue(str(tmp_path / "not")))

    @pytest.mark.parametrize("count", [1, 2])
    def test_of_the_first_hdus(self, tmp_path: Path, root: str, count: int) -> None:
        scope = Scope(POLICY, max_hdus=count)
        crawled(tmp_path / "not", root, learn=False, scope=scope)
        crawled(tmp_path / "learned", root, learn=True, scope=scope)

        same_tables(Catalogue(str(tmp_path / "learned")), Catalogue(str(tmp_path / "not")))


def layout_of(data: bytes) -> Guess:
    """Return the guess that is right for a file."""
    hdus = walk_bytes(data).hdus
    return Guess(
        tuple(Span(hdu.header_offset, hdu.data_offset) for hdu in hdus), tuple(hdu.header_size for hdu in hdus)
    )


def another_product(product: str, _: int | None) -> Guess:
    return layout_of(raw(0) if "_drz" in product else drizzled(0))


def another_size(_: str, __: int | None) -> Guess:
    return layout_of(raw(0, more=3))


def same_size_other_places(_: str, __: int | None) -> Guess:
    return layout_of(raw(0, header_blocks=5))


def beyond_the_end(product: str, size: int | None) -> Guess:
    choices = random.Random(product)
    edges = sorted(choices.sample(range((size or 0) + 1, (size or 0) + 10**9), 20))
    return Guess(tuple(Span(*edge) for edge in pairwise(edges)), tuple(choices.randrange(10**6) for _ in range(5)))


def anywhere(product: str, size: int | None) -> Guess:
    choices = random.Random(f"{product} {size}")
    blocks = sorted(choices.sample(range(40), 10))
    return Guess(
        tuple(Span(start * BLOCK, stop * BLOCK) for start, stop in pairwise([0, *blocks[1:]])),
        tuple(choices.randrange(1, 5) * BLOCK for _ in range(5)),
    )


def compressed(_: str, __: int | None) -> Guess:
    return Guess(compressed=True)


POISONS = [another_product, another_size, same_size_other_places, beyond_the_end, anywhere, compressed]


@pytest.mark.parametrize("poison", POISONS)
def test_wrong_guesses_change_no_row(
    tmp_path: Path,
    root: str,
    contents: Contents,
    monkeypatch: pytest.MonkeyPatch,
    poison: Callable[[str, int | None], Guess],
) -> None:
    crawled(tmp_path / "clean", root, learn=False)
    guessed: list[str] = []

    def guess(_: Layouts, product: str, size: int | None) -> Guess:
        guessed.append(product)
        return poison(product, size)

    monkeypatch.setattr(Layouts, "guess", guess)
    crawled(tmp_path / "poisoned", root, learn=True)

    assert len(guessed) == len(contents)
    assert len(set(guessed)) == 3
    same_tables(Catalogue(str(tmp_path / "poisoned")), Catalogue(str(tmp_path / "clean")))
    expect(tmp_path / "poisoned", contents)


def clusters_of(data: bytes) -> int:
    """Return how many reads hold all headers of a file, those no further apart than what is worth reading together."""
    hdus = walk_bytes(data).hdus
    return 1 + sum(after.header_offset - before.data_offset > POLICY.gap for before, after in pairwise(hdus))


class TestSavings:
    @pytest.fixture
    def regular(self, server: RangeServer, tmp_path: Path, contents: Contents) -> str:
        """Return a root of the siblings of one product, without the odd ones."""
        kept = {name: data for name, data in contents.items() if name.endswith("_raw.fits") and "x_raw" not in name}
        assert len(kept) == SIBLINGS
        assert {clusters_of(data) for data in kept.values()} == {3}
        return listed(server, tmp_path / "regular.parquet", kept)

    def test_all_headers_of_a_sibling_come_in_one_round_trip(
        self, tmp_path: Path, regular: str, server: RangeServer
    ) -> None:
        before = len(server.requests)
        report = crawled(tmp_path / "learned", regular)

        store = BytesStore(raw(0))
        scout = walk_file(store, store.ref(), Scope(POLICY))
        assert report.round_trips == scout.round_trips + SIBLINGS - 1
        assert report.requests == scout.requests + 3 * (SIBLINGS - 1)
        # And the server saw no others.
        assert [request.method for request in server.requests[before:]] == ["GET"] * report.requests
        assert all(request.if_match for request in server.requests[before:])

    def test_requests_are_hardly_more_than_there_are_clusters(self, tmp_path: Path, regular: str) -> None:
        report = crawled(tmp_path / "learned", regular)

        assert report.walked == {"ok": SIBLINGS}
        assert 3 * SIBLINGS <= report.requests <= 1.05 * 3 * SIBLINGS

    def test_no_more_bytes_are_read_than_without(self, tmp_path: Path, regular: str) -> None:
        learned, without = crawled(tmp_path / "learned", regular), crawled(tmp_path / "not", regular, learn=False)

        assert learned.round_trips < without.round_trips
        assert learned.requests < without.requests
        assert learned.bytes_read <= without.bytes_read

    def test_the_odd_ones_among_them_leave_some(self, tmp_path: Path, server: RangeServer, contents: Contents) -> None:
        keys = listed(server, tmp_path / "keys.parquet", contents)
        learned, without = crawled(tmp_path / "learned", keys), crawled(tmp_path / "not", keys, learn=False)

        assert learned.files == without.files == len(contents)
        assert learned.round_trips < 0.75 * without.round_trips
        assert learned.requests < without.requests

    def test_without_learning_is_one_request_after_the_other(self, tmp_path: Path, regular: str) -> None:
        report = crawled(tmp_path / "not", regular, learn=False)

        assert report.round_trips == report.requests > 3 * SIBLINGS

    def test_of_one_run_are_not_those_of_the_next(self, tmp_path: Path, regular: str) -> None:
        """What was learned is gone with its run: the same again costs the same."""
        one, other = crawled(tmp_path / "one", regular), crawled(tmp_path / "other", regular)

        assert (one.requests, one.round_trips) == (other.requests, other.round_trips)
        assert run_ids() == []


def test_partitions_of_two_pools_wait_for_a_product_of_both(
    tmp_path: Path, folder: Path, server: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One partition begins on the local disk and ends on the web, the other is on the web alone."""
    job = CrawlJob(roots=(), catalogue=str(tmp_path / "catalogue"), scope=Scope(POLICY))
    names = [f"2024-03-01/j{number:03}_raw.fits" for number in (0, 3, 6, 9)]
    local, (scouted, *others) = (folder / names[0]).as_uri(), map(server.url, names)
    answers = server.stall(names[0])
    scouting, waiting = threading.Event(), threading.Event()
    begin = Layouts.begin

    def watched(self: Layouts, product: str) -> bool:
        may = begin(self, product)
        if product.startswith("http"):
            (scouting if may else waiting).set()
        return may

    monkeypatch.setattr(Layouts, "begin", watched)
    receipts: list[Receipt] = []

    def partition(*urls: str) -> None:
        receipts.append(crawl_partition(job, of(*urls), lambda: False))

    threads = [threading.Thread(target=partition, args=urls, daemon=True) for urls in ((local, scouted), others)]
    try:
        threads[0].start()
        assert scouting.wait(20)
        threads[1].start()
        assert waiting.wait(20)
        answers.set()
        for thread in threads:
            thread.join(20)
        assert sorted(receipt.statuses["ok"] for receipt in receipts) == [2, 3]
    finally:
        answers.set()
        server.stalled.clear()
        release(job.crawl)


def of(*urls: str) -> pa.Table:
    """Return a listing that tells urls alone."""
    return pa.Table.from_pylist([{"url": url} for url in urls], schema=LISTING_SCHEMA)


@pytest.mark.parametrize("suffix", [".gz", ".BZ2"])
def test_compressed_files_do_not_wait_for_the_first_of_their_product(tmp_path: Path, suffix: str) -> None:
    """It has no layout to wait for, and its walk reads all of it."""
    job = CrawlJob(roots=(), catalogue=str(tmp_path / "catalogue"))
    names = [f"exp{number}.fits{suffix}" for number in range(3)]
    with RangeServer({name: packed(0) for name in names}) as server:
        answers = server.stall(names[0])
        walked: list[Receipt] = []
        urls = of(*map(server.url, names))
        thread = threading.Thread(target=lambda: walked.append(crawl_partition(job, urls, lambda: False)), daemon=True)
        thread.start()
        while len({answer.request.path for answer in [*server.answered]}) < 2:  # of the others, the first being held
            assert thread.is_alive()
            time.sleep(0.01)
        answers.set()
        thread.join(20)
        release(job.crawl)
    assert walked[0].statuses == {"ok": 3}
