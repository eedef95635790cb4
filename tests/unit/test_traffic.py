"""How requests are made again, held back and given up; with a clock that stands still unless somebody waits."""

from __future__ import annotations

import pickle
import random
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from crawler.errors import AccessDeniedError, StoreDownError, StoreUnavailableError
from crawler.fits.layouts import NOTHING, Guess
from crawler.fits.policy import ReadPolicy
from crawler.fits.units import Span
from crawler.job.scope import Scope
from crawler.stores.base import ByteRange, Fetched, ObjectRef
from crawler.stores.retry import Patience, Patient, Traffic
from crawler.worker.walk import walk_file
from crawler.worker.walk_pool import Walk, WalkPool
from tests.fits_files import BLOCK, BytesStore, bintable_hdu, image_hdu

URL = "s3://bucket/key"


class Clock:
    """Time goes by only where somebody waits; then something may happen."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.waits: list[float] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        self.meanwhile()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def traffic(clock: Clock, *, slots: int = 8, rate: float | None = None, patience: Patience = Patience()) -> Traffic:
    return Traffic(slots, rate, patience, clock=clock, wait=clock.wait, draw=lambda: 1.0)


def failing(times: int, kind: str = "slow-down", retry_after: float | None = None) -> Callable[[], str]:
    """Return a request that fails so many times, and then succeeds."""
    left = times

    def request() -> str:
        nonlocal left
        left -= 1
        if left >= 0:
            raise StoreUnavailableError(URL, "HTTP 503", kind, retry_after)
        return "answer"

    return request


def always(kind: str = "slow-down") -> Callable[[], str]:
    return failing(10**9, kind)


def down_until(clock: Clock, moment: float, kind: str) -> Callable[[], str]:
    """Return a request that fails until a moment."""

    def request() -> str:
        if clock() < moment:
            raise StoreUnavailableError(URL, "HTTP 503", kind)
        return "answer"

    return request


def down_after(clock: Clock, moment: float, kind: str) -> Callable[[], str]:
    """Return a request that fails from a moment on."""

    def request() -> str:
        if clock() >= moment:
            raise StoreUnavailableError(URL, "HTTP 503", kind)
        return "answer"

    return request


class TestTryingAgain:
    def test_waits_longer_each_time_up_to_a_limit(self, clock: Clock) -> None:
        made = traffic(clock)
        made.ask(failing(0))

        assert made.ask(failing(7)) == "answer"
        assert clock.waits == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]

    def test_draws_each_wait_between_nothing_and_all_of_it(self, clock: Clock) -> None:
        draws = iter([0.0, 0.5, 1.0])
        made = Traffic(8, clock=clock, wait=clock.wait, draw=lambda: next(draws))
        made.ask(failing(0))

        made.ask(failing(3))

        assert clock.waits == [0.0, 0.2, 0.8]

    def test_is_counted_by_kind_and_told_once(self, clock: Clock) -> None:
        made = traffic(clock)
        for times, kind in ((2, "slow-down"), (1, "reset"), (3, "short-body")):
            made.ask(failing(times, kind))

        assert made.taken() == Counter({"slow-down": 2, "reset": 1, "short-body": 3})
        assert made.taken() == Counter()

    def test_does_not_help_against_what_the_object_is(self, clock: Clock) -> None:
        def denied() -> None:
            raise AccessDeniedError(URL, "access denied")

        with pytest.raises(AccessDeniedError):
            traffic(clock).ask(denied)
        assert clock.waits == []

    @pytest.mark.parametrize(("kind", "seconds"), [("server-error", 60), ("reset", 60), ("slow-down", 120)])
    def test_ends_for_one_object_while_others_are_read(self, clock: Clock, kind: str, seconds: float) -> None:
        made = traffic(clock)
        clock.meanwhile = lambda: made.ask(failing(0))

        with pytest.raises(StoreUnavailableError) as caught:
            made.ask(always(kind))
        assert seconds <= clock.now - 1000 <= seconds + 5
        assert pickle.loads(pickle.dumps(caught.value)).kind == kind

    @pytest.mark.parametrize(
        ("kind", "seconds"), [("refused", 3), ("no-host", 3), ("tls", 3), ("time-out", 15), ("reset", 15)]
    )
    def test_ends_soon_where_the_store_never_answered(self, clock: Clock, kind: str, seconds: float) -> None:
        with pytest.raises(StoreUnavailableError):
            traffic(clock).ask(always(kind))
        assert seconds <= clock.now - 1000 <= seconds + 5

    @pytest.mark.parametrize("kind", ["slow-down", "server-error"])
    def test_does_not_end_soon_where_the_store_answered_with_an_error(self, clock: Clock, kind: str) -> None:
        """A worker that begins while a store is overrun has never seen it well, and waits as all others do."""
        made = traffic(clock)

        assert made.ask(down_until(clock, clock() + 40, kind)) == "answer"

    def test_waits_for_as_long_as_the_store_asks(self, clock: Clock) -> None:
        made = Traffic(8, clock=clock, wait=clock.wait, draw=lambda: 0.5)
        made.ask(failing(0))

        made.ask(failing(1, retry_after=7.0))
        made.ask(failing(1, retry_after=3600.0))

        assert clock.waits == [7.1, 30.1]

    def test_does_not_lose_its_time_to_the_rate(self, clock: Clock) -> None:
        made = traffic(clock, rate=0.01)
        made.ask(failing(0))

        assert made.ask(failing(3, "reset")) == "answer"
        assert clock.now - 1000 >= 400

    def test_is_done_once_at_least(self, clock: Clock) -> None:
        """Though the first try timed out only when all its time was over."""
        made = traffic(clock)
        made.ask(failing(0))
        tries = 0

        def late() -> str:
            nonlocal tries
            tries += 1
            if tries == 1:
                clock.now += 100
                raise StoreUnavailableError(URL, "timed out", "time-out")
            return "answer"

        assert made.ask(late) == "answer"

    def test_ends_at_once_where_something_else_goes_wrong(self, clock: Clock) -> None:
        made = traffic(clock, slots=1)

        def wrong() -> None:
            raise KeyError(URL)

        with pytest.raises(KeyError):
            made.ask(wrong)
        assert made.ask(failing(0)) == "answer"  # the only place is free again


class TestAStoreThatIsDown:
    def down(self, clock: Clock, made: Traffic) -> StoreDownError:
        """Have four requests fail at the same time, each begun while the one before waits."""
        made.ask(failing(0))
        begun = 1

        def another() -> None:
            nonlocal begun
            if begun < 4:
                begun += 1
                made.ask(always())

        clock.meanwhile = another
        with pytest.raises(StoreDownError) as caught:
            made.ask(always())
        return caught.value

    def test_is_told_after_two_minutes(self, clock: Clock) -> None:
        error = self.down(clock, traffic(clock))

        assert 120 <= clock.now - 1000 <= 126
        assert URL in str(error)
        assert str(pickle.loads(pickle.dumps(error))) == str(error)

    def test_is_told_where_it_is_asked_one_thing_at_a_time(self, clock: Clock) -> None:
        """As where one file of a product is walked first: a few rows, and no more."""
        made = traffic(clock)
        made.ask(failing(0))
        for _ in range(3):
            with pytest.raises(StoreUnavailableError):
                made.ask(always("refused"))

        with pytest.raises(StoreDownError, match=r"for 18\d s now"):
            made.ask(always("refused"))

    def test_is_told_though_it_never_answered(self, clock: Clock) -> None:
        made = traffic(clock)
        for _ in range(40):
            with pytest.raises(StoreUnavailableError):
                made.ask(always("refused"))

        with pytest.raises(StoreDownError):
            made.ask(always("refused"))
        assert 120 <= clock.now - 1000 <= 126

    def test_is_well_again_after_one_success(self, clock: Clock) -> None:
        made = traffic(clock)
        made.ask(failing(0))
        for _ in range(3):
            with pytest.raises(StoreUnavailableError):
                made.ask(always("reset"))
        made.ask(failing(0))

        with pytest.raises(StoreUnavailableError):
            made.ask(always("reset"))

    def test_is_told_to_those_that_wait_for_a_place(self) -> None:
        """With a place for one: it finds out, and the others, which never got to ask, are told."""
        made = traffic(Clock(), slots=1)
        asked, others = threading.Event(), threading.Event()

        def slow() -> str:
            asked.set()
            assert others.wait(20)
            raise StoreUnavailableError(URL, "HTTP 503", "slow-down")

        def wait_in_line() -> str:
            return made.ask(failing(0))

        with ThreadPoolExecutor(4) as pool:
            made.ask(failing(0))
            for _ in range(3):  # not the first to fail
                with pytest.raises(StoreUnavailableError):
                    made.ask(always("reset"))
            first = pool.submit(made.ask, slow)
            assert asked.wait(20)
            waiting = [pool.submit(wait_in_line) for _ in range(3)]
            deadline = time.monotonic() + 20
            while made._waiting < 3 and time.monotonic() < deadline:
                time.sleep(0)
            others.set()
            errors = [future.exception(20) for future in [first, *waiting]]
        assert [type(error) for error in errors] == [StoreDownError] * 4
        assert len(set(map(id, errors))) == 4, "each thread has an error of its own"

    def test_is_told_to_those_that_wait_for_the_rate(self, clock: Clock) -> None:
        made = traffic(clock, rate=0.01)
        made.ask(failing(0))

        def meanwhile() -> None:
            made._down = URL, "HTTP 503, for 120 s now"

        clock.meanwhile = meanwhile
        with pytest.raises(StoreDownError):
            made.ask(failing(0))
        assert clock.waits == [1.0]

    def test_is_asked_no_more(self, clock: Clock) -> None:
        made = traffic(clock)
        self.down(clock, made)
        clock.meanwhile = lambda: None

        with pytest.raises(StoreDownError):
            made.ask(failing(0))

    def test_is_not_taken_for_down_where_what_was_read_still_can_be(self, clock: Clock) -> None:
        """As at the end of a crawl, where only files are left that fail for ever."""
        made = traffic(clock)
        reads = 0

        def good() -> None:
            nonlocal reads
            reads += 1

        made.ask(good, is_read=True)
        for _ in range(10):
            with pytest.raises(StoreUnavailableError):
                made.ask(always("reset"))
        assert 2 < reads <= (clock.now - 1000) / 15

    def test_is_down_where_what_was_read_cannot_be_any_more(self, clock: Clock) -> None:
        made = traffic(clock)
        made.ask(down_after(clock, 1001, "reset"), is_read=True)
        for _ in range(3):
            with pytest.raises(StoreUnavailableError):
                made.ask(always("reset"))
        with pytest.raises(StoreDownError, match=r"for 18\d s now"):
            made.ask(always("reset"))

    def test_is_not_taken_for_down_because_of_one_object(self, clock: Clock) -> None:
        made = traffic(clock)
        made.ask(failing(0))

        with pytest.raises(StoreUnavailableError):
            made.ask(always())


class TestClosed:
    def test_requests_fail_and_are_not_made_again(self, clock: Clock) -> None:
        made = traffic(clock)
        calls = []

        def request() -> None:
            calls.append(1)
            made.close()
            raise StoreUnavailableError("s3://b/k", "timed out", "time-out")

        for _ in range(2):
            with pytest.raises(StoreDownError):
                made.ask(request)
        assert len(calls) == 1

    def test_requests_that_wait_for_room_are_told(self) -> None:
        made = Traffic(1)
        busy, gate = threading.Event(), threading.Event()

        def slow() -> None:
            busy.set()
            assert gate.wait(20)

        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(made.ask, slow)
            assert busy.wait(20)
            second = pool.submit(made.ask, lambda: None)
            made.close()
            with pytest.raises(StoreDownError):
                second.result(20)
            gate.set()
            first.result(20)


class TestRequestsUnderWay:
    def overrun(self, made: Traffic) -> None:
        """Have a store refuse twenty requests in a row."""
        made.ask(failing(20))

    def test_are_halved_once_a_second_and_climb_back_slowly(self) -> None:
        clock = Clock()
        made = Traffic(16, clock=clock, wait=lambda _: None)
        made.ask(failing(0))
        assert made.limit == 16

        self.overrun(made)
        assert made.limit == 8
        clock.now += 0.9
        self.overrun(made)
        assert made.limit == 8
        clock.now += 0.2
        self.overrun(made)
        assert made.limit == 4

        climbed = []
        for _ in range(2000):
            clock.now += 0.01
            made.ask(failing(0))
            climbed.append(made.limit)
        assert climbed == sorted(climbed)
        seconds = [climbed.index(limit) / 100 for limit in (5, 8, 12)]
        assert seconds == pytest.approx([1.25, 5, 10], abs=0.4), "20 from nothing to all"
        assert climbed[-1] == 16

    @pytest.mark.parametrize(("share", "limits"), [(0.05, {32}), (0.3, {1, 2, 3, 4})], ids=["some", "many"])
    def test_are_fewer_where_many_are_refused_not_where_some_are(self, share: float, limits: set[int]) -> None:
        """A twentieth of them at random, as a network of its own accord: a crawl must not come to rest for it."""
        clock, draw = Clock(), random.Random(1)
        made = Traffic(32, clock=clock, wait=lambda _: None)
        made.ask(failing(0))
        for _ in range(6000):
            clock.now += 0.001
            made.ask(failing(draw.random() < share))

        assert made.limit in limits

    def test_climb_by_one_a_round_at_most(self) -> None:
        clock = Clock()
        made = Traffic(16, clock=clock, wait=lambda _: None)
        made.ask(failing(0))
        self.overrun(made)
        for _ in range(8):
            clock.now += 1000
            made.ask(failing(0))

        assert made.limit == 8, "a bit less than one: each is an eighth"

    def test_are_cut_once_where_none_succeeds(self, clock: Clock) -> None:
        """That all are refused says nothing of how many are too many: once the store is well it is soon asked again."""

        def refused() -> str:
            clock.now += 0.01
            return down()

        down = down_until(clock, clock() + 20, "slow-down")
        made = Traffic(16, clock=clock, wait=lambda _: None)
        made.ask(failing(0))
        made.ask(refused)

        assert made.taken()["slow-down"] > 1000
        assert made.limit == 8

    def test_are_no_more_than_the_limit(self) -> None:
        made = Traffic(8, wait=lambda _: None)
        made.ask(failing(0))
        self.overrun(made)
        assert made.limit == 4
        lock, under_way, most = threading.Lock(), 0, 0

        def request() -> None:
            nonlocal under_way, most
            with lock:
                under_way += 1
                most = max(most, under_way)
            time.sleep(0)  # lets others come
            with lock:
                under_way -= 1

        with ThreadPoolExecutor(16) as pool:
            for future in [pool.submit(made.ask, request) for _ in range(2000)]:
                future.result(20)
        assert 2 <= most <= 5  # it climbs, slowly
        assert made._places.taken == made._waiting == 0

    def test_are_never_none(self) -> None:
        clock = Clock()
        made = Traffic(2, clock=clock, wait=lambda _: None)
        for _ in range(5):
            clock.now += 2
            made.ask(failing(20))

        assert made.limit == 1

    def test_stay_as_many_where_a_network_breaks(self, clock: Clock) -> None:
        made = traffic(clock)
        made.ask(failing(3, "reset"))

        assert made.limit == 8


class TestRate:
    def test_holds_over_seconds(self, clock: Clock) -> None:
        made = traffic(clock, rate=10.0)
        for _ in range(101):
            made.ask(failing(0))

        assert clock.now - 1000 == pytest.approx(10.0)

    def test_counts_requests_that_are_made_again(self, clock: Clock) -> None:
        made = traffic(clock, rate=0.1)
        made.ask(failing(0))
        made.ask(failing(2))

        assert clock.now - 1000 == pytest.approx(30.0)

    def test_saves_nothing_up(self, clock: Clock) -> None:
        made = traffic(clock, rate=10.0)
        made.ask(failing(0))
        clock.now += 100
        before = clock.now
        for _ in range(11):
            made.ask(failing(0))

        assert clock.now - before == pytest.approx(1.0)

    def test_may_change_for_those_that_wait(self, clock: Clock) -> None:
        made = traffic(clock, rate=0.001)
        made.ask(failing(0))

        def faster() -> None:
            made.rate = 10.0

        clock.meanwhile = faster
        begun = clock()
        for _ in range(11):
            made.ask(failing(0))

        assert clock() - begun == pytest.approx(2.0), "one look, and then ten at the new rate"

    def test_gives_no_new_turns_where_it_is_set_to_what_it_is(self, clock: Clock) -> None:
        made = traffic(clock, rate=1.0)
        begun = clock()
        for _ in range(11):
            made.rate = 1.0
            made.ask(failing(0))

        assert clock() - begun == pytest.approx(10.0)

    def test_may_change(self, clock: Clock) -> None:
        made = traffic(clock, rate=1.0)
        made.ask(failing(0))
        made.rate = None
        before = clock.now
        for _ in range(100):
            made.ask(failing(0))

        assert clock.now - before <= 1.0


TIGHT = Scope(ReadPolicy(first=BLOCK, header=BLOCK, gap=0))
"""So that each header is a read of its own."""

KINDS = ("slow-down", "server-error", "time-out", "reset", "short-body", "connection")


class Unreliable(BytesStore):
    """A store that fails at random before it answers, and counts it."""

    _lock = threading.Lock()  # of all that share a count

    def __init__(self, content: bytes, draw: random.Random, failures: Counter[str]) -> None:
        super().__init__(content)
        self._draw = draw
        self._failures = failures

    def get(self, ref: ObjectRef, span: ByteRange) -> Fetched:
        with self._lock:
            if self._draw.random() < 0.4:
                kind = self._draw.choice(KINDS)
                self._failures[kind] += 1
                raise StoreUnavailableError(ref.url, "as drawn", kind)
        return super().get(ref, span)


class TestWalks:
    """What a walk finds never depends on what had to be asked for again."""

    @pytest.mark.parametrize("seed", range(5))
    def test_find_the_same(self, seed: int) -> None:
        draw = random.Random(seed)
        files, guesses = {}, {}
        for name in map(str, range(40)):
            units = [bintable_hdu(8, draw.randrange(9), heap=draw.randrange(90_000)) for _ in range(draw.randrange(6))]
            data = image_hdu((draw.randrange(1, 90_000),)) + b"".join(units)
            files[name] = data[: draw.choice([len(data), len(data), draw.randrange(len(data))])]
            found = walk_file(BytesStore(data), ObjectRef(name)).hdus
            right = tuple(Span(hdu.header_offset, hdu.data_offset) for hdu in found)
            wrong = tuple(Span(span.start + 2880, span.stop + 2880) for span in right)
            lengths = tuple(hdu.header_size for hdu in found)
            guesses[name] = draw.choice([NOTHING, Guess(right, lengths), Guess(right[:1] + wrong[1:], lengths)])
        clean = {name: BytesStore(data) for name, data in files.items()}
        expected = [walk_file(store, store.ref(name), TIGHT, guesses[name]) for name, store in clean.items()]

        failures: Counter[str] = Counter()
        made = Traffic(8, draw=draw.random, wait=lambda _: None)
        pool = WalkPool(8)
        refs = [store.ref(name) for name, store in clean.items()]

        def begin(ref: ObjectRef) -> Walk:
            patient = Patient(Unreliable(files[ref.url], random.Random(f"{seed} {ref.url}"), failures), made)
            return lambda read: walk_file(patient, ref, TIGHT, guesses[ref.url], read=read)

        walked = list(pool.walk(refs, begin, lambda: False))
        pool.close()

        assert walked == expected, "to the last byte and request"
        assert {result.status for result in walked} == {"ok", "truncated"}
        assert made.taken() == failures
        assert set(failures) == set(KINDS)
