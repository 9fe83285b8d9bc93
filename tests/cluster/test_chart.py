"""What the chart renders, and what a real API server says to it."""

import base64
import json
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from squall.api.policy import Policy
from squall.faults import kinds
from testbed.apiserver import ApiServer, missing, running
from tests.cluster.charts import (
    CHART,
    NAMESPACE,
    Refused,
    as_list,
    find,
    helm,
    is_hook,
    rendered,
)

pytestmark = pytest.mark.kubernetes

ROOT = Path(__file__).parents[2]
IN_ONE = ("clusterScoped=false", "targetNamespace=shop")
SHAPES = {
    "default": (),
    "one namespace": IN_ONE,
    "metrics": ("metrics.enabled=true", "metrics.serviceAnnotations.prometheus\\.io/scrape=yes"),
    "bare": (
        "webhook.enabled=false",
        "networkPolicy.enabled=false",
        "podDisruptionBudget.enabled=false",
        "admissionPolicy.enabled=false",
        "uninstall.heal=false",
    ),
    "definitions stay": ("crds.keep=true",),
    "no definitions": ("crds.install=false",),
    "strict": (
        "policy.mostPercent=50",
        "policy.optInNamespaces=true",
        "policy.optInLabels.chaos=yes",
        "policy.protectedNamespaces=[]",
        "imagePullSecrets[0]=pull",
        "image.registry=registry.local",
        "controller.priorityClassName=",
        "controller.extraArgs[0]=--verbose",
        "agent.nodeSelector.chaos=yes",
        "agent.seccompProfile.type=Unconfined",
    ),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    if lacking := missing():
        pytest.fail(f"a real API server needs {', '.join(lacking)}")
    with running(tmp_path_factory.mktemp("chart")) as server:
        for namespace in (NAMESPACE, "shop"):
            server.run("create", "namespace", namespace)
        yield server


def test_helm_finds_no_fault_in_it() -> None:
    assert "0 chart(s) failed" in helm("lint", "--strict", CHART)


def test_its_version_is_the_projects() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert (chart["version"], chart["appVersion"]) == (version, version)


@pytest.mark.parametrize("shape", SHAPES)
def test_an_api_server_takes_every_shape(server: ApiServer, shape: str) -> None:
    objects = rendered(*SHAPES[shape])
    applied = server.run(
        "apply", "--server-side", "--dry-run=server", "-f", "-", stdin=as_list(objects)
    )
    assert len(applied.splitlines()) == len(objects)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("colour=red", "additional properties 'colour' not allowed"),
        ("agent.privileged=true", "additional properties 'privileged' not allowed"),
        ("leaseSeconds=soon", "'/leaseSeconds': got string, want number"),
        ("policy.mostPercent=101", "'/policy/mostPercent': maximum: got 101, want 100"),
        ("image.pullPolicy=Sometimes", "'/image/pullPolicy': value must be one of"),
        ("targetNamespace=shop", "set clusterScoped=false to act in one namespace alone"),
        ("clusterScoped=false", "name the namespace whose pods may be hit"),
        ('webhook.enabled=false secretNamespaces=["shop"]', "that takes webhook.enabled=true"),
        (
            'webhook.failurePolicy=Ignore secretNamespaces=["shop"]',
            "webhook.failurePolicy=Fail",
        ),
    ],
)
def test_a_value_that_does_not_fit_is_refused(value: str, said: str) -> None:
    with pytest.raises(Refused) as refused:
        rendered(*value.split())
    assert said in str(refused.value)


def test_nobody_may_hit_the_namespace_that_agents_take_orders_from() -> None:
    with pytest.raises(Refused, match="would be root on every node"):
        rendered("clusterScoped=false", f"targetNamespace={NAMESPACE}")


def test_every_value_has_a_comment_and_a_place_in_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(values) == set(schema["properties"]) - {"global"}
    for name, value in values.items():
        known = schema["properties"][name]
        if known.get("additionalProperties") is False:
            assert set(value) == set(known["properties"]), name


def test_the_policy_reads_as_controller_and_agents_read_it() -> None:
    def policy(*values: str) -> Policy:
        text = find(rendered(*values), "ConfigMap", "squall-policy")["data"]["policy.yaml"]
        return Policy.model_validate(yaml.safe_load(text))

    assert policy() == Policy(protected_namespaces=["kube-system", NAMESPACE])
    assert policy(*IN_ONE).target_namespace == "shop"
    assert policy(*SHAPES["strict"]) == Policy(
        most_percent=50, opt_in_namespaces=True, opt_in_labels={"chaos": "yes"}
    )


def test_processes_start_anew_with_another_policy() -> None:
    def checksum(*values: str) -> str:
        pod = find(rendered(*values), "DaemonSet", "squall-agent")["spec"]["template"]
        return str(pod["metadata"]["annotations"]["checksum/policy"])

    assert checksum() != checksum("policy.mostPercent=50")
    assert checksum() == checksum("metrics.enabled=true")


def test_every_kind_with_a_room_is_defined_and_admitted() -> None:
    objects = rendered()
    expected = {kind.resource.plural for kind in kinds().values()}
    defined = {o["spec"]["names"]["plural"] for o in objects if "Definition" in o["kind"]}
    assert defined == expected | {"halts", "nodefaults"}
    for kind, roles in (("Mutating", {"mutate"}), ("Validating", {"validate", "authorize"})):
        hooks = find(objects, f"{kind}WebhookConfiguration", "squall-webhook")["webhooks"]
        assert {r for h in hooks for r in h["rules"][0]["resources"]} == expected
        assert {h["name"].split("-")[0] for h in hooks} == roles
        assert len(hooks) == len(expected) * len(roles)


def test_an_installation_for_one_namespace_reads_pods_of_no_other() -> None:
    for role in (o for o in rendered(*IN_ONE) if o["kind"] == "ClusterRole"):
        for rule in role["rules"]:
            assert "pods" not in rule["resources"], role["metadata"]["name"]
            assert "chaos-mesh.org" not in rule["apiGroups"], role["metadata"]["name"]


def test_two_installations_for_one_namespace_each_share_no_name() -> None:
    def names(namespace: str) -> set[tuple[str, str, str]]:
        objects = rendered(
            "clusterScoped=false",
            f"targetNamespace=shop-{namespace}",
            "crds.install=false",
            namespace=namespace,
        )
        return {
            (o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]) for o in objects
        }

    assert not names("one") & names("two")


def test_controllers_could_run_where_pods_are_restricted(server: ApiServer) -> None:
    server.run("create", "namespace", "restricted")
    enforced = "pod-security.kubernetes.io/enforce=restricted"
    server.run("label", "namespace", "restricted", enforced)
    objects = rendered(namespace="restricted")
    for kind, name in (("Deployment", "squall-controller"), ("Job", "squall-uninstall")):
        template = find(objects, kind, name)["spec"]["template"]
        pod = {"apiVersion": "v1", "kind": "Pod", **template}
        pod["metadata"] = {"name": name, "namespace": "restricted"}
        server.run("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))


def test_the_agent_is_not_privileged() -> None:
    pod = find(rendered(), "DaemonSet", "squall-agent")["spec"]["template"]["spec"]
    [container] = pod["containers"]
    security = container["securityContext"]
    assert pod["hostPID"]
    assert "hostNetwork" not in pod
    assert not security["privileged"]
    assert security["readOnlyRootFilesystem"]
    assert security["capabilities"]["drop"] == ["ALL"]
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "ports" not in container


def install(server: ApiServer, verb: str, *values: str) -> None:
    helm(verb, "squall", CHART, f"--namespace={NAMESPACE}", *values, server=server)


def test_helm_installs_upgrades_and_leaves_nothing(server: ApiServer) -> None:
    before = everything(server)
    install(server, "install", "--set=uninstall.heal=false")
    certify(server)
    install(server, "upgrade", "--set=uninstall.heal=false", "--set=webhook.timeoutSeconds=9")
    assert bundles(server, 9) == {"c3F1YWxs"}
    secret = json.loads(server.run("get", "secret", "squall-webhook", "-ojson", "-n", NAMESPACE))
    assert secret["data"] == {"ca.crt": "c3F1YWxs"}
    helm("uninstall", "squall", f"--namespace={NAMESPACE}", "--wait", server=server)
    server.run("delete", "endpoints,endpointslices", "--all", "-n", NAMESPACE)
    assert everything(server) - before == set()


def certify(server: ApiServer) -> None:
    """Do what the controller does when it starts."""
    bundle = base64.b64encode(b"squall").decode()
    where = ("-n", NAMESPACE, "--type=merge")
    patch = json.dumps({"data": {"ca.crt": bundle}})
    server.run("patch", "secret", "squall-webhook", *where, "--patch", patch)
    for kind in ("mutatingwebhookconfiguration", "validatingwebhookconfiguration"):
        there = json.loads(server.run("get", kind, "squall-webhook", "-ojson"))
        for hook in there["webhooks"]:
            hook["clientConfig"]["caBundle"] = bundle
        server.run("replace", "-f", "-", stdin=json.dumps(there))


def bundles(server: ApiServer, timeout: int) -> set[str]:
    found = set()
    for kind in ("mutatingwebhookconfiguration", "validatingwebhookconfiguration"):
        for hook in json.loads(server.run("get", kind, "squall-webhook", "-ojson"))["webhooks"]:
            assert hook["timeoutSeconds"] == timeout
            found.add(hook["clientConfig"].get("caBundle", ""))
    return found


def everything(server: ApiServer) -> set[str]:
    """Name every object of every kind, but for what the API server itself notes."""
    names = server.run("api-resources", "--verbs=list", "-oname").split()
    skipped = {"events", "events.events.k8s.io", "componentstatuses"}
    listed = server.run("get", ",".join(sorted(set(names) - skipped)), "-A", "-oname")
    return set(listed.split())


def test_hooks_are_what_heals_and_nothing_else() -> None:
    hooks = {(o["kind"], o["metadata"]["name"]) for o in rendered() if is_hook(o)}
    assert {name for _, name in hooks} == {"squall-uninstall"}
    assert ("Job", "squall-uninstall") in hooks
