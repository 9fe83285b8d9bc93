"""What an installation serves: metrics to those who may read them, admission without a gap."""

import json
import threading
import urllib.parse
import urllib.request
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from squall.certificates import make_authority, make_server
from squall.webhook.rotation import AUTHORITY, SERVED, SERVED_KEY, SPARE, TRUSTED
from testbed.cluster import Cluster
from testbed.cluster.namespaces import inside, run
from tests.cluster.charts import NAMESPACE
from tests.cluster.releases import confirmed, create, delay, pods, released, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

PORT = 9090
WEBHOOK = "squall-webhook"
LEFT = SPARE + timedelta(seconds=20)
"""What is left of a certificate's life here; its next one is served from 20 s on."""


@pytest.fixture(scope="module")
def serving(loaded: Cluster) -> Iterator[Cluster]:
    """An installation that opens its metrics.

    Nothing here enforces its NetworkPolicy, since the cluster's network plugin knows none: the
    API server took it, and that is all these tests can say of it.
    """
    with released(loaded, "metrics.enabled=true"):
        assert "squall-agent" in loaded.kubectl("get", "networkpolicy", f"-n={NAMESPACE}")
        yield loaded


@pytest.fixture
def token(serving: Cluster, namespace: str) -> Iterator[str]:
    """Of an account that may read metrics, as Prometheus' own may."""
    serving.kubectl("create", "serviceaccount", "prometheus", f"-n={namespace}")
    bound = ("--clusterrole=squall-metrics", f"--serviceaccount={namespace}:prometheus")
    serving.kubectl("create", "clusterrolebinding", namespace, *bound)
    yield serving.kubectl("create", "token", "prometheus", f"-n={namespace}").strip()
    serving.kubectl("delete", "clusterrolebinding", namespace)


def test_prometheus_sees_what_was_measured(serving: Cluster, namespace: str, token: str) -> None:
    pods(serving, namespace, "web")
    create(serving, delay(namespace))
    confirmed(serving, namespace, 1)
    job = {
        "job_name": "controllers",
        "scheme": "https",
        "tls_config": {"insecure_skip_verify": True},
        "authorization": {"credentials": token},
        "static_configs": [{"targets": addresses(serving, "controller")}],
    }
    agents = {"static_configs": [{"targets": addresses(serving, "agent")}]}
    plain = {"job_name": "agents", "authorization": {"credentials": token}}
    wanted = f'squall_fault_verdict{{namespace="{namespace}",verdict="Confirmed"}}'
    measured = f'squall_fault_measured{{namespace="{namespace}",moment="during"}}'
    with serving.prometheus([job, plain | agents]) as url:
        wait_until(lambda: asked(url, "count(up==1)") == [8.0], lambda: scraped(url))
        wait_until(lambda: 1.0 in asked(url, wanted), lambda: scraped(url))
        assert any(value >= 0.1 for value in asked(url, measured)), asked(url, measured)


@pytest.mark.parametrize("component", ["controller", "agent"])
def test_strangers_see_nothing(
    serving: Cluster, namespace: str, token: str, component: str
) -> None:
    target = addresses(serving, component)[0]
    nobody = serving.kubectl("create", "token", "default", f"-n={namespace}").strip()
    assert answer(serving, component, target, "") == "401"
    assert answer(serving, component, target, "made-up") == "401"
    assert answer(serving, component, target, nobody) == "403"
    assert answer(serving, component, target, token) == "200"


def test_a_certificate_is_replaced_while_it_is_used(serving: Cluster, namespace: str) -> None:
    first = secret(serving)
    made = expiring(first)
    refused: list[str] = []
    with asking_all_the_time(serving, namespace, refused):
        write_secret(serving, made)
        wait_until(
            lambda: secret(serving)[SERVED] not in {first[SERVED], made[SERVED]},
            lambda: secret(serving).keys(),
        )
        renewed = secret(serving)[SERVED]
        wait_until(lambda: served(serving) == {renewed}, lambda: served(serving))
    assert refused == []


def expiring(before: dict[str, bytes]) -> dict[str, bytes]:
    """Make a certificate that is due, trusted beside the one before it."""
    made, host = datetime.now(UTC) - 3 * LEFT, f"{WEBHOOK}.{NAMESPACE}.svc"
    authority = make_authority(AUTHORITY, made, 4 * LEFT)
    server = make_server(authority, host, [host], made, 4 * LEFT)
    trusted = before[TRUSTED] + authority.certificate
    return {SERVED: server.certificate, SERVED_KEY: server.key, TRUSTED: trusted}


def secret(cluster: Cluster) -> dict[str, bytes]:
    shown = json.loads(cluster.kubectl("get", "secret", WEBHOOK, f"-n={NAMESPACE}", "-ojson"))
    return {name: b64decode(value) for name, value in shown["data"].items()}


def write_secret(cluster: Cluster, data: dict[str, bytes]) -> None:
    written = {name: b64encode(value).decode() for name, value in data.items()}
    patch = f"--patch={json.dumps({'data': written})}"
    cluster.kubectl("patch", "secret", WEBHOOK, f"-n={NAMESPACE}", "--type=merge", patch)


def served(cluster: Cluster) -> set[bytes]:
    """Read the certificates that the replicas show."""
    found = set()
    for address in addresses(cluster, "controller", 9443):
        command = f"openssl s_client -connect {address} </dev/null 2>/dev/null | openssl x509"
        found.add(run(*inside(cluster.net, "sh", "-c", command)).encode())
    return found


@contextmanager
def asking_all_the_time(cluster: Cluster, namespace: str, refused: list[str]) -> Iterator[None]:
    """Have experiments admitted meanwhile, one after the other, and note what was not."""
    stop, once = threading.Event(), threading.Event()
    manifest = json.dumps(delay(namespace))

    def ask() -> None:
        while not stop.is_set():
            try:
                cluster.kubectl("create", "--dry-run=server", "-f=-", stdin=manifest)
            except RuntimeError as no:
                refused.append(str(no))
            once.set()

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        assert once.wait(60)
        yield
    finally:
        stop.set()
        asking.join()


def addresses(cluster: Cluster, component: str, port: int = PORT) -> list[str]:
    """List where the component's pods answer, by both families."""
    labels = f"--selector=app.kubernetes.io/component={component}"
    shown = json.loads(cluster.kubectl("get", "pods", labels, f"-n={NAMESPACE}", "-ojson"))
    found = [each["ip"] for pod in shown["items"] for each in pod["status"]["podIPs"]]
    return [f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip in found]


def answer(cluster: Cluster, component: str, target: str, token: str) -> str:
    """Ask for the metrics from where the API server is; gives the code of the answer."""
    scheme = "https" if component == "controller" else "http"
    by = ("-H", f"Authorization: Bearer {token}") if token else ()
    command = ("curl", "-sk", "--noproxy", "*", "-o", "/dev/null", "-w", "%{http_code}", *by)
    return run(*inside(cluster.net, *command, f"{scheme}://{target}/metrics"))


def asked(url: str, query: str) -> list[float]:
    found = get(f"{url}/api/v1/query?query={urllib.parse.quote(query)}")["data"]["result"]
    return [float(one["value"][1]) for one in found]


def scraped(url: str) -> object:
    targets = get(f"{url}/api/v1/targets")["data"]["activeTargets"]
    names = get(f"{url}/api/v1/label/__name__/values")["data"]
    ours = [name for name in names if "squall" in name or "chaos" in name]
    return [(one["scrapeUrl"], one["health"], one["lastError"]) for one in targets], ours


def get(url: str) -> Any:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=5) as said:
        return json.load(said)
