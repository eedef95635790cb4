"""One behaviour suite for every store: what `crawler.stores.base.ObjectStore` promises, and nothing of
how."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from urllib.parse import quote

import pytest

from crawler.errors import CrawlerError, ObjectChangedError, ObjectNotFoundError, StoreError
from crawler.stores import ByteRange, ObjectRef, ObjectStore
from crawler.stores.base import LISTING_SCHEMA

DATA = bytes(range(256)) * 40

ODD_NAMES = {
    "space": "a b.fits",
    "plus": "a+b.fits",
    "percent": "100%.fits",
    "encoded": "a%20b.fits",
    "hash": "a#b.fits",
    "upload": "a#1",
    "question": "what?.fits",
    "query": "a?x=1&y=2",
    "non-ascii": "Größe-観測.fits",
    "combining": "e\u0301.fits",
    "no-extension": "README",
    "hidden": ".hidden.fits",
    "tilde": "~me.fits",
    "brackets": "a[1]{2}.fits",
    "shell": "a*b;c|d&e$f'g\"h.fits",
    "backslash": "a\\b.fits",
    "colon": "2024-01-01T00:00:00.fits",
    "angle": "<a>.fits",
    "caret": "a^b`c.fits",
    "tab": "a\tb.fits",
    "newline": "a\nb.fits",
    "not-utf-8": "\udcff\udcfe.fits",
    "nested": "x y/z%/ü.fits",
}


@dataclass
class Backing:
    """A store, and the means to fill what is behind it."""

    store: ObjectStore
    root: str
    put: Callable[[str, bytes], None]
    encoded: bool = True

    def url(self, name: str) -> str:
        shown = quote(name, errors="surrogateescape") if self.encoded else name
        return f"{self.root}/{shown}"

    def listed(self, url: str | None = None) -> list[dict[str, object]]:
        rows: list[dict[str, object]] = []
        for batch in self.store.list(self.root + "/" if url is None else url):
            assert batch.schema == LISTING_SCHEMA
            assert 0 < batch.num_rows <= 1000
            rows += batch.to_pylist()
        return rows

    def refs(self) -> dict[str, ObjectRef]:
        return {str(row["url"]): ObjectRef(**row) for row in self.listed()}  # type: ignore[arg-type]  # rows of the schema


def assert_well_said(error: CrawlerError) -> None:
    """An error is one short line, and survives pickling."""
    said = str(error)
    assert said.isprintable()
    assert len(said) < 400
    assert "Debug" not in said
    error.__cause__ = error.__context__ = None  # as workers send it
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == said


class StoreSuite:
    """Subclasses give a fixture ``backing`` and say what their store cannot have."""

    cannot_name: frozenset[str] = frozenset()
    lists_sizes = True
    knows_folders = True

    @pytest.fixture
    def filled(self, backing: Backing) -> Backing:
        for name in ("a.fits", "b/a.fits", "b/c/d.fits", "empty.fits"):
            backing.put(name, b"" if name == "empty.fits" else DATA)
        return backing

    def test_list_finds_everything_below(self, filled: Backing) -> None:
        names = ["a.fits", "b/a.fits", "b/c/d.fits", "empty.fits"]
        assert sorted(str(row["url"]) for row in filled.listed()) == [filled.url(name) for name in names]

    def test_list_of_a_folder_within(self, filled: Backing) -> None:
        listed = filled.listed(filled.url("b") + "/")
        assert sorted(str(row["url"]) for row in listed) == [filled.url("b/a.fits"), filled.url("b/c/d.fits")]

    def test_list_does_not_take_a_prefix_for_a_folder(self, filled: Backing) -> None:
        filled.put("bb.fits", DATA)
        assert filled.url("bb.fits") not in {row["url"] for row in filled.listed(filled.url("b") + "/")}

    def test_list_tells_what_head_tells(self, filled: Backing) -> None:
        for url, ref in filled.refs().items():
            if self.lists_sizes:
                assert ref == filled.store.head(url)
            else:
                assert ref == ObjectRef(url)

    def test_list_of_no_folder(self, filled: Backing) -> None:
        if not self.knows_folders:
            assert filled.listed(filled.url("nowhere") + "/") == []
            return
        with pytest.raises(ObjectNotFoundError) as caught:
            filled.listed(filled.url("nowhere") + "/")
        assert_well_said(caught.value)

    @pytest.mark.parametrize("kind", ODD_NAMES)
    def test_odd_name(self, backing: Backing, kind: str) -> None:
        name = ODD_NAMES[kind]
        if kind in self.cannot_name:  # no such object can be put there
            with pytest.raises(StoreError) as caught:
                backing.store.head(backing.url(name))
            assert_well_said(caught.value)
            return
        backing.put(name, DATA)
        backing.put("other.fits", b"other")
        assert backing.refs().keys() == {backing.url(name), backing.url("other.fits")}
        ref = backing.store.head(backing.url(name))
        assert ref.url == backing.url(name)
        assert ref.size == len(DATA)
        assert backing.store.get(ref, ByteRange(10, 20)).data == DATA[10:20]
        assert backing.store.get(ObjectRef(ref.url), ByteRange(10, 20)).data == DATA[10:20]

    def test_head(self, filled: Backing) -> None:
        ref = filled.store.head(filled.url("a.fits"))
        assert (ref.url, ref.size) == (filled.url("a.fits"), len(DATA))
        assert ref.etag
        assert ref.last_modified is None or ref.last_modified.utcoffset() is not None

    def test_head_of_nothing(self, filled: Backing) -> None:
        with pytest.raises(ObjectNotFoundError) as caught:
            filled.store.head(filled.url("nothing.fits"))
        assert_well_said(caught.value)

    def test_head_of_a_folder(self, filled: Backing) -> None:
        with pytest.raises(ObjectNotFoundError) as caught:
            filled.store.head(filled.url("b"))
        assert_well_said(caught.value)

    @pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "unknown"])
    @pytest.mark.parametrize(
        ("start", "stop"),
        [
            pytest.param(0, 1, id="first-byte"),
            pytest.param(0, 2880, id="start"),
            pytest.param(5000, 6000, id="middle"),
            pytest.param(len(DATA) - 1, len(DATA), id="last-byte"),
            pytest.param(0, len(DATA), id="whole"),
            pytest.param(10_000, 20_000, id="over-the-end"),
            pytest.param(len(DATA), len(DATA) + 1, id="at-the-end"),
            pytest.param(20_000, 30_000, id="beyond-the-end"),
        ],
    )
    def test_range(self, filled: Backing, start: int, stop: int, pinned: bool) -> None:
        url = filled.url("a.fits")
        known = filled.store.head(url)
        fetched = filled.store.get(known if pinned else ObjectRef(url), ByteRange(start, stop))
        assert type(fetched.data) is bytes
        assert fetched.data == DATA[start:stop]
        assert fetched.ref == known

    @pytest.mark.parametrize("pinned", [True, False], ids=["pinned", "unknown"])
    def test_empty_object(self, filled: Backing, pinned: bool) -> None:
        url = filled.url("empty.fits")
        ref = filled.store.head(url) if pinned else ObjectRef(url)
        fetched = filled.store.get(ref, ByteRange(0, 2880))
        assert fetched.data == b""
        assert fetched.ref.size == 0

    def test_get_of_nothing(self, filled: Backing) -> None:
        with pytest.raises(ObjectNotFoundError) as caught:
            filled.store.get(ObjectRef(filled.url("nothing.fits")), ByteRange(0, 10))
        assert_well_said(caught.value)

    def test_get_of_a_folder(self, filled: Backing) -> None:
        with pytest.raises(StoreError) as caught:
            filled.store.get(ObjectRef(filled.url("b")), ByteRange(0, 10))
        assert_well_said(caught.value)

    @pytest.mark.parametrize("content", [DATA[::-1], DATA[:100], DATA * 2], ids=["same-size", "shorter", "longer"])
    @pytest.mark.parametrize(("start", "stop"), [(0, 10), (10_000, 10_010)], ids=["start", "end"])
    def test_replaced(self, filled: Backing, content: bytes, start: int, stop: int) -> None:
        url = filled.url("a.fits")
        before = filled.store.head(url)
        first = filled.store.get(ObjectRef(url), ByteRange(0, 10)).ref
        filled.put("a.fits", content)
        for ref in (before, first):
            with pytest.raises(ObjectChangedError) as caught:
                filled.store.get(ref, ByteRange(start, stop))
            assert_well_said(caught.value)

    def test_many_threads(self, filled: Backing) -> None:
        ref = filled.store.head(filled.url("a.fits"))
        spans = [ByteRange(start, start + 100) for start in range(0, 10_000, 25)]
        with ThreadPoolExecutor(32) as pool:
            read = list(pool.map(lambda span: filled.store.get(ref, span).data, spans))
        assert read == [DATA[span.start : span.stop] for span in spans]
