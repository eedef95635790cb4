"""What to crawl and how: one frozen value that travels to every worker."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from crawler.fits.policy import Costs
from crawler.settings import Settings
from crawler.stores.traffic import Patience
from crawler.stores.urls import scheme_of
from crawler.walk import Scope

Adapter = Literal["auto", "obstore", "fsspec"]


def new_crawl_id() -> str:
    """Return an id for a run: sorts by time, and no two are equal."""
    return f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class CrawlJob:
    """What to crawl and how.

    Attributes
    ----------
    roots : tuple of str
        Folders, files, URLs, ``@`` key files; as the user gave them.
    catalogue : str
        Path or URL of the catalogue's folder.
    include, exclude : tuple of str or None
        Globs; None for the default.
    storage_options : mapping
        Of the stores of the roots, as fsspec spells them. May hold secrets: never printed, never written.
    catalogue_options : mapping
        Of the store of the catalogue, where it is not on the local disk; apart from those of the roots, because a
        public bucket is read by nobody in particular and a catalogue is written by somebody. May hold secrets.
    adapter : {'auto', 'obstore', 'fsspec'}
        What reads the roots.
    concurrency : int or None
        Requests that one worker has under way at once; None for what suits the store.
    allow_removals : bool
        Remove what is gone even where that is more than a tenth of the catalogue.
    relist : bool
        List anew even where an earlier run has left a listing.
    crawl : str
        Id of the run.
    known : int or None
        Version of the catalogue whose unchanged files are not walked again; None for a new catalogue.
    resumed : bool
        The files are those of a listing that an earlier run has left. A file that the store does not have any more gets
        no row: it was deleted after it was listed.
    batch_bytes : int
        Bytes of headers that a worker holds before it writes them: bounds its memory, whatever the files are.
    scope : Scope
        How files are walked, and how far.
    costs : Costs
        What the store charges.
    max_requests_per_second : float or None
        Requests that all workers together may make in a second.
    patience : Patience
        For how long requests are tried again.
    max_usd : float or None
        What the run may spend at the store, in dollars.
    stop_seconds : float
        Seconds in which walks may end after the run was asked to stop. Longer ones are abandoned.
    learn : bool
        Ask for the headers of a file where its siblings have theirs. It changes requests, and never results.
    settings : Settings
        Thresholds of the driver.
    """

    roots: tuple[str, ...]
    catalogue: str
    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    catalogue_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    adapter: Adapter = "auto"
    concurrency: int | None = None
    allow_removals: bool = False
    relist: bool = False
    crawl: str = field(default_factory=new_crawl_id)
    known: int | None = None
    resumed: bool = False
    batch_bytes: int = 16 * 2**20
    scope: Scope = Scope()
    costs: Costs = Costs()
    max_requests_per_second: float | None = None
    patience: Patience = Patience()
    max_usd: float | None = None
    stop_seconds: float = 5.0
    learn: bool = True
    settings: Settings = Settings()

    def options_for(self, url: str) -> Mapping[str, Any]:
        """Return the options of the store that reads ``url``.

        They are those of the remote roots; the local disk, where a key file of remote objects often lies, has none.
        Where every root is on the local disk they are passed on all the same, so that its store can refuse them.
        """
        elsewhere = any(root.startswith("@") or scheme_of(root) not in {"", "file"} for root in self.roots)
        return {} if elsewhere and scheme_of(url) == "file" else self.storage_options
