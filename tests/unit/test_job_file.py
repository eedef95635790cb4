"""Job files: what they say, and the line on which they say something wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from crawler.errors import UsageError
from crawler.fits.policy import Costs, ReadPolicy, read_policy
from crawler.job import job_file
from crawler.job.job_file import read_job_file

Read = Callable[[str | bytes], dict[str, Any]]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    monkeypatch.chdir(tmp_path)

    def write_and_read(text: str | bytes) -> dict[str, Any]:
        Path("job.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_job_file("job.toml")

    return write_and_read


def test_example_of_the_docstring(read: Read) -> None:
    example = (job_file.__doc__ or "").partition("::\n")[2].partition("\nAll of it")[0]
    assert read(example) == {
        "roots": ["s3://stpubdata/hst/public/j8pu/"],
        "catalogue": "s3://my-bucket/hst-catalogue",
        "include": ["*_flt.fits"],
        "exclude": [],
        "concurrency": 64,
        "optimize": "time",
        "max_hdus": 1,
        "max_requests_per_second": 2000.0,
        "max_usd": 25.0,
        "file_timeout": 1800.0,
        "costs": {"usd_per_gb": 0.02},
        "store": "auto",
        "allow_removals": False,
        "storage_options": {"anon": True},
        "catalogue_options": {},
        "workers": 4,
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param("", {}, id="empty"),
        pytest.param("# only this\n[crawl]\n", {}, id="empty-section"),
        pytest.param("[cluster]\nscheduler = 'tcp://h:8786'", {"scheduler": "tcp://h:8786"}, id="scheduler"),
        pytest.param("[crawl]\r\nroots = ['a']\r\n", {"roots": ["a"]}, id="windows"),
        pytest.param("crawl.catalogue = 'c'", {"catalogue": "c"}, id="dotted"),
        pytest.param("cluster = {workers = 0}", {"workers": 0}, id="inline"),
        pytest.param(
            "[storage_options.client_kwargs]\nregion_name = 'r'",
            {"storage_options": {"client_kwargs": {"region_name": "r"}}},
            id="tables-in-options",
        ),
        pytest.param("[crawl]\nroots = ['/data/größer']", {"roots": ["/data/größer"]}, id="utf-8"),
    ],
)
def test_what_it_says(read: Read, text: str, told: dict[str, Any]) -> None:
    assert read(text) == told


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        pytest.param("[crawl]\nroots = [\n'a'\n'b'\n]", 4, "Unclosed array", id="toml"),
        pytest.param("[crawl]\nroots = ['a',\n", 2, "Invalid", id="toml-end-of-file"),
        pytest.param("[crawl]\ncatalogue = unquoted\n", 2, "Invalid value", id="toml-value"),
        pytest.param("[crawl]\ncatalogue = 'a'\ncatalogue = 'b'\n", 3, "Cannot overwrite a value", id="toml-twice"),
        pytest.param("\n[crawl]\n[crawl]\n", 3, "Cannot declare ('crawl',) twice", id="toml-section-twice"),
        pytest.param(b"[crawl]\n# caf\xe9\n", 2, "is no UTF-8 text (byte 13)", id="latin-1"),
        pytest.param("\n\n[crowl]\nroots = []\n", 3, "no section [crowl] is known; there are [crawl]", id="section"),
        pytest.param("[crowl.deep]\n", 1, "no section [crowl] is known", id="section-deep"),
        pytest.param("\nroots = ['a']\n", 2, "roots belongs into the section [crawl]", id="key-above-sections"),
        pytest.param("colour = 'red'", 1, "colour stands in no section", id="no-key"),
        pytest.param("crawl = 3", 1, "crawl must be a section: [crawl]", id="section-is-a-value"),
        pytest.param("\n[[crawl]]\n", 2, "crawl must be a section: [crawl]", id="section-is-a-list"),
        pytest.param("storage_options = true", 1, "storage_options must be a section", id="options-are-a-value"),
        pytest.param("[crawl]\n\nrots = ['a']", 3, "[crawl] has no rots; it has roots, catalogue", id="key"),
        pytest.param("[cluster]\n'worker s' = 1", 2, "[cluster] has no worker s", id="key-quoted"),
        pytest.param("[cluster]\nworkers.many = 1", 2, "workers must be a whole number", id="key-dotted"),
        pytest.param("crawl.rots = 1", 1, "[crawl] has no rots", id="key-of-dotted-section"),
        pytest.param("[crawl]\n[cluster]\ncrawl = 1", 3, "[cluster] has no crawl", id="key-named-as-a-section"),
        pytest.param("[crawl]\nroots = 'a'", 2, "roots must be a list of strings", id="roots"),
        pytest.param("[crawl]\n# one\nroots = [\n 'a',\n 1,\n]", 3, "roots must be a list", id="roots-of-many-lines"),
        pytest.param("[crawl]\ncatalogue = 1", 2, "catalogue must be a string", id="catalogue"),
        pytest.param("[crawl]\ninclude = '*'", 2, "include must be a list of strings", id="include"),
        pytest.param("[crawl]\nexclude = [[]]", 2, "exclude must be a list of strings", id="exclude"),
        pytest.param("[crawl]\nconcurrency = 0", 2, "concurrency must be a whole number, at least 1", id="concurrency"),
        pytest.param("[crawl]\nconcurrency = true", 2, "concurrency must be a whole number", id="concurrency-bool"),
        pytest.param("[crawl]\noptimize = 'money'", 2, "optimize must be one of requests, bytes, time", id="optimize"),
        pytest.param("[crawl]\noptimize = ['time']", 2, "optimize must be one of", id="optimize-list"),
        pytest.param("[crawl]\n\nmax_hdus = 0", 3, "max_hdus must be a whole number, at least 1", id="max_hdus"),
        pytest.param("[crawl]\nmax_hdus = 1.0", 2, "max_hdus must be a whole number", id="max_hdus-real"),
        pytest.param("[crawl]\nmax_hdus = true", 2, "max_hdus must be a whole number", id="max_hdus-bool"),
        pytest.param("max_hdus = 1", 1, "max_hdus belongs into the section [crawl]", id="max_hdus-homeless"),
        pytest.param("usd_per_gb = 1", 1, "usd_per_gb belongs into the section [costs]", id="cost-homeless"),
        pytest.param("[costs]\nusd_per_tb = 1", 2, "[costs] has no usd_per_tb; it has usd_per_request,", id="cost"),
        pytest.param(
            "[costs]\nin_flight = 1\nusd_per_gb = -0.1", 3, "usd_per_gb must be a number, not neg", id="cost-<0"
        ),
        pytest.param("[costs]\nusd_per_gb = nan", 2, "usd_per_gb must be a number, not negative", id="cost-nan"),
        pytest.param("[costs]\nusd_per_gb = '0.1'", 2, "usd_per_gb must be a number", id="cost-text"),
        pytest.param("[costs]\nusd_per_gb = true", 2, "usd_per_gb must be a number", id="cost-bool"),
        pytest.param("[costs]\nusd.per.gb = 1", 2, "[costs] has no usd; it has", id="cost-dotted"),
        pytest.param("\ncosts = 0.1", 2, "costs must be a section: [costs]", id="costs-are-a-value"),
        pytest.param(
            "[costs]\nusd_per_gb = inf",
            2,
            "usd_per_gb must be a number",
            id="cost-infinite",
        ),
        pytest.param("[crawl]\nstore = 'tape'", 2, "store must be one of auto, obstore, fsspec", id="store"),
        pytest.param("[crawl]\nstore = []", 2, "store must be one of", id="store-list"),
        pytest.param("[crawl]\nallow_removals = 'no'", 2, "allow_removals must be true or false", id="flag"),
        pytest.param("[cluster]\nworkers = -1", 2, "workers must be a whole number, not negative", id="workers"),
        pytest.param("[cluster]\nworkers = 1.5", 2, "workers must be a whole number", id="workers-real"),
        pytest.param("[cluster]\nscheduler = 8786", 2, "scheduler must be a string", id="scheduler"),
        pytest.param("[cluster]\nworkers = 2\nscheduler = 'tcp://h:1'", 3, "give one", id="two-ways-to-run"),
    ],
)
def test_names_the_line(read: Read, text: str | bytes, line: int, said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)) as raised:
        read(text)
    assert str(raised.value).startswith(f"job file job.toml, line {line}: ")
    assert "\n" not in str(raised.value)


def test_nested_too_deeply(read: Read) -> None:
    with pytest.raises(UsageError, match="nested too deeply"):
        read("[storage_options]\na = " + "[" * 100_000)


@pytest.mark.parametrize(("path", "said"), [("none.toml", "No such file or directory"), (".", "Is a directory")])
def test_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, said: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=f"^job file {re.escape(path)}: {said}$"):
        read_job_file(path)


def test_repeats_no_value(read: Read) -> None:
    for text in (
        "[crawl]\nroots = 'hush'",
        "[storage_options]\nsecret = hush\n",
        "[storage_options]\nsecret = 'hush\n",
    ):
        with pytest.raises(UsageError) as raised:
            read(text)
        assert "hush" not in str(raised.value)


@pytest.mark.parametrize("goal", ["requests", "bytes", "time"])
def test_goals(read: Read, goal: str) -> None:
    assert read(f"[crawl]\noptimize = '{goal}'") == {"optimize": goal}


def test_every_cost_of_the_policy_can_be_told(read: Read) -> None:
    costs = {one.name: number + 0.5 for number, one in enumerate(fields(Costs))}
    text = "".join(f"{name} = {value}\n" for name, value in costs.items())
    assert read(f"[costs]\n{text}") == {"costs": costs}
    assert read_policy("bytes", costs) == ReadPolicy.of(Costs(**costs))


def test_whole_numbers_are_costs_too(read: Read) -> None:
    assert read("[costs]\nusd_per_gb = 0\nin_flight = 64\n[crawl]\nmax_hdus = 3") == {
        "costs": {"usd_per_gb": 0, "in_flight": 64},
        "max_hdus": 3,
    }


def test_no_costs_at_all(read: Read) -> None:
    assert read("[costs]") == {}
