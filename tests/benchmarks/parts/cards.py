"""CPU time a card of the crawler and of astropy: the same headers, in one process, nothing read and nothing written."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

from astropy.io import fits

import crawler
from crawler.fits.cards import parse_cards
from tests.benchmarks.markdown import table
from tests.benchmarks.measure import write_archive
from tests.benchmarks.parts.base import Counts, Section
from tests.benchmarks.peers import read_cards
from tests.benchmarks.products.all import PRODUCTS
from tests.benchmarks.products.product import Layout
from tests.benchmarks.products.template import CARD

_SIBLINGS = 500


def run(folder: Path, counts: Counts) -> Section:
    """Read every card of headers that are alike and, where they are at hand, of those of the corpus."""
    headers = {
        "one header": siblings(1),
        f"{_SIBLINGS} headers of siblings": siblings(counts.at_most(_SIBLINGS)),
    }
    if archive := write_archive(folder, ""):
        crawler.index(str(folder / archive), str(folder / "catalogue"), include=["*"])
        rows = crawler.Catalogue(str(folder / "catalogue")).hdus.to_table(columns=["header"])
        headers["every header of the corpus"] = rows["header"].to_pylist()
    parse_cards(headers["one header"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells = [_compared(name, some) for name, some in headers.items()]
    columns = (
        "process CPU, best of five",
        "headers",
        "card images",
        "astropy, us a card",
        "crawler, us a card",
        "times",
    )
    return Section("Cards alone", table(columns, cells))


def siblings(count: int) -> list[bytes]:
    """Return primary headers of HST exposures, up to END."""
    product = PRODUCTS["hst-flt"]
    layout = Layout(product.units_of((0, "")), product.name_length)
    headers = []
    for number in range(count):
        pieces, _ = layout.file(number, product.key(number).rpartition("/")[2])
        headers.append(pieces[0][1].partition(b"END".ljust(CARD))[0])
    return headers


def _compared(name: str, headers: Sequence[bytes]) -> list[object]:
    images = sum(map(len, headers)) // CARD
    theirs = _cpu_seconds(_by_astropy, headers) / images * 1e6
    ours = _cpu_seconds(parse_cards, headers) / images * 1e6
    return [name, len(headers), images, theirs, ours, theirs / ours]


def _by_astropy(headers: Sequence[bytes]) -> None:
    for raw in headers:
        read_cards(fits.Header.fromstring(raw))


def _cpu_seconds(read: Callable[[Sequence[bytes]], object], headers: Sequence[bytes], least: float = 1.0) -> float:
    """Return the CPU time of one call: the best of five, or of as many as take ``least`` seconds."""
    best = float("inf")
    spent, calls = 0.0, 0
    while (spent < least and calls < 5) or calls < 1:
        start = time.process_time()
        read(headers)
        taken = time.process_time() - start
        best, spent, calls = min(best, taken), spent + taken, calls + 1
    return best
