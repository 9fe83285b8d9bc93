"""What the tutorial does: one host, two programs, each sort of fault, from manifest to recovery."""

import re
import sys

import pytest
import yaml

from squall.api.cluster import EVENT, POD, WORKLOAD
from testbed.installation import (
    Installation,
    eventually,
    gone,
    injected,
    proven,
    ready_pod,
    records,
    resource_of,
)

pytestmark = [pytest.mark.host, pytest.mark.timeout(120)]

SERVER = """
import socket, socketserver
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile: self.wfile.write(line)
class Server(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True
Server(("::", 7000), Echo).serve_forever()
"""

ROUND_TRIPS = """
import socket, statistics, sys, time
times = []
for family, *_, address in socket.getaddrinfo("web", 7000, int(sys.argv[1]), socket.SOCK_STREAM):
    with socket.create_connection(address[:2], timeout=3) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answers = link.makefile("rb")
        for _ in range(5):
            begun = time.perf_counter()
            link.sendall(b"x\\n")
            assert answers.readline() == b"x\\n"
            times.append((time.perf_counter() - begun) * 1000)
    break
print(statistics.median(times))
"""
INET, INET6 = 2, 10


@pytest.fixture(scope="module")
def installation(tmp_path_factory):
    with Installation(tmp_path_factory.mktemp("host") / "squall", lease_seconds=5) as up:
        python = sys.executable
        up.squall("run", "--name", "web", "--label", "app=web", "--", python, "-c", SERVER)
        up.squall("run", "--name", "visitor", "--label", "app=visitor", "--", "sleep", "1000")
        yield up
        assert up.alive, up.log
    assert "Traceback" not in up.log, up.log


@pytest.fixture
async def cluster(installation):
    async with installation.cluster() as cluster:
        for name in ("web", "visitor"):
            await ready_pod(cluster, name)
        yield cluster


def experiment(text):
    obj = yaml.safe_load(text)
    obj["metadata"] = {"name": obj.pop("name"), "namespace": "default"}
    obj["apiVersion"] = "chaos-mesh.org/v1alpha1"
    return obj


DELAY = """
kind: NetworkChaos
name: delay
spec:
  action: delay
  mode: all
  selector: {labelSelectors: {app: web}}
  delay: {latency: 50ms}
  direction: to
  target:
    mode: all
    selector: {labelSelectors: {app: visitor}}
"""


async def round_trip_ms(installation, family):
    """Median of five round trips from visitor to web, measured in the visitor."""
    command = ("exec", "visitor", "--", sys.executable, "-c", ROUND_TRIPS, str(family))
    return float(installation.squall(*command).stdout)


@pytest.mark.parametrize("family", [INET, INET6])
async def test_a_delay_is_felt_is_proven_and_goes(installation, cluster, family):
    before = await round_trip_ms(installation, family)
    delay = await cluster.create(resource_of({"kind": "NetworkChaos"}), experiment(DELAY))
    await injected(cluster, delay)
    during = await round_trip_ms(installation, family)
    proofs = await proven(cluster, delay)
    await gone(cluster, delay)
    after = await round_trip_ms(installation, family)
    assert before < 20
    assert 50 <= during < 80
    assert after < 20
    assert all("50" in proof["asked"] for proof in proofs)


async def test_a_partition_is_felt_at_once_and_blocks_what_is_established(installation, cluster):
    cut = experiment(DELAY.replace("action: delay", "action: partition"))
    del cut["spec"]["delay"]
    cut["spec"]["direction"] = "both"
    cut["metadata"]["name"] = "cut"
    created = await cluster.create(resource_of(cut), cut)
    await injected(cluster, created)
    send = "import socket; socket.socket(2, 2).sendto(b'x', ('web', 7000))"
    command = ("exec", "visitor", "--", sys.executable, "-c", send)
    refused = installation.squall(*command, check=False)
    await proven(cluster, created)
    await gone(cluster, created)
    allowed = installation.squall(*command, check=False)
    assert refused.returncode != 0
    assert "Operation not permitted" in refused.stderr
    assert allowed.returncode == 0, allowed.stderr


async def test_a_killed_pod_comes_back_as_another_with_the_same_address(cluster):
    before = await ready_pod(cluster, "web")
    kill = experiment(
        "{kind: PodChaos, name: kill, spec: {action: pod-kill, mode: one,"
        " selector: {labelSelectors: {app: web}}}}"
    )
    created = await cluster.create(resource_of(kill), kill)
    await injected(cluster, created)
    await proven(cluster, created)

    async def another():
        pod = await ready_pod(cluster, "web")
        return pod if pod["metadata"]["uid"] != before["metadata"]["uid"] else None

    after = await eventually(another, "another pod is ready")
    await gone(cluster, created)
    assert after["status"]["podIP"] == before["status"]["podIP"]


async def test_a_killed_container_is_started_again_in_the_same_pod(cluster):
    before = await ready_pod(cluster, "web")
    name = before["spec"]["containers"][0]["name"]
    kill = experiment(
        "{kind: PodChaos, name: kill-container, spec: {action: container-kill, mode: one,"
        f" containerNames: [{name}], selector: {{labelSelectors: {{app: web}}}}}}}}"
    )
    created = await cluster.create(resource_of(kill), kill)
    await injected(cluster, created)
    await proven(cluster, created)

    async def restarted():
        pod = await ready_pod(cluster, "web")
        old, new = (p["status"]["containerStatuses"][0] for p in (before, pod))
        return pod if new["restartCount"] > old["restartCount"] else None

    after = await eventually(restarted, "the container was started again")
    await gone(cluster, created)
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


async def test_a_failing_pod_stands_still_and_then_goes_on(installation, cluster):
    failure = experiment(
        "{kind: PodChaos, name: fail, spec: {action: pod-failure, mode: one,"
        " selector: {labelSelectors: {app: web}}}}"
    )
    await round_trip_ms(installation, INET)
    created = await cluster.create(resource_of(failure), failure)
    await injected(cluster, created)
    await proven(cluster, created)
    pod = await cluster.get(POD, "default", "web")
    held = {c["type"]: c["status"] for c in pod["status"]["conditions"]}
    await gone(cluster, created)
    assert held["Ready"] == "False"
    assert await round_trip_ms(installation, INET) < 20
    again = await ready_pod(cluster, "web")
    assert again["metadata"]["uid"] == pod["metadata"]["uid"]


async def test_a_busy_processor_is_as_busy_as_was_asked(cluster):
    busy = experiment(
        "{kind: StressChaos, name: busy, spec: {mode: all,"
        " selector: {labelSelectors: {app: visitor}},"
        " stressors: {cpu: {workers: 1, load: 50}}}}"
    )
    created = await cluster.create(resource_of(busy), busy)
    await injected(cluster, created)
    (proof,) = await proven(cluster, created)
    await gone(cluster, created)
    assert re.search(r"\d", proof["measured"])


async def test_pause_takes_back_and_resume_puts_there_again(installation, cluster):
    paused = {"metadata": {"annotations": {"experiment.chaos-mesh.org/pause": "true"}}}
    resumed = {"metadata": {"annotations": {"experiment.chaos-mesh.org/pause": None}}}
    created = await cluster.create(resource_of({"kind": "NetworkChaos"}), experiment(DELAY))
    await injected(cluster, created)
    where = (resource_of(created), "default", "delay")

    async def recovered():
        seen = await cluster.get(*where)
        return all(record["phase"] == "Not Injected" for record in records(seen))

    await cluster.patch(*where, paused)
    await eventually(recovered, "the pause has taken effect")
    while_paused = await round_trip_ms(installation, INET)
    await cluster.patch(*where, resumed)
    await injected(cluster, created)
    while_resumed = await round_trip_ms(installation, INET)
    await gone(cluster, created)
    assert while_paused < 20
    assert while_resumed >= 50


async def test_halt_takes_everything_back_and_refuses_until_released(installation, cluster):
    created = await cluster.create(resource_of({"kind": "NetworkChaos"}), experiment(DELAY))
    await injected(cluster, created)
    installation.squall("halt", "--reason", "a test")
    try:

        async def healed():
            return await round_trip_ms(installation, INET) < 20

        await eventually(healed, "the halt has healed", 5)
    finally:
        installation.squall("halt", "--release")
    await gone(cluster, created)


async def test_the_story_can_be_read_in_events(cluster):
    created = await cluster.create(resource_of({"kind": "NetworkChaos"}), experiment(DELAY))
    await injected(cluster, created)
    uid = created["metadata"]["uid"]

    async def reasons():
        events = await cluster.list(EVENT, "default")
        return {e["reason"] for e in events if e["involvedObject"].get("uid") == uid}

    await eventually(lambda: _has(reasons, {"FinalizerInited", "Started", "Applied"}), "events")
    await gone(cluster, created)


async def _has(reasons, wanted):
    return wanted <= await reasons()


async def test_preview_names_exactly_who_is_hit(installation, cluster, tmp_path):
    wanted = experiment(DELAY)
    wanted["spec"] |= {"mode": "one", "seed": 7, "selector": {"namespaces": ["default"]}}
    file = tmp_path / "delay.yaml"
    file.write_text(yaml.safe_dump(wanted))
    told = installation.squall("preview", "-f", str(file)).stdout
    created = await cluster.create(resource_of(wanted), wanted)
    seen = await injected(cluster, created)
    await gone(cluster, created)
    hit = {r["id"] for r in records(seen) if r["selectorKey"] == "."}
    assert len(hit) == 1
    assert hit.pop() in told


async def test_a_workload_that_is_deleted_is_gone(installation, cluster):
    installation.squall("run", "--name", "brief", "--", "sleep", "1000")
    await ready_pod(cluster, "brief")
    await cluster.delete(WORKLOAD, "default", "brief")

    async def vanished():
        return all(p["metadata"]["name"] != "brief" for p in await cluster.list(POD, "default"))

    await eventually(vanished, "the pod is gone")
