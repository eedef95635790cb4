"""How requests are made again, held back and given up; with a clock that stands still unless somebody waits."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable

import pytest

from crawler.errors import AccessDeniedError, StoreDownError, StoreUnavailableError
from crawler.stores.traffic import Patience, Traffic

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


def failing(times: int, kind: str = "slow-down") -> Callable[[], str]:
    """Return a request that fails so many times, and then succeeds."""
    left = times

    def request() -> str:
        nonlocal left
        left -= 1
        if left >= 0:
            raise StoreUnavailableError(URL, "HTTP 503", kind)
        return "answer"

    return request


def always(kind: str = "slow-down") -> Callable[[], str]:
    return failing(10**9, kind)


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

    def test_ends_for_one_object_while_others_are_read(self, clock: Clock) -> None:
        made = traffic(clock)
        clock.meanwhile = lambda: made.ask(failing(0))

        with pytest.raises(StoreUnavailableError) as caught:
            made.ask(always())
        assert 60 <= clock.now - 1000 <= 66
        assert pickle.loads(pickle.dumps(caught.value)).kind == "slow-down"

    @pytest.mark.parametrize(("kind", "seconds"), [("refused", 3), ("no-host", 3), ("time-out", 15), ("slow-down", 15)])
    def test_ends_soon_where_the_store_never_answered(self, clock: Clock, kind: str, seconds: float) -> None:
        with pytest.raises(StoreUnavailableError):
            traffic(clock).ask(always(kind))
        assert seconds <= clock.now - 1000 <= seconds + 5


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

    def test_is_asked_no_more(self, clock: Clock) -> None:
        made = traffic(clock)
        self.down(clock, made)
        clock.meanwhile = lambda: None

        with pytest.raises(StoreDownError):
            made.ask(failing(0))

    def test_is_not_taken_for_down_because_of_one_object(self, clock: Clock) -> None:
        made = traffic(clock)
        made.ask(failing(0))

        with pytest.raises(StoreUnavailableError):
            made.ask(always())


class TestRequestsUnderWay:
    def test_are_halved_once_a_second_and_climb_back_slowly(self, clock: Clock) -> None:
        made = traffic(clock, slots=16)
        made.ask(failing(0))
        assert made.limit == 16

        made.ask(failing(1))
        assert made.limit == 8
        clock.now -= 0.2  # as if the next had failed at the same moment
        made.ask(failing(1))
        assert made.limit == 8
        clock.now += 2
        made.ask(failing(1))
        assert made.limit == 4

        climbed = [made.limit for _ in range(200) if made.ask(failing(0))]
        assert climbed == sorted(climbed)
        assert climbed.index(8) > climbed.index(6) + 8
        assert climbed[-1] == 16

    def test_are_never_none(self, clock: Clock) -> None:
        made = traffic(clock, slots=2)
        for _ in range(5):
            clock.now += 2
            made.ask(failing(1))

        assert made.limit >= 1

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

    def test_may_change(self, clock: Clock) -> None:
        made = traffic(clock, rate=1.0)
        made.ask(failing(0))
        made.rate = None
        before = clock.now
        for _ in range(100):
            made.ask(failing(0))

        assert clock.now - before <= 1.0
