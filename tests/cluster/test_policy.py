"""What an installation does not let anybody hit: said at admission, by controller, by agents."""

import json
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from testbed.cluster import Cluster
from testbed.traces import difference
from tests.cluster.charts import NAMESPACE
from tests.cluster.releases import (
    confirmed,
    create,
    delay,
    pods,
    read,
    records,
    released,
    says,
)

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

CONTROLLER = f"system:serviceaccount:{NAMESPACE}:squall-controller"
STRICT = (
    "policy.mostPercent=50",
    "policy.optInNamespaces=true",
    "policy.optInLabels.chaos=yes",
)


@pytest.fixture(scope="module")
def strict(loaded: Cluster) -> Iterator[Cluster]:
    """An installation that lets little be hit."""
    with released(loaded, *STRICT):
        yield loaded


@pytest.fixture
def willing(strict: Cluster, namespace: str) -> str:
    """A namespace whose pods may be hit, at most one of two; a third one does not want to be."""
    pods(strict, namespace, "web-1", "web-2", "web-3")
    where = f"--namespace={namespace}"
    strict.kubectl("label", "pod", "web-1", "web-2", "chaos=yes", where)
    strict.kubectl("annotate", "namespace", namespace, "chaos-mesh.org/inject=enabled")
    return namespace


def one(namespace: str, name: str = "slow", **spec: object) -> dict[str, Any]:
    """A delay of half of the pods."""
    return delay(namespace, name, **{"mode": "fixed", "value": "1", **spec})


@pytest.mark.parametrize("protected", ["kube-system", NAMESPACE])
def test_what_is_protected_is_refused_at_once(
    strict: Cluster, namespace: str, protected: str
) -> None:
    selector = {"namespaces": [protected]}
    with pytest.raises(RuntimeError, match=f"is in {protected}, which this installation protects"):
        create(strict, one(namespace, selector=selector))


def test_too_many_are_refused_at_once_or_by_the_controller(strict: Cluster, willing: str) -> None:
    with pytest.raises(RuntimeError, match="this installation allows 50 %"):
        create(strict, delay(willing))
    create(strict, one(willing, value="2"))  # of how many, the manifest does not say
    said = "would hit 2 of 2 pods; this installation allows 50 %"
    says(said, lambda: told(strict, willing))
    assert records(strict, willing) == []


def test_who_did_not_opt_in_is_passed_over(strict: Cluster, namespace: str, willing: str) -> None:
    create(strict, one(willing))
    confirmed(strict, willing, 1)
    [record] = records(strict, willing)
    assert record["id"] in {f"{willing}/web-1", f"{willing}/web-2"}
    said = f"{willing}/web-3 lacks the label chaos=yes that this installation asks for"
    says(said, lambda: told(strict, willing))
    strict.kubectl("annotate", "namespace", willing, "chaos-mesh.org/inject-")
    create(strict, one(willing, "later"))
    said = "which is not annotated chaos-mesh.org/inject: enabled"
    says(said, lambda: told(strict, willing, "later"))
    assert records(strict, willing, "later") == []


def test_an_agent_refuses_what_the_controller_never_asked_for(
    strict: Cluster, willing: str
) -> None:
    create(strict, one(willing))
    confirmed(strict, willing, 1)
    [order] = orders(strict, willing)
    untouched = strict.state(willing)
    refused = {
        "web-3": ({}, "lacks the label chaos=yes that this installation asks for"),
        "web-1": ({"hit": 2, "of": 2}, "would hit 2 of 2 pods; this installation allows 50 %"),
    }
    for pod, (extent, said) in refused.items():
        forged = forge(strict, order, willing, pod, extent)
        strict.kubectl("create", "-f=-", f"--as={CONTROLLER}", stdin=json.dumps(forged))
        name = forged["metadata"]["name"]
        says(said, partial(status, strict, name))
        strict.kubectl("delete", "nodefault", name, f"-n={NAMESPACE}", f"--as={CONTROLLER}")
    assert difference(untouched, strict.state(willing)) == ""


def orders(cluster: Cluster, namespace: str) -> list[Any]:
    """List the NodeFaults of experiments of a namespace; those of other tests may still go."""
    listed = cluster.kubectl("get", "nodefaults", f"-n={NAMESPACE}", "-ojson")
    found = json.loads(listed)["items"]
    return [one for one in found if one["spec"]["experiment"]["namespace"] == namespace]


def forge(cluster: Cluster, order: Any, namespace: str, pod: str, extent: object) -> dict[str, Any]:
    """Turn an order of the controller against another pod."""
    found = json.loads(cluster.kubectl("get", "pod", pod, f"-n={namespace}", "-ojson"))
    [target] = order["spec"]["targets"]
    [container] = found["status"]["containerStatuses"]
    other = {
        "id": f"{namespace}/{pod}",
        "podUid": found["metadata"]["uid"],
        "containerId": container["containerID"],
    }
    spec = {
        **order["spec"],
        "nodeName": found["spec"]["nodeName"],
        "targets": [target | other],
        "extent": {".": extent or {"hit": 1, "of": 2}},
    }
    metadata = {"name": f"forged-{pod}", "namespace": NAMESPACE}
    kind = {"apiVersion": order["apiVersion"], "kind": order["kind"]}
    return {**kind, "metadata": metadata, "spec": spec}


def status(cluster: Cluster, order: str) -> str:
    shown = json.loads(cluster.kubectl("get", "nodefault", order, f"-n={NAMESPACE}", "-ojson"))
    return json.dumps(shown.get("status"))


def told(cluster: Cluster, namespace: str, name: str = "slow") -> str:
    """Give all that an experiment says in its status and by events."""
    about = f"--field-selector=involvedObject.name={name}"
    events = cluster.kubectl("get", "events", about, f"-n={namespace}", "-ojsonpath={..message}")
    return events + json.dumps(read(cluster, namespace, name).get("status"))
