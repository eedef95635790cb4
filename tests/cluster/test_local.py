"""The cluster of ``--workers N``: who may use it, and what it leaves behind."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from distributed import Client, Security

from crawler.cluster import local_client

ROOT = Path(__file__).parents[2]
SECONDS = 10
"""Seconds in which a process of the cluster must refuse a stranger."""


def listening() -> set[tuple[str, int]]:
    """Return the addresses at which this process and its children take connections."""
    found = set()
    this = psutil.Process()
    for process in (this, *this.children(recursive=True)):
        try:
            connections = process.net_connections(kind="inet")
        except psutil.NoSuchProcess:
            continue
        found |= {(one.laddr.ip, one.laddr.port) for one in connections if one.status == psutil.CONN_LISTEN}
    return found


def speaks_http(port: int) -> bool:
    """Tell whether a port of loopback answers HTTP without TLS."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def strangers_context(security: Security | None) -> ssl.SSLContext:
    """Return what a client uses that trusts every server, and shows a certificate of its own or none."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if security is not None:
        context = security.get_connection_args("client")["ssl_context"]
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def refusal(port: int, context: ssl.SSLContext) -> str | None:
    """Return the TLS alert with which a port of loopback ends a connection, or None."""
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as plain,
            context.wrap_socket(plain) as encrypted,
        ):
            encrypted.recv(1)  # in TLS 1.3 the server refuses after the handshake (RFC 8446, section 4.4.2.4)
    except ssl.SSLError as error:
        return error.reason
    return None


STRANGER = """
from pathlib import Path
from distributed import Client, Security
try:
    client = Client("{address}", timeout=5, security={security})
except Exception as error:
    raise SystemExit(7) from error
client.submit(Path("{proof}").touch).result(timeout=60)
"""


@pytest.fixture(scope="class")
def cluster() -> Iterator[tuple[Client, set[int]]]:
    """Return a client of a local cluster with a dashboard, and the ports at which the cluster takes connections."""
    before = listening()
    with local_client(1, dashboard=True) as client:
        client.wait_for_workers(1, timeout=60)
        new = listening() - before
        assert {address for address, _ in new} == {"127.0.0.1"}
        yield client, {port for _, port in new}


class TestStrangers:
    @pytest.mark.parametrize(
        ("security", "alert"),
        [(None, "TLSV13_ALERT_CERTIFICATE_REQUIRED"), (Security.temporary(), "TLSV1_ALERT_UNKNOWN_CA")],
        ids=["no-certificate", "another-certificate"],
    )
    def test_every_port_but_the_dashboard_wants_its_certificate(
        self, cluster: tuple[Client, set[int]], security: Security | None, alert: str
    ) -> None:
        _, ports = cluster
        encrypted = {port for port in ports if not speaks_http(port)}
        assert len(encrypted) >= 3, "scheduler, nanny and worker"
        context = strangers_context(security)
        assert {port: refusal(port, context) for port in encrypted} == dict.fromkeys(encrypted, alert)

    @pytest.mark.parametrize(
        ("scheme", "security"),
        [("tcp", "None"), ("tls", "None"), ("tls", "Security.temporary()")],
        ids=["plain", "no-certificate", "another-certificate"],
    )
    def test_client_of_a_stranger_runs_nothing(
        self, cluster: tuple[Client, set[int]], tmp_path: Path, scheme: str, security: str
    ) -> None:
        client, _ = cluster
        address, proof = client.scheduler.address.partition("://")[2], tmp_path / "proof"
        done = subprocess.run(
            [sys.executable, "-c", STRANGER.format(address=f"{scheme}://{address}", security=security, proof=proof)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 7, done.stderr
        assert not proof.exists()

    def test_client_with_the_certificate_of_the_cluster_runs_tasks(self, cluster: tuple[Client, set[int]]) -> None:
        client, _ = cluster
        with Client(client.scheduler.address, security=client.security, set_as_default=False) as other:
            assert other.submit(sum, [1, 2], pure=False).result(timeout=60) == 3

    def test_dashboard_takes_no_commands(self, cluster: tuple[Client, set[int]]) -> None:
        _, ports = cluster
        for port in filter(speaks_http, ports):
            for path in ("/api/v1/retire_workers", "/api/v1/adaptive_target", "/info/main/workers.html"):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
                connection.request("POST", path, body=b"{}")
                assert connection.getresponse().status in (403, 404, 405)
                connection.close()


PROGRAM = """
import os, sys, time
from crawler.cluster import local_client
if __name__ == "__main__":
    with local_client(1) as client:
        client.wait_for_workers(1, timeout=60)
        print(client.security.tls_client_key.splitlines()[1], flush=True)
        sys.stdin.readline()
"""


def files_with(text: bytes, folder: Path) -> list[Path]:
    """Return the files below a folder that hold some text."""
    return [path for path in folder.rglob("*") if path.is_file() and text in path.read_bytes()]


@pytest.mark.parametrize("interrupted", [False, True], ids=["ends", "interrupted"])
def test_key_is_in_no_file(tmp_path: Path, interrupted: bool) -> None:
    script, temporary = tmp_path / "program.py", tmp_path / "temporary"
    script.write_text(PROGRAM)
    temporary.mkdir()
    with subprocess.Popen(
        [sys.executable, str(script)],
        cwd=temporary,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(temporary)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        key = process.stdout.readline().strip()
        assert len(key) == 64
        while_it_runs = files_with(key, temporary)
        arguments = [" ".join(one.cmdline()) for one in psutil.Process(process.pid).children(recursive=True)]
        if interrupted:
            process.send_signal(signal.SIGINT)
        process.communicate(b"\n", timeout=60)
    assert while_it_runs == files_with(key, temporary) == []
    assert not any(key.decode() in one for one in arguments)
