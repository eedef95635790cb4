"""What a crawl would take, as a value that goes to JSON and back."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any

from crawler.estimation.statistics import Interval


@dataclass(frozen=True, slots=True)
class Spent:
    """What the estimate itself took.

    Attributes
    ----------
    files : int
        Walks; a file may have been walked twice.
    requests, list_requests, bytes_read : int
        GETs, pages of listings, and bytes of files.
    usd : float
        What the store charges for these.
    seconds : float
    """

    files: int
    requests: int
    list_requests: int
    bytes_read: int
    usd: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a crawl would take. Every `Interval` is a 95 % interval.

    Attributes
    ----------
    fingerprint : str
        Of what the crawl reads, and how (`crawler.estimation.saved.fingerprint_of`).
    estimated_at : str
        Time of the estimate, ISO 8601, UTC.
    complete : bool
        The listing was read to its end. If not, all figures are of what was listed: the crawl takes more.
    seen, listed : int
        Objects below the roots, and those of them that the filters take.
    unchanged : int
        Files that the catalogue already holds, and that the crawl skips.
    files, bytes_stored : int
        Files that the crawl walks, and their size.
    products : int
        Products among them: names that differ in their digits alone are of one product.
    statuses : dict of str to int
        Files of the sample, by status.
    first_error : str or None
        Of the first unreadable file of the sample.
    workers, concurrency : int
        Processes, and requests that each has in flight.
    requests : Interval
        GETs.
    list_requests : int
        Pages of listings.
    bytes_read : Interval
    hdus, cards : Interval
        Rows that the crawl adds to the catalogue, beside one for each file.
    catalogue_bytes : Interval
        Bytes that it adds to the catalogue, after its files were merged.
    charged : bool
        The store charges for requests and transfer. Local disks and web servers do not.
    usd_requests, usd_transfer : Interval
        What the store charges for requests, and for bytes that leave it.
    usd_compute : Interval
        Price of the workers.
    duration : Interval
        Seconds.
    limited_by : str
        What the duration depends on most.
    request_seconds : float
        Mean duration of a request in the sample, or the one that ``costs`` gave.
    spent : Spent
    """

    fingerprint: str
    estimated_at: str
    complete: bool
    seen: int
    listed: int
    unchanged: int
    files: int
    bytes_stored: int
    products: int
    statuses: dict[str, int]
    first_error: str | None
    workers: int
    concurrency: int
    requests: Interval
    list_requests: int
    bytes_read: Interval
    hdus: Interval
    cards: Interval
    catalogue_bytes: Interval
    charged: bool
    usd_requests: Interval
    usd_transfer: Interval
    usd_compute: Interval
    duration: Interval
    limited_by: str
    request_seconds: float
    spent: Spent

    @property
    def usd(self) -> Interval:
        """Dollars for requests, transfer and workers together."""
        return self.usd_requests + self.usd_transfer + self.usd_compute

    def to_json(self) -> str:
        """Return a JSON object; each interval is an object of ``value``, ``low`` and ``high``."""
        return json.dumps(asdict(self) | {"usd": asdict(self.usd)})

    @classmethod
    def from_json(cls, text: str | bytes) -> Estimate:
        """Return the estimate that `to_json` wrote.

        Raises
        ------
        ValueError
            It is not the JSON of an estimate.
        """
        try:
            found: Estimate = _read(cls, json.loads(text))
        except (KeyError, TypeError, RecursionError, OverflowError) as error:
            raise ValueError(f"not an estimate: {error}") from None
        return found


def _read(kind: Any, value: Any) -> Any:
    """Return a dataclass of this module from its JSON object."""
    # Annotations are strings here.
    return kind(**{one.name: _CHECKS[str(one.type)](value[one.name]) for one in fields(kind)})


def _is(*kinds: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if type(value) not in kinds or (isinstance(value, int | float) and not math.isfinite(value)):
            raise TypeError(f"{value!r:.60} is none of {', '.join(kind.__name__ for kind in kinds)}")
        return value

    return check


def _statuses(value: Any) -> dict[str, int]:
    return {str(name): _CHECKS["int"](count) for name, count in _is(dict)(value).items()}


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "bool": _is(bool),
    "int": _is(int),
    "float": _is(int, float),
    "str": _is(str),
    "str | None": _is(str, type(None)),
    "dict[str, int]": _statuses,
    "Interval": lambda value: _read(Interval, value),
    "Spent": lambda value: _read(Spent, value),
}
