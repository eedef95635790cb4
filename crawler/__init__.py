"""Index the headers of FITS files, wherever they lie, as a Parquet catalogue.

>>> import crawler
>>> report = crawler.index(["~/data"], "my-catalogue")                     # doctest: +SKIP
>>> crawler.Catalogue("my-catalogue").sql("SELECT * FROM files LIMIT 5")   # doctest: +SKIP
>>> [unit.fits["NAXIS"] for unit in crawler.load_headers("image.fits")]    # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crawler.api import index
    from crawler.catalogue.reader import Catalogue
    from crawler.driver.report import Report
    from crawler.errors import CrawlerError
    from crawler.estimation import Estimate, estimate
    from crawler.headers import HeaderUnit, load_headers

__version__ = "0.1.0"

__all__ = ["Catalogue", "CrawlerError", "Estimate", "HeaderUnit", "Report", "estimate", "index", "load_headers"]

_HOME = {
    "Catalogue": "crawler.catalogue.reader",
    "CrawlerError": "crawler.errors",
    "Estimate": "crawler.estimation",
    "HeaderUnit": "crawler.headers",
    "Report": "crawler.driver.report",
    "estimate": "crawler.estimation",
    "index": "crawler.api",
    "load_headers": "crawler.headers",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: Arrow, Delta and DuckDB together take a second to load."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
