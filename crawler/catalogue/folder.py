"""Where the catalogue's own files lie: a folder on the local disk or below a prefix of S3.

The catalogue is read and written as Parquet files, not as FITS objects, so it wants a file system (pyarrow's) and a
Delta log (delta-rs'), rather than an `ObjectStore`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow.fs as pafs

from crawler.errors import UsageError
from crawler.stores.urls import S3_SCHEMES, as_url, file_path, printable, scheme_of


def _no_options() -> dict[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder on some file system.

    Attributes
    ----------
    url : str
        As messages name it.
    filesystem : pyarrow.fs.FileSystem
    path : str
        Of the folder on that file system, without a slash at its end.
    log_uri : str
        What delta-rs calls the folder.
    log_options : callable
        Returns delta-rs' storage options, with credentials that are good now. May hold secrets.
    """

    url: str
    filesystem: Any
    path: str
    log_uri: str
    log_options: Callable[[], dict[str, str]] = field(default=_no_options, repr=False)

    @property
    def _local(self) -> bool:
        return scheme_of(self.url) == "file"

    def join(self, relative: str) -> str:
        """Return the path of a file below the folder; ``relative`` is separated by slashes."""
        return f"{self.path}/{relative}"

    def make(self, relative: str = "") -> None:
        """Make the folder, or one below it. S3 has none, and would be asked for a bucket."""
        if self._local:
            self.filesystem.create_dir(self.join(relative) if relative else self.path, recursive=True)

    def links(self, relative: str) -> set[str]:
        """Return the names of the symbolic links in a folder below. S3 has none."""
        if not self._local:
            return set()
        try:
            with os.scandir(_encoded(self.join(relative))) as entries:
                return {entry.name.decode("utf-8", "backslashreplace") for entry in entries if entry.is_symlink()}
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def is_link(self, relative: str) -> bool:
        """Tell whether a file below the folder is a symbolic link, which may lead out of it. S3 has none."""
        # Not pathlib's: this is asked of each of 50,000 files, and costs 3 us instead of 17.
        return os.path.islink(_encoded(self.join(relative))) and self._local  # noqa: PTH114

    def open(self, relative: str) -> Any:
        """Open a file for reading at any place.

        Raises
        ------
        OSError
            `FileNotFoundError` where there is none. A symbolic link is not followed.
        """
        self._refuse_link(relative)
        return self.filesystem.open_input_file(self.join(relative))

    def _refuse_link(self, relative: str) -> None:
        if self.is_link(relative):
            raise OSError(f"{relative} is a symbolic link, which is not followed")

    def get(self, relative: str) -> bytes:
        """Read a small file as it was at one moment, though another run may replace it meanwhile.

        Raises
        ------
        OSError
            `FileNotFoundError` where there is none. A symbolic link is not followed.
        """
        self._refuse_link(relative)
        path = self.join(relative)
        if self._local:
            with self.filesystem.open_input_stream(path) as source:
                return bytes(source.read())
        # s3fs looks at a file before it is opened, and fails where it is another by then; this is one request, while
        # `start` is given.
        return bytes(self.filesystem.handler.fs.cat_file(path, start=0))

    def put(self, relative: str, data: bytes) -> None:
        """Write a small file, whole or not at all; one that is there is replaced.

        Raises
        ------
        OSError
        """
        path, local = self.join(relative), self._local  # S3 shows an object once it is whole
        written = f"{path}.{os.getpid()}.part" if local else path
        self.make(relative.rpartition("/")[0])
        with self.filesystem.open_output_stream(written) as sink:
            sink.write(data)
        if local:
            self.filesystem.move(written, path)


def _encoded(path: str) -> bytes:
    """Return a path as Arrow encodes it: as UTF-8, whatever the locale."""
    return path.encode("utf-8", "surrogateescape")


def open_folder(location: str, storage_options: Mapping[str, Any] | None = None, *, reading: bool = False) -> Folder:
    """Open a folder by its path or URL. It need not exist; nothing is asked of the store yet.

    Parameters
    ----------
    location : str
    storage_options : mapping, optional
        Of S3, as fsspec spells them; the local disk has none.
    reading : bool
        Nothing is written, so that no credentials are needed where the bucket is public.

    Raises
    ------
    UsageError
        It is neither on the local disk nor on S3, or an option is not known.
    """
    url = as_url(location).rstrip("/")
    scheme = scheme_of(url)
    if scheme in S3_SCHEMES:
        return _on_s3(url, storage_options or {}, reading=reading)
    if scheme != "file":
        raise UsageError(f"a catalogue lies on the local disk or on s3, not at {scheme}://: {printable(location)}")
    if storage_options:
        raise UsageError(f"a local folder takes no storage options: {', '.join(map(str, storage_options))}")
    # Arrow and delta-rs write names in UTF-8, whatever the encoding of this locale is.
    path = os.fsencode(file_path(url)).decode("utf-8", "surrogateescape")
    return Folder(url, pafs.LocalFileSystem(), path, path)


def _on_s3(url: str, storage_options: Mapping[str, Any], *, reading: bool) -> Folder:
    # Imported here: a catalogue on the local disk need not wait for botocore.
    from crawler.stores.s3.filesystem import S3Files, environment_token  # noqa: PLC0415
    from crawler.stores.s3.session import S3Session  # noqa: PLC0415
    from crawler.stores.s3.storage_options import understood  # noqa: PLC0415

    options = understood(storage_options)
    if options.anon and not reading:
        raise UsageError(f"a catalogue cannot be written without credentials: {url}")
    session = S3Session(options)
    # Ranges as Arrow asks for them, and listings as they are now: other runs write here too.
    filesystem = S3Files(
        **options.s3fs, environment=environment_token(), use_listings_cache=False, default_cache_type="none"
    )

    def log_options() -> dict[str, str]:
        endpoint = session.endpoint(url)
        if options.anon:
            proof = {"aws_skip_signature": "true"}
        else:
            known = session.credentials(url)()
            proof = {
                "aws_access_key_id": known["access_key_id"],
                "aws_secret_access_key": known["secret_access_key"],
                "aws_session_token": known["token"],
            }
        found = {
            **proof,
            "aws_region": endpoint.region,
            "aws_endpoint_url": endpoint.url,
            "aws_allow_http": "true" if endpoint.url.startswith("http:") else "false",
            "aws_virtual_hosted_style_request": "true" if endpoint.style == "virtual" else "false",
            # A version is written only where there is none of its number yet (conditional writes, Amazon S3 User
            # Guide), so that of two runs that commit at once one is told.
            "aws_conditional_put": "etag",
        }
        return {name: value for name, value in found.items() if value}

    return Folder(url, pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), url.partition("://")[2], url, log_options)
