"""The files of ``crawler demo``, exposures of an invented survey, and the questions that it asks about them."""

from __future__ import annotations

from pathlib import Path

_EXPOSURES = 24
_FILTERS = (("F606W", 1, 8), ("F814W", 1, 4), ("F435W", 5, 4))  # with the shortest exposure, and how many longer ones

QUESTIONS = (
    (
        "What is there?",
        "SELECT status, count(*) AS files, sum(n_hdus) AS hdus FROM files GROUP BY status ORDER BY 2 DESC",
    ),
    (
        "Which kinds of HDU, and how large are their data?",
        "SELECT kind, count(*) AS hdus, sum(data_size) AS bytes "
        "FROM hdus GROUP BY kind ORDER BY hdus DESC, kind LIMIT 6",
    ),
    (
        "Which exposures were taken through F606W for more than 500 seconds?",
        "SELECT parse_filename(f.url) AS file, f.value AS filter, e.real AS exptime "
        "FROM cards f JOIN cards e USING (url, hdu) "
        "WHERE f.keyword = 'FILTER' AND f.value = 'F606W' AND e.keyword = 'EXPTIME' AND e.real > 500 ORDER BY file",
    ),
    (
        "Which files are not whole, and why?",
        "SELECT parse_filename(url) AS file, status, error FROM files WHERE status <> 'ok' ORDER BY file LIMIT 5",
    ),
)


NEXT_QUESTION = "SELECT DISTINCT keyword FROM cards"


def make_survey(folder: Path) -> None:
    """Write exposures of an invented camera: a primary header and one image each, alike but for what differs.

    The last one is cut short, as some are in every real archive. Nothing is written where it is there already.
    """
    import numpy as np  # noqa: PLC0415
    from astropy.io import fits  # noqa: PLC0415 - half a second that only the demonstration needs

    folder.mkdir(parents=True, exist_ok=True)
    last = folder / f"demo{_EXPOSURES - 1:04}_flt.fits"
    if last.exists():
        return
    for number in range(_EXPOSURES):
        primary = fits.PrimaryHDU()
        primary.header["TELESCOP"] = ("DEMO-1M", "an invented telescope")
        primary.header["DATE-OBS"] = (
            f"2026-03-{1 + number // 6:02}T0{number % 6}:12:00.000",
            "[UTC] begin of exposure",
        )
        name, shortest, steps = _FILTERS[number % len(_FILTERS)]
        primary.header["FILTER"] = (name, "element in the beam")
        primary.header["EXPTIME"] = (120.0 * (shortest + number % steps), "[s] exposure time")
        primary.header["HIERARCH DEMO DET CHIP TEMP"] = (round(183.2 + number / 10, 1), "[K] detector temperature")
        image = fits.ImageHDU(np.full((64, 64), number, np.int16), name="SCI")
        image.header["BUNIT"] = ("electron", "unit of the pixels")
        fits.HDUList([primary, image]).writeto(folder / f"demo{number:04}_flt.fits")
    last.write_bytes(last.read_bytes()[:-4000])
