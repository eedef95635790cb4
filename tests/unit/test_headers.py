"""`crawler.load_headers` against astropy: the same headers at the same bytes."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits

import crawler
from crawler import headers
from crawler.errors import AccessDeniedError, NotFitsError, ObjectNotFoundError, TruncatedError, UsageError
from crawler.stores import ObjectStore
from tests.conftest import sibling
from tests.fits_files import BytesStore, card, header, image_hdu
from tests.servers import RangeServer


@pytest.fixture
def exposure(tmp_path: Path) -> Path:
    """Return a file of all kinds of HDU that astropy writes, a table with a heap and a compressed image among them."""
    image = fits.ImageHDU(np.arange(6000, dtype="float32").reshape(60, 100), name="SCI", ver=2)
    image.header["HISTORY"] = "of several kinds"
    image.header["LONG"] = "a string that needs CONTINUE " * 4
    ragged = np.array([np.arange(3.0), np.arange(500.0)], dtype=object)
    heap = fits.BinTableHDU.from_columns([fits.Column("V", "PD()", array=ragged)], name="HEAP")
    text = fits.TableHDU.from_columns([fits.Column("T", "A9", array=np.array(["one", "two"]))], name="TEXT")
    packed = fits.CompImageHDU(np.ones((64, 64), "int16"), name="PACKED")
    path = tmp_path / "exposure.fits"
    fits.HDUList([fits.PrimaryHDU(), image, heap, text, packed]).writeto(path)
    return path


def test_is_what_astropy_finds(exposure: Path) -> None:
    units = list(crawler.load_headers(str(exposure)))
    content = exposure.read_bytes()
    with fits.open(exposure, disable_image_compression=True) as hdus:
        assert len(units) == len(hdus) == 5
        for index, (unit, hdu) in enumerate(zip(units, hdus, strict=True)):
            info = hdu.fileinfo()
            assert unit.index == index
            assert unit.offset == info["hdrLoc"]
            assert unit.length == info["datLoc"] - info["hdrLoc"]
            assert unit.data_offset == info["datLoc"]
            assert unit.data_size == hdu.size
            assert unit.fits.tostring() == content[unit.offset : unit.data_offset].decode("ascii")
            assert unit.fits["NAXIS"] == hdu.header["NAXIS"]
            assert unit.hdu.kind == (hdu.header["XTENSION"] if index else "primary")
    assert units[1].fits["LONG"] == ("a string that needs CONTINUE " * 4).rstrip()


def test_data_are_where_it_says(exposure: Path) -> None:
    unit = next(unit for unit in crawler.load_headers(str(exposure)) if unit.fits.get("EXTNAME") == "SCI")
    with exposure.open("rb") as file:
        file.seek(unit.data_offset)
        data = np.frombuffer(file.read(unit.data_size), ">f4").reshape(unit.hdu.shape[::-1])
    np.testing.assert_array_equal(data, fits.getdata(exposure, ("SCI", 2)))


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".bz2", bz2.compress)])
def test_offsets_are_of_the_decompressed_stream(exposure: Path, suffix: str, pack: Callable[[bytes], bytes]) -> None:
    packed = exposure.with_name(exposure.name + suffix)
    packed.write_bytes(pack(exposure.read_bytes()))
    assert [unit.hdu for unit in crawler.load_headers(str(packed))] == [
        unit.hdu for unit in crawler.load_headers(str(exposure))
    ]


def test_header_is_exactly_that_of_the_file(tmp_path: Path) -> None:
    odd = [card("HIERARCH a.b = 'x' / y"), card("        no keyword"), card("COMMENT = no value"), card("EMPTY   =")]
    path = tmp_path / "odd.fits"
    path.write_bytes(image_hdu((), *odd))
    (unit,) = crawler.load_headers(str(path))
    assert [one.image for one in unit.fits.cards][-4:] == [image.decode() for image in odd]
    assert unit.fits is unit.fits, "parsed once"


def test_reads_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    far = 2**20
    store = BytesStore(image_hdu((far,)) + image_hdu((far,), xtension="IMAGE") + image_hdu((far,), xtension="IMAGE"))
    monkeypatch.setattr(headers, "open_store", lambda *_, **__: store)
    units = crawler.load_headers("memory://bucket/file.fits")
    assert not store.asked
    next(units)
    first = len(store.asked)
    list(units)
    assert len(store.asked) > first
    assert sum(stop - start for start, stop in filter(None, store.asked)) < far


class TestOptions:
    @pytest.fixture
    def given(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, str]]:
        """Record the options that a store is opened with."""
        calls: list[tuple[Any, str]] = []

        def record(_url: str, options: Any, *, adapter: str, **_: object) -> ObjectStore:
            calls.append((options, adapter))
            return BytesStore(header("SIMPLE  =                    T", "BITPIX  =                    8", "NAXIS   = 0"))

        monkeypatch.setattr(headers, "open_store", record)
        return calls

    def test_as_arguments(self, given: list[tuple[Any, str]]) -> None:
        for unit in crawler.load_headers("s3://bucket/a.fits", requester_pays=True):
            assert unit.offset == 0
        assert given == [({"requester_pays": True}, "auto")]

    def test_as_arguments_over_the_mapping(self, given: list[tuple[Any, str]]) -> None:
        told = {"anon": False, "client_kwargs": {"region_name": "us-west-2"}}
        list(crawler.load_headers("s3://bucket/a.fits", storage_options=told, store="fsspec", anon=True))
        assert given == [({"anon": True, "client_kwargs": {"region_name": "us-west-2"}}, "fsspec")]
        assert told["anon"] is False

    @pytest.mark.parametrize("url", ["a.fits", "s3://bucket/a.fits"])
    def test_not_known(self, url: str) -> None:
        with pytest.raises(UsageError, match="colour"):
            list(crawler.load_headers(url, colour="red"))


class TestFaults:
    def test_what_came_before_stands(self, tmp_path: Path) -> None:
        path = tmp_path / "cut.fits"
        path.write_bytes(sibling(1)[:-3000])
        found = []
        with pytest.raises(TruncatedError):
            found.extend(unit.index for unit in crawler.load_headers(str(path)))
        units = crawler.load_headers(str(path))
        assert next(units).index == 0

    def test_no_fits(self, tmp_path: Path) -> None:
        path = tmp_path / "a.fits"
        path.write_text("<html>")
        with pytest.raises(NotFitsError):
            list(crawler.load_headers(str(path)))

    @pytest.mark.parametrize(("status", "error"), [(403, AccessDeniedError), (404, ObjectNotFoundError)])
    def test_of_the_store(self, status: int, error: type[Exception]) -> None:
        with RangeServer({"a.fits": sibling(1)}) as server:
            server.status["a.fits"] = status
            with pytest.raises(error):
                list(crawler.load_headers(server.url("a.fits")))

    def test_no_such_scheme(self) -> None:
        with pytest.raises(UsageError, match="no store reads tape:// URLs"):
            list(crawler.load_headers("tape://a.fits"))


def test_request_that_fails_once_is_made_again() -> None:
    """Of a web server: its client makes none again by itself."""
    with RangeServer({"a.fits": image_hdu((8, 8))}) as server:
        server.refused = 2
        assert len(list(crawler.load_headers(server.url("a.fits")))) == 1
        assert [answer.status for answer in server.answered][:3] == [503, 503, 206]
