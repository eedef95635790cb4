"""No credential leaves the requests that it is for: planted wherever one can be given, and looked for everywhere.

Crawls that go well, badly and worse are run once, on a cluster of this machine and on one that others started, while
everything is written down that they print, log, write, raise and show. Then all of it is searched.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from distributed import Client

import crawler
from crawler.cluster import remote_client
from crawler.job.crawl_job import CrawlJob
from crawler.worker import partition as crawl
from tests.fits_files import image_hdu
from tests.s3.bucket_server import BucketHandler, BucketServer
from tests.s3.conftest import S3Server
from tests.servers import Handler, RangeServer

ROOT = Path(__file__).parents[2]
FILE = image_hdu((10,)) + image_hdu((100, 100), xtension="IMAGE")
SECONDS = 120.0

CANARY = "kanarienvogel"
"""In every secret, and in nothing else."""


def planted(place: str) -> str:
    """Return a secret that says where it was planted."""
    return f"{CANARY}-{place}"


def keys(place: str) -> dict[str, str]:
    return {name: planted(f"{place}-{name}") for name in ("key", "secret", "token")}


ECHO = (
    "<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message><AWSAccessKeyId>{key}</AWSAccessKeyId>"
    "<StringToSign>AWS4-HMAC-SHA256</StringToSign><CanonicalRequest>GET\nx-amz-security-token:{token}\n\n"
    "</CanonicalRequest>{tail}</Error>"
)
"""What S3 says of a wrong signature repeats all that was signed ("Error responses", Amazon S3 API Reference)."""


def echoed(headers: Any, code: str, tail: str = "") -> bytes:
    key = headers.get("authorization", "").partition("Credential=")[2].partition("/")[0]
    return ECHO.format(code=code, key=key, token=headers.get("x-amz-security-token"), tail=tail).encode()


class _Echo(BucketHandler):
    def answer(self) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        if name in self.server.owner.says:
            status, code, tail = self.server.owner.says[name]
            if name == "fails-once.fits":
                del self.server.owner.says[name]
            body = echoed(self.asked.headers, code, tail)
            Handler.send(self, status, body, {"Content-Type": "application/xml"})
        else:
            super().answer()


class EchoServer(BucketServer):
    """A bucket server that repeats who asked in what it refuses, as S3 does.

    Attributes
    ----------
    says : dict
        Status, error code and the end of the body, by the last part of a path: that of the bucket for listings.
    """

    handler = _Echo

    def __init__(self, names: list[str]) -> None:
        super().__init__({f"survey/{name}": FILE for name in names})
        self.says = {
            "denied.fits": (403, "AccessDenied", ""),
            "signed-wrongly.fits": (400, "InvalidRequest", ""),
            "fails-once.fits": (500, "InternalError", ""),
            "malformed.fits": (400, "Odd", "</Error><Code>&&<"),
        }


NAMES = ["a.fits", "b.fits", "denied.fits", "fails-once.fits", "malformed.fits", "signed-wrongly.fits", "stalled.fits"]


class Evidence:
    """What was printed, logged, written, raised and shown, by where."""

    def __init__(self) -> None:
        self.found: dict[str, list[bytes]] = defaultdict(list)

    def add(self, where: str, what: object) -> None:
        self.found[where].append(what if isinstance(what, bytes) else str(what).encode(errors="replace"))

    def add_folder(self, where: str, folder: Path) -> None:
        """Add every file below a folder, its name too; what is Parquet, with its strings as they are."""
        for path in sorted(folder.rglob("*")):
            self.add(where, path.name)
            if path.is_file():
                self.add(where, path.read_bytes())
                if path.suffix == ".parquet":
                    file = pq.ParquetFile(path)
                    self.add(where, file.schema_arrow.metadata)
                    self.add(where, file.read().to_pylist())

    def add_error(self, where: str, error: BaseException) -> None:
        self.add(where, str(error))
        self.add(where, repr(error))
        self.add(where, repr(vars(error)))
        self.add(where, "".join(traceback.format_exception(error)))

    def add_pickle(self, where: str, error: BaseException) -> None:
        """Add an error as a process would hand it on, without what is no part of the chain that it shows."""
        if error.__suppress_context__:
            error.__context__ = None
        self.add(where, pickle.dumps(error))

    def spilled(self, where: str) -> set[str]:
        """Return the secrets that are there."""
        return {
            match.decode(errors="replace")
            for one in self.found[where]
            for match in re.findall(rb"[ -~]{0,60}" + CANARY.encode() + rb"[-\w]*", one)
        }


def processes_below(pid: int) -> set[int]:
    children = defaultdict(set)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            told = stat.read_text()
        except OSError:  # it ended
            continue
        children[int(told.rpartition(")")[2].split()[1])].add(int(stat.parent.name))
    found, new = set(), {pid}
    while new:
        found |= new
        new = {child for one in new for child in children[one]} - found
    return found


def until(what: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + SECONDS
    while not (found := what()):
        assert time.monotonic() < deadline, "it never comes"
        time.sleep(0.05)
    return found


@contextmanager
def cluster_of_others(folder: Path) -> Iterator[tuple[str, list[int]]]:
    """Run ``dask scheduler`` and a worker that log all that they can; give the address and who they are."""
    quiet = dict.fromkeys(("botocore", "aiobotocore"), "info")
    loud = dict.fromkeys(("distributed", "crawler", "obstore", "s3fs", "fsspec", "asyncio", "aiohttp"), "debug")
    config = folder / "dask.json"
    config.write_text(json.dumps({"logging": loud | quiet}))
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DASK_CONFIG": str(config)}
    with ExitStack() as stack:
        running = []

        def started(*words: str) -> None:
            log = stack.enter_context((folder / f"{words[0]}.log").open("wb"))
            command = [sys.executable, "-m", "dask", *words, "--host", "127.0.0.1", "--no-dashboard"]
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            running.append(process)

            def end() -> None:
                process.terminate()
                process.wait()

            stack.callback(end)

        started("scheduler", "--port", "0")
        log = folder / "scheduler.log"
        address = until(lambda: re.search(r"Scheduler at:\s+(tcp://\S+)", log.read_text()))[1]
        started("worker", address, "--nthreads", "1", "--local-directory", str(folder / "local"))
        yield address, [one.pid for one in running]


def of_scheduler(dask_scheduler: Any) -> str:
    """Return all that a scheduler shows of its tasks."""
    tasks = list(dask_scheduler.tasks.values())
    stories = dask_scheduler.story(*{one[0] for one in dask_scheduler.transition_log})
    shown = [repr(one) for one in tasks] + [repr(one.annotations) for one in tasks]
    shown += [repr(list(dask_scheduler.transition_log)), repr(dask_scheduler.get_events())]
    return "\n".join([*shown, repr(stories), repr(dask_scheduler.identity())])


class Ground:
    """Servers to read from and to write to, and who is told which secrets."""

    def __init__(self, folder: Path, store: EchoServer, catalogue: S3Server, evidence: Evidence) -> None:
        self.folder, self.store, self.evidence = folder, store, evidence
        self.catalogue, self.bucket = catalogue, catalogue.bucket()

    def options(self, place: str) -> dict[str, Any]:
        return {
            "roots": ["s3://survey/"],
            "catalogue": f"s3://{self.bucket}/{place}",
            "storage_options": {"endpoint_url": self.store.origin, **keys(f"{place}-storage")},
            "catalogue_options": {"endpoint_url": self.catalogue.endpoint, **keys(f"{place}-catalogue")},
        }

    def job_file(self, place: str) -> Path:
        """Write a job file that only its owner may read."""
        told = self.options(place)
        sections = {"crawl": {"roots": told["roots"], "catalogue": told["catalogue"]}}
        sections |= {name: told[name] for name in ("storage_options", "catalogue_options")}
        text = "".join(
            f"[{section}]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in content.items())
            for section, content in sections.items()
        )
        path = self.folder / "job.toml"
        path.write_text(text)
        path.chmod(0o600)
        return path

    def keep_catalogue(self, place: str) -> None:
        """Copy a catalogue to the local disk."""
        moto = self.catalogue
        for one in moto.client.list_objects_v2(Bucket=self.bucket, Prefix=place).get("Contents", ()):
            path = self.folder / "catalogues" / one["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(moto.client.get_object(Bucket=self.bucket, Key=one["Key"])["Body"].read())


def command(ground: Ground) -> None:
    """Run the command on a cluster of its own, and kill the worker in the middle."""
    evidence = ground.evidence
    args = ["index", "--job", str(ground.job_file("command")), "--workers", "1", "--json"]
    of_environment = {f"AWS_{name}": planted(f"environment-{name}") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY")}
    with (ground.folder / "out").open("w+b") as out, (ground.folder / "err").open("w+b") as err:
        process = subprocess.Popen(
            [sys.executable, "-c", "from crawler.cli import main; main()", *args],
            cwd=ground.folder,
            env={**os.environ, **of_environment, "PYTHONPATH": str(ROOT)},
            stdout=out,
            stderr=err,
        )
        try:
            watched(ground, process)
        finally:
            process.kill()
            process.wait()
    for name in ("out", "err"):
        evidence.add(f"std{name}", (ground.folder / name).read_bytes())
    said = (ground.folder / "out").read_bytes()
    assert process.returncode == 0, (ground.folder / "err").read_text()
    assert json.loads(said)["walked"] == {"ok": 4, "unreadable": 3}


def watched(ground: Ground, process: subprocess.Popen[bytes]) -> None:
    """Look at the processes of the command while one file is waited for, and kill the worker that waits."""
    evidence = ground.evidence
    asked = ground.store.stall("survey/stalled.fits")
    until(lambda: any("stalled" in one.path for one in ground.store.requests) or process.poll() is not None)
    below = processes_below(process.pid)
    workers = []
    for pid in below:
        cmdline = Path(f"/proc/{pid}/cmdline").read_bytes()
        evidence.add("process titles", cmdline)
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        # What whoever ran the command had there is theirs; what was added is not.
        evidence.add("environments", environment.replace(planted("environment").encode(), b"theirs"))
        if b"spawn_main" in cmdline:
            workers.append(pid)
    assert workers
    os.kill(max(workers), signal.SIGKILL)
    asked.set()
    process.wait(SECONDS)
    del ground.store.stalled["survey/stalled.fits"]


def refuse() -> None:
    """Have tasks raise on this worker, as where the catalogue's store refuses what they write."""

    def refused(*_: object) -> None:
        raise OSError("refused")

    crawl.write_fragment = refused  # type: ignore[assignment]


def on_cluster(ground: Ground, client: Client) -> None:
    """Crawl on a cluster of others: well, and with tasks that raise."""
    evidence = ground.evidence
    ground.store.says["fails-once.fits"] = (500, "InternalError", "")
    stalled = ground.store.stall("survey/stalled.fits")
    before = len(ground.store.requests)

    def look() -> None:
        try:
            until(lambda: any("stalled" in one.path for one in ground.store.requests[before:]))
            evidence.add("the scheduler", client.run_on_scheduler(of_scheduler))
            evidence.add("the scheduler", client.call_stack())
        finally:
            stalled.set()

    looking = threading.Thread(target=look)
    looking.start()
    report = crawler.index(**ground.options("cluster"), client=client)
    looking.join()
    assert report.walked == {"ok": 4, "unreadable": 3}
    evidence.add("reports", repr(report))
    evidence.add("reports", report.counts())
    client.run(refuse)
    with pytest.raises(crawler.CrawlerError, match="cannot be written") as caught:
        crawler.index(**ground.options("refused"), client=client)
    evidence.add_error("exceptions", caught.value)
    evidence.add("pickled exceptions", pickle.dumps(caught.value))
    evidence.add("the scheduler", client.run_on_scheduler(of_scheduler))
    evidence.add("the scheduler", client.get_events())
    evidence.add("the scheduler", client.get_worker_logs())
    evidence.add("the scheduler", client.get_scheduler_logs())


def in_process(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask for what cannot be, and for what is refused, with secrets of all kinds."""
    folder, evidence = ground.folder, ground.evidence
    told = ground.options("python")
    s3 = told["storage_options"]
    job = CrawlJob(("s3://survey/",), "x", storage_options=s3, catalogue_options=told["catalogue_options"])
    evidence.add("reprs", repr(job))
    evidence.add("reprs", str(job))
    with RangeServer({"a.fits": FILE}) as web:
        web.status["b.fits"] = 403
        header = {"headers": {"Authorization": planted("header")}}
        client_options = {"client_options": {"default_headers": {"authorization": planted("client-options")}}}
        at = web.origin.removeprefix("http://")
        attempts: dict[str, Callable[[], Any]] = {
            "header": lambda: crawler.index([web.url("a.fits"), web.url("b.fits")], "1", storage_options=header),
            "client options": lambda: crawler.index(
                web.url("a.fits"), str(folder / "2"), storage_options=client_options
            ),
            "user": lambda: crawler.index(f"http://{CANARY}-user@{at}/a.fits", str(folder / "3")),
            "password": lambda: crawler.index(f"http://user:{CANARY}-password@{at}/a.fits", str(folder / "4")),
            "password of headers": lambda: list(crawler.load_headers(f"http://user:{CANARY}-password@{at}/a.fits")),
            "header refused": lambda: list(crawler.load_headers(web.url("b.fits"), storage_options=header)),
            "bad header": lambda: list(
                crawler.load_headers(web.url("a.fits"), storage_options={"headers": {"X": planted("header") + "\n"}})
            ),
            "bad client option": lambda: list(
                crawler.load_headers(
                    web.url("a.fits"), storage_options={"client_options": {"proxy_url": planted("proxy") + "://x:y@"}}
                )
            ),
            "unknown header option": lambda: list(
                crawler.load_headers(web.url("a.fits"), storage_options={"no_such": planted("no-such")})
            ),
        }
        for name, options in {
            "unknown option": {**s3, "acces_key": planted("unknown-option")},
            "option of another kind": {**s3, "client_kwargs": planted("no-table")},
            "odd client argument": {**s3, "client_kwargs": {"no_such": planted("no-argument")}},
            "odd config": {**s3, "config_kwargs": {"s3": planted("no-config")}},
            "odd client option": {**s3, "client_options": {"proxy_url": f"http://u:{CANARY}-proxy@[::"}},
            "odd header": {**s3, "client_options": {"default_headers": {"X": planted("bad-header") + "\n"}}},
            "odd retries": {**s3, "retry_config": {"max_retries": planted("retries")}},
            "password of an endpoint": {**s3, "endpoint_url": f"http://u:{CANARY}-endpoint@127.0.0.1:1"},
        }.items():
            attempts[name] = lambda options=options: list(
                crawler.load_headers("s3://survey/a.fits", storage_options=options)
            )
            attempts[f"{name}, crawled"] = lambda options=options, name=name: crawler.index(
                f"@{folder / 'keys.txt'}", str(folder / "odd" / name), storage_options=options
            )
        (folder / "keys.txt").write_text("s3://survey/a.fits\n")
        for name in ("denied.fits", "malformed.fits", "signed-wrongly.fits"):
            for store in ("obstore", "fsspec"):
                attempts[f"{name} by {store}"] = lambda name=name, store=store: list(
                    crawler.load_headers(f"s3://survey/{name}", storage_options=s3, store=store)
                )
        attempts["catalogue of nobody"] = lambda: crawler.Catalogue(told["catalogue"], storage_options=s3)
        for name, attempt in attempts.items():
            try:
                evidence.add("reports", attempt())
            except crawler.CrawlerError as error:
                evidence.add_error("exceptions", error)
                evidence.add_pickle("pickled exceptions", error)
            except Exception as error:
                evidence.add("exceptions of others", f"{name}: {error!r}")
        ground.store.says["survey"] = ground.store.says[""] = (403, "SignatureDoesNotMatch", "")
        with pytest.raises(crawler.CrawlerError, match="cannot list") as caught:
            crawler.index(**told)
        evidence.add_error("exceptions", caught.value)


@pytest.fixture(scope="module")
def evidence(moto: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Crawl in every way that could spill, once."""
    folder = tmp_path_factory.mktemp("canary")
    found = Evidence()
    handler = _Remember(found)
    with pytest.MonkeyPatch.context() as monkeypatch, ExitStack() as stack:
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        monkeypatch.chdir(folder)
        store = stack.enter_context(EchoServer(NAMES))
        ground = Ground(folder, store, moto, found)
        (folder / "cluster").mkdir()
        address, pids = stack.enter_context(cluster_of_others(folder / "cluster"))
        command(ground)
        with loud(handler):
            with remote_client(address) as client:
                client.wait_for_workers(1, timeout=SECONDS)
                on_cluster(ground, client)
            for pid in set().union(*map(processes_below, pids)):
                found.add("process titles", Path(f"/proc/{pid}/cmdline").read_bytes())
                found.add("environments", Path(f"/proc/{pid}/environ").read_bytes())
            in_process(ground, monkeypatch)
        for place in ("command", "cluster", "refused"):
            ground.keep_catalogue(place)
        (folder / "job.toml").unlink()
        sent = " ".join(str(one.headers) for one in store.requests)
        assert all(
            planted(f"{place}-storage-token") in sent for place in ("command", "cluster")
        )  # or nothing can spill
        found.add_folder("files", folder)
    return found


class _Remember(logging.Handler):
    def __init__(self, evidence: Evidence) -> None:
        super().__init__(logging.DEBUG)
        self._evidence = evidence

    def emit(self, record: logging.LogRecord) -> None:
        self._evidence.add("logs", logging.Formatter().format(record))


@contextmanager
def loud(handler: logging.Handler) -> Iterator[None]:
    """Log everything there, but what botocore says below INFO: it prints whole requests, signed headers among it."""
    quiet = [logging.getLogger(name) for name in ("botocore", "aiobotocore", "urllib3", "werkzeug")]
    root = logging.getLogger()
    before = root.level, [one.level for one in quiet]
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    for one in quiet:
        one.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before[0])
        for one, level in zip(quiet, before[1], strict=True):
            one.setLevel(level)


@pytest.mark.parametrize(
    ("where", "seen"),
    [
        ("process titles", "spawn_main"),
        ("environments", "PYTHONPATH"),
        ("stdout", '"walked"'),
        ("stderr", ""),
        ("logs", "Using selector"),
        ("files", "s3://survey/denied.fits"),
        ("files", "Compute Failed"),
        ("reports", "unreadable"),
        ("reprs", "CrawlJob"),
        ("the scheduler", "-partition-0"),
        ("exceptions", "SignatureDoesNotMatch"),
        ("pickled exceptions", "AccessDeniedError"),
    ],
)
def test_nothing_in(evidence: Evidence, where: str, seen: str) -> None:
    assert any(seen.encode() in one for one in evidence.found[where]), "it is not there that one must look"
    assert evidence.spilled(where) == set()


def test_every_failure_is_one_of_ours(evidence: Evidence) -> None:
    assert evidence.found["exceptions of others"] == []
