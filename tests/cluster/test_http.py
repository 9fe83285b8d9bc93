"""HTTPChaos on pods of a cluster: felt by those who call them, proven, and gone without a trace."""

import base64
import json
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from squall.certificates import make_authority, make_server
from testbed.cluster.waiting import until
from tests.cluster.installed import Experiment, Installed, pod, selector

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

ASK = """
import json, sys, time, urllib.error, urllib.request
told = []
for _ in range(int(sys.argv[2])):
    began = time.perf_counter()
    try:
        with urllib.request.urlopen(sys.argv[1], timeout=5) as answer:
            code = answer.status
    except urllib.error.HTTPError as refused:
        code = refused.code
    except OSError:
        code = 0
    told.append([code, (time.perf_counter() - began) * 1000])
print(json.dumps(told))
"""
NAME = "vault.example"
TRUSTED = "/etc/ssl/certs/ca-certificates.crt"
TRUSTING = f"mkdir -p /etc/ssl/certs && cp /theirs/ca.crt {TRUSTED} && exec sleep 9999"
SERVE_TLS = """
import http.server, ssl
class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = self.path.encode() * 100
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.ThreadingHTTPServer(("", 443), Echo)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("/own/tls.crt", "/own/tls.key")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
SERVES = ("python3", "-m", "http.server", "--bind", "::", "80")


@dataclass
class Shop:
    """A client on one node, a server on the other."""

    installed: Installed
    namespace: str

    def ask(self, times: int = 1, path: str = "/") -> list[tuple[int, float]]:
        """Call the server from the client: code and milliseconds of each; code 0: no answer."""
        address = self.installed.address(self.namespace, "server")
        host = f"[{address}]" if ":" in address else address
        asked = ("python3", "-c", ASK, f"http://{host}{path}", str(times))
        told: list[tuple[int, float]] = json.loads(
            self.installed.run(self.namespace, "client", *asked)
        )
        return told

    def chaos(self, **spec: Any) -> Any:
        """Have an experiment on the server."""
        server = {"mode": "all", "selector": selector(self.namespace, app="server")}
        asked = {**server, "port": 80, **spec}
        return self.installed.experiment("HTTPChaos", self.namespace, asked)


@pytest.fixture(scope="module")
def shop(installed: Installed) -> Iterator[Shop]:
    namespace = f"http-{secrets.token_hex(3)}"
    installed.cluster.make_namespace(namespace)
    installed.pods(
        namespace,
        pod(namespace, "client", "node1"),
        pod(namespace, "server", "node2", *SERVES),
    )
    shop = Shop(installed, namespace)
    until("the server", lambda: shop.ask()[0][0] == 200, 30)
    yield shop
    installed.kubectl("delete", "namespace", namespace, "--wait=false")


def test_answers_are_changed_slowed_down_and_broken_off_all_at_once_and_one_by_one(
    shop: Shop,
) -> None:
    with shop.installed.leaves_nothing(shop.namespace):
        with shop.chaos(target="Response", path="/", replace={"code": 503}) as changed:
            changed.confirmed()
            assert shop.ask()[0][0] == 503
            with shop.chaos(target="Request", delay="100ms") as slowed:
                slowed.confirmed()
                code, took_ms = shop.ask()[0]
                assert (code, took_ms > 100) == (503, True)
                with shop.chaos(target="Request", path="/gone", abort=True) as broken:
                    broken.confirmed()
                    assert shop.ask(path="/gone")[0][0] == 0
                    assert shop.ask(path="/other")[0][0] == 404
                    changed.delete()
                    assert shop.ask()[0][0] == 200
                assert shop.ask(path="/gone")[0][0] == 404
                assert shop.ask()[0][1] > 100
        assert shop.ask()[0][0] == 200
        assert min(took for _, took in shop.ask(5)) < 100
    restarts = shop.installed.read("pod", "server", shop.namespace)["status"]
    assert restarts["containerStatuses"][0]["restartCount"] == 0


def test_a_share_of_the_answers_is_hit_and_always_the_same_ones(shop: Shop) -> None:
    codes = []
    for _ in range(2):
        with shop.chaos(
            target="Response", method="GET", percent=50, seed=3, replace={"code": 500}
        ) as flaky:
            flaky.wait("AllInjected")
            codes.append([code for code, _ in shop.ask(40)])
    assert codes[0] == codes[1]
    assert 8 <= codes[0].count(500) <= 32


@dataclass
class Vault:
    """A client that trusts an authority, and a server that this authority vouches for."""

    installed: Installed
    namespace: str

    def get(self, url: str, *shown: str) -> str:
        """Call the server from the client, over one connection; gives what curl then prints."""
        resolved = f"{NAME}:443:{self.installed.address(self.namespace, 'server')}"
        asked = ("curl", "--silent", "--resolve", resolved, *shown, f"https://{NAME}{url}")
        return self.installed.run(self.namespace, "client", *asked)

    def codes(self, path: str, times: int) -> list[str]:
        """Call it so often; gives the code of each answer."""
        printed = self.get(f"{path}?[1-{times}]", "--write-out", "\\n=%{http_code}\\n")
        return [line[1:] for line in printed.splitlines() if line.startswith("=")]

    def trusted(self) -> str:
        """Read whom the client trusts."""
        return self.installed.run(self.namespace, "client", "cat", TRUSTED)


def mounted(name: str, path: str, **source: Any) -> Mapping[str, Any]:
    """Say how a pod has a volume; `source` as in its spec."""
    return {
        "volumes": [{"name": name, **source}],
        "volumeMounts": [{"name": name, "mountPath": path}],
    }


@pytest.fixture
def vault(installed: Installed, namespace: str) -> Vault:
    now, lasts = datetime.now(UTC), timedelta(days=1)
    authority = make_authority("theirs", now, lasts)
    issued = make_server(authority, NAME, [NAME], now, lasts)
    both = {"tls.crt": issued.certificate, "tls.key": issued.key}
    meta = {"name": "vault", "namespace": namespace}
    installed.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": meta,
            "data": {name: base64.b64encode(value).decode() for name, value in both.items()},
        },
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": meta,
            "data": {"ca.crt": authority.certificate.decode()},
        },
    )
    client = pod(namespace, "client", "node1", "sh", "-c", TRUSTING)
    server = pod(namespace, "server", "node2", "python3", "-c", SERVE_TLS)
    for each, volume in (
        (client, mounted("theirs", "/theirs", configMap={"name": "vault"})),
        (server, mounted("own", "/own", secret={"secretName": "vault"})),
    ):
        each["spec"]["volumes"] = volume["volumes"]
        each["spec"]["containers"][0]["volumeMounts"] = volume["volumeMounts"]
    installed.pods(namespace, client, server)
    vault = Vault(installed, namespace)
    until("the server", lambda: vault.codes("/x", 1) == ["200"])
    return vault


def test_half_of_the_answers_to_a_target_that_calls_others_by_tls_are_changed(
    installed: Installed, namespace: str, vault: Vault
) -> None:
    trusted, other = vault.trusted(), vault.get("/other")
    spec = {"target": "Response", "outgoing": True, "port": 443, "path": "/x*"}
    half = {"percent": 50, "seed": 7, "replace": {"code": 503}}
    with installed.leaves_nothing(namespace):
        with installed.experiment("HTTPChaos", namespace, {**spec, **half}) as experiment:
            experiment.wait("AllInjected")
            codes = vault.codes("/x", 200)
            assert len(codes) == 200
            assert 70 <= codes.count("503") <= 130, codes
            assert codes.count("200") + codes.count("503") == 200
            assert vault.get("/other") == other
            assert vault.trusted() != trusted
            experiment.confirmed()
        assert set(vault.codes("/x", 20)) == {"200"}
        assert vault.trusted() == trusted
    for name in ("client", "server"):
        status = installed.read("pod", name, namespace)["status"]
        assert status["containerStatuses"][0]["restartCount"] == 0


def events(experiment: Experiment) -> list[str]:
    return [
        event["message"]
        for record in experiment.records()
        for event in record.get("events") or ()
        if "message" in event
    ]


def test_a_secret_that_is_missing_is_an_error_of_the_record(shop: Shop) -> None:
    tls = {"secretName": "none", "secretNamespace": shop.namespace, "certName": "c", "keyName": "k"}
    with shop.chaos(target="Request", abort=True, tls=tls) as sealed:
        until("the reason", lambda: "Secret" in "".join(events(sealed)), 30)
        assert "may not read" in "".join(events(sealed))
        assert sealed.records()[0]["phase"] != "Injected"
        assert shop.ask()[0][0] == 200
