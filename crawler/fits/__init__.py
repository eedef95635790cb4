"""The FITS Standard: units, the walk from header to header, cards, compression. Pure: no I/O, no storage, no Dask."""
