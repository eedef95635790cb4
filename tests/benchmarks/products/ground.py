"""Products of telescopes on the ground, and exposures of a made-up survey."""

from __future__ import annotations

from tests.benchmarks.products.product import Product, Unit

_EXPOSURE = """
DATE-OBS = {date} / [UTC] start of exposure
MJD-OBS = {real 58000} / [d] start of exposure
EXPTIME = {real 30} / [s] exposure time
FILTER = {pick g r i z} / element in the beam
RA DEC = {exp 150} / [deg] pointing
AIRMASS HA ZD = {real 1} / at the start of exposure
OBJECT = {pick COSMOS STRIPE82 ELAIS-N1} / name of the field
"""

_WCS = """
EQUINOX = 2000.0 / equinox of the coordinates
CTYPE1 = 'RA---TPV' / type of axis 1
CTYPE2 = 'DEC--TPV' / type of axis 2
CRVAL[12] = {exp 150} / [deg] at the reference pixel
CRPIX[12] = {real 1024} / reference pixel
CD[12]_[12] = 7.2884498E-05 / [deg/pixel]
"""

_AMPLIFIER = """
GAIN[AB] RDNOISE[AB] SATURAT[AB] = 4.02 / of the amplifier
BIASSEC[AB] TRIMSEC[AB] DATASEC[AB] CCDSEC[AB] DETSEC[AB] AMPSEC[AB] = '[1:1024,1:4096]' / section
CCDNUM = 12 / number of the CCD
DETPOS = 'N12' / position of the CCD
"""


_ZTF = (
    _EXPOSURE
    + _WCS
    + """
ORIGIN = 'Zwicky Transient Facility' / Origin of these image data
FILENAME = {name} / name of file
INSTRUME = 'ZTF/MOSAIC' / Instrument name
PV1_[0-39] PV2_[0-39] = 2.157E-05 / distortion
TMP_[ABCD]_[A-F] = {real 280} / [K] temperature
[ABGH]PSTART [ABGH]PSTOP = 12.5 / guider
INFOBITS = 0 / Database infobits
MAGZP MAGZPUNC MAGLIM SEEING = {real 20} / photometric calibration
"""
)


def _ztf_key(number: int) -> str:
    day, fraction = number // 700 % 28 + 1, 100000 + number % 700 * 1000
    name = f"ztf_201907{day:02}{fraction}_000600_zg_c{number % 16 + 1:02}_o_q{number % 4 + 1}_sciimg.fits"
    return f"products/sci/2019/07{day:02}/{fraction}/{name}"


def _megaprime() -> tuple[Unit, ...]:
    """Return 36 CCDs at half the size of a raw exposure: 359 MB, as they are with tile compression, but fixed."""
    primary = Unit(
        _EXPOSURE + "FILENAME = {name} / base filename at acquisition\nINSTRUME = 'MegaPrime' / Instrument Name",
        10,
        "primary",
        bitpix=16,
        fill="ENG",
    )
    ccds = [
        Unit(
            _EXPOSURE + _WCS + _AMPLIFIER + "BZERO = 32768.0 / zero\nBSCALE = 1.0 / scale",
            12,
            bitpix=16,
            shape=(2112, 2360),
            extname=f"ccd{index:02}",
            fill="ENG",
        )
        for index in range(36)
    ]
    return primary, *ccds


_TILES = """
ZIMAGE = T / extension contains compressed image
ZBITPIX = 16 / data type of original image
ZNAXIS = 2 / dimension of original image
ZNAXIS1 = 2160 / length of original image axis
ZNAXIS2 = 4146 / length of original image axis
ZTILE1 = 2160 / size of tiles to be compressed
ZTILE2 = 1 / size of tiles to be compressed
ZCMPTYPE = 'RICE_1' / compression algorithm
ZNAME1 = 'BLOCKSIZE' / compression block size
ZVAL1 = 32 / pixels per block
ZNAME2 = 'BYTEPIX' / bytes per pixel (1, 2, 4, or 8)
ZVAL2 = 2 / bytes per pixel (1, 2, 4, or 8)
ZSIMPLE = T / file does conform to FITS standard
"""


def _decam(heap_varies: bool) -> tuple[Unit, ...]:
    """Return a raw exposure: as it is archived, tile-compressed, so that every file's headers lie elsewhere, or not."""
    primary = Unit(
        _EXPOSURE + "FILENAME = {name} / Filename\nINSTRUME = 'DECam' / Instrument used to obtain these data",
        5,
        "primary",
        fill="ENG",
    )
    ccds = [
        Unit(
            _WCS + _AMPLIFIER + (_TILES if index < 62 else _TILES.replace("4146", "2048")),
            2,
            "BINTABLE",
            columns="COMPRESSED_DATA=1PB(2048)",
            rows=4146 if index < 62 else 2048,
            heap=4_400_000 if index < 62 else 2_200_000,
            heap_varies=heap_varies,
            extname=f"{'NSF'[index % 2 if index < 62 else 2]}{index:02}",
            fill="ENG",
        )
        for index in range(70)
    ]
    return primary, *ccds


def _rubin() -> tuple[Unit, ...]:
    amplifiers = [
        Unit(_AMPLIFIER + _WCS, 3, bitpix=32, shape=(576, 2048), extname=f"Segment{index:02}", fill="ENG")
        for index in range(16)
    ]
    return (
        Unit(_EXPOSURE + "FILENAME = {name} / Original file name", 2, "primary"),
        *amplifiers,
        Unit(_EXPOSURE, 3, extname="REB_COND", fill="REB"),
        Unit("", 1, extname="CONFIG_COND"),
    )


def _rubin_key(number: int) -> str:
    night, sequence = 20250401 + number // 2000 % 28, number % 2000 // 4 + 1
    name = f"MC_O_{night}_{sequence:06}_R22_S{number % 4 // 2}{number % 2}.fits"
    return f"LSSTCam/{night}/MC_O_{night}_{sequence:06}/{name}"


def _sdss() -> tuple[Unit, ...]:
    astrom = "a=D b=D c=D d=D e=D f=D drow0=D drow1=D drow2=D drow3=D dcol0=D dcol1=D csrow0=D cscol0=D ricut=D"
    astrom += " " + " ".join(f"mjd{index}=D" for index in range(35))
    return (
        Unit(_EXPOSURE + _WCS, 3, "primary", bitpix=-32, shape=(2048, 1489)),
        Unit("", 1, bitpix=-32, shape=(2048,)),
        Unit("", 2, "BINTABLE", columns="ALLSKY=49152E XINTERP=2048E YINTERP=1489E", rows=1),
        Unit("", 5, "BINTABLE", columns=astrom, rows=1),
    )


def _sdss_key(number: int) -> str:
    field, camera = number // 6 % 900 + 11, number % 6 + 1
    run = 1000 + number // 5400
    return f"boss/photoObj/frames/301/{run}/{camera}/frame-r-{run:06}-{camera}-{field:04}.fits"


def _survey(data_size: int = 700_000) -> tuple[Unit, ...]:
    """Return four HDUs of 60 to 100 cards."""
    calibration = f"CALIB = '/data/calibration/2024/{'flat/' * 14}master.fits' / reference file"
    history = "HISTORY Bias level and dark current were subtracted, then divided by the flat field"
    primary = Unit(f"FILENAME = {{name}}\n{_EXPOSURE}{calibration}\n{history}", 3, "primary", fill="GAIN", cards=100)
    images = [
        Unit(_WCS, blocks, shape=(data_size,), extname=name, fill="GAIN", cards=cards)
        for name, blocks, cards in (("SCI", 3, 80), ("ERR", 2, 60), ("DQ", 2, 60))
    ]
    return primary, *images


def _survey_key(number: int) -> str:
    return f"survey/night{number // 1000:04}/survey{number:08}_flt.fits"


def _decam_key(number: int) -> str:
    return f"decam/raw/2019{number // 500 % 12 + 1:02}/c4d_{190000 + number // 500}_{number % 500:06}_ori.fits.fz"


GROUND = (
    Product("survey", "4 HDUs of 700 kB", (_survey(),), _survey_key, usual=2000),
    Product("ztf-sci", "ZTF science", ((Unit(_ZTF, 8, "primary", bitpix=-32, shape=(3072, 3080)),),), _ztf_key),
    Product("megaprime", "MegaPrime raw", (_megaprime(),), lambda number: f"cfht/{number + 2000000}o.fits"),
    Product("decam-raw", "DECam raw", (_decam(False),), _decam_key),
    Product("decam-fz", "DECam raw, tile-compressed: all differ", (_decam(True),), _decam_key, usual=300),
    Product("rubin-raw", "Rubin raw", (_rubin(),), _rubin_key),
    Product("sdss-frame", "SDSS frame", (_sdss(),), _sdss_key),
)
