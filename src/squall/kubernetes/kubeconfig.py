"""What a kubeconfig says of the API server in its current context."""

import ssl
from collections.abc import Mapping
from pathlib import Path

import httpx2
import yaml
from lightkube import ConfigError, KubeConfig, SingleConfig
from lightkube.config.client_adapter import user_auth, verify_cluster
from lightkube.config.models import User

from squall.api.cluster import ApiError
from squall.kubernetes.server import Server
from squall.kubernetes.token_file import TokenFile

_MALFORMED = (
    *(ConfigError, yaml.YAMLError),
    # The library looks into the content before it has checked its shape.
    *(AttributeError, LookupError, TypeError, ValueError),
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


def load(path: Path) -> Server:
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
        assert config is not None  # noqa: S101  (None only where a default was passed)
        return server_of(config)
    except _MALFORMED as error:
        message = f"{path} is no usable kubeconfig: {error}"
        raise ApiError(0, "InvalidKubeconfig", message) from error


def server_of(config: SingleConfig) -> Server:
    """Take over what a kubeconfig says; its certificates are read when they are needed."""
    user = config.user or User()

    def tls() -> ssl.SSLContext:
        return verify_cluster(config.cluster, user, config.abs_file, trust_env=False)

    return Server(config.cluster.server, tls, _auth(config, user), config.namespace)


def _auth(config: SingleConfig, user: User) -> httpx2.Auth | None:
    """Read tokens from a file where one is named, beside the kubeconfig unless it says more."""
    if user.token_file:
        return TokenFile(Path(config.abs_file(user.token_file)))
    return user_auth(user)
