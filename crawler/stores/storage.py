"""Where the catalogue's own files lie: a folder, as pyarrow reads and writes it.

The catalogue is read and written as Parquet files, not as FITS objects, so it wants a file system rather
than an `ObjectStore`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import pyarrow.fs as pafs

from crawler.errors import UsageError
from crawler.stores.urls import as_url


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder on some file system.

    Attributes
    ----------
    url : str
        As messages name it.
    filesystem : pyarrow.fs.FileSystem
    path : str
        Of the folder on that file system, without a slash at its end.
    """

    url: str
    filesystem: Any
    path: str

    def join(self, relative: str) -> str:
        """Return the path of a file below the folder; ``relative`` is separated by slashes."""
        return f"{self.path}/{relative}"


def open_folder(location: str) -> Folder:
    """Open a folder by its path or URL. It need not exist.

    Raises
    ------
    UsageError
        It is not on the local disk.
    """
    url = as_url(location)
    parts = urlsplit(url)
    if parts.scheme != "file":
        raise UsageError(f"a catalogue lies in a local folder, not at {parts.scheme}://: {location}")
    path = Path(unquote_to_bytes(parts.path).decode("utf-8", "surrogateescape"))
    return Folder(url, pafs.LocalFileSystem(), str(path))
