"""Many walks at once: requests in flight, order of results, memory, errors, stop, and that nothing waits for ever.

Nothing here is timed: stores wait at barriers and gates, and a test does its work on a thread that must end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Generic, TypeVar

import pyarrow as pa
import pytest

from crawler.errors import StoreDownError, StoreError, StoreUnavailableError
from crawler.fits.units import Hdu
from crawler.stores.base import ByteRange, Fetched, ObjectRef
from crawler.worker import walk_pool
from crawler.worker.file_walk import Reads
from crawler.worker.walk import FileResult, Read, walk_file
from crawler.worker.walk_pool import Walk, WalkPool
from tests.fits_files import BytesStore, bintable_hdu, image_hdu, places, walk_bytes

GUARD = 20
"""Seconds after which a thread that still waits is taken to wait for ever."""

Result = TypeVar("Result")


class Doing(Generic[Result]):
    """Work on a thread of its own."""

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
        """Return the outcome of the work, or raise its exception."""
        self._thread.join(GUARD)
        assert not self._thread.is_alive(), "the thread waits for ever"
        if self._error is not None:
            raise self._error
        return self._outcome[0]


def wait_for(gate: threading.Event) -> None:
    """Wait for an event that must come."""
    if not gate.wait(GUARD):
        raise TimeoutError("the event did not come")


class Store:
    """A store that answers with the url and first byte of each range, and can hold answers back.

    Attributes
    ----------
    asked : list of (str, int)
        Url and first byte of each read, in the order in which reads began.
    most : int
        Reads in flight, at most.
    before : callable
        Called in each read, with its url and first byte, before the answer.
    """

    def __init__(self, before: Callable[[str, int], object] = lambda _url, _start: None) -> None:
        self.asked: list[tuple[str, int]] = []
        self.most = 0
        self.before = before
        self._in_flight = 0
        self._lock = threading.Lock()

    def get(self, ref: ObjectRef, span: ByteRange) -> Fetched:
        with self._lock:
            self.asked.append((ref.url, span.start))
            self._in_flight += 1
            self.most = max(self.most, self._in_flight)
        try:
            self.before(ref.url, span.start)
            return Fetched(f"{ref.url}:{span.start}".encode(), ref)
        finally:
            with self._lock:
                self._in_flight -= 1

    def head(self, url: str) -> ObjectRef:
        raise NotImplementedError(url)

    def list(self, url: str) -> Iterator[pa.RecordBatch]:
        raise NotImplementedError(url)


def walk_of(store: Store, ref: ObjectRef, ranges: Sequence[int], header: bytes, read: Read) -> FileResult:
    """Walk a made-up file that wants some ranges at once, then others; see that each answer is that of its range."""
    at = 0
    for count in ranges:
        answers = read(store, Reads(ref, tuple(ByteRange(at + index, at + index + 1) for index in range(count))))
        for answer in answers:
            if isinstance(answer, StoreError):
                return FileResult(ref, "unreadable", str(answer))
        found = [answer.data.decode() for answer in answers if isinstance(answer, Fetched)]
        assert found == [f"{ref.url}:{at + index}" for index in range(count)]
        at += count
    hdus = [Hdu(0, "primary", 0, 0, 0, 0, 8, (), 0, 1, header)] if header else []
    return FileResult(ref, hdus=hdus, requests=at)


def begin(store: Store, *ranges: int, header: bytes = b"") -> Callable[[ObjectRef], Walk]:
    return lambda ref: partial(walk_of, store, ref, ranges, header)


def refs_of(names: Iterable[object]) -> list[ObjectRef]:
    return [ObjectRef(str(name)) for name in names]


def urls_of(results: Iterable[FileResult]) -> list[str]:
    return [result.ref.url for result in results]


def walked(pool: WalkPool, store: Store, names: Iterable[object], *ranges: int) -> list[str]:
    """Walk files that want the same ranges; return the urls of the results."""
    return Doing(lambda: urls_of(pool.walk(refs_of(names), begin(store, *ranges), lambda: False))).result()


@contextmanager
def pool_of(slots: int) -> Iterator[WalkPool]:
    """Give a pool, and see that its threads end when it is closed."""
    before = set(threading.enumerate())
    pool = WalkPool(slots)
    yield pool
    pool.close()
    for thread in set(threading.enumerate()) - before:
        if thread.name == "walk":
            thread.join(GUARD)
            assert not thread.is_alive(), "a thread stays"


class TestInFlight:
    @pytest.mark.parametrize("slots", [1, 2, 7])
    @pytest.mark.parametrize("ranges", [(1,), (1, 1), (2, 3, 1)], ids=str)
    def test_requests_are_as_many_as_slots_and_never_more(self, slots: int, ranges: tuple[int, ...]) -> None:
        together = threading.Barrier(slots)
        waiting = threading.Semaphore(8 * slots)  # reads that wait for others: the last ones would wait in vain

        def wait(_url: str, _start: int) -> None:
            if waiting.acquire(blocking=False):
                together.wait(GUARD)

        store = Store(wait)
        files = 10 * slots
        with pool_of(slots) as pool:
            assert walked(pool, store, range(files), *ranges) == list(map(str, range(files)))
        # Every barrier was passed: the pool had `slots` requests in flight again and again.
        assert store.most == slots
        assert len(store.asked) == files * sum(ranges)

    def test_ranges_of_one_walk_are_read_at_once_on_idle_threads(self) -> None:
        together = threading.Barrier(6)
        store = Store(lambda _url, _start: together.wait(GUARD))
        with pool_of(6) as pool:
            assert walked(pool, store, ["a"], 6, 6) == ["a"]
        assert sorted(store.asked) == [("a", start) for start in range(12)]

    def test_more_ranges_than_slots_are_each_read_once(self) -> None:
        store = Store()
        with pool_of(2) as pool:
            assert walked(pool, store, ["a", "b"], 50, 1, 50) == ["a", "b"]
        assert store.most <= 2
        assert sorted(store.asked) == sorted((name, start) for name in "ab" for start in range(101))

    def test_no_thread_is_left_after_close(self) -> None:
        with pool_of(5) as pool:
            walked(pool, Store(), range(100), 2)
        # Joined by `pool_of`.


class TestResults:
    def test_come_in_the_order_of_the_files(self) -> None:
        last = threading.Event()
        others = threading.Semaphore(0)

        def wait(url: str, _start: int) -> None:
            if url == "0":  # ends last
                for _ in range(99):
                    assert others.acquire(timeout=GUARD)
                last.set()
            else:
                others.release()

        with pool_of(4) as pool:
            assert walked(pool, Store(wait), range(100), 1) == list(map(str, range(100)))
        assert last.is_set()

    def test_come_as_soon_as_they_are_next(self) -> None:
        gate = threading.Event()
        store = Store(lambda url, _start: wait_for(gate) if url == "2" else None)
        with pool_of(2) as pool:
            results = pool.walk(refs_of(range(4)), begin(store, 1), lambda: False)
            assert Doing(lambda: urls_of([next(results), next(results)])).result() == ["0", "1"]
            gate.set()
            assert Doing(lambda: urls_of(results)).result() == ["2", "3"]

    def test_are_those_of_walks_on_their_own(self) -> None:
        whole = image_hdu((500_000,)) + bintable_hdu(8, 9)
        files = {"ok": whole, "short": whole[:-1], "no": b"<html>"}
        stores = {name: BytesStore(data) for name, data in files.items()}

        def begin_file(ref: ObjectRef) -> Walk:
            store = stores[ref.url]
            return lambda read: walk_file(store, store.ref(ref.url), read=read)

        with pool_of(3) as pool:
            found = Doing(lambda: list(pool.walk(refs_of(files), begin_file, lambda: False))).result()
        assert [result.status for result in found] == ["ok", "truncated", "not-fits"]
        for result, data in zip(found, files.values(), strict=True):
            assert places(result.hdus) == walk_bytes(data).places
            assert result.requests == len(stores[result.ref.url].asked)


class TestMemory:
    def test_no_walk_begins_while_enough_header_bytes_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(walk_pool, "HELD_BYTES", 1000)
        slots, ahead = 2, 3
        monkeypatch.setattr(walk_pool, "AHEAD", ahead)
        gate = threading.Event()
        store = Store(lambda url, _start: wait_for(gate) if url == "0" else None)
        asked: list[str] = []
        enough = threading.Event()

        def begin_counted(ref: ObjectRef) -> Walk:
            asked.append(ref.url)
            if len(asked) == 10:
                enough.set()
            return begin(store, 1, header=b"x" * 100)(ref)

        looks = threading.Semaphore(0)

        def stop() -> bool:
            if enough.is_set():
                looks.release()
            return False

        with pool_of(slots) as pool:
            found = Doing(lambda: urls_of(pool.walk(refs_of(range(100)), begin_counted, stop)))
            for _ in range(20):  # the caller has looked again and again whether it may begin another
                assert looks.acquire(timeout=GUARD)
            begun = len(asked)
            gate.set()
            assert found.result() == list(map(str, range(100)))
        assert 10 <= begun <= 1 + 10 + slots + ahead

    def test_the_result_that_is_next_always_has_room(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """File 1 is put off until results of all others wait, which fill the memory."""
        monkeypatch.setattr(walk_pool, "HELD_BYTES", 1000)
        store = Store()
        done = threading.Semaphore(0)

        def begin_late(ref: ObjectRef) -> Walk | None:
            if ref.url == "1" and not done.acquire(blocking=False):
                return None

            def walk(read: Read) -> FileResult:
                result = begin(store, 1, header=b"x" * 100)(ref)(read)
                if ref.url == "10":
                    done.release()
                return result

            return walk

        with pool_of(2) as pool:
            found = Doing(lambda: urls_of(pool.walk(refs_of(range(50)), begin_late, lambda: False))).result()
        assert found == list(map(str, range(50)))


class TestPutOff:
    def test_a_file_begins_when_the_walk_that_it_waits_for_has_ended(self) -> None:
        scouted = threading.Event()
        begun: list[str] = []
        store = Store()

        def begin_siblings(ref: ObjectRef) -> Walk | None:
            if ref.url in {"1", "2"} and not scouted.is_set():
                return None
            begun.append(ref.url)

            def walk(read: Read) -> FileResult:
                result = begin(store, 2, 1)(ref)(read)
                if ref.url == "0":
                    scouted.set()
                return result

            return walk

        with pool_of(3) as pool:
            found = Doing(lambda: urls_of(pool.walk(refs_of(range(6)), begin_siblings, lambda: False))).result()
        assert found == list(map(str, range(6)))
        assert sorted(begun) == found
        assert begun[0] == "0"

    def test_a_file_begins_when_a_walk_of_another_caller_has_ended(self) -> None:
        gate, scouted = threading.Event(), threading.Event()
        slow = Store(lambda _url, _start: wait_for(gate))
        looked = threading.Event()

        def begin_sibling(ref: ObjectRef) -> Walk | None:
            looked.set()
            return begin(Store(), 1)(ref) if scouted.is_set() else None

        with pool_of(2) as pool:
            scout = Doing(lambda: walked(pool, slow, ["scout"], 1))
            sibling = Doing(lambda: urls_of(pool.walk(refs_of(["sibling"]), begin_sibling, lambda: False)))
            wait_for(looked)
            gate.set()
            assert scout.result() == ["scout"]
            scouted.set()
            assert sibling.result() == ["sibling"]


class TestErrors:
    def test_of_the_store_are_answers_of_their_walk(self) -> None:
        def fail(url: str, start: int) -> None:
            if (url, start) in {("1", 0), ("2", 3)}:
                raise StoreUnavailableError(url, "the store says no", "server-error")

        with pool_of(3) as pool:
            results = Doing(
                lambda: list(pool.walk(refs_of(range(4)), begin(Store(fail), 2, 3), lambda: False))
            ).result()
        assert [result.status for result in results] == ["ok", "unreadable", "unreadable", "ok"]

    @pytest.mark.parametrize("start", [0, 2], ids=["read by the walk", "read by another thread"])
    @pytest.mark.parametrize("error", [StoreDownError("s3://b", "gone"), KeyError("a fault")], ids=repr)
    def test_that_end_a_walk_are_raised_after_the_results_before(self, error: Exception, start: int) -> None:
        gate = threading.Event()

        def fail(url: str, at: int) -> None:
            if url == "3" and at == start:
                raise error
            if url == "2":
                wait_for(gate)

        with pool_of(4) as pool:
            results = pool.walk(refs_of(range(9)), begin(Store(fail), 3), lambda: False)
            assert Doing(lambda: urls_of([next(results), next(results)])).result() == ["0", "1"]
            gate.set()
            assert Doing(lambda: next(results)).result().ref.url == "2"
            with pytest.raises(type(error)):
                Doing(lambda: next(results)).result()
            assert walked(pool, Store(), range(30), 1) == list(map(str, range(30))), "the threads go on"


class TestStop:
    @pytest.mark.parametrize("slots", [1, 4])
    @pytest.mark.parametrize("count", [0, 1, 10])
    def test_begins_no_walk_more_and_yields_those_that_had_begun(self, slots: int, count: int) -> None:
        lock = threading.Lock()
        walks: set[str] = set()
        stopped = threading.Event()
        if not count:
            stopped.set()

        def note(url: str, _start: int) -> None:
            with lock:
                walks.add(url)
                if len(walks) >= count:
                    stopped.set()

        store = Store(note)
        with pool_of(slots) as pool:
            found = Doing(lambda: urls_of(pool.walk(refs_of(range(50)), begin(store, 2), stopped.is_set))).result()
        assert sorted(found) == sorted(walks)
        assert found == sorted(found, key=int)
        assert count <= len(found) < count + slots

    def test_waits_for_walks_that_end_in_time(self) -> None:
        gate, reading, stop = threading.Event(), threading.Barrier(3), threading.Event()

        def wait(_url: str, _start: int) -> None:
            reading.wait(GUARD)
            wait_for(gate)

        with pool_of(2) as pool:
            results = pool.walk(refs_of(range(9)), begin(Store(wait), 1), stop.is_set, GUARD)
            found = Doing(lambda: urls_of(results))
            reading.wait(GUARD)
            stop.set()
            gate.set()
            assert found.result() == ["0", "1"]

    def test_abandons_walks_that_last_longer(self) -> None:
        gate, hanging, stop = threading.Event(), threading.Event(), threading.Event()

        def wait(url: str, start: int) -> None:
            if (url, start) == ("1", 0):
                hanging.set()
                wait_for(gate)
            elif url == "2":
                wait_for(hanging)
                stop.set()

        store = Store(wait)
        with pool_of(2) as pool:
            results = pool.walk(refs_of(range(9)), begin(store, 1, 1), stop.is_set, 0.0)
            found = Doing(lambda: urls_of(results)).result()
            assert "1" not in found
            assert set(found) <= {"0", "2", "3"}
            gate.set()
        # Closed, and its threads have ended: the abandoned walk has read no further range.
        assert ("1", 1) not in store.asked

    def test_without_time_waits_for_a_walk_that_never_ends_no_longer_than_until_close(self) -> None:
        gate, hanging = threading.Event(), threading.Event()

        def wait(_url: str, _start: int) -> None:
            hanging.set()
            wait_for(gate)

        with pool_of(2) as pool:
            found = Doing(lambda: urls_of(pool.walk(refs_of("a"), begin(Store(wait), 1), lambda: False)))
            wait_for(hanging)
            pool.close()
            assert found.result() == []
            gate.set()

    def test_calls_every_walk_that_it_was_given(self) -> None:
        """A walk that did not begin may hold something for its siblings, and must let it go."""
        given, ended = set[str](), set[str]()
        store = Store()
        stop = threading.Event()

        def begin_counted(ref: ObjectRef) -> Walk:
            given.add(ref.url)

            def walk(read: Read) -> FileResult:
                try:
                    return begin(store, 1)(ref)(read)
                finally:
                    ended.add(ref.url)
                    stop.set()

            return walk

        with pool_of(1) as pool:
            found = Doing(lambda: urls_of(pool.walk(refs_of(range(50)), begin_counted, stop.is_set))).result()
        assert found == ["0"]
        assert [url for url, _ in store.asked] == ["0"]
        assert ended == given


class TestCallers:
    def test_share_the_threads(self) -> None:
        together = threading.Barrier(2)  # a read of each
        store = Store(lambda _url, _start: together.wait(GUARD))
        with pool_of(2) as pool:
            one, other = (Doing(partial(walked, pool, store, [name], 1, 1)) for name in "ab")
            assert (one.result(), other.result()) == (["a"], ["b"])
        assert store.most == 2

    def test_get_their_own_results(self) -> None:
        store = Store()
        with pool_of(4) as pool:
            names = {name: [f"{name}{number}" for number in range(50)] for name in "abcdef"}
            found = {name: Doing(partial(walked, pool, store, theirs, 2, 1)) for name, theirs in names.items()}
            assert {name: one.result() for name, one in found.items()} == names
        assert store.most <= 4

    def test_that_leave_have_nothing_read_any_more(self) -> None:
        gate = threading.Event()
        store = Store(lambda url, _start: None if url == "0" else wait_for(gate))
        with pool_of(2) as pool:
            results = pool.walk(refs_of(range(50)), begin(store, 1, 1), lambda: False)
            assert Doing(lambda: next(results)).result().ref.url == "0"
            Doing(results.close).result()  # type: ignore[attr-defined]
            gate.set()
            assert walked(pool, Store(), range(30), 1) == list(map(str, range(30)))
        assert {url for url, _ in store.asked} <= {"0", "1", "2"}

    def test_that_come_after_close_get_nothing(self) -> None:
        with pool_of(2) as pool:
            walked(pool, Store(), range(10), 1)
        assert walked(pool, Store(), range(10), 1) == []
