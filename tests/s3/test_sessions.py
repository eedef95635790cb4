"""Sessions of Ceph that last for seconds, as those of an observatory's login last for hours."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from crawler.catalogue.reader import Catalogue
from tests.fits_files import image_hdu
from tests.s3.ceph import Ceph
from tests.s3.conftest import S3Server
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
    name = "reader"
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

    assert (ended.code, ended.err) == (0, "")
    assert Catalogue("made").sql("SELECT status FROM files").to_pylist() == [{"status": "ok"}]


def test_one_that_has_expired_is_one_line(crawler: Run, ceph: S3Server, reader: str) -> None:
    bucket = ceph.bucket()
    ceph.put(bucket, "a.fits", image_hdu((10,)))
    who = session(ceph, reader, 1)
    mine = client(ceph, "s3", who)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            mine.list_objects_v2(Bucket=bucket)
        except ClientError:
            break
    else:
        pytest.fail("it never expires")

    ended = crawler("index", f"s3://{bucket}/", "-c", "made", "--workers", 0, *flags(ceph, who))

    assert (ended.code, ended.out) == (1, "")
    assert "listing not allowed (403 AccessDenied)" in ended.fault
    assert "if the session has expired, begin a new one" in ended.fault
    assert not any(secret in ended.err for secret in who.values())
    assert not Path("made").exists()
