"""Many walks at once: how many requests are under way, in which order results come, and that nobody waits for ever.

Nothing here is timed: stores wait at barriers and gates, and whatever a test does, it does on a thread that must end.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Generic, TypeVar

import pyarrow as pa
import pytest

from crawler import flight as flight_module
from crawler.errors import StoreDownError, StoreError, StoreUnavailableError
from crawler.fits.units import Hdu
from crawler.flight import Flight, Steps
from crawler.stores.base import ByteRange, Fetched, ObjectRef
from crawler.walk import Answers, FileResult, Reads, walk_steps
from tests.fits_files import BytesStore, bintable_hdu, image_hdu, places, walk_bytes

GUARD = 20
"""Seconds after which whoever still waits does so for ever."""

Result = TypeVar("Result")


def ended(work: Callable[[], Result]) -> Result:
    """Return what ``work`` does, or fail where it does not end."""
    return Doing(work).result()


class Doing(Generic[Result]):
    """Something done on a thread of its own."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._outcome: list[Result] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome.append(self._work())
        except BaseException as error:
            self._error = error

    def result(self) -> Result:
        """Return what came of it, or raise what it raised."""
        self._thread.join(GUARD)
        assert not self._thread.is_alive(), "it waits for ever"
        if self._error is not None:
            raise self._error
        return self._outcome[0]


def opened(gate: threading.Event) -> None:
    """Wait for an event, which must come."""
    if not gate.wait(GUARD):
        raise TimeoutError("what this waits for did not come")


class Store:
    """A store that answers with the name of what was asked for, and can hold answers back.

    Attributes
    ----------
    asked : list of (str, int)
        Url and first byte of each read that began, in order.
    under_way, most : int
        Reads that have begun and not ended, now and at most.
    before : callable
        Called by each read, with what is asked for, before it answers.
    """

    def __init__(self, before: Callable[[str, int], object] = lambda _url, _start: None) -> None:
        self.asked: list[tuple[str, int]] = []
        self.under_way = 0
        self.most = 0
        self.before = before
        self._lock = threading.Lock()

    def get(self, ref: ObjectRef, span: ByteRange) -> Fetched:
        with self._lock:
            self.asked.append((ref.url, span.start))
            self.under_way += 1
            self.most = max(self.most, self.under_way)
        try:
            self.before(ref.url, span.start)
            return Fetched(f"{ref.url}:{span.start}".encode(), ref)
        finally:
            with self._lock:
                self.under_way -= 1

    def head(self, url: str) -> ObjectRef:
        raise NotImplementedError(url)

    def list(self, url: str) -> Iterator[pa.RecordBatch]:
        raise NotImplementedError(url)


def steps_of(ref: ObjectRef, *ranges: int, header: bytes = b"") -> Steps:
    """Walk a made-up file that wants so many ranges, then so many, ...: all answers must be those of the ranges."""
    at = 0
    for count in ranges:
        reads = Reads(ref, tuple(ByteRange(at + index, at + index + 1) for index in range(count)))
        answers: Answers = yield reads
        assert [data_of(answer).decode() for answer in answers] == [f"{ref.url}:{at + index}" for index in range(count)]
        at += count
    hdus = [Hdu(0, "primary", 0, 0, 0, 0, 8, (), 0, 1, header)] if header else []
    return FileResult(ref, hdus=hdus, requests=at)


def data_of(answer: Fetched | StoreError) -> bytes:
    if isinstance(answer, StoreError):
        raise answer
    return answer.data


def refs_of(names: Iterable[object]) -> list[ObjectRef]:
    return [ObjectRef(str(name)) for name in names]


def urls_of(results: Iterable[FileResult]) -> list[str]:
    return [result.ref.url for result in results]


def never() -> bool:
    return False


class Resting(threading.Condition):
    """What threads wait for that find nothing to do; tells when one begins to."""

    def __init__(self, lock: Any) -> None:
        super().__init__(lock)
        self.begun = threading.Condition(lock)

    def wait(self, timeout: float | None = None) -> bool:
        self.begun.notify_all()
        return super().wait(timeout)


class WatchedFlight(Flight):
    """A flight of which one can see that its threads have nothing to do."""

    def __init__(self, slots: int) -> None:
        super().__init__(slots)
        self._work: Resting = Resting(self._lock)

    def idle(self, but: int = 0) -> None:
        """Wait until all threads wait for work, ``but`` so many that read."""
        with self._lock:
            rest = lambda: len(self._threads) > but and self._idle == len(self._threads) - but  # noqa: E731
            assert self._work.begun.wait_for(rest, GUARD), "the threads find no rest"


@contextmanager
def flight_of(slots: int) -> Iterator[WatchedFlight]:
    """Give a flight, and see that its threads end with it."""
    flight = WatchedFlight(slots)
    yield flight
    threads = [*flight._threads]
    flight.close()
    for thread in threads:
        thread.join(GUARD)
        assert not thread.is_alive(), "a thread stays"


def walked(flight: Flight, store: Store, names: Iterable[object], *ranges: int) -> list[str]:
    """Walk files that each want the same ranges; return the urls of the results."""
    return urls_of(flight.walk(refs_of(names), lambda ref: (store, steps_of(ref, *ranges)), never))


class TestSlots:
    @pytest.mark.parametrize("slots", [1, 2, 7])
    @pytest.mark.parametrize("ranges", [(1,), (1, 1), (5,), (2, 3, 1)], ids=str)
    def test_are_all_taken_and_never_more(self, slots: int, ranges: tuple[int, ...]) -> None:
        together = threading.Barrier(slots)
        enough = 8 * slots
        left = threading.Semaphore(enough)  # reads that wait for others; a last handful would wait in vain

        def wait(_url: str, _start: int) -> None:
            if left.acquire(blocking=False):
                together.wait(GUARD)

        store = Store(wait)
        files = 10 * slots
        with flight_of(slots) as flight:
            assert ended(lambda: walked(flight, store, range(files), *ranges)) == list(map(str, range(files)))
            assert len(flight._threads) == slots
        # That the barrier was passed shows that all are taken, time after time.
        assert store.most == slots
        assert len(store.asked) == files * sum(ranges)

    def test_ranges_of_one_walk_are_read_at_once(self) -> None:
        together = threading.Barrier(6)
        store = Store(lambda _url, _start: together.wait(GUARD))
        with flight_of(6) as flight:
            assert ended(lambda: walked(flight, store, ["a"], 6, 6)) == ["a"]
        assert sorted(store.asked) == [("a", start) for start in range(12)]

    def test_more_ranges_than_slots_come_all_the_same(self) -> None:
        store = Store()
        with flight_of(2) as flight:
            assert ended(lambda: walked(flight, store, ["a", "b"], 50, 1, 50)) == ["a", "b"]
        assert store.most <= 2
        assert Counter(store.asked) == {(name, start): 1 for name in "ab" for start in range(101)}

    def test_no_more_walks_are_open_than_slots(self) -> None:
        opens, most = set[str](), [0]
        lock = threading.Lock()

        def counted(ref: ObjectRef) -> Steps:
            with lock:
                opens.add(ref.url)
                most[0] = max(most[0], len(opens))
            try:
                return (yield from steps_of(ref, 4, 1, 4))
            finally:
                with lock:
                    opens.discard(ref.url)

        store = Store()
        with flight_of(3) as flight:
            ended(lambda: list(flight.walk(refs_of(range(100)), lambda ref: (store, counted(ref)), never)))
        assert 1 <= most[0] <= 3

    def test_what_an_open_walk_wants_comes_before_another_walk(self) -> None:
        store = Store()
        with flight_of(1) as flight:
            ended(lambda: walked(flight, store, ["a", "b"], 3, 2))
        assert [url for url, _ in store.asked] == ["a"] * 5 + ["b"] * 5

    def test_no_thread_begins_before_there_is_work(self) -> None:
        with flight_of(32) as flight:
            assert flight._threads == []
            assert ended(lambda: walked(flight, Store(), [], 1)) == []
            assert flight._threads == []
            ended(lambda: walked(flight, Store(), ["a"], 1))
            assert len(flight._threads) == 1

    def test_a_walk_that_reads_nothing_is_one_too(self) -> None:
        store = Store()
        with flight_of(2) as flight:
            assert ended(lambda: walked(flight, store, range(50))) == list(map(str, range(50)))
        assert store.asked == []


class TestResults:
    def test_come_in_the_order_given(self) -> None:
        gate = threading.Event()
        count = [0]
        lock = threading.Lock()

        def wait(url: str, _start: int) -> None:
            if url == "0":  # the first is the last to be done
                opened(gate)
                return
            with lock:
                count[0] += 1
                if count[0] == 99:
                    gate.set()

        with flight_of(4) as flight:
            found = ended(lambda: walked(flight, Store(wait), range(100), 1))
        assert found == list(map(str, range(100)))

    def test_are_yielded_as_soon_as_they_are_next(self) -> None:
        gate = threading.Event()
        store = Store(lambda url, _start: opened(gate) if url == "2" else None)
        with flight_of(2) as flight:
            results = flight.walk(refs_of(range(4)), lambda ref: (store, steps_of(ref, 1)), never)
            assert ended(lambda: urls_of([next(results), next(results)])) == ["0", "1"]
            gate.set()
            assert ended(lambda: urls_of(results)) == ["2", "3"]

    def test_are_those_of_the_walks(self) -> None:
        files = {
            "ok": image_hdu((500_000,)) + bintable_hdu(8, 9),
            "short": (image_hdu((500_000,)) + bintable_hdu(8, 9))[:-1],
            "no": b"<html>",
        }
        stores = {name: BytesStore(data) for name, data in files.items()}

        def begin(ref: ObjectRef) -> tuple[Any, Steps]:
            store = stores[ref.url]
            return store, walk_steps(store, store.ref(ref.url))

        with flight_of(3) as flight:
            found = ended(lambda: list(flight.walk(refs_of(files), begin, never)))
        assert [result.status for result in found] == ["ok", "truncated", "not-fits"]
        for result, data in zip(found, files.values(), strict=True):
            assert places(result.hdus) == walk_bytes(data).places
            assert result.requests == len(stores[result.ref.url].asked)


class TestStop:
    @pytest.mark.parametrize("slots", [1, 4])
    @pytest.mark.parametrize("begun", [0, 1, 10])
    def test_begins_no_walk_more_and_yields_those_that_were(self, slots: int, begun: int) -> None:
        begins: list[str] = []

        def begin(ref: ObjectRef) -> tuple[Any, Steps]:
            begins.append(ref.url)
            return store, steps_of(ref, 2)

        store = Store()
        with flight_of(slots) as flight:
            found = ended(lambda: urls_of(flight.walk(refs_of(range(50)), begin, lambda: len(begins) >= begun)))
        assert found == begins == list(map(str, range(begun)))

    def test_waits_for_those_that_read(self) -> None:
        gate, reading, stop = threading.Event(), threading.Barrier(3), threading.Event()

        def wait(_url: str, _start: int) -> None:
            reading.wait(GUARD)
            opened(gate)

        store = Store(wait)
        with flight_of(2) as flight:
            results = flight.walk(refs_of(range(9)), lambda ref: (store, steps_of(ref, 1)), stop.is_set)
            found = Doing(lambda: urls_of(results))
            reading.wait(GUARD)
            stop.set()
            gate.set()
            assert found.result() == ["0", "1"]

    def test_with_gaps_yields_the_others_in_order(self) -> None:
        """Files that were held back never begin; results of files behind them are there, and come."""
        begins: list[str] = []
        gate = threading.Event()

        def begin(ref: ObjectRef) -> tuple[Any, Steps] | None:
            if int(ref.url) % 3 != 1 or int(ref.url) < 2:  # 0, 1, 2, 3, 5, 6, 8, ...
                begins.append(ref.url)
                return store, steps_of(ref, 1)
            return None

        def stop() -> bool:
            return len(begins) == 12

        def wait(url: str, _start: int) -> None:
            if url == "2":  # it ends last of all
                opened(gate)
            elif len(begins) == 12 and url == begins[-1]:
                gate.set()

        store = Store(wait)
        with flight_of(3) as flight:
            found = ended(lambda: urls_of(flight.walk(refs_of(range(30)), begin, stop)))
        assert found == begins == ["0", "1", "2", "3", "5", "6", "8", "9", "11", "12", "14", "15"]

    def test_with_gaps_comes_to_an_end_with_the_last_walk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The caller sees that one still reads, waits again, and that one is not the file that it waits for."""
        begins: list[str] = []
        last, waits_again = threading.Event(), threading.Event()
        is_over = flight_module._Crew.is_over

        def watched(self: Any) -> bool:
            if not self.todo and threading.current_thread().name != "walk":
                waits_again.set()  # under the lock, which it lets go of as it waits
            return is_over(self)

        monkeypatch.setattr(flight_module._Crew, "is_over", watched)

        def begin(ref: ObjectRef) -> tuple[Any, Steps] | None:
            if ref.url == "1":
                return None
            begins.append(ref.url)
            if ref.url == "3":
                last.set()
            return store, steps_of(ref, 1)

        def wait(url: str, _start: int) -> None:
            if url != "0":
                opened(last if url == "2" else waits_again)

        store = Store(wait)
        with flight_of(2) as flight:
            found = ended(lambda: urls_of(flight.walk(refs_of(range(9)), begin, lambda: len(begins) == 3)))
        assert found == ["0", "2", "3"]

    def test_before_the_first(self) -> None:
        with flight_of(2) as flight:
            found = ended(lambda: list(flight.walk(refs_of("abc"), lambda _: pytest.fail("begun"), lambda: True)))
        assert found == []

    def test_of_one_caller_is_not_that_of_another(self) -> None:
        store = Store()
        with flight_of(2) as flight:
            stopped = flight.walk(refs_of("abc"), lambda ref: (store, steps_of(ref, 1)), lambda: True)
            other = Doing(lambda: walked(flight, store, range(20), 1))
            assert ended(lambda: list(stopped)) == []
            assert other.result() == list(map(str, range(20)))


class Unforeseen(Exception):  # noqa: N818 - no error of ours
    """What no walk expects."""


class TestErrors:
    @pytest.mark.parametrize("where", ["begin", "first step", "later step", "read", "read of several"])
    @pytest.mark.parametrize("error", [Unforeseen, KeyboardInterrupt, SystemExit])
    @pytest.mark.parametrize("slots", [1, 3])
    def test_reach_the_caller_after_the_results_before_them(
        self, where: str, error: type[BaseException], slots: int
    ) -> None:
        def failing(ref: ObjectRef) -> Steps:
            if where == "first step":
                raise error
            yield from steps_of(ref, 3 if where == "read of several" else 1)
            raise error

        def begin(ref: ObjectRef) -> tuple[Any, Steps]:
            if ref.url == "5":
                if where == "begin":
                    raise error
                return store, failing(ref)
            return store, steps_of(ref, 1)

        def read(url: str, start: int) -> None:
            if url == "5" and where in ("read", "read of several") and start == (where != "read"):
                raise error

        store = Store(read)
        found: list[str] = []

        def collect(results: Iterator[FileResult]) -> None:
            for result in results:
                found.append(result.ref.url)

        with flight_of(slots) as flight:
            results = flight.walk(refs_of(range(10)), begin, never)
            with pytest.raises(error):
                ended(lambda: collect(results))
            assert found == list("01234")
            assert flight._crews == []
            # And the threads go on for whoever comes.
            assert ended(lambda: walked(flight, Store(), "abc", 2)) == list("abc")

    def test_of_the_store_are_the_walks(self) -> None:
        """A `StoreError` is sent into the walk in the place of the answer, when all it asked for at once has come."""
        sent: list[str] = []

        def steps(ref: ObjectRef) -> Steps:
            answers = yield Reads(ref, tuple(ByteRange(at, at + 1) for at in range(4)))
            sent.extend(str(answer) if isinstance(answer, StoreError) else answer.data.decode() for answer in answers)
            return FileResult(ref, requests=len(store.asked))

        def read(_url: str, start: int) -> None:
            if start in (1, 2):
                raise StoreUnavailableError("u", "timed out")

        store = Store(read)
        with flight_of(4) as flight:
            (result,) = ended(lambda: list(flight.walk(refs_of("a"), lambda ref: (store, steps(ref)), never)))
        assert sent == ["a:0", "timed out: u", "timed out: u", "a:3"]
        assert result.requests == 4

    def test_that_the_store_is_down_ends_the_walks_of_the_caller(self) -> None:
        def read(_url: str, start: int) -> None:
            if start == 2:
                raise StoreDownError("u", "timed out, for 120 s now")

        store = Store(read)
        with flight_of(4) as flight, pytest.raises(StoreDownError, match="timed out"):
            ended(lambda: walked(flight, store, "a", 4))

    def test_a_walk_may_go_on_after_one(self) -> None:
        def steps(ref: ObjectRef) -> Steps:
            try:
                yield from steps_of(ref, 2)
            except StoreUnavailableError:
                result = yield from steps_of(ref, 3)
                return result
            raise AssertionError

        failing = iter([True])

        def read(_url: str, _start: int) -> None:
            if next(failing, False):
                raise StoreUnavailableError("u", "once")

        store = Store(read)
        with flight_of(2) as flight:
            (result,) = ended(lambda: list(flight.walk(refs_of("a"), lambda ref: (store, steps(ref)), never)))
        assert (result.status, result.requests) == ("ok", 3)

    def test_in_begin_of_one_caller_leaves_another_alone(self) -> None:
        def fail(ref: ObjectRef) -> tuple[Any, Steps]:
            raise Unforeseen(ref.url)

        gate = threading.Event()
        store = Store(lambda _url, _start: opened(gate))
        with flight_of(2) as flight:
            other = Doing(lambda: walked(flight, store, ["x"], 1, 5, 1))
            with pytest.raises(Unforeseen, match=r"^a$"):
                ended(lambda: list(flight.walk(refs_of("abc"), fail, never)))
            gate.set()
            assert other.result() == ["x"]


class Product:
    """Files of which one must end before others begin, as `crawler.fits.layouts.Layouts` has it."""

    def __init__(self, store: Store, key: Callable[[str], str], *ranges: int) -> None:
        self._store = store
        self._key = key
        self._ranges = ranges
        self._scouted: dict[str, bool] = {}
        self._lock = threading.Lock()
        self.begun: list[str] = []
        self.scouting = threading.Event()
        self.held_back = threading.Event()

    def begin(self, ref: ObjectRef) -> tuple[Any, Steps] | None:
        """Begin a walk, unless its product's first is under way."""
        with self._lock:
            if self._scouted.setdefault(self._key(ref.url), True) is False:
                self.held_back.set()
                return None
            if len([url for url in self.begun if self._key(url) == self._key(ref.url)]) == 0:
                self._scouted[self._key(ref.url)] = False
                self.scouting.set()
            self.begun.append(ref.url)
        return self._store, self._steps(ref)

    def _steps(self, ref: ObjectRef) -> Generator[Reads, Answers, FileResult]:
        try:
            return (yield from steps_of(ref, *self._ranges, header=b"x" * 100))
        finally:
            with self._lock:
                self._scouted[self._key(ref.url)] = True


class TestHeldBack:
    @pytest.mark.parametrize("slots", [1, 2, 8])
    @pytest.mark.parametrize("products", [1, 3, 100], ids="{} products".format)
    def test_files_begin_when_the_first_ended(self, slots: int, products: int) -> None:
        store = Store()
        product = Product(store, lambda url: str(int(url) % products), 1, 2)
        with flight_of(slots) as flight:
            found = ended(lambda: urls_of(flight.walk(refs_of(range(300)), product.begin, never)))
        assert found == list(map(str, range(300)))
        assert Counter(product.begun) == {str(number): 1 for number in range(300)}

    def test_all_slots_are_taken_once_the_first_ended(self) -> None:
        together = threading.Barrier(4)
        store = Store(lambda url, _start: None if url == "0" else together.wait(GUARD))
        product = Product(store, lambda _: "p", 1)
        with flight_of(4) as flight:
            ended(lambda: list(flight.walk(refs_of(range(1 + 4 * 5)), product.begin, never)))
        assert product.begun[0] == "0"
        assert store.most == 4

    def test_all_slots_are_taken_even_if_one_begins_before_the_first_has_landed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The first says that it is over, a thread that comes along begins another, and only then it lands."""
        monkeypatch.setattr(f"{__name__}.GUARD", 5)
        first, scouted, begun, met = (threading.Event() for _ in range(4))
        together = threading.Barrier(4, met.set)

        def scout(ref: ObjectRef) -> Steps:
            result = yield from steps_of(ref, 1)
            scouted.set()
            opened(begun)
            return result

        def begin(ref: ObjectRef) -> tuple[Any, Steps] | None:
            if ref.url == "first":
                return Store(lambda _url, _start: opened(first)), scout(ref)
            if ref.url == "other":  # whoever reads its first range leaves it to whoever reads the second
                return Store(lambda _url, start: opened(met if start else scouted)), steps_of(ref, 2)
            if not scouted.is_set():
                return None
            begun.set()
            return Store(lambda _url, _start: together.wait(GUARD)), steps_of(ref, 1)

        names = ["first", "other", *"abcdefgh"]
        with flight_of(5) as flight:
            found = Doing(lambda: urls_of(flight.walk(refs_of(names), begin, never)))
            flight.idle(but=3)
            first.set()
            assert found.result() == names

    def test_files_behind_begin_meanwhile(self) -> None:
        others = threading.Semaphore(0)

        def wait(url: str, _start: int) -> None:
            if url == "p0":
                for _ in range(3):
                    assert others.acquire(timeout=GUARD)  # it ends when all of another product have
            elif url.startswith("q"):
                others.release()

        product = Product(Store(wait), lambda url: url[0], 1)
        names = ["p0", "p1", "p2", "q0", "q1", "q2"]
        with flight_of(2) as flight:
            found = ended(lambda: urls_of(flight.walk(refs_of(names), product.begin, never)))
        assert found == names
        assert product.begun[:4] == ["p0", "q0", "q1", "q2"]

    def test_only_so_many_are_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(flight_module, "_LOOK", 3)
        gate, asked = threading.Event(), list[str]()

        def begin(ref: ObjectRef) -> tuple[Any, Steps] | None:
            if ref.url == "0" or gate.is_set():
                return store, steps_of(ref, 1)
            asked.append(ref.url)
            if len(asked) == 3:
                gate.set()
            return None

        store = Store(lambda url, _start: opened(gate) if url == "0" else None)
        with flight_of(2) as flight:
            found = ended(lambda: urls_of(flight.walk(refs_of(range(9)), begin, never)))
        assert found == list(map(str, range(9)))
        assert asked == ["1", "2", "3"]

    @pytest.mark.parametrize("slots", [1, 2, 8])
    @pytest.mark.parametrize(
        ("ahead", "held"), [(1, 2**20), (2, 2**20), (4096, 1), (4096, 250), (2, 150)], ids=lambda bound: f"{bound}"
    )
    @pytest.mark.parametrize("products", [1, 2, 7], ids="{} products".format)
    def test_where_results_wait_for_the_caller(
        self, monkeypatch: pytest.MonkeyPatch, slots: int, ahead: int, held: int, products: int
    ) -> None:
        """However little room there is, and whatever may begin, all files are walked."""
        monkeypatch.setattr(flight_module, "_AHEAD", ahead)
        monkeypatch.setattr(flight_module, "_HELD_BYTES", held)
        product = Product(Store(), lambda url: str(int(url) % products), 2, 1)
        with flight_of(slots) as flight:
            found = ended(lambda: urls_of(flight.walk(refs_of(range(60)), product.begin, never)))
        assert found == list(map(str, range(60)))

    def test_by_a_walk_of_another_caller(self) -> None:
        gate = threading.Event()
        product = Product(Store(lambda url, _start: opened(gate) if url == "p0" else None), lambda url: url[0], 1)
        with flight_of(2) as flight:
            first = Doing(lambda: urls_of(flight.walk(refs_of(["p0"]), product.begin, never)))
            opened(product.scouting)
            second = Doing(lambda: urls_of(flight.walk(refs_of(["p1", "p2", "p3"]), product.begin, never)))
            opened(product.held_back)
            gate.set()
            assert first.result() == ["p0"]
            assert second.result() == ["p1", "p2", "p3"]


class TestRoom:
    """What is done waits for its caller, but not without bounds."""

    @pytest.fixture(params=["results", "bytes"])
    def bound(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
        """Bound the results that may wait, and return how many those are."""
        if request.param == "results":
            monkeypatch.setattr(flight_module, "_AHEAD", 10)
        else:
            monkeypatch.setattr(flight_module, "_HELD_BYTES", 1000)  # ten headers of 100 bytes
        return 10

    def test_no_more_walks_begin_than_there_is_room_for(self, bound: int) -> None:
        """The caller takes one result and no more until all threads found nothing to do."""
        slots = 3
        begun: list[str] = []

        def begin(ref: ObjectRef) -> tuple[Any, Steps]:
            begun.append(ref.url)
            return store, steps_of(ref, 1, header=b"x" * 100)

        store = Store()
        with flight_of(slots) as flight:
            results = flight.walk(refs_of(range(100)), begin, never)
            found = [ended(lambda: next(results))]
            flight.idle()
            # The caller was given all that was done, and as much may be done again. Room is seen before a walk begins,
            # so that those that are open may come on top.
            assert bound <= len(begun) <= 2 * (bound + slots)
            found += ended(lambda: list(results))
        assert urls_of(found) == list(map(str, range(100)))

    def test_what_the_caller_took_makes_room(self, bound: int) -> None:
        """Again and again two read at the same time, when far more results have come than may wait."""
        together = threading.Barrier(2)

        def begin(ref: ObjectRef) -> tuple[Any, Steps]:
            return store, steps_of(ref, 1, header=b"x" * 100)

        store = Store(lambda _url, _start: together.wait(GUARD))
        files = 6 * bound
        with flight_of(2) as flight:
            found = ended(lambda: urls_of(flight.walk(refs_of(range(files)), begin, never)))
        assert found == list(map(str, range(files)))

    def test_what_the_caller_waits_for_always_has_room(self, bound: int) -> None:
        """The first ends last, when what may wait is there already: nothing else begins, and it comes."""
        gate = threading.Event()
        others = [0]
        lock = threading.Lock()

        def begin(ref: ObjectRef) -> tuple[Any, Steps]:
            return store, steps_of(ref, 1, 1, header=b"x" * 100)

        def wait(url: str, start: int) -> None:
            if url == "0":
                opened(gate)
                return
            with lock:
                others[0] += start
                if others[0] == bound - 1:
                    gate.set()

        store = Store(wait)
        with flight_of(2) as flight:
            found = ended(lambda: urls_of(flight.walk(refs_of(range(50)), begin, never)))
        assert found == list(map(str, range(50)))

    def test_files_behind_one_that_is_held_back_have_none(self, bound: int) -> None:
        slots = 2
        gate, begun = threading.Event(), list[str]()

        def begin(ref: ObjectRef) -> tuple[Any, Steps] | None:
            if ref.url == "1" and not gate.is_set():
                return None
            begun.append(ref.url)
            return store, steps_of(ref, 1, header=b"x" * 100)

        store = Store()
        with flight_of(slots) as flight:
            # The scout that file 1 waits for is another caller's.
            scout = Doing(lambda: walked(flight, Store(lambda _url, _start: opened(gate)), ["scout"], 1))
            results = flight.walk(refs_of(range(100)), begin, never)
            try:
                ended(lambda: next(results))
                rest = Doing(lambda: urls_of(results))
                flight.idle(but=1)
                assert len(begun) <= 2 + bound + slots
            finally:
                gate.set()
                assert scout.result() == ["scout"]
                assert rest.result() == list(map(str, range(1, 100)))


class TestCallers:
    def test_share_the_slots(self) -> None:
        together = threading.Barrier(2)  # a read of each
        store = Store(lambda _url, _start: together.wait(GUARD))
        with flight_of(2) as flight:
            one = Doing(lambda: walked(flight, store, ["a"], 1, 1))
            other = Doing(lambda: walked(flight, store, ["b"], 1, 1))
            assert (one.result(), other.result()) == (["a"], ["b"])
            assert len(flight._threads) == store.most == 2

    def test_of_many_threads_get_their_own(self) -> None:
        store = Store()
        with flight_of(4) as flight:
            names = {name: [f"{name}{number}" for number in range(50)] for name in "abcdef"}
            found = {name: Doing(partial(walked, flight, store, theirs, 2, 1)) for name, theirs in names.items()}
            assert {name: one.result() for name, one in found.items()} == names
            assert store.most <= 4
            assert flight._crews == []

    def test_who_leaves_has_nothing_begun_any_more(self) -> None:
        gate, begun = threading.Event(), list[str]()

        def begin(ref: ObjectRef) -> tuple[Any, Steps]:
            begun.append(ref.url)
            return store, steps_of(ref, 1)

        store = Store(lambda url, _start: None if url == "0" else opened(gate))
        with flight_of(2) as flight:
            results = flight.walk(refs_of(range(50)), begin, never)
            assert ended(lambda: urls_of([next(results)])) == ["0"]
            ended(results.close)  # type: ignore[attr-defined]
            assert flight._crews == []
            gate.set()
            # The threads are free for another.
            assert ended(lambda: walked(flight, Store(), range(30), 1)) == list(map(str, range(30)))
        assert len(begun) <= 3

    def test_who_leaves_lets_another_go_on(self) -> None:
        gate = threading.Event()
        slow = Store(lambda url, _start: None if url == "0" else opened(gate))
        with flight_of(3) as flight:
            left = flight.walk(refs_of(range(50)), lambda ref: (slow, steps_of(ref, 1)), never)
            ended(lambda: next(left))
            other = Doing(lambda: walked(flight, Store(), range(50), 2, 1))
            ended(left.close)  # type: ignore[attr-defined]
            gate.set()
            assert other.result() == list(map(str, range(50)))

    def test_who_never_asks_costs_nothing(self) -> None:
        with flight_of(2) as flight:
            flight.walk(refs_of("abc"), lambda _: pytest.fail("begun"), never)
            assert (flight._threads, flight._crews) == ([], [])


class TestClose:
    def test_lets_idle_threads_end(self) -> None:
        with flight_of(5) as flight:
            ended(lambda: walked(flight, Store(), range(100), 2))
            assert len(flight._threads) == 5
        # Joined by `flight_of`.

    def test_of_what_never_walked(self) -> None:
        with flight_of(5) as flight:
            pass
        assert flight._threads == []

    def test_lets_threads_that_read_end_what_they_do(self) -> None:
        gate, reading = threading.Event(), threading.Barrier(4)

        def wait(_url: str, start: int) -> None:
            if not start:
                reading.wait(GUARD)
                opened(gate)

        store = Store(wait)
        with flight_of(3) as flight:
            found = Doing(lambda: walked(flight, store, range(3), 1, 4))
            reading.wait(GUARD)
            flight.close()
            gate.set()
            assert found.result() == ["0", "1", "2"]

    def test_whoever_comes_later_does_not_wait_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(f"{__name__}.GUARD", 3)
        with flight_of(2) as flight:
            ended(lambda: walked(flight, Store(), range(10), 1))
        assert ended(lambda: walked(flight, Store(), range(10), 1)) == list(map(str, range(10)))
