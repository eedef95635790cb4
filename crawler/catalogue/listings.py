"""Which listings are kept beside the tables: found again, and deleted when they are of no more use."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from pyarrow.fs import FileSelector, FileType

from crawler.catalogue.deleting import delete_files
from crawler.catalogue.kept import ABOUT, LISTINGS, KeptFile, KeptListing, Told
from crawler.catalogue.log import FAULTS, first_line
from crawler.errors import CatalogueError
from crawler.stores.storage import Folder


def unfinished(folder: Folder, fingerprint: str, newer_than: datetime) -> KeptListing | None:
    """Return the newest listing that ended, of the same roots and filters, whose run did not end.

    Parameters
    ----------
    folder : Folder
        Of the catalogue.
    fingerprint : str
        Of `fingerprint`.
    newer_than : datetime
        Aware. A listing that began earlier tells too little of what there is now.

    Raises
    ------
    CatalogueError
        The folder cannot be read.
    """
    for told in _all(folder).values():
        if told is None or told.fingerprint != fingerprint or not told.ended or told.finished or told.damaged:
            continue
        kept = KeptListing(folder, told)
        if kept.began >= newer_than and kept.whole():
            return kept
    return None


def kept_listings(folder: Folder) -> list[KeptListing]:
    """Return the listings that ended, the newest first.

    Raises
    ------
    CatalogueError
        The folder cannot be read.
    """
    return [KeptListing(folder, told) for told in _all(folder).values() if told is not None and told.ended]


def delete_old(folder: Folder, hours: float | None) -> tuple[int, int]:
    """Delete listings that are of no more use.

    Kept are the last one of each fingerprint that a run finished, for audits, and those that a run may go on with
    or is writing.

    Parameters
    ----------
    folder : Folder
        Of the catalogue.
    hours : float or None
        No run lasts longer, so that what is older is a dead one's. None: no run is going on, and what no run can go
        on with, because it did not end or a later one was finished, is deleted too.

    Returns
    -------
    files, bytes : int
        That were deleted.

    Raises
    ------
    CatalogueError
        They cannot be read or deleted.
    """
    deleted = size = 0
    done: set[str] = set()  # fingerprints of which a newer one was finished
    for listing, told in _all(folder).items():
        if told is not None and told.finished and told.fingerprint not in done:
            done.add(told.fingerprint)
            continue
        if told is None or told.finished:
            useless = hours is None or told is not None
        elif hours is None:
            useless = not told.ended or told.damaged or told.fingerprint in done
        else:
            useless = datetime.fromisoformat(told.began) < datetime.now(UTC) - timedelta(hours=hours)
        if useless:
            files, held = _delete(folder, listing)
            deleted, size = deleted + files, size + held
    return deleted, size


def _all(folder: Folder) -> dict[str, Told | None]:
    """Return what is told of each listing, by the name of its folder, the newest first; None of what cannot be read."""
    told: dict[str, Told | None] = {}
    try:
        found = folder.filesystem.get_file_info(FileSelector(folder.join(LISTINGS), allow_not_found=True))
        for info in found:
            if info.type == FileType.Directory:
                told[info.base_name] = _read_about(folder, info.base_name)
    except FAULTS as error:
        raise CatalogueError(folder.url, f"cannot be read: {first_line(error)}") from None
    return dict(sorted(told.items(), key=lambda item: item[1].began if item[1] else "", reverse=True))


def _read_about(folder: Folder, listing: str) -> Told | None:
    try:
        found = json.loads(folder.get(f"{LISTINGS}/{listing}/{ABOUT}"))
    except (FileNotFoundError, ValueError):
        return None
    try:
        told = Told(**{**found, "files": [KeptFile(**file) for file in found["files"]]})
        for moment in (told.began, told.ended, told.finished):
            if moment is not None and datetime.fromisoformat(moment).tzinfo is None:
                return None
    except (TypeError, KeyError, ValueError):
        return None  # of another release, or damaged
    return told if told.id == listing else None


def _delete(folder: Folder, listing: str) -> tuple[int, int]:
    """Delete a listing, what tells of it last: so what is left of it is still known for what it is."""
    path = folder.join(f"{LISTINGS}/{listing}")
    try:
        found = folder.filesystem.get_file_info(FileSelector(path, recursive=True, allow_not_found=True))
        files = sorted((info for info in found if info.is_file), key=lambda info: info.base_name == ABOUT)
        delete_files(folder, [info.path for info in files if info.base_name != ABOUT])
        delete_files(folder, [info.path for info in files if info.base_name == ABOUT])
        if folder.filesystem.get_file_info(path).type == FileType.Directory:  # S3 has none
            folder.filesystem.delete_dir(path)
    except FAULTS as error:
        raise CatalogueError(folder.url, f"cannot be written: {first_line(error)}") from None
    return len(files), sum(info.size or 0 for info in files)
