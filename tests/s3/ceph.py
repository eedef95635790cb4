"""A Ceph object gateway on 127.0.0.1, for what only a real S3 server refuses: one monitor, one OSD in memory, radosgw.

    with Ceph(folder) as ceph:
        ceph.endpoint, ceph.users["owner"]

Takes some 2 s to start. The programs come with ``.ci/ceph-install``.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
DOMAIN = "s3.test"
"""Below it, buckets are hosts."""

_CONFIGURATION = """
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{mon2},v1:127.0.0.1:{mon1}]
public_network = 127.0.0.0/8
cluster_network = 127.0.0.0/8
ms_bind_port_min = {osd}
ms_bind_port_max = {osd_last}
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
keyring = {folder}/keyring
run_dir = {folder}/run
admin_socket = {folder}/run/$name.asok
pid_file = {folder}/run/$name.pid
crash_dir = {folder}/run
log_file = {folder}/log/$name.log
# One copy of everything, and few placement groups: it is for minutes.
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_pool_default_pgp_num = 8
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_max_pg_per_osd = 2000
mon_data_avail_crit = 1
auth_allow_insecure_global_id_reclaim = false
# Nobody else proposes anything: do not wait for them.
paxos_propose_interval = 0.01
paxos_min_wait = 0.01

[mon]
mon_data = {folder}/mon

[osd]
osd_data = {folder}/osd
osd_objectstore = memstore
memstore_device_bytes = 1073741824

[client]
rgw_dns_name = {domain}
# Sessions of a few seconds ("STS in Ceph", its documentation): they must end while a test waits.
rgw_s3_auth_use_sts = true
rgw_sts_key = abcdefghijklmnop
rgw_sts_min_session_duration = 1
# As Ceph comes, sessions are looked for first, and whatever is wrong with a key is then AccessDenied.
rgw_s3_auth_order = local, sts
"""
SESSIONS_FIRST = "--rgw_s3_auth_order=sts, external, local"
"""How Ceph comes: an option for `Ceph.also`."""
_SECONDS = 60.0


class User(NamedTuple):
    """Who may ask: a key id and its secret."""

    key: str
    secret: str


class Ceph:
    """A cluster in a folder of its own, from ``with`` to its end.

    Attributes
    ----------
    endpoint : str
    users : Mapping[str, User]
        ``owner`` and ``other``, neither of whom may touch what is the other's.
    """

    users: Mapping[str, User] = {"owner": User("owner-key", "owner-secret"), "other": User("other-key", "other-secret")}

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._running: list[subprocess.Popen[bytes]] = []
        self._config = folder / "ceph.conf"
        self.endpoint = ""

    @staticmethod
    def missing() -> list[str]:
        """Return the programs that are not installed."""
        return [program for program in PROGRAMS if shutil.which(program) is None]

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._running):
            process.kill()  # nothing of it is kept
            process.wait()

    def _start(self) -> None:
        folder = self._folder
        for name in ("mon", "osd", "run", "log"):
            (folder / name).mkdir(parents=True)
        mon1, mon2, web = _free_ports(3)
        osd = _free_run(16)
        fsid = str(uuid.uuid4())
        self._config.write_text(
            _CONFIGURATION.format(
                fsid=fsid, mon1=mon1, mon2=mon2, osd=osd, osd_last=osd + 15, folder=folder, domain=DOMAIN
            )
        )
        self._make_keys()
        monmap = str(folder / "monmap")
        address = f"[v2:127.0.0.1:{mon2},v1:127.0.0.1:{mon1}]"
        self._run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", address, monmap)
        self._run("ceph-mon", "-i", "a", "--mkfs", "--monmap", monmap, "--keyring", str(folder / "keyring"))
        self._spawn("ceph-mon", "-i", "a", "-f")
        self._run("ceph", "osd", "create")
        self._run("ceph-osd", "-i", "0", "--mkfs")
        self._spawn("ceph-osd", "-i", "0", "-f")
        self._run("ceph", "osd", "crush", "add", "osd.0", "1.0", "root=default", "host=here")
        self.endpoint = self._serve(web)
        for name, user in self.users.items():
            keys = (f"--access-key={user.key}", f"--secret-key={user.secret}")
            self._run("radosgw-admin", "user", "create", f"--uid={name}", f"--display-name={name}", *keys)

    def administer(self, *command: str) -> None:
        """Run ``radosgw-admin``."""
        self._run("radosgw-admin", *command)

    def also(self, *options: str) -> str:
        """Start another gateway to the same buckets, with options of its own; return its endpoint."""
        return self._serve(*_free_ports(1), "--pid-file=", "--admin-socket=", *options)

    def _serve(self, port: int, *options: str) -> str:
        where = f"127.0.0.1:{port}"
        self._spawn("radosgw", "-n", "client.rgw.a", "-f", f"--rgw-frontends=beast endpoint={where}", *options)
        self._await(f"http://{where}")
        return f"http://{where}"

    def _make_keys(self) -> None:
        keyring = str(self._folder / "keyring")
        everything = {"mon": "allow *", "osd": "allow *", "mgr": "allow *"}
        names: dict[str, dict[str, str]] = {
            "mon.": {"mon": "allow *"},
            "client.admin": everything,
            "osd.0": {"mon": "allow profile osd", "osd": "allow *", "mgr": "allow profile osd"},
            "client.rgw.a": {"mon": "allow rw", "osd": "allow rwx", "mgr": "allow rw"},
        }
        self._run("ceph-authtool", "--create-keyring", keyring)
        for name, allowed in names.items():
            caps = [word for cap in allowed.items() for word in ("--cap", *cap)]
            self._run("ceph-authtool", keyring, "--gen-key", "-n", name, *caps)

    def _run(self, *command: str) -> None:
        done = subprocess.run(command, env=self._environment(), capture_output=True, timeout=_SECONDS, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[:3])} failed: {done.stderr.decode(errors='replace')[-500:]}")

    def _spawn(self, *command: str) -> None:
        with (self._folder / "log" / f"{command[0]}.out").open("wb") as out:
            process = subprocess.Popen(
                command,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._running.append(process)

    def _environment(self) -> Mapping[str, str]:
        return {**os.environ, "CEPH_CONF": str(self._config)}

    def _await(self, endpoint: str) -> None:
        deadline = time.monotonic() + _SECONDS
        # No proxy of the environment stands between.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        while time.monotonic() < deadline:
            if (dead := next((one for one in self._running if one.poll() is not None), None)) is not None:
                raise RuntimeError(f"{dead.args!r} ended: see {self._folder / 'log'}")
            try:
                with opener.open(endpoint, timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        raise RuntimeError(f"radosgw did not answer within {_SECONDS} s: see {self._folder / 'log'}")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _free_run(count: int) -> int:
    """Return the first of ``count`` ports in a row that are free."""
    for start in range(21_000, 30_000, count):
        held: list[Any] = []
        try:
            for port in range(start, start + count):
                held.append(socket.socket())
                held[-1].bind(("127.0.0.1", port))
        except OSError:
            continue
        else:
            return start
        finally:
            for one in held:
                one.close()
    raise RuntimeError("no free ports")
