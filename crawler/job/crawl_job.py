"""What to crawl and how: one frozen value that travels to every worker, and the one function that builds it."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from crawler.errors import UsageError
from crawler.fits.policy import Costs, Goal, prices, read_policy
from crawler.job.scope import Scope
from crawler.job.settings import Settings
from crawler.stores.retry import Patience
from crawler.stores.urls import PathOrUrl, scheme_of, text_of, texts_of

Text = TypeVar("Text")

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


def build_job(
    roots: PathOrUrl | Iterable[PathOrUrl],
    catalogue: PathOrUrl | None,
    *,
    include: str | Iterable[str] | None = None,
    exclude: str | Iterable[str] = (),
    concurrency: int | None = None,
    optimize: Goal = "time",
    costs: Mapping[str, float] | None = None,
    max_hdus: int | None = None,
    max_requests_per_second: float | None = None,
    max_usd: float | None = None,
    file_timeout: float | None = None,
    storage_options: Mapping[str, Any] | None = None,
    catalogue_options: Mapping[str, Any] | None = None,
    allow_removals: bool = False,
    relist: bool = False,
    store: Adapter = "auto",
) -> CrawlJob:
    """Return the job of a call of `crawler.index` or `crawler.estimate`, whose arguments these are.

    Checks every argument, as far as that needs no look at a store. A local path of the catalogue becomes absolute,
    since workers have other working folders.

    Raises
    ------
    UsageError
        An argument has a wrong type or value. The message names the argument, and repeats no option of a store.
    """
    if store not in get_args(Adapter):
        raise UsageError(f"store is one of {', '.join(get_args(Adapter))}, not {store!r}")
    if not isinstance(optimize, str):
        raise UsageError(f"optimize is one of {', '.join(get_args(Goal))}, not {optimize!r}")
    max_hdus = check_count("max_hdus", max_hdus)
    timeout = _check_amount("file_timeout", file_timeout)
    figures = _check_mapping("costs", costs)
    return CrawlJob(
        roots=_check_roots(roots),
        catalogue=_absolute("" if catalogue is None else _named("catalogue", text_of, catalogue)),
        include=None if include is None else _check_globs("include", include),
        exclude=_check_globs("exclude", exclude),
        storage_options=_check_mapping("storage_options", storage_options),
        catalogue_options=_check_mapping("catalogue_options", catalogue_options),
        adapter=store,
        concurrency=check_count("concurrency", concurrency),
        allow_removals=allow_removals,
        relist=relist,
        scope=Scope(policy=read_policy(optimize, figures), max_hdus=max_hdus, timeout=timeout or Scope().timeout),
        costs=prices(optimize, figures),
        max_requests_per_second=_check_amount("max_requests_per_second", max_requests_per_second),
        max_usd=_check_amount("max_usd", max_usd),
    )


def check_count(name: str, value: int | None, least: int = 1) -> int | None:
    """Return an argument that is a whole number or None.

    Raises
    ------
    UsageError
        It is neither, or less than ``least``.
    """
    if value is None:
        return None
    if not isinstance(value, Integral) or isinstance(value, bool):
        raise UsageError(f"{name} must be a whole number, not a value of type {type(value).__name__}")
    if value < least:
        raise UsageError(f"{name} must be at least {least}, not {value}")
    return int(value)


def _check_amount(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    if not isinstance(value, Real) or isinstance(value, bool):
        raise UsageError(f"{name} must be a number, not a value of type {type(value).__name__}")
    if not 0 < value < math.inf:
        raise UsageError(f"{name} must be a number above 0, not {value}")
    return float(value)


def _check_mapping(name: str, value: Mapping[str, Any] | None) -> dict[str, Any]:
    if value is not None and not isinstance(value, Mapping):
        raise UsageError(f"{name} must be a mapping, not a value of type {type(value).__name__}")
    return dict(value or {})


def _check_globs(name: str, value: str | Iterable[str]) -> tuple[str, ...]:
    globs = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, Iterable) else (value,)
    if not all(isinstance(glob, str) for glob in globs):
        raise UsageError(f"{name} must be globs: a string, or a list of strings")
    return globs


def _check_roots(value: PathOrUrl | Iterable[PathOrUrl]) -> tuple[str, ...]:
    roots = _named("roots", texts_of, value)
    if not roots:
        raise UsageError("roots is empty: name a folder, a file or a URL")
    return roots


def _named(name: str, convert: Callable[[Any], Text], value: Any) -> Text:
    """Convert an argument, and name it in the error."""
    try:
        return convert(value)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from None


def _absolute(catalogue: str) -> str:
    return catalogue if not catalogue or scheme_of(catalogue) else str(Path(catalogue).expanduser().absolute())
