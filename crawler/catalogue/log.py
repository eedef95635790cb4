"""The log of the catalogue: which Parquet files are the catalogue, version by version.

One Delta table, partitioned by ``table``, so that one commit changes all three tables or none, on any store, and any
Delta reader opens the catalogue. Only the log is delta-rs'; it never writes or rewrites our Parquet files, because it
would lose their order, their row groups and the whole-url statistics.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, RemoveAction
from pyarrow.fs import FileSelector, FileType

from crawler.catalogue.deleting import delete_files
from crawler.catalogue.folder import Folder, open_folder
from crawler.catalogue.fragments import FRAGMENT_PATH, Fragment
from crawler.catalogue.schema import SCHEMA_VERSION, TABLES, log_schema
from crawler.catalogue.snapshot import Fragments, Snapshot
from crawler.errors import CatalogueError, CrawlerError
from crawler.stores.urls import PathOrUrl, one_line, text_of

_NAME = "crawler-catalogue"
_ATTEMPTS = 20
_LOG = "_delta_log"
_OWN = "_crawler"
_LAST_VERSION = 2**63 - 1  # that the log has numbers for
_S3_ERROR = re.compile("<Code>([^<]*)</Code>.*?<Message>([^<]*)</Message>", re.DOTALL)
"""What S3 answers ("Error responses", Amazon S3 API Reference), at the foot of delta-rs' stack."""

FAULTS = (OSError, DeltaError, pa.ArrowException, ValueError)
"""What the libraries below raise of files that cannot be read or written. ValueError is of paths that cannot be."""


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
    location : str or pathlib.Path
        Path or URL of the catalogue's folder.
    storage_options : mapping, optional
        Of its store, as fsspec spells them.
    reading : bool
        Nothing is written: see `crawler.catalogue.folder.open_folder`.
    """

    def __init__(
        self, location: PathOrUrl, storage_options: Mapping[str, Any] | None = None, *, reading: bool = False
    ) -> None:
        place = text_of(location)
        try:
            self.folder: Folder = open_folder(place, storage_options, reading=reading)
        except CrawlerError as error:
            raise CatalogueError(place, str(error)) from None
        self.url = self.folder.url
        if unquote(self.folder.path) != self.folder.path:
            # delta-rs 1.6 writes to such a folder, and then reads from the one without the escape.
            raise CatalogueError(self.url, "its path has a percent escape, as %20 is, in it: choose another")
        self._refuse_links()

    def _refuse_links(self) -> None:
        """Refuse folders and files of the log that lie elsewhere: what is read and deleted lies in this folder alone.

        Raises
        ------
        CatalogueError
        """
        try:
            links = [name for name in (_LOG, _OWN, *(f"table={name}" for name in TABLES)) if self.folder.is_link(name)]
            links += [f"{inner}/{name}" for inner in (_LOG, _OWN) for name in self.folder.links(inner)]
        except FAULTS as error:
            raise CatalogueError(self.url, f"cannot be read: {first_line(error)}") from None
        if links:
            reason = "is a symbolic link; a catalogue lies in one folder: put what the link leads to in its place"
            raise CatalogueError(self.url, f"{one_line(min(links))} {reason}")

    def create(self) -> None:
        """Make the catalogue unless it is there.

        Raises
        ------
        CatalogueError
            The folder holds something else, is newer than this program, or cannot be written.
        """
        if self.exists():
            self.open()
            return
        self.check_place()
        try:
            self.folder.make()
            DeltaTable.create(
                self.folder.log_uri,
                schema=log_schema(),
                partition_by=["table"],
                mode="ignore",  # another run may be making it at this moment
                name=f"{_NAME}/{SCHEMA_VERSION}",
                description="FITS headers: files, hdus and cards",
                storage_options=self.folder.log_options() or None,
            )
        except FAULTS as error:
            if not self.exists():
                raise CatalogueError(self.url, f"cannot be written: {first_line(error)}") from None
            self.open()  # another run made it first

    def check_place(self) -> None:
        """Check that a new catalogue can be made in the folder, as far as reading it tells.

        Raises
        ------
        CatalogueError
            The folder is a file, holds other things, or cannot be read.
        """
        try:
            kind = self.folder.filesystem.get_file_info(self.folder.path).type.name
            foreign = kind == "Directory" and self._foreign_entries()
        except FAULTS as error:
            raise CatalogueError(self.url, f"cannot be read: {first_line(error)}") from None
        if kind == "File":
            raise CatalogueError(self.url, "is a file, not a folder")
        if foreign:
            raise CatalogueError(
                self.url, "is a folder with other things in it and no catalogue; name a new or an empty one"
            )

    def snapshot(self, version: int | None = None) -> Snapshot:
        """Return the files of a version, the latest by default.

        Raises
        ------
        CatalogueError
            There is no catalogue, no such version, or the log cannot be read.
        """
        table = self.open(version)
        fragments = self._fragments_of(table)
        return Snapshot(table.version(), lambda: fragments)

    def _fragments_of(self, table: DeltaTable) -> dict[str, Fragments]:
        actions = pa.table(table.get_add_actions(flatten=True))
        logged = {
            "path": "path",
            "size": "size_bytes",
            "rows": "num_records",
            "first_url": "min.url",
            "last_url": "max.url",
        }
        if not actions.num_rows:  # and then no statistics either
            columns = pa.table({name: pa.array([], pa.string()) for name in ("table", *logged, "longest_header")})
        else:
            missing = {"partition.table", *logged.values()} - set(actions.column_names)
            if missing or any(actions[column].null_count for column in ("partition.table", *logged.values())):
                raise CatalogueError(self.url, "holds files that another program wrote: its log lacks their urls")
            self._refuse_paths(actions)
            longest = (
                actions["max.header_size"].fill_null(0)
                if "max.header_size" in actions.column_names
                else pa.repeat(pa.scalar(0, pa.int64()), actions.num_rows)
            )
            columns = pa.table(
                {
                    "table": actions["partition.table"],
                    **{name: actions[column] for name, column in logged.items()},
                    "longest_header": longest,
                }
            )
        return {name: Fragments(name, columns.filter(pc.equal(columns["table"], name))) for name in TABLES}

    def _refuse_paths(self, actions: pa.Table) -> None:
        """Refuse a log that names files which no catalogue has: of other folders, say."""
        table = pc.struct_field(pc.extract_regex(actions["path"], f"^{FRAGMENT_PATH}$"), "table")
        inside = pc.equal(table, actions["partition.table"]).fill_null(False)
        wrong = actions["path"].filter(pc.invert(inside))
        if len(wrong):
            raise CatalogueError(
                self.url,
                f"its log names {one_line(repr(wrong[0].as_py()), limit=200)}, which is no file of a catalogue "
                "(table=NAME/FILE.parquet): another program changed the log",
            )

    def commit(self, plan: Callable[[Snapshot], Change], metadata: dict[str, str]) -> Snapshot | None:
        """Change the catalogue in one step: all of the change is seen by readers, or none of it.

        Parameters
        ----------
        plan : callable
            Given the latest version, returns what to add and remove. Called again, with a newer version, when
            another run committed in between, or merged and deleted files that the plan wanted to read. It must
            leave no files behind from the call before. The files of the version are made out only if it looks at
            them: who just adds some need not, which halves the time of a commit to a large catalogue.
        metadata : dict
            Kept in the log with the commit.

        Returns
        -------
        Snapshot or None
            The version that the change was made on, the one before that which it made; None where there was nothing
            to change.

        Raises
        ------
        CatalogueError
            The log cannot be written, or conflicts again and again.
        """
        for _ in range(_ATTEMPTS):
            # Reopened each time: a table kept open slows with every commit (46 ms at first, 173 ms at the 400th).
            table = self.open()
            before = Snapshot(table.version(), partial(self._fragments_of, table))
            try:
                change = plan(before)
            except FileNotFoundError as error:
                if self.snapshot().version == before.version:
                    raise CatalogueError(self.url, f"is damaged: {first_line(error)}") from None
                continue
            except (OSError, pa.ArrowException) as error:
                raise CatalogueError(self.url, f"cannot be rewritten: {first_line(error)}") from None
            now = int(time.time() * 1000)
            actions: list[AddAction | RemoveAction] = [
                AddAction(one.path, one.size, {"table": one.table}, now, True, one.stats()) for one in change.add
            ]
            actions += [RemoveAction(one.path, True, now, one.size, {"table": one.table}) for one in change.remove]
            if not actions:
                return None
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
            except FAULTS as error:
                raise CatalogueError(self.url, f"cannot be written: {first_line(error)}") from None
            return before
        raise CatalogueError(self.url, f"other runs changed it {_ATTEMPTS} times while this one tried to commit")

    def delete_files(self, fragments: Iterable[Fragment]) -> None:
        """Delete Parquet files that no version refers to, or only versions that nobody is promised."""
        try:
            delete_files(self.folder, [self.folder.join(fragment.path) for fragment in fragments])
        except OSError as error:
            raise CatalogueError(self.url, f"cannot be written: {first_line(error)}") from None

    def exists(self) -> bool:
        """Tell whether there is a log with something in it.

        A run that died, or one that is creating the catalogue at this moment, may have made no more than its folder.
        """
        try:
            found = self.folder.filesystem.get_file_info(FileSelector(self.folder.join(_LOG), allow_not_found=True))
        except NotADirectoryError:
            return False
        except FAULTS as error:
            raise CatalogueError(self.url, f"cannot be read: {first_line(error)}") from None
        return any(info.extension in {"json", "parquet"} for info in found)

    def _foreign_entries(self) -> bool:
        found = self.folder.filesystem.get_file_info(FileSelector(self.folder.path))
        ours = {_LOG, _OWN}  # a run that died may have kept its listing, and made no more
        return any(info.base_name not in ours or info.type != FileType.Directory for info in found)

    def open(self, version: int | None = None) -> DeltaTable:
        """Return the Delta table at a version, the latest by default, once it is seen to be a catalogue.

        Raises
        ------
        CatalogueError
            There is no catalogue, no such version, or the log cannot be read.
        """
        if not self.exists():
            raise CatalogueError(self.url, "there is no catalogue here")
        try:
            table = self._table(version)
            name, _, schema = (table.metadata().name or "").partition("/")
        except FAULTS as error:
            reason = f"version {version} cannot be read" if version is not None else "cannot be read"
            raise CatalogueError(self.url, f"{reason}: {first_line(error)}") from None
        if name != _NAME or not schema.isdigit():
            raise CatalogueError(self.url, "is a Delta table, but no catalogue of FITS headers")
        if int(schema) > SCHEMA_VERSION:
            raise CatalogueError(self.url, f"was written by a newer release (schema {schema}): upgrade to open it")
        return table

    def _table(self, version: int | None) -> DeltaTable:
        """Load the log up to a version: once, as that takes a fifth of a second where there are 50,000 files."""
        options = self.folder.log_options() or None
        fault: Exception | None = None
        if version is not None and 0 <= version <= _LAST_VERSION:
            try:
                return DeltaTable(self.folder.log_uri, version=version, storage_options=options)
            except FAULTS as error:
                fault = error
        table = DeltaTable(self.folder.log_uri, storage_options=options)
        if version is not None and not 0 <= version <= table.version():
            raise CatalogueError(self.url, f"there is no version {version}: the latest is {table.version()}")
        if fault is not None:
            raise fault
        return table


def first_line(error: Exception) -> str:
    """Return what an error of a library below says, on one line of bearable length."""
    if answer := _S3_ERROR.search(str(error)):
        return one_line(": ".join(filter(None, answer.groups())), limit=300)  # Ceph has codes without a message
    if answer := getattr(error.__cause__, "response", None):  # of botocore, kept by s3fs
        told = answer.get("Error", {})
        return one_line(": ".join(filter(None, (told.get("Code"), told.get("Message")))), limit=300)
    lines = (" ".join(line.split()) for line in str(error).splitlines())
    # Below the first, delta-rs prints its own stack.
    return one_line(next(filter(None, lines), type(error).__name__), limit=300)
