"""The files that benchmarks read are what they are said to be."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from astropy.io import fits

from tests.benchmarks.markdown import replace_in, table
from tests.benchmarks.nginx import traffic_of
from tests.benchmarks.products.all import PRODUCTS
from tests.benchmarks.products.template import BLOCK

USUAL, LONGER_HEADER, OTHER_ROWS = 0, 25, 75


@pytest.mark.parametrize("name", PRODUCTS)
def test_files_of_a_product_are_fits(tmp_path: Path, name: str) -> None:
    product = PRODUCTS[name]
    numbers = (USUAL,) if product.gzip else (USUAL, 1, LONGER_HEADER, OTHER_ROWS)
    product.write(tmp_path, numbers)
    found = []
    for number in numbers:
        units = product.units_of(product.variant_of(number))
        with fits.open(tmp_path / product.key(number), disable_image_compression=True) as hdus:
            hdus.verify("exception")
            places = [(hdu.fileinfo()["hdrLoc"], hdu.fileinfo()["datLoc"]) for hdu in hdus]
            end = hdus[-1].fileinfo()["datLoc"] + hdus[-1].fileinfo()["datSpan"]
            cards = [card.image for hdu in hdus for card in hdu.header.cards] if number in (USUAL, 1) else []
        assert [data - header for header, data in places] == [unit.blocks * BLOCK for unit in units]
        if product.gzip:
            assert len(gzip.decompress((tmp_path / product.key(number)).read_bytes())) == end
        else:
            assert (tmp_path / product.key(number)).stat().st_size == end
        found.append((places, cards))
    if not product.gzip:
        (usual, cards), (sibling, others), longer, _ = found
        differ = sum(one != other for one, other in zip(cards, others, strict=True)) / len(cards)
        assert 0.04 < differ < 0.2
        assert longer[0][0][1] == usual[0][1] + BLOCK
        assert [data - header for header, data in usual] == [data - header for header, data in sibling]


def test_requests_are_counted_from_the_log() -> None:
    log = [
        "GET 206 100 /b/a.fits",
        "GET 206 100 /b/a.fits",
        "GET 206 100 /b/a.fits",
        "GET 200 900 /b?list-type=2&prefix=",
        "GET 501 50 /b?list-type=2&prefix=&start-after=a",
        "HEAD 404 0 /b/c.fits",
    ]
    traffic = traffic_of(log)
    assert traffic.requests == 6
    assert traffic.kinds == {"GET": 3, "LIST": 2, "HEAD": 1}
    assert traffic.failed == {"404": 1}
    assert traffic.body_bytes == 1250


def test_sections_of_the_readme_are_replaced_by_heading(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("a\n<!-- benchmark -->\n### One\n\nold\n\n### Two\n\nkept\n<!-- /benchmark -->\nb\n")
    replace_in(readme, ["### One\n\n" + table(("", "n"), [["x", 1234.5]]), "### Three\n\nnew"])
    one = "### One\n\n|  | n |\n| --- | ---: |\n| x | 1,234 |"
    rest = "### Two\n\nkept\n\n### Three\n\nnew"
    assert readme.read_text() == f"a\n<!-- benchmark -->\n\n{one}\n\n{rest}\n\n<!-- /benchmark -->\nb\n"
