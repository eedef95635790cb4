"""``crawler headers``: the headers of one file, read from where it lies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from crawler.cli import options
from crawler.cli.program import fail
from crawler.errors import FormatError

if TYPE_CHECKING:
    from crawler.headers import HeaderUnit
    from crawler.stores import Adapter

# The command imports what it needs, so that `crawler --help` starts fast; and it prints.
# ruff: noqa: PLC0415, T201


@click.command(name="headers")
@click.argument("url")
@click.option("--hdu", type=click.IntRange(0), help="Only this HDU; 0 is the primary.")
@click.option("--keyword", multiple=True, help="Only cards of this keyword; may be given again.")
@options.storage_flags
@options.store_flag
def command(
    url: str, hdu: int | None, keyword: tuple[str, ...], storage_options: dict[str, Any], store: Adapter | None
) -> int:
    """Print the headers of one FITS file, read from where it lies."""
    from crawler import load_headers
    from crawler.stores.urls import printable

    wanted = {name.upper() for name in keyword}
    found = False
    count = 0
    try:
        for unit in load_headers(url, storage_options=storage_options, store=store or "auto"):
            count += 1
            if hdu is not None and unit.index < hdu:
                continue
            found |= _print_header(unit, wanted)
            if hdu is not None:
                break
    except FormatError as fault:
        return fail(f"{printable(url)}: {fault}", 1)
    if hdu is not None and count <= hdu:
        return fail(f"{printable(url)}: there is no HDU {hdu}, the file has {count}", 1)
    if not found:
        return fail(f"{printable(url)}: no card of {', '.join(sorted(wanted))}", 1)
    return 0


def _print_header(unit: HeaderUnit, wanted: set[str]) -> bool:
    """Print one header, or those of its cards that are wanted; return whether anything was printed."""
    from crawler.stores.urls import one_line

    if not wanted:
        place = f"header {unit.offset}+{unit.length}, data {unit.data_offset}+{unit.data_size}"
        print(f"# HDU {unit.index} {one_line(unit.hdu.kind)}: {place}")
        print("\n".join(one_line(text) for _, text in _card_lines(unit.hdu.header)))
        return True
    lines = [text for name, text in _card_lines(unit.hdu.header) if name.upper() in wanted]
    for line in lines:
        print(f"{unit.index}\t{one_line(line)}")
    return bool(lines)


def _card_lines(header: bytes) -> list[tuple[str, str]]:
    """Return the keyword and the text of each card image; those of a CONTINUE run have the keyword of its first."""
    from crawler.fits.cards import parse_cards
    from crawler.fits.units import CARD

    images = [header[at : at + CARD].decode("latin-1").rstrip() for at in range(0, len(header), CARD)]
    cards = parse_cards([header]).select(["card", "keyword"]).to_pylist()
    ends = [card["card"] for card in cards[1:]] + [len(images)]
    return [
        (card["keyword"], text) for card, end in zip(cards, ends, strict=True) for text in images[card["card"] : end]
    ]
