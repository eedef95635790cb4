"""Faults of headers: functions that take the card images of a header, END last, and return them with one fault."""

from __future__ import annotations

import re
from collections.abc import Callable
from random import Random
from typing import TypeAlias

BLOCK = 2880
CARD = 80
END = b"END".ljust(CARD)

Cards: TypeAlias = list[bytes]
Fault: TypeAlias = Callable[[Cards, Random], Cards]

_STRUCTURAL = re.compile(rb"(SIMPLE  |XTENSION|BITPIX  |NAXIS   |NAXIS\d[ \d]{2}|PCOUNT  |GCOUNT  |GROUPS  |EXTEND  )=")
_KEYWORDS = ["SIMPLE", "XTENSION", "BITPIX", "NAXIS", "NAXIS1", "NAXIS2", "NAXIS3", "PCOUNT", "GCOUNT", "GROUPS"]
_VALUES = [
    "0", "1", "2", "3", "-1", "-5", "8", "16", "-32", "-64", "40", "100", "2880", "5000", "999", "1000", "40000",
    str(2**31), str(2**62), str(2**63 - 1), str(2**63), str(2**70), "9" * 60, "5.", "5.0", "1.5", "1E2", "1D3", "+7",
    "007", "T", "F", "'5'", "'IMAGE   '", "'BINTABLE'", "'TABLE   '", "'FOREIGN'", "''", "'", "", "1 0", "1 2 3",
    "(1, 2)", "x", "0x10", "1_0", "\t5", "5\t", "5\0", "\0", "\xb2", "NaN", "Inf", "- 5", "1,000", "5/6",
]  # fmt: skip
_ENDS = [
    b"END\0", b"END".ljust(CARD, b"\0"), b"END" + b"\0" * 5, b"END     \0", b"END     text", b"END text", b"END/ c",
    b"END / c", b"END\n", b"END\r\n", b"END\t", b"END= 1", b"END=", b"END     = 1", b"END     =", b"END  = 1", b"END,",
    b"END_", b"ENDX", b"END\xff", b"END     \xff", b"END      / c", b"end", b"End", b" END", b"E N D", b"EN", b"END\0x",
    b"ENDEND", b"END" + b" " * 76 + b".", b"END END", b"END     END",
]  # fmt: skip
_JUNK = [
    bytes(CARD),
    b"\xff" * CARD,
    b" " * CARD,
    b"\n" * CARD,
    b"=" * CARD,
    b"'" * CARD,
    b"XTENSION= 'IMAGE   '".ljust(CARD),
]


def is_structural(card: bytes) -> bool:
    """Tell whether a card says how large the data are."""
    return _STRUCTURAL.match(card) is not None


def image(keyword: str, value: str, random: Random) -> bytes:
    """Return a card in one of the forms in which values are written, right or wrong."""
    form = random.choice(
        ["{k:<8}= {v:>20}"] * 6
        + ["{k:<8}= {v}", "{k:<8}={v}", "{k}= {v}", "{k} = {v}", "{k:<8}=  {v} / comment", "{k:<8}= {v:>20}/comment"]
        + ["{k:<8}= {v:>20} comment", "{k:<8}= {v:>60}", "{k:<8}= {v} 7", " {k:<7}= {v:>20}", "{k:<8}  {v:>20}"]
        + ["{k:<8} = {v:>20}", "{k:<8}=\t{v}", "{k:<8}= / {v}", "{k:<8}= {v}\0\0\0", "{k:<8}: {v}", "{k:<9}={v:>20}"]
    )
    name = random.choice([keyword] * 12 + [keyword.lower(), keyword.title()])
    return form.format(k=name, v=value).encode("latin-1")[:CARD].ljust(CARD)


def _value_of(card: bytes) -> str:
    return card[10:30].decode("latin-1").strip()


def _pick(cards: Cards, random: Random) -> int:
    """Return the index of a structural card, the first or END aside if there are others."""
    found = [at for at, card in enumerate(cards) if is_structural(card)] or list(range(len(cards)))
    return random.choice(found)


def _keyword(card: bytes) -> str:
    return card[:8].decode("latin-1").strip() or "NAXIS1"


def another_value(cards: Cards, random: Random) -> Cards:
    """Write another value into a structural card."""
    at = _pick(cards, random)
    return [*cards[:at], image(_keyword(cards[at]), random.choice(_VALUES), random), *cards[at + 1 :]]


def another_form(cards: Cards, random: Random) -> Cards:
    """Write a structural card's value at other columns."""
    at = _pick(cards, random)
    return [*cards[:at], image(_keyword(cards[at]), _value_of(cards[at]), random), *cards[at + 1 :]]


def repeat(cards: Cards, random: Random) -> Cards:
    """Repeat a structural card, with the same value or another one, near or far."""
    at = _pick(cards, random)
    value = random.choice([_value_of(cards[at]), *random.sample(_VALUES, 2)])
    copy = random.choice([cards[at], image(_keyword(cards[at]), value, random)])
    to = random.choice([at, at + 1, len(cards) - 1, random.randrange(1, len(cards) + 1)])
    return [*cards[:to], copy, *cards[to:]]


def insert(cards: Cards, random: Random) -> Cards:
    """Insert a structural card that may belong nowhere."""
    keyword = random.choice([*_KEYWORDS, "NAXIS9", "NAXIS0", "NAXIS01", "NAXIS999", "EXTEND", "THEAP", "TFIELDS"])
    to = random.randrange(1, len(cards) + 1)
    return [*cards[:to], image(keyword, random.choice(_VALUES), random), *cards[to:]]


def misplace(cards: Cards, random: Random) -> Cards:
    """Move a structural card, or swap two."""
    at, to = _pick(cards, random), random.randrange(len(cards))
    moved = [*cards]
    if random.random() < 0.5:
        moved[at], moved[to] = moved[to], moved[at]
    else:
        moved.insert(to, moved.pop(at))
    return moved


def delete(cards: Cards, random: Random) -> Cards:
    """Leave out a card, a structural one more often."""
    at = random.choice([_pick(cards, random), _pick(cards, random), random.randrange(len(cards))])
    return [*cards[:at], *cards[at + 1 :]] if len(cards) > 1 else cards


def odd_end(cards: Cards, random: Random) -> Cards:
    """Write END in an odd form."""
    return [*cards[:-1], random.choice(_ENDS).ljust(CARD)]


def early_end(cards: Cards, random: Random) -> Cards:
    """Insert a card that is END or looks like it."""
    to = random.randrange(1, len(cards) + 1)
    return [*cards[:to], random.choice([END, *_ENDS]).ljust(CARD), *cards[to:]]


def later_end(cards: Cards, random: Random) -> Cards:
    """Put END behind blank cards, or repeat it behind them."""
    last = random.choice([cards[-1], cards[-1], b" " * CARD, random.choice(_ENDS).ljust(CARD)])
    return [*cards[:-1], last, *[b" " * CARD] * random.choice([1, 10, 36, 80]), END]


def no_end(cards: Cards, _: Random) -> Cards:
    """Leave out END."""
    return cards[:-1]


def end_off_boundary(cards: Cards, random: Random) -> Cards:
    """Put END off the boundaries of cards, or into the last three bytes of the block."""
    whole = b"".join(cards[:-1])
    if random.random() < 0.5:
        return [whole, b" " * random.randrange(1, CARD), END]
    return [whole, b" " * ((-len(whole) - 3) % BLOCK), b"END"]


def junk_bytes(cards: Cards, random: Random) -> Cards:
    """Overwrite some bytes anywhere in the header."""
    data = bytearray(b"".join(cards))
    for _ in range(random.choice([1, 1, 3, 30])):
        at = random.randrange(len(data))
        part = random.choice(
            [random.randbytes(1), random.randbytes(8), b"\0", b"\xe9", b"\x7f", b"\n", b"'", b"=", b" " * 9]
        )
        data[at : at + len(part)] = part[: len(data) - at]
    return [bytes(data)]


def junk_card(cards: Cards, random: Random) -> Cards:
    """Insert a card that is none."""
    to = random.randrange(len(cards) + 1)
    return [*cards[:to], random.choice([*_JUNK, random.randbytes(CARD)]), *cards[to:]]


def shifted(cards: Cards, random: Random) -> Cards:
    """Insert or take out some bytes, so that all cards behind are off their boundaries."""
    data = b"".join(cards)
    at, by = random.randrange(len(data)), random.choice([1, 2, 40, 79])
    return [data[:at] + b" " * by + data[at:] if random.random() < 0.5 else data[:at] + data[at + by :]]


def cut_continue(cards: Cards, random: Random) -> Cards:
    """Insert a long string whose run of CONTINUE cards is cut."""
    run = random.choice(
        [
            [b"LONG    = 'begins&'"],
            [b"LONG    = 'begins&'", b"CONTINUE  'goes on&'"],
            [b"LONG    = 'begins&'", b"CONTINUE  'no quote"],
            [b"LONG    = 'begins&'", b"COMMENT", b"CONTINUE  'goes on'"],
            [b"CONTINUE  'of nothing&'"],
            [b"CONTINUE= 'x&'", b"CONTINUE"],
            [b"NAXIS1  = '5&'", b"CONTINUE  '0'"],
            [b"HIERARCH ESO LONG = 'begins&'", b"CONTINUE  'goes on' / comment"],
        ]
    )
    to = random.randrange(1, len(cards) + 1)
    return [*cards[:to], *(card.ljust(CARD) for card in run), *cards[to:]]


def swapped_blocks(cards: Cards, random: Random) -> Cards:
    """Exchange two blocks of the header."""
    data = b"".join(cards)
    data += b" " * (-len(data) % BLOCK)
    blocks = [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]
    one, other = random.randrange(len(blocks)), random.randrange(len(blocks))
    blocks[one], blocks[other] = blocks[other], blocks[one]
    return blocks


def shuffled(cards: Cards, random: Random) -> Cards:
    """Put all cards but the first and END into another order."""
    middle = cards[1:-1]
    random.shuffle(middle)
    return [*cards[:1], *middle, *cards[1:][-1:]]


def repeated_header(cards: Cards, random: Random) -> Cards:
    """Write all cards twice, with one value changed in the second half."""
    return [*cards[:-1], *another_value(cards, random)]


def other_bytes(cards: Cards, random: Random) -> Cards:
    """Put a byte over 0x7E into a card that is not structural, and repeat a structural one."""
    return repeat(
        [*cards[:-1], random.choice([b"COMMENT caf\xe9", b"NAME    = '\xb5'"]).ljust(CARD), cards[-1]], random
    )


FAULTS: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        another_value, another_form, repeat, insert, misplace, delete, odd_end, early_end, later_end, no_end,
        end_off_boundary, junk_bytes, junk_card, shifted, cut_continue, swapped_blocks, shuffled, repeated_header,
        other_bytes,
    )
}  # fmt: skip
