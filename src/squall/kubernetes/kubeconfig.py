"""Which API server to talk to, and as whom."""

from collections.abc import Mapping
from pathlib import Path

import yaml
from lightkube import ConfigError, KubeConfig, SingleConfig
from lightkube.config.models import Cluster, Context, User

from squall.api.cluster import ApiError

_MALFORMED = (
    *(ConfigError, yaml.YAMLError),
    # The library looks into the content before it has checked its shape.
    *(AttributeError, LookupError, TypeError, ValueError),
)

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where kubelet puts what a pod needs to speak to the API."""


def chosen(
    explicit: Path | None,
    environ: Mapping[str, str],
    data_dir: Path,
    account: Path = SERVICE_ACCOUNT,
) -> SingleConfig:
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
    return load(find(explicit, environ, data_dir))


def in_pod(environ: Mapping[str, str], account: Path = SERVICE_ACCOUNT) -> bool:
    """Is this a container of a pod that may speak to the API?"""
    return "KUBERNETES_SERVICE_HOST" in environ and (account / "token").is_file()


def service_account(environ: Mapping[str, str], account: Path = SERVICE_ACCOUNT) -> SingleConfig:
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
    namespace = named.read_text().strip() if named.is_file() else "default"
    return SingleConfig(
        context_name="pod",
        context=Context(cluster="pod", user="pod", namespace=namespace),
        cluster=Cluster(server=f"https://{host}:{port}", certificate_auth=str(authority)),
        user=User(token_file=str(account / "token")),
    )


def find(explicit: Path | None, environ: Mapping[str, str], data_dir: Path) -> Path:
    """Say which file names the API server.

    Args:
        explicit: what `--kubeconfig` was given; wins even when it does not exist.
        environ: where `KUBECONFIG` may stand; of several files in it the first that exists.
        data_dir: where `squall up` leaves its `kubeconfig` unless told otherwise.

    Raises:
        FileNotFoundError: no file is there; says where was looked.
    """
    named = [Path(part) for part in environ.get("KUBECONFIG", "").split(":") if part]
    candidates = [explicit] if explicit else named or [data_dir / "kubeconfig"]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked = ", ".join(map(str, candidates))
    raise FileNotFoundError(
        f"no kubeconfig at {looked}; start `squall up`, or name one with --kubeconfig"
    )


def load(path: Path) -> SingleConfig:
    """Read the current context of a kubeconfig.

    Raises:
        ApiError: the file does not say where to go (code 0); says what is wrong with it.
        OSError: it cannot be read.
    """
    try:
        content = yaml.safe_load(path.read_text())
        if not isinstance(content, dict):
            raise ConfigError("it is not a mapping")
        config = KubeConfig.from_dict(content, path).get()
    except _MALFORMED as error:
        message = f"{path} is no usable kubeconfig: {error}"
        raise ApiError(0, "InvalidKubeconfig", message) from error
    assert config is not None  # noqa: S101  (None only where a default was passed)
    return config
