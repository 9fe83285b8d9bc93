"""Which API server to talk to, and as whom."""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx2

from squall.api.cluster import ApiError
from squall.kubernetes.token_file import TokenFile

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where kubelet puts what a pod needs to speak to the API."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where an API server is, and how to speak to it."""

    url: str
    tls: Callable[[], ssl.SSLContext]
    """Says whom to believe, and who we are."""
    auth: httpx2.Auth | None = None
    namespace: str = "default"
    """Of what is named without one."""


def chosen(
    explicit: Path | None,
    environ: Mapping[str, str],
    data_dir: Path,
    account: Path = SERVICE_ACCOUNT,
) -> Server:
    """Say how to reach the API: as was asked, else as this pod, else as `squall up` on this host.

    Args:
        explicit: what `--kubeconfig` was given.
        environ: where `KUBECONFIG` may stand, and where kubelet names the API server.
        data_dir: where `squall up` leaves its `kubeconfig` unless told otherwise.
        account: folder of the pod's service account.

    Raises:
        ApiError: what was found does not say where to go (code 0).
        FileNotFoundError: nothing was found; says where was looked.
    """
    if not explicit and not environ.get("KUBECONFIG") and in_pod(environ, account):
        return service_account(environ, account)
    from squall.kubernetes.kubeconfig import find, load  # noqa: PLC0415  (3 MB that no pod needs)

    return load(find(explicit, environ, data_dir))


def in_pod(environ: Mapping[str, str], account: Path = SERVICE_ACCOUNT) -> bool:
    """Is this a container of a pod that may speak to the API?"""
    return "KUBERNETES_SERVICE_HOST" in environ and (account / "token").is_file()


def service_account(environ: Mapping[str, str], account: Path = SERVICE_ACCOUNT) -> Server:
    """Speak to the API as the service account of this pod; its namespace is the default one.

    The token is not read here: kubelet replaces it before it expires.

    Raises:
        ApiError: the folder does not hold what it should (code 0).
    """
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT", "443")
    host = f"[{host}]" if ":" in host else host
    authority, named = account / "ca.crt", account / "namespace"
    if not authority.is_file():
        message = f"{authority} is missing, so nobody can tell the API server from an impostor"
        raise ApiError(0, "NoServiceAccount", message)
    return Server(
        f"https://{host}:{port}",
        lambda: ssl.create_default_context(cafile=str(authority)),
        TokenFile(account / "token"),
        named.read_text().strip() if named.is_file() else "default",
    )
