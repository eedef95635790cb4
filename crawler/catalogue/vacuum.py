"""Deleting Parquet files that no version of the catalogue needs any more."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from crawler.catalogue.log import FAULTS, CatalogueLog, first_line
from crawler.catalogue.schema import TABLES
from crawler.errors import CatalogueError

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


def vacuum(location: str, *, now: bool = False, storage_options: Mapping[str, Any] | None = None) -> Vacuumed:
    """Delete what no version that is still promised needs.

    Parameters
    ----------
    location : str
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
            paths = [log.folder.join(path) for path in doomed if _OURS.fullmatch(path)]
            # The log also names files that the run which wrote them has deleted already.
            found = [info for info in log.folder.filesystem.get_file_info(paths) if info.is_file]
            for info in found:
                with suppress(FileNotFoundError):  # another run was faster
                    log.folder.filesystem.delete_file(info.path)
        except FAULTS as error:
            raise CatalogueError(log.url, f"cannot be vacuumed: {first_line(error)}") from None
        deleted += len(found)
        size += sum(info.size or 0 for info in found)
    return Vacuumed(deleted, size)
