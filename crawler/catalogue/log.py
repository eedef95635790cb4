"""The log of the catalogue: which Parquet files are the catalogue, version by version.

One Delta table, partitioned by ``table``, so that one commit changes all three tables or none, on any store, and any
Delta reader opens the catalogue. Only the log is delta-rs'; it never writes or rewrites our Parquet files, because it
would lose their order, their row groups and the whole-url statistics.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction, RemoveAction

from crawler.catalogue.fragments import Fragment
from crawler.catalogue.schema import SCHEMA_VERSION, log_schema
from crawler.errors import CatalogueError, CrawlerError
from crawler.stores.storage import Folder, open_folder

_NAME = "crawler-catalogue"
_ATTEMPTS = 20
_LOG = "_delta_log"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The catalogue at one version.

    Attributes
    ----------
    version : int
    fragments : tuple of Fragment
        Of all three tables.
    """

    version: int
    fragments: tuple[Fragment, ...]

    def of(self, table: str) -> list[Fragment]:
        """Return the files of one table."""
        return [fragment for fragment in self.fragments if fragment.table == table]


@dataclass(frozen=True, slots=True)
class Change:
    """What one commit adds and removes.

    Attributes
    ----------
    add, remove : list of Fragment
    """

    add: list[Fragment] = field(default_factory=list)
    remove: list[Fragment] = field(default_factory=list)


class CatalogueLog:
    """The log of one catalogue.

    Parameters
    ----------
    location : str
        Path or URL of the catalogue's folder.
    """

    def __init__(self, location: str) -> None:
        try:
            self.folder: Folder = open_folder(location)
        except CrawlerError as error:
            raise CatalogueError(location, str(error)) from None
        self.url = self.folder.url

    def create(self) -> None:
        """Make the catalogue unless it is there.

        Raises
        ------
        CatalogueError
            The folder holds something else, is newer than this program, or cannot be written.
        """
        if self._exists():
            self._open(None)
            return
        filesystem, path = self.folder.filesystem, self.folder.path
        try:
            kind = filesystem.get_file_info(path).type.name
            if kind == "File":
                raise CatalogueError(self.url, "is a file, not a folder")
            if kind == "Directory" and self._foreign_entries():
                raise CatalogueError(
                    self.url, "is a folder with other things in it and no catalogue; name a new or an empty one"
                )
            filesystem.create_dir(path, recursive=True)
            DeltaTable.create(
                path,
                schema=log_schema(),
                partition_by=["table"],
                mode="ignore",  # another run may be making it at this moment
                name=f"{_NAME}/{SCHEMA_VERSION}",
                description="FITS headers: files, hdus and cards",
            )
        except (OSError, DeltaError) as error:
            raise CatalogueError(self.url, f"cannot be written: {_first_line(error)}") from None

    def snapshot(self, version: int | None = None) -> Snapshot:
        """Return the files of a version, the latest by default.

        Raises
        ------
        CatalogueError
            There is no catalogue, no such version, or the log cannot be read.
        """
        table = self._open(version)
        actions = pa.table(table.get_add_actions(flatten=True))
        if not actions.num_rows:
            return Snapshot(table.version(), ())
        columns = ("partition.table", "path", "size_bytes", "num_records", "min.url", "max.url")
        rows = zip(*(actions[column].to_pylist() for column in columns), strict=True)
        return Snapshot(table.version(), tuple(Fragment(*row) for row in rows))

    def commit(self, plan: Callable[[Snapshot], Change], metadata: dict[str, str]) -> Snapshot | None:
        """Change the catalogue in one step: all of the change is seen by readers, or none of it.

        Parameters
        ----------
        plan : callable
            Given the latest version, returns what to add and remove. Called again, with a newer version, when
            another run committed in between something that conflicts. It must leave no files behind from the call
            before.
        metadata : dict
            Kept in the log with the commit.

        Returns
        -------
        Snapshot or None
            The version that the change was made on; None where there was nothing to change.

        Raises
        ------
        CatalogueError
            The log cannot be written, or conflicts again and again.
        """
        for _ in range(_ATTEMPTS):
            # Reopened each time: a table kept open slows with every commit (46 ms at first, 173 ms at the 400th).
            before = self.snapshot()
            change = plan(before)
            now = int(time.time() * 1000)
            actions: list[AddAction | RemoveAction] = [
                AddAction(one.path, one.size, {"table": one.table}, now, True, one.stats()) for one in change.add
            ]
            actions += [RemoveAction(one.path, True, now, one.size, {"table": one.table}) for one in change.remove]
            if not actions:
                return None
            table = self._open(before.version)
            try:
                table.create_write_transaction(
                    actions,
                    mode="append",
                    schema=table.schema(),
                    partition_by=["table"],
                    commit_properties=CommitProperties(custom_metadata=metadata, max_commit_retries=0),
                )
            except CommitFailedError:
                continue
            except (OSError, DeltaError) as error:
                raise CatalogueError(self.url, f"cannot be written: {_first_line(error)}") from None
            return before
        raise CatalogueError(self.url, f"other runs changed it {_ATTEMPTS} times while this one tried to commit")

    def delete_files(self, fragments: Iterable[Fragment]) -> None:
        """Delete Parquet files that no version refers to, or only versions that nobody is promised."""
        for fragment in fragments:
            try:
                self.folder.filesystem.delete_file(self.folder.join(fragment.path))
            except FileNotFoundError:
                continue
            except OSError as error:
                raise CatalogueError(self.url, f"cannot be written: {_first_line(error)}") from None

    def _exists(self) -> bool:
        try:
            return bool(self.folder.filesystem.get_file_info(self.folder.join(_LOG)).type.name == "Directory")
        except OSError as error:
            raise CatalogueError(self.url, f"cannot be read: {_first_line(error)}") from None

    def _foreign_entries(self) -> bool:
        from pyarrow.fs import FileSelector  # noqa: PLC0415 - only for a folder that is there already

        return bool(self.folder.filesystem.get_file_info(FileSelector(self.folder.path)))

    def _open(self, version: int | None) -> DeltaTable:
        if not self._exists():
            raise CatalogueError(self.url, "there is no catalogue here")
        try:
            table = DeltaTable(self.folder.path, version=version)
            name, _, schema = (table.metadata().name or "").partition("/")
        except TableNotFoundError:
            raise CatalogueError(self.url, f"there is no version {version}" if version else "is damaged") from None
        except (OSError, DeltaError) as error:
            reason = f"version {version} cannot be read" if version is not None else "cannot be read"
            raise CatalogueError(self.url, f"{reason}: {_first_line(error)}") from None
        if name != _NAME or not schema.isdigit():
            raise CatalogueError(self.url, "is a Delta table, but no catalogue of FITS headers")
        if int(schema) > SCHEMA_VERSION:
            raise CatalogueError(self.url, f"was written by a newer release (schema {schema}): upgrade to open it")
        return table


def _first_line(error: Exception) -> str:
    """Return what an error of a library below says, on one line of bearable length."""
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else text[:297] + "..."
