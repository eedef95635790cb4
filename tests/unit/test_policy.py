"""What reading costs, and how many bytes are asked for because of it."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import pytest

from crawler.errors import UsageError
from crawler.fits.policy import GOALS, Costs, Goal, ReadPolicy, read_policy
from crawler.fits.units import BLOCK

MiB = 2**20
LONGEST = 16 * MiB
"""The most that is ever read to save a request."""


class TestGap:
    @pytest.mark.parametrize(
        ("goal", "gap"),
        [
            # $4e-7 + $0.10/3600/32 x 30 ms a request; $0.10/3600 / 1e8 a byte: 4.26e-7 / 2.78e-13.
            pytest.param("requests", 1_533_750, id="requests"),
            # A byte that leaves the region costs $0.09e-9 more.
            pytest.param("bytes", 4_718, id="bytes"),
            # 30 ms of a 32nd of 100 MB/s.
            pytest.param("time", 93_750, id="time"),
        ],
    )
    def test_of_a_goal(self, goal: Goal, gap: int) -> None:
        assert GOALS[goal].gap == pytest.approx(gap, abs=1)

    def test_is_the_bytes_that_cost_one_request(self) -> None:
        # Without a worker to pay, dollars against dollars: $1e-6 a request, $0.01 a GB.
        assert Costs(usd_per_request=1e-6, usd_per_gb=0.01, usd_per_hour=0.0).gap == pytest.approx(100_000, abs=1)

    @pytest.mark.parametrize("goal", GOALS)
    @pytest.mark.parametrize(
        ("name", "grows"),
        [
            ("usd_per_request", True),
            ("first_byte_seconds", True),
            ("mb_per_second", True),
            ("usd_per_gb", False),
            ("in_flight", False),
        ],
    )
    def test_grows_with_what_a_request_costs_and_falls_with_what_a_byte_does(
        self, goal: Goal, name: str, grows: bool
    ) -> None:
        known = {one.name: getattr(GOALS[goal], one.name) for one in fields(Costs)}
        figures = [max(known[name], 1e-9) * factor for factor in (0.25, 0.5, 1.0, 2.0, 4.0)]
        gaps = [Costs(**{**known, name: figure}).gap for figure in figures]
        ordered = gaps if grows else gaps[::-1]
        assert ordered == sorted(ordered)
        assert ordered[0] < ordered[-1]

    @pytest.mark.parametrize(
        "figures",
        [
            {"usd_per_gb": 0.0, "usd_per_hour": 0.0},
            {"usd_per_request": 1e9},
            {"usd_per_gb": 1e-300, "usd_per_hour": 1e-300},
            {"mb_per_second": 1e300},
        ],
        ids=["bytes for nothing", "requests beyond price", "bytes for next to nothing", "bytes in no time"],
    )
    def test_is_never_longer_than_what_can_be_held(self, figures: dict[str, float]) -> None:
        assert Costs(**figures).gap == LONGEST

    def test_of_requests_for_nothing_is_nothing(self) -> None:
        assert Costs(usd_per_request=0.0, first_byte_seconds=0.0).gap == 0

    def test_of_figures_whose_quotient_is_beyond_floats(self) -> None:
        assert Costs(usd_per_request=1e300).gap == LONGEST


def said(figures: Mapping[str, Any], goal: Any = "time") -> str:
    """Return what is said of figures or a goal that make no sense."""
    with pytest.raises(UsageError) as raised:
        read_policy(goal, figures)
    assert "\n" not in str(raised.value)
    return str(raised.value)


NAMES = [one.name for one in fields(Costs)]


class TestFault:
    @pytest.mark.parametrize("name", NAMES)
    @pytest.mark.parametrize("value", [-1.0, -1e-30, float("nan"), float("inf"), float("-inf")])
    def test_a_figure_that_is_no_amount_is_named(self, name: str, value: float) -> None:
        assert said({name: value}).startswith(f"{name} must be a number that is not negative, not ")

    @pytest.mark.parametrize("name", ["mb_per_second", "in_flight"])
    def test_a_figure_that_is_divided_by_cannot_be_0(self, name: str) -> None:
        assert f"{name}" in (told := said({name: 0.0}))
        assert "cannot be 0" in told

    @pytest.mark.parametrize("name", ["usd_per_request", "usd_per_gb", "usd_per_hour", "first_byte_seconds"])
    @pytest.mark.parametrize("goal", GOALS)
    def test_any_other_figure_can_be_0(self, goal: Goal, name: str) -> None:
        assert read_policy(goal, {name: 0.0}).first > 0

    @pytest.mark.parametrize("value", ["0.02", None, [1.0]])
    def test_a_figure_that_is_no_number_is_named(self, value: object) -> None:
        assert said({"usd_per_gb": value}).startswith("usd_per_gb must be a number")

    def test_a_figure_that_nobody_knows_is_named_and_those_that_are_known(self) -> None:
        told = said({"usd_per_tb": 1.0, "usd_per_gb": 1.0, "euros": 1.0})
        assert told.startswith("no such cost: euros, usd_per_tb (known: ")
        assert all(name in told for name in NAMES)

    def test_a_goal_that_nobody_knows_is_named(self) -> None:
        assert said({}, goal="money") == "optimize is one of requests, bytes, time, not 'money'"


class TestReadPolicy:
    def test_of_the_default_goal_is_the_default(self) -> None:
        policy = read_policy()
        assert (policy.first, policy.header, policy.longest) == (12 * BLOCK, 2 * BLOCK, MiB)
        assert policy.gap == pytest.approx(ReadPolicy().gap, rel=0.02)

    @pytest.mark.parametrize(
        "figures",
        [
            dict(zip(("usd_per_gb", "usd_per_request", "first_byte_seconds"), values, strict=True))
            for values in itertools.product((0.0, 1e-3, 10.0), (0.0, 1e-9, 1.0), (0.0, 1e-3, 10.0))
        ],
        ids=str,
    )
    @pytest.mark.parametrize("goal", GOALS)
    def test_sizes_are_whole_blocks_and_never_too_few(self, goal: Goal, figures: dict[str, float]) -> None:
        policy = read_policy(goal, figures)
        assert (policy.first % BLOCK, policy.header % BLOCK) == (0, 0)
        assert policy.first >= 4 * BLOCK
        assert policy.header >= 2 * BLOCK
        assert policy.longest >= MiB
        assert policy.longest >= policy.gap
        assert 0 <= policy.gap <= LONGEST

    def test_where_requests_cost_nothing_reads_are_the_least(self) -> None:
        policy = ReadPolicy.of(Costs(usd_per_request=0.0, first_byte_seconds=0.0))
        assert policy == ReadPolicy(first=4 * BLOCK, header=2 * BLOCK, longest=MiB, gap=0)

    def test_where_bytes_cost_nothing_reads_are_long_and_bounded(self) -> None:
        policy = ReadPolicy.of(Costs(usd_per_gb=0.0, usd_per_hour=0.0))
        assert policy.gap == LONGEST
        assert policy.longest == 2 * LONGEST
        assert policy.header < policy.first < LONGEST

    def test_reads_are_longer_where_requests_are_dearer(self) -> None:
        bytes_, time, requests = (read_policy(goal) for goal in ("bytes", "time", "requests"))
        assert bytes_.gap < time.gap < requests.gap
        assert bytes_.first < time.first < requests.first
        assert bytes_.header <= time.header < requests.header

    def test_a_figure_replaces_that_of_the_goal_alone(self) -> None:
        assert read_policy("bytes", {"usd_per_gb": 0.0}) == read_policy("requests")
        assert read_policy("time", {"usd_per_request": 4e-7}) == read_policy("requests")
        assert read_policy("bytes", {}) == read_policy("bytes", None) == ReadPolicy.of(GOALS["bytes"])
