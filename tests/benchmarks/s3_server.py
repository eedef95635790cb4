"""A small S3 over a folder of buckets, for benchmarks: ListObjectsV2, HEAD, and GET by range and If-Match.

Runs as a process of its own, so that its CPU time is nobody's: ``python -m tests.benchmarks.s3_server FOLDER`` prints
its port. ``GET /-/count`` answers how many requests came since the last time it was asked.
"""

from __future__ import annotations

import os
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

PAGE = 1000


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one write
    disable_nagle_algorithm = True
    root: Path
    requests = count(1)

    def do_GET(self) -> None:
        address = urlsplit(self.path)
        if address.path == "/-/count":
            self._send(200, str(next(Handler.requests) - 1).encode())
            Handler.requests = count(1)
            return
        next(Handler.requests)
        if "list-type" in parse_qs(address.query):
            self._send(200, self._list(address.path.strip("/"), parse_qs(address.query)), type_="application/xml")
        else:
            self._object(unquote(address.path).lstrip("/"))

    def do_HEAD(self) -> None:
        next(Handler.requests)
        self._object(unquote(urlsplit(self.path).path).lstrip("/"))

    def _object(self, key: str) -> None:
        path = self.root / key
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            self._send(404, b"<Error><Code>NoSuchKey</Code></Error>", type_="application/xml")
            return
        try:
            status = os.fstat(descriptor)
            etag = etag_of(status)
            headers = {"ETag": etag, "Last-Modified": "Wed, 01 Jan 2025 00:00:00 GMT", "Accept-Ranges": "bytes"}
            if self.headers.get("If-Match") not in {None, etag}:
                self._send(412, b"<Error><Code>PreconditionFailed</Code></Error>", type_="application/xml")
                return
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
            start, stop = 0, status.st_size
            if asked:
                start, stop = int(asked[1]), min(int(asked[2] or stop - 1) + 1, stop)
                headers["Content-Range"] = f"bytes {start}-{stop - 1}/{status.st_size}"
            body = os.pread(descriptor, stop - start, start) if self.command == "GET" else b""
            self._send(206 if asked else 200, body, length=stop - start, **headers)
        finally:
            os.close(descriptor)

    def _list(self, bucket: str, query: dict[str, list[str]]) -> bytes:
        after = query.get("continuation-token", [""])[0]
        prefix = query.get("prefix", [""])[0]
        names = sorted(
            name
            for path in (self.root / bucket).rglob("*")
            if path.is_file() and (name := path.relative_to(self.root / bucket).as_posix()).startswith(prefix)
        )
        page = [name for name in names if name > after][:PAGE]
        more = bool(page) and page[-1] != names[-1]
        entries = []
        for name in page:
            status = (self.root / bucket / name).stat()
            entries.append(
                f"<Contents><Key>{quote(name)}</Key><LastModified>2025-01-01T00:00:00.000Z</LastModified>"
                f"<ETag>{escape(etag_of(status))}</ETag><Size>{status.st_size}</Size></Contents>"
            )
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if more else ""
        return (
            '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix><EncodingType>url</EncodingType>"
            f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{''.join(entries)}</ListBucketResult>"
        ).encode()

    def _send(
        self, status: int, body: bytes, type_: str = "binary/octet-stream", length: int | None = None, **headers: str
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", type_)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def etag_of(status: os.stat_result) -> str:
    return f'"{status.st_mtime_ns:x}-{status.st_size:x}"'


def main() -> None:
    Handler.root = Path(sys.argv[1])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
