"""A real kube-apiserver with etcd, on loopback, without any node: started, used, gone.

`python -m testbed.apiserver` starts one, prints its kubeconfig and waits for Ctrl-C.
"""

import json
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from squall.api.crd import definition
from squall.faults import kinds
from squall.injection.served import served_kinds
from testbed.certificates import write_certificates
from testbed.kubernetes.build import programs

START_SECONDS = 90.0
"""How long a start may take; 5 s on a quiet machine."""

_AUDIT = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata}]
"""
_AUDIT_FLAGS = ("--audit-policy-file=audit.yaml", "--audit-log-path=audit.log")


@dataclass(frozen=True, slots=True)
class ApiServer:
    """A running API server, and how to reach it."""

    url: str
    token: str
    """Of an administrator (`system:masters`)."""
    folder: Path
    """Keys, data and logs; `audit.log` where it was asked for."""
    authority: Path
    """Certificate that its own is to be checked with."""
    kubeconfig: Path

    @property
    def kubectl(self) -> Path:
        """The program; built at its first use."""
        return programs() / "kubectl"

    def kubeconfig_of(self, user: str) -> Path:
        """Where the kubeconfig of one of the further users is."""
        return self.folder / f"{user}.kubeconfig"

    def run(self, *arguments: str, stdin: str = "") -> str:
        """Run kubectl and return what it prints; raises `RuntimeError` with its complaint."""
        cache = f"--cache-dir={self.folder}/kubectl"  # else it fills the home of who runs this
        command = [self.kubectl, f"--kubeconfig={self.kubeconfig}", cache, *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done.stdout


def missing() -> list[str]:
    """Name what a start would need and this machine has not; empty when all is there."""
    needs = {"etcd": "etcd-server", "setpriv": "util-linux"}
    return [
        f"{program} (Debian: {package})"
        for program, package in needs.items()
        if shutil.which(program) is None
    ]


@contextmanager
def running(
    folder: Path,
    definitions: Sequence[Mapping[str, Any]] = (),
    *,
    users: Sequence[str] = (),
    audited: bool = False,
) -> Iterator[ApiServer]:
    """Start etcd and kube-apiserver, install the definitions, and end both processes afterwards.

    Args:
        folder: for keys, data and logs; may vanish afterwards.
        definitions: CustomResourceDefinitions to install once the server is ready.
        users: further administrators, told apart in the audit log.
        audited: write one line for each request to `audit.log`?

    Raises:
        RuntimeError: something is missing or did not start (says what, with the end of its log),
            or the server refused a definition.
    """
    if lacking := missing():
        raise RuntimeError(f"a real API server needs {', '.join(lacking)}")
    program = programs() / "kube-apiserver"
    token = secrets.token_hex(16)
    write_certificates(folder)
    tokens = {"admin": token} | {user: secrets.token_hex(16) for user in users}
    lines = [f'{secret},{user},{user},"system:masters"\n' for user, secret in tokens.items()]
    (folder / "tokens.csv").write_text("".join(lines))
    (folder / "audit.yaml").write_text(_AUDIT)
    store, port = f"http://127.0.0.1:{_free_port()}", _free_port()
    server = ApiServer(
        url=f"https://127.0.0.1:{port}",
        token=token,
        folder=folder,
        authority=folder / "ca.crt",
        kubeconfig=folder / "kubeconfig",
    )
    write_kubeconfig(server)
    for user in users:
        write_kubeconfig(server, tokens[user], server.kubeconfig_of(user))
    with ExitStack() as ends:
        etcd = ends.enter_context(_process(folder, "etcd", _etcd(store)))
        _wait("etcd", f"{store}/health", etcd, folder)
        command = [str(program), *_flags(store, port), *(_AUDIT_FLAGS if audited else ())]
        process = ends.enter_context(_process(folder, "kube-apiserver", command))
        _wait("kube-apiserver", f"{server.url}/readyz", process, folder, token)
        if definitions:
            install(server, definitions)
        yield server


def _is_served(definition: Mapping[str, Any]) -> bool:
    """Read what `kubectl wait` would; that fails where there are no conditions at all yet."""
    conditions = definition.get("status", {}).get("conditions") or ()
    return any(c["type"] == "Established" and c["status"] == "True" for c in conditions)


def _etcd(url: str) -> list[str]:
    peers = f"http://127.0.0.1:{_free_port()}"
    return [
        "etcd",
        "--data-dir=etcd",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peers}",
        f"--initial-advertise-peer-urls={peers}",
        f"--initial-cluster=default={peers}",
        "--log-level=warn",
    ]


def _flags(store: str, port: int) -> list[str]:
    return [
        f"--etcd-servers={store}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        # Nobody looks for this server inside a cluster, and a loopback address may not be told.
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
        "--tls-cert-file=server.crt",
        "--tls-private-key-file=server.key",
        "--token-auth-file=tokens.csv",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-account-key-file=accounts.key",
        "--service-account-signing-key-file=accounts.key",
        "--service-cluster-ip-range=10.96.0.0/16",
        "--authorization-mode=RBAC",
        "--anonymous-auth=false",
        # No controller makes service accounts here, and pods would wait for theirs.
        "--disable-admission-plugins=ServiceAccount",
    ]


@contextmanager
def _process(folder: Path, name: str, command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that dies with this one, even when this one is killed."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", *command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C is for the tests; they end it in their own order
        )
    try:
        yield process
    finally:
        process.kill()  # nothing of it is kept, so there is nothing to end gently
        process.wait()


def _wait(
    name: str, url: str, process: subprocess.Popen[bytes], folder: Path, token: str = ""
) -> None:
    trusted = ssl.create_default_context(cafile=str(folder / "ca.crt"))
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310  (our own address)
    direct = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusted)
    )
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with direct.open(request, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    state = "ended" if process.poll() is not None else f"is not ready after {START_SECONDS:.0f} s"
    log = (folder / f"{name}.log").read_text(errors="replace").splitlines()[-30:]
    raise RuntimeError("\n".join([f"{name} {state}; the end of its log:", *log]))


def install(server: ApiServer, definitions: Sequence[Mapping[str, Any]]) -> None:
    """Install CustomResourceDefinitions and wait until their kinds are served.

    Raises:
        RuntimeError: the server refused one, or does not serve it in time.
    """
    listed = {"apiVersion": "v1", "kind": "List", "items": list(definitions)}
    server.run("create", "-f", "-", stdin=json.dumps(listed))
    deadline = time.monotonic() + START_SECONDS
    while not all(map(_is_served, json.loads(server.run("get", "crd", "-o=json"))["items"])):
        if time.monotonic() > deadline:
            raise RuntimeError(f"not all definitions are served after {START_SECONDS:.0f} s")
        time.sleep(0.1)


def write_kubeconfig(server: ApiServer, token: str = "", path: Path | None = None) -> None:
    """Write what leads clients to the server, readable by its owner alone.

    Args:
        server: where it leads.
        token: whose; the administrator's unless given.
        path: where to write; `server.kubeconfig` unless given.
    """
    path = path or server.kubeconfig
    cluster = {"server": server.url, "certificate-authority": str(server.authority)}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "testbed",
        "clusters": [{"name": "testbed", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": token or server.token}}],
        "contexts": [{"name": "testbed", "context": {"cluster": "testbed", "user": "admin"}}],
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))


def _free_port() -> int:
    """Find a port that nobody listens on now; kube-apiserver cannot be asked to choose one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    """Run one that serves the project's kinds, until interrupted."""
    definitions = [definition(kind) for kind in served_kinds(kinds())]
    with (
        tempfile.TemporaryDirectory(prefix="squall-apiserver-") as folder,
        suppress(KeyboardInterrupt),
    ):
        began = time.monotonic()
        with running(Path(folder), definitions) as server:
            print(f"up in {time.monotonic() - began:.1f} s", file=sys.stderr)
            print(f"export KUBECONFIG={server.kubeconfig} PATH={server.kubectl.parent}:$PATH")
            sys.stdout.flush()
            signal.pause()


if __name__ == "__main__":
    main()
