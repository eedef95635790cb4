"""Options of stores on the command line: for the roots, for the catalogue, for both."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fits_files import entry, image_hdu
from tests.s3.ceph import Ceph
from tests.s3.conftest import S3Server
from tests.s3.test_access import allow
from tests.unit.test_cli import Run, commands

FILE = image_hdu((10,), entry("OBJECT", "M 31"))


@pytest.fixture
def crawler(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return commands(monkeypatch, capsys, tmp_path)


@pytest.fixture
def data(moto: S3Server) -> str:
    bucket = moto.bucket()
    moto.put(bucket, "a.fits", FILE)
    return f"s3://{bucket}/"


@pytest.fixture
def catalogue(moto: S3Server) -> str:
    return f"s3://{moto.bucket()}/catalogue"


@pytest.fixture
def keys(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the environment hold credentials."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", moto.key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", moto.secret)


def profile(moto: S3Server, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Write profiles that hold credentials, and the endpoint of none."""
    path = Path("credentials").absolute()
    path.write_text(
        "".join(f"[{name}]\naws_access_key_id={moto.key}\naws_secret_access_key={moto.secret}\n" for name in names)
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))


@pytest.mark.usefixtures("keys")
class TestEndpoint:
    def test_given_once_serves_roots_and_catalogue(
        self, crawler: Run, moto: S3Server, data: str, catalogue: str
    ) -> None:
        at = ("--endpoint-url", moto.endpoint, "--region", "us-east-1")
        ended = crawler("index", data, "-c", catalogue, "--workers", 0, *at)
        assert (ended.code, ended.err) == (0, "")
        assert "walked     1 file" in ended.out
        assert crawler("estimate", data, "-c", catalogue, *at).code == 0

    def test_serves_every_command_that_reads_a_catalogue(
        self, crawler: Run, moto: S3Server, data: str, catalogue: str
    ) -> None:
        at = ("--endpoint-url", moto.endpoint)
        assert crawler("index", data, "-c", catalogue, "--workers", 0, *at).code == 0
        by_option = ("--storage-option", f"endpoint_url={moto.endpoint}")
        as_index = ("--catalogue-option", f"endpoint_url={moto.endpoint}")
        for where in (at, by_option, as_index, ("--endpoint-url", "http://127.0.0.1:1", *as_index)):
            assert crawler("info", catalogue, *where).out.startswith(f"{catalogue} version 1\n")
            assert crawler("query", catalogue, "SELECT count(*) AS n FROM files", *where).out == "n\n1\n"
            assert crawler("runs", catalogue, *where).code == 0
            assert crawler("vacuum", catalogue, *where).out == "deleted 0 files, 0 bytes\n"

    def test_credentials_set_after_a_failure_are_used(
        self, crawler: Run, moto: S3Server, monkeypatch: pytest.MonkeyPatch, data: str, catalogue: str
    ) -> None:
        at = ("--endpoint-url", moto.endpoint)
        with monkeypatch.context() as without:
            without.delenv("AWS_ACCESS_KEY_ID")
            without.delenv("AWS_SECRET_ACCESS_KEY")
            without.setenv("AWS_EC2_METADATA_DISABLED", "true")
            assert crawler("info", catalogue, *at).code == 1
        assert crawler("index", data, "-c", catalogue, "--workers", 0, *at).code == 0

    def test_serves_a_catalogue_of_local_files(self, crawler: Run, moto: S3Server, catalogue: str) -> None:
        Path("a.fits").write_bytes(FILE)
        ended = crawler("index", "a.fits", "-c", catalogue, "--workers", 0, "--endpoint-url", moto.endpoint)
        assert (ended.code, ended.err) == (0, "")

    def test_option_of_the_catalogue_counts_more(self, crawler: Run, moto: S3Server, data: str, catalogue: str) -> None:
        wrong = ("--catalogue-option", "endpoint_url=http://127.0.0.1:1")
        ended = crawler("index", data, "-c", catalogue, "--workers", 0, "--endpoint-url", moto.endpoint, *wrong)
        assert ended.code == 1
        assert ended.fault.startswith(f"catalogue {catalogue}: cannot be read: connection refused (http://127.0.0.1:1)")


class TestCredentials:
    def test_profile_given_once_serves_both(
        self, crawler: Run, moto: S3Server, data: str, catalogue: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        profile(moto, monkeypatch, "mine")
        at = ("--endpoint-url", moto.endpoint, "--profile", "mine")
        ended = crawler("index", data, "-c", catalogue, "--workers", 0, *at)
        assert (ended.code, ended.err) == (0, "")
        assert crawler("info", catalogue, *at).code == 0

    def test_profile_of_the_job_files_catalogue_stays(
        self, crawler: Run, moto: S3Server, data: str, catalogue: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("job.toml").write_text(
            f"[crawl]\nroots = ['{data}']\ncatalogue = '{catalogue}'\n[catalogue_options]\nprofile = 'writer'\n"
        )
        index = ("index", "--job", "job.toml", "--workers", 0, "--endpoint-url", moto.endpoint, "--profile", "reader")
        profile(moto, monkeypatch, "reader", "writer")
        assert crawler(*index).code == 0
        assert crawler(*index, "--catalogue-option", "profile=nobody").fault.endswith("no AWS profile nobody")
        profile(moto, monkeypatch, "reader")
        assert "no AWS profile writer" in crawler(*index).fault

    def test_keys_of_the_roots_are_not_those_of_the_catalogue(
        self, crawler: Run, moto: S3Server, data: str, catalogue: str
    ) -> None:
        keys = ("--storage-option", f"key={moto.key}", "--storage-option", f"secret={moto.secret}")
        ended = crawler("index", data, "-c", catalogue, "--workers", 0, "--endpoint-url", moto.endpoint, *keys)
        assert ended.code == 1
        assert "no AWS credentials found" in ended.fault


def test_public_catalogue_is_read_without_credentials(crawler: Run, ceph: S3Server) -> None:
    bucket = ceph.bucket()
    Path("a.fits").write_bytes(FILE)
    catalogue, at = f"s3://{bucket}/catalogue", ("--endpoint-url", ceph.endpoint)
    key, secret = Ceph.users["owner"]
    mine = ("--catalogue-option", f"key={key}", "--catalogue-option", f"secret={secret}")
    assert crawler("index", "a.fits", "-c", catalogue, "--workers", 0, *at, *mine).code == 0
    allow(ceph, bucket, "s3:GetObject", "s3:ListBucket")

    assert crawler("query", catalogue, "SELECT count(*) AS n FROM cards", "--anon", *at).out == "n\n5\n"
    assert crawler("info", catalogue, "--anon", *at).code == 0
    assert crawler("runs", catalogue, "--anon", *at).code == 0

    assert crawler("vacuum", catalogue, "--anon", *at).fault.endswith(
        f"a catalogue cannot be written without credentials: {catalogue}"
    )
    assert "no AWS credentials found" in crawler("query", catalogue, "FROM files", *at).fault
