"""What a crawl did: counts that its driver keeps, and everybody may read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from crawler.worker.partition import Receipt


class Interrupted(KeyboardInterrupt):
    """A run was interrupted, and what was walked is committed.

    Attributes
    ----------
    report : Report
    """

    def __init__(self, report: Report) -> None:
        super().__init__(report)
        self.report = report


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
    listed_at : datetime or None
        When it was listed, where the listing is one that an earlier run has left.
    nothing_found : str or None
        Why no object was listed, and what to do, once that is known.
    walked : Counter
        Files walked, by status.
    rewalked : int
        Files walked of which the catalogue held older rows.
    skipped : int
        Files that the catalogue held unchanged.
    vanished : int
        Files of a listing that an earlier run has left, deleted since. No row is written for them, and a row that the
        catalogue has of one stays until a later listing.
    removed : int
        Files that are gone, and their rows with them.
    withheld : int
        Files that are gone and were not removed, because they are too many (`Settings.removable`).
    hdus, cards : int
        Rows added.
    requests, bytes_read, round_trips : int
        Of all files walked; requests made at once by a file are one round trip.
    retries : Counter
        Requests that were made again, by what was wrong with the one before.
    lost : int
        Partitions that were lost with worker after worker, and crawled in pieces.
    listing_requests : int
        Pages of listings that were asked for.
    usd : float
        What the store charges for all those requests and bytes, as far as `CrawlJob.costs` tells.
    stopped : str or None
        Why it ended before all was walked, though nobody interrupted it and nothing failed.
    estimated : list of str
        What it took beside the estimate for it, one line for each figure; empty where there is no estimate.
    first_error : str or None
        Of the first file that was unreadable.
    version : int or None
        Of the catalogue after the last commit.
    seconds : float
        Since the crawl began.
    interrupted : bool
        It was stopped before its end; what was walked is committed.
    stopping : float or None
        Once the run was asked to stop: for how many seconds it waits for requests in flight.
    """

    crawl: str
    catalogue: str
    seen: int = 0
    listed: int = 0
    listing_ended: bool = False
    listed_at: datetime | None = None
    nothing_found: str | None = None
    walked: Counter[str] = field(default_factory=Counter)
    rewalked: int = 0
    skipped: int = 0
    vanished: int = 0
    removed: int = 0
    withheld: int = 0
    hdus: int = 0
    cards: int = 0
    requests: int = 0
    bytes_read: int = 0
    round_trips: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    listing_requests: int = 0
    usd: float = 0.0
    stopped: str | None = None
    estimated: list[str] = field(default_factory=list)
    first_error: str | None = None
    version: int | None = None
    seconds: float = 0.0
    interrupted: bool = False
    stopping: float | None = None

    @property
    def files(self) -> int:
        """Files walked."""
        return self.walked.total()

    def add(self, receipt: Receipt) -> None:
        """Count what came of one partition."""
        self.walked += receipt.statuses
        self.rewalked += len(receipt.replaced)
        self.skipped += receipt.skipped
        self.vanished += receipt.vanished
        self.hdus += receipt.hdus
        self.cards += receipt.cards
        self.requests += receipt.requests
        self.bytes_read += receipt.bytes_read
        self.round_trips += receipt.round_trips
        self.retries += receipt.retries
        self.lost += receipt.lost
        self.first_error = self.first_error or receipt.first_error

    def counts(self) -> dict[str, Any]:
        """Return all of it but what it is of, as JSON has it."""
        told = {name: getattr(self, name) for name in self.__slots__ if name not in {"crawl", "catalogue"}}
        told["listed_at"] = None if self.listed_at is None else self.listed_at.isoformat(timespec="seconds")
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in told.items()}
