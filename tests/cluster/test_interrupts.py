"""SIGINT and SIGTERM to real processes that read from a server that does not answer, or at points that are named."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

import crawler
from crawler.catalogue.reader import Catalogue
from crawler.interrupts import REPEAT_SECONDS
from tests.cluster.test_external import Cluster
from tests.conftest import TREE_FILES, sibling
from tests.servers import RangeHandler, RangeServer
from tests.tables import same_tables

DRIVER = Path(__file__).parent / "driver.py"
CRAWLER = Path(sys.executable).parent / "crawler"

ACKNOWLEDGED = 2.0
"""Seconds within which the first signal is acknowledged."""

ENDED = 15.0
"""Seconds within which a process ends after the first signal, though a server never answers."""

GUARD = 120.0
"""Seconds after which a process that is waited for hangs."""

IN_FLIGHT = 4
"""Requests at once."""

FINISHED = [f"night/exp{number:03}.fits" for number in range(8)]
HELD = [f"night/exp{number:03}.fits" for number in range(8, 8 + IN_FLIGHT)]
NEVER_BEGUN = [f"night/exp{number:03}.fits" for number in range(20, 30)]


class TricklingHandler(RangeHandler):
    """Sends the bodies of held files byte by byte, and never the last byte."""

    def send(self, status: int, body: Any, headers: Any, length: int | None = None) -> None:
        name = self.path.removeprefix("/")
        if name not in self.server.owner.trickled:
            super().send(status, body, headers, length)
            return
        self.send_response_only(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        for at in range(len(body) - 1):
            self.wfile.write(body[at : at + 1])
            self.wfile.flush()
            if self.server.owner.trickled[name].wait(0.5):
                break
        self.close_connection = True


class TricklingServer(RangeServer):
    """Trickles some files."""

    handler = TricklingHandler

    def __init__(self, objects: Any) -> None:
        super().__init__(objects)
        self.trickled: dict[str, threading.Event] = {}

    def __exit__(self, *error: object) -> None:
        for event in self.trickled.values():
            event.set()
        super().__exit__(*error)


@pytest.fixture(scope="module")
def contents() -> dict[str, bytes]:
    return {name: sibling(number) for number, name in enumerate([*FINISHED, *HELD, *NEVER_BEGUN])}


@pytest.fixture
def location(tmp_path: Path) -> Path:
    return tmp_path / "catalogue"


@pytest.fixture
def server(contents: dict[str, bytes]) -> Iterator[TricklingServer]:
    with TricklingServer(contents) as running:
        for name in HELD:
            running.stall(name)
        yield running


def let_go(server: TricklingServer) -> None:
    """Have the server answer everything from now on."""
    for events in (server.stalled, server.trickled):
        for event in events.values():
            event.set()
        events.clear()


def wait_until_only_held_files_are_read(server: RangeServer, process: Process) -> None:
    """Wait until all requests that the server holds are there, and those before are answered."""
    while not (
        {f"/{name}" for name in FINISHED} <= {answer.request.path for answer in [*server.answered]}
        and {f"/{name}" for name in HELD} <= {request.path for request in [*server.requests]}
    ):
        assert process.is_alive(), process.err()
        time.sleep(0.02)


class Process:
    """A command in a session of its own, whose lines are read as they come."""

    def __init__(self, command: list[str], temporary: Path) -> None:
        self._temporary = temporary
        temporary.mkdir(exist_ok=True)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(temporary)},
        )
        self._came = threading.Condition()
        self._lines: dict[str, list[str]] = {"out": [], "err": []}
        streams = (("out", self._process.stdout), ("err", self._process.stderr))
        self._threads = [threading.Thread(target=self._read, args=stream, daemon=True) for stream in streams]
        for thread in self._threads:
            thread.start()

    def _read(self, name: str, stream: Any) -> None:
        for line in stream:
            with self._came:
                self._lines[name].append(line)
                self._came.notify_all()

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def out(self) -> str:
        return "".join(self._lines["out"])

    def err(self) -> str:
        return "".join(self._lines["err"])

    def wait_for(self, pattern: str, stream: str, seconds: float = GUARD) -> None:
        """Wait for a line."""
        with self._came:
            found = self._came.wait_for(lambda: any(re.search(pattern, line) for line in self._lines[stream]), seconds)
        assert found, f"no line {pattern!r} within {seconds} s:\n{self.out()}\n{self.err()}"

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def signal(self, kind: str) -> None:
        """Send a signal as a terminal does (``SIGINT``), or as GNU timeout does: to the process and then its group."""
        if kind == "timeout":
            self._process.send_signal(signal.SIGTERM)
            os.killpg(self._process.pid, signal.SIGTERM)
        else:
            os.killpg(self._process.pid, signal.Signals[kind])

    def children(self) -> list[psutil.Process]:
        return psutil.Process(self._process.pid).children(recursive=True)

    def end(self, seconds: float = GUARD, *, locks: tuple[str, ...] = (".lock",)) -> int:
        """Wait for the process to end; return its exit code. It must have left nothing behind, and say nothing odd.

        ``locks`` are the suffixes of files that Dask leaves and deletes when it is started again.
        """
        code = self._process.wait(seconds)
        for thread in self._threads:
            thread.join(GUARD)
        for trace in ("Traceback", "resource_tracker", "leaked", "never retrieved", "abort", "panicked"):
            assert trace not in self.err(), self.err()
        assert self._still_running() == []
        left = [path for path in self._temporary.rglob("*") if path.is_file() and path.suffix not in locks]
        assert left == []
        assert [path.name for path in self._temporary.iterdir() if path.name != "dask-scratch-space"] == []
        return code

    def _still_running(self) -> list[str]:
        """Return the processes of the session that still run a moment later: some end with the first one."""
        for _ in range(50):
            found = []
            for process in psutil.process_iter():
                with suppress(psutil.Error, ProcessLookupError):
                    if os.getsid(process.pid) == self._process.pid and process.status() != psutil.STATUS_ZOMBIE:
                        found.append(" ".join(process.cmdline()))
            if not found:
                break
            time.sleep(0.1)
        return found

    def close(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(GUARD)
        for thread in self._threads:
            thread.join(GUARD)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            assert stream is not None
            with suppress(BrokenPipeError):
                stream.close()


@contextmanager
def process_of(tmp_path: Path, *command: object) -> Iterator[Process]:
    process = Process([str(word) for word in command], tmp_path / "temporary")
    try:
        yield process
    finally:
        process.close()


def index_command(server: RangeServer, location: Path, workers: int, *more: object) -> list[object]:
    where = ["--workers", workers, "--concurrency", IN_FLIGHT]
    return [CRAWLER, "index", server.url(""), "-c", location, *where, *more]


def driver_command(roots: list[str], location: Path, at: str = "nowhere", **told: Any) -> list[object]:
    what = {"roots": roots, "catalogue": str(location), "at": at, "number": 1, "workers": 0, **told}
    return [sys.executable, "-W", "error", DRIVER, json.dumps(what)]


def urls(location: Path) -> list[str]:
    return [row["url"] for row in Catalogue(str(location)).sql("SELECT url FROM files ORDER BY url").to_pylist()]


def completes(server: TricklingServer, location: Path, tmp_path: Path) -> None:
    """See that the same crawl again gives the tables of a crawl that nobody disturbed."""
    let_go(server)
    crawler.index(server.url(""), str(location))
    crawler.index(server.url(""), str(tmp_path / "undisturbed"))
    same_tables(Catalogue(str(location)), Catalogue(str(tmp_path / "undisturbed")))


@pytest.mark.parametrize("workers", [0, 2], ids=["in process", "on a cluster"])
class TestCommand:
    @pytest.mark.parametrize("kind", ["SIGINT", "timeout"])
    def test_interrupted_on_a_server_that_never_answers_commits_finished_files(
        self, tmp_path: Path, location: Path, server: TricklingServer, workers: int, kind: str
    ) -> None:
        with process_of(tmp_path, *index_command(server, location, workers)) as process:
            wait_until_only_held_files_are_read(server, process)
            begun = time.monotonic()
            process.signal(kind)
            process.wait_for("^stopping: waiting at most 5 s for requests in flight; press", "err", ACKNOWLEDGED)
            assert process.end(ENDED - (time.monotonic() - begun)) == 130
            assert process.err().endswith(
                "crawler: interrupted; what was walked is in the catalogue, the same command goes on from there\n"
            )
            assert "8 files" in process.out()

        assert urls(location) == [server.url(name) for name in FINISHED]
        asked = {request.path for request in server.requests}
        assert asked.isdisjoint(f"/{name}" for name in NEVER_BEGUN)
        completes(server, location, tmp_path)

    def test_interrupted_twice_drops_what_is_in_flight_at_once(
        self, tmp_path: Path, location: Path, server: TricklingServer, workers: int
    ) -> None:
        told = {
            "workers": workers,
            "partition": 4,
            "job": {"stop_seconds": GUARD, "concurrency": IN_FLIGHT, "learn": False},
        }
        with process_of(tmp_path, *driver_command([server.url("")], location, **told)) as process:
            wait_until_only_held_files_are_read(server, process)
            process.signal("SIGINT")
            time.sleep(REPEAT_SECONDS + 0.2)
            process.signal("SIGINT")
            assert process.end(ENDED) == 0
            said = json.loads(process.out())
        assert said["raised"]
        assert said["interrupted"]
        found = urls(location)
        assert len(found) == said["files"]
        assert set(found).isdisjoint(server.url(name) for name in HELD)
        completes(server, location, tmp_path)


def test_a_server_that_trickles_does_not_hold_up_the_end(
    tmp_path: Path, location: Path, contents: dict[str, bytes]
) -> None:
    with TricklingServer(contents) as server:
        server.trickled = {name: threading.Event() for name in HELD}
        with process_of(tmp_path, *index_command(server, location, 0)) as process:
            wait_until_only_held_files_are_read(server, process)
            begun = time.monotonic()
            process.signal("SIGINT")
            assert process.end(ENDED - (time.monotonic() - begun)) == 130
        assert urls(location) == [server.url(name) for name in FINISHED]
        completes(server, location, tmp_path)


def test_interrupted_in_the_listing_ends_without_a_catalogue(
    tmp_path: Path, location: Path, server: TricklingServer
) -> None:
    server.stall("night/")
    with process_of(tmp_path, *index_command(server, location, 0)) as process:
        while not any(request.path == "/night/" for request in server.requests):
            assert process.is_alive(), process.err()
            time.sleep(0.02)
        process.signal("SIGINT")
        process.wait_for("^stopping", "err", ACKNOWLEDGED)
        assert process.end(ENDED) == 130
        assert process.out() == ""
        assert process.err().splitlines()[-1] == "crawler: interrupted"
    assert not location.exists()


@pytest.mark.parametrize("kind", ["SIGINT", "timeout"])
def test_an_estimate_that_is_interrupted_leaves_nothing(tmp_path: Path, server: TricklingServer, kind: str) -> None:
    with process_of(tmp_path, CRAWLER, "estimate", server.url("")) as process:
        while not any(request.path == f"/{name}" for request in server.requests for name in HELD):
            assert process.is_alive(), process.err()
            time.sleep(0.02)
        process.signal(kind)
        assert process.end(ENDED) == 130
        assert process.err().strip() == "crawler: interrupted"


def test_log_json_tells_that_the_run_stops(tmp_path: Path, location: Path, server: TricklingServer) -> None:
    with process_of(tmp_path, *index_command(server, location, 0, "--log-json")) as process:
        wait_until_only_held_files_are_read(server, process)
        process.signal("SIGINT")
        process.wait_for('"event": "stopping"', "err", ACKNOWLEDGED)
        assert process.end(ENDED) == 130
    events = [json.loads(line)["event"] for line in process.err().splitlines() if line.startswith("{")]
    assert events[-1] == "ended"


def test_a_worker_that_hangs_does_not_hold_up_the_end(
    tmp_path: Path, location: Path, contents: dict[str, bytes]
) -> None:
    """A worker process is suspended, and so can neither hear that the run stops nor hand over its partition."""
    with TricklingServer(contents) as server:
        for name in HELD:
            server.stall(name)
        told = {
            "workers": 2,
            "partition": 4,
            "handover": 2.0,
            "job": {"stop_seconds": 1.0, "concurrency": IN_FLIGHT, "learn": False},
        }
        with process_of(tmp_path, *driver_command([server.url("")], location, at="wait", **told)) as process:
            process.wait_for("walking", "out")
            for child in process.children():
                if "spawn_main" in " ".join(child.cmdline()):
                    child.suspend()
            process.signal("SIGINT")
            assert process.end(2 * ENDED, locks=(".lock", ".dirlock")) == 0
            said = json.loads(process.out().splitlines()[-1])
        assert said["raised"]
        assert len(urls(location)) == said["files"] > 0
        completes(server, location, tmp_path)


def test_on_a_cluster_of_others_raises_after_the_commit_and_the_cluster_goes_on(
    tmp_path: Path, location: Path, server: TricklingServer
) -> None:
    with Cluster() as cluster:
        told = {"address": cluster.address, "job": {"concurrency": IN_FLIGHT, "learn": False}, "partition": 4}
        with process_of(tmp_path, *driver_command([server.url("")], location, **told)) as process:
            wait_until_only_held_files_are_read(server, process)
            process.signal("SIGINT")
            process.wait_for("raised", "out", ENDED)
            said = json.loads(process.out())
            assert said["raised"]
            assert said["interrupted"]
            found = urls(location)
            assert len(found) == said["files"] > 0
            assert set(found).isdisjoint(server.url(name) for name in HELD)
            let_go(server)
            process.say("go on")
            assert process.end() == 0
            again = json.loads(process.out().splitlines()[-1])
        assert not again["raised"]
        assert again["files"] == len(server.objects)
    completes(server, location, tmp_path)


class TestAtAPoint:
    """One SIGINT at any instant: KeyboardInterrupt is raised, and the same command again completes the catalogue."""

    @pytest.mark.parametrize(
        ("at", "number", "workers"),
        [
            ("before create", 1, 0),
            ("before fragment", 2, 0),
            ("before commit", 1, 0),
            ("after commit", 2, 0),
            ("before merge", 1, 0),
            ("after rewritten fragment", 1, 0),
            ("after commit", 10, 0),
            ("after commit", 2, 2),
            ("before close", 1, 2),
        ],
    )
    def test_of_the_run_raises_and_leaves_a_catalogue_that_can_be_completed(
        self, tmp_path: Path, location: Path, tree: Path, at: str, number: int, workers: int
    ) -> None:
        told = {"number": number, "workers": workers, "signal": "SIGINT"}
        with process_of(tmp_path, *driver_command([str(tree)], location, at=at, **told)) as process:
            assert process.end() == 0
            said = json.loads(process.out())
        assert process.err() == ""
        assert said["raised"]
        crawler.index(str(tree), str(location))
        crawler.index(str(tree), str(tmp_path / "undisturbed"))
        same_tables(Catalogue(str(location)), Catalogue(str(tmp_path / "undisturbed")))
        assert crawler.index(str(tree), str(location)).skipped == TREE_FILES

    @pytest.mark.parametrize("kind", ["SIGINT", "SIGTERM"])
    @pytest.mark.parametrize("at", ["before nanny", "before client"])
    def test_of_the_start_of_a_cluster_ends_the_start(
        self, tmp_path: Path, location: Path, tree: Path, at: str, kind: str
    ) -> None:
        told = {"workers": 2, "signal": kind}
        with process_of(tmp_path, *driver_command([str(tree)], location, at=at, **told)) as process:
            assert process.end() == 0
        assert json.loads(process.out()) == {"raised": True}
        assert process.err() == ""
        assert not location.exists()


def test_in_a_thread_signals_and_handlers_are_left_alone(location: Path, tree: Path) -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    seen = set()
    reports = []

    def index() -> None:
        def progress(_report: crawler.Report) -> None:
            seen.add((signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)))

        reports.append(crawler.index(str(tree), str(location), progress=progress))

    thread = threading.Thread(target=index)
    thread.start()
    thread.join(GUARD)
    assert reports[0].files == TREE_FILES
    assert seen == {handlers}
