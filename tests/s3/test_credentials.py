"""Where credentials and settings come from: options, environment, files; and nowhere."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import fsspec.config
import pytest

from crawler.errors import AccessDeniedError, StoreError, UsageError
from crawler.stores import Adapter, ByteRange, ObjectRef, ObjectStore, open_store
from crawler.stores.s3.storage_options import understood
from crawler.stores.s3.store import S3Store
from tests.s3.conftest import S3Server
from tests.s3.proxy import Proxy
from tests.stores.suite import DATA, assert_well_said

SPAN = ByteRange(10, 20)


@pytest.fixture
def url(moto: S3Server) -> str:
    bucket = moto.bucket()
    moto.put(bucket, "a.fits", DATA)
    return f"s3://{bucket}/a.fits"


def keys_sent(server: S3Server, url: str, adapter: Adapter, **options: Any) -> set[str]:
    """Read and list, and return the key ids (``''``: unsigned) and regions that the requests were signed with."""
    with Proxy(server.endpoint) as proxy:
        store = open_store("s3", {"endpoint_url": proxy.origin, **options}, adapter=adapter)
        assert store.get(ObjectRef(url), SPAN).data == DATA[10:20]
        list(store.list(url.rpartition("/")[0]))
    signed = [one.headers.get("authorization", "").partition("Credential=")[2] for one in proxy.requests]
    return {f"{one.split('/')[0]} {one.split('/')[2]}" if one else "" for one in signed}


def test_environment(moto: S3Server, url: str, adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert keys_sent(moto, url, adapter) == {"of-environment eu-central-1"}
    assert keys_sent(moto, url, adapter, key="of-options", secret="y") == {"of-options eu-central-1"}
    region = {"region_name": "us-west-2"}
    assert keys_sent(moto, url, adapter, client_kwargs=region) == {"of-environment us-west-2"}


def test_token_of_the_environment_is_not_mixed_with_given_keys(
    moto: S3Server, url: str, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of-environment")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    with Proxy(moto.endpoint) as proxy:
        for options in ({}, {"key": "k", "secret": "s"}, {"key": "k", "secret": "s", "token": "other"}):
            store = open_store("s3", {"endpoint_url": proxy.origin, **options}, adapter=adapter)
            store.get(ObjectRef(url), SPAN)
    assert [one.headers.get("x-amz-security-token") for one in proxy.requests] == ["token", None, "other"]


def test_profiles(moto: S3Server, url: str, adapter: Adapter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text(
        "[default]\naws_access_key_id = of-default\naws_secret_access_key = x\n"
        "[survey]\naws_access_key_id = of-survey\naws_secret_access_key = y\n"
    )
    (tmp_path / "config").write_text("[default]\nregion = sa-east-1\n[profile survey]\nregion = ap-south-1\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert keys_sent(moto, url, adapter) == {"of-default sa-east-1"}
    assert keys_sent(moto, url, adapter, profile="survey") == {"of-survey ap-south-1"}
    monkeypatch.setenv("AWS_PROFILE", "survey")
    assert keys_sent(moto, url, adapter) == {"of-survey ap-south-1"}
    with pytest.raises(AccessDeniedError, match="no AWS profile elsewhere") as caught:
        keys_sent(moto, url, adapter, profile="elsewhere")
    assert_well_said(caught.value)


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_endpoint_of_the_environment(
    moto: S3Server, url: str, adapter: Adapter, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv(name, moto.endpoint)
    store = open_store("s3", {"key": "k", "secret": "s"}, adapter=adapter)
    assert store.get(ObjectRef(url), SPAN).data == DATA[10:20]


def test_anonymous_by_environment(moto: S3Server, adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket = moto.bucket()
    moto.client.put_object(Bucket=bucket, Key="a.fits", Body=DATA, ACL="public-read")
    monkeypatch.setenv("AWS_NO_SIGN_REQUEST", "true")
    assert keys_sent(moto, f"s3://{bucket}/a.fits", adapter) == {""}
    assert keys_sent(moto, f"s3://{bucket}/a.fits", adapter, key="k", secret="s") == {"k us-east-1"}


def test_no_credentials(adapter: Adapter, moto: S3Server) -> None:
    store = open_store("s3", {"endpoint_url": moto.endpoint}, adapter=adapter)
    for call in (
        lambda: store.get(ObjectRef("s3://bucket/a.fits"), SPAN),
        lambda: store.head("s3://bucket/a.fits"),
        lambda: list(store.list("s3://bucket")),
    ):
        with pytest.raises(AccessDeniedError, match=r"no AWS credentials found.*--anon") as caught:
            call()
        assert_well_said(caught.value)


def test_half_of_credentials(adapter: Adapter, moto: S3Server) -> None:
    store = open_store("s3", {"endpoint_url": moto.endpoint, "key": "k"}, adapter=adapter)
    with pytest.raises(AccessDeniedError, match="both key and secret"):
        store.get(ObjectRef("s3://bucket/a.fits"), SPAN)


def process_profile(folder: Path, seconds: int) -> Path:
    """Write a profile whose credentials a program makes, good for ``seconds``; it counts how often it ran."""
    expires = (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()
    answer = f'{{"Version": 1, "AccessKeyId": "made", "SecretAccessKey": "x", "Expiration": "{expires}"}}'
    program = folder / "program"
    program.write_text(f"#!/bin/sh\necho ran >> {folder}/runs\necho '{answer}'\n")
    program.chmod(0o755)
    config = folder / "config"
    config.write_text(f"[default]\ncredential_process = {program}\n")
    return config


@pytest.mark.parametrize(("seconds", "renewed"), [(3600, False), (240, True)], ids=["fresh", "about-to-expire"])
def test_credentials_are_renewed(
    moto: S3Server, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seconds: int, renewed: bool
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(process_profile(tmp_path, seconds)))
    store = open_store("s3", {"endpoint_url": moto.endpoint})
    store.get(ObjectRef(url), SPAN)
    before = len((tmp_path / "runs").read_text().split())
    time.sleep(0.2)  # obstore asks no more than ten times a second
    store.get(ObjectRef(url), SPAN)
    assert (len((tmp_path / "runs").read_text().split()) > before) is renewed


@pytest.mark.parametrize(
    ("options", "adapter", "said"),
    [
        pytest.param({"acces_key": "secret-x"}, "auto", "acces_key", id="unknown"),
        pytest.param({"client_kwargs": "us-east-1"}, "auto", "client_kwargs", id="not-a-table"),
        pytest.param(
            {"s3_additional_kwargs": {"ExpectedBucketOwner": "1"}}, "obstore", "s3_additional_kwargs", id="other"
        ),
        pytest.param({"config_kwargs": {"proxies": {}}}, "obstore", "config_kwargs.proxies", id="config"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], adapter: Adapter, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        open_store("s3", options, adapter=adapter)
    assert_well_said(caught.value)
    assert "secret-" not in str(caught.value)


def test_option_that_botocore_does_not_know(moto: S3Server) -> None:
    store = open_store("s3", {**moto.options, "client_kwargs": {"no_such": 1}})
    with pytest.raises(StoreError, match="no_such") as caught:
        store.get(ObjectRef("s3://bucket/a.fits"), SPAN)
    assert_well_said(caught.value)


def test_options_of_s3fs_alone_mean_s3fs(moto: S3Server, url: str) -> None:
    with Proxy(moto.endpoint) as proxy:
        options = {**moto.options, "endpoint_url": proxy.origin}
        for more in ({}, {"s3_additional_kwargs": {"ExpectedBucketOwner": "123456789012"}}):
            open_store("s3", {**options, **more}).get(ObjectRef(url), SPAN)
    readers = ["Botocore" in request.headers["user-agent"] for request in proxy.requests]
    assert readers == [False, True]


def test_certificates_of_the_environment(
    moto: S3Server, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "missing"))
    with Proxy(moto.endpoint) as proxy:  # without TLS there is nothing to look at them for
        open_store("s3", {**moto.options, "endpoint_url": proxy.origin}).get(ObjectRef(url), SPAN)
    assert "Botocore" not in proxy.requests[0].headers["user-agent"]
    endpoint = moto.endpoint.replace("http:", "https:")
    with pytest.raises(StoreError, match="certificate") as caught:
        open_store("s3", {**moto.options, "endpoint_url": endpoint}).get(ObjectRef(url), SPAN)
    assert_well_said(caught.value)


def test_options_of_fsspec_configuration(
    moto: S3Server, url: str, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fsspec.config.conf, "s3", {"key": "of-fsspec", "secret": "x"})
    assert keys_sent(moto, url, adapter) == {"of-fsspec us-east-1"}


def test_secrets_are_not_shown() -> None:
    options = understood({"key": "secret-k", "secret": "secret-s", "client_options": {"proxy_url": "secret-p"}})
    assert "secret-" not in repr(options)
    assert "secret-" not in repr(open_store("s3", {"key": "secret-k", "secret": "secret-s"}).__dict__)


def test_sessions_are_closed_without_waiting(moto: S3Server, url: str, adapter: Adapter) -> None:
    def use() -> ObjectStore:
        store = open_store("s3", moto.options, adapter=adapter)
        store.get(store.head(url), SPAN)
        return store

    store = use()
    assert isinstance(store, S3Store)
    opened = store._session._opened
    assert opened is not None
    loop, _, client = opened
    start = time.monotonic()
    del store
    assert time.monotonic() - start < 0.5
    deadline = time.monotonic() + 10
    sessions = client._endpoint.http_session
    while sessions._sessions and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not sessions._sessions or all(one.closed for one in sessions._sessions.values())
    assert loop.is_running()
