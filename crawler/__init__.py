"""Index the headers of FITS files, wherever they lie."""

__version__ = "0.1.0"
