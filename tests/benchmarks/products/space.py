"""Products of space telescopes: HST, JWST, TESS, Chandra."""

from __future__ import annotations

from tests.benchmarks.products.product import Product, Unit

_OBSERVATION = """
DATE = {date} / date this file was written
FILENAME = {name} / name of file
TELESCOP = '%s' / telescope used to acquire data
INSTRUME = '%s' / identifier for instrument used to acquire data
ROOTNAME = {stem} / rootname of the observation set
TARGNAME = {pick NGC104 M31 M82 UDF} / proposer's target name
RA_TARG = {exp 5.6} / [deg] right ascension of the target (J2000)
DEC_TARG = {exp -7.2} / [deg] declination of the target (J2000)
DATE-OBS = {date} / UT start of observation
EXPSTART EXPEND = {exp 5.3} / [d] exposure time (Modified Julian Date)
EXPTIME = {real 100} / [s] exposure duration
"""

_WCS = """
WCSAXES = 2 / number of World Coordinate System axes
CRPIX[12] = 2048.0 / coordinate of reference pixel
CRVAL[12] = {exp 5.6} / [deg] axis value at reference pixel
CTYPE1 = 'RA---TAN-SIP' / the coordinate type for the first axis
CTYPE2 = 'DEC--TAN-SIP' / the coordinate type for the second axis
CUNIT[12] = 'deg' / units
CD[12]_[12] = {exp 1.3e-5} / partial of axis coordinate
"""

_HST_PRIMARY = (
    _OBSERVATION % ("HST", "ACS")
    + """
COMMENT DATA DESCRIPTION KEYWORDS
PROPOSID = 10368 / PEP proposal identifier
PR_INV_L PR_INV_F PR_INV_M = 'Hubble' / principal investigator
SUNANGLE MOONANGL SUN_ALT PA_V3 = {real 57} / [deg] angle
FGSLOCK = 'FINE' / commanded FGS lock (FINE,COARSE,GYROS,UNKNOWN)
OBSTYPE = 'IMAGING' / observation type - imaging or spectroscopic
DETECTOR = 'WFC' / detector in use: WFC, HRC, or SBC
FILTER1 = {pick F606W F435W CLEAR1L} / element selected from filter wheel 1
FILTER2 = {pick CLEAR2L F814W} / element selected from filter wheel 2
QUALCOM[1-3] QUALITY = '' / data quality comment
[DFPL]FLTCORR DQICORR ATODCORR BLEVCORR BIASCORR FLSHCORR CRCORR = 'COMPLETE' / calibration step
EXPSCORR SHADCORR PCTECORR DARKCORR FLATCORR PHOTCORR RPTCORR DRIZCORR = 'PERFORM' / calibration step
STATFLAG WRTERR SUBARRAY FWERROR CRMASK = F / switch
BPIXTAB CCDTAB ATODTAB OSCNTAB BIASFILE = 'jref$p3v2228mj_bia.fits' / calibration reference file
CRREJTAB DARKFILE PFLTFILE IDCTAB = 'jref$nar1136nj_pfl.fits' / calibration reference file
DGEOFILE MDRIZTAB D2IMFILE NPOLFILE = 'jref$qbu16424j_dxy.fits' / distortion correction
P[12]_SHAPE P[12]_PURPS P[12]_FRAME P[12]_CENTR = '' / of pattern
P[12]_PSPAC P[12]_LSPAC P[12]_ANGLE P[12]_ORINT = 0.000000 / of pattern
MDRIZSKY = {real 115} / sky value computed by AstroDrizzle
READNSE[ABCD] ATODGN[ABCD] BIASLEV[ABCD] = {real 2} / of the amplifier
"""
)

_HST_SCI = (
    _WCS
    + """
EXPNAME = {stem} / exposure identifier
BUNIT = 'ELECTRONS' / brightness units
CCDCHIP = 2 / CCD chip (1 or 2)
LTV[12] LTM1_1 LTM2_2 = 1.0 / subsection
ORIENTAT = {real 154} / [deg] position angle of image y axis (e. of n)
PHOTMODE = 'ACS WFC1 F606W' / observation con
PHOTFLAM = 7.9064521E-20 / inverse sensitivity, ergs/cm2/Ang/electron
NGOODPIX = {int 7822781} / number of good pixels
GOODMIN GOODMAX GOODMEAN SNRMIN SNRMAX SNRMEAN = {real 204} / of good pixels
OCRVAL[12] OCD[12]_[12] = 1.3E-05 / as before the update of the WCS
[AB]_[0-4]_[0-4] = 2.16615952976212E-06 / distortion
CRVAL[12]O CRPIX[12]O CD[12]_[12]O CDELT[12]O = 1.29056256334E-05 / alternative WCS
WCSNAMEO = 'OPUS' / alternative WCS
"""
)


def _hst(hdrlets: int, primary: int) -> tuple[Unit, ...]:
    """Return an exposure of the two chips of ACS/WFC, their distortion, and headerlets."""
    shape = (4096, 2048)
    units = [Unit(_HST_PRIMARY, primary, "primary", bitpix=16, fill="ENG")]
    for chip in (1, 2):
        for name, bitpix, blocks, text in (("SCI", -32, 7, _HST_SCI), ("ERR", -32, 2, _WCS), ("DQ", 16, 2, _WCS)):
            units.append(Unit(text, blocks, bitpix=bitpix, shape=shape, extname=name, extver=chip, fill="CAL"))
    units += [Unit("", 1, bitpix=-32, shape=(64, 32), extname="D2IMARR", extver=at) for at in (1, 2)]
    units += [Unit("", 1, bitpix=-32, shape=(64, 32), extname="WCSDVARR", extver=at) for at in range(1, 5)]
    wcs = "WCS_ID=40A EXTVER=I WCS_key=A HDRNAME=24A SIPNAME=24A NPOLNAME=24A D2IMNAME=24A CRVAL1=D CRVAL2=D CRPIX1=D"
    units.append(Unit("", 2, "BINTABLE", columns=wcs, rows=14, extname="WCSCORR"))
    hdrlet = "HDRNAME = 'OPUS' / headerlet name\nDESTIM = {stem} / destination observation root name"
    units += [Unit(hdrlet, 1, "HDRLET", shape=(86400,), extname="HDRLET", extver=at) for at in range(1, hdrlets + 1)]
    return tuple(units)


def _hst_key(number: int) -> str:
    programme = "".join(chr(97 + (number // 250 + 27) // 26**power % 26) for power in (2, 1, 0))
    exposure = f"j{programme}{number // 10 % 25 + 1:02}{chr(97 + number % 10)}xq"
    return f"hst/public/{exposure[:4]}/{exposure}/{exposure}_flt.fits"


_JWST_PRIMARY = (
    _OBSERVATION.replace("\nROOTNAME = {stem} / rootname of the observation set", "") % ("JWST", "NIRCAM")
    + """
DATAMODL = 'ImageModel' / Type of data model
CAL_VER = '1.11.4' / Calibration software version number
CAL_VCS = 'RELEASE' / Calibration software version control system
PROGRAM = '01234' / Program number
TITLE = 'Imaging and spectroscopy of galaxies at the epoch of reionization' / Proposal title
OBSERVTN VISIT ACT_ID EXPOSURE = '001' / observation
DETECTOR = 'NRCA1' / Name of detector used to acquire the data
FILTER = {pick F150W F200W F277W F444W} / Name of the filter element used
PUPIL = 'CLEAR' / Name of the pupil element used
EXPMID DURATION EFFEXPTM = {real 100} / exposure
R_[DFGLMPRST]A[RST]K = 'crds://jwst_nircam_dark_0345.fits' / reference file information
S_[DGIJLPRSW]ARK = 'COMPLETE' / calibration step
XOFFSET YOFFSET = {real 0} / [arcsec] offset from pattern starting position
GS_[RDM][AE]C = {exp 80} / [deg] guide star
"""
)


def _jwst() -> tuple[Unit, ...]:
    square = 2048, 2048
    return (
        Unit(_JWST_PRIMARY, 5, "primary", fill="ENG"),
        Unit(_WCS + "BUNIT = 'DN/s' / physical units", 2, bitpix=-32, shape=square, extname="SCI", fill="ENG"),
        Unit("BUNIT = 'DN/s' / physical units", 1, bitpix=-32, shape=square, extname="ERR"),
        Unit("BSCALE = 1 / scale\nBZERO = 2147483648 / zero", 1, bitpix=32, shape=square, extname="DQ"),
        Unit("", 1, bitpix=-32, shape=square, extname="VAR_POISSON"),
        Unit("", 1, bitpix=-32, shape=square, extname="VAR_RNOISE"),
        Unit("", 1, "BINTABLE", columns="ASDF_METADATA=8237B", rows=1, extname="ASDF"),
    )


def _jwst_key(number: int) -> str:
    stem = f"jw01234{number // 999 % 999 + 1:03}001_02101_{number % 999 + 1:05}_nrca1"
    return f"jwst/public/jw01234/{stem}/{stem}_rate.fits"


_TESS = """
ORIGIN = 'NASA/Ames' / institution responsible for creating this file
DATE = {date} / file creation date.
TSTART TSTOP = {exp 1500} / [d] observation time in BTJD
TELESCOP = 'TESS' / telescope
INSTRUME = 'TESS Photometer' / detector type
OBJECT = {pick TIC-25155310 TIC-307210830} / string version of target id
SECTOR CAMERA CCD = 2 / where it was observed
PXTABLE = 129 / pixel table id
RA_OBJ DEC_OBJ = {exp 63} / [deg] position
PMRA PMDEC = {real 1} / [mas/yr] proper motion
TESSMAG TEFF LOGG MH RADIUS = {real 5} / of the star
"""

_TESS_TABLE = """
EXPOSURE = {real 20} / [d] time on source
TIMEREF = 'SOLARSYSTEM' / barycentric correction applied to times
BJDREFI = 2457000 / integer part of BTJD reference date
TELAPSE LIVETIME = {real 27} / [d]
CDPP0_5 CDPP1_0 CDPP2_0 CROWDSAP FLFRCSAP PDCVAR = {real 0} / of the light curve
"""

_LIGHT_CURVE = (
    "TIME=D/BJD TIMECORR=E/d CADENCENO=J SAP_FLUX=E SAP_FLUX_ERR=E SAP_BKG=E SAP_BKG_ERR=E PDCSAP_FLUX=E "
    "PDCSAP_FLUX_ERR=E QUALITY=J PSF_CENTR1=D PSF_CENTR1_ERR=E PSF_CENTR2=D PSF_CENTR2_ERR=E MOM_CENTR1=D "
    "MOM_CENTR1_ERR=E MOM_CENTR2=D MOM_CENTR2_ERR=E POS_CORR1=E POS_CORR2=E"
)


def _tess_light_curve() -> tuple[Unit, ...]:
    return (
        Unit(_TESS, 2, "primary"),
        Unit(_TESS_TABLE, 5, "BINTABLE", columns=_LIGHT_CURVE, rows=20_000, extname="LIGHTCURVE", fill="KEP"),
        Unit(_WCS, 2, bitpix=32, shape=(11, 11), extname="APERTURE"),
    )


def _tess_light_curve_key(number: int) -> str:
    star = f"{12345678 + number:016}"
    folders = "/".join(star[at : at + 4] for at in range(0, 16, 4))
    return f"tess/public/tid/s0007/{folders}/tess2019006130736-s0007-{star}-0131-s_lc.fits"


def _tess_cube() -> tuple[Unit, ...]:
    """Return all full-frame images of a CCD as one cube of 44 GB, and their headers as a table behind it."""
    cards = " ".join(f"FFIKEY{index:03}=D" for index in range(1, 190))
    return (
        Unit(_TESS, 3, "primary"),
        Unit(_WCS, 2, bitpix=-32, shape=(2, 1282, 2136, 2078), extname="IMAGE"),
        Unit("", 12, "BINTABLE", columns=f"FFI_FILE=38A {cards}", rows=1282, extname="FFIHDR"),
    )


_CHANDRA = """
ORIGIN = 'ASC' / Source of FITS file
CREATOR = 'cxc - Version DS10.8.3' / tool that created this output
DATE DATE-OBS DATE-END = {date} / Date and time
TELESCOP = 'CHANDRA' / Telescope
INSTRUME = 'ACIS' / Instrument
OBJECT = {pick CYG-X-1 M87 A2029} / Source name
OBS_ID = {pick 1234 5678 9012} / Observation id
TSTART TSTOP ONTIME LIVETIME EXPOSURE = {exp 5e8} / [s] time
RA_NOM DEC_NOM ROLL_NOM = {exp 202} / [deg] nominal pointing
SIM_X SIM_Y SIM_Z DEFOCUS = -0.6828 / [mm] SIM focus
LIVTIME[0-9] ONTIME[0-9] = 5021.3 / [s] of the CCD
"""

_EVENTS = (
    "time=D/s ccd_id=I node_id=I expno=J chipx=I/pixel chipy=I/pixel tdetx=I/pixel tdety=I/pixel detx=E/pixel "
    "dety=E/pixel x=E/pixel y=E/pixel pha=J/adu pha_ro=J/adu energy=E/eV pi=J/chan fltgrade=I grade=I status=4B"
)


def _chandra() -> tuple[Unit, ...]:
    events = Unit(_CHANDRA, 20, "BINTABLE", columns=_EVENTS, rows=40_000, extname="EVENTS", fill="TLM")
    good_times = [
        Unit(_CHANDRA, 4, "BINTABLE", columns="START=D/s STOP=D/s", rows=3, extname="GTI", extver=ccd, fill="TLM")
        for ccd in range(4)
    ]
    return Unit(_CHANDRA, 2, "primary"), events, *good_times


SPACE = (
    Product("hst-flt", "HST flt", (_hst(2, 8), _hst(6, 8), _hst(12, 9)), _hst_key),
    Product("jwst-rate", "JWST rate", (_jwst(),), _jwst_key),
    Product("tess-lc", "TESS light curve", (_tess_light_curve(),), _tess_light_curve_key),
    Product(
        "tess-cube",
        "TESS cube, 44 GB",
        (_tess_cube(),),
        lambda number: f"tess/public/mast/tess-s{number // 16 + 1:04}-{number // 4 % 4 + 1}-{number % 4 + 1}-cube.fits",
        usual=200,
    ),
    Product(
        "chandra-evt2",
        "Chandra evt2, gzip",
        (_chandra(),),
        lambda number: f"byobsid/{number % 10}/{number + 10000}/primary/acisf{number + 10000}N002_evt2.fits.gz",
        gzip=True,
        usual=200,
    ),
)
