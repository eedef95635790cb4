"""Which files lie in a catalogue's folder, and deleting many of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from pyarrow.fs import FileSelector

from crawler.catalogue.folder import Folder
from crawler.stores.urls import S3_SCHEMES, scheme_of

_AT_ONCE = 1000  # keys that one request deletes (DeleteObjects, Amazon S3 API Reference)


@dataclass(frozen=True, slots=True)
class Found:
    """A file below a catalogue's folder.

    Attributes
    ----------
    path : str
        Relative to the catalogue's folder.
    size : int
        Bytes.
    modified : datetime
        Aware.
    """

    path: str
    size: int
    modified: datetime


def files_in(folder: Folder, relative: str) -> list[Found]:
    """Return the files that lie in a folder below a catalogue's, but not those in folders below it.

    Raises
    ------
    OSError
        It cannot be listed. One that is not there has no files.
    """
    if scheme_of(folder.url) in S3_SCHEMES:
        return _objects_in(folder, relative)
    found = folder.filesystem.get_file_info(FileSelector(folder.join(relative), allow_not_found=True))
    return [Found(f"{relative}/{one.base_name}", one.size, one.mtime) for one in found if one.is_file]


def _objects_in(folder: Folder, relative: str) -> list[Found]:
    # Of s3fs itself: pyarrow's view of it has no times.
    try:
        found = folder.filesystem.handler.fs.ls(folder.join(relative), detail=True)
    except FileNotFoundError:
        return []
    return [
        Found(f"{relative}/{one['name'].rpartition('/')[2]}", one["size"], one["LastModified"])
        for one in found
        if one["type"] == "file"
    ]


def delete_files(folder: Folder, paths: Sequence[str]) -> None:
    """Delete files; those that are not there are no fault.

    Parameters
    ----------
    folder : Folder
    paths : sequence of str
        On its file system. On S3 a thousand go with each request.

    Raises
    ------
    OSError
        Some cannot be deleted; others may have been.
    """
    if scheme_of(folder.url) in S3_SCHEMES:
        for begin in range(0, len(paths), _AT_ONCE):
            _delete_objects(folder, paths[begin : begin + _AT_ONCE])
        return
    for path in paths:
        with suppress(FileNotFoundError):  # another run was faster
            folder.filesystem.delete_file(path)


def _delete_objects(folder: Folder, paths: Sequence[str]) -> None:
    # Not s3fs' own `rm`: it takes brackets in a key for a glob, and says nothing of keys that S3 refused to delete.
    bucket = paths[0].partition("/")[0]
    objects = [{"Key": path.partition("/")[2]} for path in paths]
    answer = folder.filesystem.handler.fs.call_s3(
        "delete_objects", Bucket=bucket, Delete={"Objects": objects, "Quiet": True}
    )
    for fault in answer.get("Errors", []):
        raise OSError(": ".join(filter(None, (fault.get("Code"), fault.get("Message"), fault.get("Key")))))
