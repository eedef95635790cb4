"""Deleting Parquet files that no version of the catalogue needs any more, and listings that no run does."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from crawler.catalogue.deleting import Found, delete_files, files_in
from crawler.catalogue.fragments import FRAGMENT_PATH
from crawler.catalogue.log import FAULTS, CatalogueLog, first_line
from crawler.catalogue.records.listings import delete_old
from crawler.catalogue.schema import TABLES
from crawler.errors import CatalogueError
from crawler.stores.urls import PathOrUrl

RETENTION_HOURS = 7 * 24
"""Files that a version before the latest has, and the latest has not, are kept so long after that one was replaced:
earlier versions can be opened, and who is reading one is not disturbed."""

ORPHAN_HOURS = 30 * 24
"""Files that no version has are kept so long: until it commits, a run's are such, and no run lasts longer."""


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
    log.open()  # says where there is no catalogue, before anything is listed
    try:
        there = [found for table in TABLES for found in files_in(log.folder, f"table={table}")]
        doomed = _superfluous(log, there, now=now)
        delete_files(log.folder, [log.folder.join(one.path) for one in doomed])
    except FAULTS as error:
        raise CatalogueError(log.url, f"cannot be vacuumed: {first_line(error)}") from None
    files, held = delete_old(log.folder, None if now else ORPHAN_HOURS)
    return Vacuumed(len(doomed) + files, sum(one.size for one in doomed) + held)


def _superfluous(log: CatalogueLog, there: Sequence[Found], *, now: bool) -> list[Found]:
    """Return the files that may be deleted, of those that were there before the log is read.

    Not Delta's own vacuum, which looks for files in all that lies below the folder, through symbolic links too, would
    delete what others put there, and logs that it did.
    """
    table = log.open()
    needed = {fragment.path for fragment in log.snapshot().fragments}
    replaced, expired = (
        set(table.vacuum(hours, dry_run=True, enforce_retention_duration=False)) for hours in (0, RETENTION_HOURS)
    )
    youngest = datetime.now(UTC) - timedelta(hours=ORPHAN_HOURS)

    def is_superfluous(one: Found) -> bool:
        if one.path in needed or not re.fullmatch(FRAGMENT_PATH, one.path):
            return False
        return now or one.path in expired or (one.path not in replaced and one.modified < youngest)

    return [one for one in there if is_superfluous(one)]
