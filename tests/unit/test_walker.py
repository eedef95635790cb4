"""Walks over whole files, good and bad, without I/O. Every case is walked with reads of several sizes."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from crawler.errors import CorruptError, FormatError, NotFitsError, TruncatedError
from crawler.fits.policy import ReadPolicy
from crawler.fits.units import Hdu, Span
from crawler.fits.walker import EndOfFile, HeaderWalker, Limits, NeedBytes
from tests.fits_files import (
    BLOCK,
    CARD,
    MiB,
    Place,
    Walked,
    bintable_hdu,
    card,
    data_unit,
    entry,
    fill,
    groups_hdu,
    header,
    image_hdu,
    structure,
    walk_bytes,
)

POLICIES = {
    "default": ReadPolicy(),
    "one card": ReadPolicy(first=CARD, header=CARD, longest=CARD, gap=0),
    "odd": ReadPolicy(first=1, header=1, longest=1001, gap=0),
}


@pytest.fixture(params=[(name, known) for name in POLICIES for known in (True, False)], ids=lambda p: f"{p[0]}-{p[1]}")
def walk(request: pytest.FixtureRequest) -> Any:
    """Walk with one policy, the size known or not."""
    name, known = request.param
    return lambda data: walk_bytes(data, known=known, policy=POLICIES[name])


def case(name: str, *values: Any) -> Any:
    return pytest.param(*values, id=name)


PRIMARY = image_hdu()
TABLE = bintable_hdu(10, 300)
TABLE_PLACE = Place("BINTABLE", BLOCK, 2 * BLOCK, 3000)
PRIMARY_PLACE = Place("primary", 0, BLOCK, 0)
MANDATORY = [entry("SIMPLE", True), entry("BITPIX", 8), entry("NAXIS", 0)]


REPEATED = [*MANDATORY[:2], "NAXIS   = 1", "NAXIS1  = 5", "NAXIS1  = 3000"]


def long_header(blocks: int) -> bytes:
    """Return a primary header of exactly so many blocks, END in the last card."""
    return header(*MANDATORY, *["COMMENT"] * (36 * blocks - 4))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        case("one HDU", PRIMARY, [PRIMARY_PLACE]),
        case("primary with data", image_hdu((100,), bitpix=16), [Place("primary", 0, BLOCK, 200)]),
        case("table", PRIMARY + TABLE, [PRIMARY_PLACE, TABLE_PLACE]),
        case(
            "heap",
            PRIMARY + bintable_hdu(10, 300, heap=5000) + TABLE,
            [PRIMARY_PLACE, TABLE_PLACE._replace(data_size=8000), Place("BINTABLE", 5 * BLOCK, 6 * BLOCK, 3000)],
        ),
        case(
            "random groups",
            groups_hdu((4, 2), bitpix=-32, pcount=3, gcount=100) + TABLE,
            [Place("groups", 0, BLOCK, 4400), Place("BINTABLE", 3 * BLOCK, 4 * BLOCK, 3000)],
        ),
        case(
            "GCOUNT = 3",
            PRIMARY + image_hdu((1000,), xtension="IMAGE", pcount=1, gcount=3) + TABLE,
            [
                PRIMARY_PLACE,
                Place("IMAGE", BLOCK, 2 * BLOCK, 3003),
                Place("BINTABLE", 4 * BLOCK, 5 * BLOCK, 3000),
            ],
        ),
        case(
            "foreign XTENSION",
            PRIMARY + image_hdu((3000,), xtension="FOREIGN") + TABLE,
            [PRIMARY_PLACE, TABLE_PLACE._replace(kind="FOREIGN"), Place("BINTABLE", 4 * BLOCK, 5 * BLOCK, 3000)],
        ),
        case(
            "SIMPLE = F is walked",
            image_hdu((10,), simple=False) + TABLE,
            [Place("primary", 0, BLOCK, 10), Place("BINTABLE", 2 * BLOCK, 3 * BLOCK, 3000)],
        ),
        case(
            "SIMPLE again: two files in one",
            PRIMARY + TABLE + image_hdu((5,)),
            [PRIMARY_PLACE, TABLE_PLACE, Place("primary", 4 * BLOCK, 5 * BLOCK, 5)],
        ),
        case(
            "SIMPLE inside an extension",
            PRIMARY + image_hdu((5,), entry("SIMPLE", True), xtension="IMAGE"),
            [PRIMARY_PLACE, Place("IMAGE", BLOCK, 2 * BLOCK, 5)],
        ),
        case(
            "indicator of XTENSION in column 10",
            PRIMARY + header("XTENSION = 'IMAGE'", *structure((5,), 8, first=b"")[1:]) + data_unit(5) + TABLE,
            [PRIMARY_PLACE, Place("IMAGE", BLOCK, 2 * BLOCK, 5), Place("BINTABLE", 3 * BLOCK, 4 * BLOCK, 3000)],
        ),
        case(
            "repeated keyword, the last counts",
            header(*REPEATED) + data_unit(3000) + TABLE,
            [Place("primary", 0, BLOCK, 3000), Place("BINTABLE", 3 * BLOCK, 4 * BLOCK, 3000)],
        ),
        case(
            "repeated keyword, padding that is not ASCII: the first counts",
            header(*REPEATED, pad=b"\xff") + data_unit(5) + TABLE,
            [Place("primary", 0, BLOCK, 5), Place("BINTABLE", 2 * BLOCK, 3 * BLOCK, 3000)],
        ),
        case("END twice", header(*MANDATORY, "END", end="END") + TABLE, [PRIMARY_PLACE, TABLE_PLACE]),
        case("END in all the padding", header(*MANDATORY, *["END"] * 32) + TABLE, [PRIMARY_PLACE, TABLE_PLACE]),
        case("END\\0", header(*MANDATORY, end=b"END\0") + TABLE, [PRIMARY_PLACE, TABLE_PLACE]),
        case("END and NUL padding", header(*MANDATORY, pad=b"\0") + TABLE, [PRIMARY_PLACE, TABLE_PLACE]),
        case("junk padding", header(*MANDATORY, pad=b"junk") + TABLE, [PRIMARY_PLACE, TABLE_PLACE]),
        case(
            "END off the card boundary",
            header(*MANDATORY, "COMMENT".ljust(40) + "END" + " " * 37, "KEY     = 'END     '", "COMMENT END") + TABLE,
            [PRIMARY_PLACE, TABLE_PLACE],
        ),
        case("ENDTIME", header(*MANDATORY, "ENDTIME = 1", "END_A   = 1") + TABLE, [PRIMARY_PLACE, TABLE_PLACE]),
        case("NUL cards", header(*MANDATORY, b"\0" * 80, b"\0" * 80) + TABLE, [PRIMARY_PLACE, TABLE_PLACE]),
        case("bytes over 0x7E", header(*MANDATORY, b"\xff" * 80, "KEY     = '\xb5'") + TABLE,
             [PRIMARY_PLACE, TABLE_PLACE]),
        case("blank keywords", header(*MANDATORY, "", "        text") + TABLE, [PRIMARY_PLACE, TABLE_PLACE]),
        case(
            "duplicated NAXIS1, the last counts",
            header(entry("SIMPLE", True), entry("BITPIX", 8), entry("NAXIS", 1), "NAXIS1  = 9999", "NAXIS1  = 3")
            + data_unit(3) + TABLE,
            [Place("primary", 0, BLOCK, 3), Place("BINTABLE", 2 * BLOCK, 3 * BLOCK, 3000)],
        ),
        case(
            "lower-case structural keywords",
            header(entry("SIMPLE", True), "bitpix  = 8", "naxis   = 1", "naxis1  = 3") + data_unit(3) + TABLE,
            [Place("primary", 0, BLOCK, 3), Place("BINTABLE", 2 * BLOCK, 3 * BLOCK, 3000)],
        ),
        case("91 blocks", long_header(91) + TABLE,
             [Place("primary", 0, 91 * BLOCK, 0), Place("BINTABLE", 91 * BLOCK, 92 * BLOCK, 3000)]),
        case("147 blocks", long_header(147), [Place("primary", 0, 147 * BLOCK, 0)]),
        case("data that look like headers", image_hdu((3 * BLOCK,), data=PRIMARY) + TABLE,
             [Place("primary", 0, BLOCK, 3 * BLOCK), Place("BINTABLE", 4 * BLOCK, 5 * BLOCK, 3000)]),
        case("300 HDUs", PRIMARY + image_hdu((1,), xtension="IMAGE") * 299,
             [PRIMARY_PLACE, *(Place("IMAGE", at * BLOCK, (at + 1) * BLOCK, 1) for at in range(1, 599, 2))]),
    ],
)  # fmt: skip
def test_whole_file(walk: Any, data: bytes, expected: list[Place]) -> None:
    walked = walk(data)
    assert walked.places == expected
    assert walked.fault is None
    assert walked.end == EndOfFile(len(expected), 0)
    assert [hdu.index for hdu in walked.hdus] == list(range(len(expected)))
    for hdu in walked.hdus:
        end = hdu.header_offset + len(hdu.header)
        assert data[hdu.header_offset : end] == hdu.header
        assert data[end : end + 3] == b"END"


@pytest.mark.parametrize(
    "junk",
    [
        case("1 byte", b"x"),
        case("1 byte of a header", b"Y"),
        case("1 NUL", b"\0"),
        case("a block of NULs", b"\0" * BLOCK),
        case("79 blanks", b" " * 79),
        case("2 MB", b"junk" * (512 * 1024)),
        case("2 MB with END in it", card("END") * (2 * MiB // CARD)),
        case("a header that begins with neither SIMPLE nor XTENSION", header("BITPIX  = 8", "NAXIS   = 0")),
        case("SIMPLE in lower case", header("simple  = T", "NAXIS   = 0")),
        case("XTENSION without indicator", header("XTENSION  'IMAGE'", "NAXIS   = 0")),
    ],
)
@pytest.mark.parametrize(
    "first",
    [
        case("after a header", PRIMARY),
        case("after data", image_hdu((10,))),
        case("NAXIS = 0 with data after it", header(*MANDATORY)),
    ],
)
def test_trailing_bytes(first: bytes, junk: bytes) -> None:
    for policy in (POLICIES["default"], ReadPolicy(first=CARD, header=CARD, longest=64 * 1024, gap=0)):
        for known in (True, False):
            walked = walk_bytes(first + junk, known=known, policy=policy)
            assert (len(walked.hdus), walked.end, walked.fault) == (1, EndOfFile(1, len(junk)), None)


def test_junk_of_unknown_size_is_not_held() -> None:
    walker = HeaderWalker(None)
    walker.receive(0, PRIMARY)
    assert isinstance(walker.next_event(), Hdu)
    chunk = b"\0" * MiB
    tracemalloc.start()
    try:
        for _ in range(64):
            event = walker.next_event()
            assert isinstance(event, NeedBytes)
            walker.receive(event.spans[0].start, chunk)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    event = walker.next_event()
    assert isinstance(event, NeedBytes)
    assert event.spans[0].start == BLOCK + 64 * MiB
    assert peak < 3 * MiB
    walker.ends_at(event.spans[0].start)
    assert walker.next_event() == EndOfFile(1, 64 * MiB)


def test_junk_that_was_seen_is_not_asked_for_again() -> None:
    walker = HeaderWalker(None, ReadPolicy(longest=1000, gap=0))
    walker.receive(0, PRIMARY + b"junk")
    assert isinstance(walker.next_event(), Hdu)
    assert isinstance(walker.next_event(), NeedBytes)
    walker.receive(BLOCK, b"junk" * 20)
    assert walker.next_event() == NeedBytes((Span(BLOCK + 80, BLOCK + 1080),))
    walker.receive(0, PRIMARY)
    assert walker.next_event() == NeedBytes((Span(BLOCK + 80, BLOCK + 1080),))


def test_known_size_needs_no_read_of_the_junk() -> None:
    junk = b"\0" * 20 * MiB
    walked = walk_bytes(PRIMARY + junk)
    assert walked.end == EndOfFile(1, len(junk))
    assert walked.spans == [(0, 12 * BLOCK)]


DATA = image_hdu((3000,))  # a block of header, 3000 bytes of data, 2760 bytes of padding


@pytest.mark.parametrize(
    ("data", "n_hdus", "error", "message"),
    [
        case("empty", b"", 0, NotFitsError, "empty file (byte 0)"),
        case("one byte", b"x", 0, NotFitsError, "does not begin with SIMPLE but with b'x' (byte 0)"),
        case("NULs", b"\0" * 5000, 0, NotFitsError,
             f"does not begin with SIMPLE but with {bytes(16)!r} (byte 0)"),
        case("text", b"Not a FITS\nfile at all" * 10, 0, NotFitsError,
             "does not begin with SIMPLE but with b'Not a FITS\\nfile ' (byte 0)"),
        case("begins with an extension", TABLE, 0, NotFitsError,
             "does not begin with SIMPLE but with b\"XTENSION= 'BINTA\" (byte 0)"),
        case("begins with a byte before SIMPLE", b" " + PRIMARY, 0, NotFitsError,
             "does not begin with SIMPLE but with b' SIMPLE  =      ' (byte 0)"),
        case("part of SIMPLE", b"SIMP", 0, NotFitsError, "does not begin with SIMPLE but with b'SIMP' (byte 0)"),
        case("SIMPLE and nothing more", b"SIMPLE  =", 0, TruncatedError,
             "file ends at byte 9, inside the header of HDU 0 (byte 0)"),
        case("inside the first header", PRIMARY[:170], 0, TruncatedError,
             "file ends at byte 170, inside the header of HDU 0 (byte 0)"),
        case("inside the END card", header(*MANDATORY, pad=None)[: 3 * CARD + 3], 0, TruncatedError,
             "file ends at byte 243, inside the header of HDU 0 (byte 0)"),
        case("inside a later header", PRIMARY + TABLE[:500], 1, TruncatedError,
             "file ends at byte 3380, inside the header of HDU 1 (byte 2880)"),
        case("at a later header's first bytes", PRIMARY + b"XTEN", 1, TruncatedError,
             "file ends at byte 2884, inside the header of HDU 1 (byte 2880)"),
        case("header without END", header(*MANDATORY, end=None), 0, TruncatedError,
             "file ends at byte 2880, inside the header of HDU 0 (byte 0)"),
        case("inside the header's padding", PRIMARY + TABLE[:2879], 2, TruncatedError,
             "file ends inside the padding of the header of HDU 1 (byte 5759)"),
        case("header without padding", header(*MANDATORY, pad=None), 1, TruncatedError,
             "file ends inside the padding of the header of HDU 0 (byte 320)"),
        case("padding that tells which of two keywords counts", header(*REPEATED)[:-1], 0, TruncatedError,
             "file ends at byte 2879, inside the header of HDU 0 (byte 0)"),
        case("before the data", DATA[:BLOCK], 1, TruncatedError,
             "file ends 3000 bytes before the data of HDU 0 do (byte 2880)"),
        case("inside the data", DATA[: BLOCK + 2999], 1, TruncatedError,
             "file ends 1 byte before the data of HDU 0 do (byte 5879)"),
        case("after the data: no padding", DATA[: BLOCK + 3000], 1, TruncatedError,
             "file ends inside the padding of HDU 0, its data whole (byte 5880)"),
        case("inside the padding", PRIMARY + image_hdu((3000,), xtension="IMAGE")[:-1],
             2, TruncatedError, "file ends inside the padding of HDU 1, its data whole (byte 11519)"),
        case("negative axis", header(*MANDATORY[:2], entry("NAXIS", 1), entry("NAXIS1", -5)), 0, CorruptError,
             "NAXIS1 = -5 is not from 0 to 9223372036854775807 (byte 0)"),
        case("negative axis in an extension", PRIMARY + image_hdu((), "NAXIS   = 1", "NAXIS1  = -5", xtension="IMAGE"),
             1, CorruptError, "NAXIS1 = -5 is not from 0 to 9223372036854775807 (byte 2880)"),
        case("value that is none", PRIMARY + TABLE + image_hdu((), "NAXIS   = 1", "NAXIS1  = 1 0", xtension="IMAGE"),
             2, CorruptError, "NAXIS1 is no integer: '1 0' (byte 11520)"),
        case("offset beyond 64 bits",
             PRIMARY + image_hdu((), "NAXIS   = 2", f"NAXIS1  = {2**40}", f"NAXIS2  = {2**40}", xtension="IMAGE"),
             1, CorruptError, "data unit would end beyond 2^63 bytes (byte 2880)"),
        case("offset of exactly 64 bits, from the second HDU on",
             header(*MANDATORY) + image_hdu((), "NAXIS   = 1", f"NAXIS1  = {2**63 - 2 * BLOCK}", xtension="IMAGE"),
             1, CorruptError, "data unit would end beyond 2^63 bytes (byte 2880)"),
        case("999 huge axes",
             header(*MANDATORY[:2], entry("NAXIS", 999), *(entry(f"NAXIS{i}", 2**62) for i in range(1, 1000))),
             0, CorruptError, "data unit would end beyond 2^63 bytes (byte 0)"),
        case("petabytes that are not there",
             PRIMARY + image_hdu((), "NAXIS   = 1", f"NAXIS1  = {10**15}", xtension="X"),
             2, TruncatedError, "file ends 1000000000000000 bytes before the data of HDU 1 do (byte 5760)"),
    ],
)  # fmt: skip
def test_fault(walk: Any, data: bytes, n_hdus: int, error: type[FormatError], message: str) -> None:
    walked: Walked = walk(data)
    assert (len(walked.hdus), walked.end) == (n_hdus, None)
    assert (type(walked.fault), str(walked.fault)) == (error, message)
    assert message.isprintable()


def test_negative_product_is_not_positive() -> None:
    # Two negative axes: astropy multiplies them, and finds data.
    walked = walk_bytes(header(*MANDATORY[:2], "NAXIS   = 2", "NAXIS1  = -5", "NAXIS2  = -5") + data_unit(25))
    assert str(walked.fault) == "NAXIS1 = -5 is not from 0 to 9223372036854775807 (byte 0)"


@pytest.mark.parametrize("known", [True, False], ids=["size known", "size unknown"])
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_header_that_never_ends(policy: ReadPolicy, known: bool) -> None:
    limits = Limits(header_bytes=10 * BLOCK)
    endless = header(*MANDATORY, end=None) + card("COMMENT") * 100_000
    walked = walk_bytes(
        PRIMARY + endless.replace(b"SIMPLE  =", b"XTENSION=", 1), known=known, policy=policy, limits=limits
    )
    assert len(walked.hdus) == 1
    assert type(walked.fault) is CorruptError
    assert str(walked.fault) == "header of HDU 1 has no END within 28800 bytes (byte 2880)"
    # No more than the limit, and one read that may go beyond it.
    assert max(stop for _, stop in walked.spans) <= 2880 + limits.header_bytes + max(policy.first, policy.longest)


def test_header_limit_is_inclusive_and_does_not_depend_on_the_reads() -> None:
    data = long_header(10)
    for policy in POLICIES.values():
        fits = walk_bytes(data, policy=policy, limits=Limits(header_bytes=len(data)))
        assert len(fits.hdus) == 1
        too_long = walk_bytes(data, policy=policy, limits=Limits(header_bytes=len(data) - 1))
        assert str(too_long.fault) == "header of HDU 0 has no END within 28799 bytes (byte 0)"


def test_reads_of_a_long_header_double() -> None:
    walked = walk_bytes(long_header(147), policy=ReadPolicy(first=BLOCK, header=BLOCK, longest=32 * BLOCK, gap=0))
    assert [(stop - start) // BLOCK for start, stop in walked.spans] == [1, 1, 2, 4, 8, 16, 32, 32, 32, 19]


def test_all_headers_of_a_file_are_limited() -> None:
    data = PRIMARY + image_hdu(xtension="IMAGE") * 99
    walked = walk_bytes(data, limits=Limits(file_bytes=10 * BLOCK))
    assert len(walked.hdus) == 10
    assert str(walked.fault) == "more than 28800 bytes of headers (byte 28800)"
    assert walk_bytes(data, limits=Limits(file_bytes=100 * BLOCK)).end == EndOfFile(100, 0)


def test_headers_that_were_yielded_are_not_held() -> None:
    one = image_hdu(xtension="IMAGE")
    count = 5_000  # 14 MB of headers without data between: to keep them would also mean to copy them at every read
    walker = HeaderWalker(BLOCK * (count + 1))
    found = 0
    tracemalloc.start()
    try:
        while not isinstance(event := walker.next_event(), EndOfFile):
            if isinstance(event, Hdu):
                found += 1
                continue
            for start, stop in event.spans:
                first = PRIMARY[start:] if start < BLOCK else b""
                blocks = -(-(stop - start) // BLOCK) + 1
                shift = (start + len(first)) % BLOCK
                walker.receive(start, (first + (one * blocks)[shift:])[: stop - start])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found == count + 1
    assert peak < MiB


def test_requests_of_a_file_with_data_between() -> None:
    data = PRIMARY + image_hdu((200_000,), xtension="IMAGE") * 3
    walked = walk_bytes(data)
    hdu = 200_000 + 2880 * 2 - 200_000 % 2880
    reads = [(0, 12 * BLOCK), *((at, at + BLOCK) for at in (BLOCK + hdu, BLOCK + 2 * hdu))]
    assert walked.spans == reads


def test_nothing_is_asked_for_beyond_a_known_end() -> None:
    assert walk_bytes(PRIMARY).spans == [(0, BLOCK)]
    assert walk_bytes(DATA).spans == [(0, len(DATA))]


def test_what_was_said_last_is_said_again() -> None:
    walker = HeaderWalker(len(PRIMARY))
    walker.receive(0, PRIMARY)
    assert isinstance(walker.next_event(), Hdu)
    assert [walker.next_event() for _ in range(3)] == [EndOfFile(1, 0)] * 3
    walker.receive(0, b"too late")
    walker.ends_at(5)
    assert walker.next_event() == EndOfFile(1, 0)
    walker = HeaderWalker(0)
    for _ in range(3):
        with pytest.raises(NotFitsError, match="empty file"):
            walker.next_event()


def test_bytes_that_were_not_asked_for() -> None:
    data = PRIMARY + TABLE
    walker = HeaderWalker(len(data))
    walker.receive(3000, data[3000:6000])  # of the second header, before the first
    walker.receive(100, data[100:200])
    walker.receive(150, data[150:3100])
    assert walker.next_event() == NeedBytes((Span(0, len(data)),))
    walker.receive(0, data[:101])
    assert isinstance(walker.next_event(), Hdu)
    assert isinstance(walker.next_event(), Hdu)
    assert walker.next_event() == EndOfFile(2, 0)


def test_fewer_bytes_than_asked_for_are_asked_for_again() -> None:
    walker = HeaderWalker(None)
    event = walker.next_event()
    assert event == NeedBytes((Span(0, 12 * BLOCK),))
    walker.receive(0, PRIMARY[:100])
    event = walker.next_event()
    assert isinstance(event, NeedBytes)
    assert event.spans[0].start == 100


def test_fill_makes_blocks() -> None:
    assert len(fill(b"x")) == BLOCK
    assert fill(b"") == b""
