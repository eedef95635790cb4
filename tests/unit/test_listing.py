"""From roots to partitions: what is listed, what is filtered, and what is said when it cannot be."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import obstore.store
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from crawler.errors import AccessDeniedError, CrawlerError, ListingError, UsageError
from crawler.listing import Listing, list_roots, partitions
from crawler.listing.globs import DEFAULT_INCLUDE, NameFilter
from crawler.listing.roots import REDIRECTS
from crawler.stores import ObjectRef, ObjectStore, open_store
from crawler.stores.base import LISTING_SCHEMA
from crawler.stores.local import LocalStore
from crawler.stores.obstore import ObstoreStore
from tests.servers import RangeServer


def listing(*roots: object, include: Sequence[str] | None = None, exclude: Sequence[str] = (), **more: Any) -> Listing:
    return list_roots(
        [str(root) for root in roots], include=include, exclude=exclude, **{"open_store": open_store, **more}
    )


def rows(found: Listing) -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    for batch in found:
        assert batch.schema == LISTING_SCHEMA
        assert batch.num_rows
        out += batch.to_pylist()
    assert found.matched == len(out)
    assert found.seen >= found.matched
    return out


def urls(found: Listing) -> list[str]:
    return [row["url"] for row in rows(found)]


def fails(found: Listing) -> ListingError:
    with pytest.raises(ListingError) as caught:
        list(found)
    assert str(caught.value).isprintable()
    return caught.value


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    for name in ("a.fits", "raw/b.fits", "raw/deep/c.FITS.gz", "raw/notes.txt", "d#1 é.fit"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * 5)
    return root


class TestFilter:
    @pytest.mark.parametrize(
        "name", ["a.fits", "A.FITS", "x/a.fit", "a.fts.gz", "a.FIT.BZ2", "a.fits.fz", "a.fits.Z", "a.ftz", "acis.evt"]
    )
    def test_default_takes(self, name: str) -> None:
        assert NameFilter(DEFAULT_INCLUDE, ())(name)

    @pytest.mark.parametrize("name", ["fits", "a.fits.txt", "a.imh", "a.img", "a.gz", "x.fits/a.png", "afits", ""])
    def test_default_leaves(self, name: str) -> None:
        assert not NameFilter(DEFAULT_INCLUDE, ())(name)

    @pytest.mark.parametrize(
        ("glob", "takes", "leaves"),
        [
            pytest.param("*", ["a", "x/a", ".a", "x/a\nb"], [], id="everything"),
            pytest.param("a?c", ["abc", "x/ABC"], ["ac", "abbc"], id="one-character"),
            pytest.param("[a-c][!x].fits", ["ab.fits", "x/c1.fits"], ["db.fits", "ax.fits"], id="classes"),
            pytest.param("[]]", ["]"], ["[]]", "a"], id="bracket-in-class"),
            pytest.param("a[", ["a["], ["a"], id="open-bracket"),
            pytest.param("a+(b).fits", ["a+(b).fits"], ["aa(b).fits", "a+b.fits"], id="no-regex"),
            pytest.param("raw/*.fits", ["raw/a.fits"], ["x/raw/a.fits", "raw/x/a.fits", "raw/.fitsx"], id="one-level"),
            pytest.param("/raw/*.fits", ["raw/a.fits"], ["x/raw/a.fits"], id="leading-slash"),
            pytest.param("raw/", ["raw/a", "raw/x/a"], ["raw", "x/raw/a"], id="folder"),
            pytest.param("raw/**", ["raw/a", "raw/x/a"], ["raws/a"], id="below"),
            pytest.param("**/raw/*", ["raw/a", "x/y/raw/a"], ["raw/x/a", "xraw/a"], id="anywhere"),
            pytest.param("x/**/a", ["x/a", "x/y/z/a"], ["x/ba", "y/x/a"], id="between"),
            pytest.param("x/[!y]z", ["x/az"], ["x/yz", "x//z"], id="class-is-no-slash"),
        ],
    )
    def test_glob(self, glob: str, takes: list[str], leaves: list[str]) -> None:
        taken = NameFilter((glob,), ())
        assert [name for name in takes if not taken(name)] == []
        assert [name for name in leaves if taken(name)] == []

    def test_exclude_wins(self) -> None:
        taken = NameFilter(("*.fits",), ("*_flat*", "calib/"))
        assert [n for n in ("a.fits", "a_FLAT.fits", "calib/a.fits", "x/calib/a.fits") if taken(n)] == [
            "a.fits",
            "x/calib/a.fits",
        ]

    def test_senseless_glob(self) -> None:
        with pytest.raises(UsageError, match=r"\[z-a\]"):
            NameFilter(("[z-a]",), ())


class TestFolders:
    def test_default_names(self, tree: Path) -> None:
        found = listing(tree)
        assert urls(found) == [
            (tree / name).as_uri() for name in ("a.fits", "d#1 é.fit", "raw/b.fits", "raw/deep/c.FITS.gz")
        ]
        assert (found.seen, found.matched) == (5, 4)

    def test_names_are_matched_decoded(self, tree: Path) -> None:
        assert urls(listing(tree, include=["d#1 É.*"])) == [(tree / "d#1 é.fit").as_uri()]

    def test_paths_are_matched_from_the_root(self, tree: Path) -> None:
        assert urls(listing(tree, include=["raw/*"], exclude=["*.txt"])) == [(tree / "raw/b.fits").as_uri()]

    @pytest.mark.parametrize("include", [None, ["*"], ["**/*.fits"]], ids=["default", "all", "by-path"])
    @pytest.mark.parametrize(
        "others",
        [["data/raw"], ["data/raw", "data/raw/deep", "data/a.fits"], ["data", "data/"], ["data/../data"]],
        ids=["inner", "several", "twice", "otherwise"],
    )
    @pytest.mark.parametrize("turn", [1, -1], ids=["outer-first", "inner-first"])
    def test_overlapping_roots_list_once(
        self, tree: Path, others: list[str], include: list[str] | None, turn: int
    ) -> None:
        alone = set(urls(listing(tree, include=include))) | {(tree / "a.fits").as_uri()} & {
            (tree.parent / other).as_uri() for other in others
        }
        both = listing(*[tree, *[tree.parent / other for other in others]][::turn], include=include)
        seen = urls(both)
        assert len(seen) == len(set(seen))
        assert set(seen) >= alone

    def test_glob_by_path_holds_for_each_root(self, tree: Path) -> None:
        found = urls(listing(tree, tree / "raw", include=["/b.fits", "raw/deep/*"]))
        assert sorted(found) == [(tree / "raw/b.fits").as_uri(), (tree / "raw/deep/c.FITS.gz").as_uri()]

    def test_folder_named_alike_is_not_inside(self, tree: Path) -> None:
        other = tree.parent / "data2"
        other.mkdir()
        (other / "a.fits").touch()
        assert (other / "a.fits").as_uri() in urls(listing(tree, other))

    @pytest.mark.parametrize("inside", [True, False], ids=["inside-another", "alone"])
    def test_missing_folder(self, tree: Path, inside: bool) -> None:
        roots = [tree, tree / "nowhere"] if inside else [tree / "nowhere"]
        assert "nowhere: no such file or folder" in str(fails(listing(*roots)))

    def test_unreadable_folder_inside_is_named(self, tree: Path) -> None:
        class Refusing(LocalStore):
            def list(self, url: str) -> Iterator[pa.RecordBatch]:
                yield from ()
                raise AccessDeniedError(url + "/raw", "access denied")

        error = fails(listing(tree, open_store=lambda _: Refusing()))
        assert error.root == str(tree)
        assert error.reason == f"access denied: {tree.as_uri()}/raw"

    def test_nothing_matches(self, tree: Path) -> None:
        found = listing(tree / "raw", include=["*.nc"])
        assert urls(found) == []
        assert found.seen == 3
        assert "3 objects seen" in found.nothing_found()
        assert "*.nc" in found.nothing_found()

    def test_nothing_has_a_fits_name(self, tree: Path) -> None:
        found = listing(tree, exclude=["*"])
        assert urls(found) == []
        assert "use --include" in found.nothing_found()

    def test_empty_folder(self, tmp_path: Path) -> None:
        found = listing(tmp_path)
        assert urls(found) == []
        assert "no objects" in found.nothing_found()

    def test_nothing_is_read_before_the_first_batch(self, tree: Path) -> None:
        listing(tree / "nowhere")

    def test_store_without_folders(self) -> None:
        memory = obstore.store.MemoryStore()
        obstore.put(memory, "bucket/in/a.fits", b"x")
        store = ObstoreStore(memory)
        opened: Any = {"open_store": lambda _: store}
        assert urls(listing("memory://bucket", **opened)) == ["memory://bucket/in/a.fits"]
        assert urls(listing("memory://bucket/in", **opened)) == ["memory://bucket/in/a.fits"]
        assert urls(listing("memory://bucket/empty/", **opened)) == []
        assert "none below it" in str(fails(listing("memory://bucket/i", **opened)))


class TestSingleFiles:
    def test_filters_do_not_apply(self, tree: Path) -> None:
        found = rows(listing(tree / "raw/notes.txt", exclude=["*.txt"]))
        assert [(row["url"], row["size"]) for row in found] == [((tree / "raw/notes.txt").as_uri(), 5)]

    def test_beside_its_folder(self, tree: Path) -> None:
        assert len(urls(listing(tree, tree / "raw/notes.txt", tree / "a.fits"))) == 5

    def test_web(self, tree: Path) -> None:
        with RangeServer(tree) as server:
            found = rows(listing(server.url("a.fits"), server.url("raw/notes.txt")))
            assert [row["size"] for row in found] == [5, 5]
            assert [request.method for request in server.requests] == ["HEAD", "HEAD"]

    def test_web_without_head(self, tree: Path) -> None:
        with RangeServer(tree) as server:
            server.status["HEAD"] = 405
            assert [ObjectRef(**row) for row in rows(listing(server.url("a.fits")))] == [
                ObjectRef(server.url("a.fits"))
            ]

    @pytest.mark.parametrize(("status", "said"), [(404, "404"), (403, "403"), (503, "503")])
    def test_web_refuses(self, tree: Path, status: int, said: str) -> None:
        with RangeServer(tree) as server:
            server.status["a.fits"] = status
            error = fails(listing(server.url("a.fits")))
            assert said in error.reason
            assert error.root == server.url("a.fits")

    def test_web_folder(self, tree: Path) -> None:
        with RangeServer(tree) as server:
            found = listing(server.origin + "/", server.url("raw/"), server.url("a.fits"))
            assert sorted(urls(found)) == [
                server.url(name) for name in ("a.fits", "d#1 é.fit", "raw/b.fits", "raw/deep/c.FITS.gz")
            ]
            assert found.seen == 5


class TestRedirects:
    """Folders of the web that lead elsewhere: no file is lost, each is listed once, names are below the root."""

    @pytest.fixture
    def server(self) -> Iterator[RangeServer]:
        names = [f"new/night{night}/{number}.fits" for night in range(3) for number in range(3)]
        with RangeServer(dict.fromkeys([*names, "new/a.fits", "new/b.fits"], b"x")) as server:
            server.redirects["moved/elsewhere/"] = server.url("new/")
            yield server

    @pytest.mark.parametrize("include", [None, ["/*.fits", "night?/*.fits"]], ids=["by-name", "by-path"])
    def test_root_lists_what_it_leads_to(self, server: RangeServer, include: list[str] | None) -> None:
        found = listing(server.url("moved/elsewhere/"), include=include)
        assert sorted(urls(found)) == sorted(server.url(name) for name in server.objects)
        assert found.seen == 11

    def test_root_covers_what_it_lists(self, server: RangeServer) -> None:
        found = listing(server.url("moved/elsewhere/"), include=["/*.fits"])
        listed = urls(found)
        assert len(listed) == 2
        assert all(found.covers(url) for url in listed)
        assert found.covers(server.url("new/removed.fits"))
        assert not found.covers(server.url("new/night0/0.fits"))
        assert not found.covers(server.url("other/removed.fits"))

    def test_folder_inside_lists_what_it_leads_to(self, server: RangeServer) -> None:
        server.objects.update({"top/c.fits": b"x", "top/sub/never.fits": b"x"})
        server.redirects["top/sub/"] = server.url("new/")
        assert len(urls(listing(server.url("top/")))) == 12
        found = listing(server.url("top/"), include=["sub/night1/*.fits"])
        assert sorted(urls(found)) == [server.url(f"new/night1/{number}.fits") for number in range(3)]
        # What lies outside of a root is never taken for removed.
        assert not found.covers(server.url("new/night1/9.fits"))

    def test_folder_inside_that_leads_into_the_root_is_listed_once(self, server: RangeServer) -> None:
        server.objects["new/again/x"] = b"x"
        server.redirects["new/again/"] = server.url("new/night0/")
        found = urls(listing(server.url("new/")))
        assert len(found) == len(set(found)) == 11

    @pytest.mark.parametrize("turn", [1, -1])
    def test_root_that_leads_to_another_root_is_listed_once(self, server: RangeServer, turn: int) -> None:
        found = urls(listing(*[server.url("moved/elsewhere/"), server.url("new/")][::turn]))
        assert len(found) == len(set(found)) == 11

    def test_other_server_is_listed(self, server: RangeServer) -> None:
        with RangeServer({"far/a.fits": b"x"}) as other:
            server.redirects["moved/elsewhere/"] = other.url("far/")
            assert urls(listing(server.url("moved/elsewhere/"))) == [other.url("far/a.fits")]

    @pytest.mark.parametrize("adapter", ["auto", "fsspec"])
    def test_other_server_gets_no_headers(self, server: RangeServer, adapter: Any) -> None:
        options = {"headers": {"X-Api-Key": "secret"}}
        with RangeServer({"far/a.fits": b"x"}) as other:
            server.redirects["moved/elsewhere/"] = other.url("far/")
            opened = partial(open_store, storage_options=options, adapter=adapter)
            error = fails(listing(server.url("moved/elsewhere/"), open_store=opened))
            assert "another server" in str(error)
            assert all("x-api-key" not in request.headers for request in other.requests)
            assert all(request.headers["x-api-key"] == "secret" for request in server.requests)

    @pytest.mark.parametrize(
        ("to", "said"),
        [
            ("loop/", "redirects more than 10 times"),
            ("login?next=top", "no folder"),
            ("empty/", "links to nothing"),
            ("ftp://host/top/", "redirects to ftp://host/top/"),
            ("gone/", "no such folder"),
        ],
    )
    @pytest.mark.parametrize("inside", [True, False])
    def test_no_files_are_an_error(self, server: RangeServer, to: str, said: str, inside: bool) -> None:
        server.objects.update({"login": b"<html>who are you?</html>", "top/sub/x": b"x", "empty/index.html": b""})
        server.content_types.update({"login": "text/html", "empty/": "text/html"})
        server.objects["empty/"] = b"<html>nothing here</html>"
        server.redirects["loop/"] = server.url("loop/")
        server.redirects["top/sub/" if inside else "top/"] = to if "://" in to else f"{server.origin}/{to}"
        if inside and to == "gone/":  # as a dead link
            assert urls(listing(server.url("top/"))) == []
        else:
            assert said in str(fails(listing(server.url("top/"))))

    def test_page_of_the_folder_itself(self, server: RangeServer) -> None:
        server.objects["new/index.html"] = b'<a href="a.fits">a</a>'
        server.content_types["new/index.html"] = "text/html"
        server.redirects["new/"] = "index.html"
        assert urls(listing(server.url("new/"))) == [server.url("new/a.fits")]

    @pytest.mark.parametrize("steps", [REDIRECTS, REDIRECTS + 1])
    def test_redirects_one_below_the_other_end(self, server: RangeServer, steps: int) -> None:
        for step in range(steps):
            server.objects[f"p{step}/x/y"] = b"x"
            server.redirects[f"p{step}/x/"] = server.url(f"p{step + 1}/")
        server.objects[f"p{steps}/a.fits"] = b"x"
        found = listing(server.url("p0/"))
        if steps > REDIRECTS:
            assert "redirects more than" in str(fails(found))
        else:
            assert urls(found) == [server.url(f"p{steps}/a.fits")]


def write(path: Path, content: str | bytes) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return f"@{path}"


class TestTextKeyFiles:
    def test_forms(self, tree: Path) -> None:
        lines = [
            "\ufeffa.fits",
            "",
            "  ",
            "# a comment",
            "raw/../a b#1.fits\r",
            str(tree / "abs.fits"),
            "http://host/x%20y.fits?a=b",
            "s3://bucket/raw key%20.txt",
            " blank.fits ",
        ]
        keys = write(tree / "keys.txt", "\n".join(lines))
        assert rows(listing(keys)) == [
            {"url": url, "size": None, "etag": None, "version": None, "last_modified": None}
            for url in (
                (tree / "a.fits").as_uri(),
                (tree / "a b#1.fits").as_uri(),
                (tree / "abs.fits").as_uri(),
                "http://host/x%20y.fits?a=b",
                "s3://bucket/raw key%20.txt",
                (tree / " blank.fits ").as_uri(),
            )
        ]

    def test_names_that_are_not_utf_8(self, tree: Path) -> None:
        assert urls(listing(write(tree / "keys.txt", b"\xff.fits\n"))) == [tree.as_uri() + "/%FF.fits"]

    def test_of_a_web_server(self, tree: Path) -> None:
        (tree / "keys.txt").write_text("a.fits\n../b%20c.fits\n/etc/x.fits\n")
        with RangeServer(tree) as server:
            server.objects["in/keys.txt"] = server.objects["keys.txt"]
            assert urls(listing("@" + server.url("in/keys.txt"))) == [
                server.url("in/a.fits"),
                server.url("b c.fits"),
                "file:///etc/x.fits",
            ]

    def test_only_given_filters_apply(self, tree: Path) -> None:
        keys = write(tree / "keys.txt", "a.txt\nb.fits\nb_flat.fits\n")
        assert len(urls(listing(keys))) == 3
        found = listing(keys, include=["*.FITS"], exclude=["*_flat*"])
        assert urls(found) == [(tree / "b.fits").as_uri()]
        assert found.seen == 3

    def test_named_files_are_not_listed_again(self, tree: Path) -> None:
        keys = write(tree / "keys.txt", "a.fits\nb.fits\n")
        assert urls(listing(keys, tree / "a.fits")) == [(tree / "a.fits").as_uri(), (tree / "b.fits").as_uri()]

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            pytest.param("a.fits\n\nnosuch://x\n", "line 3: no store reads nosuch://", id="scheme"),
            pytest.param("http://me:secret@host/x\n", "line 1", id="password"),
            pytest.param(b"s3://bucket/\xff\n", "line 1: not UTF-8", id="not-utf-8"),
            pytest.param(b"a.fits\nb\0c\n", "line 2: holds a NUL", id="binary"),
            pytest.param("ok\n" + "x" * 70_000, "line 2 is longer", id="long-line"),
        ],
    )
    def test_bad_line(self, tree: Path, content: str | bytes, said: str) -> None:
        keys = write(tree / "keys.txt", content)
        error = fails(listing(keys))
        assert error.root == keys
        assert said in error.reason
        assert "secret" not in str(error)

    def test_missing(self, tree: Path) -> None:
        assert fails(listing(f"@{tree}/none.txt")).reason == "no such object"

    def test_folder_url_with_a_slash(self, tree: Path) -> None:
        assert urls(listing(tree.as_uri() + "/")) == urls(listing(tree))

    def test_long_file_is_read_in_pieces(self, tree: Path) -> None:
        (tree / "keys.txt").write_text("".join(f"s3://bucket/{number:060}.fits\n" for number in range(40_000)))
        with RangeServer(tree) as server:
            found = listing("@" + server.url("keys.txt"))
            next(found)
            assert len(server.requests) < 4
            assert sum(batch.num_rows for batch in found) == 30_000
            assert all(request.range or request.method == "HEAD" for request in server.requests)


class TestParquetKeyFiles:
    def keys(self, folder: Path, **columns: Any) -> str:
        pq.write_table(pa.table(columns), folder / "keys", row_group_size=700)
        return f"@{folder}/keys"

    def test_all_columns(self, tree: Path) -> None:
        time = pa.array([1_700_000_000_123_456_789], type=pa.timestamp("ns"))
        keys = self.keys(
            tree, x=[1], size=pa.array([7], pa.int32()), url=["s3://b/k"], etag=["e"], version=["v"], last_modified=time
        )
        [row] = rows(listing(keys))
        assert [row[name] for name in ("url", "size", "etag", "version")] == ["s3://b/k", 7, "e", "v"]
        assert row["last_modified"].isoformat() == "2023-11-14T22:13:20.123456+00:00"

    @pytest.mark.parametrize(
        "kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())], ids=str
    )
    def test_kinds_of_strings(self, tree: Path, kind: pa.DataType) -> None:
        keys = self.keys(tree, url=pa.array(["a.fits", "/b.fits"]).cast(kind))
        assert urls(listing(keys)) == [(tree / "a.fits").as_uri(), "file:///b.fits"]

    def test_batches(self, tree: Path) -> None:
        keys = self.keys(tree, url=[f"s3://b/{number}" for number in range(25_000)])
        assert max(batch.num_rows for batch in listing(keys)) <= 10_000
        assert len(urls(listing(keys))) == 25_000

    @pytest.mark.parametrize(
        ("columns", "said"),
        [
            pytest.param({"key": ["a"], "size": [1]}, "its columns are key, size", id="no-url"),
            pytest.param({"url": ["a", None]}, "row 2: column url is empty", id="null"),
            pytest.param({"url": ["a", "nosuch://x"]}, "row 2: no store reads", id="scheme"),
            pytest.param({"url": ["a"], "size": [True]}, "column size is bool, not a number of bytes", id="size"),
        ],
    )
    def test_bad(self, tree: Path, columns: dict[str, Any], said: str) -> None:
        assert said in fails(listing(self.keys(tree, **columns))).reason

    def test_broken(self, tree: Path) -> None:
        assert "Parquet" in fails(listing(write(tree / "keys", b"PAR1 and no more"))).reason

    def test_not_parquet(self, tree: Path) -> None:
        assert fails(listing(write(tree / "keys.parquet", "a.fits\n"))).reason == "is not a Parquet file"

    def test_of_a_web_server(self, tree: Path) -> None:
        self.keys(tree, url=["s3://b/k"])
        with RangeServer(tree) as server:
            assert urls(listing("@" + server.url("keys"))) == ["s3://b/k"]


class TestRoots:
    @pytest.mark.parametrize(
        "root", ["", "@", "nosuch://bucket/x", "@nosuch://x", "https://me:secret@host/"], ids=ascii
    )
    def test_senseless_root(self, root: str) -> None:
        with pytest.raises(UsageError) as caught:
            listing(root)
        assert "secret" not in str(caught.value)

    def test_one_store_a_scheme(self, tree: Path) -> None:
        opened: list[str] = []

        def opening(url: str) -> ObjectStore:
            opened.append(url)
            return open_store(url)

        list(listing(tree, tree / "raw", write(tree.parent / "keys", "x"), open_store=opening))
        assert len(opened) == 1

    def test_options_are_the_callers(self, tree: Path) -> None:
        assert urls(listing(tree / "a.fits", open_store=partial(open_store, adapter="fsspec")))

    def test_odd_root_is_one_line(self, tmp_path: Path) -> None:
        error: CrawlerError = fails(listing(os.fsdecode(bytes(tmp_path) + b"/no\nwhere\xff")))
        assert "no\\nwhere" in str(error)


def batch(names: Sequence[str]) -> pa.RecordBatch:
    nulls = [pa.nulls(len(names), type=field.type) for field in list(LISTING_SCHEMA)[1:]]
    return pa.record_batch([pa.array(names, type=pa.string()), *nulls], schema=LISTING_SCHEMA)


class TestPartitions:
    def test_they_grow(self) -> None:
        names = [f"s3://b/{number:05}" for number in range(10_000)]
        listed = [batch(names[at : at + 50]) for at in range(0, 10_000, 50)]
        parts = list(partitions(listed, first=100, growth=2.0, size=2000))
        assert [len(part) for part in parts] == [100, 200, 400, 800, 1600, 2000, 2000, 2000, 900]
        assert [url for part in parts for url in part.column("url").to_pylist()] == names
        assert all(part.schema == LISTING_SCHEMA for part in parts)

    def test_runs_of_keys_stay_together(self) -> None:
        runs = [5_000, 30, 1_200, 8_001, 40, 2_000, 30]
        names = [[f"s3://b/{run}/{number:05}" for number in range(size)] for run, size in enumerate(runs)]
        parts = list(partitions([batch(run) for run in names], first=2000, growth=1.0, size=2000))
        assert [len(part) for part in parts] == [1667, 1667, 1666, 1200, 1601, 1600, 1600, 1600, 1600, 2000, 100]
        together = [{url.split("/")[3] for url in part.column("url").to_pylist()} for part in parts]
        assert together == [{"0"}] * 3 + [{"2"}] + [{"3"}] * 5 + [{"5"}] + [{"1", "4", "6"}]
        assert sorted(url for part in parts for url in part.column("url").to_pylist()) == sorted(chain(*names))

    def test_a_run_is_cut_while_partitions_grow(self) -> None:
        listed = [batch([f"{run}/{number}" for number in range(1000)]) for run in range(3)]
        parts = partitions(listed, first=100, growth=2.0, size=2000)
        assert [len(part) for part in parts] == [100, 180, 360, 500, 1000, 860]

    def test_they_are_never_short_nor_long(self) -> None:
        sizes = [int(1.7**power) for power in range(1, 16)] * 3
        begun, listed = 0, []
        for size in sizes:
            listed.append(batch([str(number) for number in range(begun, begun + size)]))
            begun += size
        for first, growth, size in ((1, 1.5, 700), (10, 3.0, 64), (500, 1.0, 500)):
            parts = [len(part) for part in partitions(listed, first=first, growth=growth, size=size)]
            assert sum(parts) == begun
            wanted = float(first)
            for rows in parts[:-1]:
                assert int(wanted) / 2 <= rows <= int(wanted)
                wanted = min(wanted * growth, size)

    def test_growth_of_one_and_first_above_size(self) -> None:
        parts = partitions([batch([str(number) for number in range(10)])], first=50, growth=1.0, size=4)
        assert [len(part) for part in parts] == [4, 3, 3]

    def test_each_url_once(self) -> None:
        listed = [batch(["a", "b"]), batch(["a", "b"]), batch(["c", "a"])]
        parts = list(partitions(listed, first=5, growth=1.0, size=5))
        assert [part.column("url").to_pylist() for part in parts] == [["a", "b", "c"], ["a"]]

    def test_nothing_listed(self) -> None:
        assert list(partitions([], first=5, growth=2.0, size=5)) == []

    def test_reads_no_further_than_asked(self) -> None:
        taken: list[int] = []

        def endless() -> Iterator[pa.RecordBatch]:
            for number in range(1000):
                taken.append(number)
                yield batch([f"{number}-{row}" for row in range(10)])

        parts = partitions(endless(), first=20, growth=2.0, size=40)
        next(parts)
        assert taken == [0, 1]

    def test_a_partition_is_a_copy(self) -> None:
        large = batch([f"s3://bucket/{number:080}" for number in range(1000)])
        first = next(partitions([large], first=1, growth=2.0, size=10))
        assert first.get_total_buffer_size() < 1000


class TestLimit:
    def test_listing_stops_after_the_objects_of_the_limit(self, tmp_path: Path) -> None:
        for number in range(9):
            (tmp_path / f"{number}.fits").write_bytes(b"x")
        for limit, expected in ((1, 1), (8, 8), (9, 9), (10, 9)):
            found = listing(tmp_path, limit=limit)
            assert len(urls(found)) == expected
            assert (found.seen, found.ended) == (expected, limit > 9)

    def test_named_files_folders_and_key_files_share_one_limit(self, tree: Path, tmp_path: Path) -> None:
        keys = write(tmp_path / "keys.txt", "s3://bucket/x.fits\ns3://bucket/y.fits\n")
        for limit in range(1, 6):
            found = listing(tree / "a.fits", tree / "raw/deep", keys, limit=limit)
            names = [url.rpartition("/")[2] for url in urls(found)]
            assert names == ["a.fits", "c.FITS.gz", "x.fits", "y.fits"][:limit]
            assert found.ended == (limit > 4)

    def test_several_named_files_are_cut_at_the_limit(self, tree: Path) -> None:
        found = listing(tree / "a.fits", tree / "raw/b.fits", limit=1)
        assert len(urls(found)) == 1
        assert not found.ended
