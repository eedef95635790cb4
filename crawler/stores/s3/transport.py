"""What carries the requests of aiobotocore, with limits on what comes back."""

from __future__ import annotations

import asyncio
from typing import Any

import botocore.exceptions as bc
from aiobotocore.httpsession import AIOHTTPSession

ERROR_BYTES = 2**20
"""Bytes of an answer that says why not, at most."""

ANSWER_BYTES = 16 * 2**20
"""Bytes of an answer that is no object, at most: a page of 1,000 keys has 4 MB where each is as long as it may be."""


class OverlongAnswerError(bc.BotoCoreError):  # type: ignore[misc] # botocore is untyped
    """An answer has more bytes than are wanted."""

    fmt = "answer has more than {limit} bytes"


class LimitedSession(AIOHTTPSession):  # type: ignore[misc] # aiobotocore is untyped
    """aiobotocore's own session, but it follows no redirects, reads no endless answers, and ends in time.

    aiohttp would follow redirects with the session token of the credentials, and believe what the other server sends.
    botocore reads redirects by itself: where one means another region, it signs for that one.

    Parameters
    ----------
    total_seconds : float
        Of one request, until its headers are there; of one that is no object, body included.
    """

    def __init__(self, *args: Any, total_seconds: float, **named: Any) -> None:
        super().__init__(*args, **named)
        self._total_seconds = total_seconds

    async def _get_session(self, proxy_url: str | None) -> Any:
        # The one place that aiobotocore has for the options of aiohttp's requests.
        return _NoRedirects(await super()._get_session(proxy_url))

    async def send(self, request: Any) -> Any:
        """Send one request."""
        is_streamed = request.stream_output
        request.stream_output = True  # the body is not read there, but here
        try:
            async with asyncio.timeout(self._total_seconds):
                answer = await super().send(request)
                answer.raw = _Limited(answer.raw, ANSWER_BYTES if answer.status_code < 300 else ERROR_BYTES)
                if not is_streamed or answer.status_code >= 300:
                    await answer.content
                return answer
        except TimeoutError as error:
            raise bc.ReadTimeoutError(endpoint_url=request.url, error=error) from None
        finally:
            request.stream_output = is_streamed


class _NoRedirects:
    """A session of aiohttp that follows no redirects."""

    def __init__(self, session: Any) -> None:
        self._session = session

    async def request(self, *args: Any, **named: Any) -> Any:
        """Send a request."""
        return await self._session.request(*args, **named, allow_redirects=False)


class _Limited:
    """An answer of aiohttp of which `read` reads so many bytes at most."""

    def __init__(self, answer: Any, limit: int) -> None:
        self._answer = answer
        self._limit = limit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._answer, name)

    async def read(self) -> bytes:
        """Read the body."""
        try:
            body = await read_limited(self._answer.content, self._limit)
        except OverlongAnswerError:
            self._answer.close()
            raise
        self._answer.release()
        return body


async def read_limited(stream: Any, limit: int) -> bytes:
    """Read a stream to its end.

    Raises
    ------
    OverlongAnswerError
        It has more bytes than ``limit``.
    """
    pieces, left = [], limit + 1
    while left and (piece := await stream.read(left)):
        pieces.append(piece)
        left -= len(piece)
    if not left:
        raise OverlongAnswerError(limit=limit)
    return b"".join(pieces)
