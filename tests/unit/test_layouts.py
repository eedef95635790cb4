"""What is learned of products: which files are siblings, and where the headers of the next one are guessed to be."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from crawler.fits import layouts as layouts_module
from crawler.fits.layouts import NOTHING, Guess, Layouts, product_of
from crawler.fits.units import Hdu, Span
from tests.fits_files import BLOCK, bintable_hdu, image_hdu, walk_bytes

MEGABYTE = 10**6


def case(name: str, *values: Any) -> Any:
    return pytest.param(*values, id=name)


class TestProduct:
    @pytest.mark.parametrize(
        ("url", "product"),
        [
            case("hst", "s3://stpubdata/hst/public/j8pu/j8pu0y010/j8pu0y010_drz.fits",
                 "#://stpubdata/hst/public/#/#/#_drz.fits"),
            case("jwst", "s3://stpubdata/jwst/public/jw02736/L3/t/jw02736-o001_t001_nircam_clear-f200w_i2d.fits",
                 "#://stpubdata/jwst/public/#/#/t/#-#_#_nircam_clear-#_#.fits"),
            case("tess", "s3://stpubdata/tess/public/ffi/s0001/2018/206/4-4/tess2018206192942-s0001-4-4-0120-s_ffic.fits",
                 "#://stpubdata/tess/public/ffi/#/#/#/#-#/#-#-#-#-#-s_ffic.fits"),
            case("date", "/data/2024-02-29T23:59:59.123/sci.fits", "/data/#-#-#:#:#.#/sci.fits"),
            case("date of one word", "/data/20240229/sci_20240229T235959.fits", "/data/#/sci_#.fits"),
            case("hexadecimal id", "/data/deadbeef01/0badcafe_raw.fits", "/data/#/#_raw.fits"),
            case("digits alone", "/12/345.fits", "/#/#.fits"),
            case("no digits", "/data/flat.fits", "/data/flat.fits"),
            case("server", "http://127.0.0.1:8080/a1/b.fits", "http://#.#.#.#:#/#/b.fits"),
            case("percent-encoded", "file:///data/night%201/exp%C3%A9.fits", "file:///data/night%#/exp%#%#.fits"),
            case("letters of no alphabet of ours", "/données/été2024/ciel.fits", "/données/#/ciel.fits"),
            case("digits of no alphabet of ours", "/data/exp\u0663_raw.fits", "/data/#_raw.fits"),
            case("empty", "", ""),
            case("one digit", "7", "#"),
            case("line ends and NULs", "a1\nb2\0c.fits", "#\n#\0c.fits"),
        ],
    )  # fmt: skip
    def test_of_an_url(self, url: str, product: str) -> None:
        assert product_of(url) == product

    def test_differs_by_every_word_without_a_digit(self) -> None:
        urls = ["/hst/j1_flt.fits", "/hst/j1_drz.fits", "/hla/j1_flt.fits", "/hst/j1-flt.fits", "/hst/x/j1_flt.fits"]
        assert len({product_of(url) for url in urls}) == len(urls)

    @pytest.mark.parametrize(
        "word",
        [
            case("one letter", "a" * MEGABYTE),
            case("letters, then a digit", "a" * MEGABYTE + "1"),
            case("digits", "1" * MEGABYTE),
            case("words of one letter", "a_" * (MEGABYTE // 2)),
            case("letter and digit in turn", "a1" * (MEGABYTE // 2)),
            case("underscores", "_" * MEGABYTE),
        ],
    )
    def test_of_a_long_key_takes_no_longer_than_its_length(self, word: str) -> None:
        # Milliseconds; were every letter a begin to try, as many steps as the square of a million: hours.
        began = time.process_time()
        product_of(f"s3://bucket/{word}.fits")
        assert time.process_time() - began < 5


def headers(*lengths: int, gap: int = 10 * BLOCK) -> list[Hdu]:
    """Return HDUs with headers of so many blocks, and ``gap`` bytes of data behind each."""
    hdus = []
    at = 0
    for index, blocks in enumerate(lengths):
        data = at + blocks * BLOCK
        hdus.append(Hdu(index, "IMAGE", at, blocks * BLOCK, data, gap, 8, (gap,), 0, 1, b""))
        at = data + gap
    return hdus


def spans(hdus: Sequence[Hdu]) -> tuple[Span, ...]:
    return tuple(Span(hdu.header_offset, hdu.data_offset) for hdu in hdus)


def lengths(hdus: Sequence[Hdu]) -> tuple[int, ...]:
    return tuple(hdu.header_size for hdu in hdus)


A = headers(1, 2, 3)
B = headers(1, 2, 1, 1)  # begins as A does
C = headers(2, 1)  # begins otherwise
SIZE = 10**6
"""Of all files like `A`."""


@pytest.fixture
def layouts() -> Layouts:
    return Layouts()


class TestScouting:
    def test_only_one_file_of_a_product_until_the_first_ended(self, layouts: Layouts) -> None:
        assert layouts.begin("p")
        assert [layouts.begin("p") for _ in range(5)] == [False] * 5
        layouts.end("p")
        assert [layouts.begin("p") for _ in range(5)] == [True] * 5

    def test_files_of_other_products_may(self, layouts: Layouts) -> None:
        assert layouts.begin("p")
        assert layouts.begin("q")
        layouts.end("q")
        assert layouts.begin("q")
        assert not layouts.begin("p")

    def test_the_first_may_find_nothing(self, layouts: Layouts) -> None:
        layouts.begin("p")
        layouts.end("p")  # it was unreadable, say
        assert layouts.begin("p")
        assert layouts.guess("p", SIZE) == NOTHING

    def test_learning_alone_lets_nobody_begin(self, layouts: Layouts) -> None:
        layouts.begin("p")
        layouts.learn("p", SIZE, A)
        assert not layouts.begin("p")
        layouts.end("p")
        assert layouts.begin("p")

    def test_of_a_product_that_was_forgotten_under_way_begins_anew(
        self, layouts: Layouts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(layouts_module, "PRODUCTS", 2)
        assert layouts.begin("p")
        assert layouts.begin("q")
        assert layouts.begin("r")  # and p is forgotten
        assert layouts.begin("p")  # another scout
        layouts.end("p")  # of either
        assert layouts.begin("p")
        layouts.end("q")  # of what is forgotten: nothing to do
        assert layouts.begin("q")


class TestGuess:
    def test_of_what_was_not_seen_is_nothing(self, layouts: Layouts) -> None:
        assert layouts.guess("p", SIZE) is NOTHING
        assert layouts.guess("p", None) is NOTHING
        assert Guess() == NOTHING

    def test_by_size(self, layouts: Layouts) -> None:
        layouts.learn("p", SIZE, A)
        layouts.learn("p", SIZE + 1, C)
        assert layouts.guess("p", SIZE) == Guess(spans(A), lengths(A))
        assert layouts.guess("p", SIZE + 1) == Guess(spans(C), lengths(C))

    def test_of_another_product_is_nothing(self, layouts: Layouts) -> None:
        layouts.learn("p", SIZE, A)
        assert layouts.guess("q", SIZE) == NOTHING

    def test_from_one_of_another_size_is_nothing(self, layouts: Layouts) -> None:
        layouts.learn("p", SIZE, A)
        assert layouts.guess("p", SIZE + BLOCK) == NOTHING
        assert layouts.guess("p", None) == NOTHING

    def test_from_two_of_other_sizes_is_what_they_begin_with(self, layouts: Layouts) -> None:
        layouts.learn("p", SIZE, A)
        layouts.learn("p", SIZE + 1, B)
        shared = spans(A)[:2]
        assert layouts.guess("p", SIZE + 2) == Guess(shared, lengths(A)[:2])
        # Where the size is not known no place is, but a header may still be as long.
        assert layouts.guess("p", None) == Guess((), lengths(A)[:2])
        # No further than the file reaches.
        assert layouts.guess("p", shared[1].stop) == Guess(shared, lengths(A)[:2])
        assert layouts.guess("p", shared[1].stop - 1) == Guess(shared[:1], lengths(A)[:2])

    def test_from_two_that_share_no_begin_is_nothing(self, layouts: Layouts) -> None:
        layouts.learn("p", SIZE, A)
        layouts.learn("p", SIZE + 1, C)
        assert layouts.guess("p", SIZE + 2) == NOTHING

    def test_lengths_are_shared_where_places_are_not(self, layouts: Layouts) -> None:
        longer = headers(1, 2, 3, gap=20 * BLOCK)
        layouts.learn("p", SIZE, A)
        layouts.learn("p", 2 * SIZE, longer)
        assert layouts.guess("p", 3 * SIZE) == Guess(spans(A)[:1], lengths(A))

    def test_is_what_was_learned_last(self, layouts: Layouts) -> None:
        layouts.learn("p", SIZE, A)
        layouts.learn("p", SIZE, B)
        assert layouts.guess("p", SIZE) == Guess(spans(B), lengths(B))

    def test_of_the_first_hdus_where_no_more_are_walked(self, layouts: Layouts) -> None:
        layouts.learn("p", SIZE, A[:1])
        assert layouts.guess("p", SIZE) == Guess(spans(A)[:1], lengths(A)[:1])

    def test_finds_the_headers_of_a_real_sibling(self, layouts: Layouts) -> None:
        data = image_hdu((500, 100)) + bintable_hdu(10, 3000) + image_hdu((7,), xtension="IMAGE")
        layouts.learn("p", len(data), walk_bytes(data).hdus)
        guess = layouts.guess("p", len(data))
        assert [data[start:stop][:8] for start, stop in guess.headers] == [b"SIMPLE  ", b"XTENSION", b"XTENSION"]
        assert guess.lengths == (BLOCK, BLOCK, BLOCK)


class TestCompressed:
    def test_is_all_that_is_known_of_a_compressed_product(self, layouts: Layouts) -> None:
        layouts.learn("p", SIZE, A)
        layouts.learn_compressed("p")
        assert layouts.guess("p", SIZE) == layouts.guess("p", None) == Guess(compressed=True)
        assert layouts.guess("q", SIZE) == NOTHING

    def test_until_one_is_not(self, layouts: Layouts) -> None:
        layouts.learn_compressed("p")
        layouts.learn("p", SIZE, A)
        assert layouts.guess("p", SIZE) == Guess(spans(A), lengths(A))


class TestTrust:
    def test_two_failures_of_an_untried_product_end_it(self, layouts: Layouts) -> None:
        layouts.learn("p", SIZE, A)
        layouts.learn("p", SIZE, B)
        assert layouts.guess("p", SIZE).headers
        layouts.learn("p", SIZE, A)
        # How long headers are is no read that could be wasted: it is said all the same.
        assert layouts.guess("p", SIZE) == Guess((), lengths(A))

    def test_it_comes_back_with_what_would_have_held(self, layouts: Layouts) -> None:
        for hdus in (A, B, A, B, A, B):
            layouts.learn("p", SIZE, hdus)
        assert layouts.guess("p", SIZE).headers == ()
        layouts.learn("p", SIZE, B)
        assert layouts.guess("p", SIZE) == Guess(spans(B), lengths(B))

    def test_no_past_is_so_good_that_failures_do_not_count(self, layouts: Layouts) -> None:
        for _ in range(1000):
            layouts.learn("p", SIZE, A)
        failures = 0
        while layouts.guess("p", SIZE).headers:
            layouts.learn("p", SIZE, A if failures % 2 else B)
            failures += 1
            assert failures < 100
        assert failures == 6

    def test_a_failure_now_and_then_is_no_end(self, layouts: Layouts) -> None:
        for number in range(100):
            layouts.learn("p", SIZE, B if number % 5 == 4 else A)
            assert layouts.guess("p", SIZE).headers

    def test_files_of_sizes_never_seen_are_no_failures(self, layouts: Layouts) -> None:
        for number in range(7):
            layouts.learn("p", SIZE + number, A)
        assert layouts.guess("p", 2 * SIZE) == Guess(spans(A), lengths(A))

    def test_of_one_product_is_not_that_of_another(self, layouts: Layouts) -> None:
        for hdus in (A, B, A):
            layouts.learn("p", SIZE, hdus)
            layouts.learn("q", SIZE, A)
        assert not layouts.guess("p", SIZE).headers
        assert layouts.guess("q", SIZE) == Guess(spans(A), lengths(A))


class TestMemory:
    def test_products_that_were_not_asked_for_longest_are_forgotten(
        self, layouts: Layouts, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(layouts_module, "PRODUCTS", 10)
        for number in range(10):
            layouts.learn(f"p{number}", SIZE, A)
        layouts.begin("p0")  # asked for
        for number in range(10, 15):
            layouts.begin(f"p{number}")
        known = {number for number in range(15) if layouts.guess(f"p{number}", SIZE).headers}
        assert known == {0, 6, 7, 8, 9}
        assert len(layouts._products) == 10

    def test_all_products_of_a_hostile_bucket_are_bounded(self, layouts: Layouts) -> None:
        for number in range(10_000):
            product = f"p{number}"
            assert layouts.begin(product)
            layouts.learn(product, SIZE, A)
            layouts.end(product)
        assert len(layouts._products) == 4096
        assert layouts._spans == 3 * 4096

    def test_sizes_of_a_product_are_bounded(self, layouts: Layouts) -> None:
        for number in range(100):
            layouts.learn("p", SIZE + number, headers(1 + number))
        known = [number for number in range(100) if layouts.guess("p", SIZE + number).lengths]
        assert known == list(range(92, 100))

    def test_a_size_that_comes_again_is_kept(self, layouts: Layouts) -> None:
        for number in range(20):
            layouts.learn("p", SIZE, A)
            layouts.learn("p", SIZE + 1 + number, headers(1 + number))
            layouts.learn("p", 2 * SIZE + number, headers(1 + number))
        # Six others came since, and eight before: of all that, the last eight are there.
        for number in range(3):
            layouts.learn("p", 3 * SIZE + number, headers(1 + number))
        assert layouts.guess("p", SIZE) == Guess(spans(A), lengths(A))

    def test_headers_of_a_file_are_bounded(self, layouts: Layouts) -> None:
        many = headers(*[1] * 5000)
        layouts.learn("p", SIZE, many)
        layouts.learn("p", SIZE, many)  # is what was guessed of it
        assert layouts.guess("p", SIZE) == Guess(spans(many)[:1000], lengths(many)[:1000])

    def test_headers_of_all_products_are_bounded(self, layouts: Layouts, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(layouts_module, "_SPANS", 50)
        for number in range(100):
            layouts.learn(f"p{number % 30}", SIZE + number // 30, headers(*[1] * (1 + number % 20)))
            assert layouts._spans <= 50
        assert layouts._spans == remembered(layouts) > 0

    def test_the_only_product_may_have_more(self, layouts: Layouts, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(layouts_module, "_SPANS", 2)
        layouts.learn("p", SIZE, A)
        assert layouts.guess("p", SIZE) == Guess(spans(A), lengths(A))
        layouts.learn("q", SIZE, B)
        assert layouts.guess("p", SIZE) == NOTHING
        assert layouts._spans == remembered(layouts) == len(B)


def remembered(layouts: Layouts) -> int:
    """Return the headers that are held, counted one by one."""
    return sum(len(held) for product in layouts._products.values() for held in product._layouts.values())


@pytest.fixture
def _threads_change_all_the_time() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def hammered(work: list[Iterator[None]]) -> list[BaseException]:
    """Run iterators to their ends, each on a thread and all at the same time; return what they raised."""
    together = threading.Barrier(len(work))
    raised: list[BaseException] = []

    def run(steps: Iterator[None]) -> None:
        try:
            together.wait(60)
            for _ in steps:
                pass
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=run, args=(steps,), daemon=True) for steps in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "the threads wait for one another"
    return raised


@pytest.mark.usefixtures("_threads_change_all_the_time")
def test_many_threads_hold_together(layouts: Layouts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds small, so that products are forgotten while others learn of them: counts stay right, guesses real."""
    for name, value in {"PRODUCTS": 5, "SIZES": 2, "_SPANS": 20}.items():
        monkeypatch.setattr(layouts_module, name, value)
    kinds = {SIZE: A, SIZE + 1: B, SIZE + 2: C}
    real = {spans(hdus)[:count] for hdus in kinds.values() for count in range(5)}

    def steps(seed: int) -> Iterator[None]:
        choices = random.Random(seed)
        for _ in range(1500):
            product, size = f"p{choices.randrange(12)}", choices.choice(list(kinds))
            layouts.begin(product)
            guess = layouts.guess(product, size)
            assert guess.headers in real
            if choices.random() < 0.1:
                layouts.learn_compressed(product)
            else:
                layouts.learn(product, size, kinds[size])
            layouts.end(product)
            yield

    assert hammered([steps(seed) for seed in range(8)]) == []
    assert len(layouts._products) <= 5
    assert layouts._spans == remembered(layouts) <= 20


@pytest.mark.usefixtures("_threads_change_all_the_time")
def test_of_many_threads_one_scouts(layouts: Layouts) -> None:
    """However many ask at the same moment, one of them is told to begin."""
    scouts: list[str] = []

    def steps() -> Iterator[None]:
        for number in range(300):
            if layouts.begin(f"p{number}"):
                scouts.append(f"p{number}")
            yield

    assert hammered([steps() for _ in range(8)]) == []
    assert sorted(scouts) == sorted(f"p{number}" for number in range(300))
