"""CPU time a card of the crawler and of astropy, side by side.

Both read keyword, value and comment of every card of the same headers in the same process; process CPU time is taken,
so that threads count. Run ``python tests/benchmarks/cards.py [--corpus FOLDER]``.
"""

from __future__ import annotations

import argparse
import gzip
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import takewhile
from pathlib import Path

from astropy.io import fits

from crawler.fits.cards import parse_cards

CARD = 80


def exposure(number: int) -> bytes:
    """Return a header of 200 cards, much like those of other exposures: a tenth of the values are its own."""
    header = fits.Header()
    header["SIMPLE"] = True, "conforms to FITS standard"
    header["BITPIX"] = -32, "array data type"
    header["NAXIS"] = 0, "number of array dimensions"
    header["FILENAME"] = f"survey-{number:08d}-flt.fits", "name of file"
    header["DATE-OBS"] = (
        f"2024-03-{number % 28 + 1:02d}T0{number % 10}:12:{number % 60:02d}.{number:06d}",
        "[UTC] start",
    )
    header["EXPTIME"] = 30.0 + number % 7, "[s] exposure time"
    header["RA"] = 150.0 + number * 1e-5, "[deg] right ascension of the pointing"
    header["DEC"] = 2.2 - number * 1e-5, "[deg] declination of the pointing"
    for index in range(8):
        header[f"TEMP{index}"] = 280.0 + (number * 7919 + index * 104729) % 10007 / 1000, "[K] sensor"
        header[f"SEEING{index}"] = (number * 31 + index) % 977, "counts"
    for index in range(60):
        header[f"GAIN{index:03d}"] = 1.5 + index / 64, "[electron/ADU] gain of the amplifier"
        header[f"NREAD{index:03d}"] = 1000 + index, "pixels read from this amplifier"
    for index in range(25):
        header[f"PART{index:03d}"] = f"unit-{index}/B", "serial number of the part"
        header[f"HIERARCH ESO DET CHIP{index} ID"] = f"chip {index}", "identification"
    header["CALIB"] = "/data/calibration/2024/" + "flat/" * 14 + "master.fits", "reference file"
    for _ in range(6):
        header["HISTORY"] = "Bias level and dark current were subtracted, then divided by the flat field"
    return header.tostring(endcard=False, padding=False).encode()


def folder_headers(folder: Path) -> list[bytes]:
    """Return the headers of all files of a folder that astropy can open, as they are stored."""
    headers: list[bytes] = []
    left_out = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            with path.open("rb") as file:
                compressed = file.read(2) == b"\x1f\x8b"
            with fits.open(path) as hdus, (gzip.open if compressed else open)(path, "rb") as file:
                for hdu in hdus:
                    info = hdu.fileinfo()
                    file.seek(info["hdrLoc"])
                    block = file.read(info["datLoc"] - info["hdrLoc"])
                    cards = (block[start : start + CARD] for start in range(0, len(block) - CARD + 1, CARD))
                    headers.append(b"".join(takewhile(lambda card: card.rstrip(b" \0") != b"END", cards)))
        except Exception:  # broken files are part of any collection; astropy says so in many ways
            left_out += 1
    print(f"files of {folder.name} that astropy cannot open: {left_out}")
    return headers


def by_astropy(headers: Sequence[bytes]) -> None:
    for raw in headers:
        for card in fits.Header.fromstring(raw).cards:
            with suppress(fits.VerifyError):
                _ = card.keyword, card.value, card.comment


def cpu_seconds(read: Callable[[Sequence[bytes]], object], headers: Sequence[bytes], least: float) -> float:
    """Return the CPU time of one call: the best of five, or of as many as take ``least`` seconds."""
    best = float("inf")
    spent, calls = 0.0, 0
    while (spent < least and calls < 5) or calls < 1:
        start = time.process_time()
        read(headers)
        taken = time.process_time() - start
        best, spent, calls = min(best, taken), spent + taken, calls + 1
    return best


def compare(name: str, headers: Sequence[bytes]) -> None:
    """Print one line: microseconds a card image of both, and how many times less ours are."""
    images = sum(map(len, headers)) // CARD
    astropy = cpu_seconds(by_astropy, headers, least=1.0) / images * 1e6
    parse_cards(headers)
    ours = cpu_seconds(parse_cards, headers, least=1.0) / images * 1e6
    print(f"{name:24s} {len(headers):6d} {images:8d} {astropy:10.2f} {ours:10.3f} {astropy / ours:7.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--corpus", type=Path, help="folder of FITS files to compare on as well")
    folder = parser.parse_args().corpus
    print(f"{'':24s} {'units':>6s} {'images':>8s} {'astropy':>10s} {'crawler':>10s} {'ratio':>7s}   (us a card image)")
    siblings = [exposure(number) for number in range(500)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        compare("one header", siblings[:1])
        compare("siblings", siblings)
        if folder is not None:
            headers = folder_headers(folder)
            compare(folder.name, headers)


if __name__ == "__main__":
    main()
