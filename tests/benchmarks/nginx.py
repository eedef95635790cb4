"""An S3 on loopback that is faster than what it serves to: nginx, over a folder of buckets.

GET and HEAD with ranges and If-Match; ListObjectsV2 of whole buckets from pages that are written before it starts; the
same with a pause to the first byte on a second port. Every request is a line in a log, so that requests, bytes and
round trips are known of any client, and exactly.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import escape

PAUSE = 0.03
"""Seconds to the first byte of the slow server: about what S3 takes."""

_PAGE = 1000
_MODULE = "ngx_http_echo_module.so"
_INSTALL = "benchmarks need nginx and its echo module: apt-get install nginx libnginx-mod-http-echo"

_CONFIG = """
load_module {module};
daemon off; master_process off; pid {run}/pid; error_log {run}/error.log warn;
events {{ worker_connections 4096; multi_accept on; }}
http {{
  log_format count '$request_method $status $body_bytes_sent $request_uri';
  access_log {run}/access.log count buffer=256k flush=50ms;
  sendfile on; tcp_nodelay on; keepalive_requests 10000000; keepalive_timeout 300s; max_ranges 1;
  client_body_temp_path {run}/body; proxy_temp_path {run}/proxy; fastcgi_temp_path {run}/fastcgi;
  uwsgi_temp_path {run}/uwsgi; scgi_temp_path {run}/scgi;
  default_type binary/octet-stream;
  map $args $is_list {{ default 0; "~(^|&)list-type=2(&|$)" 1; }}
  map $args $is_part {{ default 0; "~(^|&)(prefix|delimiter|start-after)=[^&]" 1; }}
  map $args $page {{ default 0; "~(?:^|&)continuation-token=(?<token>[0-9]+)(?:&|$)" $token; }}
  server {{
    listen 127.0.0.1:{fast} backlog=4096; root {buckets};
    location / {{ if ($is_list) {{ rewrite ^/(?<bucket>[^/]+)/?$ /-list/$bucket/$page.xml last; }} }}{common}
  }}
  server {{
    listen 127.0.0.1:{slow} backlog=4096;
    location / {{ echo_sleep {pause}; echo_exec /-now$uri $args; }}
    location /-now/ {{
      internal; alias {buckets}/;
      if ($is_list) {{ rewrite ^/-now/(?<bucket>[^/]+)/?$ /-list/$bucket/$page.xml last; }}
    }}{common}
  }}
}}
"""

_COMMON = """
    error_page 404 = @missing; error_page 501 = @unknown;
    location = /-/mark {{ return 204; }}
    location /-list/ {{
      internal; default_type application/xml; types {{}} alias {run}/lists/;
      if ($is_part) {{ return 501; }}
    }}
    location @missing {{ default_type application/xml; return 404 '<Error><Code>NoSuchKey</Code></Error>'; }}
    location @unknown {{ default_type application/xml; return 501 '<Error><Code>NotImplemented</Code></Error>'; }}
"""


@dataclass(frozen=True)
class Traffic:
    """What a client asked for between two marks.

    Attributes
    ----------
    requests : int
        Of every kind, those of listings included.
    kinds : Counter
        By method, ``LIST`` for listings.
    failed : Counter
        Answers of 400 and more, by status; not that 501 which tells who lists a large bucket to go on by token.
    body_bytes : int
    """

    requests: int
    kinds: Counter[str]
    failed: Counter[str]
    body_bytes: int


class Nginx:
    """A server that runs.

    Attributes
    ----------
    fast, slow : str
        Endpoints: one answers at once, one after `PAUSE`.
    """

    def __init__(self, fast: str, slow: str, log: Path) -> None:
        self.fast = fast
        self.slow = slow
        self._log = log
        self._read = 0  # bytes of the log that were taken

    def traffic(self, begin: str, end: str) -> Traffic:
        """Return what was asked between two marks (`mark`); what came before is forgotten.

        Raises
        ------
        TimeoutError
            The second mark was never made.
        """
        deadline = time.monotonic() + 10
        lines: list[str] = []
        while not any(_is_mark(line, end) for line in reversed(lines)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the log has no mark {end}")
            time.sleep(0.06)
            with self._log.open(encoding="latin-1") as log:
                log.seek(self._read)
                text = log.read()
            lines = text[: text.rfind("\n") + 1].splitlines()
        self._read += sum(len(line) + 1 for line in lines)
        marks = [index for index, line in enumerate(lines) if _is_mark(line, begin) or _is_mark(line, end)]
        return traffic_of(lines[marks[0] + 1 : marks[-1]])


def mark(endpoint: str, name: str) -> None:
    """Leave a mark in the log of a server."""
    with urllib.request.urlopen(f"{endpoint}/-/mark?{name}") as answer:
        answer.read()


def _is_mark(line: str, name: str) -> bool:
    return line.endswith(f" /-/mark?{name}")


def traffic_of(lines: list[str]) -> Traffic:
    kinds: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    body_bytes = 0
    for line in lines:
        method, status, body, uri = line.split(" ", 3)
        kind = "LIST" if "list-type=2" in uri.partition("?")[2] else method
        kinds[kind] += 1
        body_bytes += int(body)
        if int(status) >= 400 and (kind, status) != ("LIST", "501"):
            failed[status] += 1
    return Traffic(kinds.total(), kinds, failed, body_bytes)


@contextmanager
def nginx(buckets: Path) -> Iterator[Nginx]:
    """Serve a folder of buckets on two free ports of 127.0.0.1; what is written to it later is not listed.

    Raises
    ------
    SystemExit
        nginx is not installed, or does not start: one line says what to do.
    """
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    module = next((path for path in _modules(program) if path.exists()), None) if program else None
    if program is None or module is None:
        raise SystemExit(_INSTALL)
    with tempfile.TemporaryDirectory(prefix="nginx-") as temporary:
        run = Path(temporary)
        for bucket in sorted(path for path in buckets.iterdir() if path.is_dir()):
            _write_pages(bucket, run / "lists" / bucket.name)
        fast, slow = _free_ports(2)
        common = _COMMON.format(run=run)
        (run / "nginx.conf").write_text(
            _CONFIG.format(
                module=module, run=run, buckets=buckets.resolve(), fast=fast, slow=slow, pause=PAUSE, common=common
            )
        )
        with subprocess.Popen(
            [program, "-e", run / "error.log", "-p", run, "-c", run / "nginx.conf"], stderr=subprocess.DEVNULL
        ) as process:
            try:
                _wait(fast, process, run / "error.log")
                yield Nginx(f"http://127.0.0.1:{fast}", f"http://127.0.0.1:{slow}", run / "access.log")
            finally:
                process.terminate()


def _modules(program: str) -> Iterator[Path]:
    """Yield where the module may lie."""
    said = subprocess.run([program, "-V"], capture_output=True, text=True, check=True).stderr
    if match := re.search(r"--modules-path=(\S+)", said):
        yield Path(match[1]) / _MODULE
    yield Path("/usr/lib/nginx/modules") / _MODULE


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _wait(port: int, process: subprocess.Popen[bytes], errors: Path) -> None:
    for _ in range(200):
        if process.poll() is not None:
            said = errors.read_text().strip().splitlines() if errors.exists() else []
            raise SystemExit(f"nginx does not start: {said[-1] if said else 'it says nothing'}")
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit("nginx does not listen")


def _write_pages(bucket: Path, folder: Path) -> None:
    """Write the answers to ListObjectsV2, one a file; ETags are made as nginx makes them, of time and size."""
    folder.mkdir(parents=True)
    objects: list[tuple[bytes, int, int]] = []
    for parent, _, names in os.walk(bucket):
        for name in names:
            path = os.path.join(parent, name)  # noqa: PTH118 - 50,000 of them
            status = os.stat(path)  # noqa: PTH116
            objects.append((os.fsencode(os.path.relpath(path, bucket)), status.st_size, int(status.st_mtime)))
    objects.sort()
    for page, start in enumerate(range(0, max(1, len(objects)), _PAGE)):
        rows = objects[start : start + _PAGE]
        more = start + _PAGE < len(objects)
        contents = "".join(
            f"<Contents><Key>{quote(key)}</Key><LastModified>{datetime.fromtimestamp(modified, UTC):%Y-%m-%dT%H:%M:%S}"
            f".000Z</LastModified><ETag>&quot;{modified:x}-{size:x}&quot;</ETag><Size>{size}</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
            for key, size, modified in rows
        )
        token = f"<NextContinuationToken>{page + 1}</NextContinuationToken>" if more else ""
        (folder / f"{page}.xml").write_text(
            '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{escape(bucket.name)}</Name><Prefix></Prefix><KeyCount>{len(rows)}</KeyCount><MaxKeys>{_PAGE}"
            f"</MaxKeys><EncodingType>url</EncodingType><IsTruncated>{str(more).lower()}</IsTruncated>{token}{contents}"
            "</ListBucketResult>"
        )
