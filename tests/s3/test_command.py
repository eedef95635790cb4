"""``crawler index`` where the store says no, or nothing: one line that says why, and no catalogue."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from crawler.catalogue.reader import Catalogue
from tests.fits_files import image_hdu
from tests.s3.bucket_server import BucketServer, region_of
from tests.s3.ceph import Ceph
from tests.s3.conftest import S3Server
from tests.unit.test_cli import Ended, Run, commands

FILE = image_hdu((10,)) + image_hdu((100, 100), xtension="IMAGE")
DEAD_SECONDS = 30.0
SECRET = "hush-hush"


@pytest.fixture
def crawler(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return commands(monkeypatch, capsys, tmp_path)


@pytest.fixture
def bucket(ceph: S3Server) -> str:
    name = ceph.bucket()
    ceph.put(name, "a.fits", FILE)
    return name


def reached(endpoint: str, key: str, secret: str) -> list[str]:
    """Return the flags that say where the store is and who asks."""
    return ["--endpoint-url", endpoint, "--storage-option", f"key={key}", "--storage-option", f"secret={secret}"]


def refused(ended: Ended) -> str:
    """Return the one line of a command that did nothing and left nothing."""
    assert (ended.code, ended.out) == (1, "")
    assert not Path("made").exists(), "a catalogue is left behind"
    assert SECRET not in ended.err
    assert ended.fault.isprintable()
    return ended.fault


class TestCredentials:
    @pytest.mark.parametrize("workers", [0, 1])
    def test_right_ones(self, crawler: Run, ceph: S3Server, bucket: str, workers: int) -> None:
        who = reached(ceph.endpoint, *Ceph.users["owner"])
        ended = crawler("index", f"s3://{bucket}/", "-c", "made", "--workers", workers, *who)
        assert (ended.code, ended.told) == (0, "")
        assert Catalogue("made").files.count_rows() == 1

    @pytest.mark.parametrize(
        ("who", "said"),
        [
            pytest.param(
                ("owner-key", SECRET),
                "secret access key is wrong: check it, or the profile (403 SignatureDoesNotMatch)",
                id="wrong-secret",
            ),
            pytest.param(
                ("nobody", SECRET),
                "access key id is not known to this store: check it, or the profile and --endpoint-url "
                "(403 InvalidAccessKeyId)",
                id="unknown-key",
            ),
            pytest.param(
                Ceph.users["other"],
                "listing not allowed (403 AccessDenied): if the requester is to pay, say --requester-pays; "
                "if only listing is denied, name the keys in a key file",
                id="somebody-else",
            ),
        ],
    )
    def test_wrong_ones(self, crawler: Run, ceph: S3Server, bucket: str, who: tuple[str, str], said: str) -> None:
        root = f"s3://{bucket}/"
        ended = crawler("index", root, "-c", "made", "--workers", 0, *reached(ceph.endpoint, *who))
        assert refused(ended) == f"cannot list {root}: {said}"

    def test_none(self, crawler: Run, ceph: S3Server, bucket: str) -> None:
        root = f"s3://{bucket}/"
        where = ["--endpoint-url", ceph.endpoint, "--workers", 0]
        assert refused(crawler("index", root, "-c", "made", *where)) == (
            f"cannot list {root}: no AWS credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or AWS_PROFILE, or read public data with --anon"
        )
        said = refused(crawler("index", root, "-c", "made", *where, "--anon"))
        assert said.startswith(f"cannot list {root}: listing not allowed without credentials (403 AccessDenied): ")

    @pytest.mark.parametrize("command", ["info", "query", "runs", "vacuum"])
    def test_none_for_a_catalogue(self, crawler: Run, moto: S3Server, command: str) -> None:
        more = ["FROM files"] if command == "query" else []
        url, at = f"s3://{moto.bucket()}/catalogue", ["--catalogue-option", f"endpoint_url={moto.endpoint}"]
        assert refused(crawler(command, url, *more, *at)) == (
            f"catalogue {url}: cannot be read: no AWS credentials found: set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or read public data with --anon"
        )

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["profile=nobody"], "no AWS profile nobody"),
            (["key=k", "secret=s", "endpoint_url=127.0.0.1:1"], "endpoint is no URL: --endpoint-url begins with http"),
            (
                ["key=k", "secret=s", "endpoint_url=http://127.0.0.1:1"],
                "connection refused (http://127.0.0.1:1): check --endpoint-url and the network",
            ),
        ],
    )
    def test_wrong_settings_for_a_catalogue(self, crawler: Run, options: list[str], said: str) -> None:
        mine = [word for option in options for word in ("--catalogue-option", option)]
        assert said in refused(crawler("info", "s3://somewhere/catalogue", *mine))

    @pytest.mark.parametrize(
        ("key", "code"), [("owner-key", "SignatureDoesNotMatch"), ("nobody", "InvalidAccessKeyId")]
    )
    def test_of_the_catalogue(self, crawler: Run, ceph: S3Server, bucket: str, key: str, code: str) -> None:
        Path("a.fits").write_bytes(FILE)
        options = {"endpoint_url": ceph.endpoint, "key": key, "secret": SECRET}
        mine = [word for name, value in options.items() for word in ("--catalogue-option", f"{name}={value}")]
        said = refused(crawler("index", "a.fits", "-c", f"s3://{bucket}/catalogue", "--workers", 0, *mine))
        assert said.startswith(f"catalogue s3://{bucket}/catalogue: cannot be ")
        assert code in said


@pytest.mark.parametrize(
    ("root", "said"),
    [
        pytest.param(
            "s3://not-there/",
            "cannot list {root}: no such bucket: check its name and --endpoint-url (404 NoSuchBucket)",
            id="bucket",
        ),
        pytest.param("s3://{bucket}/no", "cannot list {root}: no such object, and none below it", id="prefix"),
        pytest.param("s3://{bucket}/no/", "nothing found in {root}: there are no objects", id="folder"),
        pytest.param(
            "s3://Not_A_Name!/", "cannot list {root}: names no bucket that S3 can have: Not_A_Name!", id="name"
        ),
    ],
)
def test_nothing_there(crawler: Run, ceph: S3Server, bucket: str, root: str, said: str) -> None:
    root = root.format(bucket=bucket)
    who = reached(ceph.endpoint, *Ceph.users["owner"])
    assert refused(crawler("index", root, "-c", "made", "--workers", 0, *who)) == said.format(root=root)


class TestRegion:
    """Ceph takes whatever region is signed for; AWS does not."""

    @pytest.fixture
    def server(self) -> Iterator[BucketServer]:
        with BucketServer({f"survey/a{number}.fits": FILE for number in range(3)}) as server:
            server.region = "eu-west-1"
            yield server

    def index(self, crawler: Run, server: BucketServer, region: str) -> Ended:
        who = reached(server.origin, "any", SECRET)
        return crawler("index", "s3://survey/", "-c", "made", "--workers", 0, "--region", region, *who)

    @pytest.mark.parametrize(
        ("status", "code"), [(301, "PermanentRedirect"), (400, "AuthorizationHeaderMalformed")], ids=["301", "400"]
    )
    def test_wrong_one_is_put_right(self, crawler: Run, server: BucketServer, status: int, code: str) -> None:
        server.refusal = (status, code, "eu-west-1")

        ended = self.index(crawler, server, "us-east-1")

        assert (ended.code, ended.err) == (0, "")
        assert Catalogue("made").files.to_table()["status"].to_pylist() == ["ok"] * 3
        regions = [region_of(request) for request in server.requests]
        assert set(regions) == {"us-east-1", "eu-west-1"}
        assert regions.count("us-east-1") <= 3, "it is not found out again for every file"

    @pytest.mark.parametrize(
        ("status", "code", "told"),
        [
            pytest.param(301, "PermanentRedirect", "", id="301"),
            pytest.param(301, "PermanentRedirect", "sa-east-1", id="301-wrongly-told"),
            pytest.param(400, "AuthorizationHeaderMalformed", "", id="400"),
            pytest.param(400, "AuthorizationHeaderMalformed", "sa-east-1", id="400-wrongly-told"),
            pytest.param(400, "IllegalLocationConstraintException", "", id="location"),
        ],
    )
    def test_one_that_cannot_be_found_out(
        self, crawler: Run, server: BucketServer, status: int, code: str, told: str
    ) -> None:
        server.refusal = (status, code, told)

        said = refused(self.index(crawler, server, "us-east-1"))

        assert said == (
            "cannot list s3://survey/: bucket is in another region, which could not be found out: "
            f"set AWS_REGION ({status} {code})"
        )
        assert len(server.requests) <= 4


class Timed(NamedTuple):
    """How a command in a process of its own ended, and how long that took."""

    ended: Ended
    seconds: float


PROGRAM = """
import sys, time
import crawler.api, crawler.cli
begun = time.monotonic()
try:
    crawler.cli.main()
finally:
    print(time.monotonic() - begun)
"""


@pytest.fixture(scope="module", autouse=True)
def dead(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[Timed]]:
    """Ask what takes connections and never answers, while other tests run: it takes most of half a minute."""
    folder = tmp_path_factory.mktemp("dead")

    def run(endpoint: str) -> Timed:
        args = ["index", "s3://survey/", "-c", "made", "--workers", "0", *reached(endpoint, "any", SECRET)]
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, *args], cwd=folder, capture_output=True, text=True, timeout=120, check=False
        )
        assert not (folder / "made").exists()
        return Timed(Ended(done.returncode, "", done.stderr), float(done.stdout))

    with ThreadPoolExecutor(1) as pool, socket.socket() as listening:  # whose end is soon that of the command
        listening.bind(("127.0.0.1", 0))
        listening.listen(64)
        yield pool.submit(run, f"http://127.0.0.1:{listening.getsockname()[1]}")


class TestEndpoint:
    def test_refuses(self, crawler: Run) -> None:
        with socket.socket() as held:  # bound, and nobody listens
            held.bind(("127.0.0.1", 0))
            endpoint = f"http://127.0.0.1:{held.getsockname()[1]}"
            begun = time.monotonic()
            ended = crawler("index", "s3://survey/", "-c", "made", "--workers", 0, *reached(endpoint, "any", SECRET))
        assert time.monotonic() - begun < DEAD_SECONDS
        assert refused(ended) == (
            f"cannot list s3://survey/: connection refused ({endpoint}): check --endpoint-url and the network"
        )

    def test_never_answers(self, crawler: Run, dead: Future[Timed]) -> None:
        ended, seconds = dead.result()
        ended = ended._replace(err=ended.err.splitlines(keepends=True)[-1])  # below lines of progress
        assert re.fullmatch(
            r"cannot list s3://survey/: timed out \(http://127\.0\.0\.1:\d+\): check --endpoint-url and the network",
            refused(ended),
        )
        assert seconds < DEAD_SECONDS

    @pytest.mark.parametrize(
        ("flags", "said"),
        [
            pytest.param(
                ["--endpoint-url", "127.0.0.1:9000"],
                "endpoint is no URL: --endpoint-url begins with http:// or https://",
                id="endpoint",
            ),
            pytest.param(["--region", "eu west"], "no region has this name: check --region or AWS_REGION", id="region"),
            pytest.param(["--profile", "nobody's"], "no AWS profile nobody's", id="profile"),
        ],
    )
    def test_is_badly_told(self, crawler: Run, flags: list[str], said: str) -> None:
        ended = crawler("index", "s3://survey/", "-c", "made", "--workers", 0, *flags)
        assert refused(ended) == f"cannot list s3://survey/: {said}"
