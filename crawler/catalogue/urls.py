"""Sets of urls that are small enough for a driver to hold."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


class Urls:
    """A set of urls at eight bytes each, that may take a url for one of its own but never the other way round.

    A 64-bit hash that two urls share makes one of 10 million look listed once in a million runs: the rows of a file
    that is gone stay until the next.
    """

    def __init__(self) -> None:
        self._hashes: list[npt.NDArray[np.int64]] = []

    def add(self, urls: list[str]) -> None:
        """Add urls."""
        self._hashes.append(_hashed(urls))

    def missing(self, urls: list[str]) -> list[str]:
        """Return those that were not added."""
        if not self._hashes:
            return urls
        self._hashes = [np.unique(np.concatenate(self._hashes))]
        there = np.isin(_hashed(urls), self._hashes[0])
        return [url for url, known in zip(urls, there, strict=True) if not known]


def _hashed(urls: list[str]) -> npt.NDArray[np.int64]:
    return np.fromiter(map(hash, urls), np.int64, len(urls))
