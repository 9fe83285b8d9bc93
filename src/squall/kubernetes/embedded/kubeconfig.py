"""The data directory's secrets: the token, and the kubeconfig that carries it."""

import secrets
from base64 import b64encode
from pathlib import Path

import yaml

from squall.kubernetes.embedded.certificates import Certificates, write_private

_TOKEN_BYTES = 32
_NAME = "squall"


def token(directory: Path) -> str:
    """Give the token of a data directory; made of 32 random bytes when it is not there.

    Raises:
        OSError: the directory cannot be written.
    """
    file = directory / "token"
    try:
        found = file.read_text().strip()
    except FileNotFoundError:
        found = ""
    if not found:
        found = secrets.token_urlsafe(_TOKEN_BYTES)
        write_private(file, found.encode())
    return found


def write_kubeconfig(
    path: Path, address: str, port: int, certificates: Certificates, token: str
) -> None:
    """Write a kubeconfig that any Kubernetes client can use; mode 0600.

    Args:
        path: where; replaced whole.
        address: host name or IP address of the server.
        port: its port.
        certificates: the authority in it is copied into the file.
        token: what the client shows.

    Raises:
        OSError: it cannot be written.
    """
    host = f"[{address}]" if ":" in address else address
    authority = b64encode(certificates.authority.read_bytes()).decode()
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": _NAME,
        "clusters": [
            {
                "name": _NAME,
                "cluster": {
                    "server": f"https://{host}:{port}",
                    "certificate-authority-data": authority,
                },
            }
        ],
        "users": [{"name": _NAME, "user": {"token": token}}],
        "contexts": [
            {
                "name": _NAME,
                "context": {"cluster": _NAME, "user": _NAME, "namespace": "default"},
            }
        ],
    }
    write_private(path, yaml.safe_dump(content, sort_keys=False).encode())
