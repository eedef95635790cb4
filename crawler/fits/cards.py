"""Card images to Arrow columns, a whole batch of headers at a time.

Most cards of a batch are repeated from header to header, so only the distinct ones are read. Most of those are plain:
`cuts` finds for all of them at once the columns at which they divide, and Arrow slices, trims and converts them without
a Python object a card. What is left (CONTINUE runs, doubled quotes, numbers of odd form, control characters, cards that
are no cards) goes one distinct card at a time to `grammar.read_card`, with which the fast way agrees on every card.

Knows no I/O and no storage.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from crawler.fits.cuts import INTEGER, INVALID, LOGICAL, REAL, TYPES, UNDEFINED, Cuts, cut_cards, word
from crawler.fits.grammar import read_card
from crawler.fits.units import CARD, KEYWORD

READING: Final = pa.schema(
    [
        pa.field("keyword", pa.string()),
        pa.field("type", pa.string()),
        pa.field("value", pa.string()),
        pa.field("integer", pa.int64()),
        pa.field("real", pa.float64()),
        pa.field("logical", pa.bool_()),
        pa.field("comment", pa.string()),
    ]
)
"""What is read of a card, wherever it stands."""

CARDS_SCHEMA: Final = pa.schema([pa.field("header", pa.int32()), pa.field("card", pa.int32()), *READING])
"""Columns of `parse_cards`: those of the ``cards`` table, with ``header`` in place of url and HDU."""

Ints: TypeAlias = npt.NDArray[np.signedinteger[Any]]

_CONTINUE: Final = word("CONTINUE")
_TYPE_NAMES: Final = pa.array(TYPES)

# Numbers that Arrow reads as Python does: no blanks inside, no more digits than fit, no exponent that overflows.
_PLAIN_INTEGER: Final = r"^[+-]?[0-9]{1,18}$"
_PLAIN_REAL: Final = r"^[+-]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[DEde][+-]?[0-9]{1,2})?|[0-9]+[DEde][+-]?[0-9]{1,2})$"
_D_TO_E: Final = np.arange(256, dtype=np.uint8)
_D_TO_E[[ord("D"), ord("d")]] = ord("E")


def joined(header_units: Sequence[bytes]) -> pa.Array:
    """Return headers as one binary array.

    Raises
    ------
    ValueError
        Together they have 2 GiB or more.
    """
    sizes = np.fromiter(map(len, header_units), np.int64, len(header_units))
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    if offsets[-1] >= 2**31:
        raise ValueError(f"a batch of {offsets[-1]} bytes of headers is too large")
    return _slices(pa.binary(), offsets, b"".join(header_units))


def parse_cards(header_units: Sequence[bytes]) -> pa.Table:
    """Read every card of a batch of headers.

    Parameters
    ----------
    header_units : sequence of bytes
        The card images of one header each, from the first up to and not including END: a multiple of 80 bytes,
        possibly none. Any bytes can be read. Together less than 2 GiB.

    Returns
    -------
    pyarrow.Table
        Of `CARDS_SCHEMA`, one row a logical card in the order of (header, card). ``header`` is an index into
        ``header_units``, ``card`` the index of the card's first image in its header. A card and the CONTINUE images
        after it are one row, whatever the card is; nothing else is joined and nothing is dropped.

    Raises
    ------
    ValueError
        A length is no multiple of 80, or the batch is too large.
    """
    return unpacked(pack_cards(joined(header_units))).cast(CARDS_SCHEMA)


def pack_cards(headers: pa.Array) -> pa.Table:
    """Read every card of a batch of headers, and write down only once what is the same in many.

    Parameters
    ----------
    headers : pyarrow.Array
        Of `joined`.

    Returns
    -------
    pyarrow.Table
        As `parse_cards` has it, but with all that is read of a card in one column: ``reading``, a dictionary of
        structs of `READING`. `unpacked` makes the columns of some rows or all.
    """
    offsets = np.frombuffer(headers.buffers()[1], np.int32)
    sizes = np.diff(offsets)
    if (sizes % CARD).any():
        raise ValueError("a header is not a whole number of card images")
    data = headers.buffers()[2]
    header, card, starts = _logical_cards(data, sizes // CARD)
    encoded = _slices(pa.binary(), np.append(starts * CARD, offsets[-1]), data).dictionary_encode()
    columns, order = _read_distinct(encoded.dictionary)
    reading = pa.DictionaryArray.from_arrays(
        pa.array(order[encoded.indices.to_numpy()].astype(np.int32)),
        pa.StructArray.from_arrays(columns, fields=list(READING)),
    )
    return pa.table({"header": header, "card": card, "reading": reading})


def unpacked(cards: pa.Table) -> pa.Table:
    """Return cards with a column each for what ``reading`` holds, in its place."""
    reading = cards["reading"].combine_chunks()
    distinct = pa.RecordBatch.from_struct_array(reading.dictionary)
    read = pc.take(distinct, reading.indices, boundscheck=False)
    names = [name for name in cards.column_names if name != "reading"]
    columns = [*(cards[name] for name in names), *read.columns]
    return pa.table(columns, names=[*names, *READING.names])


def _logical_cards(data: pa.Buffer, images: Ints) -> tuple[Ints, Ints, Ints]:
    """Find where logical cards begin in a batch, given the number of images in each header.

    Returns for each its header, the index of its first image in that header, and the same in the batch.
    """
    begins = np.frombuffer(data, np.uint64)[:: CARD // KEYWORD] != _CONTINUE
    first = np.cumsum(images) - images
    begins[first[images > 0]] = True  # a CONTINUE that opens a header continues nothing
    header = np.repeat(np.arange(len(images), dtype=np.int32), images)
    card = np.arange(len(begins), dtype=np.int32) - np.repeat(first.astype(np.int32), images)
    starts = np.flatnonzero(begins)
    return header[starts], card[starts], starts


def _read_distinct(logical: pa.Array) -> tuple[list[pa.Array], Ints]:
    """Read distinct logical cards.

    Returns the columns of `READING`, in an order of their own, and for each card its row.
    """
    single = pc.binary_length(logical).to_numpy() == CARD
    images = logical if single.all() else logical.filter(pa.array(single))
    data = np.frombuffer(images.buffers()[2] or b"", np.uint8, len(images) * CARD)
    columns, read = _read_plain(cut_cards(data.reshape(-1, CARD)))
    order = np.cumsum(single) - 1
    odd = ~single
    odd[single] = ~read
    rows = np.flatnonzero(odd)
    if len(rows):
        order[rows] = len(images) + np.arange(len(rows))
        cards = [read_card(image) for image in logical.take(pa.array(rows)).to_pylist()]
        columns = [
            pa.concat_arrays([column, pa.array(values, column.type)])
            for column, values in zip(columns, zip(*cards, strict=True), strict=True)
        ]
    return columns, order


def _read_plain(cuts: Cuts) -> tuple[list[pa.Array], npt.NDArray[np.bool_]]:
    """Read the plain cards. Returns their columns, and which rows hold a card that was read."""
    keyword, value, comment = _slice(cuts)
    kind = cuts.kind.copy()
    integer, real = np.zeros(len(kind), np.int64), np.zeros(len(kind))
    length = np.diff(_offsets(value))
    initial = cuts.images.reshape(-1)[np.arange(len(kind)) * CARD + np.minimum(cuts.value, CARD - 1)]
    true = initial == ord("T")
    kind[(kind == REAL) & (length == 1) & (true | (initial == ord("F")))] = LOGICAL
    tokens = np.flatnonzero(kind == REAL)
    kind[tokens], integer[tokens], real[tokens] = _read_numbers(value.take(pa.array(tokens)))
    columns = [
        keyword,
        _TYPE_NAMES.take(pa.array(kind.astype(np.int64))),
        _nullable(value, kind != UNDEFINED),
        pa.array(integer, mask=kind != INTEGER),
        pa.array(real, mask=(kind != INTEGER) & (kind != REAL)),
        pa.array(true, mask=kind != LOGICAL),
        _nullable(comment, np.diff(_offsets(comment)) > 0),
    ]
    return columns, kind != INVALID


def _slice(cuts: Cuts) -> tuple[pa.Array, pa.Array, pa.Array]:
    """Slice card images into keywords, values and comments.

    The pieces between one cut and the next are one string array over the images as they lie in memory, so that
    nothing is copied before Arrow takes out every sixth.
    """
    count = len(cuts.images)
    offsets = np.empty((count, 6), np.int32)
    offsets[:] = np.arange(0, count * CARD, CARD, dtype=np.int32)[:, None]
    for piece, cut in enumerate((cuts.keyword, cuts.keyword_end, cuts.value, cuts.value_end, cuts.comment), 1):
        offsets[:, piece] += cut
    pieces = _slices(pa.string(), np.append(offsets.reshape(-1), count * CARD), cuts.images)
    sixth = np.arange(0, 6 * count, 6)
    taken = pc.take(pieces, pa.array(np.concatenate([sixth + 1, sixth + 3, sixth + 5])), boundscheck=False)
    keyword, value, comment = (taken.slice(part * count, count) for part in range(3))
    return (
        pc.ascii_rtrim(keyword, characters=" "),
        pc.ascii_rtrim(value, characters=" "),
        pc.ascii_trim(comment, characters=" "),
    )


def _read_numbers(tokens: pa.Array) -> tuple[Ints, Ints, npt.NDArray[np.float64]]:
    """Read integers and reals of plain form: the type, INVALID where it takes the grammar, and both values."""
    kind = np.full(len(tokens), INVALID, np.int8)
    integer, real = np.zeros(len(tokens), np.int64), np.zeros(len(tokens))
    is_integer = pc.match_substring_regex(tokens, _PLAIN_INTEGER).to_numpy(zero_copy_only=False)
    rows = np.flatnonzero(is_integer)
    # Arrow reads no leading plus sign.
    plain = pc.ascii_ltrim(tokens.take(pa.array(rows)), characters="+")
    kind[rows], integer[rows] = INTEGER, plain.cast(pa.int64()).to_numpy()
    real[rows] = integer[rows]
    rest = np.flatnonzero(~is_integer)
    others = tokens.take(pa.array(rest))
    is_real = pc.match_substring_regex(others, _PLAIN_REAL)
    rows = rest[is_real.to_numpy(zero_copy_only=False)]
    plain = pc.ascii_ltrim(others.filter(is_real), characters="+")
    exponents = _D_TO_E[np.frombuffer(plain.buffers()[2] or b"", np.uint8)]
    plain = _slices(pa.string(), _offsets(plain), exponents)
    kind[rows], real[rows] = REAL, plain.cast(pa.float64()).to_numpy()
    return kind, integer, real


def _slices(kind: pa.DataType, offsets: Ints, data: Any) -> pa.Array:
    """Return the strings between consecutive offsets into a buffer, without copying it."""
    buffers = [None, pa.py_buffer(offsets.astype(np.int32, copy=False)), pa.py_buffer(data)]
    return pa.Array.from_buffers(kind, len(offsets) - 1, buffers)


def _offsets(strings: pa.Array) -> Ints:
    """Return the offsets of a string array that begins where its buffers do."""
    return np.frombuffer(strings.buffers()[1] or b"\0\0\0\0", np.int32)[: len(strings) + 1]


def _nullable(strings: pa.Array, valid: npt.NDArray[np.bool_]) -> pa.Array:
    """Return a string array without nulls with those that are not valid made null."""
    bitmap = pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(strings.type, len(strings), [bitmap, *strings.buffers()[1:]])
