"""What a crawl did: counts that its driver keeps, and everybody may read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from crawler.crawl import Receipt


@dataclass(slots=True)
class Report:
    """What a crawl did, and while it runs, what it did so far.

    Attributes
    ----------
    crawl : str
        Its id, as in ``files.crawl``.
    catalogue : str
        Url of the catalogue.
    seen, listed : int
        Objects found below the roots, and those of them that the filters let through.
    listing_ended : bool
    nothing_found : str or None
        Why no object was listed, and what to do, once that is known.
    walked : Counter
        Files walked, by status.
    skipped : int
        Files that the catalogue held unchanged.
    removed : int
        Files that are gone, and their rows with them.
    withheld : int
        Files that are gone and were not removed, because they are too many (`REMOVABLE`).
    hdus, cards : int
        Rows added.
    requests, bytes_read, round_trips : int
        Of all files walked; requests made at once by a file are one round trip.
    first_error : str or None
        Of the first file that was unreadable.
    version : int or None
        Of the catalogue after the last commit.
    seconds : float
        Since the crawl began.
    interrupted : bool
        It was stopped before its end; what was walked is committed.
    """

    crawl: str
    catalogue: str
    seen: int = 0
    listed: int = 0
    listing_ended: bool = False
    nothing_found: str | None = None
    walked: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    removed: int = 0
    withheld: int = 0
    hdus: int = 0
    cards: int = 0
    requests: int = 0
    bytes_read: int = 0
    round_trips: int = 0
    first_error: str | None = None
    version: int | None = None
    seconds: float = 0.0
    interrupted: bool = False

    @property
    def files(self) -> int:
        """Files walked."""
        return self.walked.total()

    def add(self, receipt: Receipt) -> None:
        """Count what came of one partition."""
        self.walked += receipt.statuses
        self.skipped += receipt.skipped
        self.hdus += receipt.hdus
        self.cards += receipt.cards
        self.requests += receipt.requests
        self.bytes_read += receipt.bytes_read
        self.round_trips += receipt.round_trips
        self.first_error = self.first_error or receipt.first_error
