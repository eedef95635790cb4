"""What a crawl would cost, as one value that goes to JSON and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from crawler.quoting.statistics import Interval


@dataclass(frozen=True, slots=True)
class Spent:
    """What the estimate itself took.

    Attributes
    ----------
    files : int
        That were walked.
    requests, lists, bytes_read : int
        GETs, pages of listings, and bytes of files.
    usd : float
        What the store charges for them.
    seconds : float
    """

    files: int
    requests: int
    lists: int
    bytes_read: int
    usd: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Quote:
    """What a crawl would cost.

    Attributes
    ----------
    fingerprint : str
        Of what is crawled, and how (`crawler.quoting.kept.fingerprint_of`).
    made : str
        When, ISO 8601, UTC.
    complete : bool
        The listing was read to its end. If not, all figures are of what was listed: the crawl takes more.
    seen, listed : int
        Objects below the roots, and those of them that are taken for FITS files.
    unchanged : int
        Those that the catalogue holds, and the crawl skips.
    files, bytes_stored : int
        Those that it walks, and their size.
    products : int
        Kinds of files among them, by their names.
    statuses : dict of str to int
        Files of the sample, by what came of them.
    first_error : str or None
        Of one that was unreadable.
    workers, concurrency : int
        Processes, and requests that each has under way.
    requests : Interval
        GETs.
    lists : int
        Pages of listings.
    bytes_read : Interval
    hdus, cards : Interval
        Rows that it adds to the catalogue, beside one a file.
    catalogue_bytes : Interval
        That it adds to the catalogue, once it has merged its files.
    usd_requests, usd_transfer, usd_compute : Interval
        What the store charges for requests, and for bytes; and what the workers cost.
    hours : Interval
    bound : str
        What the hours are: that of which the crawl has least.
    spent : Spent
    """

    fingerprint: str
    made: str
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
    lists: int
    bytes_read: Interval
    hdus: Interval
    cards: Interval
    catalogue_bytes: Interval
    usd_requests: Interval
    usd_transfer: Interval
    usd_compute: Interval
    hours: Interval
    bound: str
    spent: Spent

    @property
    def usd(self) -> Interval:
        """All of it, in dollars."""
        return self.usd_requests + self.usd_transfer + self.usd_compute

    def to_json(self) -> str:
        """Return it as a JSON object; intervals are objects of ``value``, ``low`` and ``high``."""
        return json.dumps(asdict(self) | {"usd": asdict(self.usd)})

    @classmethod
    def from_json(cls, text: str | bytes) -> Quote:
        """Return what `to_json` wrote.

        Raises
        ------
        ValueError
            It is no quote.
        """
        try:
            told = json.loads(text)
            return cls(**{one.name: _read(one.type, told[one.name]) for one in fields(cls)})
        except (KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"no quote: {error}") from None


def _read(kind: object, value: Any) -> Any:
    """Return a field; annotations are strings here."""
    classes: Mapping[object, type[Interval | Spent]] = {"Interval": Interval, "Spent": Spent}
    return classes[kind](**value) if kind in classes else value
