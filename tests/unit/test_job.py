"""`crawler.job.crawl_job.build_job`: the arguments of `index` and `estimate`, checked in one place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crawler import estimate, index
from crawler.errors import UsageError
from crawler.fits.policy import Costs, read_policy
from crawler.job.crawl_job import build_job
from crawler.job.scope import Scope

SECRET = "hush-hush"


class TestBuildJob:
    def test_defaults_are_those_of_the_job(self) -> None:
        job = build_job("s3://bucket", None)
        assert job.roots == ("s3://bucket",)
        assert (job.catalogue, job.include, job.exclude, job.concurrency) == ("", None, (), None)
        assert job.scope == Scope(policy=read_policy())

    def test_paths_become_strings(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        job = build_job(tmp_path / "a", Path("made"))
        assert job.roots == (str(tmp_path / "a"),)
        assert job.catalogue == str(tmp_path / "made")
        assert build_job([Path("a"), "b"], "s3://bucket/made").roots == ("a", "b")

    def test_one_glob_is_a_list_of_one(self) -> None:
        job = build_job("a", None, include="*.fits", exclude="x*")
        assert (job.include, job.exclude) == (("*.fits",), ("x*",))

    def test_goal_and_costs_set_policy_and_prices(self) -> None:
        job = build_job("a", None, optimize="bytes", costs={"usd_per_hour": 1.0})
        assert job.scope.policy == read_policy("bytes", {"usd_per_hour": 1.0})
        assert job.costs == Costs(usd_per_gb=0.09, usd_per_hour=1.0)

    def test_numbers_of_numpy_are_numbers(self) -> None:
        job = build_job("a", None, concurrency=np.int64(3), file_timeout=np.float64(2.5))  # type: ignore[arg-type]
        assert (job.concurrency, job.scope.timeout) == (3, 2.5)


WRONG = [
    ("concurrency", 0),
    ("concurrency", 1.5),
    ("concurrency", True),
    ("max_hdus", 0),
    ("max_hdus", "3"),
    ("max_requests_per_second", 0),
    ("max_requests_per_second", float("nan")),
    ("max_requests_per_second", "10"),
    ("file_timeout", -1),
    ("file_timeout", float("inf")),
    ("optimize", "money"),
    ("optimize", ["time"]),
    ("costs", {"usd_per_lb": 1.0}),
    ("costs", {"usd_per_gb": -1.0}),
    ("costs", 0.09),
    ("include", 3),
    ("include", [3]),
    ("exclude", [None]),
    ("storage_options", "anon"),
    ("catalogue_options", ["anon"]),
    ("store", "aiohttp"),
    ("workers", -1),
    ("workers", 1.5),
]


class TestArguments:
    @pytest.mark.parametrize("call", [index, estimate])
    @pytest.mark.parametrize(("name", "value"), [*WRONG, ("roots", 3), ("roots", []), ("roots", [None])])
    def test_wrong_value_is_one_line_that_names_the_argument(
        self, tmp_path: Path, call: Any, name: str, value: object
    ) -> None:
        arguments = {"roots": str(tmp_path), "catalogue": str(tmp_path / "made"), name: value}
        with pytest.raises(UsageError) as caught:
            call(**arguments)
        said = str(caught.value)
        assert (next(iter(value)) if isinstance(value, dict) else name) in said
        assert "\n" not in said
        assert not (tmp_path / "made").exists()

    @pytest.mark.parametrize("name", ["storage_options", "catalogue_options"])
    def test_options_that_are_no_mapping_are_not_repeated(self, name: str) -> None:
        with pytest.raises(UsageError) as caught:
            build_job("a", None, **{name: SECRET})  # type: ignore[arg-type]
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize("value", [0, -1.0, float("nan"), "1"])
    def test_budget_that_is_no_amount(self, tmp_path: Path, value: Any) -> None:
        with pytest.raises(UsageError, match="max_usd"):
            index(str(tmp_path), str(tmp_path / "made"), max_usd=value)
