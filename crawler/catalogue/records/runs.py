"""What each run did, kept beside the tables: who ran what and when, what came of it, what it cost.

One small file a run, written as it begins, with each commit and as it ends; so a run that died is seen to have died.
"""

from __future__ import annotations

import getpass
import json
import platform
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from importlib.metadata import version
from math import isfinite
from typing import Any

from pyarrow.fs import FileSelector

from crawler.catalogue.folder import Folder
from crawler.errors import CatalogueError
from crawler.stores.urls import one_line

RUNS = "_crawler/runs"
"""Folder below the catalogue's. Readers of Parquet folders skip what begins with an underscore."""


_COUNTS = ("seconds", "removed", "requests", "usd")
"""Counts of a report that are shown for each run, beside the files walked."""


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user often has no name
        user = "somebody"
    return f"{user}@{platform.node() or 'somewhere'}"


def _program() -> str:
    return f"crawler {version('fits-header-crawler')}"


@dataclass(slots=True)
class Run:
    """One run, as far as it got. Holds no options of stores, and no secret.

    Attributes
    ----------
    crawl : str
        Its id, as in ``files.crawl``.
    who : str
        User and host of the driver.
    what : dict
        Roots and filters.
    program : str
        Name and version.
    began, heard : datetime
        Aware, UTC: when it began, and when it last said something.
    outcome : {'running', 'finished', 'interrupted', 'stopped', 'failed'}
        A run that was killed is ``running`` for ever: `heard` tells.
    error : str or None
        One line: why it failed or stopped.
    counts : dict
        Of its report: files by status, requests, bytes, dollars and so on.
    """

    crawl: str
    what: dict[str, Any]
    program: str = field(default_factory=_program)
    who: str = field(default_factory=_who)
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    heard: datetime = field(default_factory=lambda: datetime.now(UTC))
    outcome: str = "running"
    error: str | None = None
    counts: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> str:
        """Return it as a JSON object, times in ISO 8601."""
        return json.dumps(asdict(self), default=lambda moment: moment.isoformat(timespec="seconds"))


def keep_run(folder: Folder, run: Run) -> None:
    """Write what is known of a run, in place of what was written of it before.

    Raises
    ------
    CatalogueError
        It cannot be written.
    """
    run.heard = datetime.now(UTC)
    try:
        folder.put(f"{RUNS}/{run.crawl}.json", run.as_json().encode())
    except OSError as error:
        said = one_line(error.strerror or str(error), limit=300)
        raise CatalogueError(folder.url, f"cannot be written: {said}") from None


def runs_of(folder: Folder, latest: int | None = None) -> list[Run]:
    """Return the runs of a catalogue, the latest first; records that cannot be read are left out.

    Parameters
    ----------
    folder : Folder
    latest : int, optional
        No more than so many.

    Raises
    ------
    CatalogueError
        The catalogue cannot be read.
    """
    try:
        found = folder.filesystem.get_file_info(FileSelector(folder.join(RUNS), allow_not_found=True))
    except OSError as error:
        said = one_line(error.strerror or str(error), limit=300)
        raise CatalogueError(folder.url, f"cannot be read: {said}") from None
    names = [info.base_name for info in found if info.base_name.endswith(".json")]
    runs = []
    for name in sorted(names, reverse=True)[:latest]:  # ids begin with times
        with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
            runs.append(_run_of(json.loads(folder.get(f"{RUNS}/{name}"))))
    return runs


def _run_of(told: Mapping[str, Any]) -> Run:
    """Return a record of a run, each value of its type: whoever can write there may have written anything.

    Raises
    ------
    AttributeError, KeyError, OverflowError, TypeError, ValueError
        It is none.
    """
    known = {one.name: told[one.name] for one in fields(Run) if one.name in told}
    for name in ("began", "heard"):
        known[name] = datetime.fromisoformat(known[name])
    run = Run(**known)
    texts = [run.crawl, run.program, run.who, run.outcome, run.error or "", *run.what.get("roots", ())]
    counts = [run.counts.get(name, 0) for name in _COUNTS] + list(run.counts.get("walked", {}).values())
    if not all(isinstance(text, str) for text in texts) or not all(map(isfinite, counts)):
        raise TypeError("not as a run is told of")
    return run
