"""The file system of a catalogue on S3: s3fs, with errors that are all of one kind."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from botocore.exceptions import BotoCoreError
from s3fs import S3FileSystem

from crawler.errors import StoreUnavailableError
from crawler.stores.s3.errors import Asked, at_endpoint, from_botocore


class S3Files(S3FileSystem):  # type: ignore[misc] # s3fs is untyped
    """s3fs that raises `OSError` for everything, as a file system should.

    s3fs translates what S3 answers. What never gets an answer, because no credentials are found or nothing listens at
    the endpoint, it leaves as botocore raised it; the error says what to do, as those of other reads from S3 do.

    Parameters
    ----------
    environment : str
        Of `environment_token`. fsspec keeps file systems by their arguments: one whose session found no credentials
        must not serve a caller who has set some since.
    **kwargs
        As of `s3fs.S3FileSystem`.
    """

    def __init__(self, *, environment: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.environment = environment

    async def _call_s3(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super()._call_s3(*args, **kwargs)
        except (BotoCoreError, ValueError) as error:
            mapped = from_botocore(f"s3://{kwargs.get('Bucket') or ''}", error, Asked(bool(self.anon), False))
            if isinstance(mapped, StoreUnavailableError) and self._s3 is not None:
                mapped = at_endpoint(mapped, str(self._s3.meta.endpoint_url))
            raise OSError(mapped.reason) from None


def environment_token() -> str:
    """Return a name for the variables of the environment that AWS tools read; their values cannot be had from it."""
    variables = sorted(item for item in os.environ.items() if item[0].startswith("AWS_"))
    return hashlib.sha256(repr(variables).encode("utf-8", "surrogateescape")).hexdigest()
