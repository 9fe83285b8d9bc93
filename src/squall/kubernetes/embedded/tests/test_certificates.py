import ssl
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from stat import S_IMODE

import pytest
import yaml

from squall.kubernetes.embedded.certificates import certificates
from squall.kubernetes.embedded.kubeconfig import token, write_kubeconfig

HOSTS = ["127.0.0.1", "::1", "localhost"]
NOW = datetime.now(UTC)


def contents(files):
    return [path.read_bytes() for path in (files.authority, files.server, files.server_key)]


def handshake(files, host):
    """A TLS handshake in memory, so that no port is needed."""
    ends = [ssl.MemoryBIO(), ssl.MemoryBIO()]
    client = ssl.create_default_context(cafile=str(files.authority))
    speakers = [
        client.wrap_bio(ends[0], ends[1], server_hostname=host),
        files.server_context().wrap_bio(ends[1], ends[0], server_side=True),
    ]
    for _ in range(4):
        for speaker in speakers:
            try:
                speaker.do_handshake()
            except ssl.SSLWantReadError:
                continue


@pytest.mark.parametrize("host", HOSTS)
def test_clients_trust_the_server_by_every_name(tmp_path, host):
    handshake(certificates(tmp_path / "pki", HOSTS), host)


def test_clients_do_not_trust_another_name(tmp_path):
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(certificates(tmp_path / "pki", HOSTS), "example.com")


def test_certificates_stay_while_they_are_good(tmp_path):
    first = contents(certificates(tmp_path, HOSTS))
    assert contents(certificates(tmp_path, HOSTS, NOW + timedelta(days=300))) == first


def test_the_server_is_certified_anew_before_it_expires_by_the_same_authority(tmp_path):
    authority, server, _ = contents(certificates(tmp_path, HOSTS))
    files = certificates(tmp_path, HOSTS, NOW + timedelta(days=340))
    assert files.authority.read_bytes() == authority
    assert files.server.read_bytes() != server


def test_new_hosts_and_a_lost_key_need_a_new_certificate(tmp_path):
    files = certificates(tmp_path, HOSTS)
    server = files.server.read_bytes()
    certificates(tmp_path, [*HOSTS, "laptop"])
    assert files.server.read_bytes() != server
    files.server_key.unlink()
    handshake(certificates(tmp_path, [*HOSTS, "laptop"]), "laptop")


def test_secrets_are_for_their_owner_alone(tmp_path):
    files = certificates(tmp_path / "pki", HOSTS)
    secret = token(tmp_path)
    config = tmp_path / "kubeconfig"
    write_kubeconfig(config, "::1", 2333, files, secret)
    kept = [files.server_key, tmp_path / "pki" / "ca.key", tmp_path / "token", config]
    assert {S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
    assert S_IMODE((tmp_path / "pki").stat().st_mode) == 0o700
    assert token(tmp_path) == secret
    written = yaml.safe_load(config.read_text())
    cluster = written["clusters"][0]["cluster"]
    assert cluster["server"] == "https://[::1]:2333"
    assert b64decode(cluster["certificate-authority-data"]) == files.authority.read_bytes()
    assert written["users"][0]["user"] == {"token": secret}
