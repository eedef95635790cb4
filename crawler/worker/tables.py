"""What a walk found, as rows of the three tables."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from crawler.catalogue.schema import FILES, HDUS
from crawler.fits.cards import joined, pack_cards
from crawler.fits.units import CARD
from crawler.fits.walker import WALKER_VERSION
from crawler.stores.urls import one_line
from crawler.worker.walk import FileResult

_MAX_ERROR = 500  # characters: an error may quote an untrusted header


def tables_of(results: Sequence[FileResult], crawl: str, walked_at: datetime) -> dict[str, pa.Table]:
    """Turn the results of some files into rows.

    Parameters
    ----------
    results : sequence of FileResult
    crawl : str
        Id of the run.
    walked_at : datetime
        Aware, UTC.

    Returns
    -------
    dict of str to pyarrow.Table
        ``files``, ``hdus`` and ``cards``; the cards are packed (`crawler.fits.cards.pack_cards`).
    """
    hdus, cards = _hdus_and_cards(results)
    return {"files": _files(results, crawl, walked_at), "hdus": hdus, "cards": cards}


def _files(results: Sequence[FileResult], crawl: str, walked_at: datetime) -> pa.Table:
    count = len(results)
    columns: dict[str, list[Any]] = {
        "url": [one.ref.url for one in results],
        "size": [one.ref.size for one in results],
        "etag": [one.ref.etag for one in results],
        "version": [one.ref.version for one in results],
        "last_modified": [one.ref.last_modified for one in results],
        "status": [one.status for one in results],
        "error": [None if one.error is None else one_line(one.error, limit=_MAX_ERROR) for one in results],
        "compression": [one.compression for one in results],
        "n_hdus": [len(one.hdus) for one in results],
        "trailing_bytes": [one.trailing_bytes for one in results],
        "pinned": [one.pinned for one in results],
        "requests": [one.requests for one in results],
        "bytes_read": [one.bytes_read for one in results],
        "walker_version": [WALKER_VERSION] * count,
        "crawl": [crawl] * count,
        "walked_at": [walked_at] * count,
    }
    return pa.table(columns, schema=FILES)


def _hdus_and_cards(results: Sequence[FileResult]) -> tuple[pa.Table, pa.Table]:
    urls = pa.array([one.ref.url for one in results], pa.string())
    hdus = [hdu for one in results for hdu in one.hdus]
    owner = np.repeat(np.arange(len(results), dtype=np.int32), [len(one.hdus) for one in results])
    headers = joined([hdu.header for hdu in hdus])
    cards = pack_cards(headers)
    header = cards["header"].to_numpy()
    number = np.array([hdu.index for hdu in hdus], np.int32)
    url = pa.DictionaryArray.from_arrays(pa.array(owner), urls)

    columns: dict[str, Any] = {
        "url": url.cast(pa.string()),
        "hdu": number,
        **_extension_names(cards, len(hdus)),
        "n_cards": [len(hdu.header) // CARD for hdu in hdus],
        "header": headers,
    }
    for name in HDUS.names:
        if name not in columns:
            columns[name] = [getattr(hdu, name) for hdu in hdus]
    hdu_rows = pa.table({name: columns[name] for name in HDUS.names}, schema=HDUS)

    card_rows = cards.drop_columns(["header"])
    card_rows = card_rows.append_column("url", url.take(pa.array(header)))
    card_rows = card_rows.append_column("hdu", pa.array(number[header]))
    return hdu_rows, card_rows


def _extension_names(cards: pa.Table, count: int) -> dict[str, pa.Array]:
    """Return EXTNAME, EXTVER and EXTLEVEL of ``count`` headers, from their first cards that have such a value.

    From the parsed cards, so that the hdus table cannot differ from the cards table.
    """
    columns = {}
    reading = cards["reading"].combine_chunks()
    distinct = pa.RecordBatch.from_struct_array(reading.dictionary)
    indices, headers = reading.indices.to_numpy(), cards["header"].to_numpy()
    for name, keyword, value in (
        ("extname", "EXTNAME", "value"),
        ("extver", "EXTVER", "integer"),
        ("extlevel", "EXTLEVEL", "integer"),
    ):
        wanted = pc.equal(distinct["keyword"], keyword)
        if value == "value":
            wanted = pc.and_(wanted, pc.equal(distinct["type"], "string"))
        found = np.flatnonzero(wanted.to_numpy(zero_copy_only=False)[indices])
        owners, first = np.unique(headers[found], return_index=True)
        rows = np.zeros(count, np.int64)
        rows[owners] = indices[found[first]]
        missing = np.ones(count, bool)
        missing[owners] = False
        columns[name] = distinct[value].take(pa.array(rows, mask=missing))
    return columns
