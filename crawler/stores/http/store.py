"""Web servers: ranged reads whose headers are seen, and HTML folder indexes, whatever sends the requests.

A web server may be anybody's, and so is what it redirects to: redirects are followed here, with limits, and what the
user gave for one server is sent to no other.

Nothing is tried twice here: retrying is above, for all stores alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, MutableSequence, Sequence

import pyarrow as pa

from crawler.errors import ObjectNotFoundError, StoreError
from crawler.stores.base import ByteRange, Fetched, Moved, ObjectRef
from crawler.stores.batches import batches
from crawler.stores.errors import (
    NO_HEAD,
    check_same,
    failed,
    fetched,
    from_status,
    if_match,
    missing,
    range_ignored,
    sealed,
    sealed_listing,
)
from crawler.stores.http.answer import (
    REDIRECTS,
    Answer,
    Request,
    Transport,
    check_range,
    origin,
    redirected,
    unsatisfied_size,
)
from crawler.stores.http.index_page import Page, parse_page
from crawler.stores.urls import below, one_line, printable, web_url
from crawler.stores.values import describe, http_time_of

INDEX_BYTES = 64 * 2**20
"""Bytes of one folder index, at most: some 300,000 links."""

_MAX_DEPTH = 64
_AGENT = "fits-header-crawler"
_NOT_OF_USERS = frozenset({"accept-encoding", "if-match", "range", "user-agent"})


class WebStore:
    """Objects and folder indexes of ``http`` and ``https`` servers.

    Parameters
    ----------
    transport : Transport
        Sends requests. Its ``user_headers`` are sent to every server that a URL names, and to none that such a server
        redirects to.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        given = {name.lower(): value for name, value in transport.user_headers.items()}
        # Bytes as they are stored, not as a proxy might compress them: offsets are of the stored ones.
        self._public = {"Accept-Encoding": "identity", "User-Agent": given.get("user-agent", _AGENT)}
        self._private = {n: v for n, v in transport.user_headers.items() if n.lower() not in _NOT_OF_USERS}

    @sealed_listing
    def list(self, url: str, limit: int | None = None) -> Generator[pa.RecordBatch, None, Sequence[Moved]]:
        """Yield every object that the HTML index of the folder ``url``, and those of its subfolders, link to.

        Only links below ``url`` count. Links with a query string are left out where they lead to a folder: they sort
        it. An index tells no sizes: all columns but ``url`` are null. A subfolder that is linked to but gone (404) is
        skipped; any other that cannot be read ends the listing.

        Returns
        -------
        Sequence of Moved
            Folders, ``url`` itself perhaps among them, that redirect out of ``url``, and were not listed.

        Raises
        ------
        ObjectNotFoundError
            There is no such folder.
        StoreError
            The answer is no HTML page, or folders nest without end.
        """
        moved: list[Moved] = []
        yield from batches(self._walk(web_url(below(url)), moved), limit)
        return moved

    @sealed
    def head(self, url: str) -> ObjectRef:
        """Describe one object; of unknown size where the server refuses HEAD (405, 501)."""
        answer = self._ask("HEAD", url, {}, lambda _: 0)
        if answer.status in NO_HEAD:
            return ObjectRef(url)
        if answer.status != 200:
            raise _refused(url, answer)
        return _described(url, answer.headers, answer.headers.length)

    @sealed
    def get(self, ref: ObjectRef, span: ByteRange) -> Fetched:
        """Read one range of an object. See `crawler.stores.base.ObjectStore.get`."""
        headers = {"Range": f"bytes={span.start}-{span.stop - 1}"}
        if (etag := if_match(ref.etag)) is not None:
            headers["If-Match"] = etag
        answer = self._ask("GET", ref.url, headers, lambda status: len(span) if status == 206 else 0)
        if answer.status == 206:
            told = answer.headers
            size = check_range(ref.url, told.get("Content-Range"), told.get("Content-Type"), span)
            return fetched(ref, span, answer.body, _described(ref.url, answer.headers, size))
        if answer.status == 416:
            described = _described(ref.url, answer.headers, unsatisfied_size(answer.headers))
            return fetched(ref, span, b"", described)
        if answer.status != 200:
            raise _refused(ref.url, answer)
        whole = _described(ref.url, answer.headers, answer.headers.length)
        check_same(ref, whole)
        if whole.size == 0:  # no range of nothing can be satisfied: some servers send nothing, whole
            return fetched(ref, span, b"", whole)
        raise range_ignored(ref.url)

    def _walk(self, root: str, moved: MutableSequence[Moved]) -> Iterator[ObjectRef]:
        seen: set[str] = set()
        # What is left to list, next one last: links of a page in the order of their URLs.
        left: MutableSequence[tuple[str, int]] = [(root, 0)]
        while left:
            url, depth = left.pop()
            if not url.endswith("/"):
                yield ObjectRef(url)
                continue
            if depth > _MAX_DEPTH:
                raise failed(url, f"folders nest deeper than {_MAX_DEPTH} levels, as links in a loop do")
            try:
                page = self._page(url, root)
            except ObjectNotFoundError:
                if url == root:
                    raise
                continue
            if not page.base.startswith(root):
                self._check_may_move(url, page.base)
                moved.append(Moved(url, page.base))
            elif page.base not in seen:
                seen.add(page.base)
                left.extend((link, depth + 1) for link in reversed(parse_page(page)))

    def _check_may_move(self, url: str, to: str) -> None:
        """Raise `StoreError` where files would be read with headers that were not given for their server."""
        if origin(url) != origin(to) and self._transport.has_credentials:
            raise failed(
                url,
                f"redirects to {printable(to)}, another server, to which the headers that were given are not sent: "
                "name that folder instead",
            )

    def _page(self, url: str, root: str) -> Page:
        """Return the index of a folder."""
        answer = self._ask("GET", url, {}, lambda status: INDEX_BYTES if status == 200 else 0)
        if answer.status != 200:
            error = _refused(url, answer)
            raise missing(url, "no such folder") if isinstance(error, ObjectNotFoundError) else error
        kind = answer.headers.get("Content-Type", "text/html")
        if kind.partition(";")[0].strip().lower() not in ("text/html", "application/xhtml+xml"):
            raise failed(url, "is no folder index: the answer is not HTML")
        if (coding := answer.headers.get("Content-Encoding", "identity").lower()) != "identity":
            raise failed(url, f"folder index is compressed ({one_line(coding, limit=40)}), which was not asked for")
        return Page(_folder_of(url, answer.url), root, answer.body, kind)

    def _ask(self, method: str, url: str, headers: Mapping[str, str], wanted: Callable[[int], int]) -> Answer:
        """Send one request, follow redirects, and read no more of the answer's body than is wanted of its status."""
        public = {**self._public, **headers}
        private = {**self._private, **public}
        deadline = time.monotonic() + self._transport.total_seconds
        target, at_home = url, True
        for hop in range(REDIRECTS + 1):
            sent = private if at_home else public
            answer = self._transport.send(Request(method, target, sent, at_home, hop == 0, wanted, deadline))
            moved = redirected(url, answer)
            if moved is None:
                return answer
            target, at_home = moved, origin(moved) == origin(url)
        raise failed(url, f"redirects more than {REDIRECTS} times")


def _folder_of(asked: str, final: str) -> str:
    """Return the folder of an index that was found at the URL ``final``, with a slash at its end.

    Raises
    ------
    StoreError
        It is no folder, as the page for a log-in is none.
    """
    address = final.partition("?")[0]
    folder = address[: address.rindex("/") + 1]
    if folder not in (address, asked.partition("?")[0]):  # the second: it names the page of that folder, index.html
        raise failed(asked, f"redirects to {printable(final)}, which is no folder: folders end in /")
    return folder


def _refused(url: str, answer: Answer) -> StoreError:
    return from_status(url, answer.status, answer.headers.get("Retry-After"))


def _described(url: str, headers: Mapping[str, str], size: int | None) -> ObjectRef:
    modified = http_time_of(headers.get("Last-Modified"))
    return describe(url, size=size, etag=headers.get("ETag"), modified=modified)
