"""An S3 on loopback that holds nothing: pages of ListObjectsV2 are computed from numbers, of millions of keys.

    python -m tests.benchmarks.key_server

prints its port, and serves until its standard input is closed. Buckets are ``flat-N`` and ``folders-N``, of N keys; in
``flat-N-100`` a page takes 100 ms to its first byte.
"""

from __future__ import annotations

import asyncio
import sys
from bisect import bisect_right
from collections.abc import Callable
from urllib.parse import parse_qs, unquote, urlsplit

_PAGE = 1_000
_TAIL = (
    "</Key><LastModified>2023-11-14T22:13:20.000Z</LastModified><ETag>&quot;9b2cf535f27731c974343645a3985328&quot;"
    "</ETag><Size>4158720</Size><StorageClass>STANDARD</StorageClass></Contents><Contents><Key>"
)


def flat(number: int) -> str:
    """Return a key of a bucket without folders."""
    return f"img_{number:08}.fits"


def in_folders(number: int) -> str:
    """Return a key as surveys lay them out, in the order of the numbers: 25 a night, nights of years that differ."""
    night, exposure = divmod(number, 25_000)
    year, day = divmod(night, 200)
    return f"survey/raw/{2003 + year}/{1 + day // 17:02}/{1 + day % 17:02}/exp_{exposure:06}.fits"


_LAYOUTS: dict[str, Callable[[int], str]] = {"flat": flat, "folders": in_folders}


class _Numbers:
    """Keys as a sequence, to be searched."""

    def __init__(self, key: Callable[[int], str], count: int) -> None:
        self._key, self._count = key, count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: int) -> str:
        return self._key(number)


def page(bucket: str, asked: dict[str, str]) -> bytes:
    """Return the body of a page."""
    layout, count = bucket.split("-")[:2]
    key, keys = _LAYOUTS[layout], int(count)
    if "continuation-token" in asked:
        begin = int(asked["continuation-token"])
    else:
        begin = bisect_right(_Numbers(key, keys), asked["start-after"]) if "start-after" in asked else 0
    end = min(begin + _PAGE, keys)
    token = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < keys else ""
    contents = _TAIL.join([key(number) for number in range(begin, end)])
    entries = f"<Contents><Key>{contents}{_TAIL.removesuffix('<Contents><Key>')}" if end > begin else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<Name>{bucket}</Name><EncodingType>url</EncodingType><IsTruncated>{str(bool(token)).lower()}</IsTruncated>"
        f"{token}{entries}</ListBucketResult>"
    ).encode()


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            parts = urlsplit(head.split(b" ", 2)[1].decode())
            bucket = unquote(parts.path).strip("/")
            if len(told := bucket.split("-")) == 3:
                await asyncio.sleep(int(told[2]) / 1e3)
            body = page(bucket, {name: values[0] for name, values in parse_qs(parts.query).items()})
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n" % len(body) + body
            )
            await writer.drain()
    except (
        asyncio.CancelledError,
        asyncio.IncompleteReadError,
        ConnectionError,
    ):  # the client hangs up, or all is over
        pass
    finally:
        writer.close()


async def _main() -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    server.close()


if __name__ == "__main__":
    asyncio.run(_main())
