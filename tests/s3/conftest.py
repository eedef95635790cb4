"""S3 servers on 127.0.0.1: moto, and Ceph where it is installed."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.config import Config

from crawler.stores import Adapter, ObjectStore, open_store
from tests.s3.ceph import Ceph
from tests.s3.proxy import Proxy
from tests.stores.suite import Backing


@dataclass(frozen=True)
class S3Server:
    """A running server, and keys that own everything on it."""

    kind: str
    endpoint: str
    key: str
    secret: str
    client: Any

    @property
    def options(self) -> dict[str, Any]:
        return {"endpoint_url": self.endpoint, "key": self.key, "secret": self.secret}

    def bucket(self) -> str:
        """Make a bucket of a new name."""
        name = f"b{uuid.uuid4().hex[:16]}"
        self.client.create_bucket(Bucket=name)
        return name

    def backing(self, store: ObjectStore) -> Backing:
        """Return a new bucket as the behaviour suite wants it."""
        bucket = self.bucket()
        return Backing(store, f"s3://{bucket}", lambda name, data: self.put(bucket, name, data), encoded=False)

    def put(self, bucket: str, key: str, data: bytes) -> str:
        """Put an object, and return its ETag."""
        return str(self.client.put_object(Bucket=bucket, Key=key, Body=data)["ETag"])


def made(kind: str, endpoint: str, key: str, secret: str) -> S3Server:
    # Not every small object that a test puts needs a checksum of its own.
    config = Config(request_checksum_calculation="when_required", response_checksum_validation="when_required")
    client = botocore.session.Session().create_client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=key,
        aws_secret_access_key=secret,
        region_name="us-east-1",
        config=config,
    )
    return S3Server(kind, endpoint, key, secret, client)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Take every key and setting of whoever runs the tests away: nothing may leave 127.0.0.1."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "FSSPEC_S3_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - a second that other tests need not wait for

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield made("moto", f"http://{host}:{port}", "moto-key", "moto-secret")
    finally:
        server.stop()


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ceph]:
    """Ceph, where it is installed; where it must be, as in CI, not having it is a failure."""
    if missing := Ceph.missing():
        said = f"Ceph is not installed ({', '.join(missing)}): run .ci/ceph-install"
        if os.environ.get("CI") == "true" and os.environ.get("CRAWLER_REQUIRE_CEPH") == "1":
            pytest.fail(said)
        pytest.skip(said)
    with Ceph(tmp_path_factory.mktemp("ceph") / "cluster") as ceph:
        yield ceph


@pytest.fixture(scope="session")
def ceph(gateway: Ceph) -> S3Server:
    return made("ceph", gateway.endpoint, *gateway.users["owner"])


@pytest.fixture(params=["moto", "ceph"])
def server(request: pytest.FixtureRequest) -> S3Server:
    """Each server in turn."""
    found: S3Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=["obstore", "fsspec"])
def adapter(request: pytest.FixtureRequest) -> Adapter:
    name: Adapter = request.param
    return name


@pytest.fixture(scope="session")
def opened() -> Callable[[S3Server, Adapter], ObjectStore]:
    """One store for all tests that need none of their own: making one takes a tenth of a second."""
    stores: dict[tuple[str, Adapter], ObjectStore] = {}

    def open_once(server: S3Server, adapter: Adapter) -> ObjectStore:
        key = server.kind, adapter
        if key not in stores:
            stores[key] = open_store("s3", server.options, adapter=adapter)
        return stores[key]

    return open_once


@pytest.fixture
def proxy(server: S3Server) -> Iterator[Proxy]:
    """What stands between the store under test and each server."""
    with Proxy(server.endpoint) as proxy:
        yield proxy
