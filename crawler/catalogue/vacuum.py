"""Deleting Parquet files that no version of the catalogue needs any more, and listings that no run does."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pyarrow.fs import FileSelector

from crawler.catalogue.deleting import delete_files
from crawler.catalogue.listings import delete_old
from crawler.catalogue.log import FAULTS, CatalogueLog, first_line
from crawler.catalogue.schema import TABLES
from crawler.errors import CatalogueError
from crawler.stores.storage import Folder
from crawler.stores.urls import PathOrUrl

RETENTION_HOURS = 7 * 24
"""Files that a version before the latest has, and the latest has not, are kept so long after that one was replaced:
earlier versions can be opened, and who is reading one is not disturbed."""

ORPHAN_HOURS = 30 * 24
"""Files that no version has are kept so long: until it commits, a run's are such, and no run lasts longer."""

_OURS = re.compile(rf"table=(?:{'|'.join(TABLES)})/[^/]+\.parquet")
"""What a run writes. Delta's own vacuum would delete everything else in the folder with it, and log that it did."""


@dataclass(frozen=True, slots=True)
class Vacuumed:
    """What was deleted.

    Attributes
    ----------
    deleted : int
        Files.
    bytes : int
    """

    deleted: int
    bytes: int


def vacuum(location: PathOrUrl, *, now: bool = False, storage_options: Mapping[str, Any] | None = None) -> Vacuumed:
    """Delete what no version that is still promised needs, and listings that are of no more use.

    Parameters
    ----------
    location : str or pathlib.Path
        Path or URL of the catalogue's folder.
    now : bool
        Delete all Parquet files but those of the latest version, so that programs which read the folder's Parquet
        files see exactly that. Only while no crawl writes to the catalogue, whose files it would take for a dead
        one's, and nobody reads an earlier version.
    storage_options : mapping, optional
        Of the catalogue's store.

    Raises
    ------
    CatalogueError
        There is no catalogue, or it cannot be written.
    """
    log = CatalogueLog(location, storage_options)
    passes = [(0, True)] if now else [(RETENTION_HOURS, False), (ORPHAN_HOURS, True)]
    deleted = size = 0
    for hours, orphans in passes:
        try:
            doomed = log.open().vacuum(hours, dry_run=True, enforce_retention_duration=False, full=orphans)
            # The log also names files that the run which wrote them has deleted already.
            there = _lying_there(log.folder) if doomed else {}
            found = [there[path] for path in map(log.folder.join, filter(_OURS.fullmatch, doomed)) if path in there]
            delete_files(log.folder, [info.path for info in found])
        except FAULTS as error:
            raise CatalogueError(log.url, f"cannot be vacuumed: {first_line(error)}") from None
        deleted += len(found)
        size += sum(info.size or 0 for info in found)
    files, held = delete_old(log.folder, None if now else ORPHAN_HOURS)
    return Vacuumed(deleted + files, size + held)


def _lying_there(folder: Folder) -> dict[str, Any]:
    """Return what lies in the tables' folders, by path: listed, as on S3 each file asked for is a request."""
    found: dict[str, Any] = {}
    for table in TABLES:
        selector = FileSelector(folder.join(f"table={table}"), allow_not_found=True)
        found |= {info.path: info for info in folder.filesystem.get_file_info(selector) if info.is_file}
    return found
