"""The first signal stops in order, a second one at once, and a signal that is sent twice in a row is one."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from crawler import interrupts
from crawler.interrupts import interruptible

GUARD = 20
"""Seconds after which an event that did not come never comes."""

SIGNALS = [signal.SIGINT, signal.SIGTERM]


def send(number: signal.Signals) -> None:
    """Send this process a signal; its handler runs before this returns."""
    os.kill(os.getpid(), number)


def send_two() -> None:
    send(signal.SIGINT)
    send(signal.SIGTERM)


@pytest.fixture
def _each_signal_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "REPEAT_SECONDS", 0.0)


@pytest.mark.parametrize("number", SIGNALS)
class TestFirst:
    def test_before_the_run_raises(self, number: signal.Signals) -> None:
        with pytest.raises(KeyboardInterrupt), interruptible() as found:
            send(number)
        assert found.interrupted
        assert not found.stop.is_set()

    def test_in_the_run_asks_it_to_stop_and_acknowledges_once(self, number: signal.Signals) -> None:
        acknowledged: list[bool] = []
        with interruptible() as found:
            with found.in_order(lambda: acknowledged.append(found.stop.is_set())):
                assert not found.stop.is_set()
                send(number)
                assert found.stop.wait(GUARD)
            assert found.interrupted
        assert acknowledged == [True]

    def test_while_closing_is_noted(self, number: signal.Signals) -> None:
        with interruptible() as found:
            with found.in_order(lambda: None):
                pass
            send(number)
            assert found.interrupted
        assert not found.stop.is_set()

    def test_twice_in_a_row_is_one(self, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(interrupts, "REPEAT_SECONDS", 3600.0)
        with interruptible() as found, found.in_order(lambda: None):
            send(number)
            send(signal.SIGTERM)
            assert found.stop.wait(GUARD)


@pytest.mark.usefixtures("_each_signal_counts")
class TestSecond:
    def test_raises(self) -> None:
        with interruptible() as found, pytest.raises(KeyboardInterrupt), found.in_order(lambda: None):
            send_two()

    def test_is_followed_by_none_that_disturbs_what_is_closed(self) -> None:
        with interruptible() as found:
            with pytest.raises(KeyboardInterrupt), found.in_order(lambda: None):
                send_two()
            send(signal.SIGINT)

    def test_is_followed_by_one_that_raises_where_closing_takes_long(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(interrupts, "CLOSING_SECONDS", 0.0)
        with interruptible() as found:
            with pytest.raises(KeyboardInterrupt), found.in_order(lambda: None):
                send_two()
            with pytest.raises(KeyboardInterrupt):
                send(signal.SIGINT)


class TestHandlers:
    def test_from_before_are_restored(self) -> None:
        before = [signal.getsignal(number) for number in SIGNALS]
        with interruptible():
            assert all(signal.getsignal(number) not in before for number in SIGNALS)
        assert [signal.getsignal(number) for number in SIGNALS] == before

    @pytest.mark.parametrize("number", SIGNALS)
    def test_of_ignored_signals_stay(self, number: signal.Signals) -> None:
        before = signal.signal(number, signal.SIG_IGN)
        try:
            with interruptible() as found:
                send(number)
            assert not found.interrupted
            assert signal.getsignal(number) == signal.SIG_IGN
        finally:
            signal.signal(number, before)

    def test_in_another_thread_are_left_alone(self) -> None:
        before = [signal.getsignal(number) for number in SIGNALS]
        found = []

        def work() -> None:
            with interruptible() as here, here.in_order(lambda: None):
                found.extend(signal.getsignal(number) for number in SIGNALS)

        thread = threading.Thread(target=work)
        thread.start()
        thread.join(GUARD)
        assert found == before
