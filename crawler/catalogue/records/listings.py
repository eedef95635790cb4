"""Which listings are kept beside the tables: found again, and deleted when they are of no more use."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from pyarrow.fs import FileSelector, FileType

from crawler.catalogue.deleting import delete_files
from crawler.catalogue.folder import Folder
from crawler.catalogue.log import FAULTS, first_line
from crawler.catalogue.records.saved_listing import ABOUT, FILE_NAME, LISTINGS, KeptFile, KeptListing, Told
from crawler.errors import CatalogueError

_OURS = re.compile(rf"{FILE_NAME.pattern}|{re.escape(ABOUT)}(?:\.[0-9]+\.part)?")
"""Names of the files that a run writes into the folder of a listing."""


def unfinished(folder: Folder, fingerprint: str, newer_than: datetime) -> KeptListing | None:
    """Return the listing of some roots and filters that a run may resume; None where it has to list again.

    That is the latest listing of them, if it ended and if no run over them has finished since it began. An earlier
    listing is never resumed: it may name what a later run has seen to be gone.

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
    told = _resumable(_all(folder)).get(fingerprint)
    if told is None:
        return None
    kept = KeptListing(folder, told)
    return kept if kept.began >= newer_than and kept.whole() else None


def _resumable(listings: Mapping[str, Told | None]) -> dict[str, Told]:
    """Return the listings that a run may resume, by their fingerprints: see `unfinished`.

    Parameters
    ----------
    listings : mapping
        Of `_all`.
    """
    latest: dict[str, Told] = {}
    finished: dict[str, datetime] = {}
    for told in listings.values():
        if told is not None:
            latest.setdefault(told.fingerprint, told)
            if told.finished:
                moments = [_moment(told.finished), finished.get(told.fingerprint)]
                finished[told.fingerprint] = max(moment for moment in moments if moment is not None)
    # A listing that cannot be read may be a later one of the same roots. Ids of runs begin with their times.
    unread = max((name for name, told in listings.items() if told is None), default="")
    return {
        of: told
        for of, told in latest.items()
        if told.ended
        and not told.damaged
        and told.id > unread
        and (of not in finished or finished[of] < _moment(told.began))
    }


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

    Kept are the last one of each fingerprint that a run finished, for audits, and those that a run may resume
    (`unfinished`) or is writing.

    Parameters
    ----------
    folder : Folder
        Of the catalogue.
    hours : float or None
        No run lasts longer, so that what is older is a dead one's. None: no run is going on, and what no run can
        resume is deleted too.

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
    listings = _all(folder)
    resumable = {told.id for told in _resumable(listings).values()}
    for listing, told in listings.items():
        if told is not None and told.finished and told.fingerprint not in done:
            done.add(told.fingerprint)
            continue
        if told is None or told.finished:
            useless = hours is None or told is not None
        elif hours is None:
            useless = listing not in resumable
        else:
            useless = _moment(told.began) < datetime.now(UTC) - timedelta(hours=hours)
        if useless:
            files, held = _delete(folder, listing)
            deleted, size = deleted + files, size + held
    return deleted, size


def _all(folder: Folder) -> dict[str, Told | None]:
    """Return what is told of each listing, by the name of its folder, the newest first; None of what cannot be read."""
    told: dict[str, Told | None] = {}
    try:
        found = folder.filesystem.get_file_info(FileSelector(folder.join(LISTINGS), allow_not_found=True))
        links = folder.links(LISTINGS)  # they may lead out of the catalogue, and are no listings
        for info in found:
            if info.type == FileType.Directory and info.base_name not in links:
                told[info.base_name] = _read_about(folder, info.base_name)
    except FAULTS as error:
        raise CatalogueError(folder.url, f"cannot be read: {first_line(error)}") from None
    earliest = datetime.min.replace(tzinfo=UTC)
    return dict(sorted(told.items(), key=lambda item: _moment(item[1].began) if item[1] else earliest, reverse=True))


def _moment(text: str) -> datetime:
    """Return the moment that ISO 8601 text with an offset names.

    Raises
    ------
    TypeError, ValueError
        It names none.
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError("no offset")
    return moment


def _read_about(folder: Folder, listing: str) -> Told | None:
    """Return what is told of a listing; None where it is damaged, of another release, or of another listing."""
    try:
        told = _understood(json.loads(folder.get(f"{LISTINGS}/{listing}/{ABOUT}")))
    except (FileNotFoundError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return told if told.id == listing else None


def _understood(found: Any) -> Told:
    """Return what ``listing.json`` says, each value of its type: whoever can write there may have written anything.

    Raises
    ------
    TypeError, KeyError, ValueError
        It says something else.
    """
    told = Told(**{**found, "files": [KeptFile(**file) for file in found["files"]]})
    for moment in (told.began, *(one for one in (told.ended, told.finished) if one is not None)):
        _moment(moment)
    names = [file.name for file in told.files]
    texts = [told.id, told.fingerprint, *told.folders, *names]
    texts += [url for file in told.files for url in (file.first_url, file.last_url)]
    counts = [told.seen, *(count for file in told.files for count in (file.size, file.keys, file.partitions))]
    right = (
        all(isinstance(text, str) for text in texts)
        and all(type(count) is int and count >= 0 for count in counts)
        and all(map(FILE_NAME.fullmatch, names))
        and isinstance(told.folders, list)
        and isinstance(told.about, dict)
        and isinstance(told.damaged, bool)
    )
    if not right:
        raise ValueError("not as a listing is told of")
    return told


def _delete(folder: Folder, listing: str) -> tuple[int, int]:
    """Delete a listing, what tells of it last: so what is left of it is still known for what it is.

    Only files that a run writes are deleted, and the folder only if nothing else is in it.
    """
    path = folder.join(f"{LISTINGS}/{listing}")
    selector = FileSelector(path, allow_not_found=True)
    try:
        found = folder.filesystem.get_file_info(selector)
        files = [info for info in found if info.is_file and _OURS.fullmatch(info.base_name)]
        delete_files(folder, [info.path for info in files if info.base_name != ABOUT])
        delete_files(folder, [info.path for info in files if info.base_name == ABOUT])
        there = folder.filesystem.get_file_info(path).type == FileType.Directory  # S3 has none
        if there and not folder.filesystem.get_file_info(selector):
            folder.filesystem.delete_dir(path)
    except FAULTS as error:
        raise CatalogueError(folder.url, f"cannot be written: {first_line(error)}") from None
    return len(files), sum(info.size or 0 for info in files)
