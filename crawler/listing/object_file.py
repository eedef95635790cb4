"""An object as a file to read."""

from __future__ import annotations

import io

from crawler.stores import ByteRange, ObjectRef, ObjectStore


class ObjectFile(io.RawIOBase):
    """Reads an object by range, pinned: one that changes under way is an error.

    Parameters
    ----------
    store : ObjectStore
    url : str

    Attributes
    ----------
    size : int
        Bytes.

    Raises
    ------
    StoreError
        Here, and where it is read: it cannot be.
    """

    def __init__(self, store: ObjectStore, url: str) -> None:
        super().__init__()
        self._store = store
        ref = store.head(url)
        self._ref: ObjectRef = store.get(ref, ByteRange(0, 1)).ref if ref.size is None else ref
        self.size = self._ref.size or 0
        self._at = 0

    def readable(self) -> bool:
        """Tell that it can be read."""
        return True

    def seekable(self) -> bool:
        """Tell that it can be read from anywhere."""
        return True

    def tell(self) -> int:
        """Return the byte that is read next."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Read on from another byte."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self.size}[whence]
        self._at = start + offset
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """Read so many bytes, or to the end; fewer at the end."""
        left = max(0, self.size - self._at)
        wanted = left if size is None or size < 0 else min(size, left)
        if not wanted:
            return b""
        data = self._store.get(self._ref, ByteRange(self._at, self._at + wanted)).data
        self._at += len(data)
        return data

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # what io calls it with
        """Read into a buffer; return how many bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
