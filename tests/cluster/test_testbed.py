"""Is the testbed a cluster, does it break where it is told to, and does it leave nothing?"""

import json
import re
import secrets
import signal
import subprocess
import sys
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from testbed.cluster import Cluster, attach, down, running, up
from testbed.cluster.layout import CGROUPS, DNS_SIX, MEMORY, RUN
from testbed.cluster.namespaces import inside, run
from testbed.cluster.processes import in_cgroups
from testbed.cluster.waiting import until
from testbed.traces import Namespace, difference
from tests.cluster.pods import ANSWER, fetch, get, look_up, web

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

CRASHING = """
import sys, time
from testbed.cluster import up
up(sys.argv[1], 1, owned=True)
print("up", flush=True)
time.sleep(600)
"""


def test_pods_reach_each_other_and_services(cluster: Cluster, namespace: str) -> None:
    addresses = {node: web(cluster, namespace, f"on-{node}", node) for node in cluster.nodes}
    for node in cluster.nodes:
        for other, address in addresses.items():
            pod, service = f"on-{node}", f"on-{other}.{namespace}.svc.cluster.local"
            assert fetch(cluster, namespace, pod, address) == ANSWER
            by_name = look_up(cluster, namespace, pod, service)
            assert by_name != address
            assert fetch(cluster, namespace, pod, by_name) == ANSWER
    with pytest.raises(RuntimeError, match=r"exit code 1$"):
        look_up(cluster, namespace, "on-node1", "example.com")
    assert cluster.kubectl("logs", f"--namespace={namespace}", "on-node2").strip() == "serving"


def test_pods_nodes_and_services_have_both_families(cluster: Cluster, namespace: str) -> None:
    for node in cluster.nodes:
        web(cluster, namespace, f"on-{node}", node)
        shown = json.loads(cluster.kubectl("get", "node", node, "--output=json"))["status"]
        internal = [each["address"] for each in shown["addresses"] if each["type"] == "InternalIP"]
        assert [":" in address for address in internal] == [False, True]
    both = json.dumps({"spec": {"ipFamilyPolicy": "RequireDualStack"}})
    cluster.kubectl("patch", "service", "on-node2", f"-n={namespace}", f"--patch={both}")
    service = json.loads(
        cluster.kubectl("get", "service", "on-node2", f"-n={namespace}", "--output=json")
    )
    (_, six) = service["spec"]["clusterIPs"]
    (_, pod) = [each["ip"] for each in get(cluster, namespace, "on-node2")["status"]["podIPs"]]
    for source in ("on-node1", "on-node2"):
        assert fetch(cluster, namespace, source, pod) == ANSWER
        until(six, lambda source=source: fetch(cluster, namespace, source, six) == ANSWER, 30)
    name = f"on-node2.{namespace}.svc.cluster.local"
    assert look_up(cluster, namespace, "on-node1", name, DNS_SIX) in service["spec"]["clusterIPs"]
    get_page = ["curl", "--silent", "--globoff", "--max-time", "5"]
    assert run(*inside(cluster.net, *get_page, f"http://[{six}]/")).strip() == ANSWER


def test_a_killed_component_can_be_started_again(cluster: Cluster, namespace: str) -> None:
    web(cluster, namespace, "before", "node2")
    (first, *_) = cluster.processes_of(namespace, "before")
    parts = [("etcd", None), ("kube-apiserver", None), ("kubelet", "node2")]
    for component, node in [*parts, ("containerd", "node2"), ("kube-proxy", "node2")]:
        cluster.kill(component, node)
        with pytest.raises(RuntimeError, match="does not run"):
            cluster.process(component, node)
        cluster.start(component, node)
        # A kubelet that starts without containerd ends, and nobody here starts it again.
        until(component, lambda: _well(cluster, "node2"))
    web(cluster, namespace, "after", "node2")
    assert cluster.processes_of(namespace, "before")[0] == first
    assert get(cluster, namespace, "before")["status"]["containerStatuses"][0]["restartCount"] == 0


def test_a_cut_node_reaches_nobody_and_is_missed(cluster: Cluster, namespace: str) -> None:
    web(cluster, namespace, "here", "node1")
    address = web(cluster, namespace, "there", "node2")
    cluster.cut("node2")
    try:
        with pytest.raises(RuntimeError, match="exit code 143"):
            fetch(cluster, namespace, "here", address)
        until("the cut", lambda: "NotReady" in cluster.kubectl("get", "node", "node2"), 60)
    finally:
        cluster.mend("node2")
    until("the mending", lambda: fetch(cluster, namespace, "here", address) == ANSWER, 30)
    until("node2", lambda: "NotReady" not in cluster.kubectl("get", "node", "node2"), 30)


def test_what_is_left_in_a_container_or_on_a_node_is_seen(cluster: Cluster, namespace: str) -> None:
    web(cluster, namespace, "web", "node1")
    before = cluster.state(namespace)
    assert difference(before, cluster.state(namespace)) == ""
    (pid, *_) = cluster.processes_of(namespace, "web")
    with Namespace(pid) as network:
        network.run("nft", "add", "table", "inet", "left")
        assert f"{namespace}/web/web nft" in difference(before, cluster.state(namespace))
        network.run("nft", "delete", "table", "inet", "left")
    left = cluster.on_host("node1", Path("/run/squall/left"))
    left.mkdir()
    assert "node1 files" in difference(before, cluster.state(namespace))
    left.rmdir()
    assert difference(before, cluster.state(namespace)) == ""


def test_cables_of_others_are_nothing_that_is_left(cluster: Cluster, namespace: str) -> None:
    web(cluster, namespace, "other", "node1")
    web(cluster, namespace, "host", "node1", hostNetwork=True)
    assert "veth" in cluster.run_in_node("node1", "ip", "link")
    read = cluster.state(namespace)
    assert "eth0" in read[f"{namespace}/host/web devices"]
    assert [what for what, text in read.items() if "veth" in text] == []


def test_requests_are_counted_by_who_asks(cluster: Cluster, namespace: str) -> None:
    before = cluster.requests()
    account = f"system:serviceaccount:{namespace}:default"
    with pytest.raises(RuntimeError, match="forbidden"):
        cluster.kubectl("get", "pods", f"--namespace={namespace}", f"--as={account}")
    made = cluster.requests() - before
    asked = [(request.user, request.resource) for request in made if request.verb == "list"]
    assert asked == [("admin", "pods")]


def test_prometheus_scrapes(cluster: Cluster) -> None:
    job = {"job_name": "itself", "static_configs": [{"targets": [f"{_address(cluster)}:9090"]}]}
    with cluster.prometheus([job]) as url:
        query = f"{url}/api/v1/query?query=up%7Bjob%3D%22itself%22%7D"
        until("a scrape", lambda: _value(query) == "1", 30)


def test_two_side_by_side_and_nothing_left(cluster: Cluster, namespace: str) -> None:
    before = _unmarked()
    with running(_name(), size=1) as other:
        assert cluster.url != other.url
        other.make_namespace(namespace)
        for each in (cluster, other):
            web(each, namespace, "web", "node1")
            assert fetch(each, namespace, "web", "127.0.0.1") == ANSWER
            assert _traces(each).keys() == {"processes", "places", "mounts", "network"}
        other.make_namespace("only-there")
        assert "only-there" not in cluster.kubectl("get", "namespaces")
    assert _traces(other) == {}
    assert difference(before, _unmarked()) == ""
    assert fetch(cluster, namespace, "web", "127.0.0.1") == ANSWER


def test_what_crashed_is_removed_by_anybodys_next_start(machine: None) -> None:
    command = [sys.executable, "-c", CRASHING, _name()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline().strip() == "up"
        crashed = attach(command[-1])
        web(crashed, "default", "web", "node1")
        owner.kill()
    until("the owner's components", lambda: not _runs(crashed), 10)
    assert _traces(crashed).keys() == {"processes", "places", "mounts", "network"}  # its containers
    name = _name()
    cluster = up(name, size=1)
    try:
        assert not list(in_cgroups(f"testbed-{crashed.name}"))
        with pytest.raises(RuntimeError, match="is up"):
            up(name, size=1)
        made = _id(cluster)
        for process in list(in_cgroups(f"testbed-{name}")):
            process.send(signal.SIGKILL)
        until("the end of all", lambda: not list(in_cgroups(f"testbed-{name}")), 10)
        assert _id(up(name, size=1)) != made
    finally:
        assert down(name)
    assert not down(name)
    assert _traces(cluster) == {}
    assert _traces(crashed) == {}  # only now: its addresses may be those of the next


def _well(cluster: Cluster, node: str) -> bool:
    kubelet = ("curl", "--silent", "--fail", "http://127.0.0.1:10248/healthz")
    run("ctr", f"--address={cluster.node(node).socket}", "version")
    run(*inside(cluster.node(node).net, *kubelet))
    return cluster.kubectl("get", "--raw=/readyz") == "ok"


def _runs(cluster: Cluster) -> bool:
    try:
        cluster.process("kube-apiserver")
    except RuntimeError:
        return False
    return True


def _id(cluster: Cluster) -> str:
    return cluster.kubectl("get", "namespace", "default", "--output=jsonpath={.metadata.uid}")


def _traces(cluster: Cluster) -> dict[str, list[str]]:
    """Find everything on this machine that bears the cluster's name or address."""
    subnet = _address(cluster).rpartition(".")[0]
    mark = re.compile(rf"/testbed[-/]{cluster.name}\b|\b{re.escape(subnet)}\.")
    places = [*(CGROUPS.glob("*/*")), *RUN.iterdir(), *MEMORY.iterdir()]
    read = {
        "processes": [f"/testbed-{cluster.name}" for _ in in_cgroups(f"testbed-{cluster.name}")],
        "places": [str(place) for place in places],
        "mounts": Path("/proc/self/mountinfo").read_text().splitlines(),
        "network": run("ip", "-o", "addr").splitlines() + run("ip", "route").splitlines(),
    }
    found = {what: [line for line in lines if mark.search(line)] for what, lines in read.items()}
    return {what: lines for what, lines in found.items() if lines}


def _unmarked() -> dict[str, str]:
    """Read what would bear no name."""
    folders = ("/run/containerd", "/var/lib/kubelet", "/var/log/containers")
    left = [str(path) for folder in folders for path in Path(folder).glob("**/*")]
    return {"files": "\n".join(sorted(left)), "rules": run("nft", "-s", "list", "ruleset")}


def _address(cluster: Cluster) -> str:
    address = urllib.parse.urlsplit(cluster.url).hostname
    assert address is not None
    return address


def _value(query: str) -> str | None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(query, timeout=5) as answer:
        results = json.load(answer)["data"]["result"]
    return results[0]["value"][1] if results else None


def _name() -> str:
    return f"test-{secrets.token_hex(3)}"
