"""The catalogue of real files holds what astropy finds in them: every HDU, every offset, every card.

Nothing is exempt by name. Every difference is collected, and the first are shown. Where astropy is no judge, the test
says so where it makes the exception, and counts it.
"""

from __future__ import annotations

import bz2
import gzip
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
from astropy.io import fits

from crawler.catalogue.reader import Catalogue
from tests.conformance.conftest import Indexed
from tests.conformance.oracle import CardCounts, compare_cards

BLOCK = 2880
CARD = 80

Tell = Callable[[str], None]
Row = dict[str, Any]


def show(mismatches: list[str]) -> str:
    return f"{len(mismatches)} differences, the first of them:\n" + "\n".join(mismatches[:20])


def hdu_rows(catalogue: Catalogue, columns: list[str]) -> dict[str, list[Row]]:
    """Return the rows of ``hdus`` by url, in their order."""
    table = catalogue.hdus.to_table(columns=["url", "hdu", *columns]).sort_by(
        [("url", "ascending"), ("hdu", "ascending")]
    )
    return {url: list(rows) for url, rows in groupby(table.to_pylist(), key=itemgetter("url"))}


def test_every_file_is_a_row(indexed: Indexed, tell: Tell) -> None:
    rows = indexed.catalogue.files.to_table().to_pylist()
    assert sorted(row["url"] for row in rows) == sorted(indexed.paths)
    statuses = Counter(row["status"] for row in rows)
    assert indexed.report.walked == statuses
    assert set(statuses) <= {"ok", "truncated", "corrupt", "not-fits"}
    hdus = hdu_rows(indexed.catalogue, [])
    mismatches = []
    for row in rows:
        numbers = [hdu["hdu"] for hdu in hdus.get(row["url"], [])]
        if numbers != list(range(row["n_hdus"])):
            mismatches.append(f"{row['url']}: n_hdus = {row['n_hdus']}, but rows {numbers}")
        if row["size"] != indexed.paths[row["url"]].stat().st_size:
            mismatches.append(f"{row['url']}: size {row['size']}")
        if (row["status"] == "ok") != (row["error"] is None) or (row["error"] and not row["error"].isprintable()):
            mismatches.append(f"{row['url']}: {row['status']}, {row['error']}")
        if not row["pinned"]:
            mismatches.append(f"{row['url']}: not pinned")
    assert not mismatches, show(mismatches)
    counts = ", ".join(f"{count} {status}" for status, count in statuses.most_common())
    tell(f"{len(rows)} files ({counts}), {sum(map(len, hdus.values()))} HDUs")


LAYOUT = ["header_offset", "header_size", "data_offset", "data_size", "shape", "header"]


def test_layout_is_that_of_astropy(indexed: Indexed, tell: Tell) -> None:
    """Every file that astropy opens has as many HDUs in the catalogue, at the same places and of the same size."""
    files = indexed.catalogue.files.to_table(columns=["url", "status", "error", "trailing_bytes"]).to_pylist()
    hdus = hdu_rows(indexed.catalogue, LAYOUT)
    counts: Counter[str] = Counter()
    mismatches: list[str] = []
    for file in files:
        if file["status"] == "corrupt":
            # astropy multiplies negative axes, seeks backwards and reads the same HDU for ever.
            counts["corrupt, not given to astropy"] += 1
            continue
        found, whole = read_layout(indexed.paths[file["url"]])
        rows = hdus.get(file["url"], [])
        if not found:
            counts[f"not opened by astropy ({file['status']})"] += 1
            continue
        if not whole:
            counts["given up by astropy after the HDUs compared"] += 1
            rows = rows[: len(found)]
        counts["files opened"] += 1
        counts["HDUs compared"] += len(found)
        mismatches += compare_layout(file, rows, found, counts)
    assert not mismatches, show(mismatches)
    assert counts["files opened"]
    tell("layout: " + ", ".join(f"{count} {what}" for what, count in counts.items()))


def read_layout(path: Path) -> tuple[list[tuple[str, int, int, int]], bool]:
    """Ask astropy for the HDUs of a file.

    Returns
    -------
    found : list of (str, int, int, int)
        Class, where header and data begin, and the size of the data, of every HDU up to the first that cannot be read.
    whole : bool
        Whether all could be.
    """
    found: list[tuple[str, int, int, int]] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # Compressed images as the tables that they are in the file.
            with fits.open(path, disable_image_compression=True, memmap=False) as opened:
                for hdu in opened:
                    found.append((type(hdu).__name__, hdu._header_offset, hdu._data_offset, hdu.size))
        except Exception:  # whatever it is: astropy goes no further
            return found, False
    return found, True


def compare_layout(
    file: Row, rows: list[Row], found: list[tuple[str, int, int, int]], counts: Counter[str]
) -> list[str]:
    """Return one line for every difference."""
    if found[0][0] == "_NonstandardHDU":
        # SIMPLE = F: astropy takes all that follows the header for data; the catalogue walks on.
        counts["SIMPLE = F, compared to the file's end"] += 1
        (_, header_offset, data_offset, size) = found[0]
        first, last = rows[0], rows[-1]
        rest = last["data_offset"] + -(-last["data_size"] // BLOCK) * BLOCK - first["data_offset"]
        ours = (first["header_offset"], first["data_offset"], rest + (file["trailing_bytes"] or 0))
        theirs = (header_offset, data_offset, size)
        return [] if ours == theirs else [f"{file['url']}: SIMPLE = F, astropy {theirs}, catalogue {ours}"]
    if len(rows) != len(found):
        return [
            f"{file['url']}: astropy has {len(found)} HDUs, the catalogue {len(rows)} "
            f"({file['status']}, {file['error']})"
        ]
    mismatches = []
    for row, (kind, *theirs) in zip(rows, found, strict=True):
        ours = [row["header_offset"], row["data_offset"], row["data_size"]]
        if kind == "GroupsHDU" and row["shape"] and row["shape"][0] != 0:
            # GROUPS = T, but NAXIS1 is not 0, so that these are no random groups (FITS Standard 4.0, section 6.1.1);
            # astropy leaves NAXIS1 out all the same. Headers of HST's GEIS format, SIMPLE = F, are such; that the file
            # ends where the catalogue says its data do is what shows who is right.
            counts["GROUPS = T without groups, data size compared with the file's end"] += 1
            assert row["header"][:30].split() == [b"SIMPLE", b"=", b"F"], row["url"]
            assert (file["status"], file["trailing_bytes"]) == ("ok", 0), row["url"]
            del ours[2], theirs[2]
        if ours != theirs or row["header_offset"] + row["header_size"] != row["data_offset"]:
            mismatches.append(f"{file['url']}[{row['hdu']}]: astropy {kind} {theirs}, catalogue {ours}")
    return mismatches


def open_file(path: Path, compression: str | None) -> BinaryIO:
    """Open a file by Python's own means, decompressed."""
    opener: Any = {None: open, "gzip": gzip.open, "bzip2": bz2.open}[compression]
    return cast(BinaryIO, opener(path, "rb"))


def test_headers_are_the_bytes_of_the_file(indexed: Indexed, tell: Tell) -> None:
    files = indexed.catalogue.files.to_table(columns=["url", "compression"]).to_pylist()
    hdus = hdu_rows(indexed.catalogue, ["header_offset", "header_size", "n_cards", "header"])
    mismatches = []
    count = total = 0
    for file in files:
        if file["url"] not in hdus:
            continue
        with open_file(indexed.paths[file["url"]], file["compression"]) as stream:
            for row in hdus[file["url"]]:
                header = row["header"]
                stream.seek(row["header_offset"])
                stored = stream.read(len(header) + CARD)
                count, total = count + 1, total + len(header)
                if (
                    not stored.startswith(header)
                    or not stored.startswith(b"END", len(header))
                    or len(header) != row["n_cards"] * CARD
                    or not len(header) < row["header_size"] < len(header) + CARD + BLOCK
                ):
                    mismatches.append(f"{row['url']}[{row['hdu']}]")
    assert not mismatches, show(mismatches)
    assert count
    tell(f"headers: {count} equal to the file's bytes, {total} bytes in all")


def test_header_is_given_back_as_stored(indexed: Indexed, tell: Tell) -> None:
    """`Catalogue.header` of every 25th HDU: each one is a query of its own."""
    wanted = [row for rows in hdu_rows(indexed.catalogue, ["header"]).values() for row in rows][::25]
    mismatches = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy's, of cards that are no cards
        for row in wanted:
            header = indexed.catalogue.header(row["url"], row["hdu"])
            if header.tostring(endcard=False, padding=False).encode("latin-1") != row["header"]:
                mismatches.append(f"{row['url']}[{row['hdu']}]")
    assert not mismatches, show(mismatches)
    tell(f"Catalogue.header: {len(wanted)} given back as stored")


def cards_by_header(catalogue: Catalogue) -> Iterator[tuple[str, int, pa.Table]]:
    """Yield the cards of one header after the other: the table is read and sorted once, and cut where a header ends."""
    table = catalogue.cards.to_table().combine_chunks()
    urls = table["url"].combine_chunks().dictionary_encode()
    url, hdu, card = urls.indices.to_numpy(), table["hdu"].to_numpy(), table["card"].to_numpy()
    order = np.lexsort((card, hdu, url))
    url, hdu = url[order], hdu[order]
    starts = np.flatnonzero(np.append(True, (np.diff(url) != 0) | (np.diff(hdu) != 0)))
    rows = table.drop_columns(["url", "hdu"]).take(pa.array(order))
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=True):
        yield urls.dictionary[int(url[start])].as_py(), int(hdu[start]), rows.slice(start, stop - start)


def test_cards_are_those_of_astropy(indexed: Indexed, tell: Tell) -> None:
    """Every card has the keyword, value, type and comment that astropy reads from the same bytes."""
    headers = {
        (url, row["hdu"]): row["header"]
        for url, rows in hdu_rows(indexed.catalogue, ["header"]).items()
        for row in rows
    }
    counts = CardCounts()
    n_rows = 0
    for url, hdu, rows in cards_by_header(indexed.catalogue):
        raw = headers.pop((url, hdu))
        found = compare_cards(raw, rows)
        n_rows += rows.num_rows
        found.mismatches = [f"{url}[{hdu}]: {line}" for line in found.mismatches]
        counts += found
    # Headers without a single card have no rows; all others must have been compared.
    mismatches = counts.mismatches + [f"{url}[{hdu}]: no cards" for (url, hdu), raw in headers.items() if raw]
    assert not mismatches, show(mismatches)
    assert counts.equal + counts.complained == n_rows == indexed.catalogue.cards.count_rows()
    tell(
        f"cards: {n_rows}, of them {counts.equal} equal ({counts.record_valued} record-valued), "
        f"{counts.complained} that astropy complains of"
    )
