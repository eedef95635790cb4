"""How web servers are reached: over TLS, through proxies, and with which options."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from crawler.errors import StoreUnavailableError, UsageError
from crawler.stores import ByteRange, ObjectRef, open_store
from tests.servers import RangeServer
from tests.stores.suite import DATA, assert_well_said

SPAN = ByteRange(10, 20)


class Tunnel:
    """An HTTP proxy that knows CONNECT (RFC 9110, section 9.3.6), and leads all to one server."""

    def __init__(self, to: tuple[str, int]) -> None:
        self.to = to
        self.heads: list[bytes] = []

    def __enter__(self) -> Tunnel:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self.thread.join()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.listening.getsockname()[1]}"

    def serve(self) -> None:
        threads = []
        while True:
            try:
                client, _ = self.listening.accept()
            except OSError:
                break
            self.heads.append(client.recv(65536))
            server = socket.create_connection(self.to)
            client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            for one, other in ((client, server), (server, client)):
                threads.append(threading.Thread(target=self.pump, args=(one, other)))
                threads[-1].start()
        for thread in threads:
            thread.join()

    @staticmethod
    def pump(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65536):
                other.sendall(data)
        with contextlib.suppress(OSError):
            other.shutdown(socket.SHUT_RDWR)
        one.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the files of a certificate of localhost, signed by itself, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(made.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


@pytest.fixture
def secure(certificate: tuple[Path, Path]) -> Iterator[tuple[str, int]]:
    """Serve `DATA` over TLS as localhost; give the address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    answer = (
        f"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 10-19/{len(DATA)}\r\nContent-Length: 10\r\n\r\n"
    ).encode() + DATA[10:20]
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), context.wrap_socket(client, server_side=True) as wrapped:
                while wrapped.recv(65536):
                    wrapped.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    yield listening.getsockname()
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join()


def test_certificate_is_checked(secure: tuple[str, int], certificate: tuple[Path, Path]) -> None:
    url = f"https://localhost:{secure[1]}/a.fits"
    with pytest.raises(StoreUnavailableError) as caught:
        open_store("https").get(ObjectRef(url), SPAN)
    assert caught.value.kind == "tls"
    assert_well_said(caught.value)
    for options in ({"root_certificate": certificate[0].read_bytes()}, {"allow_invalid_certificates": True}):
        assert open_store("https", {"client_options": options}).get(ObjectRef(url), SPAN).data == DATA[10:20]
    trusted = {"client_options": {"root_certificate": certificate[0].read_text()}}
    with pytest.raises(StoreUnavailableError, match="TLS"):  # the certificate is of localhost alone
        open_store("https", trusted).get(ObjectRef(url.replace("localhost", "127.0.0.1")), SPAN)


def test_tls_goes_through_a_tunnel(secure: tuple[str, int], certificate: tuple[Path, Path]) -> None:
    with Tunnel(secure) as tunnel:
        options = {"root_certificate": certificate[0].read_bytes(), "proxy_url": f"http://me:pw@{tunnel.address}"}
        store = open_store("https", {"headers": {"X-Api-Key": "secret"}, "client_options": options})
        assert store.get(ObjectRef("https://localhost:444/a.fits"), SPAN).data == DATA[10:20]
        del store
    assert tunnel.heads[0].startswith(b"CONNECT localhost:444 HTTP/1.")
    assert b"Proxy-Authorization: Basic bWU6cHc=\r\n" in tunnel.heads[0]
    assert b"secret" not in tunnel.heads[0]


@pytest.mark.parametrize("adapter", ["auto", "fsspec"])
@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy"])
def test_environment_names_proxies(monkeypatch: pytest.MonkeyPatch, adapter: Any, name: str) -> None:
    with RangeServer({"a.fits": DATA}) as server:
        server.objects["http://no.such.host:81/a.fits"] = DATA  # as a proxy is asked
        monkeypatch.setenv(name, server.origin)
        store = open_store("http", adapter=adapter)
        assert store.get(ObjectRef("http://no.such.host:81/a.fits"), SPAN).data == DATA[10:20]
        assert server.requests[0].headers["host"] == "no.such.host:81"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        assert open_store("http", adapter=adapter).get(ObjectRef(server.url("a.fits")), SPAN).data == DATA[10:20]
        assert server.requests[1].path == "/a.fits"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"no_such": 1}, "no_such"),
        ({"proxy_url": "socks5://host:1"}, "HTTP proxy"),
        ({"proxy_url": "http://[::"}, "HTTP proxy"),
        ({"timeout": "soon"}, "timeout"),
        ({"read_timeout": 0}, "read_timeout"),
        ({"connect_timeout": timedelta(0)}, "connect_timeout"),
        ("what", "tables"),
    ],
)
def test_client_options_are_checked(options: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        open_store("http", {"client_options": options})


def test_certificate_that_is_none_is_a_usage_error() -> None:
    store = open_store("https", {"client_options": {"root_certificate": "no certificate"}})
    with pytest.raises(UsageError, match="PEM"):
        store.get(ObjectRef("https://localhost:1/a.fits"), SPAN)


def test_idle_connections_are_closed_with_their_store() -> None:
    with RangeServer({"a.fits": DATA}) as server:
        store = open_store("http")
        store.get(ObjectRef(server.url("a.fits")), SPAN)
        del store  # a socket that is left open is a ResourceWarning, which fails the test
