"""What astropy makes of a header, to hold against what the crawler makes of it.

astropy is asked for the header as stored (``Header.fromstring`` of the raw bytes): the header of an opened HDU has been
mended and differs from the file.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
from astropy.io import fits

CARD = 80
SPECIAL = {"", "COMMENT", "HISTORY", "END", "CONTINUE"}
"""Keywords whose cards have no value indicator."""


@dataclass
class CardCounts:
    """How the cards of some headers compared; counts of different headers add up."""

    equal: int = 0
    """Cards whose keyword, value and comment are those of astropy."""
    complained: int = 0
    """Cards that astropy reads with a warning or an exception: nothing to compare with, but they are rows."""
    record_valued: int = 0
    """Among the equal: cards of the record-valued convention, compared as the strings that they are."""
    mismatches: list[str] = field(default_factory=list)
    """One readable line each."""

    def __add__(self, other: CardCounts) -> CardCounts:
        return CardCounts(
            self.equal + other.equal,
            self.complained + other.complained,
            self.record_valued + other.record_valued,
            self.mismatches + other.mismatches,
        )


def compare_cards(raw_header: bytes, rows: pa.Table) -> CardCounts:
    """Compare the rows of one header with what astropy reads.

    Parameters
    ----------
    raw_header : bytes
        The card images up to, not including, END.
    rows : pyarrow.Table
        Rows of this one header with at least the columns card, keyword, type, value, integer, real, logical and
        comment, in the order of ``card``.

    Returns
    -------
    CardCounts
        ``equal + complained + len(mismatches)`` is the number of cards, if there are as many rows as cards.
    """
    counts = CardCounts()
    parsed = rows.to_pylist()
    text = raw_header.decode("latin-1")
    starts = [row["card"] * CARD for row in parsed]
    with warnings.catch_warnings(record=True) as log:
        warnings.simplefilter("always")
        header = fits.Header.fromstring(raw_header)
        cards = list(header.cards)
        if len(cards) != len(parsed):
            counts.mismatches.append(f"{len(parsed)} rows for {len(cards)} cards")
            return counts
        # Cards that are no cards are warned about while the header is made; the warning quotes the image.
        warned = {str(warning.message).partition("\n")[2] for warning in log}
        for card, row, start, end in zip(cards, parsed, starts, [*starts[1:], len(text)], strict=False):
            before = len(log)
            try:
                expected = _read(card)
            except Exception:  # whatever it is, it is a complaint
                expected = None
            image = text[start:end]
            if expected is None or image in warned or len(log) > before:
                counts.complained += 1
                continue
            found = (row["keyword"], python_value(row), row["comment"] or "")
            if found == expected and type(found[1]) is type(expected[1]):
                counts.equal += 1
                counts.record_valued += card.field_specifier is not None
            else:
                counts.mismatches.append(f"{image!r}: astropy {expected!r}, row {row!r}")
    return counts


def _read(card: fits.Card) -> tuple[str, Any, str]:
    """Read a card, with None for an undefined value and a record-valued card as the string that it is."""
    keyword, record = card.rawkeyword, card.field_specifier
    value = card.rawvalue
    if card.field_specifier != record or (record and keyword in SPECIAL):
        # `COMMENT= 'AXIS.1: 2'`, `CONTINUE = 'AXIS.1: 2'`: no card that has a value, but the words of a record.
        raise ValueError(f"astropy reads this card as {keyword} and as {card.keyword}")
    return keyword, None if isinstance(value, fits.card.Undefined) else value, card.comment


def python_value(row: dict[str, Any]) -> Any:
    """Return the value of a row as astropy would give it.

    Raises
    ------
    AssertionError
        The typed columns contradict the type or each other.
    """
    typed = {"integer": row["integer"], "real": row["real"], "logical": row["logical"]}
    value = row["value"]
    match row["type"]:
        case "logical":
            assert typed == {"integer": None, "real": None, "logical": value == "T"}, row
            return row["logical"]
        case "integer":
            number = int(value.replace(" ", ""))
            fits_int64 = -(2**63) <= number < 2**63
            assert typed == {
                "integer": number if fits_int64 else None,
                "real": float(number),
                "logical": None,
            }, row
            return number
        case "real":
            assert typed == {"integer": None, "real": row["real"], "logical": None}, row
            return row["real"]
    assert not any(column is not None for column in typed.values()), row
    if row["type"] == "complex":
        real, imaginary = value.strip("() ").upper().replace(" ", "").replace("D", "E").split(",")
        return float(real) + float(imaginary) * 1j
    assert (value is None) == (row["type"] == "undefined"), row
    return value
