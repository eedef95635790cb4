"""Job files: what to crawl and how, as TOML, so that a schedule and a colleague run the same thing.

::

    [crawl]
    roots = ["s3://stpubdata/hst/public/"]
    catalogue = "s3://my-bucket/hst-catalogue"
    include = ["*_flt.fits"]

    [storage_options]          # of the roots, as fsspec spells them
    anon = true

    [catalogue_options]        # of the catalogue, where it lies elsewhere

    [cluster]
    workers = 4                # or scheduler = "tcp://head-node:8786"
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crawler.errors import UsageError

_TEXT, _TEXTS, _COUNT, _FLAG = "a string", "a list of strings", "a whole number, not negative", "true or false"

_KEYS = {
    "crawl": {
        "roots": _TEXTS,
        "catalogue": _TEXT,
        "include": _TEXTS,
        "exclude": _TEXTS,
        "concurrency": _COUNT,
        "store": _TEXT,
        "allow_removals": _FLAG,
    },
    "cluster": {"workers": _COUNT, "scheduler": _TEXT},
}
"""Sections with what their keys must be. Those of options may hold anything."""

_OPTIONS = ("storage_options", "catalogue_options")


def read_job_file(path: str) -> dict[str, Any]:
    """Read a job file.

    Parameters
    ----------
    path : str

    Returns
    -------
    dict
        Arguments of `crawler.index` by name, those that the file gives, and ``scheduler`` where it names one.

    Raises
    ------
    UsageError
        It cannot be read, is no TOML, or says something that no job file can; names the line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"job file {path}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"job file {path}: is no UTF-8 text (byte {error.start})") from None
    try:
        sections = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"job file {path}: {error}") from None

    arguments: dict[str, Any] = {}
    for section, content in sections.items():
        where = f"job file {path}, line {_line_of(text, section)}"
        known = [*_KEYS, *_OPTIONS]
        if section not in known or not isinstance(content, Mapping):
            raise UsageError(f"{where}: no section [{section}] is known; there are {', '.join(known)}")
        if section in _OPTIONS:
            arguments[section] = dict(content)
            continue
        for key, value in content.items():
            where = f"job file {path}, line {_line_of(text, section, key)}"
            if key not in _KEYS[section]:
                raise UsageError(f"{where}: [{section}] has no {key}; it has {', '.join(_KEYS[section])}")
            if not _is(value, _KEYS[section][key]):
                raise UsageError(f"{where}: {key} must be {_KEYS[section][key]}")
            arguments[key] = value
    return arguments


def _is(value: object, kind: str) -> bool:
    if kind == _TEXTS:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if kind == _FLAG:
        return isinstance(value, bool)
    if kind == _COUNT:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return isinstance(value, str)


def _line_of(text: str, section: str, key: str | None = None) -> int:
    """Return the line of a section, or of a key in it, for a message; 1 where it is written in some other way."""
    header = re.compile(rf"^\s*\[+\s*[\"']?{re.escape(section)}[\"']?\s*[\].]")
    wanted = header if key is None else re.compile(rf"^\s*[\"']?{re.escape(key)}[\"']?\s*=")
    inside = key is None
    for number, line in enumerate(text.splitlines(), 1):
        if not inside:
            inside = bool(header.match(line))
        elif wanted.match(line) or (key is None and re.match(rf"^\s*[\"']?{re.escape(section)}[\"']?\s*[=.]", line)):
            return number
    return 1
