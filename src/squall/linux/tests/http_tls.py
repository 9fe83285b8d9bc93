"""Certificates for the servers and clients of tests, and connections opened with them."""

import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from squall.linux.tests.http_servers import dialled
from squall.linux.tests.two_namespaces import TwoNamespaces

FAR = TwoNamespaces.FAR[0]
NAME = "server.test"
PLAIN = serialization.NoEncryption()


def as_pem(key: Any, *, passphrase: bytes = b"") -> str:
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    kept = serialization.BestAvailableEncryption(passphrase) if passphrase else PLAIN
    octets: bytes = key.private_bytes(pem, form, kept)
    return octets.decode()


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, as PEM."""

    certificate: str
    key: str


def made(name: str, *, authority: bool = False) -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    names = [x509.DNSName(name), x509.IPAddress(ipaddress.ip_address(FAR))]
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    pem = serialization.Encoding.PEM
    certificate = built.sign(key, hashes.SHA256()).public_bytes(pem)
    return Identity(certificate.decode(), as_pem(key))


def context_of(server: Identity, tmp_path: Path, *protocols: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    both = tmp_path / "server.pem"
    both.write_text(server.certificate + server.key)
    context.load_cert_chain(both)
    if protocols:
        context.set_alpn_protocols(protocols)
    return context


@contextlib.contextmanager
def opened(
    netns: str, address: str, trusted: Identity, *protocols: str, name: str = NAME
) -> Iterator[ssl.SSLSocket]:
    context = ssl.create_default_context(cadata=trusted.certificate)
    if protocols:
        context.set_alpn_protocols(protocols)
    with (
        dialled(netns, address, 443) as plain,
        context.wrap_socket(plain, server_hostname=name) as encrypted_socket,
    ):
        yield encrypted_socket


def status(connection: socket.socket) -> bytes:
    connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    whole = b""
    while part := connection.recv(65536):
        whole += part
    return whole.split(b" ", 2)[1]


def own(server: Identity) -> dict[str, Any]:
    return {"certificates": [{"port": 443, "certificate": server.certificate, "key": server.key}]}


TEAPOT: dict[str, Any] = {"replace": {"code": 418}}
