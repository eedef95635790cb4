"""Compressed files: told by their content, read forward, in bounded memory.

Sans I/O like the walker: a `Decompressor` is fed compressed bytes and gives decompressed ones, a step at a time. Each
step is bounded in time and memory, whatever the bytes are, so that the caller can stop between two of them.
gzip (RFC 1952, with several members one after the other) and bzip2 (also several streams) are read; other
compressions are recognised, so that their rows can say what they are.
"""

from __future__ import annotations

import bz2
import zlib
from typing import Any

from crawler.errors import CorruptError, TruncatedError

MAGIC_BYTES = 6
"""How many first bytes of a file `sniff` looks at."""

MAX_STREAM_BYTES = 64 * 2**30
"""Decompressed bytes of one file after which it is given up: the largest real FITS cubes have 44 GB, and a bomb of
1 GB of gzip holds 1 TB. Memory never grows with either; this bounds the time."""

READABLE = ("gzip", "bzip2")
"""Compressions that a `Decompressor` can be made for."""

_MAGIC = (
    (b"\x1f\x8b", "gzip"),  # RFC 1952, section 2.3.1
    (b"BZh", "bzip2"),
    (b"\x1f\x9d", "compress"),  # LZW, .Z
    (b"\x1f\xa0", "compress"),  # LZH, also .Z
    (b"\x1f\x1e", "pack"),  # .z
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"PK\x03\x04", "zip"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
)

_STEP = 2**20  # decompressed bytes at most that one call gives
# Compressed bytes at a time that a member is given. zlib copies what it could not use on every call. bz2 loses what it
# made of the bite that holds a fault, and cannot be put back to before it, so its bites are small.
_BITES = {"gzip": 2**16, "bzip2": 2**12}


def sniff(head: bytes) -> str | None:
    """Return the name of the compression that a file's first bytes show; None for none.

    Parameters
    ----------
    head : bytes
        At least `MAGIC_BYTES`, or the whole file.
    """
    return next((name for magic, name in _MAGIC if head.startswith(magic)), None)


class Decompressor:
    """A compressed stream, fed forward.

    Parameters
    ----------
    compression : {'gzip', 'bzip2'}
    max_bytes : int
        Decompressed bytes after which the stream is given up.

    Attributes
    ----------
    consumed : int
        Compressed bytes that were fed.
    produced : int
        Decompressed bytes that were given.
    """

    def __init__(self, compression: str, max_bytes: int = MAX_STREAM_BYTES) -> None:
        self._compression = compression
        self._max_bytes = max_bytes
        self._magic = next(magic for magic, name in _MAGIC if name == compression)
        self._member: Any = self._new_member()
        self._bite = _BITES[compression]
        self._waiting = b""  # fed, and from self._at on not yet decompressed
        self._at = 0
        self._hungry = True  # the member gave all it can of what it was given
        self._ended = False
        self.consumed = 0
        self.produced = 0

    def feed(self, data: bytes) -> None:
        """Take the next compressed bytes. What follows the last member is ignored, as gzip and bzip2 do."""
        self.consumed += len(data)
        if not self._ended:
            self._waiting = self._waiting[self._at :] + data
            self._at = 0

    def read(self) -> bytes | None:
        """Do one step, and return the decompressed bytes that come of it.

        Returns
        -------
        bytes or None
            At most 1 MiB. Empty where this step gave none and another one may: a member ended, or padding was passed.
            None where more must be fed first.

        Raises
        ------
        CorruptError
            The stream is damaged, or holds more than ``max_bytes``. The offset is one of the compressed file.
        """
        if self._ended:
            return None
        if self._member.eof:
            return b"" if self._next_member() else None
        if self._hungry and self._at == len(self._waiting):
            return None
        data = self._decompress()
        self.produced += len(data)
        if self.produced > self._max_bytes:
            raise CorruptError(f"decompresses to more than {self._max_bytes} bytes", self._fed_at)
        return data

    def finish(self) -> None:
        """Say that no more bytes will come, after `read` gave None, and check that the stream is complete.

        Raises
        ------
        TruncatedError
            It ends inside a member. The offset is one of the compressed file.
        """
        if not (self._ended or self._member.eof):
            raise TruncatedError(f"{self._compression} stream ends early", self.consumed)
        self._ended = True

    @property
    def _fed_at(self) -> int:
        """Compressed bytes that a member has taken, or looked at last."""
        return self.consumed - len(self._waiting) + self._at

    def _new_member(self) -> Any:
        if self._compression == "gzip":
            return zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
        return bz2.BZ2Decompressor()

    def _decompress(self) -> bytes:
        """Give the member its next bite and return what comes of it, which may be nothing."""
        bite = self._waiting[self._at : self._at + self._bite]
        before = self._member.copy() if self._compression == "gzip" else None
        try:
            data: bytes = self._member.decompress(bite, _STEP)
        except (zlib.error, OSError, EOFError, ValueError) as error:
            if before is not None and len(bite) > 1:
                # What zlib made of the bite before it met the fault is lost with the call: go back, and come up to
                # the fault in ever smaller bites.
                self._member, self._bite = before, len(bite) // 2
                return b""
            raise CorruptError(f"{self._compression} stream is damaged: {error}", self._fed_at) from None
        unused = self._member.unused_data
        if not self._member.eof and self._compression == "gzip":
            unused = self._member.unconsumed_tail  # zlib hands back what did not fit; bz2 keeps it
        self._at += len(bite) - len(unused)
        self._hungry = len(data) < _STEP
        return data

    def _next_member(self) -> bool:
        """Begin the next member if one follows; False where that needs more bytes, or none follows."""
        while self._at < len(self._waiting) and self._waiting[self._at] == 0:
            self._at += 1  # tapes and some writers pad with NULs
        head = self._waiting[self._at : self._at + len(self._magic)]
        if head == self._magic:
            self._member = self._new_member()
            self._hungry = True
            return True
        if not self._magic.startswith(head):
            self._ended = True
        return False
