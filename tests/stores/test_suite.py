"""The behaviour suite on each implementation."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import obstore.store
import pytest

from crawler.stores import open_store
from crawler.stores.fsspec import FsspecStore
from crawler.stores.http.store import WebStore
from crawler.stores.local import LocalStore
from crawler.stores.obstore import ObstoreStore
from crawler.stores.urls import file_url
from tests.servers import RangeServer
from tests.stores.suite import Backing, StoreSuite

# What object_store's paths cannot be: control characters, other than UTF-8.
UNNAMEABLE = frozenset({"tab", "newline", "not-utf-8"})


def _writer(root: Path) -> Callable[[str, bytes], None]:
    def put(name: str, data: bytes) -> None:
        # Written beside and renamed, so that a replacement has another inode even within one tick of the
        # clock that stamps modification times.
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = root.parent / "beside"
        beside.write_bytes(data)
        os.replace(beside, path)  # noqa: PTH105 - as surrogates are kept

    return put


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "root of it"
    root.mkdir()
    return root


class TestLocalStore(StoreSuite):
    @pytest.fixture
    def backing(self, folder: Path) -> Backing:
        return Backing(LocalStore(), file_url(str(folder)), _writer(folder))


class TestObstoreMemory(StoreSuite):
    cannot_name = UNNAMEABLE
    knows_folders = False

    @pytest.fixture
    def backing(self) -> Backing:
        memory = obstore.store.MemoryStore()
        store = ObstoreStore(memory)
        return Backing(store, "memory://bucket", lambda name, data: put_in(memory, name, data), encoded=False)


def put_in(memory: obstore.store.MemoryStore, name: str, data: bytes) -> None:
    obstore.put(memory, f"bucket/{name}", data)


class TestFsspecLocal(StoreSuite):
    @pytest.fixture
    def backing(self, folder: Path) -> Backing:
        return Backing(open_store("file", adapter="fsspec"), file_url(str(folder)), _writer(folder))


class TestFsspecMemory(StoreSuite):
    cannot_name = frozenset({"not-utf-8"})

    @pytest.fixture
    def backing(self) -> Iterator[Backing]:
        # fsspec's memory is one for the whole process.
        filesystem = fsspec.filesystem("memory")
        top = uuid.uuid4().hex
        yield Backing(
            FsspecStore({}),
            f"memory://{top}",
            lambda name, data: filesystem.pipe_file(f"/{top}/{name}", data),
            encoded=False,
        )
        if filesystem.exists(f"/{top}"):
            filesystem.rm(f"/{top}", recursive=True)


class WebSuite(StoreSuite):
    lists_sizes = False

    @pytest.fixture
    def server(self) -> Iterator[RangeServer]:
        with RangeServer() as server:
            yield server

    @staticmethod
    def backed(server: RangeServer, store: WebStore) -> Backing:
        return Backing(
            store,
            f"{server.origin}/top",
            lambda name, data: server.objects.__setitem__(f"top/{name}", data),
        )


class TestWeb(WebSuite):
    @pytest.fixture
    def backing(self, server: RangeServer) -> Backing:
        store = open_store("http")
        assert isinstance(store, WebStore)
        return self.backed(server, store)


class TestFsspecWeb(WebSuite):
    @pytest.fixture
    def backing(self, server: RangeServer) -> Backing:
        store = open_store("http", adapter="fsspec")
        assert isinstance(store, WebStore)
        return self.backed(server, store)
