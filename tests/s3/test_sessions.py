"""Sessions of Ceph that last for seconds, as those of an observatory's login last for hours."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from crawler import index
from crawler.catalogue.reader import Catalogue
from crawler.cluster import local_client
from tests.fits_files import image_hdu
from tests.s3.ceph import SESSIONS_FIRST, Ceph
from tests.s3.conftest import S3Server
from tests.s3.proxy import PassOn, Proxy
from tests.servers import Answer, Handler, Request, Server
from tests.unit.test_cli import Run, commands

REGION = "us-east-1"
SECONDS = 60.0  # in which a session of one second must have ended


@pytest.fixture
def crawler(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return commands(monkeypatch, capsys, tmp_path)


@pytest.fixture(scope="module")
def reader(gateway: Ceph) -> str:
    """Make a role that its owner may take on, and that may read; return its name."""
    trusted = {"Effect": "Allow", "Principal": {"AWS": ["arn:aws:iam:::user/owner"]}, "Action": ["sts:AssumeRole"]}
    may = {"Effect": "Allow", "Action": ["s3:*"], "Resource": "arn:aws:s3:::*"}
    trust, policy = (json.dumps({"Version": "2012-10-17", "Statement": [one]}) for one in (trusted, may))
    name = f"reader-{uuid.uuid4().hex[:8]}"
    gateway.administer("role", "create", f"--role-name={name}", "--path=/", f"--assume-role-policy-doc={trust}")
    gateway.administer("role-policy", "put", f"--role-name={name}", "--policy-name=may", f"--policy-doc={policy}")
    return name


def session(ceph: S3Server, role: str, seconds: int) -> dict[str, str]:
    """Begin a session ("AssumeRole", AWS Security Token Service API Reference)."""
    sts = client(ceph, "sts", {"key": ceph.key, "secret": ceph.secret})
    arn = f"arn:aws:iam:::role/{role}"
    made = sts.assume_role(RoleArn=arn, RoleSessionName="session", DurationSeconds=seconds)["Credentials"]
    return {"key": made["AccessKeyId"], "secret": made["SecretAccessKey"], "token": made["SessionToken"]}


def client(ceph: S3Server, service: str, who: Mapping[str, str]) -> Any:
    return botocore.session.Session().create_client(
        service,
        endpoint_url=ceph.endpoint,
        region_name=REGION,
        aws_access_key_id=who["key"],
        aws_secret_access_key=who["secret"],
        aws_session_token=who.get("token"),
        config=Config(parameter_validation=False),  # botocore refuses sessions below 15 minutes
    )


def flags(ceph: S3Server, who: Mapping[str, str]) -> list[str]:
    given = [word for name, value in who.items() for word in ("--storage-option", f"{name}={value}")]
    return ["--endpoint-url", ceph.endpoint, "--region", REGION, *given]


@pytest.mark.parametrize("workers", [0, 1], ids=["in process", "on a worker"])
def test_a_session_reads(crawler: Run, ceph: S3Server, reader: str, workers: int) -> None:
    bucket = ceph.bucket()
    ceph.put(bucket, "a.fits", image_hdu((10,)))

    ended = crawler(
        "index", f"s3://{bucket}/", "-c", "made", "--workers", workers, *flags(ceph, session(ceph, reader, 900))
    )

    assert (ended.code, ended.told) == (0, "")
    assert Catalogue("made").sql("SELECT status FROM files").to_pylist() == [{"status": "ok"}]


@pytest.fixture(scope="module")
def as_it_comes(gateway: Ceph) -> str:
    """Return the endpoint of a gateway that looks for sessions first, as Ceph comes."""
    return gateway.also(SESSIONS_FIRST)


def until_refused(ceph: S3Server, bucket: str, who: Mapping[str, str]) -> None:
    """Wait until the server itself takes a session no more."""
    mine = client(ceph, "s3", who)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            mine.list_objects_v2(Bucket=bucket)
        except ClientError:
            return
    pytest.fail("it never expires")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        pytest.param("keys first", "access key id is not known to this store", id="keys-first"),
        pytest.param("sessions first", "listing not allowed (403 AccessDenied)", id="sessions-first"),
    ],
)
def test_one_that_has_expired_is_one_line(
    crawler: Run, ceph: S3Server, reader: str, as_it_comes: str, kind: str, said: str
) -> None:
    server = ceph if kind == "keys first" else replace(ceph, endpoint=as_it_comes)
    bucket = ceph.bucket()
    ceph.put(bucket, "a.fits", image_hdu((10,)))
    who = session(server, reader, 1)
    until_refused(server, bucket, who)

    ended = crawler("index", f"s3://{bucket}/", "-c", "made", "--workers", 0, *flags(server, who))

    assert (ended.code, ended.out) == (1, "")
    assert f"cannot list s3://{bucket}/: {said}" in ended.fault
    if kind == "sessions first":  # that it has expired is not said
        assert "if the session has expired, begin a new one" in ended.fault
    assert not any(secret in ended.err for secret in who.values())
    assert not Path("made").exists()


class _Mint(Handler):
    def answer(self) -> None:
        owner = self.server.owner
        made = owner.begin()
        owner.sessions.append(made)
        expires = (datetime.now(UTC) + timedelta(seconds=owner.seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
        told = {"AccessKeyId": made["key"], "SecretAccessKey": made["secret"], "Token": made["token"]}
        body = json.dumps({**told, "Expiration": expires}).encode()
        self.send(200, body, {"Content-Type": "application/json"})


class Mint:
    """What a container asks for credentials: a session of a few seconds each time ("Container credential provider",
    AWS SDKs and Tools Reference Guide).

    Attributes
    ----------
    sessions : list of dict
        Those that were given.
    """

    def __init__(self, begin: Callable[[], dict[str, str]], seconds: int) -> None:
        self.begin, self.seconds = begin, seconds
        self.sessions: list[dict[str, str]] = []
        self.requests: list[Request] = []
        self.answered: list[Answer] = []

    def __enter__(self) -> Mint:
        self._server = Server(self, _Mint).__enter__()
        self.origin = self._server.origin
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()


class _Hold(PassOn):
    def send(self, *args: Any, **kwargs: Any) -> None:
        if len(self.server.owner.requests) == self.server.owner.held_at:
            self.server.owner.meanwhile()
        super().send(*args, **kwargs)


class Holding(Proxy):
    """A proxy that does something before it hands over the answer to one of its requests."""

    handler = _Hold

    def __init__(self, upstream: str, held_at: int, meanwhile: Callable[[], None]) -> None:
        super().__init__(upstream)
        self.held_at, self.meanwhile = held_at, meanwhile


@pytest.mark.parametrize("on", ["in process", "on a worker"])
def test_sessions_that_end_in_mid_run_are_renewed_where_they_are_used(
    ceph: S3Server, reader: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on: str
) -> None:
    bucket = ceph.bucket()
    keys = [ceph_key(ceph, bucket, number) for number in range(6)]
    (tmp_path / "keys.txt").write_text("".join(f"s3://{bucket}/{key}\n" for key in keys))  # the driver asks for nothing

    def first_ends() -> None:
        (used,) = (one for one in mint.sessions if one["key"] == signer(proxy.requests[-1]))
        until_refused(ceph, bucket, used)

    with (
        Mint(lambda: session(ceph, reader, 4), 4) as mint,
        Holding(ceph.endpoint, 3, first_ends) as proxy,
        contextlib.ExitStack() as stack,
    ):
        environment = {"AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{mint.origin}/"}
        workers = None
        if on == "on a worker":
            workers = stack.enter_context(local_client(1, env=environment))
        else:
            monkeypatch.setenv(*next(iter(environment.items())))
        report = index(
            f"@{tmp_path / 'keys.txt'}",
            str(tmp_path / "made"),
            storage_options={"endpoint_url": proxy.origin, "client_kwargs": {"region_name": REGION}},
            concurrency=1,
            client=workers,
        )

    assert report.walked == {"ok": len(keys)}
    signers = [signer(one) for one in proxy.requests]
    assert len(signers) >= len(keys) > 3
    assert not set(signers[:3]) & set(signers[3:]), "what had ended was used again"


def signer(request: Request) -> str:
    """Return the key id that signed a request."""
    return request.headers["authorization"].partition("Credential=")[2].partition("/")[0]


def ceph_key(ceph: S3Server, bucket: str, number: int) -> str:
    key = f"exp{number:03}.fits"
    ceph.put(bucket, key, image_hdu((10 + number,)))
    return key
