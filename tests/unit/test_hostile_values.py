"""Values of local files, key files, file systems and walks that mean nothing: none ends a crawl."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import fsspec.spec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import crawler
from crawler.catalogue.folder import open_folder
from crawler.catalogue.fragments import new_batch, read_fragment, write_fragment
from crawler.catalogue.reader import Catalogue
from crawler.errors import ListingError
from crawler.fits.layouts import product_of
from crawler.fits.units import Hdu
from crawler.listing import list_roots
from crawler.stores import Adapter, ObjectRef, open_store
from crawler.stores.values import describe, writable
from crawler.worker import context
from crawler.worker.tables import tables_of
from crawler.worker.walk import FileResult, walk_file
from tests.hostile import COLUMNS, GOOD, MODIFIED, NO_TEXT, TYPES, described, indexed, listing_error, raw_text
from tests.s3.bucket_server import BucketServer


class TestLocal:
    @pytest.fixture
    def any_time(self) -> Iterator[Path]:
        """Return a folder on a file system that keeps all 64 bits of a time, as ext4 does not."""
        if not Path("/dev/shm").is_dir():
            pytest.skip("no tmpfs at /dev/shm")
        folder = Path(tempfile.mkdtemp(dir="/dev/shm"))
        yield folder
        shutil.rmtree(folder)

    @pytest.mark.parametrize("store", ["auto", "obstore", "fsspec"])
    def test_modification_time_out_of_range_is_unknown(self, any_time: Path, tmp_path: Path, store: Adapter) -> None:
        seconds = {
            "beyond-9999": 253_402_300_800,
            "beyond-int64-of-microseconds": 10**13,
            "before-1": -62_135_596_801,
            "far-before-1": -(10**13),
            "last": 253_402_300_799,
            "first": -62_135_596_800,
            "negative": -1,
            "good": 1_700_000_000,
        }
        for name, moment in seconds.items():
            path = any_time / f"{name}.fits"
            path.write_bytes(GOOD)
            os.utime(path, (moment, moment))
            assert path.stat().st_mtime == moment
        rows = indexed(tmp_path, str(any_time), store=store)
        found = {url.rpartition("/")[2].removesuffix(".fits"): row for url, row in rows.items()}
        assert {row["status"] for row in rows.values()} == {"ok"}
        assert {name for name, row in found.items() if row["last_modified"] is not None} == {
            "last",
            "first",
            "negative",
            "good",
        }
        assert found["last"]["last_modified"] == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
        assert found["first"]["last_modified"] == datetime(1, 1, 1, tzinfo=UTC)
        if store == "auto":
            assert all(row["pinned"] for row in rows.values())

    def test_odd_names_are_rows(self, tmp_path: Path) -> None:
        folder = tmp_path / "files"
        folder.mkdir()
        names = [b"\xff\xfe", b"new\nline", b"%00", b"%", b" ", b"a\\b", b"::", b"s3:", b"#1", b"\x7f\x01", b"x" * 250]
        for name in names:
            Path(os.fsdecode(bytes(folder) + b"/" + name + b".fits")).write_bytes(GOOD)
        rows = indexed(tmp_path, str(folder))
        assert [row["status"] for row in rows.values()] == ["ok"] * len(names)


# What a file system says of an object beside its name, and the row's size, etag and last_modified.
INFO: dict[str, tuple[dict[str, Any], tuple[Any, Any, Any]]] = {
    "nothing": ({}, (len(GOOD), None, None)),
    "size-text": ({"size": str(len(GOOD))}, (len(GOOD), None, None)),
    "size-words": ({"size": "large"}, (len(GOOD), None, None)),
    "size-float": ({"size": float(len(GOOD))}, (len(GOOD), None, None)),
    "size-nan": ({"size": float("nan")}, (len(GOOD), None, None)),
    "size-negative": ({"size": -1}, (len(GOOD), None, None)),
    "size-huge": ({"size": 2**70}, (len(GOOD), None, None)),
    "mtime-nan": ({"mtime": float("nan")}, (len(GOOD), None, None)),
    "mtime-infinite": ({"mtime": float("inf")}, (len(GOOD), None, None)),
    "mtime-huge": ({"mtime": 1e20}, (len(GOOD), None, None)),
    "mtime-words": ({"mtime": "now"}, (len(GOOD), None, None)),
    "mtime-list": ({"mtime": [1]}, (len(GOOD), None, None)),
    "mtime-odd-created-good": ({"mtime": "now", "created": MODIFIED}, (len(GOOD), None, None)),
    "etag-surrogate": ({"ETag": "\udcff"}, (len(GOOD), None, None)),
    "etag-newline": ({"ETag": "a\nb"}, (len(GOOD), None, None)),
    "etag-nul": ({"ETag": "\0"}, (len(GOOD), None, None)),
    "etag-long": ({"ETag": "x" * 10**6}, (len(GOOD), None, None)),
    "etag-bytes": ({"ETag": b"\x00\xff"}, (len(GOOD), "00ff", None)),
    "etag-number": ({"ETag": 17}, (len(GOOD), "17", None)),
    "version-list": ({"version": ["a"]}, (len(GOOD), None, None)),
}


class HostileFileSystem(fsspec.spec.AbstractFileSystem):  # type: ignore[misc] # fsspec is untyped
    """Says of ``hostile://`` objects what `told` holds."""

    protocol = "hostile"
    told: ClassVar[list[dict[str, Any]]] = []

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        for entry in self.told:
            if "fails" in entry:
                raise entry["fails"]
        return [dict(entry) for entry in self.told]

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        name = self._strip_protocol(path)
        for entry in self.told:
            if entry["name"] == name:
                return {"type": "file", **entry}
        raise FileNotFoundError(path)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        info = self.info(path)
        if "raises" in info:
            raise info["raises"]
        return GOOD[start:end]


@pytest.fixture
def hostile(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return what the file system ``hostile://`` says of its objects; one is good."""
    fsspec.register_implementation("hostile", HostileFileSystem, clobber=True)
    told = [{"name": "bucket/good.fits", "type": "file", "size": len(GOOD)}]
    monkeypatch.setattr(HostileFileSystem, "told", told)
    return told


class TestFileSystems:
    def test_value_without_meaning_is_unknown(self, tmp_path: Path, hostile: list[dict[str, Any]]) -> None:
        hostile += [{"name": f"bucket/{name}.fits", "type": "file", **said} for name, (said, _) in INFO.items()]
        rows = indexed(tmp_path, "hostile://bucket/")
        found = described(rows)
        assert found.pop("good")[0] == "ok"
        assert found == {name: ("ok", None, *expected) for name, (_, expected) in INFO.items()}
        assert not [row for row in rows.values() if row["version"] is not None]

    def test_error_of_any_kind_is_a_row_or_one_line(self, tmp_path: Path, hostile: list[dict[str, Any]]) -> None:
        errors: dict[str, Exception] = {
            type(error).__name__: error
            for error in (
                KeyError("size"),
                TypeError("no"),
                AttributeError("x"),
                AssertionError(),
                RuntimeError("\udcff\n"),
                EOFError(),
            )
        }
        hostile += [{"name": f"bucket/{name}.fits", "raises": error} for name, error in errors.items()]
        found = described(indexed(tmp_path, "hostile://bucket/"))
        assert found.pop("good")[0] == "ok"
        assert {name: one[0] for name, one in found.items()} == dict.fromkeys(errors, "unreadable")
        for name, error in errors.items():
            hostile[:] = [{"name": "bucket/x.fits", "fails": error}]
            assert name in listing_error("hostile://bucket/")

    def test_odd_name_is_a_row(self, tmp_path: Path, hostile: list[dict[str, Any]]) -> None:
        names = ["a\0b", "a\nb", "a::b", "s3://[", "x" * 100_000, "%ff%00"]
        hostile += [{"name": f"bucket/{name}.fits", "size": len(GOOD)} for name in (*names, "\udcff")]  # and no type
        rows = indexed(tmp_path, "hostile://bucket/")
        expected = {f"hostile://bucket/{name}.fits": "ok" for name in ("good", *names)}
        expected["hostile://bucket/\\udcff.fits"] = "unreadable"
        assert {url: row["status"] for url, row in rows.items()} == expected

    def test_panic_of_a_library_is_a_crashed_row(self, tmp_path: Path, hostile: list[dict[str, Any]]) -> None:
        class PanicException(BaseException):  # as those of libraries in Rust, which can only be caught by this name
            pass

        hostile.append({"name": "bucket/odd.fits", "raises": PanicException("at the\ndisco")})
        crawler.index("hostile://bucket/", str(tmp_path / "catalogue"))
        rows = Catalogue(str(tmp_path / "catalogue")).files.to_table().sort_by("url").to_pylist()
        assert [row["status"] for row in rows] == ["ok", "crashed"]
        assert "PanicException" in rows[1]["error"]
        assert rows[1]["error"].isprintable()

    def test_entry_that_names_nothing_is_one_line(self, hostile: list[dict[str, Any]]) -> None:
        hostile.append({"type": "file"})
        assert "without a name" in listing_error("hostile://bucket/")
        hostile[-1] = {"name": "elsewhere/a.fits", "type": "file"}
        assert "elsewhere/a.fits" in listing_error("hostile://bucket/")


# Lines of a key file that name objects which cannot be read.
UNREADABLE: dict[str, bytes] = {
    "data": b"data://text/plain,hello",
    "data-base64": b"data://;base64,////",
    "dir": b"dir:///etc",
    "reference": b"reference://a",
    "zip": b"zip://a.fits",
    "memory": b"memory://a.fits",
    "simplecache": b"simplecache://a.fits",
    "chained": b"simplecache::memory://a.fits",
    "chained-scheme": b"zip://a.fits::memory://b",
    "no-bucket": b"s3:///a.fits",
    "only-scheme": b"s3://",
    "bucket": b"s3://bucket",
    "bucket-odd": b"s3://b\\<>/a.fits",
    "no-host": b"http://",
    "port": b"http://127.0.0.1:99999/a.fits",
    "host-odd": b"http://a b/c.fits",
    "latin-1-path": b"caf\xe9.fits",
    "control": b"a\x01\x1b[2J.fits",
    "long": b"x" * 60_000,
    "long-of-s3": b"s3://bucket/" + b"x" * 60_000,
    "folder": b"/",
}
# Lines that name nothing, and what is said after the number of the line.
WRONG: dict[str, tuple[bytes, str]] = {
    "unknown": (b"nosuch://a", ": no store reads nosuch://"),
    "bracket": (b"http://[", ": is not a URL: http://["),
    "computer": (b"file://other/a.fits", ": file://other/a.fits names another computer"),
    "password": (b"ftp://user:secret@host/a.fits", ": ftp://host/a.fits holds a user or password"),
    "latin-1-key": (b"s3://bucket/caf\xe9.fits", ": not UTF-8"),
    "surrogate": (b"s3://bucket/\xed\xa0\x80", ": not UTF-8"),
    "latin-1-web": (b"http://127.0.0.1/caf\xe9", ": not UTF-8"),
    "nul": (b"a\0b", ": holds a NUL byte"),
    "nul-of-s3": (b"s3://bucket/a\0b", ": holds a NUL byte"),
    "nul-above": (b"../a\0b", ": holds a NUL byte"),
    "nul-encoded": (b"file:///a%00b", ": holds a NUL byte"),
    "endless": (b"x" * 70_000, " is longer than"),
}


class TestKeyFiles:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "good.fits").write_bytes(GOOD)
        return tmp_path

    @pytest.fixture
    def keys(self, folder: Path) -> Path:
        return folder / "keys"

    def test_line_that_names_an_object_is_a_row(self, folder: Path, keys: Path) -> None:
        with BucketServer() as server:
            options = {"endpoint_url": server.origin, "key": "key", "secret": "secret"}
            for of_s3 in (True, False):  # the options are of S3 alone
                lines = [line for line in UNREADABLE.values() if line.startswith(b"s3:") == of_s3]
                keys.write_bytes(b"\n".join([b"good.fits", *lines]))
                rows = indexed(folder, f"@{keys}", storage_options=options if of_s3 else {})
                assert rows.pop((folder / "good.fits").as_uri())["status"] == "ok"
                assert Counter(row["status"] for row in rows.values()) == Counter(unreadable=len(lines))

    def test_line_that_names_nothing_is_told_by_its_number(self, keys: Path) -> None:
        for line, said in WRONG.values():
            keys.write_bytes(b"good.fits\n" + line + b"\n")
            assert f"line 2{said}" in listing_error(f"@{keys}")

    def test_text_in_other_encodings(self, folder: Path, keys: Path) -> None:
        for encoding in ("utf-16", "utf-16-le", "utf-32"):
            keys.write_bytes("good.fits\n".encode(encoding))
            assert "line 1: holds a NUL byte" in listing_error(f"@{keys}")
        keys.write_bytes(b"\xef\xbb\xbfgood.fits\r\n\r\n \n#\xff\n")
        assert [row["status"] for row in indexed(folder, f"@{keys}").values()] == ["ok"]

    def test_link_in_a_circle_is_a_row_or_told_by_its_line(self, folder: Path, keys: Path) -> None:
        (folder / "loop").symlink_to("loop")
        keys.write_text("good.fits\nloop/x.fits\n")
        assert [row["status"] for row in indexed(folder, f"@{keys}").values()] == ["ok", "unreadable"]

    def test_value_without_meaning_is_a_row(self, folder: Path) -> None:
        """Each column is that of a key file of its own."""
        roots, objects = [], []
        for name, (column, values) in COLUMNS.items():
            urls = [f"good-{name}.fits", f"odd-{name}.fits"]
            try:
                pq.write_table(pa.table({"url": urls, column: values}), folder / f"{name}.parquet")
            except pa.ArrowException:
                continue  # Parquet has no such column
            roots.append(f"@{folder}/{name}.parquet")
            objects += [url.removesuffix(".fits") for url in urls]
            for url in urls:
                (folder / url).write_bytes(GOOD)
        assert len(roots) > len(COLUMNS) - 2
        found = described(indexed(folder, *roots))
        assert {name: one[:3] for name, one in found.items()} == dict.fromkeys(objects, ("ok", None, len(GOOD)))

    def test_column_without_meaning_is_one_line(self, keys: Path) -> None:
        for name, column in (*TYPES.values(), ("last_modified", pa.array([1, 2]))):
            pq.write_table(pa.table({"url": ["good.fits", "odd.fits"], name: column}), keys)
            assert f"column {name} is " in listing_error(f"@{keys}")

    def test_column_url_of_any_text(self, folder: Path, keys: Path) -> None:
        names = pa.array(["good.fits", "good.fits"])
        for column in (names.dictionary_encode(), names.cast(pa.large_string()), names.cast(pa.binary())):
            pq.write_table(pa.table({"url": column}), keys)
            assert [row["status"] for row in indexed(folder, f"@{keys}").values()] == ["ok"]
        pq.write_table(pa.table({"url": raw_text(b"good.fits", b"caf\xe9.fits")}), keys)
        assert [row["status"] for row in indexed(folder, f"@{keys}").values()] == ["unreadable", "ok"]

    def test_column_url_that_names_nothing_is_one_line(self, keys: Path) -> None:
        for column, said in (
            (pa.array([[1]]), "column url is list"),
            (pa.array([{"url": "a"}]), "column url is struct"),
            (pa.array([1.5]), "column url is double"),
            (pa.array(["good.fits", None]), "row 2: column url is empty"),
            (pa.array(["good.fits", ""]), "row 2: column url is empty"),
            (pa.array(["good.fits", "s3://b/\0"]), "row 2: holds a NUL byte"),
            (pa.array(["good.fits", "nosuch://a"]), "row 2: no store reads nosuch://"),
            (raw_text(b"good.fits", b"s3://b/" + NO_TEXT), "row 2: not UTF-8"),
            (pa.nulls(1), "row 1: column url is empty"),
        ):
            pq.write_table(pa.table({"url": column}), keys)
            assert said in listing_error(f"@{keys}")
        names = pa.array(["a"])
        pq.write_table(pa.table([names, names], names=["url", "url"]), keys)
        assert "more than one column url" in listing_error(f"@{keys}")
        pq.write_table(pa.table({"name": names}), keys)
        assert "no column url" in listing_error(f"@{keys}")

    def test_damaged_parquet_is_one_line(self, keys: Path) -> None:
        """Bytes changed at random: whatever a file says, it is read, or one line says why not."""
        table = {"url": ["good.fits"] * 50, "size": [len(GOOD)] * 50, "etag": ["x"] * 50}
        pq.write_table(pa.table(table), keys)
        whole, draw = keys.read_bytes(), random.Random(7)
        told = 0
        for _ in range(300):
            data = bytearray(whole)
            for _ in range(draw.choice((1, 3, 30))):
                data[draw.randrange(4, len(data))] = draw.randrange(256)
            keys.write_bytes(data[: draw.choice((len(data), len(data), draw.randrange(len(data))))])
            found = list_roots([f"@{keys}"], include=None, exclude=(), open_store=open_store)
            with contextlib.suppress(ListingError):
                for batch in found:
                    batch.to_pylist()
            told += not found.ended
        assert 0 < told < 300


HDU = Hdu(0, "primary", 0, 2880, 2880, 0, 8, (), 0, 1, GOOD[:80])
# Results that no walk should give: what becomes of them must not be what becomes of all files.
RESULTS: dict[str, Callable[[ObjectRef], FileResult]] = {
    "size": lambda ref: FileResult(replace(ref, size=2**70)),
    "etag": lambda ref: FileResult(replace(ref, etag="\udcff")),
    "url": lambda ref: FileResult(replace(ref, url=ref.url + "\udcff")),
    "status": lambda ref: FileResult(ref, "\ud800"),
    "trailing-bytes": lambda ref: FileResult(ref, trailing_bytes=2**64),
    "requests": lambda ref: FileResult(ref, requests=2**40),
    "hdu-kind": lambda ref: FileResult(ref, hdus=[replace(HDU, kind="\ud800")]),
    "hdu-shape": lambda ref: FileResult(ref, hdus=[replace(HDU, shape=(2**70,))]),
    "hdu-bitpix": lambda ref: FileResult(ref, hdus=[replace(HDU, bitpix=2**20)]),
    "hdu-offset": lambda ref: FileResult(ref, hdus=[replace(HDU, header_offset=-(2**70))]),
    "hdu-header": lambda ref: FileResult(ref, hdus=[replace(HDU, header=b"x" * 81)]),
}


class TestRows:
    @pytest.mark.parametrize("made", RESULTS.values(), ids=RESULTS)
    def test_result_that_cannot_be_written_is_a_crashed_row(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Callable[[ObjectRef], FileResult]
    ) -> None:
        """A fault of this program is put into two of nine walks."""
        folder = tmp_path / "files"
        folder.mkdir()
        for number in range(9):
            (folder / f"{number}.fits").write_bytes(GOOD)

        def faulty(store: Any, ref: ObjectRef, *more: Any, **named: Any) -> FileResult:
            result = walk_file(store, ref, *more, **named)
            return made(ref) if ref.url.endswith(("/3.fits", "/8.fits")) else result

        monkeypatch.setattr(context, "walk_file", faulty)
        report = crawler.index(str(folder), str(tmp_path / "catalogue"))
        assert report.walked == {"ok": 7, "crashed": 2}
        found = Catalogue(str(tmp_path / "catalogue"))
        rows = found.files.to_table().sort_by("url").to_pylist()
        assert [row["status"] for row in rows] == ["ok"] * 3 + ["crashed"] + ["ok"] * 4 + ["crashed"]
        assert all("cannot be written" in rows[odd]["error"] and rows[odd]["error"].isprintable() for odd in (3, 8))
        assert found.hdus.count_rows() == 7 * 3
        assert found.cards.count_rows() > 0

    @settings(max_examples=60, deadline=None)
    @given(
        text=st.text(st.characters(exclude_categories=()), max_size=700),
        header=st.binary(min_size=80, max_size=80),
        whole=st.integers(-(2**63), 2**63 - 1),
        seconds=st.integers(-62_135_596_800, 253_402_300_799),
    )
    def test_what_a_walk_finds_can_be_written_and_read(
        self, tmp_path_factory: pytest.TempPathFactory, text: str, header: bytes, whole: int, seconds: int
    ) -> None:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
        ref = describe(writable(f"s3://{text}"), size=whole, etag=text, version=text, modified=moment)
        name = header.decode("latin-1")
        hdu = Hdu(0, name, whole, whole, whole, whole, 8, (whole,), whole, whole, b"EXTNAME = '" + header[:69])
        results = [FileResult(ref, "corrupt", text, hdus=[hdu], trailing_bytes=whole), FileResult(ObjectRef("a"))]
        folder = open_folder(str(tmp_path_factory.mktemp("rows")))
        for table, rows in tables_of(results, "run", moment).items():
            fragment = write_fragment(folder, table, rows, new_batch("run"))
            if fragment is not None:
                json.loads(fragment.stats())
                assert read_fragment(folder, fragment).num_rows == rows.num_rows == len(rows.to_pylist())
        assert product_of(ref.url)
