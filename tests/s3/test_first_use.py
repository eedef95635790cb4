"""What somebody does first, on a server that looks who asks: one file's headers, and a list of keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import crawler
from crawler.errors import AccessDeniedError, ListingError
from tests.fits_files import image_hdu
from tests.s3.ceph import Ceph
from tests.s3.conftest import S3Server
from tests.s3.test_access import allow

FILE = image_hdu() + image_hdu((100,), xtension="IMAGE") + image_hdu((10, 2), xtension="BINTABLE")


@pytest.fixture
def bucket(ceph: S3Server) -> str:
    name = ceph.bucket()
    for key in ("a.fits", "night 1/b.fits"):
        ceph.put(name, key, FILE)
    return name


@pytest.fixture
def stranger(ceph: S3Server) -> dict[str, Any]:
    """Storage options of somebody who owns nothing."""
    key, secret = Ceph.users["other"]
    return {"endpoint_url": ceph.endpoint, "key": key, "secret": secret}


def test_loop_over_headers_where_the_requester_pays(
    ceph: S3Server, bucket: str, stranger: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(ceph, bucket, "s3:GetObject")
    ceph.client.put_bucket_request_payment(Bucket=bucket, RequestPaymentConfiguration={"Payer": "Requester"})
    monkeypatch.setenv("AWS_ENDPOINT_URL", stranger["endpoint_url"])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", stranger["key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", stranger["secret"])
    url = f"https://s3.us-east-1.amazonaws.com/{bucket}/night%201/b.fits"

    extensions = [header.fits.get("XTENSION") for header in crawler.load_headers(url, requester_pays=True)]

    assert extensions == [None, "IMAGE", "BINTABLE"]
    with pytest.raises(AccessDeniedError, match="--requester-pays"):
        list(crawler.load_headers(url))


def test_key_file_where_listing_is_forbidden(
    ceph: S3Server, bucket: str, stranger: dict[str, Any], tmp_path: Path
) -> None:
    allow(ceph, bucket, "s3:GetObject")
    keys, catalogue = tmp_path / "keys.txt", str(tmp_path / "catalogue")
    keys.write_text(f"s3://{bucket}/a.fits\ns3://{bucket}/night 1/b.fits\ns3://{bucket}/gone.fits\n")

    with pytest.raises(ListingError, match="listing not allowed"):
        crawler.index(f"s3://{bucket}/", catalogue, storage_options=stranger)
    report = crawler.index(f"@{keys}", catalogue, storage_options=stranger)

    assert report.walked == {"ok": 2, "unreadable": 1}
    rows = (
        crawler.Catalogue(catalogue).files.to_table(columns=["url", "status", "n_hdus", "size", "pinned"]).to_pylist()
    )
    assert [(row["url"].rpartition("/")[2], row["status"], row["n_hdus"]) for row in rows] == [
        ("a.fits", "ok", 3),
        ("gone.fits", "unreadable", 0),
        ("b.fits", "ok", 3),
    ]
    assert all(row["size"] == len(FILE) and row["pinned"] for row in rows if row["status"] == "ok")
