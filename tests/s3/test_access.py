"""Who may do what, on a server that looks: right and wrong keys, nobody's, and buckets where the requester pays."""

from __future__ import annotations

import json
from typing import Any

import pytest

from crawler.errors import AccessDeniedError, ListingError, ObjectNotFoundError
from crawler.listing import list_roots
from crawler.stores import Adapter, ByteRange, ObjectRef, ObjectStore, open_store
from tests.s3.ceph import Ceph
from tests.s3.conftest import S3Server
from tests.stores.suite import DATA, assert_well_said

SPAN = ByteRange(10, 20)


@pytest.fixture
def bucket(ceph: S3Server) -> str:
    name = ceph.bucket()
    ceph.put(name, "a.fits", DATA)
    ceph.put(name, "a//b.fits", DATA)
    return name


def allow(ceph: S3Server, bucket: str, *actions: str) -> None:
    """Allow everybody to do ``actions``."""
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    statement = {"Effect": "Allow", "Principal": "*", "Action": list(actions), "Resource": resources}
    policy = {"Version": "2012-10-17", "Statement": [statement]}
    ceph.client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(policy))


def opened(ceph: S3Server, adapter: Adapter, **options: Any) -> ObjectStore:
    return open_store("s3", {"endpoint_url": ceph.endpoint, **options}, adapter=adapter)


def refused(store: ObjectStore, bucket: str, said: str) -> None:
    """Every operation on the bucket is denied, and says so in the same words."""
    url = f"s3://{bucket}/a.fits"
    for call in (
        lambda: store.get(ObjectRef(url), SPAN),
        lambda: store.get(ObjectRef(f"s3://{bucket}/a//b.fits"), SPAN),
        lambda: store.head(url),
        lambda: list(store.list(f"s3://{bucket}")),
    ):
        with pytest.raises(AccessDeniedError, match=said) as caught:
            call()
        assert_well_said(caught.value)
        assert "secret-" not in str(caught.value)


def test_wrong_secret(ceph: S3Server, adapter: Adapter, bucket: str) -> None:
    refused(opened(ceph, adapter, key=ceph.key, secret="secret-x"), bucket, r"secret .*SignatureDoesNotMatch")


def test_unknown_key(ceph: S3Server, adapter: Adapter, bucket: str) -> None:
    refused(opened(ceph, adapter, key="nobody", secret="secret-x"), bucket, r"key id .*InvalidAccessKeyId")


def test_key_of_somebody_else(ceph: S3Server, adapter: Adapter, bucket: str) -> None:
    key, secret = Ceph.users["other"]
    refused(opened(ceph, adapter, key=key, secret=secret), bucket, r"(access denied|listing not allowed) \(403")


def test_anonymous_where_nobody_may(ceph: S3Server, adapter: Adapter, bucket: str) -> None:
    refused(opened(ceph, adapter, anon=True), bucket, "without credentials")


def test_anonymous_where_everybody_may(ceph: S3Server, adapter: Adapter, bucket: str) -> None:
    allow(ceph, bucket, "s3:GetObject", "s3:ListBucket")
    store = opened(ceph, adapter, anon=True)
    refs = [ObjectRef(**row) for batch in store.list(f"s3://{bucket}") for row in batch.to_pylist()]
    assert [store.get(ref, SPAN).data for ref in refs] == [DATA[10:20]] * 2


def test_reading_allowed_listing_not(ceph: S3Server, adapter: Adapter, bucket: str) -> None:
    allow(ceph, bucket, "s3:GetObject")
    key, secret = Ceph.users["other"]
    store = opened(ceph, adapter, key=key, secret=secret)
    url = f"s3://{bucket}/a.fits"
    assert store.get(ObjectRef(url), SPAN).data == DATA[10:20]
    assert store.head(url).size == len(DATA)
    with pytest.raises(AccessDeniedError, match=r"listing not allowed.*key file") as caught:
        list(store.list(f"s3://{bucket}"))
    assert_well_said(caught.value)


def test_requester_pays(ceph: S3Server, adapter: Adapter, bucket: str) -> None:
    allow(ceph, bucket, "s3:GetObject", "s3:ListBucket")
    ceph.client.put_bucket_request_payment(Bucket=bucket, RequestPaymentConfiguration={"Payer": "Requester"})
    key, secret = Ceph.users["other"]
    refused(opened(ceph, adapter, key=key, secret=secret), bucket, "--requester-pays")
    refused(opened(ceph, adapter, anon=True, requester_pays=True), bucket, "without credentials")
    store = opened(ceph, adapter, key=key, secret=secret, requester_pays=True)
    refs = [ObjectRef(**row) for batch in store.list(f"s3://{bucket}") for row in batch.to_pylist()]
    assert [store.get(ref, SPAN).data for ref in refs] == [DATA[10:20]] * 2
    assert store.head(refs[0].url) == refs[0]


def test_no_such_bucket(ceph: S3Server, adapter: Adapter) -> None:
    store = open_store("s3", ceph.options, adapter=adapter)
    for call in (
        lambda: store.get(ObjectRef("s3://not-there/a.fits"), SPAN),
        lambda: list(store.list("s3://not-there")),
    ):
        with pytest.raises(ObjectNotFoundError, match="no such bucket") as caught:
            call()
        assert_well_said(caught.value)


@pytest.mark.parametrize(
    ("root", "said"),
    [
        pytest.param("s3://not-there", "no such bucket", id="bucket"),
        pytest.param("s3://{bucket}/nothing", "no such object, and none below it", id="prefix"),
        pytest.param("s3://Not_A_Name!/x", "names no bucket that S3 can have", id="name"),
        pytest.param("s3://", "names no bucket", id="no-name"),
    ],
)
def test_roots_that_cannot_be_listed(ceph: S3Server, bucket: str, root: str, said: str) -> None:
    given = root.format(bucket=bucket)
    with pytest.raises(ListingError, match=said) as caught:
        list(list_roots([given], include=None, exclude=(), open_store=lambda url: open_store(url, ceph.options)))
    assert_well_said(caught.value)


def test_roots_as_users_name_them(ceph: S3Server, bucket: str) -> None:
    def found(*roots: str) -> list[str]:
        listing = list_roots(roots, include=None, exclude=(), open_store=lambda url: open_store(url, ceph.options))
        return [url for batch in listing for url in batch.column("url").to_pylist()]

    everything = [f"s3://{bucket}/a.fits", f"s3://{bucket}/a//b.fits"]
    assert sorted(found(f"s3://{bucket}")) == sorted(everything)
    assert sorted(found(f"s3a://{bucket}/")) == sorted(everything)
    assert found(f"s3://{bucket}/a") == [f"s3://{bucket}/a//b.fits"]
    assert found(f"s3://{bucket}/a.fits") == [f"s3://{bucket}/a.fits"]
    assert found(f"https://{bucket}.s3.eu-west-1.amazonaws.com/a.fits") == [f"s3://{bucket}/a.fits"]
