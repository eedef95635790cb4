"""Credentials as botocore finds and renews them, in the form that obstore asks for."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import fsspec.asyn
from botocore.credentials import RefreshableCredentials

# For how long obstore may keep credentials that renew themselves. It asks again 5 minutes before what it is told;
# botocore renews 15 minutes before they expire, so that those that it gives have 10 minutes at least, unless they were
# made for less.
_KEPT = timedelta(minutes=10)


class Credentials:
    """What obstore calls for credentials, whenever those it has are about to expire.

    Parameters
    ----------
    loop : event loop or None
    source : tuple or credentials of aiobotocore
        Key id, secret and token, or what renews itself on ``loop``.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop | None, source: Any) -> None:
        self._loop = loop
        self._source = source

    def __call__(self) -> dict[str, Any]:
        """Return credentials that are good for some minutes at least."""
        if self._loop is None:
            key, secret, token = self._source
            expires = None
        else:
            frozen = fsspec.asyn.sync(self._loop, self._source.get_frozen_credentials)
            key, secret, token = frozen.access_key, frozen.secret_key, frozen.token
            expires = _expiry(self._source)
        return {"access_key_id": key, "secret_access_key": secret, "token": token, "expires_at": expires}


def _expiry(source: Any) -> datetime | None:
    if not isinstance(source, RefreshableCredentials):
        return None
    kept = datetime.now(UTC) + _KEPT
    expires = getattr(source, "_expiry_time", None)  # which botocore tells in no other way
    return min(kept, expires.astimezone(UTC)) if isinstance(expires, datetime) else kept
