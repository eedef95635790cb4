"""What ``storage_options`` of S3 mean: s3fs' own words, told apart into what obstore can be told and what not.

Pure but for the environment: opens nothing.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from fsspec.config import apply_config
from s3fs import S3FileSystem

from crawler.errors import UsageError
from crawler.stores.http.connection import TOTAL_SECONDS
from crawler.stores.urls import one_line

OBSTORE_OPTIONS = frozenset({"client_options", "retry_config"})
"""Options of obstore's own, understood beside those of s3fs."""

_SAME_TO_BOTH = frozenset(
    {
        "anon",
        "client_kwargs",
        "config_kwargs",
        "endpoint_url",
        "key",
        "password",
        "profile",
        "requester_pays",
        "secret",
        "token",
        "use_ssl",
        "username",
    }
)
# Options that say how fsspec's files read ahead, cache and write, or how listings are kept: none of that is used.
_WITHOUT_EFFECT = frozenset(
    {
        "asynchronous",
        "cache_regions",
        "default_block_size",
        "default_cache_type",
        "default_fill_cache",
        "fixed_upload_size",
        "listings_expiry_time",
        "local_expiry_check",
        "loop",
        "max_concurrency",
        "max_paths",
        "skip_instance_cache",
        "use_listings_cache",
        "version_aware",
    }
)
OF_SESSION = frozenset({"event_hooks", "include_builtin_handlers", "loader", "profile", "session_vars"})
"""What s3fs hands on to aiobotocore's session."""
_CLIENT = frozenset(
    {
        "aws_access_key_id",
        "aws_secret_access_key",
        "aws_session_token",
        "endpoint_url",
        "region_name",
        "use_ssl",
        "verify",
    }
)
_CONFIG = frozenset({"connect_timeout", "max_pool_connections", "read_timeout", "region_name", "retries", "s3"})
_TRUE = frozenset({"1", "on", "true", "yes"})


@dataclass(frozen=True, slots=True)
class S3Options:
    """How to reach S3, as the user, the environment and fsspec's configuration say.

    Attributes
    ----------
    anon : bool
        Requests are not signed.
    requester_pays : bool
        Every request says that whoever asks pays ("Using Requester Pays general purpose buckets", Amazon S3 User
        Guide).
    s3fs : mapping
        Arguments for `s3fs.S3FileSystem`. May hold secrets.
    client_options, retry_config : mapping
        obstore's own. May hold secrets.
    only_s3fs : str or None
        An option that obstore cannot be told; None where it can be told all.
    """

    anon: bool
    requester_pays: bool
    s3fs: Mapping[str, Any] = field(repr=False)
    client_options: Mapping[str, Any] = field(repr=False)
    retry_config: Mapping[str, Any] = field(repr=False)
    only_s3fs: str | None

    @property
    def client(self) -> Mapping[str, Any]:
        """The ``client_kwargs``."""
        given: Mapping[str, Any] = self.s3fs["client_kwargs"]
        return given

    @property
    def total_seconds(self) -> float:
        """Seconds that one request of s3fs may take: obstore's option ``timeout``, unless that is in words."""
        timeout = self.client_options.get("timeout")
        if isinstance(timeout, timedelta):
            return timeout.total_seconds()
        return float(timeout) if isinstance(timeout, (int, float)) else TOTAL_SECONDS

    @property
    def explicit_keys(self) -> tuple[str, str, str | None] | None:
        """Key id, secret and token that the options name; None where the chain of botocore is to find them."""
        key = self.s3fs.get("key") or self.client.get("aws_access_key_id")
        secret = self.s3fs.get("secret") or self.client.get("aws_secret_access_key")
        token = self.s3fs.get("token") or self.client.get("aws_session_token")
        return (key, secret, token) if key and secret else None

    @property
    def session(self) -> bool:
        """Whether requests carry a session token, as far as options and environment tell."""
        keys = self.explicit_keys
        return bool(keys[2]) if keys is not None else bool(os.environ.get("AWS_SESSION_TOKEN"))


def understood(storage_options: Mapping[str, object]) -> S3Options:
    """Return what ``storage_options`` and the environment mean.

    ``AWS_NO_SIGN_REQUEST``, ``AWS_REQUEST_PAYER`` and ``AWS_REGION`` are read here, since botocore does not; all other
    variables and files are botocore's ("Configuration and credential file settings", AWS SDKs and Tools Reference).

    Raises
    ------
    UsageError
        An option that neither s3fs nor obstore has, or that is not of its kind.
    """
    options: dict[str, Any] = dict(storage_options)
    known = set(inspect.signature(S3FileSystem.__init__).parameters) | _WITHOUT_EFFECT | OF_SESSION | OBSTORE_OPTIONS
    if unknown := sorted(str(name) for name in options if name not in known - {"self", "kwargs"}):
        raise UsageError(
            f"s3 has no storage option {one_line(', '.join(unknown))} "
            "(known: anon, key, secret, token, profile, endpoint_url, requester_pays, client_kwargs, config_kwargs "
            "and the others of s3fs)"
        )
    for name in ("client_kwargs", "config_kwargs", "s3_additional_kwargs", *OBSTORE_OPTIONS):
        if not isinstance(options.get(name) or {}, Mapping):
            raise UsageError(f"the storage option {name} is a table of options")
    client_options = options.pop("client_options", None) or {}
    retry_config = options.pop("retry_config", None) or {}
    # As S3FileSystem does by itself: FSSPEC_S3_* variables and fsspec's configuration files.
    options = apply_config(S3FileSystem, options)
    for alias, name in (("username", "key"), ("password", "secret")):
        if (value := options.pop(alias, None)) and not options.get(name):
            options[name] = value
    for name in _WITHOUT_EFFECT:
        options.pop(name, None)
    client = dict(options.get("client_kwargs") or {})
    config = dict(options.get("config_kwargs") or {})
    if not (client.get("region_name") or config.get("region_name")) and (region := os.environ.get("AWS_REGION")):
        client["region_name"] = region  # botocore reads AWS_DEFAULT_REGION only
    options["client_kwargs"], options["config_kwargs"] = client, config
    options["anon"] = anon = _anonymous(options)
    payer = os.environ.get("AWS_REQUEST_PAYER", "").lower()
    options["requester_pays"] = pays = bool(options.get("requester_pays", payer in _TRUE | {"requester"}))
    return S3Options(anon, pays, options, client_options, retry_config, _only_s3fs(options))


def _anonymous(options: Mapping[str, Any]) -> bool:
    if options.get("anon") is not None:
        return bool(options["anon"])
    if options.get("key") or options["client_kwargs"].get("aws_access_key_id") or options.get("profile"):
        return False
    return any(os.environ.get(name, "").lower() in _TRUE for name in ("AWS_NO_SIGN_REQUEST", "AWS_SKIP_SIGNATURE"))


def _only_s3fs(options: Mapping[str, Any]) -> str | None:
    """Return the first option that obstore cannot be told."""
    for name in sorted(options):
        if name not in _SAME_TO_BOTH and options[name]:
            return name
    client, config = options["client_kwargs"], options["config_kwargs"]
    for given, known, where in ((client, _CLIENT, "client_kwargs"), (config, _CONFIG, "config_kwargs")):
        if other := sorted(str(name) for name in given if name not in known):
            return f"{where}.{other[0]}"
    if other := sorted(str(name) for name in config.get("s3") or {} if name != "addressing_style"):
        return f"config_kwargs.s3.{other[0]}"
    return None
