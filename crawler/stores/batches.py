"""Listings as record batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import pyarrow as pa

from crawler.stores.base import LISTING_SCHEMA, ObjectRef

BATCH_ROWS = 1_000
"""Rows of a listing's batch at most: one page of S3, so that what is listed is seen early and little is
held."""


def batches(refs: Iterable[ObjectRef], limit: int | None = None) -> Iterator[pa.RecordBatch]:
    """Yield ``refs`` as batches of `LISTING_SCHEMA`, holding one batch at a time.

    Parameters
    ----------
    refs : iterable of ObjectRef
    limit : int, optional
        Rows that the caller takes, at most: no batch has more.
    """
    refs = iter(refs)
    while chunk := list(islice(refs, min(BATCH_ROWS, limit or BATCH_ROWS))):
        columns = [pa.array([getattr(ref, f.name) for ref in chunk], type=f.type) for f in LISTING_SCHEMA]
        yield pa.record_batch(columns, schema=LISTING_SCHEMA)
