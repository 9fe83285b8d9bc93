"""Objects that nobody would write: never a 500, never half a write, never laxer than a cluster."""

import copy
import ssl
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from squall.api.cluster import NODE_FAULT, Object, Resource
from squall.faults import kinds
from squall.kubernetes.client import path_of
from testbed.apiserver import ApiServer
from tests.kubernetes.objects import delay, node_fault

NAMESPACE = "default"


def experiment(kind: str, **spec: Any) -> tuple[Resource, Object]:
    chosen = {"mode": "one", "selector": {"namespaces": ["default"]}}
    metadata = {"name": "odd", "namespace": NAMESPACE}
    return kinds()[kind].resource, {"metadata": metadata, "spec": {**chosen, **spec}}


SANE = [
    (kinds()["NetworkChaos"].resource, delay(NAMESPACE, "odd")),
    experiment("PodChaos", action="pod-kill", gracePeriod=1),
    experiment("StressChaos", stressors={"cpu": {"workers": 1, "load": 50}}),
    experiment(
        "HTTPChaos",
        target="Response",
        port=80,
        percent=12.5,
        delay="10ms",
        code=200,
        replace={"body": "e30=", "headers": {"a": "b"}, "code": 503},
        patch={"headers": [["a", "b"]], "body": {"type": "JSON", "value": "{}"}},
    ),
    (NODE_FAULT, node_fault(NAMESPACE, "odd")),
]

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**33), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["10ms", "1h", "-1s", "150", "1mbit", "all", "fixed", "2", "", "256MB"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=3) | st.sampled_from(["cpu", "min"]), inner, max_size=3)
    ),
    max_leaves=5,
)


def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
    """Every place in a JSON value, the whole first."""
    yield path
    inside = value.items() if isinstance(value, dict) else []
    inside = enumerate(value) if isinstance(value, list) else inside
    for key, part in inside:
        yield from places(part, (*path, key))


@st.composite
def odd_objects(draw: st.DrawFn) -> tuple[Resource, Object]:
    resource, sane = draw(st.sampled_from(SANE))
    odd = copy.deepcopy(sane)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([p for p in places(odd) if p] or [("spec",)]))
        parent = odd
        for key in path[:-1]:
            parent = parent[key]
        match draw(st.sampled_from(["replace", "remove", "add"])):
            case "replace":
                parent[path[-1]] = draw(JSON)
            case "remove":
                parent.pop(path[-1], None) if isinstance(parent, dict) else parent.pop(path[-1])
            case "add" if isinstance(parent, dict):
                parent[draw(st.text(max_size=4))] = draw(JSON)
    return resource, {"apiVersion": resource.api_version, "kind": resource.kind} | odd


def client(server: ApiServer) -> httpx2.Client:
    return httpx2.Client(
        base_url=server.url,
        verify=ssl.create_default_context(cafile=str(server.authority)),
        headers={"Authorization": f"Bearer {server.token}"},
        trust_env=False,
    )


def stored(http: httpx2.Client, resource: Resource) -> list[Object]:
    found = http.get(path_of(resource, NAMESPACE)).json()["items"]
    for obj in found:
        bare = {"metadata": {"finalizers": None}}
        path = path_of(resource, NAMESPACE, obj["metadata"]["name"])
        merge = {"Content-Type": "application/merge-patch+json"}
        http.patch(path, json=bare, headers=merge).raise_for_status()
        http.delete(path).raise_for_status()
    return found


def sent(http: httpx2.Client, resource: Resource, odd: Object) -> httpx2.Response:
    return http.post(path_of(resource, NAMESPACE), json=odd)


@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(odd=odd_objects())
def test_an_odd_object_is_taken_whole_or_refused_whole(embedded: ApiServer, odd):
    resource, obj = odd
    with client(embedded) as http:
        answer = sent(http, resource, obj)
        found = stored(http, resource)
    assert answer.status_code < 500, answer.text
    if answer.is_success:
        assert found == [answer.json()]
    else:
        assert found == []
        assert answer.json()["message"]


@pytest.mark.kubernetes
@settings(max_examples=150, suppress_health_check=list(HealthCheck))
@given(odd=odd_objects())
def test_what_the_embedded_api_takes_a_cluster_takes_too(embedded: ApiServer, real: ApiServer, odd):
    resource, obj = odd
    with client(embedded) as here, client(real) as there:
        ours, theirs = (sent(http, resource, obj) for http in (here, there))
        stored(here, resource)
        stored(there, resource)
    if ours.is_success:
        assert theirs.is_success, f"{obj}: {theirs.text}"
        assert comparable(ours.json()) == comparable(theirs.json()), obj


def comparable(obj: Object) -> Any:
    """Give the spec without what a webhook would fill in: the experiment's own namespace."""
    spec = obj.get("spec")
    for part in (spec, *spec.values()) if isinstance(spec, dict) else ():
        selector = part.get("selector") if isinstance(part, dict) else None
        if isinstance(selector, dict) and selector.get("namespaces") in ([NAMESPACE], []):
            del selector["namespaces"]
    return spec
