"""Buckets that open some of themselves to some people: crawled by the command, in process and on a worker.

Each refusal is one line and leaves nothing; each permission gives the rows that it should, and no others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from distributed import Client

import crawler
from crawler.cluster import local_client
from crawler.errors import CatalogueError, CrawlerError, ListingError
from tests.fits_files import image_hdu
from tests.s3.ceph import Ceph
from tests.s3.conftest import S3Server
from tests.s3.proxy import Proxy
from tests.tables import same_tables
from tests.unit.test_cli import Ended, Run, commands

FILE = image_hdu((10,)) + image_hdu((100, 100), xtension="IMAGE")
KEYS = ["night1/a.fits", "night1/b.fits", "night2/a.fits", "secret/a.fits", "secret/b.fits"]
_PROGRESS = re.compile(r"[\d,]+ of [\d,]+ files, .*")


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return commands(monkeypatch, capsys, tmp_path)


@pytest.fixture(scope="module")
def workers() -> Iterator[Client]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with local_client(1) as client:
            yield client


@pytest.fixture(params=["in process", "on a worker"])
def client(request: pytest.FixtureRequest) -> Client | None:
    found: Client | None = None if request.param == "in process" else request.getfixturevalue("workers")
    return found


@pytest.fixture
def bucket(ceph: S3Server) -> str:
    return filled(ceph)


def filled(ceph: S3Server) -> str:
    name = ceph.bucket()
    for key in KEYS:
        ceph.put(name, key, FILE)
    return name


def statement(bucket: str, effect: str, action: str, keys: str = "") -> dict[str, Any]:
    where = f"arn:aws:s3:::{bucket}/{keys}" if keys else f"arn:aws:s3:::{bucket}"
    return {"Effect": effect, "Principal": "*", "Action": [action], "Resource": [where]}


def govern(ceph: S3Server, bucket: str, *statements: dict[str, Any]) -> None:
    """Put a policy in the place of whatever is there."""
    policy = json.dumps({"Version": "2012-10-17", "Statement": list(statements)})
    ceph.client.put_bucket_policy(Bucket=bucket, Policy=policy)


def open_to_all(ceph: S3Server, bucket: str) -> None:
    govern(ceph, bucket, statement(bucket, "Allow", "s3:ListBucket"), statement(bucket, "Allow", "s3:GetObject", "*"))


def options_of(who: str, endpoint: str) -> dict[str, Any]:
    key, secret = Ceph.users[who]
    return {"endpoint_url": endpoint, "key": key, "secret": secret}


def flags(options: Mapping[str, Any], name: str = "--storage-option") -> list[str]:
    return [word for key, value in options.items() for word in (name, f"{key}={str(value).lower()}")]


def key_file(folder: Path, *buckets: str) -> str:
    path = folder / "keys.txt"
    path.write_text("".join(f"s3://{bucket}/{key}\n" for bucket in buckets for key in KEYS))
    return f"@{path}"


def refused(ended: Ended) -> str:
    """Return the one line of a command that did nothing and left nothing."""
    assert (ended.code, ended.out) == (1, "")
    assert not Path("made").exists(), "a catalogue is left behind"
    (said,) = (line for line in ended.err.splitlines() if not _PROGRESS.fullmatch(line))
    assert said.startswith("crawler: ")
    assert said.isprintable()
    assert not any(user.secret in said for user in Ceph.users.values())
    return said.removeprefix("crawler: ")


def statuses(catalogue: str, **options: Any) -> dict[str, str]:
    """Return the status of each file, by its key; with what is said of those that could not be read."""
    files = crawler.Catalogue(catalogue, **options).files.to_table(columns=["url", "status", "error"]).to_pylist()
    return {row["url"].partition("://")[2].partition("/")[2]: row["error"] or row["status"] for row in files}


def whole(ceph: S3Server, bucket: str, folder: Path) -> crawler.Catalogue:
    """Return the catalogue that the owner of a bucket makes, whom nothing is denied."""
    location = str(folder / "whole")
    crawler.index(f"s3://{bucket}/", location, storage_options=options_of("owner", ceph.endpoint))
    return crawler.Catalogue(location)


class TestListingIsForbidden:
    def test_says_what_to_do(self, command: Run, ceph: S3Server, bucket: str) -> None:
        govern(ceph, bucket, statement(bucket, "Allow", "s3:GetObject", "*"))
        root = f"s3://{bucket}/"
        who = flags(options_of("other", ceph.endpoint))
        said = refused(command("index", root, "-c", "made", "--workers", 0, *who))
        assert said.startswith(f"cannot list {root}: listing not allowed (403 AccessDenied): ")
        assert "if only listing is denied, name the keys in a key file" in said

    def test_key_file_reads_all_the_same(
        self, ceph: S3Server, bucket: str, tmp_path: Path, client: Client | None
    ) -> None:
        govern(ceph, bucket, statement(bucket, "Allow", "s3:GetObject", "*"))
        location = str(tmp_path / "made")
        other = options_of("other", ceph.endpoint)
        with pytest.raises(ListingError, match="name the keys in a key file"):
            crawler.index(f"s3://{bucket}/", location, storage_options=other, client=client)

        report = crawler.index(key_file(tmp_path, bucket), location, storage_options=other, client=client)

        assert report.walked == {"ok": len(KEYS)}
        columns = ["url", "status", "n_hdus", "size", "etag"]
        found, wanted = (
            sorted(map(tuple, (row.values() for row in one.files.to_table(columns=columns).to_pylist())))
            for one in (crawler.Catalogue(location), whole(ceph, bucket, tmp_path))
        )
        assert found == wanted


class TestSomeKeysAreDenied:
    @pytest.fixture
    def bucket(self, ceph: S3Server, bucket: str) -> str:
        allowed = [statement(bucket, "Allow", "s3:ListBucket"), statement(bucket, "Allow", "s3:GetObject", "*")]
        govern(ceph, bucket, *allowed, statement(bucket, "Deny", "s3:GetObject", "secret/*"))
        return bucket

    def test_they_are_rows(self, ceph: S3Server, bucket: str, tmp_path: Path, client: Client | None) -> None:
        location = str(tmp_path / "made")
        other = options_of("other", ceph.endpoint)
        report = crawler.index(f"s3://{bucket}/", location, storage_options=other, client=client)
        assert report.walked == {"ok": 3, "unreadable": 2}
        denied = "access denied (403 AccessDenied): if the requester is to pay, say --requester-pays"
        assert statuses(location) == {key: denied if key.startswith("secret/") else "ok" for key in KEYS}

        open_to_all(ceph, bucket)
        assert crawler.index(f"s3://{bucket}/", location, storage_options=other, client=client).walked == {"ok": 2}
        same_tables(crawler.Catalogue(location), whole(ceph, bucket, tmp_path))

    def test_command_succeeds(self, command: Run, ceph: S3Server, bucket: str) -> None:
        who = flags(options_of("other", ceph.endpoint))
        ended = command("index", f"s3://{bucket}/", "-c", "made", "--workers", 0, "--json", *who)
        assert ended.code == 0
        assert json.loads(ended.out)["walked"] == {"ok": 3, "unreadable": 2}


class TestOneOfTwoBucketsIsDenied:
    def test_its_listing(self, command: Run, ceph: S3Server, bucket: str) -> None:
        shut = filled(ceph)
        open_to_all(ceph, bucket)
        who = flags(options_of("other", ceph.endpoint))
        ended = command("index", f"s3://{shut}/", f"s3://{bucket}/", "-c", "made", "--workers", 0, *who)
        assert refused(ended).startswith(f"cannot list s3://{shut}/: listing not allowed (403 AccessDenied)")

    def test_its_keys(self, ceph: S3Server, bucket: str, tmp_path: Path, client: Client | None) -> None:
        shut = filled(ceph)
        open_to_all(ceph, bucket)
        location = str(tmp_path / "made")
        roots = key_file(tmp_path, shut, bucket)
        report = crawler.index(roots, location, storage_options=options_of("other", ceph.endpoint), client=client)
        assert report.walked == {"ok": len(KEYS), "unreadable": len(KEYS)}
        rows = crawler.Catalogue(location).sql("SELECT url, status FROM files").to_pylist()
        assert {row["status"] for row in rows if f"//{shut}/" in row["url"]} == {"unreadable"}
        assert {row["status"] for row in rows if f"//{bucket}/" in row["url"]} == {"ok"}


class TestRequesterPays:
    @pytest.fixture
    def bucket(self, ceph: S3Server, bucket: str) -> str:
        open_to_all(ceph, bucket)
        ceph.client.put_bucket_request_payment(Bucket=bucket, RequestPaymentConfiguration={"Payer": "Requester"})
        return bucket

    def test_absent(self, command: Run, ceph: S3Server, bucket: str) -> None:
        root = f"s3://{bucket}/"
        who = flags(options_of("other", ceph.endpoint))
        said = refused(command("index", root, "-c", "made", "--workers", 0, *who))
        assert said.startswith(f"cannot list {root}: listing not allowed (403 AccessDenied): ")
        assert "if the requester is to pay, say --requester-pays" in said

    @pytest.mark.parametrize("store", ["obstore", "fsspec"])
    def test_present(self, command: Run, ceph: S3Server, bucket: str, tmp_path: Path, store: str) -> None:
        with Proxy(ceph.endpoint) as proxy:
            who = ["--requester-pays", "--store", store, *flags(options_of("other", proxy.origin))]
            roots = [f"s3://{bucket}/night1/", f"s3://{bucket}/night2/a.fits", key_file(tmp_path, bucket)]
            ended = command("index", *roots, "-c", "made", "--workers", 0, "--json", *who)
        assert ended.code == 0
        assert json.loads(ended.out)["walked"] == {"ok": len(KEYS)}
        assert {one.headers.get("x-amz-request-payer") for one in proxy.requests} == {"requester"}
        asked = {("list" if "list-type=2" in one.path else one.method) for one in proxy.requests}
        assert asked == {"list", "HEAD", "GET"}

    def test_present_on_a_worker(self, ceph: S3Server, bucket: str, tmp_path: Path, workers: Client) -> None:
        location = str(tmp_path / "made")
        options = {**options_of("other", ceph.endpoint), "requester_pays": True}
        assert crawler.index(f"s3://{bucket}/", location, storage_options=options, client=workers).walked == {"ok": 5}
        same_tables(crawler.Catalogue(location), whole(ceph, bucket, tmp_path))


class TestAnonymous:
    def test_where_not_allowed(self, command: Run, ceph: S3Server, bucket: str) -> None:
        root = f"s3://{bucket}/"
        where = ["--anon", "--endpoint-url", ceph.endpoint]
        said = refused(command("index", root, "-c", "made", "--workers", 0, *where))
        assert said.startswith(f"cannot list {root}: listing not allowed without credentials (403 AccessDenied)")

    def test_on_a_public_bucket(self, ceph: S3Server, bucket: str, tmp_path: Path, client: Client | None) -> None:
        open_to_all(ceph, bucket)
        location = str(tmp_path / "made")
        with Proxy(ceph.endpoint) as proxy:
            options = {"anon": True, "endpoint_url": proxy.origin}
            report = crawler.index(f"s3://{bucket}/", location, storage_options=options, client=client)
        assert report.walked == {"ok": len(KEYS)}
        assert not any("authorization" in one.headers for one in proxy.requests)
        same_tables(crawler.Catalogue(location), whole(ceph, bucket, tmp_path))


class TestCatalogueOfSomebodyElse:
    """The bucket is one user's, the catalogue another's: each is asked with its own credentials."""

    def index(self, root: str, catalogue: str, read: Mapping[str, Any], write: Mapping[str, Any], **more: Any) -> Any:
        return crawler.index(root, catalogue, storage_options=read, catalogue_options=write, **more)

    def test_each_is_used_for_its_own(self, ceph: S3Server, bucket: str, tmp_path: Path, client: Client | None) -> None:
        owner, other = (options_of(who, ceph.endpoint) for who in ("owner", "other"))
        place = f"s3://{theirs(ceph)}/catalogue"
        assert self.index(f"s3://{bucket}/", place, owner, other, client=client).walked == {"ok": len(KEYS)}
        same_tables(crawler.Catalogue(place, storage_options=other), whole(ceph, bucket, tmp_path))
        with pytest.raises(CatalogueError, match="AccessDenied") as caught:
            crawler.Catalogue(place, storage_options=owner)
        assert str(caught.value).startswith(f"catalogue {place}: ")

    @pytest.mark.parametrize("wrong", ["read", "write"])
    def test_says_which_side_is_refused(self, ceph: S3Server, bucket: str, wrong: str) -> None:
        owner, other = (options_of(who, ceph.endpoint) for who in ("owner", "other"))
        bad = {"endpoint_url": ceph.endpoint, "key": "nobody", "secret": "x"}
        place = f"s3://{theirs(ceph)}/catalogue"
        read, write = (bad, other) if wrong == "read" else (owner, bad)
        with pytest.raises(CrawlerError, match=r"InvalidAccessKeyId|not known") as caught:
            self.index(f"s3://{bucket}/", place, read, write)
        begin = f"cannot list s3://{bucket}/: " if wrong == "read" else f"catalogue {place}: "
        assert str(caught.value).startswith(begin)
        assert str(caught.value).isprintable()


def theirs(ceph: S3Server) -> str:
    """Make a bucket that the other user may do everything with, and its owner may not look into."""
    name = ceph.bucket()
    everything: Iterable[str] = (f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*")
    to_other = {"AWS": ["arn:aws:iam:::user/other"]}
    allowed = {"Effect": "Allow", "Principal": to_other, "Action": ["s3:*"], "Resource": list(everything)}
    to_owner = {"AWS": ["arn:aws:iam:::user/owner"]}
    looks = ["s3:ListBucket", "s3:GetObject"]
    denied = {"Effect": "Deny", "Principal": to_owner, "Action": looks, "Resource": list(everything)}
    govern(ceph, name, allowed, denied)
    return name
