"""Deleting many files of a catalogue's folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from crawler.stores.storage import Folder
from crawler.stores.urls import S3_SCHEMES, scheme_of

_AT_ONCE = 1000  # keys that one request deletes (DeleteObjects, Amazon S3 API Reference)


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
