"""The behaviour suite on S3: by obstore and by s3fs, on moto and on Ceph."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from crawler.stores import Adapter, ObjectStore
from tests.s3.conftest import S3Server
from tests.stores.suite import Backing, StoreSuite

Opened = Callable[[S3Server, Adapter], ObjectStore]


class S3Suite(StoreSuite):
    cannot_name = frozenset({"not-utf-8"})
    knows_folders = False


class TestMoto(S3Suite):
    cannot_name = frozenset({"not-utf-8", "newline"})  # moto itself takes no newline in a key

    @pytest.fixture
    def backing(self, moto: S3Server, adapter: Adapter, opened: Opened) -> Backing:
        return moto.backing(opened(moto, adapter))


class TestCeph(S3Suite):
    @pytest.fixture
    def backing(self, ceph: S3Server, adapter: Adapter, opened: Opened) -> Backing:
        return ceph.backing(opened(ceph, adapter))
