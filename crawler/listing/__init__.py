"""Listing: roots as the user names them, to a stream of objects, and that to partitions of keys."""

from crawler.listing.globs import DEFAULT_INCLUDE, NameFilter
from crawler.listing.roots import Listing, list_roots, partitions

__all__ = ["DEFAULT_INCLUDE", "Listing", "NameFilter", "list_roots", "partitions"]
