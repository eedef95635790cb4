"""What holds for every batch of card images, and for every card that astropy can write or read."""

from __future__ import annotations

import string
import warnings
from typing import Any

import numpy as np
import pyarrow as pa
from astropy.io import fits
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from crawler.fits.cards import CARDS_SCHEMA, parse_cards
from crawler.fits.grammar import read_card
from tests.conformance.oracle import compare_cards, python_value

CARD = 80
END = b"END".ljust(CARD)

deterministic = settings(
    deadline=None, derandomize=True, max_examples=200, suppress_health_check=[HealthCheck.too_slow]
)

# Pieces that nearly valid cards are made of; together they reach every branch of the grammar.
KEYWORDS = [
    "KEY     = ", "KEY     = ", "KEY     = ", "key_1   = ", "KEY= ", " KEY    = ", "A=B     = ", "KE Y    = ",
    "DP1     = ", "HIERARCH ESO DET CHIP ID = ", "HIERARCH Eso Det=", "HIERARCH a = ", "HIERARCH COMMENT = ",
    "HIERARCH history = ", "HIERARCH END = ", "HIERARCH CONTINUE = ", "HIERARCH= ", "hierarch b= ", "COMMENT ",
    "comment ", "COMMENT= ", "HISTORY ", "        ", "END     ", "CONTINUE  ", "continue  ", "CONTINUE= ", "KEY     ",
    "K\xe9Y     = ", "K\t      = ", "\xb5\xdf\xff     = ",
]  # fmt: skip
VALUES = [
    "'abc'", "'abc&'", "''", "' a  b '", "'O''Hara'", "'it''s&'", "'a'b'", "'a' b", "'um/s'", "'AXIS.1: 2'", "T", "F",
    "TF", "1", "+01", "- 5", "1 0", "9223372036854775807", "9223372036854775808", "1.5", "-.5", "5.", ".", "1E5",
    "1.5D-03", "2 e + 3", "1E999", "1E-320", "(1, 2)", "( -1.5 , 2D0 )", "(1)", "NaN", "0x1", "", " ", "\xe9", "\0",
    "9" * 69, "-" + "9" * 68, "1E" + "9" * 60, "1E-" + "9" * 60, "." * 60, "'" * 69, "' " * 34, "(" + " " * 60 + "1",
    "'" + "9" * 66 + "&'",
]  # fmt: skip
COMMENTS = [
    "",
    " ",
    " / words",
    "/x",
    " // a / b ",
    " / it's",
    " / 'x'",
    " /",
    "& / c",
    " / caf\xe9",
    " / a\nb",
    "\xa0",
    "\t",
]


@st.composite
def nearly_valid_images(draw: st.DrawFn) -> bytes:
    """Draw a card image made of a keyword, a value and a comment that need not belong together."""
    parts = [
        draw(st.sampled_from(KEYWORDS)),
        " " * draw(st.sampled_from([0, 0, 0, 1, 5])),
        draw(st.sampled_from(VALUES)),
        draw(st.sampled_from(COMMENTS)),
    ]
    image = bytearray("".join(parts).ljust(CARD)[:CARD].encode("latin-1"))
    if draw(st.integers(0, 4)) == 0:
        image[draw(st.integers(0, CARD - 1))] = draw(st.sampled_from(b" '/=&TF09.ED+-(),aZ\n\t\0\xa0"))
    return bytes(image)


any_images = st.one_of(
    nearly_valid_images(),
    st.binary(min_size=CARD, max_size=CARD),
    st.text(string.printable, min_size=CARD, max_size=CARD).map(str.encode),
)
headers = st.lists(any_images, max_size=8).map(b"".join)


def split(header: bytes) -> list[bytes]:
    return [header[start : start + CARD] for start in range(0, len(header), CARD)]


@deterministic
@given(st.lists(headers, max_size=4))
def test_every_image_is_in_one_row(units: list[bytes]) -> None:
    table = parse_cards(units)
    table.validate(full=True)
    expected = [
        (header, card)
        for header, unit in enumerate(units)
        for card, image in enumerate(split(unit))
        if card == 0 or not image.startswith(b"CONTINUE")
    ]
    assert list(zip(table["header"].to_pylist(), table["card"].to_pylist(), strict=True)) == expected


@deterministic
@given(st.lists(headers, min_size=1, max_size=4))
def test_a_batch_is_its_headers(units: list[bytes]) -> None:
    alone = []
    for index, unit in enumerate(units):
        table = parse_cards([unit])
        alone.append(table.set_column(0, CARDS_SCHEMA.field(0), pa.array(np.full(len(table), index, np.int32))))
    assert parse_cards(units).to_pylist() == pa.concat_tables(alone).to_pylist()


@deterministic
@given(headers)
def test_the_fast_way_agrees_with_the_grammar(header: bytes) -> None:
    rows = parse_cards([header]).to_pylist()
    ends = [row["card"] * CARD for row in rows[1:]] + [len(header)]
    for row, end in zip(rows, ends, strict=False):
        assert read_card(header[row.pop("card") * CARD : end])._asdict() | {"header": 0} == row


@deterministic
@given(st.lists(any_images.filter(END.__ne__), max_size=6))
def test_what_astropy_reads_is_read_the_same(cards: list[bytes]) -> None:
    header = b"".join(cards)
    rows = parse_cards([header])
    counts = compare_cards(header, rows)
    assert counts.mismatches == []
    assert counts.equal + counts.complained == len(rows)


printable = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E))
finite = st.floats(allow_nan=False, allow_infinity=False)
values = st.one_of(
    st.booleans(),
    st.integers(-(10**30), 10**30),
    finite,
    st.complex_numbers(allow_nan=False, allow_infinity=False),
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=200),
    st.none(),
)
keywords = st.one_of(
    st.text(string.ascii_uppercase + string.digits + "-_", min_size=1, max_size=8),
    st.text(string.ascii_letters + string.digits + " .", min_size=1, max_size=30).map("HIERARCH A".__add__),
).filter(lambda keyword: keyword not in ("COMMENT", "HISTORY", "END", "CONTINUE", "HIERARCH"))


def written(keyword: str, value: Any, comment: str) -> fits.Card | None:
    """Return the card as astropy writes it; None where it cannot without losing something."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return fits.Card.fromstring(fits.Card(keyword, value, comment).image)
        except (fits.VerifyError, fits.verify.VerifyWarning, ValueError):
            return None


@deterministic
@given(keywords, values, printable)
def test_what_astropy_writes_is_read_back(keyword: str, value: Any, comment: str) -> None:
    card = written(keyword, value, comment)
    assume(card is not None)
    (row,) = parse_cards([card.image.encode()]).to_pylist()
    found = python_value(row)
    assert row["keyword"] == card.rawkeyword
    assert row["comment"] == (card.comment or None)
    if isinstance(card.rawvalue, fits.card.Undefined):
        assert row["type"] == "undefined"
    else:
        assert (type(found), found) == (type(card.rawvalue), card.rawvalue)
    if isinstance(value, str) and "'" not in value + comment:
        assert found == value.rstrip()


@deterministic
@given(st.text("+-0123456789.EDed ", min_size=1, max_size=40))
def test_numbers_are_those_of_astropy(text: str) -> None:
    header = f"KEY     = {text}".ljust(CARD).encode()
    assert compare_cards(header, parse_cards([header])).mismatches == []


@deterministic
@given(st.one_of(finite, st.floats()), st.sampled_from("eEdD"))
def test_reals_are_exact(number: float, exponent: str) -> None:
    header = f"KEY     = {number!r}".replace("e", exponent).ljust(CARD).encode()
    (row,) = parse_cards([header]).to_pylist()
    expected = number if np.isfinite(number) else None
    assert row["real"] == expected
