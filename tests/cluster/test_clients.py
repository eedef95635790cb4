"""Ways to a cluster: over TLS, by a class that a file names; what is said where there is no way."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import dask
import pytest
from distributed import Client

from crawler.catalogue.reader import Catalogue
from crawler.cluster import (
    Tls,
    dashboard_of,
    local_client,
    performance_report,
    remote_client,
    warn_without_workers,
)
from crawler.driver.driver import Crawl
from crawler.driver.executor import InProcess
from crawler.errors import ClusterError, UsageError
from crawler.job.crawl_job import CrawlJob
from tests.cluster.certificates import Authority
from tests.conftest import TREE_FILES
from tests.tables import same_tables
from tests.unit.test_cli import Run, commands

ROOT = Path(__file__).parents[2]
SECRET = "hush-hush"


@pytest.fixture
def crawler(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    return commands(monkeypatch, capsys, tmp_path)


@contextmanager
def dask_process(pattern: str, *words: str) -> Iterator[str]:
    """Run a process of Dask until the end, from when it said something; give what that was."""
    command = [sys.executable, "-m", "dask", *words, "--host", "127.0.0.1", "--no-dashboard"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        try:
            lines = []
            for line in process.stderr:
                lines.append(line)
                if found := re.search(pattern, line):
                    break
            else:
                raise AssertionError("".join(lines))
            thread = threading.Thread(target=process.stderr.read)  # it never waits for who reads
            thread.start()
            yield found[1]
        finally:
            process.kill()
            process.wait()
        thread.join()


class Ways(NamedTuple):
    """Schedulers, and files to reach one of them with."""

    encrypted: str
    plain: str
    ca: str
    cert: str
    key: str
    expired: tuple[str, str]
    foreign: tuple[str, str, str]


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    """Return a scheduler with TLS and one worker, and one without, which has none."""
    folder = tmp_path_factory.mktemp("certificates")
    ours, theirs = Authority(folder / "ours"), Authority(folder / "theirs")
    cert, key = map(str, ours.sign("node"))
    foreign = (str(theirs.file), *map(str, theirs.sign("other")))
    expired = tuple(map(str, ours.sign("old", days=-1)))
    files = ("--tls-ca-file", str(ours.file), "--tls-cert", cert, "--tls-key", key)
    at = r"Scheduler at:\s+(\S+)"
    with (
        dask_process(at, "scheduler", "--port", "0", "--protocol", "tls", *files) as encrypted,
        dask_process(at, "scheduler", "--port", "0") as plain,
        dask_process(r"(Registered to)", "worker", encrypted, "--nthreads", "1", "--no-nanny", *files),
    ):
        yield Ways(encrypted, plain, str(ours.file), cert, key, expired, foreign)


class TestTls:
    def test_a_crawl(self, crawler: Run, tree: Path, tmp_path: Path, ways: Ways) -> None:
        files = ("--tls-ca-file", ways.ca, "--tls-cert", ways.cert, "--tls-key", ways.key)
        ended = crawler("index", tree, "-c", "made", "--scheduler", ways.encrypted, *files)

        assert (ended.code, ended.err) == (0, "")
        Crawl(CrawlJob(roots=(str(tree),), catalogue=str(tmp_path / "other")), InProcess(), lambda _: None).run()
        same_tables(Catalogue("made"), Catalogue(str(tmp_path / "other")))

    def test_of_a_job_file(self, crawler: Run, tree: Path, ways: Ways) -> None:
        files = f"tls_ca_file = '{ways.ca}'\ntls_cert = '{ways.cert}'\ntls_key = '{ways.key}'\n"
        Path("here.toml").write_text(f"[cluster]\nscheduler = '{ways.encrypted}'\n{files}")
        assert crawler("index", tree / "night0", "-c", "made", "--cluster", "here.toml").code == 0
        assert Catalogue("made").files.count_rows() == 10

    def test_of_dasks_own_configuration(self, ways: Ways) -> None:
        files = {"ca-file": ways.ca, "client.cert": ways.cert, "client.key": ways.key}
        with (
            dask.config.set({f"distributed.comm.tls.{name}": path for name, path in files.items()}),
            remote_client(ways.encrypted) as client,
        ):
            assert len(client.nthreads()) == 1

    @pytest.mark.parametrize(
        ("tls", "said"),
        [
            pytest.param(lambda w: Tls(w.foreign[0], w.cert, w.key), "its certificate is not to be trusted", id="ca"),
            pytest.param(lambda w: Tls(w.ca, *w.expired), "refuses our certificate: certificate expired", id="expired"),
            pytest.param(lambda w: Tls(w.ca, *w.foreign[1:]), "refuses our certificate: unknown ca", id="unknown"),
        ],
    )
    def test_no_trust(self, ways: Ways, tls: Callable[[Ways], Tls], said: str) -> None:
        with pytest.raises(ClusterError) as caught, remote_client(ways.encrypted, tls(ways)):
            pass
        assert str(caught.value).startswith(f"the scheduler at {ways.encrypted}: ")
        assert said in str(caught.value)

    @pytest.mark.parametrize(
        ("tls", "said"),
        [
            pytest.param(lambda _: Tls(), "wants a CA file, a certificate and its key (--tls-ca-file", id="nothing"),
            pytest.param(lambda w: Tls(ca_file=w.ca), "wants a CA file, a certificate", id="no-certificate"),
            pytest.param(lambda w: Tls(None, w.cert, w.key), "wants a CA file, a certificate", id="no-ca"),
            pytest.param(lambda w: Tls(w.ca, "none.pem", w.key), "TLS: none.pem: No such file", id="missing"),
            pytest.param(lambda w: Tls(w.key, w.cert, w.key), "holds no certificate in PEM", id="ca-is-a-key"),
            pytest.param(lambda w: Tls(w.ca, w.cert, w.foreign[2]), "do not belong together", id="another-key"),
            pytest.param(lambda w: Tls(w.ca, __file__, w.key), "are no PEM", id="no-pem"),
        ],
    )
    def test_wrong_files(self, ways: Ways, tls: Callable[[Ways], Tls], said: str) -> None:
        with pytest.raises(UsageError) as caught, remote_client(ways.encrypted, tls(ways)):
            pass
        assert said in str(caught.value)
        assert str(caught.value).isprintable()

    def test_tcp_to_one_that_wants_tls(self, ways: Ways) -> None:
        address = ways.encrypted.replace("tls:", "tcp:")
        with pytest.raises(ClusterError, match="it talks TLS: its address begins with tls://"), remote_client(address):
            pass

    def test_tls_to_one_that_does_not(self, ways: Ways) -> None:
        address = ways.plain.replace("tcp:", "tls:")
        with (
            pytest.raises(ClusterError, match="it does not talk TLS: its address begins with tcp://"),
            remote_client(address, Tls(ways.ca, ways.cert, ways.key)),
        ):
            pass

    def test_certificates_for_tcp(self, ways: Ways) -> None:
        with (
            pytest.raises(UsageError, match="certificates are for a scheduler at tls://, and tcp://"),
            remote_client(ways.plain, Tls(ways.ca, ways.cert, ways.key)),
        ):
            pass

    def test_certificates_for_nobody(self, crawler: Run) -> None:
        ended = crawler("index", ".", "-c", "made", "--workers", 1, "--tls-cert", "a.pem")
        assert ended.code == 2
        assert ended.fault.endswith("are of a scheduler: give --scheduler tls://...")


def without_progress(text: str) -> list[str]:
    """Return the lines of standard error except those about progress, which a slow machine prints."""
    return [line for line in text.splitlines() if " files/s, " not in line]


class TestPlanned:
    """Clusters whose class a file names."""

    def test_is_started_scaled_and_closed(self, crawler: Run, tree: Path) -> None:
        Path("mine.toml").write_text(
            "[cluster]\nclass = 'tests.cluster.kinds.Wrapped'\n"
            "[cluster.options]\nnotes = 'notes'\nworkers = 1\n[cluster.scale]\nn = 1\n"
        )
        ended = crawler("index", tree, "-c", "made", "--cluster", "mine.toml", "--json")

        assert (ended.code, without_progress(ended.told)) == (0, ["Wrapped says hello"])
        assert ended.out.startswith("{")
        assert ended.out.count("\n") == 1
        assert Path("notes").read_text().split() == ["started", "scale-1", "closed"]
        assert Catalogue("made").files.count_rows() == TREE_FILES

    def test_follows_the_work(self, crawler: Run, tree: Path) -> None:
        Path("job.toml").write_text(
            f"[crawl]\nroots = ['{tree / 'night0'}']\ncatalogue = 'made'\n"
            "[cluster]\nclass = 'distributed.LocalCluster'\n"
            "[cluster.options]\nn_workers = 0\nthreads_per_worker = 1\nhost = '127.0.0.1'\nsilence_logs = 50\n"
            "dashboard_address = '127.0.0.1:0'\n"
            "[cluster.scale]\nminimum = 0\nmaximum = 1\n"
        )
        ended = crawler("index", "--job", "job.toml")
        assert (ended.code, without_progress(ended.told)) == (0, [])
        assert Catalogue("made").files.count_rows() == 10

    @pytest.mark.parametrize(
        ("cluster", "said"),
        [
            pytest.param("class = 'no_such_package.Cluster'", "2: no_such_package is not installed: pip", id="package"),
            pytest.param(
                "class = 'distributed.nowhere.Cluster'", "2: cluster class distributed.nowhere.Cluster not", id="module"
            ),
            pytest.param(
                "class = 'distributed.NoCluster'", "2: module distributed has no cluster class NoCl", id="class"
            ),
            pytest.param("class = 'LocalCluster'", "2: LocalCluster is not an import path: dask_", id="no-path"),
            pytest.param(
                "class = 'distributed.Client'", "2: distributed.Client is not a Dask cluster cla", id="client"
            ),
            pytest.param("class = 'tests.cluster.kinds.no_class'", "2: tests.cluster.kinds.no_class is no", id="func"),
            pytest.param(
                "class = 'tests.cluster.kinds.Wrapped'\noptions.nodes = 'x'",
                "3: tests.cluster.kinds.Wrapped: missing a required argument: 'notes'",
                id="missing-option",
            ),
            pytest.param(
                "class = 'tests.cluster.kinds.Wrapped'\noptions.notes = 'x'\noptions.colour = 'red'",
                "3: tests.cluster.kinds.Wrapped: got an unexpected keyword argument 'colour'",
                id="option",
            ),
            pytest.param(
                "class = 'distributed.LocalCluster'\nscale.jobs = 3",
                "3: distributed.LocalCluster: got an unexpected keyword argument 'jobs'",
                id="scale",
            ),
            pytest.param(
                "class = 'distributed.LocalCluster'\nscale = {minimum = 3, maximum = 2}",
                "3: sizes must be numbers, not all of them 0, and minimum must not exceed",
                id="minimum",
            ),
            pytest.param("class = 'distributed.LocalCluster'\nscale.n = 0", "3: sizes must be numbers", id="nobody"),
        ],
    )
    def test_wrong(self, crawler: Run, tree: Path, cluster: str, said: str) -> None:
        Path("mine.toml").write_text(f"[cluster]\n{cluster}\n")
        ended = crawler("index", tree, "-c", "made", "--cluster", "mine.toml")
        assert (ended.code, ended.out) == (2, "")
        assert ended.fault.startswith(f"cluster file mine.toml, line {said}")
        assert not Path("made").exists()

    def test_cannot_be_started(self, crawler: Run, tree: Path) -> None:
        Path("mine.toml").write_text(
            "[cluster]\nclass = 'tests.cluster.kinds.Failing'\n"
            f"[cluster.options]\nzone = 'west'\nenvironment = {{TOKEN = '{SECRET}'}}\n"
        )
        ended = crawler("index", tree, "-c", "made", "--cluster", "mine.toml")
        assert ended.code == 1
        assert ended.fault == (
            "cluster file mine.toml, line 2: tests.cluster.kinds.Failing cannot be started: "
            "no machine is free in west for {'TOKEN': '...'}"
        )

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
    def test_interrupted_as_it_starts(self, tree: Path, tmp_path: Path, number: signal.Signals) -> None:
        notes = tmp_path / "notes"
        (tmp_path / "mine.toml").write_text(
            f"[cluster]\nclass = 'tests.cluster.kinds.NeverReady'\noptions.notes = '{notes}'\n"
        )
        command = [sys.executable, "-c", "from crawler.cli import main; main()", "index", str(tree), "-c", "made"]
        process = subprocess.Popen(
            [*command, "--cluster", "mine.toml"],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        until = time.monotonic() + 60
        while not notes.exists() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
        assert (process.returncode, out, err.strip()) == (130, "", "crawler: interrupted")
        assert notes.read_text().split() == ["starting", "closed"]


class TestWatching:
    def test_no_workers_give_one_warning(self, ways: Ways, monkeypatch: pytest.MonkeyPatch) -> None:
        told: list[str] = []
        looks = threading.Semaphore(0)
        asked = Client.nthreads

        def nthreads(client: Client) -> dict[str, int]:
            looks.release()
            return dict(asked(client))

        monkeypatch.setattr(Client, "nthreads", nthreads)
        with remote_client(ways.plain) as client, warn_without_workers(client, told.append, 0.1, 0.02):
            begun = time.monotonic()
            future = client.submit(int)
            while time.monotonic() - begun < 0.5:
                assert looks.acquire(timeout=30)
            future.release()
        assert told == [f"no workers at {ways.plain} for 0 s: the crawl waits until workers connect"]

    def test_workers_give_no_warning(self, ways: Ways) -> None:
        told: list[str] = []
        tls = Tls(ways.ca, ways.cert, ways.key)
        with remote_client(ways.encrypted, tls) as client, warn_without_workers(client, told.append, 0.0, 0.01):
            assert client.submit(sum, [1, 2]).result() == 3
        assert told == []

    def test_no_dashboard(self, ways: Ways) -> None:
        with remote_client(ways.plain) as client:
            assert client.dashboard_link  # as Dask has it
            assert dashboard_of(client) is None

    def test_report_without_bokeh(self, crawler: Run, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "bokeh", None)
        ended = crawler("index", tree, "-c", "made", "--workers", 1, "--performance-report", "report.html")
        assert (ended.code, ended.fault) == (2, "--performance-report needs bokeh: pip install bokeh")
        assert sorted(path.name for path in Path().iterdir()) == ["tree"]

    def test_report_without_a_cluster(self, crawler: Run, tree: Path) -> None:
        ended = crawler("index", tree, "-c", "made", "--workers", 0, "--performance-report", "report.html")
        assert ended.code == 2
        assert ended.fault.startswith("--performance-report is of a Dask cluster")

    def test_report_and_dashboard(self, crawler: Run, tree: Path) -> None:
        pytest.importorskip("bokeh", reason="draws dashboards")
        ended = crawler("index", tree, "-c", "made", "--workers", 1, "--performance-report", "report.html")
        assert ended.code == 0, ended.err
        (line,) = without_progress(ended.err)
        assert re.fullmatch(r"dashboard: http://127\.0\.0\.1:\d+/status", line)
        assert "Task Stream" in Path("report.html").read_text()

    def test_report_holds_no_options(self, tree: Path, tmp_path: Path) -> None:
        pytest.importorskip("bokeh", reason="draws reports")
        from crawler.cluster import DaskExecutor  # noqa: PLC0415

        # Options that no worker needs for these roots travel with the job all the same.
        job = CrawlJob(
            roots=(str(tree), "s3://nothing/"),
            catalogue=str(tmp_path / "made"),
            storage_options={"key": "k", "secret": SECRET, "endpoint_url": "http://127.0.0.1:1"},
        )
        path = tmp_path / "report.html"
        with (
            local_client(1) as client,
            performance_report(client, str(path), print),
            pytest.raises(Exception, match="nothing"),
        ):
            Crawl(job, DaskExecutor(client), lambda _: None).run()
        assert "html" in path.read_text()
        assert SECRET not in path.read_text()
