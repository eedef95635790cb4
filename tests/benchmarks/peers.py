"""What else reads the headers of objects on S3: one function a reader, from a key to the HDUs and cards that it read.

All read the value of every card of every HDU; the notes say where one cannot. Each is used as its documentation shows
it. Astropy is also used as it turned out to be best, of blocks of 8, 16, 32, 64, 128 and 256 kB and 50 MiB with each
cache of fsspec (readahead, blockcache, background, first, bytes, mmap, none), with and without a listing before: with
the default blocks it makes fewest requests and reads whole files; with 64 kB read ahead it takes least CPU.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import quote

from astropy.io import fits

BLOCK = 2880
CREDENTIALS = {"key": "benchmark", "secret": "benchmark"}

Read = tuple[int, int]
"""HDUs and cards."""


@dataclass(frozen=True)
class Bucket:
    """Where a reader finds objects.

    Attributes
    ----------
    endpoint, name : str
    with_data : dict of str to list of int
        The numbers of the HDUs that have data, by key: for a reader that has to be told.
    """

    endpoint: str
    name: str
    with_data: Mapping[str, list[int]] = field(default_factory=dict)

    @property
    def options(self) -> dict[str, Any]:
        """Storage options, as fsspec spells them."""
        return {"endpoint_url": self.endpoint, **CREDENTIALS}


Reader = Callable[[str], Read]


@dataclass(frozen=True)
class Peer:
    """A reader.

    Attributes
    ----------
    title : str
    wire : str
        What it does on the wire.
    open : callable
        From a bucket to the function that reads one of its objects.
    module : str
        That must be installed.
    """

    title: str
    wire: str
    open: Callable[[Bucket], Reader]
    module: str = "s3fs"


def read_cards(header: fits.Header) -> int:
    """Read keyword, value and comment of every card; values that are none are left."""
    cards = 0
    for card in header.cards:
        cards += 1
        try:
            _ = card.keyword, card.value, card.comment
        except fits.VerifyError:
            continue
    return cards


def _astropy(bucket: Bucket, *, listed: bool = False, **how: object) -> Reader:
    """Return `fits.open` over s3fs; ``listed`` fills the cache of s3fs by a listing first, which saves the HEADs."""
    options = {**bucket.options, **how}
    if listed:
        from s3fs import S3FileSystem  # noqa: PLC0415

        S3FileSystem(**options).find(bucket.name)

    def read(key: str) -> Read:
        name = f"s3://{bucket.name}/{key}"
        with fits.open(name, use_fsspec=True, fsspec_kwargs=options, disable_image_compression=True) as hdus:
            cards = [read_cards(hdu.header) for hdu in hdus]
        return len(cards), sum(cards)

    return read


def _astropy_local(bucket: Bucket) -> Reader:
    """Return `fits.open` of files: the bucket is a folder."""

    def read(key: str) -> Read:
        with fits.open(f"{bucket.name}/{key}", disable_image_compression=True) as hdus:
            cards = [read_cards(hdu.header) for hdu in hdus]
        return len(cards), sum(cards)

    return read


def _block_by_block(bucket: Bucket) -> Reader:
    """Return astro-cloud's loop: 2,880 bytes a request until END, jump the data, stop at what is beyond the end.

    Its own arithmetic knows images and tables without padding only; here it is astropy's. It opens a connection for
    every request; here s3fs keeps them. Nothing pins the ranges of a file to one version of it.
    """
    from s3fs import S3FileSystem  # noqa: PLC0415

    system = S3FileSystem(**bucket.options)

    def read(key: str) -> Read:
        name = f"{bucket.name}/{key}"
        at = hdus = cards = 0
        while True:
            blocks: list[bytes] = []
            while not blocks or not _has_end(blocks[-1]):
                try:
                    block = system.cat_file(name, start=at, end=at + BLOCK)
                except OSError as error:  # 416
                    if "Not Satisfiable" not in str(error):
                        raise
                    return hdus, cards
                blocks.append(block)
                at += len(block)
            header = fits.Header.fromstring(b"".join(blocks))
            hdus, cards = hdus + 1, cards + read_cards(header)
            at += -(-header.data_size // BLOCK) * BLOCK

    return read


def _has_end(block: bytes) -> bool:
    return any(block[start : start + 80].rstrip() == b"END" for start in range(0, len(block), 80))


def _cfitsio(bucket: Bucket) -> Reader:
    """Return fitsio over CFITSIO's own http driver, which knows no credentials: the objects must be public."""
    import fitsio  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: PLC0415

    def read(key: str) -> Read:
        with fitsio.FITS(f"{bucket.endpoint}/{bucket.name}/{quote(key)}") as hdus:
            cards = [_read_records(hdu.read_header().records()) for hdu in hdus]
        return len(cards), sum(cards)

    return read


def _read_records(records: list[dict[str, Any]]) -> int:
    return len([(record["name"], record["value"], record["comment"]) for record in records])


def _kerchunk(bucket: Bucket) -> Reader:
    """Return kerchunk's scan: it is told which HDUs have data; others, comments and repeated keywords it leaves out."""
    from kerchunk.fits import process_file  # type: ignore[import-not-found, import-untyped, unused-ignore]  # noqa: PLC0415

    def read(key: str) -> Read:
        numbers = bucket.with_data[key]
        references = process_file(
            f"s3://{bucket.name}/{key}", bucket.options, extension=numbers, primary_attr_to_group=True
        )
        found = [json.loads(text) for name, text in references.items() if name.endswith(".zattrs")]
        return len(found), sum(map(len, found))

    return read


LOCAL = "astropy-local"
"""The one that reads a folder."""

PEERS = {
    LOCAL: Peer("astropy, `fits.open` of local files", "", _astropy_local, module="astropy"),
    "astropy": Peer(
        "astropy, `fits.open` over s3fs", "HEAD, then blocks of 50 MiB read ahead, pinned by s3fs", _astropy
    ),
    "astropy-listed": Peer(
        "astropy, the bucket listed first", "no HEAD, else the same", partial(_astropy, listed=True)
    ),
    "astropy-blocks": Peer(
        "astropy, listed first, blocks of 64 kB",
        "no HEAD, 64 kB a request, pinned by s3fs",
        partial(_astropy, listed=True, default_block_size=64 * 1024),
    ),
    "blocks": Peer(
        "astro-cloud's algorithm over s3fs", "2,880 bytes a request, one beyond the end; not pinned", _block_by_block
    ),
    "kerchunk": Peer(
        "kerchunk, `fits.process_file` over s3fs",
        "as astropy; only HDUs with data, which it was told, and no comments",
        _kerchunk,
        module="kerchunk",
    ),
    "cfitsio": Peer(
        "fitsio, CFITSIO's http driver",
        "asks for .gz and .Z first, then twice for the file, read whole into memory; not pinned, no credentials",
        _cfitsio,
        module="fitsio",
    ),
}
"""Readers by the name that a task calls them by."""


def quiet() -> None:
    """Let no reader warn: the same headers are odd to all of them."""
    warnings.simplefilter("ignore")
