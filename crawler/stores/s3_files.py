"""The file system of a catalogue on S3: s3fs, with errors that are all of one kind."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import BotoCoreError
from s3fs import S3FileSystem

from crawler.stores.urls import one_line


class S3Files(S3FileSystem):  # type: ignore[misc] # s3fs is untyped
    """s3fs that raises `OSError` for everything, as a file system should.

    s3fs translates what S3 answers. What never gets an answer, because no credentials are found or nothing listens at
    the endpoint, it leaves as botocore raised it.
    """

    async def _call_s3(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super()._call_s3(*args, **kwargs)
        except BotoCoreError as error:
            raise OSError(one_line(str(error))) from None
