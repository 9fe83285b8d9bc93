"""The embedded API's own certificates: one authority, one server, made anew before they expire."""

import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from squall.certificates import Issued, hosts_of, make_authority, make_server

_AUTHORITY_LASTS, _SERVER_LASTS = timedelta(days=3650), timedelta(days=365)
_RENEWED_BEFORE = timedelta(days=30)

PRIVATE = 0o600
"""Mode of every file that holds a secret."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """Where the PEM files are."""

    authority: Path
    """What clients trust."""
    server: Path
    server_key: Path

    def server_context(self) -> ssl.SSLContext:
        """Make the TLS side of a server."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.server, self.server_key)
        return context


def certificates(directory: Path, hosts: list[str], now: datetime | None = None) -> Certificates:
    """Give certificates for these hosts; makes what is missing, expires soon or names others.

    The authority is kept as long as it lasts, so that kubeconfigs written before stay good.

    Args:
        directory: where they are kept; made with mode 0700.
        hosts: names and addresses that clients may use for the server.
        now: the moment; by default this one.

    Raises:
        OSError: the directory cannot be written.
    """
    now = now or datetime.now(UTC)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    files = Certificates(directory / "ca.crt", directory / "server.crt", directory / "server.key")
    key_file = directory / "ca.key"
    found = _read(files.authority)
    if found is None or _ends_soon(found, now) or not key_file.exists():
        authority = _make_authority(files.authority, key_file, now)
        files.server.unlink(missing_ok=True)
    else:
        authority = Issued(files.authority.read_bytes(), key_file.read_bytes())
    server = _read(files.server)
    fits = server is not None and not _ends_soon(server, now) and hosts_of(server) == set(hosts)
    if not fits or not files.server_key.exists():
        made = make_server(authority, "squall-api", hosts, now, _SERVER_LASTS)
        write_private(files.server_key, made.key)
        write_private(files.server, made.certificate)
    return files


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its owner may read, all of it or nothing."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, PRIVATE)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, PRIVATE)
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    part.replace(path)


def _make_authority(certificate: Path, key_file: Path, now: datetime) -> Issued:
    made = make_authority("squall-ca", now, _AUTHORITY_LASTS)
    write_private(key_file, made.key)
    write_private(certificate, made.certificate)
    return made


def _read(path: Path) -> x509.Certificate | None:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None


def _ends_soon(certificate: x509.Certificate, now: datetime) -> bool:
    return certificate.not_valid_after_utc < now + _RENEWED_BEFORE
