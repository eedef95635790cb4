"""What others say of an object, as a listing and the catalogue can hold it: sizes, ETags, versions, times, URLs.

A listing, a server or a file system may say anything. One rule holds for all of them: a value that is not what it
should be is unknown, so it becomes None (null in a column), and never something that only looks like it.

- A size is a whole number from 0 to 2^63 - 1. The first read of an object tells an unknown size.
- An ETag or a version is 1 to 1,024 printable ASCII characters: what an HTTP header can carry back. Reads of an object
  whose ETag is unknown are not pinned by it.
- A time lies in the years 1 to 9999 of UTC, which is what `datetime.datetime` can hold.
- A URL is text that UTF-8 can write. An object has no row without its URL, so `writable` escapes all other characters.

The functions that end in ``_column`` do to an Arrow column what the others do to one value. They raise `TypeError` for
a column of a type that cannot hold such values.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crawler.stores.base import LISTING_SCHEMA, ObjectRef

LARGEST = 2**63 - 1
"""Largest size in bytes that the catalogue can hold."""

LONGEST_TAG = 1024
"""Characters of the longest ETag or version. S3 makes them of 32 to 100 and allows 1,024 ("Versioning", User Guide)."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(seconds=1)
_LAST = (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - _EPOCH) // timedelta(seconds=1)
_TIME = LISTING_SCHEMA.field("last_modified").type
_TICKS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_TAG = re.compile(rf"[ -~]{{1,{LONGEST_TAG}}}")
_EARLY_YEAR = re.compile(r"(?<![-+:0-9])00[0-9]{2}\b")  # email.utils takes the year 0001 for 2001
_DIGITS = r"^[0-9]{1,18}$"
_LONGEST_DATE = 64  # characters; those of HTTP have 29


def describe(
    url: str, *, size: object = None, etag: object = None, version: object = None, modified: object = None
) -> ObjectRef:
    """Return an object as others describe it; what they do not say, or not as it should be, is None."""
    return ObjectRef(url, size_of(size), tag_of(etag), tag_of(version), time_of(modified))


def size_of(value: object) -> int | None:
    """Return a size in bytes; None of what is no whole number, negative or beyond `LARGEST`."""
    if isinstance(value, str) and len(value) <= 18 and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= LARGEST else None


def tag_of(value: object) -> str | None:
    """Return an ETag or a version; None of what no HTTP header could carry back."""
    if isinstance(value, int) and not isinstance(value, bool) and size_of(value) is not None:
        return str(value)  # a generation
    if isinstance(value, (bytes, bytearray)):
        return value.hex() if 0 < len(value) <= LONGEST_TAG // 2 else None  # a checksum
    return value if isinstance(value, str) and _TAG.fullmatch(value) else None


def time_of(value: object) -> datetime | None:
    """Return a time in UTC; None of what is none, or lies outside the years 1 to 9999.

    Parameters
    ----------
    value : object
        A datetime (of UTC where it has no zone), seconds since 1970, or text as ISO 8601 has it.
    """
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            value = _EPOCH + timedelta(seconds=value)
        if not isinstance(value, datetime):
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def http_time_of(text: str | None) -> datetime | None:
    """Return the time that an HTTP header says (RFC 9110, section 5.6.7); None as for `time_of`."""
    if text is None or len(text) > _LONGEST_DATE or _EARLY_YEAR.search(text):
        return None
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):  # what it raises for text that is no date
        return None
    return time_of(moment)


def microseconds_of(nanoseconds: int) -> int | None:
    """Return a time since 1970 in microseconds; None outside the years 1 to 9999."""
    return nanoseconds // 1000 if _FIRST <= nanoseconds // 10**9 <= _LAST else None


def writable(text: str) -> str:
    r"""Return text that UTF-8 can write: with lone surrogates, which stand for bytes that are no UTF-8, as ``\udcff``.

    An object of such a URL has its row. The store does not know the escaped name, and the row says so.
    """
    return text if text.isascii() else text.encode("utf-8", errors="backslashreplace").decode()


def size_column(column: pa.Array) -> pa.Array:
    """Return a column of sizes. Takes integers, floats, decimals, and text of digits.

    Raises
    ------
    TypeError
    """
    column = _plain(column)
    kind = column.type
    if pa.types.is_integer(kind):
        sizes = column.cast(pa.int64(), safe=False)  # unsigned ones beyond 2^63 become negative
        return pc.if_else(pc.greater_equal(sizes, 0), sizes, None)
    if pa.types.is_floating(kind):
        floats = column.cast(pa.float64()).to_numpy(zero_copy_only=False)
        good = (floats >= 0) & (floats < 2.0**63) & (floats == np.floor(floats))
        return pa.array(np.where(good, floats, 0).astype(np.int64), mask=~good)
    if pa.types.is_decimal(kind):
        column, kind = column.cast(pa.string()), pa.string()
    if _is_text(kind):
        digits = column.cast(pa.binary())
        return pc.if_else(pc.match_substring_regex(digits, _DIGITS), digits, None).cast(pa.string()).cast(pa.int64())
    raise TypeError(f"{kind}, not a number of bytes")


def tag_column(column: pa.Array) -> pa.Array:
    """Return a column of ETags or versions. Takes text and integers.

    Raises
    ------
    TypeError
    """
    column = _plain(column)
    kind = column.type
    if pa.types.is_integer(kind):
        return column.cast(pa.string())
    if not _is_text(kind):
        raise TypeError(f"{kind}, not text")
    raw = column.cast(pa.binary())
    good = pc.and_(pc.less_equal(pc.binary_length(raw), LONGEST_TAG), pc.match_substring_regex(raw, "^[ -~]+$"))
    return pc.if_else(good, raw, None).cast(pa.string())


def time_column(column: pa.Array) -> pa.Array:
    """Return a column of times. Takes timestamps, of UTC where they have no zone, dates, and text as ISO 8601 has it.

    Raises
    ------
    TypeError
        Numbers, among others: they do not say their unit.
    """
    column = _plain(column)
    if _is_text(column.type):
        return _read_times(tag_column(column))
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("s" if pa.types.is_date32(column.type) else "ms"))
    if not pa.types.is_timestamp(column.type):
        raise TypeError(f"{column.type}, not a time")
    unit = column.type.unit
    ticks = column.cast(pa.int64())
    first, last = max(_FIRST * _TICKS[unit], -LARGEST), min((_LAST + 1) * _TICKS[unit] - 1, LARGEST)
    good = pc.and_(pc.greater_equal(ticks, first), pc.less_equal(ticks, last))
    ticks = pc.if_else(good, ticks, None)
    return ticks.cast(pa.timestamp(unit)).cast(pa.timestamp("us"), safe=False).cast(_TIME)


def _read_times(texts: pa.Array) -> pa.Array:
    try:
        return time_column(texts.cast(_TIME))
    except pa.ArrowInvalid:  # one of them at least is written in another way
        return pa.array([time_of(text) for text in texts.to_pylist()], _TIME)


def _plain(column: pa.Array) -> pa.Array:
    """Return a column of values, not of indices of them; of text where all are null."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return pa.nulls(len(column), pa.string()) if pa.types.is_null(column.type) else column


def _is_text(kind: Any) -> bool:
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    views = (pa.types.is_string_view, pa.types.is_binary_view)
    return any(test(kind) for test in (*tests, *views))
