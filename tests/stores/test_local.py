"""Local folders: names, links, what may not be read, order."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from crawler.errors import AccessDeniedError, ObjectChangedError, ObjectNotFoundError
from crawler.stores import ByteRange, ObjectRef
from crawler.stores.local import LocalStore
from crawler.stores.urls import file_path, file_url
from tests.stores.suite import ODD_NAMES

STORE = LocalStore()


def listed(folder: Path) -> dict[str, ObjectRef]:
    """Return refs by path relative to ``folder``, in the order listed."""
    rows = [row for batch in STORE.list(file_url(str(folder))) for row in batch.to_pylist()]
    return {os.path.relpath(file_path(row["url"]), folder): ObjectRef(**row) for row in rows}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in ("b/x.fits", "b.fits", "b-c/x.fits", "a.fits"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"data")
    return tmp_path


@pytest.mark.parametrize("kind", ODD_NAMES)
def test_urls_are_those_of_pathlib(kind: str) -> None:
    path = Path("/data") / ODD_NAMES[kind]
    assert file_url(str(path)) == path.as_uri()
    assert file_path(path.as_uri()) == str(path)


def test_order_is_that_of_whole_paths(tree: Path) -> None:
    assert list(listed(tree)) == ["a.fits", "b-c/x.fits", "b.fits", "b/x.fits"]


def test_batches_are_bounded(tmp_path: Path) -> None:
    for number in range(1001):
        (tmp_path / f"{number:04}.fits").touch()
    assert [batch.num_rows for batch in STORE.list(file_url(str(tmp_path)))] == [1000, 1]


def test_links_to_files_and_folders_are_followed(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other")
    (other / "o.fits").write_bytes(b"other")
    (tree / "to-file.fits").symlink_to(other / "o.fits")
    (tree / "to-folder").symlink_to(other)
    found = listed(tree)
    assert found["to-file.fits"].size == found["to-folder/o.fits"].size == 5


@pytest.mark.parametrize("target", [".", "..", "b"], ids=["itself", "parent", "sibling"])
def test_links_in_a_loop_end(tree: Path, target: str) -> None:
    (tree / "b" / "loop").symlink_to(tree / "b" / target)
    if target == "b":  # one link that leads to the other, and back
        (tree / "b" / "b").symlink_to(tree / "b" / "loop")
    assert "b/x.fits" in listed(tree)


def test_broken_links_are_listed_without_size(tree: Path) -> None:
    (tree / "broken.fits").symlink_to(tree / "gone")
    (tree / "itself.fits").symlink_to(tree / "itself.fits")
    found = listed(tree)
    for name in ("broken.fits", "itself.fits"):
        assert found[name] == ObjectRef(file_url(str(tree / name)))
        with pytest.raises(ObjectNotFoundError):
            STORE.get(found[name], ByteRange(0, 1))


@pytest.fixture
def fifo(tree: Path) -> Path:
    os.mkfifo(tree / "fifo.fits")
    return tree / "fifo.fits"


def test_fifos_and_sockets_are_skipped(tree: Path, fifo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)  # a socket's path has 107 bytes at most
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.fits")
        assert list(listed(tree)) == ["a.fits", "b-c/x.fits", "b.fits", "b/x.fits"]


def test_fifo_is_no_object_and_nothing_waits(fifo: Path) -> None:
    with pytest.raises(ObjectNotFoundError):
        STORE.head(file_url(str(fifo)))
    with pytest.raises(ObjectNotFoundError, match="not a regular file"):
        STORE.get(ObjectRef(file_url(str(fifo))), ByteRange(0, 1))


def refusing(monkeypatch: pytest.MonkeyPatch, refused: str, error: type[OSError]) -> None:
    """Let one folder refuse to be read: the superuser's tests cannot have permissions do it."""
    scandir = os.scandir

    def scan(path: bytes) -> Iterator[os.DirEntry[bytes]]:
        if os.path.basename(path) == refused.encode():  # noqa: PTH119 - bytes, which pathlib does not take
            raise error(path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)


def test_unreadable_folder_is_an_error_that_names_it(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, "b-c", PermissionError)
    with pytest.raises(AccessDeniedError, match="/b-c"):
        listed(tree)


def test_folder_removed_meanwhile_is_skipped(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing(monkeypatch, "b-c", FileNotFoundError)
    assert list(listed(tree)) == ["a.fits", "b.fits", "b/x.fits"]


@pytest.mark.parametrize("name", ["nowhere", "a.fits", "a.fits/below", "x" * 300, "nul\0byte"], ids=ascii)
def test_list_of_no_folder(tree: Path, name: str) -> None:
    with pytest.raises(ObjectNotFoundError):
        listed(tree / name)


def test_written_to_in_place(tree: Path) -> None:
    url = file_url(str(tree / "a.fits"))
    ref = STORE.head(url)
    (tree / "a.fits").write_bytes(b"DATA")
    # The clock that stamps files may not have ticked since: another time is set, as it would be a moment later.
    status = (tree / "a.fits").stat()
    os.utime(tree / "a.fits", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with pytest.raises(ObjectChangedError):
        STORE.get(ref, ByteRange(0, 4))
