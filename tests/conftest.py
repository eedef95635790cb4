"""What tests of several folders share."""

from __future__ import annotations

import gzip
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

SIBLINGS = 40
"""Files of `tree` that are alike, in four folders of ten."""

TREE_FILES = SIBLINGS + 4
"""All files of `tree` that have a FITS name."""


def sibling(number: int, *, exposure: float = 30.0) -> bytes:
    """Return a file as an instrument writes by the thousand: an image, a table, a mask."""
    primary = fits.PrimaryHDU()
    primary.header["OBJECT"] = (f"M {number}", "target")
    primary.header["EXPTIME"] = (exposure, "[s]")
    primary.header["HIERARCH ESO DET NAME"] = "CCD-1"
    primary.header["LONGNAME"] = "a string over several cards " * 5
    primary.header["HISTORY"] = f"made by test {number}"
    image = fits.ImageHDU(np.zeros((8, 10 + number), "int16"), name="SCI")
    table = fits.BinTableHDU.from_columns([fits.Column("X", "1D", array=np.arange(number + 1.0))], name="CAT")
    buffer = io.BytesIO()
    fits.HDUList([primary, image, table]).writeto(buffer)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def _tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("tree")
    for number in range(SIBLINGS):
        path = root / f"night{number // 10}" / f"exp{number:03}.fits"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(sibling(number))
    odd = root / "odd files"
    odd.mkdir()
    (odd / "truncated.fits").write_bytes(sibling(1)[:-3000])
    (odd / "empty.fits").write_bytes(b"")
    (odd / "not.fits").write_bytes(b"<html>404</html>\n")
    (odd / "packed ü.fits.gz").write_bytes(gzip.compress(sibling(2), mtime=0))
    (odd / "readme.txt").write_text("of no FITS name")
    return root


@pytest.fixture
def tree(_tree: Path, tmp_path: Path) -> Path:
    """Return a folder of `TREE_FILES` files, four of them odd; a copy that the test may change."""
    return Path(shutil.copytree(_tree, tmp_path / "tree"))
