"""Stores: the only place that knows obstore, fsspec, s3fs and aiohttp.

`open_store` is the one place where the scheme of a URL picks an adapter.
"""

# Adapters are imported where they are used: each brings libraries that reading another scheme need not load.
# ruff: noqa: PLC0415

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from crawler.errors import UsageError
from crawler.stores.base import ByteRange, Fetched, ObjectRef, ObjectStore
from crawler.stores.errors import sealed
from crawler.stores.retry import Patient, Traffic
from crawler.stores.urls import S3_SCHEMES, as_url, one_line, scheme_of

__all__ = [
    "Adapter",
    "ByteRange",
    "Fetched",
    "ObjectRef",
    "ObjectStore",
    "Traffic",
    "as_url",
    "is_known_scheme",
    "open_store",
]

Adapter = Literal["auto", "obstore", "fsspec"]

_WEB = ("http", "https")
_OBSTORE_SCHEMES = ("memory",)
_SOCKET_OPTIONS = frozenset({"headers", "client_options"})


@sealed
def open_store(
    url_or_scheme: str,
    storage_options: Mapping[str, object] | None = None,
    *,
    adapter: Adapter = "auto",
    traffic: Traffic | None = None,
) -> ObjectStore:
    """Return the store that reads URLs of one scheme.

    Parameters
    ----------
    url_or_scheme : str
        ``s3``, or any URL of that scheme: the store serves all URLs of the scheme, whatever their host or
        bucket. ``s3a`` and ``s3n`` are ``s3``.
    storage_options : Mapping[str, object] or None
        As fsspec takes them. For ``http(s)``, any option but ``headers`` and ``client_options`` (see
        `crawler.stores.http.socket_transport.SocketTransport`) means fsspec. For ``s3`` those of s3fs, and obstore's
        ``client_options`` and ``retry_config``.
    adapter : {"auto", "obstore", "fsspec"}
        ``auto``: the system's own calls for ``file``, Python's own HTTP client for ``http(s)``, obstore for ``s3``,
        fsspec for all others. ``obstore``: the same, but fails for options and schemes that only fsspec takes.

    traffic : Traffic, optional
        What requests are made through: tried again, limited and counted. Without it each library tries again by itself.
        The local disk and memory have none.

    Raises
    ------
    UsageError
        A scheme that nothing here reads, or not by that adapter; a package that it needs is not installed; a
        storage option that is not known.
    """
    scheme = scheme_of(url_or_scheme) or url_or_scheme.lower()
    options = dict(storage_options or {})
    if adapter not in ("auto", "obstore", "fsspec"):
        raise UsageError(f"no such adapter: {one_line(adapter)} (auto, obstore, fsspec)")
    if not is_known_scheme(scheme):
        raise UsageError(
            f"no store reads {one_line(scheme)}:// URLs "
            "(known: file, http, https, memory, s3, gs, az, abfs, ftp, sftp and the others of fsspec)"
        )
    if traffic is not None and scheme not in ("file", "memory"):
        return Patient(_opened(scheme, _trying_once(scheme, options), adapter, traffic), traffic)
    return _opened(scheme, options, adapter, traffic)


def _trying_once(scheme: str, options: Mapping[str, object]) -> dict[str, object]:
    """Return the options that keep a library from making requests again by itself, unless they say how."""
    if scheme in S3_SCHEMES:
        config, retries = options.get("config_kwargs") or {}, options.get("retry_config") or {}
        if isinstance(config, Mapping) and isinstance(retries, Mapping):
            once = {"retries": {"mode": "standard", "total_max_attempts": 1}}
            return {**options, "config_kwargs": {**once, **config}, "retry_config": {"max_retries": 0, **retries}}
    return dict(options)


def _opened(scheme: str, options: Mapping[str, object], adapter: Adapter, traffic: Traffic | None) -> ObjectStore:
    if scheme in S3_SCHEMES:
        from crawler.stores.s3.store import S3Store

        return S3Store(options, adapter=adapter, traffic=traffic)
    if adapter != "fsspec" and scheme == "file":
        return _local(options)
    if scheme in _WEB:
        return _web(options, adapter)
    if adapter == "obstore":
        return _obstore(scheme, options)
    return _fsspec(scheme, options)


def is_known_scheme(scheme: str) -> bool:
    """Tell whether `open_store` knows the scheme, without importing what it needs."""
    if scheme == "file" or scheme in _OBSTORE_SCHEMES or scheme in _WEB or scheme in S3_SCHEMES:
        return True
    from fsspec.registry import known_implementations, registry

    return scheme in known_implementations or scheme in registry


def _local(options: Mapping[str, object]) -> ObjectStore:
    from crawler.stores.local import LocalStore

    if options:
        raise UsageError(f"local files take no storage options: {one_line(', '.join(map(str, options)))}")
    return LocalStore()


def _obstore(scheme: str, options: Mapping[str, object]) -> ObjectStore:
    from crawler.stores.obstore import ObstoreStore

    if scheme not in _OBSTORE_SCHEMES:
        raise UsageError(f"obstore does not read {one_line(scheme)}:// URLs here: use adapter auto or fsspec")
    if options:
        raise UsageError(f"{scheme} takes no storage options: {one_line(', '.join(map(str, options)))}")
    return ObstoreStore()


def _web(options: Mapping[str, object], adapter: Adapter) -> ObjectStore:
    from crawler.stores.http.store import WebStore

    others = [str(name) for name in options if name not in _SOCKET_OPTIONS]
    if others and adapter == "obstore":
        raise UsageError(f"only fsspec takes the storage option {one_line(', '.join(others))}: use adapter fsspec")
    if others or adapter == "fsspec":
        from crawler.stores.http.aiohttp_transport import AiohttpTransport

        return WebStore(AiohttpTransport(options))
    from crawler.stores.http.socket_transport import SocketTransport

    return WebStore(SocketTransport(options))


def _fsspec(scheme: str, options: Mapping[str, object]) -> ObjectStore:
    import fsspec

    from crawler.stores.fsspec import FsspecStore

    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        raise UsageError(f"{one_line(scheme)}:// URLs need a package: {one_line(str(error))}") from None
    return FsspecStore(options)
