"""Job files: what to crawl and how, as TOML, so that a schedule and a colleague run the same thing.

::

    [crawl]
    roots = ["s3://stpubdata/hst/public/j8pu/"]
    catalogue = "s3://my-bucket/hst-catalogue"
    include = ["*_flt.fits"]
    exclude = []
    concurrency = 64           # requests that each worker has under way at once
    optimize = "time"          # or "requests", "bytes": what to spend least of
    max_hdus = 1               # only the first headers of each file
    max_requests_per_second = 2000.0   # of all workers together
    max_usd = 25.0             # what requests and transfer may cost
    file_timeout = 1800.0      # seconds after which a file is given up
    store = "auto"             # what reads the files: or "obstore", "fsspec"
    allow_removals = false     # of more than a tenth of the catalogue at once

    [costs]                    # what is known better than by default
    usd_per_gb = 0.02          # all of them: crawler.fits.policy.Costs

    [storage_options]          # of the roots, as fsspec spells them
    anon = true

    [catalogue_options]        # of the catalogue, where it lies elsewhere

    [cluster]
    workers = 4                # or scheduler = "tcp://head-node:8786"

All of it may be left out, and given on the command line instead. Paths are those of whoever runs it, as on the command
line: relative ones begin at the working folder. Messages name the line and repeat no value, which may be a secret.

A scheduler at ``tls://`` wants ``tls_ca_file``, ``tls_cert`` and ``tls_key``, unless Dask's own configuration has them.
In place of both, ``class = "dask_jobqueue.SLURMCluster"``, or any other cluster of Dask's, is started for the run: with
its keyword arguments in ``[cluster.options]``, and its size in ``[cluster.scale]`` (``jobs = 20``; or ``minimum`` and
``maximum``, to follow the work).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

from crawler.errors import UsageError
from crawler.fits.policy import Costs, Goal
from crawler.job.crawl_job import Adapter
from crawler.stores.urls import PathOrUrl, one_line, text_of

_TEXT, _TEXTS, _FLAG, _TABLE = "a string", "a list of strings", "true or false", "a table"
_COUNT, _POSITIVE = "a whole number, not negative", "a whole number, at least 1"
_AMOUNT = "a number, not negative"
_STORE, _GOAL = ("one of " + ", ".join(get_args(choice)) for choice in (Adapter, Goal))

_KEYS = {
    "crawl": {
        "roots": _TEXTS,
        "catalogue": _TEXT,
        "include": _TEXTS,
        "exclude": _TEXTS,
        "concurrency": _POSITIVE,
        "optimize": _GOAL,
        "max_hdus": _POSITIVE,
        "max_requests_per_second": _AMOUNT,
        "max_usd": _AMOUNT,
        "file_timeout": _AMOUNT,
        "store": _STORE,
        "allow_removals": _FLAG,
    },
    "costs": {one.name: _AMOUNT for one in fields(Costs)},
    "cluster": {
        "workers": _COUNT,
        "scheduler": _TEXT,
        "class": _TEXT,
        "options": _TABLE,
        "scale": _TABLE,
        "tls_ca_file": _TEXT,
        "tls_cert": _TEXT,
        "tls_key": _TEXT,
    },
}
"""Sections with what their keys must be. Those of options may hold anything."""

_OF_CLASS = ("class", "options", "scale")
_OPTIONS = ("storage_options", "catalogue_options")
_SECTIONS = (*_KEYS, *_OPTIONS)

_PLACE = re.compile(r"\(at (?:line (\d+), column (\d+)|end of document)\)")


def read_job_file(path: PathOrUrl, *, kind: str = "job file") -> dict[str, Any]:
    """Read a job file.

    Parameters
    ----------
    path : str or pathlib.Path
    kind : str
        What messages call the file.

    Returns
    -------
    dict
        Arguments of `crawler.index` by name, those that the file gives, and of the section ``cluster`` whatever else is
        there: ``scheduler``, ``tls_ca_file``, ``tls_cert``, ``tls_key``, and ``class``, ``options`` and ``scale`` as
        ``cluster_class``, ``cluster_options`` and ``cluster_scale``, with ``cluster_places`` for messages about them.

    Raises
    ------
    UsageError
        It cannot be read, is no TOML, or says something that no job file can; names the line.
    """
    place = f"{kind} {one_line(text_of(path), limit=2000)}"
    text = _text_of(text_of(path), place)
    try:
        sections = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(_of_toml(place, text, str(error))) from None
    except RecursionError:
        raise UsageError(f"{place}: is nested too deeply to be one") from None

    arguments: dict[str, Any] = {}
    for section, content in sections.items():
        if fault := _fault_of_section(section, content):
            raise UsageError(f"{place}, line {_line_of(text, section)}: {fault}")
        if section in _OPTIONS:
            arguments[section] = dict(content)
            continue
        for key, value in content.items():
            if fault := _fault(section, key, value):
                raise UsageError(f"{place}, line {_line_of(text, section, key)}: {fault}")
            name = f"cluster_{key}" if section == "cluster" and key in _OF_CLASS else key
            (arguments.setdefault("costs", {}) if section == "costs" else arguments)[name] = value
    cluster = sections.get("cluster", {})
    ways = [key for key in ("workers", "scheduler", "class") if key in cluster]
    if fault := _fault_of_cluster(cluster, ways):
        raise UsageError(f"{place}, line {_line_of(text, 'cluster', *ways[1:2])}: {fault}")
    if "class" in cluster:
        lines = {key: _line_of(text, "cluster", key) for key in _OF_CLASS if key in cluster}
        arguments["cluster_places"] = {key: f"{place}, line {line}" for key, line in lines.items()}
    return arguments


def _fault_of_cluster(cluster: Mapping[str, Any], ways: list[str]) -> str | None:
    """Return what is wrong with a cluster, or None."""
    if len(ways) > 1:
        return "workers starts processes here, scheduler uses a cluster that runs, class starts another kind: give one"
    if "class" not in cluster and ("options" in cluster or "scale" in cluster):
        return "options and scale are of a class: say which"
    if "scheduler" not in cluster and any(key.startswith("tls_") for key in cluster):
        return "tls_ca_file, tls_cert and tls_key are of a scheduler at tls://: say which"
    return None


def _text_of(path: str, place: str) -> str:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"{place}: {error.strerror}") from None
    try:
        return data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{place}, line {line}: is no UTF-8 text (byte {error.start})") from None


def _of_toml(place: str, text: str, message: str) -> str:
    """Return tomllib's message with the line where all our messages have it."""
    found = _PLACE.search(message)
    line = found[1] if found and found[1] else str(max(1, len(text.splitlines())))
    column = f" (column {found[2]})" if found and found[2] else ""
    return f"{place}, line {line}: {_PLACE.sub('', message).strip()}{column}"


def _fault_of_section(section: str, content: object) -> str | None:
    """Return what is wrong with a section, or None."""
    there_are = f"there are [{'], ['.join(_SECTIONS)}]"
    if isinstance(content, Mapping):
        return None if section in _SECTIONS else f"no section [{section}] is known; {there_are}"
    if section in _SECTIONS:
        return f"{section} must be a section: [{section}], and its keys below"
    for home, keys in _KEYS.items():
        if section in keys:
            return f"{section} belongs into the section [{home}]"
    return f"{section} stands in no section; {there_are}"


def _fault(section: str, key: str, value: object) -> str | None:
    """Return what is wrong with a key, or None."""
    if key not in _KEYS[section]:
        return f"[{section}] has no {key}; it has {', '.join(_KEYS[section])}"
    kind = _KEYS[section][key]
    return None if _is(value, kind) else f"{key} must be {kind}"


def _is(value: object, kind: str) -> bool:
    if kind == _TEXTS:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if kind == _FLAG:
        return isinstance(value, bool)
    if kind in (_COUNT, _POSITIVE):
        least = 0 if kind == _COUNT else 1
        return isinstance(value, int) and not isinstance(value, bool) and value >= least
    if kind == _AMOUNT:
        return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
    if kind in (_STORE, _GOAL):
        return value in get_args(Adapter if kind == _STORE else Goal)
    return isinstance(value, Mapping if kind == _TABLE else str)


def _line_of(text: str, section: str, key: str | None = None) -> int:
    """Return the line on which a section, or a key in it, is first said, however it is spelled.

    tomllib tells no lines. But as long as the file is cut between two statements it is TOML, and what the last one
    said is there: so the first cut at which the key is there ends the statement that says it.
    """
    lines = text.split("\n")
    begins = 1
    for count in range(1, len(lines) + 1):
        try:
            told = tomllib.loads("\n".join(lines[:count]))
        except tomllib.TOMLDecodeError:
            continue  # inside a statement of several lines
        content = told.get(section)
        if section in told and (key is None or (isinstance(content, Mapping) and key in content)):
            return begins
        begins = count + 1
    return begins
