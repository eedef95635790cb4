"""Index 2,000 files of one product, beside astropy reading every card of the same files.

Both run in one process, one after the other, on a local folder. Process CPU time is taken, so that threads count.
Run ``python -m tests.benchmarks.index [--files N] [--corpus FOLDER]``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from contextlib import suppress
from pathlib import Path

from astropy.io import fits

import crawler
from tests.benchmarks.siblings import write_siblings


def read_with_astropy(folder: Path) -> int:
    """Read keyword, value and comment of every card below a folder; return how many there were."""
    cards = 0
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        with suppress(OSError, KeyError, TypeError), fits.open(path, disable_image_compression=True) as hdus:
            for hdu in hdus:
                for card in hdu.header.cards:
                    with suppress(fits.VerifyError):
                        _ = card.keyword, card.value, card.comment
                        cards += 1
    return cards


def compare(name: str, folder: Path) -> None:
    """Print what both took for the same folder."""
    start = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        astropy_cards = read_with_astropy(folder)
    astropy = time.process_time() - start
    with tempfile.TemporaryDirectory() as temporary:
        start = time.process_time()
        report = crawler.index([str(folder)], temporary, include=["*"])
        ours = time.process_time() - start
        stored = sum(one.size for one in crawler.Catalogue(temporary).fragments)
    each = 1e3 / report.files
    print(f"{name}: {report.files:,} files, {report.hdus:,} HDUs, {report.cards:,} cards")
    print(f"  CPU a file    astropy {astropy * each:8.2f} ms   crawler {ours * each:8.2f} ms")
    print(
        f"  CPU a card    astropy {astropy / astropy_cards * 1e6:8.2f} us   crawler {ours / report.cards * 1e6:8.2f} us"
    )
    print(f"  ratio of CPU  {astropy / ours:.1f}, reading and writing the catalogue included")
    print(f"  crawler       {report.files / report.seconds:,.0f} files/s in one process,", end=" ")
    print(f"{report.requests / report.files:.2f} requests and {report.bytes_read / report.files:,.0f} bytes a file")
    print(f"  catalogue     {stored / report.cards:.1f} bytes a card, headers included\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--corpus", type=Path, help="a folder of FITS files to compare on as well")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "small"
        write_siblings(folder, 100)
        crawler.index([str(folder)], str(Path(temporary) / "warm"))  # imports are not what is measured
        folder = Path(temporary) / "siblings"
        write_siblings(folder, arguments.files)
        compare("siblings", folder)
    if arguments.corpus is not None:
        compare(arguments.corpus.name, arguments.corpus)


if __name__ == "__main__":
    main()
