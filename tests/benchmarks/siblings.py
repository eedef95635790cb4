"""Files of one product for benchmarks: alike in layout, each with its own values, data units being holes."""

from __future__ import annotations

from pathlib import Path

from astropy.io import fits

BLOCK = 2880


def sibling_headers(number: int, *, data_size: int) -> list[bytes]:
    """Return the four header units of one exposure: a primary of 100 cards and three images of 60 to 80.

    A tenth of the values differ from file to file, as they do in surveys.
    """
    primary = fits.Header()
    primary["SIMPLE"] = True, "conforms to FITS standard"
    primary["BITPIX"] = 8, "array data type"
    primary["NAXIS"] = 0, "number of array dimensions"
    primary["FILENAME"] = f"survey{number:08d}_flt.fits", "name of file"
    primary["DATE-OBS"] = f"2024-03-{number % 28 + 1:02}T0{number % 10}:12:{number % 60:02}.{number:06}", "[UTC] start"
    primary["FILTER"] = ("F606W", "F814W", "F435W")[number % 3], "element in the beam"
    primary["EXPTIME"] = 30.0 + number % 700, "[s] exposure time"
    primary["RA_TARG"] = 150.0 + number * 1e-5, "[deg] right ascension of the target"
    primary["DEC_TARG"] = 2.2 - number * 1e-5, "[deg] declination of the target"
    primary["CALIB"] = "/data/calibration/2024/" + "flat/" * 14 + "master.fits", "reference file"
    _fill(primary, 96, number)
    primary["HISTORY"] = "Bias level and dark current were subtracted, then divided by the flat field"
    units = [primary]
    for extension, (name, cards) in enumerate((("SCI", 80), ("ERR", 60), ("DQ", 60)), 1):
        header = fits.Header()
        header["XTENSION"] = "IMAGE", "Image extension"
        header["BITPIX"] = 8, "array data type"
        header["NAXIS"] = 1, "number of array dimensions"
        header["NAXIS1"] = data_size
        header["PCOUNT"] = 0, "number of parameters"
        header["GCOUNT"] = 1, "number of groups"
        header["EXTNAME"] = name, "extension name"
        header["EXTVER"] = 1, "extension version number"
        header["CRVAL1"] = 150.0 + number * 1e-5 + extension, "[deg] right ascension at the reference pixel"
        header["CRVAL2"] = 2.2 - number * 1e-5, "[deg] declination at the reference pixel"
        header["GOODMEAN"] = (number * 7919 + extension) % 10007 / 1000, "mean value of good pixels"
        _fill(header, cards, number)
        units.append(header)
    return [header.tostring().encode("ascii") for header in units]


def _fill(header: fits.Header, cards: int, number: int) -> None:
    """Add cards up to a count: gains that are the same everywhere, temperatures that are not."""
    for index in range(len(header), cards):
        if index % 10:
            header[f"GAIN{index:03}"] = 1.5 + index / 64, "[electron/ADU] gain of the amplifier"
        else:
            header[f"TEMP{index:03}"] = 280.0 + (number * 31 + index) % 977 / 100, "[K] sensor"


def write_siblings(folder: Path, count: int, *, data_size: int = 700_000) -> int:
    """Write ``count`` files, their data units as holes; return the bytes of all their headers."""
    folder.mkdir(parents=True, exist_ok=True)
    header_bytes = 0
    for number in range(count):
        with (folder / f"survey{number:08d}_flt.fits").open("wb") as file:
            for index, unit in enumerate(sibling_headers(number, data_size=data_size)):
                file.write(unit)
                header_bytes += len(unit)
                if index:
                    file.seek(-(-data_size // BLOCK) * BLOCK, 1)
            file.truncate()
    return header_bytes
