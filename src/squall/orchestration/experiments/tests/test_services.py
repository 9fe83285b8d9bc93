import pytest

from squall.orchestration.experiments.services import (
    Endpoints,
    Services,
    read_addresses,
    read_endpoints,
)

WEB, ALL = ("shop", "web"), ("shop", "all")
ADDRESSES = {WEB: ("10.96.0.7", "fd01::7"), ALL: ("10.96.0.8",)}


def behind(name, ready="", others=""):
    return Endpoints(name, frozenset(ready.split()), frozenset(others.split()))


def slice_of(*endpoints, service="web", **fields):
    labels = {"kubernetes.io/service-name": service} if service else {}
    meta = {"namespace": "shop", "name": f"{service}-x1", "labels": labels}
    return {"metadata": meta, "addressType": "IPv4", "endpoints": list(endpoints), **fields}


@pytest.mark.parametrize(
    ("endpoints", "pods", "found"),
    [
        ([behind(WEB, "a b")], "a b", [WEB]),
        ([behind(WEB, "a b")], "a b c", [WEB]),
        ([behind(WEB, "a b")], "a", []),
        ([behind(WEB, "a"), behind(WEB, "b")], "a", []),
        ([behind(WEB, "a"), behind(WEB, "b")], "a b", [WEB]),
        ([behind(WEB, "a", "b")], "a", [WEB]),
        ([behind(WEB, "b", "a")], "a", []),
        ([behind(WEB, "", "a")], "a", [WEB]),
        ([behind(WEB, "", "a b")], "a", []),
        ([behind(WEB)], "a", []),
        ([behind(WEB, "a"), behind(ALL, "a b")], "a", [WEB]),
        ([behind(ALL, "a b"), behind(WEB, "a")], "a b", [ALL, WEB]),
        ([behind(("shop", "headless"), "a")], "a", []),
        ([behind(WEB, "a fd::a")], "a fd::a", [WEB]),
        ([], "a", []),
    ],
)
def test_a_service_that_leads_to_the_pods_alone_stands_for_them(endpoints, pods, found):
    services = Services(ADDRESSES, endpoints)
    assert services.in_front_of(pods.split()) == {name: ADDRESSES[name] for name in found}


@pytest.mark.parametrize(
    ("spec", "addresses"),
    [
        ({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd01::7"]}, ADDRESSES[WEB]),
        ({"clusterIP": "10.96.0.7"}, ("10.96.0.7",)),
        ({"clusterIP": "None", "clusterIPs": ["None"]}, ()),
        ({"type": "ExternalName", "externalName": "example.org"}, ()),
        ({}, ()),
    ],
)
def test_addresses_are_those_that_nodes_translate(spec, addresses):
    assert read_addresses({"metadata": {}, "spec": spec}) == addresses


@pytest.mark.parametrize(
    ("slice_", "expected"),
    [
        (slice_of(), behind(WEB)),
        (slice_of({"addresses": ["a"]}), behind(WEB, "a")),
        (slice_of({"addresses": ["a"], "conditions": {"ready": True}}), behind(WEB, "a")),
        (slice_of({"addresses": ["a"], "conditions": {"ready": False}}), behind(WEB, "", "a")),
        (slice_of({"addresses": ["x.org"]}, addressType="FQDN"), behind(WEB)),
        (slice_of({"addresses": ["a"]}, service=""), behind(("shop", ""), "a")),
        (slice_of(endpoints=None), behind(WEB)),
    ],
)
def test_a_slice_says_what_is_behind_a_service(slice_, expected):
    assert read_endpoints(slice_) == expected
