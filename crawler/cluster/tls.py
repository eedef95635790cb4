"""Certificates for a scheduler at ``tls://``, and what is wrong with them, in one line.

Dask says of most faults only that a connection was closed, so where one fails the handshake is made once more, here.
"""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

from distributed import Security

from crawler.errors import UsageError
from crawler.stores.urls import one_line

_FILES = "a CA file, a certificate and its key (--tls-ca-file, --tls-cert, --tls-key, or distributed.comm.tls of Dask)"
_PATIENCE = 5.0
"""Seconds in which who listens must answer a handshake."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files that prove who is who, as Dask names them ("TLS/SSL", Dask.distributed documentation).

    Attributes
    ----------
    ca_file, cert, key : str or None
        Paths of PEM files; None for what Dask's own configuration says (``distributed.comm.tls``).
    """

    ca_file: str | None = None
    cert: str | None = None
    key: str | None = None

    def security(self, address: str) -> Security:
        """Return what Dask calls it.

        Parameters
        ----------
        address : str
            Of the scheduler that it is for.

        Raises
        ------
        UsageError
            A file cannot be read or does not hold what it should; some are missing; or the address wants none.
        """
        given = {"tls_ca_file": self.ca_file, "tls_client_cert": self.cert, "tls_client_key": self.key}
        told = {name: path for name, path in given.items() if path is not None}
        encrypted = urlsplit(address).scheme in {"tls", "wss"}
        if told and not encrypted:
            raise UsageError(f"certificates are for a scheduler at tls://, and {one_line(address)} is none")
        if not encrypted:
            return Security()
        security = Security(**told, require_encryption=True)
        if security.tls_ca_file is None or security.tls_client_cert is None:
            raise UsageError(f"a scheduler at tls:// wants {_FILES}")
        _read(security)
        return security


def _read(security: Security) -> None:
    """Raise what is wrong with files of certificates. Dask takes the certificate itself in place of a path, too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ca, cert, key = security.tls_ca_file, security.tls_client_cert, security.tls_client_key
    if any(isinstance(one, str) and "\n" in one for one in (ca, cert, key)):
        return
    for path in filter(None, (ca, cert, key)):
        try:
            with open(path, "rb"):  # noqa: PTH123 - only whether it can be
                pass
        except OSError as error:
            raise UsageError(f"TLS: {one_line(path)}: {error.strerror}") from None
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError:
        raise UsageError(f"TLS: {one_line(ca)} holds no certificate in PEM") from None
    try:
        # Nobody is asked for a password, who may not be there.
        context.load_cert_chain(cert, key, password=lambda: b"")
    except ssl.SSLError as error:
        both = f"the certificate {one_line(cert)} and the key {one_line(key or cert)}"
        if error.reason == "KEY_VALUES_MISMATCH":
            raise UsageError(f"TLS: {both} do not belong together") from None
        raise UsageError(f"TLS: {both} are no PEM, or want a password: {error.reason or 'unreadable'}") from None


def tls_fault(address: str, security: Security) -> str | None:
    """Return why a scheduler cannot be talked to, as far as encryption is why; None where it is not.

    Parameters
    ----------
    address : str
        Of one that did not answer as it should.
    security : distributed.Security
    """
    try:
        parts = urlsplit(address)
        place = parts.hostname or "", parts.port or 8786
    except ValueError:
        return None
    if parts.scheme == "tcp":
        anyone = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        anyone.check_hostname, anyone.verify_mode = False, ssl.CERT_NONE
        if _answer(place, anyone) is None:
            return f"it talks TLS: its address begins with tls://, and it wants {_FILES}"
    if parts.scheme == "tls":
        return _reason(_answer(place, security.get_connection_args("client")["ssl_context"]))
    return None


def _answer(place: tuple[str, int], context: ssl.SSLContext) -> OSError | None:
    """Return what went wrong in shaking hands, or None."""
    try:
        with (
            socket.create_connection(place, timeout=_PATIENCE) as plain,
            context.wrap_socket(plain, server_hostname=place[0]) as encrypted,
        ):
            if context.verify_mode != ssl.CERT_NONE:
                # In TLS 1.3 a server refuses a certificate once the handshake is over for its client (RFC 8446).
                encrypted.recv(1)
    except OSError as error:
        return error
    return None


def _reason(error: OSError | None) -> str | None:
    """Return what an error of a handshake means."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not to be trusted: {error.verify_message} (--tls-ca-file says who signs for it)"
    if not isinstance(error, ssl.SSLError):
        return None
    reason = error.reason or ""
    if "ALERT" in reason:
        what = reason.partition("ALERT_")[2].replace("_", " ").lower()
        return f"it refuses our certificate: {what} (--tls-cert, --tls-key)"
    if reason in {"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "RECORD_LAYER_FAILURE"}:
        return "it does not talk TLS: its address begins with tcp://"
    return None
