"""One file in a store: what its row says, what was asked of the store, and what happens when the file changes."""

from __future__ import annotations

import bz2
import gzip
import itertools
import lzma
import random
import time
import tracemalloc
import zipfile
import zlib
from collections.abc import Generator, Mapping
from io import BytesIO
from typing import Any

import pytest

from crawler.errors import AccessDeniedError, CorruptError, ObjectChangedError, StoreError, StoreUnavailableError
from crawler.fits.layouts import NOTHING, Guess
from crawler.fits.policy import ReadPolicy
from crawler.fits.units import Hdu, Span
from crawler.fits.walker import Limits
from crawler.job.scope import Scope
from crawler.stores.base import ByteRange, Fetched, ObjectRef
from crawler.worker import file_walk
from crawler.worker.file_walk import Answers, Reads
from crawler.worker.walk import FileResult, hdus_of, walk_file, walk_steps
from tests.fits_files import (
    BLOCK,
    BytesStore,
    MiB,
    Place,
    bintable_hdu,
    card,
    entry,
    header,
    image_hdu,
    places,
)

NOISE = random.Random(5).randbytes(300_000)
URL = "memory://bucket/file.fits"


def case(name: str, *values: Any) -> Any:
    return pytest.param(*values, id=name)


def pack_gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def pack_zip(data: bytes) -> bytes:
    sink = BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        archive.writestr("file.fits", data)
    return sink.getvalue()


def walk(store: BytesStore, guess: Guess = NOTHING, **options: Any) -> FileResult:
    return walk_file(store, store.ref(), Scope(**options), guess)


def summary(result: FileResult) -> tuple[str, str | None, str | None, int, int | None]:
    return result.status, result.error, result.compression, len(result.hdus), result.trailing_bytes


FILE = image_hdu() + bintable_hdu(10, 300) + image_hdu((100_000,), xtension="IMAGE") + bintable_hdu(8, 100, heap=77)
PLACES = [
    Place("primary", 0, BLOCK, 0),
    Place("BINTABLE", BLOCK, 2 * BLOCK, 3000),
    Place("IMAGE", 4 * BLOCK, 5 * BLOCK, 100_000),
    Place("BINTABLE", 40 * BLOCK, 41 * BLOCK, 877),
]


@pytest.mark.parametrize("tells", ["all", "size", "nothing"])
def test_plain_file(tells: Any) -> None:
    store = BytesStore(FILE, tells=tells)
    result = walk(store)
    assert places(result.hdus) == PLACES
    assert summary(result) == ("ok", None, None, 4, 0)
    assert result.pinned == (tells == "all")
    assert result.ref == ObjectRef(URL, len(FILE), '"1"' if tells == "all" else None)
    # The first read holds three headers; the fourth lies behind 100 kB of data, and is as long as the one before.
    asked = [(0, 12 * BLOCK), (40 * BLOCK, 41 * BLOCK)]
    if tells == "nothing":  # whether a fifth follows, and if not, that the data of the fourth are whole
        asked += [(42 * BLOCK, 74 * BLOCK), (42 * BLOCK - 1, 42 * BLOCK)]
    assert store.asked == asked
    assert result.requests == result.round_trips == len(asked)
    assert result.bytes_read == 13 * BLOCK + (tells == "nothing")


def test_a_ref_that_knows_nothing_is_pinned_by_the_first_answer() -> None:
    store = BytesStore(FILE)
    result = walk_file(store, ObjectRef(URL))
    assert summary(result) == ("ok", None, None, 4, 0)
    assert result.pinned
    assert result.ref == store.ref()
    assert store.asked == [(0, 12 * BLOCK), (40 * BLOCK, 41 * BLOCK)]


@pytest.mark.parametrize("policy", [ReadPolicy(), ReadPolicy(first=1, gap=0), ReadPolicy(80, 80, 80, 0)], ids=str)
def test_policy_changes_requests_but_not_results(policy: ReadPolicy) -> None:
    for content in (FILE, pack_gzip(FILE), bz2.compress(FILE)):
        result = walk(BytesStore(content), policy=policy)
        assert (result.status, places(result.hdus), result.trailing_bytes) == ("ok", PLACES, 0)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        case("empty", b"", ("not-fits", "empty file (byte 0)", None, 0, None)),
        case("text", b"text", ("not-fits", "does not begin with SIMPLE but with b'text' (byte 0)", None, 0, None)),
        case("SIMPLE = F", image_hdu((5,), simple=False), ("ok", None, None, 1, 0)),
        case("junk after it", FILE + b"junk", ("ok", None, None, 4, 4)),
        case("truncated", FILE[:-3000],
             ("truncated", "file ends inside the padding of the header of HDU 3 (byte 117960)", None, 4, None)),
        case("corrupt", image_hdu() + image_hdu((), "NAXIS   = -1", xtension="IMAGE"),
             ("corrupt", "NAXIS = -1 is not from 0 to 999 (byte 2880)", None, 1, None)),
        case("gzip", pack_gzip(FILE), ("ok", None, "gzip", 4, 0)),
        case("gzip, two members", pack_gzip(FILE[:5000]) + pack_gzip(FILE[5000:]), ("ok", None, "gzip", 4, 0)),
        case("gzip, NULs between members", pack_gzip(FILE[:5000]) + bytes(512) + pack_gzip(FILE[5000:]),
             ("ok", None, "gzip", 4, 0)),
        case("gzip, garbage after it", pack_gzip(FILE) + b"garbage", ("ok", None, "gzip", 4, 0)),
        case("gzip of junk after it", pack_gzip(FILE + b"junk"), ("ok", None, "gzip", 4, 4)),
        case("gzip of nothing", pack_gzip(b""), ("not-fits", "empty file (byte 0)", "gzip", 0, None)),
        case("gzip of text", pack_gzip(b"text"),
             ("not-fits", "does not begin with SIMPLE but with b'text' (byte 0)", "gzip", 0, None)),
        case("gzip of a truncated file", pack_gzip(FILE[:200]),
             ("truncated", "file ends at byte 200, inside the header of HDU 0 (byte 0)", "gzip", 0, None)),
        case("gzip of gzip", pack_gzip(b"\x1f\x8b\x08\0\0\0"),
             ("not-fits", r"does not begin with SIMPLE but with b'\x1f\x8b\x08\x00\x00\x00' (byte 0)",
              "gzip", 0, None)),
        case("bzip2", bz2.compress(FILE), ("ok", None, "bzip2", 4, 0)),
        case("bzip2, two streams", bz2.compress(FILE[:5000]) + bz2.compress(FILE[5000:]), ("ok", None, "bzip2", 4, 0)),
        case("xz", lzma.compress(FILE),
             ("corrupt", "cannot be read: compressed with xz, unpack it first (byte 0)", "xz", 0, None)),
        case("zip", pack_zip(FILE),
             ("corrupt", "cannot be read: compressed with zip, unpack it first (byte 0)", "zip", 0, None)),
        case(".Z", b"\x1f\x9d\x90" + NOISE,
             ("corrupt", "cannot be read: compressed with compress, unpack it first (byte 0)", "compress", 0, None)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("tells", ["all", "nothing"])
@pytest.mark.parametrize("name", ["file.fits", "file.fits.gz", "file"])
def test_row(content: bytes, expected: tuple[Any, ...], tells: Any, name: str) -> None:
    """The content tells what a file is, whatever its name says and whatever the store tells."""
    store = BytesStore(content, tells=tells)
    result = walk_file(store, store.ref(f"memory://bucket/{name}"))
    assert summary(result) == expected
    assert result.error is None or result.error.isprintable()
    assert result.requests == len(store.asked)
    assert result.ref.size == len(content) or result.compression not in {None, "gzip", "bzip2"}


def test_object_listed_as_empty_is_asked_for_its_first_bytes() -> None:
    store = BytesStore(b"")
    assert walk(store).status == "not-fits"
    assert store.asked == [(0, 6)]


@pytest.mark.parametrize("missing", [1, 1000, 70_000, 110_000], ids="{} bytes short".format)
def test_truncated_where_the_store_tells_no_size(missing: int) -> None:
    """An empty answer beyond the end must not be taken for the end of a whole file."""
    content = (image_hdu() + image_hdu((110_000,), xtension="IMAGE"))[: 2 * BLOCK + 110_000 - missing]
    store = BytesStore(content, tells="nothing")
    result = walk(store)
    assert result.status == "truncated"
    short = "1 byte" if missing == 1 else f"{missing} bytes"
    assert result.error == f"file ends {short} before the data of HDU 1 do (byte {len(content)})"
    assert result.ref.size == len(content)
    assert result.requests == len(store.asked) < 25


def test_whole_where_the_store_tells_no_size() -> None:
    content = image_hdu((110_000,))
    store = BytesStore(content, tells="nothing")
    assert summary(walk(store)) == ("ok", None, None, 1, 0)
    end = len(content)
    assert store.asked == [(0, 12 * BLOCK), (end, end + 2 * BLOCK), (end - 1, end)]


@pytest.mark.parametrize(
    ("content", "status", "hdus"),
    [
        case("damaged CRC", pack_gzip(FILE)[:-8] + b"\0" * 8, "corrupt", 4),
        case("truncated in the trailer", pack_gzip(FILE)[:-1], "truncated", 4),
        case("second member truncated", pack_gzip(FILE[: 40 * BLOCK]) + pack_gzip(FILE[40 * BLOCK :])[:20],
             "truncated", 3),
        case("second member damaged", pack_gzip(FILE[: 40 * BLOCK]) + b"\x1f\x8b\x07" + bytes(20), "corrupt", 3),
        case("bzip2, second stream truncated", bz2.compress(FILE[: 40 * BLOCK]) + bz2.compress(FILE[40 * BLOCK :])[:20],
             "truncated", 3),
        case("bzip2, second stream damaged", bz2.compress(FILE[: 5 * BLOCK]) + b"BZh9" + bytes(20), "corrupt", 3),
    ],
)  # fmt: skip
def test_hdus_before_a_fault_of_the_stream_are_kept(content: bytes, status: str, hdus: int) -> None:
    result = walk(BytesStore(content))
    assert (result.status, result.trailing_bytes) == (status, None)
    assert places(result.hdus) == PLACES[:hdus]
    assert result.error is not None
    assert "stream" in result.error
    assert "byte" in result.error


def test_damaged_middle_keeps_the_hdus_before_it() -> None:
    content = image_hdu() + image_hdu((len(NOISE),), xtension="IMAGE", data=NOISE)
    packer = zlib.compressobj(wbits=-15)
    whole = b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + packer.compress(content) + packer.flush(zlib.Z_FULL_FLUSH)
    # Then a block of the reserved type 3 (RFC 1951, section 3.2.3).
    result = walk(BytesStore(whole + b"\x07" + packer.compress(bintable_hdu(8, 9)) + packer.flush()))
    assert (result.status, len(result.hdus)) == ("corrupt", 2)
    assert result.error == (
        f"gzip stream is damaged: Error -3 while decompressing data: invalid block type (byte {len(whole)})"
    )


def test_compressed_file_is_read_once_from_front_to_back() -> None:
    content = pack_gzip(image_hdu((len(NOISE),), data=NOISE) + bintable_hdu(8, 9))
    store = BytesStore(content)
    result = walk(store)
    assert len(result.hdus) == 2
    assert store.asked == [(0, 12 * BLOCK), (12 * BLOCK, len(content))]
    assert result.bytes_read == len(content)


def zeros(compress: Any, head: bytes, megabytes: int) -> bytes:
    """Return a file that begins with ``head`` and goes on with zeros, compressed in members of 20 MB."""
    return compress(head) + compress(b"\0" * 20 * MiB) * (megabytes // 20)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        case(
            "as data",
            header(entry("SIMPLE", True), entry("BITPIX", 8), "NAXIS   = 1", "NAXIS1  = 209715200"),
            "truncated",
        ),
        case("as junk", image_hdu(), "ok"),
    ],
)
@pytest.mark.parametrize(("compress", "bound"), [(pack_gzip, 8 * MiB), (bz2.compress, 16 * MiB)], ids=["gzip", "bzip2"])
def test_a_bomb_is_walked_in_bounded_memory(compress: Any, bound: int, head: bytes, status: str) -> None:
    store = BytesStore(zeros(compress, head, 200))
    tracemalloc.start()
    try:
        result = walk(store)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (result.status, len(result.hdus)) == (status, 1)
    assert result.trailing_bytes == (200 * MiB if status == "ok" else None)
    assert peak < bound


def test_a_bomb_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = file_walk.Decompressor
    monkeypatch.setattr(file_walk, "Decompressor", lambda compression: whole(compression, max_bytes=5 * MiB))
    result = walk(BytesStore(zeros(pack_gzip, image_hdu(), 100)))
    assert (result.status, len(result.hdus)) == ("corrupt", 1)
    assert result.error is not None
    assert result.error.startswith("decompresses to more than 5242880 bytes (byte ")


@pytest.mark.parametrize("compress", [bytes, pack_gzip, bz2.compress], ids=["plain", "gzip", "bzip2"])
def test_a_header_that_never_ends_is_given_up(compress: Any) -> None:
    endless = header(entry("SIMPLE", True), entry("BITPIX", 8), "NAXIS   = 0", end=None) + card("COMMENT") * 200_000
    store = BytesStore(compress(endless))
    result = walk(store, limits=Limits(header_bytes=100_000))
    assert summary(result)[:2] == ("corrupt", "header of HDU 0 has no END within 100000 bytes (byte 0)")
    assert result.bytes_read <= 200_000


def test_headers_without_number_are_given_up() -> None:
    result = walk(BytesStore(image_hdu() + image_hdu(xtension="IMAGE") * 50), limits=Limits(file_bytes=20 * BLOCK))
    assert summary(result) == ("corrupt", "more than 57600 bytes of headers (byte 57600)", None, 20, None)


OTHER = image_hdu((300_000,), "OTHER   = T") + bintable_hdu(4, 4)


@pytest.mark.parametrize("change", [1, 2], ids=["before the first read", "between reads"])
def test_a_file_that_is_replaced_is_walked_as_what_it_now_is(change: int) -> None:
    store = BytesStore(FILE, becomes={change: OTHER})
    result = walk(store)
    assert summary(result) == ("ok", None, None, 2, 0)
    assert b"OTHER" in result.hdus[0].header
    assert result.ref == ObjectRef(URL, len(OTHER), '"2"')
    assert result.pinned
    assert store.asked.count(None) == 1
    assert result.requests == len(store.asked) == change + 1 + 2


def test_a_file_that_becomes_another_kind_keeps_nothing_of_the_old() -> None:
    result = walk(BytesStore(FILE, becomes={2: b"text"}))
    assert summary(result) == ("not-fits", "does not begin with SIMPLE but with b'text' (byte 0)", None, 0, None)


def test_a_compressed_file_that_is_replaced() -> None:
    packed = pack_gzip(image_hdu((len(NOISE),), data=NOISE))
    result = walk(BytesStore(packed, becomes={2: FILE}))
    assert summary(result) == ("ok", None, None, 4, 0)


def test_a_file_that_changes_all_the_time_is_given_up() -> None:
    store = BytesStore(FILE, becomes={number: FILE + bytes(number) for number in range(2, 20)})
    result = walk(store)
    assert summary(result) == ("unreadable", "changed since it was listed", None, 0, None)
    assert result.requests == len(store.asked) == 6


def test_a_file_that_is_deleted_during_its_walk() -> None:
    store = BytesStore(FILE, becomes={2: None})
    result = walk(store)
    assert (result.status, result.error) == ("unreadable", "no such object")
    assert result.requests == 2


def test_a_file_that_is_replaced_and_then_deleted() -> None:
    store = BytesStore(FILE, becomes={2: OTHER, 3: None})
    result = walk(store)
    assert summary(result) == ("unreadable", "no such object", None, 0, None)
    assert result.requests == 3
    assert result.ref == ObjectRef(URL, len(FILE), '"1"')  # what was listed, not what never was read


def test_a_file_that_never_was() -> None:
    result = walk_file(BytesStore(None), ObjectRef(URL))
    assert summary(result) == ("unreadable", "no such object", None, 0, None)
    assert (result.requests, result.pinned) == (1, False)


@pytest.mark.parametrize("answer", [1, 2], ids=["first", "second"])
def test_an_answer_that_breaks_off(answer: int) -> None:
    store = BytesStore(FILE, cut={answer: 1000})
    result = walk(store)
    assert (result.status, result.error) == ("unreadable", "the answer broke off after 1000 bytes")
    # HDUs found before it stand, as after any fault.
    assert len(result.hdus) == (0 if answer == 1 else 3)


def test_an_empty_answer_is_one_that_broke_off() -> None:
    result = walk(BytesStore(FILE, cut={2: 0}))
    assert (result.status, result.error) == ("unreadable", "the answer broke off after 0 bytes")


class DenyingStore(BytesStore):
    """A store that answers the first request only."""

    def get(self, ref: ObjectRef, span: ByteRange) -> Fetched:
        """Answer once."""
        fetched = super().get(ref, span)
        if len(self.asked) > 1:
            raise AccessDeniedError(ref.url, "HTTP 403 Forbidden")
        return fetched


def test_a_store_that_stops_to_answer() -> None:
    result = walk(DenyingStore(FILE))
    assert summary(result) == ("unreadable", "HTTP 403 Forbidden", None, 3, None)
    assert result.requests == 2


def test_an_iterated_walk_raises_what_walk_file_reports() -> None:
    ref = BytesStore(FILE).ref()
    with pytest.raises(CorruptError, match="unpack it first"):
        list(hdus_of(BytesStore(lzma.compress(FILE)), ref))
    with pytest.raises(StoreUnavailableError, match=r"broke off after 5 bytes: memory://bucket/file\.fits"):
        list(hdus_of(BytesStore(FILE, cut={1: 5}), ref))
    store = BytesStore(FILE)
    found = [(hdu.index, len(store.asked)) for hdu in hdus_of(store, ref)]
    assert found == [(0, 1), (1, 1), (2, 1), (3, 2)]  # read on demand


TIGHT = ReadPolicy(first=BLOCK, header=BLOCK, gap=0)
"""Reads no more than one header of one block."""


class TestFirstHdus:
    """Walks that stop after so many HDUs."""

    @pytest.mark.parametrize("tells", ["all", "size", "nothing"])
    @pytest.mark.parametrize("count", [1, 2, 3])
    def test_of_more_are_partial(self, count: int, tells: Any) -> None:
        result = walk(BytesStore(FILE, tells=tells), max_hdus=count)
        assert summary(result) == ("partial", None, None, count, None)
        assert places(result.hdus) == PLACES[:count]

    @pytest.mark.parametrize("tells", ["all", "size"])
    @pytest.mark.parametrize("count", [4, 5, 1000])
    def test_of_no_more_are_the_whole_file(self, count: int, tells: Any) -> None:
        whole, store = BytesStore(FILE, tells=tells), BytesStore(FILE, tells=tells)
        assert walk(store, max_hdus=count) == walk(whole)
        assert store.asked == whole.asked

    @pytest.mark.parametrize("behind", [1, 100, BLOCK, 10 * BLOCK])
    def test_of_a_file_with_something_behind_them_are_partial(self, behind: int) -> None:
        # What it is nobody looked at.
        assert summary(walk(BytesStore(image_hdu() + b"x" * behind), max_hdus=1)) == ("partial", None, None, 1, None)

    @pytest.mark.parametrize("missing", [1, 1000, 100_000, 2 * BLOCK + 100_000 - 1])
    @pytest.mark.parametrize("tells", ["all", "size"])
    def test_of_which_the_last_is_cut_are_truncated(self, missing: int, tells: Any) -> None:
        content = image_hdu() + image_hdu((100_000,), xtension="IMAGE")
        cut = content[: BLOCK + max(BLOCK + 100_000 - missing, 1)]
        result = walk(BytesStore(cut, tells=tells), max_hdus=2)
        assert (result.status, result.trailing_bytes) == ("truncated", None)
        assert result.error == walk(BytesStore(cut, tells=tells)).error

    def test_before_the_cut_are_partial(self) -> None:
        assert summary(walk(BytesStore(FILE[:-3000]), max_hdus=3)) == ("partial", None, None, 3, None)
        assert walk(BytesStore(FILE[:-3000]), max_hdus=4).status == "truncated"

    def test_before_a_fault_are_partial(self) -> None:
        content = image_hdu() + image_hdu((), "NAXIS   = -1", xtension="IMAGE")
        assert summary(walk(BytesStore(content), max_hdus=1)) == ("partial", None, None, 1, None)
        assert walk(BytesStore(content), max_hdus=2).status == "corrupt"

    @pytest.mark.parametrize("content", [b"", b"<html>", b"SIMPLE  ="])
    def test_of_what_has_none(self, content: bytes) -> None:
        assert walk(BytesStore(content), max_hdus=1) == walk(BytesStore(content))

    def test_are_all_that_is_read(self) -> None:
        store = BytesStore(FILE)
        assert walk(store, policy=TIGHT, max_hdus=1).requests == 1
        assert store.asked == [(0, BLOCK)]
        store = BytesStore(FILE)
        assert walk(store, policy=TIGHT, max_hdus=3).requests == 3
        assert store.asked == [(0, BLOCK), (BLOCK, 2 * BLOCK), (4 * BLOCK, 5 * BLOCK)]

    @pytest.mark.parametrize("compress", [pack_gzip, bz2.compress], ids=["gzip", "bzip2"])
    def test_of_a_compressed_file_are_partial(self, compress: Any) -> None:
        result = walk(BytesStore(compress(FILE)), max_hdus=2)
        assert (result.status, result.error, places(result.hdus)) == ("partial", None, PLACES[:2])
        assert result.trailing_bytes is None

    @pytest.mark.parametrize("compress", [pack_gzip, bz2.compress], ids=["gzip", "bzip2"])
    def test_of_a_compressed_file_with_no_more_are_the_whole_file(self, compress: Any) -> None:
        assert walk(BytesStore(compress(FILE)), max_hdus=5) == walk(BytesStore(compress(FILE)))

    def test_of_a_compressed_file_that_is_cut_are_truncated(self) -> None:
        assert walk(BytesStore(pack_gzip(FILE[:200])), max_hdus=1).status == "truncated"
        assert walk(BytesStore(pack_gzip(FILE)[:60]), max_hdus=1).status == "truncated"

    def test_of_a_compressed_file_need_its_first_bytes_only(self) -> None:
        """The header is in the first read: however large the file is, there is no second."""
        content = pack_gzip(image_hdu((len(NOISE),), data=NOISE) + image_hdu((9,), xtension="IMAGE"))
        store = BytesStore(content)
        assert walk(store, max_hdus=1).status == "partial"
        assert store.asked == [(0, 12 * BLOCK)]

    def test_of_a_compressed_file_are_read_up_to_in_reads_that_double(self) -> None:
        """The second header lies behind 300 kB that cannot be compressed; noise of 6 MB lies behind that."""
        tail = b"".join(random.Random(seed).randbytes(MiB) for seed in range(6))
        content = pack_gzip(image_hdu((len(NOISE),), data=NOISE)) + pack_gzip(
            image_hdu((len(tail),), xtension="IMAGE", data=tail)
        )
        store = BytesStore(content)
        result = walk(store, max_hdus=2)
        assert (result.status, len(result.hdus)) == ("partial", 2)
        first = 12 * BLOCK
        assert store.asked == [(0, first), *((first * 2**n, first * 2 ** (n + 1)) for n in range(4))]
        assert walk(BytesStore(content)).bytes_read == len(content)

    def test_of_a_compressed_file_reads_that_double_grow_no_further_than_what_can_be_held(self) -> None:
        noise = b"".join(random.Random(seed).randbytes(MiB) for seed in range(9))
        store = BytesStore(pack_gzip(image_hdu((len(noise),), data=noise) + image_hdu((1,), xtension="IMAGE")))
        assert walk(store, max_hdus=2).status in {"ok", "partial"}
        assert max(stop - start for start, stop in filter(None, store.asked)) == 2 * MiB

    def test_of_a_compressed_file_need_no_more_where_siblings_are_compressed(self) -> None:
        content = pack_gzip(image_hdu((len(NOISE),), data=NOISE) + image_hdu((9,), xtension="IMAGE"))
        store = BytesStore(content)
        assert walk(store, Guess(compressed=True), max_hdus=1).status == "partial"
        assert store.asked == [(0, 12 * BLOCK)]

    def test_of_a_file_that_is_replaced_are_those_of_the_new_one(self) -> None:
        result = walk(BytesStore(FILE, becomes={2: OTHER}), policy=TIGHT, max_hdus=2)
        assert summary(result) == ("ok", None, None, 2, 0)
        result = walk(BytesStore(OTHER, becomes={2: FILE}), policy=TIGHT, max_hdus=2)
        assert (result.status, places(result.hdus)) == ("partial", PLACES[:2])


def exactly(hdus: list[Hdu]) -> Guess:
    """Return the guess that is right for a file of these HDUs."""
    return Guess(
        tuple(Span(hdu.header_offset, hdu.data_offset) for hdu in hdus), tuple(hdu.header_size for hdu in hdus)
    )


APART = b"".join([image_hdu((50_000,)), *(image_hdu((50_000,), xtension="IMAGE") for _ in range(3))])
"""Four headers that lie further apart than `TIGHT` would read."""
RIGHT = exactly(walk(BytesStore(APART)).hdus)
HEADERS = [(start, stop) for start, stop in RIGHT.headers]


class AtOnce(BytesStore):
    """A store of which one sees which reads were asked for at once."""

    def read(self, ref: ObjectRef, guess: Guess = NOTHING, scope: Scope = Scope(TIGHT)) -> list[list[tuple[int, int]]]:
        """Walk, giving all ranges of a round at once; return what was asked for, round by round."""
        rounds = []
        steps = walk_steps(self, ref, scope, guess)
        try:
            reads = next(steps)
            while True:
                rounds.append([(span.start, span.stop) for span in reads.spans])
                reads = steps.send([self._answer(reads.ref, span) for span in reads.spans])
        except StopIteration as end:
            self.result: FileResult = end.value
        assert self.result.round_trips == len(rounds)
        assert self.result.requests == sum(map(len, rounds))
        return rounds

    def _answer(self, ref: ObjectRef, span: ByteRange) -> Fetched | StoreError:
        try:
            return self.get(ref, span)
        except StoreError as error:
            return error


def finished(store: BytesStore, steps: Generator[Reads, Answers, FileResult], reads: Reads) -> FileResult:
    """Walk on to the end."""
    while True:
        try:
            reads = steps.send([store.get(reads.ref, span) for span in reads.spans])
        except StopIteration as end:
            result: FileResult = end.value
            return result


class FailingStore(AtOnce):
    """A store that fails to read what begins at some bytes."""

    def __init__(self, content: bytes, errors: Mapping[int, StoreError]) -> None:
        super().__init__(content)
        self._errors = errors

    def get(self, ref: ObjectRef, span: ByteRange) -> Fetched:
        """Fail, or answer."""
        fetched = super().get(ref, span)
        if span.start in self._errors:
            raise self._errors[span.start]
        return fetched


def test_hdus_before_a_failure_of_the_store_are_kept_of_a_compressed_file() -> None:
    """One read of the walker needs bytes from before the failure, and bytes from after it."""
    noise = image_hdu((len(NOISE),), xtension="IMAGE", data=NOISE)
    store = FailingStore(
        pack_gzip(image_hdu() + bintable_hdu(10, 300) + noise), {BLOCK: StoreUnavailableError(URL, "busy")}
    )
    result = walk(store, policy=ReadPolicy(first=BLOCK, header=40 * BLOCK, gap=0))
    assert summary(result) == ("unreadable", "busy", "gzip", 3, None)


GAPING = header(entry("XTENSION", "IMAGE"), entry("BITPIX", 8), "NAXIS   = 1", f"NAXIS1  = {2**40}")
"""An extension whose data are more than any file here holds."""

SCOPE_OF_20_S = Scope(ReadPolicy(first=MiB, gap=0), timeout=20)


class TestTimeOut:
    """A walk that lasts for too long reads no more."""

    @pytest.mark.parametrize(
        ("seconds", "status", "hdus"), [(99.0, "unreadable", 3), (100.0, "ok", 4)], ids=["over", "just in time"]
    )
    def test_keeps_what_was_found(self, seconds: float, status: str, hdus: int) -> None:
        store = AtOnce(APART)
        moments = iter([1000.0, 1000.0, 1040.0, 1080.0, 1100.0])  # as it begins, and before each read
        steps = walk_steps(store, store.ref(), Scope(TIGHT, timeout=seconds), clock=lambda: next(moments))
        result = finished(store, steps, next(steps))
        assert (result.status, len(result.hdus)) == (status, hdus)
        assert next(moments, None) is None
        if status != "ok":
            assert result.error == "walk given up after 99 s: --file-timeout allows more"
            assert result.requests == 3

    def test_is_of_the_file_not_of_each_of_its_versions(self) -> None:
        store = BytesStore(APART, becomes={2: OTHER})
        moments = iter([0.0, 10.0, 20.0, 101.0])
        steps = walk_steps(store, store.ref(), Scope(TIGHT, timeout=100), clock=lambda: next(moments))
        reads = next(steps)
        reads = steps.send([store.get(reads.ref, reads.spans[0])])
        with pytest.raises(StopIteration) as ended:
            steps.send([ObjectChangedError(URL, "changed")])
        result: FileResult = ended.value.value
        assert (result.status, result.hdus) == ("unreadable", [])

    @pytest.mark.parametrize("content", ["data", "junk", "members"])
    @pytest.mark.parametrize("compress", [pack_gzip, bz2.compress], ids=["gzip", "bzip2"])
    def test_is_heeded_while_decompressing(self, compress: Any, content: str) -> None:
        """The whole file comes with the first read; what takes time is what it decompresses to."""
        file = {
            "data": zeros(compress, image_hdu() + GAPING, 40),
            "junk": zeros(compress, image_hdu() + image_hdu(xtension="IMAGE"), 40),
            "members": compress(image_hdu() + GAPING) + compress(b"") * 50_000,
        }[content]
        store = BytesStore(file)
        moments = itertools.count(1000.0)  # a second goes by from each look at the clock to the next
        steps = walk_steps(store, store.ref(), SCOPE_OF_20_S, clock=lambda: next(moments))
        result = finished(store, steps, next(steps))
        assert (result.status, len(result.hdus), result.trailing_bytes) == ("unreadable", 2, None)
        assert result.error == "walk given up after 20 s: --file-timeout allows more"
        assert next(moments) < 1030.0

    def test_is_heeded_by_a_real_bomb(self) -> None:
        """4 GB of zeros in 9 kB take half a minute."""
        store = BytesStore(zeros(bz2.compress, image_hdu(), 4000))
        begun = time.monotonic()
        result = walk(store, timeout=0.5)
        assert time.monotonic() - begun < 10
        assert (result.status, len(result.hdus)) == ("unreadable", 1)


class TestReadsAtOnce:
    def test_count_as_one_round_trip(self) -> None:
        store = AtOnce(APART)
        assert store.read(store.ref(), RIGHT) == [HEADERS]
        assert summary(store.result) == ("ok", None, None, 4, 0)
        assert (store.result.requests, store.result.round_trips) == (4, 1)
        assert store.result.bytes_read == 4 * BLOCK

    def test_are_one_after_the_other_without_a_guess(self) -> None:
        store = AtOnce(APART)
        assert store.read(store.ref()) == [[span] for span in HEADERS]

    def test_that_were_too_few_are_followed_by_others(self) -> None:
        store = AtOnce(APART)
        assert store.read(store.ref(), Guess(RIGHT.headers[:2], RIGHT.lengths)) == [
            HEADERS[:2],
            HEADERS[2:3],
            HEADERS[3:],
        ]

    @pytest.mark.parametrize("blocks", [1, -3], ids=["too far", "too near"])
    def test_that_were_displaced_are_asked_for_where_they_are_once_one_was_found_there(self, blocks: int) -> None:
        store = AtOnce(APART)
        wrong = tuple(Span(start + blocks * BLOCK, stop + blocks * BLOCK) for start, stop in RIGHT.headers[1:])
        guess = Guess((RIGHT.headers[0], *wrong), RIGHT.lengths)
        assert store.read(store.ref(), guess) == [[HEADERS[0], *wrong], HEADERS[1:2], HEADERS[2:]]
        assert summary(store.result) == ("ok", None, None, 4, 0)

    def test_that_are_of_another_product_cost_no_more_than_themselves(self) -> None:
        store = AtOnce(APART)
        wrong = tuple(Span(3 * start + BLOCK, 3 * start + 4 * BLOCK) for start, _ in RIGHT.headers[1:])
        guess = Guess((RIGHT.headers[0], *wrong), (BLOCK, *[3 * BLOCK] * 3))
        first, *rest = store.read(store.ref(), guess)
        assert first[0] == HEADERS[0]
        assert [[span[0] for span in one] for one in rest] == [[start] for start, _ in HEADERS[1:]]
        assert summary(store.result) == ("ok", None, None, 4, 0)

    def test_reach_no_further_than_the_file(self) -> None:
        store = AtOnce(APART)
        end = len(APART)
        beyond = (Span(end - 10, end + 10), Span(end + 10, end + 20), Span(2**62, 2**62 + 1))
        rounds = store.read(store.ref(), Guess((*RIGHT.headers, *beyond), RIGHT.lengths))
        assert rounds == [[*HEADERS, (end - 10, end)]]
        assert summary(store.result) == ("ok", None, None, 4, 0)

    @pytest.mark.parametrize(
        ("tells", "knows"),
        [
            case("no etag", "size", ObjectRef(URL, size=len(APART))),
            case("nothing", "nothing", ObjectRef(URL)),
            case("size unknown at first", "all", ObjectRef(URL, etag='"1"')),
            case("nothing known at first", "all", ObjectRef(URL)),
        ],
    )
    def test_are_of_what_is_pinned_only(self, tells: Any, knows: ObjectRef) -> None:
        """Two reads at once could else be of two files."""
        store = AtOnce(APART, tells=tells)
        rounds = store.read(knows, RIGHT)
        assert all(len(spans) == 1 for spans in rounds)
        assert [spans[0] for spans in rounds][:4] == HEADERS
        assert (store.result.status, len(store.result.hdus)) == ("ok", 4)

    def test_are_of_what_is_pinned_only_in_the_middle_too(self) -> None:
        """The headers from the third on are asked for at once where the second was found displaced, were it pinned."""
        displaced = tuple(Span(start + BLOCK, stop + BLOCK) for start, stop in RIGHT.headers[1:])
        store = AtOnce(APART, tells="size")
        assert store.read(store.ref(), Guess((RIGHT.headers[0], *displaced), RIGHT.lengths)) == [
            [span] for span in HEADERS
        ]

    def test_are_as_long_as_siblings_have_their_headers(self) -> None:
        content = image_hdu((50_000,)) + image_hdu((50_000,), *["COMMENT"] * 100, xtension="IMAGE")
        lengths = exactly(walk(BytesStore(content)).hdus).lengths
        store = AtOnce(content)
        assert len(store.read(store.ref(), Guess((), lengths))) == 2

    def test_are_as_long_as_ever_once_two_were_not_as_siblings_have_them(self) -> None:
        guessed, alone = AtOnce(APART), AtOnce(APART)
        rounds = guessed.read(guessed.ref(), Guess((), (2 * BLOCK, *[5 * BLOCK] * 3)))
        assert rounds[2:] == alone.read(alone.ref())[2:] == [[span] for span in HEADERS[2:]]

    def test_of_a_file_that_is_replaced(self) -> None:
        """Some answers are of the old file: nothing of them stays, and the guess does no harm to the new one."""
        store = BytesStore(APART, becomes={3: OTHER})
        result = walk(store, RIGHT, policy=TIGHT)
        assert summary(result) == ("ok", None, None, 2, 0)
        assert b"OTHER" in result.hdus[0].header
        assert store.asked[:4] == [*HEADERS[:3], None]

    def test_of_which_one_broke_off(self) -> None:
        result = walk(BytesStore(APART, cut={3: 100}), RIGHT, policy=TIGHT)
        assert summary(result) == ("unreadable", "the answer broke off after 100 bytes", None, 2, None)
        assert (result.requests, result.round_trips) == (4, 1)

    @pytest.mark.parametrize("failing", range(4))
    @pytest.mark.parametrize("once", [True, False], ids=["at once", "one after the other"])
    def test_of_which_one_fails(self, failing: int, once: bool) -> None:
        """HDUs before it are kept, those after it are not reached, as without a guess."""
        store = FailingStore(APART, {HEADERS[failing][0]: StoreUnavailableError(URL, "timed out", "time-out")})
        guessed = store.read(store.ref(), RIGHT) if once else []
        result = store.result if once else walk(store, RIGHT, policy=TIGHT)
        assert guessed == ([HEADERS] if once else [])
        assert summary(result) == ("unreadable", "timed out", None, failing, None)
        assert result.hdus == walk(store, policy=TIGHT).hdus

    def test_of_which_several_fail_tell_of_the_first(self) -> None:
        store = FailingStore(APART, {HEADERS[at][0]: StoreUnavailableError(URL, f"at {at}") for at in (3, 1, 2)})
        store.read(store.ref(), RIGHT)
        assert summary(store.result) == ("unreadable", "at 1", None, 1, None)

    def test_of_which_one_fails_that_turns_out_not_to_be_needed(self) -> None:
        nothing = HEADERS[-1][1] + 5 * BLOCK  # in the last data unit
        too_many = Guess((*RIGHT.headers, Span(nothing, nothing + BLOCK)), RIGHT.lengths)
        store = FailingStore(APART, {nothing: StoreUnavailableError(URL, "timed out")})
        assert store.read(store.ref(), too_many) == [[*HEADERS, (nothing, nothing + BLOCK)]]
        assert summary(store.result) == ("ok", None, None, 4, 0)

    def test_of_which_one_fails_in_a_file_that_is_compressed_after_all(self) -> None:
        packed = pack_gzip(NOISE)
        expected = walk(BytesStore(packed))
        store = FailingStore(packed, {HEADERS[1][0]: StoreUnavailableError(URL, "timed out")})
        store.read(store.ref(), RIGHT)
        assert summary(store.result) == summary(expected)

    def test_of_a_file_that_is_replaced_while_the_store_is_busy(self) -> None:
        """What came before the failure is of what is no more, and so is not kept."""
        store = AtOnce(APART)
        steps = walk_steps(store, store.ref(), Scope(TIGHT), RIGHT)
        reads = next(steps)
        first = store.get(reads.ref, reads.spans[0])
        store._content, store._generation = OTHER, 2
        busy, changed = StoreUnavailableError(URL, "busy", "slow-down"), ObjectChangedError(URL, "changed")
        result = finished(store, steps, steps.send([first, busy, changed, busy]))
        assert summary(result) == ("ok", None, None, 2, 0)
        assert b"OTHER" in result.hdus[0].header

    def test_with_a_head_in_between(self) -> None:
        result = walk(BytesStore(APART, becomes={1: APART}), RIGHT, policy=TIGHT)
        # Refused, HEAD, and again.
        assert (result.status, len(result.hdus), result.round_trips) == ("ok", 4, 3)

    def test_to_find_a_size_are_round_trips_too(self) -> None:
        result = walk(BytesStore(FILE, tells="nothing"))
        assert result.requests == result.round_trips == 4

    @pytest.mark.parametrize("compress", [pack_gzip, bz2.compress], ids=["gzip", "bzip2"])
    def test_are_one_read_where_siblings_are_compressed(self, compress: Any) -> None:
        store = AtOnce(compress(FILE))
        assert len(store.read(store.ref(), Guess(compressed=True), Scope())) == 1
        assert places(store.result.hdus) == PLACES

    def test_are_one_long_read_of_a_file_that_is_not_compressed_as_its_siblings_are(self) -> None:
        store = AtOnce(FILE)
        assert store.read(store.ref(), Guess(compressed=True)) == [[(0, len(FILE))]]
        assert summary(store.result) == ("ok", None, None, 4, 0)

    def test_of_a_compressed_file_that_was_guessed_to_be_none(self) -> None:
        store = AtOnce(pack_gzip(APART))
        expected = walk(BytesStore(pack_gzip(APART)))
        rounds = store.read(store.ref(), RIGHT)
        assert rounds[0][0] == (0, min(BLOCK, len(pack_gzip(APART))))
        assert summary(store.result) == summary(expected)
        assert store.result.hdus == expected.hdus
