"""The headers of one file, straight from where it lies, without a catalogue."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from crawler.fits.units import Hdu
from crawler.stores import Adapter, ObjectRef, Traffic, as_url, open_store
from crawler.stores.retry import Patience
from crawler.stores.urls import PathOrUrl, text_of
from crawler.worker.walk import hdus_of

if TYPE_CHECKING:
    from astropy.io.fits import Header


_PATIENCE = Patience(request_seconds=10.0, down_seconds=20.0)
"""Less than that of a crawl: somebody waits for one file."""


@dataclass(frozen=True)
class HeaderUnit:
    """One header of a file, and where its data lie.

    All offsets are bytes from the start of the file; of the decompressed stream where the file is compressed.

    Attributes
    ----------
    hdu : Hdu
        Everything that the walk found of this HDU, its shape among it.
    """

    hdu: Hdu

    @property
    def index(self) -> int:
        """Number of the HDU; 0 is the primary."""
        return self.hdu.index

    @property
    def offset(self) -> int:
        """First byte of the header unit."""
        return self.hdu.header_offset

    @property
    def length(self) -> int:
        """Bytes of the whole header unit: END and its padding included."""
        return self.hdu.header_size

    @property
    def data_offset(self) -> int:
        """First byte of the data unit."""
        return self.hdu.data_offset

    @property
    def data_size(self) -> int:
        """Bytes of the data, without padding; 0 for none."""
        return self.hdu.data_size

    @cached_property
    def fits(self) -> Header:
        """The header, exactly as the file has it."""
        from astropy.io.fits import Header  # noqa: PLC0415 - half a second that only this property needs

        return Header.fromstring(self.hdu.header)


def load_headers(
    url: PathOrUrl, *, storage_options: Mapping[str, Any] | None = None, store: Adapter = "auto", **options: Any
) -> Iterator[HeaderUnit]:
    """Yield every header of one FITS file, reading headers and jumping over data.

    Parameters
    ----------
    url : str or pathlib.Path
        A path or URL.
    storage_options : mapping, optional
        Of the store, as fsspec spells them.
    store : {'auto', 'obstore', 'fsspec'}
        What reads it.
    **options
        More storage options, which count more than those: ``anon=True``, ``requester_pays=True``.

    Yields
    ------
    HeaderUnit
        In the order of the file, each as soon as it is read.

    Raises
    ------
    FormatError
        The file is not FITS, is truncated or is corrupt; what was yielded before stands.
    StoreError
        The store would not give the bytes.
    UsageError
        No store reads such URLs, or it has no such option.
    """
    place = as_url(text_of(url))
    traffic = Traffic(1, patience=_PATIENCE)
    opened = open_store(place, {**(storage_options or {}), **options}, adapter=store, traffic=traffic)
    for hdu in hdus_of(opened, ObjectRef(place)):
        yield HeaderUnit(hdu)
