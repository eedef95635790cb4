"""Header units as templates: written down in a few lines, rendered for each file by one formatting of bytes.

A line is ``KEYWORDS = VALUE / comment``, ``HISTORY text`` or ``COMMENT text``. Several keywords share what follows, and
``[1-3]`` and ``[ABC]`` in one stand for each of theirs: ``CRVAL[12] A_[0-2]_[0-2] = {exp} / of the reference pixel``.
A value is as FITS has it, or one that is each file's own:

=================  ==================================================================
``{int LOW}``      one of 10,007 integers from LOW
``{real LOW}``     a fixed-point number from LOW, six digits of fraction
``{exp SCALE}``    a number of magnitude SCALE, thirteen digits and an exponent
``{date}``         a date and time
``{name}``         the name of the file
``{stem}``         the same up to its first underscore or dot
``{pick A B}``     one of some words
``{number K}``     a number that the file itself depends on: `Numbers`
=================  ==================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import count, product
from typing import NamedTuple

from astropy.io import fits

CARD = 80
BLOCK = 2880

_SETS = re.compile(r"\[([^\]]+)\]")
_RANGE = re.compile(r"(\d+)-(\d+)")
_PRIMES = 7919, 104729, 10007
_LONGEST = 68  # characters of a string in one card


class File(NamedTuple):
    """What the values of one file are made from."""

    number: int
    name: bytes
    numbers: Sequence[int] = ()
    """Such as the lengths of its heaps, in the order of its HDUs."""


Value = Callable[[File], object]


@dataclass(frozen=True)
class Template:
    """Card images with formats for what varies, and what fills those.

    Attributes
    ----------
    images : bytes
        For the operator ``%``, once all ``values`` were asked.
    values : tuple of callable
    cards : int
        Card images when rendered.
    """

    images: bytes = b""
    values: tuple[Value, ...] = ()
    cards: int = 0

    def __add__(self, other: Template) -> Template:
        return Template(self.images + other.images, self.values + other.values, self.cards + other.cards)

    def render(self, file: File) -> bytes:
        """Return the card images of one file."""
        return self.images % tuple([value(file) for value in self.values])


@cache
def header_unit(
    text: str, *, blocks: int, name_length: int, fill: str, cards: int | None = None, index: int = 0
) -> Template:
    """Return the template of a whole header unit.

    Parameters
    ----------
    text : str
        Lines as described above.
    blocks : int
        Blocks of 2,880 bytes that it shall have.
    name_length : int
        Characters of the names of files.
    fill : str
        Keywords that begin like this are added, one in twenty of them varying, until the last block is half full.
    cards : int, optional
        How many cards to fill up to instead, END not among them.
    index : int
        Of the HDU: what varies does so in its own way.

    Raises
    ------
    ValueError
        The text is longer than the blocks.
    """
    salt = count(1000 * index + 1)
    made = [
        _card(keyword, value, comment, name_length, salt)
        for line in text.strip().splitlines()
        for keyword, value, comment in _parsed(line.strip())
    ]
    full = blocks * BLOCK // CARD - 1 if cards is None else cards
    target = max(full - 17, 1) if cards is None else cards
    used = sum(one.cards for one in made)
    made += [_filling(f"{fill}{index:0{8 - len(fill)}}", index, salt) for index in range(target - used)]
    used = sum(one.cards for one in made)
    if not (blocks - 1) * BLOCK // CARD - 1 < used <= full:
        raise ValueError(f"{used} cards are not {blocks} blocks: {text[:60]}")
    padding = blocks * BLOCK // CARD - used
    end = Template(b"END".ljust(padding * CARD), (), padding)
    return _joined([*made, end])


def _joined(parts: Sequence[Template]) -> Template:
    values = tuple(value for part in parts for value in part.values)
    return Template(b"".join(part.images for part in parts), values, sum(part.cards for part in parts))


def _parsed(line: str) -> Iterator[tuple[str, str, str]]:
    """Yield keyword, value and comment of each card of a line; no value but a comment for commentary."""
    if line.startswith(("HISTORY", "COMMENT")) or not line:
        yield line[:7], "", line[8:]
        return
    keywords, _, rest = line.partition(" = ")
    value, _, comment = rest.partition(" / ")
    for pattern in [keywords] if keywords.startswith("HIERARCH ") else keywords.split():
        for keyword in _expanded(pattern):
            yield keyword, value.strip(), comment.strip()


def _expanded(pattern: str) -> Iterator[str]:
    pieces = _SETS.split(pattern)  # literal, set, literal, set, ... literal
    choices: list[Sequence[str]] = []
    for index, piece in enumerate(pieces):
        if not index % 2:
            choices.append([piece])
        elif match := _RANGE.fullmatch(piece):
            width = len(match[1]) if match[1].startswith("0") else 0
            choices.append([f"{number:0{width}}" for number in range(int(match[1]), int(match[2]) + 1)])
        else:
            choices.append(piece)
    return map("".join, product(*choices))


def _card(keyword: str, value: str, comment: str, name_length: int, salt: Iterator[int]) -> Template:
    if not value:
        return _fixed(f"{keyword:8}{comment}")
    if value.startswith("{"):
        kind, *words = value.strip("{}").split()
        return _varying(keyword, comment, *_KINDS[kind](words, next(salt), name_length))
    if keyword.startswith("HIERARCH ") or len(value) > _LONGEST + 2:
        plain: object = value.strip("'") if value.startswith("'") else float(value)
        image = str(fits.Card(keyword, plain, comment).image)
        return Template(image.encode().replace(b"%", b"%%"), (), len(image) // CARD)
    if value.startswith("'"):
        string = f"'{value[1:-1]:8}'"
        return _fixed(f"{keyword:8}= {string:20} / {comment}")
    return _fixed(f"{keyword:8}= {value:>20} / {comment}")


def _filling(keyword: str, index: int, salt: Iterator[int]) -> Template:
    """Return a card as fills headers: settings that are the same everywhere, readings that are not."""
    if not index % 20:
        return _card(keyword, "{real 280}", "[K] sensor at the end of the exposure", 0, salt)
    value = (f"{1.5 + index / 64}", f"'unit-{index}/B'", f"{1000 + index}", "T" if index % 3 else "F")[index % 4]
    comment = ("[electron/ADU] gain", "serial number of the part", "counts", "part is in the beam")[index % 4]
    return _card(keyword, value, comment, 0, salt)


def _fixed(image: str) -> Template:
    return Template(image.encode().replace(b"%", b"%%").ljust(CARD)[:CARD], (), 1)


def _varying(keyword: str, comment: str, form: bytes, width: int, value: Value) -> Template:
    """Return a card whose value is formatted into a field of ``width`` characters."""
    head = f"{keyword:8}= ".encode()
    tail = f" / {comment}".encode().replace(b"%", b"").ljust(CARD)[: CARD - len(head) - width]
    return Template(head + form + tail, (value,), 1)


_Kind = tuple[bytes, int, Value]


def _int(words: list[str], salt: int, _: int) -> _Kind:
    return b"%20d", 20, partial(_scaled, int(words[0]) if words else 0, 1, salt)


def _real(words: list[str], salt: int, _: int) -> _Kind:
    return b"%20.6f", 20, partial(_scaled, float(words[0]) if words else 0.0, 1e-3, salt)


def _exp(words: list[str], salt: int, _: int) -> _Kind:
    scale = float(words[0]) if words else 1.0
    return b"%20.13E", 20, partial(_scaled, scale, scale * 1e-4, salt)


def _scaled(low: float, step: float, salt: int, file: File) -> float:
    return low + (file.number * _PRIMES[0] + salt * _PRIMES[1]) % _PRIMES[2] * step


def _date(_: list[str], salt: int, __: int) -> _Kind:
    def value(file: File) -> bytes:
        number = file.number + salt
        return b"2024-%02d-%02dT%02d:%02d:%02d" % (
            number // 28 % 12 + 1,
            number % 28 + 1,
            number % 24,
            number * 7 % 60,
            number * 11 % 60,
        )

    return b"'%s'", 21, value


def _name(_: list[str], __: int, name_length: int) -> _Kind:
    width = max(8, name_length)
    return b"'%%-%ds'" % width, width + 2, lambda file: file.name


def _stem(_: list[str], __: int, name_length: int) -> _Kind:
    width = max(8, name_length)
    return b"'%%-%ds'" % width, width + 2, lambda file: re.split(rb"[_.]", file.name, maxsplit=1)[0]


def _pick(words: list[str], salt: int, _: int) -> _Kind:
    width = max(8, *map(len, words))
    encoded = [word.encode() for word in words]
    return b"'%%-%ds'" % width, width + 2, lambda file: encoded[(file.number + salt) % len(encoded)]


def _number(words: list[str], _: int, __: int) -> _Kind:
    which = int(words[0])
    return b"%20d", 20, lambda file: file.numbers[which]


_KINDS: dict[str, Callable[[list[str], int, int], _Kind]] = {
    "int": _int,
    "real": _real,
    "exp": _exp,
    "date": _date,
    "name": _name,
    "stem": _stem,
    "pick": _pick,
    "number": _number,
}
