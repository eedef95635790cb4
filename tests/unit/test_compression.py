"""Compressed streams: what they are told by, what they give, whole and damaged, and how much memory they take."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from crawler.errors import CorruptError, FormatError, TruncatedError
from crawler.fits.compression import MAGIC_BYTES, READABLE, Decompressor, sniff
from tests.fits_files import MiB

NOISE = random.Random(5).randbytes(300_000)


def case(name: str, *values: Any) -> Any:
    return pytest.param(*values, id=name)


def pack_gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


PACK: dict[str, Callable[[bytes], bytes]] = {"gzip": pack_gzip, "bzip2": bz2.compress}


def chunks(decompressor: Decompressor, data: bytes, feed: int) -> Iterator[bytes]:
    for at in range(0, len(data), feed):
        decompressor.feed(data[at : at + feed])
        while (chunk := decompressor.read()) is not None:
            yield chunk
    decompressor.finish()


def decompress(compression: str, data: bytes, feed: int = 65536, **options: int) -> tuple[bytes, FormatError | None]:
    """Return what comes before a fault, and the fault."""
    found = []
    try:
        for chunk in chunks(Decompressor(compression, **options), data, feed):
            found.append(chunk)
    except FormatError as fault:
        return b"".join(found), fault
    return b"".join(found), None


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        case("gzip", pack_gzip(b"x"), "gzip"),
        case("bzip2", bz2.compress(b"x"), "bzip2"),
        case("compress", b"\x1f\x9d\x90abc", "compress"),
        case("compress, LZH", b"\x1f\xa0\x90abc", "compress"),
        case("pack", b"\x1f\x1eabcd", "pack"),
        case("xz", lzma.compress(b"x"), "xz"),
        case("zstd", b"\x28\xb5\x2f\xfdab", "zstd"),
        case("lz4", b"\x04\x22\x4d\x18ab", "lz4"),
        case("zip", b"PK\x03\x04ab", "zip"),
        case("7z", b"7z\xbc\xaf\x27\x1c", "7z"),
        case("FITS", b"SIMPLE  =", None),
        case("empty", b"", None),
        case("first byte of gzip", b"\x1f", None),
        case("magic later on", b"\0\x1f\x8b", None),
    ],
)
def test_sniff(head: bytes, expected: str | None) -> None:
    assert sniff(head) == sniff(head[:MAGIC_BYTES]) == expected


@pytest.mark.parametrize("feed", [1, 7, 4096, 10**9], ids="feeds of {}".format)
@pytest.mark.parametrize("data", [b"", b"x", b"FITS" * 5000, NOISE[:20_000]], ids=["none", "one", "text", "noise"])
@pytest.mark.parametrize("compression", READABLE)
def test_whole_stream(compression: str, data: bytes, feed: int) -> None:
    assert decompress(compression, PACK[compression](data), feed) == (data, None)


@pytest.mark.parametrize("feed", [1, 5, 10**9], ids="feeds of {}".format)
@pytest.mark.parametrize(
    ("tail", "expected"),
    [
        case("another member", "member", b"second"),
        case("NULs, another member", "nuls member", b"second"),
        case("an empty member", "empty", b""),
        case("NULs", "nuls", b""),
        case("garbage", "garbage", b""),
        case("NULs, garbage", "nuls garbage", b""),
        case("garbage, another member", "garbage member", b""),
        case("first byte of another member", "cut magic", b""),
    ],
)
@pytest.mark.parametrize("compression", READABLE)
def test_after_the_first_member(compression: str, tail: str, expected: bytes, feed: int) -> None:
    pack = PACK[compression]
    parts = {"nuls": b"\0" * 1000, "garbage": b"garbage", "member": pack(b"second"), "empty": pack(b"")}
    parts |= {"cut": pack(b"x")[:1], "magic": b""}
    data = pack(b"first") + b"".join(parts[part] for part in tail.split())
    assert decompress(compression, data, feed) == (b"first" + expected, None)


@pytest.mark.parametrize("compression", READABLE)
def test_many_members(compression: str) -> None:
    pieces = [NOISE[at : at + 1000] for at in range(0, 100_000, 1000)]
    data = b"".join(map(PACK[compression], pieces))
    assert decompress(compression, data) == (NOISE[:100_000], None)


@pytest.mark.parametrize("feed", [1, 10**9], ids="feeds of {}".format)
@pytest.mark.parametrize("cut", [3, 9, 500, -1], ids=["in the magic", "in the head", "in the middle", "in the trailer"])
@pytest.mark.parametrize("compression", READABLE)
def test_stream_that_ends_early(compression: str, cut: int, feed: int) -> None:
    data = PACK[compression](NOISE[:2000])[:cut]
    found, fault = decompress(compression, data, feed)
    assert NOISE.startswith(found)
    assert type(fault) is TruncatedError
    assert str(fault) == f"{compression} stream ends early (byte {len(data)})"


@pytest.mark.parametrize("compression", READABLE)
def test_second_member_that_ends_early(compression: str) -> None:
    pack = PACK[compression]
    found, fault = decompress(compression, pack(b"first") + pack(NOISE[:2000])[:-1])
    assert found.startswith(b"first")
    assert type(fault) is TruncatedError


@pytest.mark.parametrize("feed", [1, 1000, 10**9], ids="feeds of {}".format)
def test_damaged_crc_of_gzip(feed: int) -> None:
    data = bytearray(pack_gzip(NOISE[:200_000]))
    data[-8] ^= 1  # CRC32, then ISIZE (RFC 1952, section 2.3.1)
    found, fault = decompress("gzip", bytes(data), feed)
    assert found == NOISE[:200_000]  # whatever the feeds: what came before the check is given first
    assert type(fault) is CorruptError
    # At the last byte of the CRC; feeds of one byte are decompressed one by one too.
    assert str(fault).startswith("gzip stream is damaged: ")
    assert fault.offset == len(data) - 5


def test_damaged_length_of_gzip() -> None:
    data = bytearray(pack_gzip(b"text" * 1000))
    data[-1] ^= 1
    found, fault = decompress("gzip", bytes(data))
    assert (found, type(fault)) == (b"text" * 1000, CorruptError)


@pytest.mark.parametrize("feed", [1, 10**9], ids="feeds of {}".format)
def test_damaged_middle_of_gzip(feed: int) -> None:
    # A block of the reserved type 3 (RFC 1951, section 3.2.3) after whole ones.
    packer = zlib.compressobj(wbits=-15)
    body = packer.compress(NOISE[:100_000]) + packer.flush(zlib.Z_FULL_FLUSH)
    head = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    found, fault = decompress("gzip", head + body + b"\x07" + NOISE, feed)
    assert found == NOISE[:100_000]
    assert type(fault) is CorruptError
    assert str(fault).startswith("gzip stream is damaged: ")
    assert fault.offset == len(head) + len(body)
    assert str(fault).isprintable()


def test_damaged_block_of_bzip2() -> None:
    data = bytearray(bz2.compress(NOISE, compresslevel=1))  # blocks of 100 kB
    data[-len(data) // 8] ^= 1  # in the last block
    found, fault = decompress("bzip2", bytes(data))
    assert NOISE.startswith(found)
    assert len(found) > 190_000
    assert type(fault) is CorruptError
    assert str(fault).startswith("bzip2 stream is damaged: Invalid data stream (byte ")


def test_damaged_head_of_gzip() -> None:
    found, fault = decompress("gzip", b"\x1f\x8b\x07" + bytes(20))
    assert (found, type(fault)) == (b"", CorruptError)


def bomb(compression: str, megabytes: int) -> bytes:
    """Return zeros, compressed in members of 20 MB."""
    return PACK[compression](b"\0" * 20 * MiB) * (megabytes // 20)


@pytest.mark.parametrize("compression", READABLE)
def test_a_bomb_is_given_up(compression: str) -> None:
    found, fault = decompress(compression, bomb(compression, 100), max_bytes=10 * MiB)
    assert isinstance(fault, CorruptError)
    assert fault.reason == f"decompresses to more than {10 * MiB} bytes"
    assert 9 * MiB < len(found) <= 10 * MiB


def test_as_many_bytes_as_are_allowed() -> None:
    data = pack_gzip(NOISE[:5000])
    assert decompress("gzip", data, max_bytes=5000) == (NOISE[:5000], None)
    found, fault = decompress("gzip", data, max_bytes=4999)
    assert (found, type(fault)) == (b"", CorruptError)


@pytest.mark.parametrize(("compression", "bound"), [("gzip", 4 * MiB), ("bzip2", 12 * MiB)])
def test_a_bomb_is_read_in_bounded_memory(compression: str, bound: int) -> None:
    data = bomb(compression, 200)
    total = largest = 0
    tracemalloc.start()
    try:
        for chunk in chunks(Decompressor(compression), data, MiB):
            total += len(chunk)
            largest = max(largest, len(chunk))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert total == 200 * MiB
    assert largest <= MiB
    assert peak < bound


@pytest.mark.parametrize("tail", ["members", "nuls"])
@pytest.mark.parametrize("compression", READABLE)
def test_each_step_ends_where_nothing_comes_of_the_bytes(compression: str, tail: str) -> None:
    """A stream of empty members is many steps, and none of them waits for bytes that may never come."""
    pack = PACK[compression]
    data = pack(b"first") + (pack(b"") * 50_000 if tail == "members" else bytes(MiB)) + pack(b"last")
    decompressor = Decompressor(compression)
    decompressor.feed(data)
    steps = list(iter(decompressor.read, None))
    assert b"".join(steps) == b"firstlast"
    assert len(steps) > (50_000 if tail == "members" else 2)
    decompressor.finish()


def test_counts() -> None:
    data = pack_gzip(NOISE[:5000])
    decompressor = Decompressor("gzip")
    decompressor.feed(data + b"garbage")
    assert decompressor.read() == NOISE[:5000]
    assert decompressor.read() is None
    assert (decompressor.consumed, decompressor.produced) == (len(data) + 7, 5000)
