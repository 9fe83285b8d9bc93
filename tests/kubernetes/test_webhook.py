"""The webhook behind a real API server: what kubectl's users get, and what works without it."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import yaml

from squall.api.cluster import NAMESPACE, Resource
from squall.api.policy import Policy
from squall.api.served import ServedKind
from squall.faults import kinds
from squall.injection.served import served_kinds
from squall.kubernetes.client import HttpCluster
from squall.linux.clock import SystemClock
from squall.webhook.reach import GROUP
from squall.webhook.renewal import MUTATING, SECRET, VALIDATING, Place
from squall.webhook.serving import AUTHORISATION, Webhook, paths
from testbed.apiserver import ApiServer

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(120)]

DEADLINE_SECONDS = 30.0
ROLE, BINDING = (
    Resource("rbac.authorization.k8s.io", "v1", kind, f"{kind.lower()}s")
    for kind in ("Role", "RoleBinding")
)
UNLESS_THE_SPEC_STAYS = {
    "name": "spec-changes",
    "expression": "request.operation == 'CREATE' || !has(oldObject.spec) || !has(object.spec)"
    " || object.spec != oldObject.spec",
}
ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/helm/squall/templates/webhook.yaml"
UPSTREAMS = [
    one
    for path in sorted((ROOT / "tests/compatibility/manifests").glob("*.yaml"))
    for one in yaml.safe_load_all(path.read_text())
]
EXPERIMENTS = [kind for kind in served_kinds(kinds()) if kind.resource.group == GROUP]
BARE = {"action": "delay", "mode": "all", "selector": {}, "delay": {"latency": "10ms"}}


class Scene:
    """A webhook that a real API server asks, about two namespaces of its own."""

    def __init__(self, server: ApiServer, cluster: HttpCluster):
        unique = uuid.uuid4().hex[:8]
        self.server, self.cluster = server, cluster
        self.here, self.there = f"webhook-{unique}-here", f"webhook-{unique}-there"
        self.place = Place(self.here, f"webhook-{unique}", more_hosts=("127.0.0.1",))
        self.policy = Policy(protected_namespaces=["kube-system"])
        self.webhook = Webhook(cluster, EXPERIMENTS, lambda: self.policy, SystemClock(), self.place)

    async def kubectl(self, *words: str, stdin: str = "") -> str:
        return await asyncio.to_thread(self.server.run, f"-n={self.here}", *words, stdin=stdin)

    async def refused(self, *words: str, stdin: str = "") -> str:
        with pytest.raises(RuntimeError) as refused:
            await self.kubectl(*words, stdin=stdin)
        return str(refused.value)

    async def shown(self, name: str) -> dict:
        return json.loads(await self.kubectl("get", "networkchaos", name, "-o=json"))

    async def configure(self, port: int) -> None:
        for resource in (MUTATING, VALIDATING):
            await self.cluster.create(
                resource,
                {"metadata": {"name": self.place.service}, "webhooks": self.hooks(resource, port)},
            )
        await self.answers()

    def hooks(self, resource: Resource, port: int) -> list[dict]:
        hooks = []
        for kind in EXPERIMENTS:
            mutating, validating = paths(kind)
            if resource == MUTATING:
                hooks.append(self.hook("mutate", kind, mutating, port))
            else:
                hooks.append(self.hook("validate", kind, validating, port))
                hooks.append(self.hook("authorize", kind, AUTHORISATION, port))
        return hooks

    def hook(self, word: str, kind: ServedKind, path: str, port: int) -> dict:
        return {
            "name": f"{word}-{kind.resource.kind.lower()}.squall.dev",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": f"https://127.0.0.1:{port}{path}"},
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "timeoutSeconds": 5,
            "namespaceSelector": {"matchLabels": {"webhook": self.place.service}},
            "rules": [
                {
                    "apiGroups": [GROUP],
                    "apiVersions": ["v1alpha1"],
                    "operations": ["CREATE", "UPDATE"],
                    "resources": [kind.resource.plural],
                    "scope": "Namespaced",
                }
            ],
            "matchConditions": [UNLESS_THE_SPEC_STAYS],
        }

    async def answers(self) -> None:
        """Wait until both configurations lead to the webhook."""
        trial = manifest("trial", **BARE | {"mode": "fixed", "value": "0"})
        deadline = time.monotonic() + DEADLINE_SECONDS
        while "greater than 0" not in (said := await self.refusal_of(trial)):
            assert time.monotonic() < deadline, said

    async def refusal_of(self, obj: str, *words: str) -> str:
        try:
            return await self.kubectl("create", "--dry-run=server", *words, "-f-", stdin=obj)
        except RuntimeError as refused:
            return str(refused)


def manifest(name: str, **spec: object) -> str:
    return json.dumps(
        {
            "apiVersion": "chaos-mesh.org/v1alpha1",
            "kind": "NetworkChaos",
            "metadata": {"name": name},
            "spec": spec,
        }
    )


@pytest.fixture
async def scene(real: ApiServer) -> AsyncIterator[Scene]:
    async with HttpCluster.from_kubeconfig(real.kubeconfig) as cluster:
        scene = Scene(real, cluster)
        labels = {"webhook": scene.place.service}
        for name in (scene.here, scene.there):
            await cluster.create(NAMESPACE, {"metadata": {"name": name, "labels": labels}})
        meta = {"name": scene.place.service, "namespace": scene.here}
        await cluster.create(SECRET, {"metadata": meta})  # empty, as the chart leaves it
        port = await scene.webhook.start("127.0.0.1", 0)
        try:
            await scene.configure(port)
            yield scene
        finally:
            await scene.webhook.stop()
            for resource in (MUTATING, VALIDATING):
                await cluster.delete(resource, None, scene.place.service)


async def rights(
    scene: Scene,
    user: str,
    namespace: str,
    resources: Sequence[str] = ("networkchaos",),
    group: str = GROUP,
) -> None:
    """Let a user do everything with some resources in one namespace."""
    meta = {"metadata": {"name": user, "namespace": namespace}}
    rule = {"apiGroups": [group], "resources": [*resources], "verbs": ["*"]}
    await scene.cluster.create(ROLE, meta | {"rules": [rule]})
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": user}
    subject = {"kind": "User", "name": user, "apiGroup": "rbac.authorization.k8s.io"}
    await scene.cluster.create(BINDING, meta | {"roleRef": role, "subjects": [subject]})


@pytest.mark.parametrize("how", [(), ("--server-side",)], ids=["client", "server"])
@pytest.mark.parametrize("selector", [{}, {"namespaces": []}], ids=["absent", "empty"])
async def test_applying_again_changes_nothing(scene: Scene, how: tuple, selector: dict):
    delay = {"latency": "10ms", "jitter": ""}
    written = manifest("slow", **BARE | {"selector": selector, "delay": delay})
    await scene.kubectl("apply", *how, "-f-", stdin=written)
    before = await scene.shown("slow")
    assert before["spec"]["direction"] == "to"
    await scene.kubectl("apply", *how, "-f-", stdin=written)
    after = await scene.shown("slow")
    assert (after["spec"], after["metadata"]["generation"]) == (before["spec"], 1)
    await scene.kubectl("replace", "-f-", stdin=written)
    assert (await scene.shown("slow"))["spec"] == before["spec"]


def test_the_chart_skips_the_same_reviews():
    assert UNLESS_THE_SPEC_STAYS["expression"] in CHART.read_text()


async def test_a_selector_gets_the_namespace_of_its_experiment(scene: Scene):
    await scene.kubectl("apply", "-f-", stdin=manifest("slow", **BARE))
    spec = (await scene.shown("slow"))["spec"]
    assert spec["selector"] == {"namespaces": [scene.here]}
    assert spec["delay"] == {"latency": "10ms", "jitter": "0ms", "correlation": "0"}


async def test_mistakes_are_refused_in_upstreams_words(scene: Scene):
    wrong = manifest("slow", **BARE | {"mode": "fixed-percent", "value": "101"})
    said = await scene.refused("apply", "-f-", stdin=wrong)
    assert "value of 101 is invalid, Must be (0,100] with mode:fixed-percent" in said
    assert 'The NetworkChaos "slow" is invalid: spec.value: ' in said
    named = manifest("slow", **BARE | {"selector": {"namespaces": ["kube-system"]}})
    said = await scene.refused("apply", "-f-", stdin=named)
    assert "is in kube-system, which this installation protects" in said
    await scene.kubectl("apply", "-f-", stdin=manifest("slow", **BARE))
    said = await scene.refused("apply", "-f-", stdin=manifest("slow", **BARE | {"mode": "one"}))
    assert "Cannot update chaos spec" in said


async def test_rights_are_needed_wherever_an_experiment_acts(scene: Scene):
    await rights(scene, "ada", scene.here)
    both = BARE | {"selector": {"namespaces": [scene.here, scene.there]}}
    said = await scene.refused("create", "--as=ada", "-f-", stdin=manifest("slow", **both))
    assert f"ada is forbidden on namespace {scene.there}" in said
    await scene.kubectl("create", "--as=ada", "-f-", stdin=manifest("slow", **BARE))
    listed = BARE | {"selector": {"pods": {scene.there: ["a"]}}}
    said = await scene.refused("create", "--as=ada", "-f-", stdin=manifest("listed", **listed))
    assert f"ada is forbidden on namespace {scene.there}" in said
    everywhere = BARE | {"selector": {"namespaces": [""]}}
    said = await scene.refused("create", "--as=ada", "-f-", stdin=manifest("all", **everywhere))
    assert "ada is forbidden on cluster" in said
    await rights(scene, "ada", scene.there)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while "forbidden" in (said := await scene.refusal_of(manifest("both", **both), "--as=ada")):
        assert time.monotonic() < deadline, said


async def test_without_the_webhook_recovery_goes_on_and_nothing_new_begins(scene: Scene):
    await rights(scene, "ada", scene.here)
    held = json.loads(manifest("slow", **BARE))
    held["metadata"]["finalizers"] = ["chaos-mesh/records"]
    await scene.kubectl("create", "-f-", stdin=json.dumps(held))
    await scene.webhook.stop()
    said = await scene.refused("create", "-f-", stdin=manifest("next", **BARE))
    assert "failed calling webhook" in said
    network = kinds()["NetworkChaos"].resource
    status = {"status": {"experiment": {"desiredPhase": "Stop"}}}
    await scene.cluster.patch(network, scene.here, "slow", status, subresource="status")
    await scene.kubectl("annotate", "networkchaos/slow", "experiment.chaos-mesh.org/pause=true")
    await scene.kubectl("delete", "--wait=false", "networkchaos/slow")
    await scene.cluster.patch(network, scene.here, "slow", {"metadata": {"finalizers": None}})
    assert "NotFound" in await scene.refused("get", "networkchaos/slow")


async def test_what_an_upgrade_takes_away_is_put_back(scene: Scene):
    for resource in (MUTATING, VALIDATING):
        found = await scene.cluster.get(resource, None, scene.place.service)
        for hook in found["webhooks"]:
            del hook["clientConfig"]["caBundle"]
        await scene.cluster.patch(
            resource, None, scene.place.service, {"webhooks": found["webhooks"]}
        )
    await scene.answers()


async def test_a_new_certificate_is_trusted_and_shown_without_a_restart(scene: Scene):
    before = await scene.cluster.get(SECRET, scene.here, scene.place.service)
    await scene.cluster.delete(SECRET, scene.here, scene.place.service)
    await scene.answers()
    after = await scene.cluster.get(SECRET, scene.here, scene.place.service)
    assert after["data"]["tls.crt"] != before["data"]["tls.crt"]
    await scene.answers()


async def test_manifests_of_upstreams_shapes_are_stored_with_their_defaults(scene: Scene):
    """By all that stands between kubectl and the store: definitions, rules in them, the webhook."""
    named = [one | {"metadata": {**one["metadata"], "namespace": scene.here}} for one in UPSTREAMS]
    every = {"apiVersion": "v1", "kind": "List", "items": named}
    await scene.kubectl("create", "-f-", stdin=json.dumps(every))
    served = {kind.resource.kind: kind for kind in EXPERIMENTS}
    assert {one["kind"] for one in named} == set(served)
    for one in named:
        words = ("get", served[one["kind"]].resource.plural, one["metadata"]["name"], "-o=json")
        stored = json.loads(await scene.kubectl(*words))
        assert stored["spec"] == served[one["kind"]].default(one)["spec"], one["metadata"]["name"]
    await scene.kubectl(
        "apply", "--server-side", "--force-conflicts", "-f-", stdin=json.dumps(every)
    )


REFUSED = [
    ("NetworkChaos", {"action": "loss", "loss": {"loss": "101"}}, "spec.loss.loss: Invalid value"),
    ("NetworkChaos", {"action": "slow"}, 'spec.action: Unsupported value: "slow"'),
    ("PodChaos", {"action": "container-kill"}, "spec.containerNames"),
    ("StressChaos", {}, "missing stressors"),
    ("StressChaos", {"stressors": {"cpu": {"workers": 0}}}, "workers should always be positive"),
    ("IOChaos", {"action": "fault", "volumePath": "/d"}, "action fault: errno 0 is not supported"),
    (
        "IOChaos",
        {"action": "fault", "volumePath": "/d", "errno": 5, "percent": 101},
        "percent field should be in 0-100",
    ),
    ("IOChaos", {"action": "fault", "volumePath": "/d/../..", "errno": 5}, "spec.volumePath"),
    ("HTTPChaos", {"target": "Request", "abort": True}, "port 0 is not supported"),
    (
        "HTTPChaos",
        {"target": "Request", "port": 80, "abort": True, "method": "FETCH"},
        "method FETCH is not supported",
    ),
    ("HTTPChaos", {"target": "Both", "port": 80, "abort": True}, "Unsupported value"),
    ("DNSChaos", {"action": "lie"}, 'spec.action: Unsupported value: "lie"'),
]


async def test_mistakes_in_every_kind_are_refused_in_upstreams_words(scene: Scene):
    for kind, part, said in REFUSED:
        spec = {"mode": "all", "selector": {}, **part}
        wrong = json.loads(manifest("wrong", **spec)) | {"kind": kind}
        assert said in await scene.refusal_of(json.dumps(wrong)), (kind, part)


async def test_a_secret_is_read_only_for_whom_it_is_open_to(scene: Scene):
    """What Squall may read, its users may not for that: else it could be stolen through it."""
    for user in ("ada", "bob"):
        await rights(scene, user, scene.here, ["httpchaos"])
    await rights(scene, "bob", scene.there, ["secrets"], group="")
    names = {"secretName": "web", "certName": "tls.crt", "keyName": "tls.key"}
    tls = {**names, "secretNamespace": scene.there}
    spec = {"mode": "all", "selector": {}, "target": "Request", "port": 443, "abort": True}
    asked = json.loads(manifest("open", **spec, tls=tls)) | {"kind": "HTTPChaos"}
    said = await scene.refused("create", "--as=ada", "-f-", stdin=json.dumps(asked))
    assert f"ada may not read the Secret {scene.there}/web" in said
    deadline = time.monotonic() + DEADLINE_SECONDS
    while "may not read" in (said := await scene.refusal_of(json.dumps(asked), "--as=bob")):
        assert time.monotonic() < deadline, said
    assert "created" in said
