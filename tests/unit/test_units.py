"""The arithmetic of headers: where END is, what the structural keywords say, how large the data are."""

from __future__ import annotations

from typing import Any

import pytest

from crawler.errors import CorruptError
from crawler.fits.structure import parse_hdu
from crawler.fits.units import BLOCK, CARD, INT64_MAX, Hdu, find_end, padded
from tests.fits_files import card, entry


def case(name: str, *values: Any) -> Any:
    return pytest.param(*values, id=name)


def parse(*cards: str | bytes, offset: int = 0) -> Hdu:
    return parse_hdu(0, offset, b"".join(map(card, cards)))


SIMPLE = entry("SIMPLE", True)
IMAGE = entry("XTENSION", "IMAGE")
BITPIX = entry("BITPIX", 8)


@pytest.mark.parametrize(
    ("size", "expected"),
    [(0, 0), (1, 2880), (2880, 2880), (2881, 5760), (2**62, (2**62 // 2880 + 1) * 2880)],
)
def test_padded(size: int, expected: int) -> None:
    assert padded(size) == expected


@pytest.mark.parametrize(
    ("cards", "expected"),
    [
        case("END", ["A", "END"], 1),
        case("NUL after it", ["A", b"END\0"], 1),
        case("NULs in columns 4 to 8", ["A", b"END\0\0\0\0\0"], 1),
        case("NULs to the end of its card", ["A", b"END".ljust(80, b"\0")], 1),
        case("text from column 9 on", ["A", "END     of header"], 1),
        case("value indicator", ["A", "END     = 5"], 1),
        case("comment from column 10 on", ["A", "END      / c"], 1),
        case("bytes over 0x7E from column 9 on", ["A", b"END     \xff"], 1),
        case("twice, the first counts", ["A", "END", "END"], 1),
        case("first card", ["END"], 0),
        case("text in columns 5 to 8 is none", ["END of header", "A"], None),
        case("text in column 8 is none", ["END    x", "A"], None),
        case("NUL and text in columns 4 to 8 is none", [b"END\0x", "A"], None),
        case("slash is none", ["END/ c", "A"], None),
        case("slash in column 5 is none", ["END / c", "A"], None),
        case("line feed is none", ["END\n", "A"], None),
        case("tab is none", ["END\t", "A"], None),
        case("comma is none", ["END,", "A"], None),
        case("early value indicator is none", ["END= 1", "END  = 1"], None),
        case("byte over 0x7E is none", [b"END\xff", "A"], None),
        case("END/ before END", ["END/ c", "END"], 1),
        case("ENDTIME is none", ["ENDTIME = 1", "A"], None),
        case("END_ is none", ["END_    = 1", "A"], None),
        case("END- is none", ["END-    = 1", "A"], None),
        case("END1 is none", ["END1    = 1", "A"], None),
        case("ENDTIME before END", ["ENDTIME = 1", "END"], 1),
        case("lower case is none", ["end", "A"], None),
        case("second column is none", [" END", "A"], None),
        case("inside a comment", ["COMMENT THE END", "A"], None),
        case("inside a string", ["KEY     = 'END     '", "A"], None),
        case("after text that ends at a boundary", ["COMMENT".ljust(77) + "END", "END"], 1),
    ],
)
@pytest.mark.parametrize("base", [0, 7, BLOCK], ids=["at the start", "at an odd place", "a block on"])
def test_find_end(cards: list[str | bytes], expected: int | None, base: int) -> None:
    data = b"E" * base + b"".join(map(card, cards))
    assert find_end(data, base, base) == (-1 if expected is None else base + expected * CARD)


def test_find_end_waits_for_the_whole_card() -> None:
    data = card("A") + card("END")
    for missing in (77, 76, 72, 1):
        assert find_end(data[:-missing], 0, 0) == -1
    assert find_end(data, 0, 0) == CARD


def test_find_end_starts_where_it_is_told() -> None:
    data = card("END") + card("A") + card("END")
    assert find_end(data, 0, CARD) == 2 * CARD


@pytest.mark.parametrize(
    ("cards", "shape", "data_size"),
    [
        case("no data", [SIMPLE, BITPIX, entry("NAXIS", 0)], (), 0),
        case("no data whatever BITPIX", [SIMPLE, entry("BITPIX", -64), entry("NAXIS", 0)], (), 0),
        case("no data whatever PCOUNT", [IMAGE, BITPIX, entry("NAXIS", 0), entry("PCOUNT", 99)], (), 0),
        case("no NAXIS, as HMI tables", [IMAGE], (), 0),
        case("axis of length 0", [SIMPLE, BITPIX, "NAXIS   = 2", "NAXIS1  = 0", "NAXIS2  = 9"], (0, 9), 0),
        case("bytes", [SIMPLE, BITPIX, "NAXIS   = 2", "NAXIS1  = 5", "NAXIS2  = 7"], (5, 7), 35),
        case("16 bits", [SIMPLE, entry("BITPIX", 16), "NAXIS   = 1", "NAXIS1  = 5"], (5,), 10),
        case("doubles", [SIMPLE, entry("BITPIX", -64), "NAXIS   = 1", "NAXIS1  = 5"], (5,), 40),
        case("odd BITPIX", [SIMPLE, entry("BITPIX", 12), "NAXIS   = 1", "NAXIS1  = 3"], (3,), 4),
        case("BITPIX of zero", [SIMPLE, entry("BITPIX", 0), "NAXIS   = 1", "NAXIS1  = 3"], (3,), 0),
        case("heap", [IMAGE, BITPIX, "NAXIS   = 1", "NAXIS1  = 3", "PCOUNT  = 100"], (3,), 103),
        case("heap of an empty table", [IMAGE, BITPIX, "NAXIS   = 1", "NAXIS1  = 0", "PCOUNT  = 100"], (0,), 100),
        case("GCOUNT = 3", [IMAGE, BITPIX, "NAXIS   = 1", "NAXIS1  = 5", "PCOUNT  = 2", "GCOUNT  = 3"], (5,), 21),
        case("GCOUNT = 0", [IMAGE, BITPIX, "NAXIS   = 1", "NAXIS1  = 5", "GCOUNT  = 0"], (5,), 0),
        case("foreign XTENSION", [entry("XTENSION", "FOREIGN"), BITPIX, "NAXIS   = 1", "NAXIS1  = 5"], (5,), 5),
        case("lower-case keywords", [SIMPLE, "bitpix  = 16", "naxis   = 1", "naxis1  = 5"], (5,), 10),
        case("value indicator behind a short keyword", [SIMPLE, BITPIX, "NAXIS= 1", "NAXIS1= 5", "PCOUNT= 2"], (5,), 7),
        case("value indicator in column 8", [SIMPLE, BITPIX, "NAXIS   = 1", "NAXIS1 = 5"], (5,), 5),
        case("blank before the keyword", [SIMPLE, BITPIX, "NAXIS   = 1", " NAXIS1 = 5"], (5,), 5),
        case("no blank before the value", [SIMPLE, BITPIX, "NAXIS   =1", "NAXIS1  =5"], (5,), 5),
        case("slash right after the value", [SIMPLE, BITPIX, "NAXIS   = 1/ axes", "NAXIS1  = 5/"], (5,), 5),
        case("comment without a slash", [SIMPLE, BITPIX, "NAXIS   = 1 axis", "NAXIS1  = 5 pixels"], (5,), 5),
        case("digits in a comment", [SIMPLE, BITPIX, "NAXIS   = 1 / 2 or 3", "NAXIS1  = 5 / 10 20"], (5,), 5),
        case("plus sign and zeros", [SIMPLE, BITPIX, "NAXIS   = +01", "NAXIS1  = +0005"], (5,), 5),
        case("NULs after the value", [SIMPLE, BITPIX, b"NAXIS   = 1\0\0", b"NAXIS1  = 5".ljust(80, b"\0")], (5,), 5),
        case("value at the card's end", [SIMPLE, BITPIX, "NAXIS   =" + "1".rjust(71), "NAXIS1  = 5"], (5,), 5),
        case("empty PCOUNT", [IMAGE, BITPIX, "NAXIS   = 1", "NAXIS1  = 5", "PCOUNT  ="], (5,), 5),
        case("keyword without indicator", [SIMPLE, BITPIX, "NAXIS   = 1", "NAXIS1  = 5", "PCOUNT    7"], (5,), 5),
        case("largest that 64 bits hold", [SIMPLE, BITPIX, "NAXIS   = 1", f"NAXIS1  = {INT64_MAX - 9000}"],
             (INT64_MAX - 9000,), INT64_MAX - 9000),
    ],
)  # fmt: skip
def test_data_size(cards: list[str | bytes], shape: tuple[int, ...], data_size: int) -> None:
    hdu = parse(*cards)
    assert (hdu.shape, hdu.data_size) == (shape, data_size)


ARRAY = [BITPIX, "NAXIS   = 2", "NAXIS1  = 5", "NAXIS2  = 7", "PCOUNT  = 0", "GCOUNT  = 1"]
E_ACUTE = b"COMMENT caf\xe9"
RANDOM_GROUPS = [SIMPLE, entry("BITPIX", 8), "NAXIS   = 2", "NAXIS1  = 0", "NAXIS2  = 4", "GROUPS  = T"]


@pytest.mark.parametrize(
    ("cards", "end", "data_size"),
    [
        case("the last", [IMAGE, *ARRAY, "NAXIS1  = 9"], "END", 9 * 7),
        case("the last PCOUNT", [IMAGE, *ARRAY, "PCOUNT  = 9"], "END", 35 + 9),
        case("the last GCOUNT", [IMAGE, *ARRAY, "GCOUNT  = 3"], "END", 35 * 3),
        case("the last NAXIS", [IMAGE, *ARRAY, "NAXIS   = 1"], "END", 5),
        case("the last BITPIX", [IMAGE, *ARRAY, "BITPIX  = 16"], "END", 70),
        case("one in lower case", [IMAGE, *ARRAY, "naxis1  = 9"], "END", 9 * 7),
        case("one with an early indicator", [IMAGE, *ARRAY, "PCOUNT= 9"], "END", 35 + 9),
        case("not one without a blank behind the indicator", [IMAGE, *ARRAY, "NAXIS1  =9", "PCOUNT  =9"], "END", 35),
        case("not one with the indicator in column 8", [IMAGE, *ARRAY, "NAXIS1 = 9", "PCOUNT = 9"], "END", 35),
        case("not one without indicator", [IMAGE, *ARRAY, "NAXIS1    9"], "END", 35),
        case("not an axis beyond NAXIS", [IMAGE, *ARRAY, "NAXIS3  = 9", "NAXIS01 = 9", "NAXIS0  = 9"], "END", 35),
        case("the first in a header with bytes over 0x7F", [IMAGE, *ARRAY, "NAXIS1  = 9", E_ACUTE], "END", 35),
        case("the first before an odd END", [IMAGE, *ARRAY, "NAXIS1  = 9"], b"END\0", 35),
        case("the first before text in END", [IMAGE, *ARRAY, "NAXIS1  = 9"], "END     of header", 35),
        case("the first of random groups", [*RANDOM_GROUPS, "NAXIS2  = 9"], "END", 4),
        case("the first before an END that only CFITSIO knows", [IMAGE, *ARRAY, "END= 1", "NAXIS1  = 9"], b"END\0", 35),
    ],
)
def test_repeated_keyword_counts_as_in_astropy(cards: list[str | bytes], end: str | bytes, data_size: int) -> None:
    for _ in range(2):  # the second time from what is remembered
        assert parse_hdu(1, 0, b"".join(map(card, cards)), card(end)).data_size == data_size


@pytest.mark.parametrize("odd", ["END of header", "END  = 1", "END= 1", b"END\0x"])
@pytest.mark.parametrize(
    ("cards", "end"), [([], b"END\0"), ([], "END     of header"), ([E_ACUTE], "END")], ids=["NUL", "text", "not ASCII"]
)
def test_odd_end_before_one_that_astropy_falls_back_on_ends_the_header(
    odd: str | bytes, cards: list[bytes], end: str | bytes
) -> None:
    before = b"".join(map(card, [IMAGE, *ARRAY]))
    whole = before + b"".join(map(card, [odd, *cards, *["COMMENT"] * 36]))
    for _ in range(2):
        hdu = parse_hdu(1, 0, whole, card(end))
        assert (hdu.header, hdu.header_size) == (before, BLOCK)
    assert parse_hdu(1, 0, whole.replace(E_ACUTE, b"COMMENT cafe"), card("END")).header_size == 2 * BLOCK


@pytest.mark.parametrize(
    "odd",
    [
        case("words behind a value", "{} = 5 pixels"),
        case("words behind a value of fixed format", "{} =                    5 pixels"),
        case("no blank behind the indicator", "{} =5"),
        case("indicator in column 8", "{}= 5"),
        case("NULs behind a value", b"{} = 5\0\0"),
    ],
)
def test_value_that_only_cfitsio_reads_counts_where_the_cards_are_in_order(odd: str | bytes) -> None:
    odd = odd.decode() if isinstance(odd, bytes) else odd
    rest = ["PCOUNT  = 0", "GCOUNT  = 1", "COMMENT"]
    axis, other = odd.format("NAXIS1 "), "NAXIS2  = 7"
    assert parse(IMAGE, BITPIX, "NAXIS   = 2", axis, other, *rest).data_size == 35
    for cards in (
        [IMAGE, BITPIX, "NAXIS   = 2", other, axis, *rest],
        [IMAGE, "COMMENT", BITPIX, "NAXIS   = 2", axis, other, *rest],
        [IMAGE, BITPIX, "NAXIS   = 2", axis.lower(), other, *rest],
        [IMAGE, BITPIX, "NAXIS   = 2", axis, other, "COMMENT", *rest],
        [IMAGE, BITPIX, "NAXIS   = 2", axis, other, *rest, BITPIX],
    ):
        with pytest.raises(CorruptError, match="NAXIS1"):
            parse(*cards)


@pytest.mark.parametrize("odd", ["NAXIS1     5", "NAXIS1  =5", "NAXIS1: = 5", "NAXIS1 5= 5", "NAXIS1   = 5"])
def test_keyword_without_indicator_counts_only_in_the_reader_that_astropy_falls_back_on(odd: str) -> None:
    cards = [IMAGE, *ARRAY, odd]
    assert parse(*cards).data_size == 35
    assert parse(*cards, E_ACUTE).data_size == 35
    before = [IMAGE, odd, *ARRAY]
    assert parse(*before).data_size == 35
    if odd[:8].rstrip() == "NAXIS1":
        with pytest.raises(CorruptError, match="header has no value of NAXIS1"):
            parse(*before, E_ACUTE)
    else:
        assert parse(*before, E_ACUTE).data_size == 35


def test_missing_value_of_pcount_is_0_where_the_cards_are_in_order() -> None:
    cards = [IMAGE, BITPIX, "NAXIS   = 1", "NAXIS1  = 5", "PCOUNT  =", "GCOUNT  = 1"]
    assert parse(*cards).data_size == 5
    with pytest.raises(CorruptError, match="header has no value of PCOUNT"):
        parse(*cards, BITPIX)


GROUPS = [SIMPLE, entry("BITPIX", -32), "NAXIS   = 3", "NAXIS1  = 0", "NAXIS2  = 4", "NAXIS3  = 2"]


@pytest.mark.parametrize(
    ("cards", "kind", "data_size"),
    [
        case("groups", [*GROUPS, "GROUPS  = T", "PCOUNT  = 3", "GCOUNT  = 10"], "groups", 4 * 10 * (3 + 8)),
        case("GROUPS = F", [*GROUPS, "GROUPS  = F", "PCOUNT  = 3", "GCOUNT  = 10"], "primary", 4 * 10 * 3),
        case("no GROUPS", GROUPS, "primary", 0),
        case(
            "a GEIS header: GROUPS = T, but an array",
            [SIMPLE, BITPIX, "NAXIS   = 1", "NAXIS1  = 5", "GROUPS  = T", "PCOUNT  = 38", "GCOUNT  = 4"],
            "primary",
            5,
        ),
        case("GROUPS = T, but data", [SIMPLE, BITPIX, "NAXIS   = 1", "NAXIS1  = 5", "GROUPS  = T"], "primary", 5),
        # Equation 4 with no axis behind NAXIS1: the empty product is 1. CFITSIO reads it so, astropy as no data.
        case("only NAXIS1", [SIMPLE, BITPIX, "NAXIS   = 1", "NAXIS1  = 0", "GROUPS  = T", "PCOUNT  = 2"], "groups", 3),
        # Equation 2, not 4, holds for extensions.
        case("in an extension", [IMAGE, *GROUPS[1:], "GROUPS  = T", "PCOUNT  = 3", "GCOUNT  = 10"], "IMAGE", 4 * 30),
    ],
)
def test_random_groups(cards: list[str | bytes], kind: str, data_size: int) -> None:
    hdu = parse(*cards)
    assert (hdu.kind, hdu.data_size) == (kind, data_size)


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        case("primary", SIMPLE, "primary"),
        case("SIMPLE = F", entry("SIMPLE", False), "primary"),
        case("IMAGE", "XTENSION= 'IMAGE   '", "IMAGE"),
        case("trailing blanks dropped", "XTENSION= 'BINTABLE    ' / table", "BINTABLE"),
        case("as written", "XTENSION= 'iue image'", "iue image"),
        case("doubled quote", "XTENSION= 'O''HARA'", "O'HARA"),
        case("bytes over 0x7E", b"XTENSION= '\xb5'", "\xb5"),
        case("no quotes", "XTENSION= TABLE", "TABLE"),
        case("no closing quote: no string", "XTENSION= 'TABLE", ""),
        case("empty", "XTENSION=", ""),
    ],
)
def test_kind(first: str | bytes, kind: str) -> None:
    assert parse(first, BITPIX, "NAXIS   = 0").kind == kind


@pytest.mark.parametrize(
    ("cards", "error"),
    [
        case("not a number", ["NAXIS   = 1", "NAXIS1  = many"], "NAXIS1 is no integer: 'many'"),
        case("two numbers", ["NAXIS   = 1", "NAXIS1  = 1 0"], "NAXIS1 is no integer: '1 0'"),
        case("a real", ["NAXIS   = 1", "NAXIS1  = 5.5"], "NAXIS1 is no integer: '5.5'"),
        case("a decimal point", ["NAXIS   = 1", "NAXIS1  = 5."], "NAXIS1 is no integer: '5.'"),
        case("an exponent", ["NAXIS   = 1", "NAXIS1  = 1E3"], "NAXIS1 is no integer: '1E3'"),
        case("a string", ["NAXIS   = 1", "NAXIS1  = '5'"], "NAXIS1 is no integer: \"'5'\""),
        case("a logical", ["NAXIS   = T"], "NAXIS is no integer: 'T'"),
        case("other digits", [b"NAXIS   = 1", b"NAXIS1  = \xb2"], "NAXIS1 is no integer: '\\xb2'"),
        case("a comment in its place", ["NAXIS   = 1", "NAXIS1  = / none"], "header has no value of NAXIS1"),
        case("blank", ["NAXIS   = 1", "NAXIS1  ="], "header has no value of NAXIS1"),
        case(
            "blank GCOUNT",
            ["NAXIS   = 1", "NAXIS1  = 5", "PCOUNT  = 0", "GCOUNT  = / 1"],
            "header has no value of GCOUNT",
        ),
        case("blank NAXIS", ["NAXIS   =", "NAXIS1  = 5"], "header has no value of NAXIS"),
        case("NAXIS is an open string", ["NAXIS   = '", "NAXIS1  = 5"], "header has no value of NAXIS"),
        case("missing", ["NAXIS   = 2", "NAXIS1  = 5"], "header has no NAXIS2"),
        case("negative", ["NAXIS   = 1", "NAXIS1  = -5"], f"NAXIS1 = -5 is not from 0 to {INT64_MAX}"),
        case("negative NAXIS", ["NAXIS   = -1"], "NAXIS = -1 is not from 0 to 999"),
        case("too many axes", ["NAXIS   = 1000"], "NAXIS = 1000 is not from 0 to 999"),
        case("negative PCOUNT", ["NAXIS   = 0", "PCOUNT  = -1"], f"PCOUNT = -1 is not from 0 to {INT64_MAX}"),
        case("negative GCOUNT", ["NAXIS   = 0", "GCOUNT  = -1"], f"GCOUNT = -1 is not from 0 to {INT64_MAX}"),
        case("BITPIX too large", ["BITPIX  = 40000", "NAXIS   = 0"], "BITPIX = 40000 is not from -32768 to 32767"),
        case(
            "beyond 64 bits",
            ["NAXIS   = 1", f"NAXIS1  = {2**63}"],
            f"NAXIS1 = {2**63} is not from 0 to {INT64_MAX}",
        ),
        case(
            "product beyond 64 bits",
            ["NAXIS   = 2", f"NAXIS1  = {2**40}", f"NAXIS2  = {2**40}"],
            "data unit would end beyond 2^63 bytes",
        ),
        case(
            "heap beyond 64 bits",
            ["NAXIS   = 1", "NAXIS1  = 1", f"PCOUNT  = {INT64_MAX}"],
            "data unit would end beyond 2^63 bytes",
        ),
        case(
            "groups beyond 64 bits",
            ["NAXIS   = 1", f"NAXIS1  = {2**40}", f"GCOUNT  = {2**40}"],
            "data unit would end beyond 2^63 bytes",
        ),
        case(
            "padding beyond 64 bits",
            ["NAXIS   = 1", f"NAXIS1  = {INT64_MAX - 5760}"],
            "data unit would end beyond 2^63 bytes",
        ),
    ],
)
def test_corrupt(cards: list[str | bytes], error: str) -> None:
    with pytest.raises(CorruptError) as caught:
        parse(IMAGE, BITPIX, *cards, offset=5760)
    assert str(caught.value) == f"{error} (byte 5760)"


def test_data_need_bitpix() -> None:
    with pytest.raises(CorruptError, match="header has no BITPIX"):
        parse(SIMPLE, "NAXIS   = 1", "NAXIS1  = 5")


def test_999_axes() -> None:
    ones = [entry(f"NAXIS{axis}", 1) for axis in range(1, 1000)]
    assert parse(SIMPLE, BITPIX, entry("NAXIS", 999), *ones).data_size == 1
    huge = [entry(f"NAXIS{axis}", INT64_MAX) for axis in range(1, 1000)]
    with pytest.raises(CorruptError, match="beyond 2\\^63 bytes"):
        parse(SIMPLE, BITPIX, entry("NAXIS", 999), *huge)
    # One axis of length zero, and there is nothing to overflow.
    assert parse(SIMPLE, BITPIX, entry("NAXIS", 999), *huge[:-1], entry("NAXIS999", 0)).data_size == 0


def test_everything_an_hdu_tells() -> None:
    cards = [
        entry("XTENSION", "BINTABLE"), BITPIX, "NAXIS   = 2", "NAXIS1  = 24", "NAXIS2  = 10", "PCOUNT  = 9",
        "GCOUNT  = 1", *["COMMENT"] * 29,
    ]  # fmt: skip
    raw = b"".join(map(card, cards))
    hdu = parse_hdu(3, 5760, raw)
    assert hdu == Hdu(
        index=3,
        kind="BINTABLE",
        header_offset=5760,
        header_size=2 * BLOCK,  # 36 cards fill a block, so END takes another
        data_offset=5760 + 2 * BLOCK,
        data_size=249,
        bitpix=8,
        shape=(24, 10),
        pcount=9,
        gcount=1,
        header=raw,
    )
    assert hdu.end == 5760 + 3 * BLOCK


def test_a_header_that_fills_its_block_with_end() -> None:
    assert parse(SIMPLE, BITPIX, "NAXIS   = 0", *["COMMENT"] * 32).header_size == BLOCK
