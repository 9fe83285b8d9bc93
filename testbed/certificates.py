"""Keys and certificates of a server that lives for one test run."""

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY = timedelta(days=1)


class Authority:
    """Signs certificates and keeps them, with their keys, in one folder; its own is ca.crt."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name("testbed authority")
        root = _certificate(self._name, self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        self._write("ca", root)

    def issue(
        self, file: str, name: str, groups: Sequence[str] = (), hosts: Sequence[str] = ()
    ) -> None:
        """Write FILE.crt and FILE.key.

        Args:
            file: what they are called.
            name: who it is, for a client.
            groups: which groups a client is in.
            hosts: addresses and names of a server.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        leaf = _certificate(_name(name, groups), self._name, key)
        if hosts:
            names = x509.SubjectAlternativeName([_host(host) for host in hosts])
            leaf = leaf.add_extension(names, critical=False)
        self._write(file, leaf)
        write_key(self._folder / f"{file}.key", key)

    def _write(self, file: str, builder: x509.CertificateBuilder) -> None:
        signed = builder.sign(self._key, hashes.SHA256())
        pem = signed.public_bytes(serialization.Encoding.PEM)
        (self._folder / f"{file}.crt").write_bytes(pem)


def write_certificates(folder: Path) -> None:
    """Write ca.crt, server.crt and server.key for 127.0.0.1, and accounts.key for tokens."""
    Authority(folder).issue("server", "kube-apiserver", hosts=["127.0.0.1", "localhost"])
    write_key(folder / "accounts.key")


def write_key(path: Path, key: ec.EllipticCurvePrivateKey | None = None) -> None:
    """Write a private key, a new one unless it is given, readable by its owner alone."""
    path.touch(mode=0o600)
    path.write_bytes(
        (key or ec.generate_private_key(ec.SECP256R1())).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _name(text: str, groups: Sequence[str] = ()) -> x509.Name:
    organizations = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group) for group in groups]
    return x509.Name([*organizations, x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _DAY)
        .not_valid_after(now + 30 * _DAY)
    )
