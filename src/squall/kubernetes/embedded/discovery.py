"""What clients ask before anything else: which groups, versions and kinds are served."""

from base64 import b64encode
from hashlib import sha256
from typing import Any

from squall.api.cluster import POD
from squall.api.served import ServedKind
from squall.kubernetes.embedded.kinds import Kinds
from squall.kubernetes.embedded.refusals import qualified

AGGREGATED = "APIGroupDiscoveryList"
"""The form in which newer clients ask for everything at once."""
AGGREGATED_TYPE = f"application/json;g=apidiscovery.k8s.io;v=v2;as={AGGREGATED}"

VERSION = {
    "major": "1",
    "minor": "34",
    "gitVersion": "v1.34.4+squall",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "linux/amd64",
}
"""Of the Kubernetes whose API is spoken here; clients parse `gitVersion`."""

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]

Document = dict[str, Any]


def core_versions() -> Document:
    """Answer `/api`."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def groups(kinds: Kinds) -> Document:
    """Answer `/apis`."""
    names = sorted({group for group, _ in kinds.group_versions() if group})
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [_group(kinds, name) for name in names],
    }


def group(kinds: Kinds, name: str) -> Document | None:
    """Answer `/apis/GROUP`; None when it is not served."""
    if not name or name not in {group for group, _ in kinds.group_versions()}:
        return None
    return {"kind": "APIGroup", "apiVersion": "v1"} | _group(kinds, name)


def resources(kinds: Kinds, group: str, version: str) -> Document | None:
    """Answer `/apis/GROUP/VERSION` and `/api/v1`; None when it is not served."""
    served = kinds.in_group(group, version)
    if not served:
        return None
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": [entry for kind in served for entry in _resources(kind)],
    }


def aggregated(kinds: Kinds, *, core: bool) -> Document:
    """Answer `/api` and `/apis` in the form of `apidiscovery.k8s.io/v2`."""
    names = sorted({group for group, _ in kinds.group_versions() if (group == "") == core})
    return {
        "kind": AGGREGATED,
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": [
            {
                "metadata": {"name": name} if name else {},
                "versions": [
                    {
                        "version": version,
                        "freshness": "Current",
                        "resources": [_aggregated(k) for k in kinds.in_group(name, version)],
                    }
                    for found, version in kinds.group_versions()
                    if found == name
                ],
            }
            for name in names
        ],
    }


def subresources(kind: ServedKind) -> dict[str, tuple[str, list[str]]]:
    """List what lies below one object: name -> (its kind, its verbs)."""
    found: dict[str, tuple[str, list[str]]] = {}
    if kind.status:
        found["status"] = kind.resource.kind, ["get", "patch", "update"]
    if kind.resource == POD:
        found["log"] = "Pod", ["get"]
        found["exec"] = "PodExecOptions", ["create", "get"]
    return found


def _group(kinds: Kinds, name: str) -> Document:
    versions = [
        {"groupVersion": f"{name}/{version}", "version": version}
        for group, version in kinds.group_versions()
        if group == name
    ]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def _names(kind: ServedKind) -> Document:
    found: Document = {}
    if kind.short_names:
        found["shortNames"] = list(kind.short_names)
    if kind.categories:
        found["categories"] = list(kind.categories)
    return found


def _resources(kind: ServedKind) -> list[Document]:
    resource = kind.resource
    about = {"namespaced": resource.namespaced}
    digest = sha256(f"{qualified(resource)}/{resource.version}".encode()).digest()[:8]
    return [
        {
            "name": resource.plural,
            "singularName": resource.kind.lower(),
            "kind": resource.kind,
            "verbs": _VERBS,
            "storageVersionHash": b64encode(digest).decode(),
            **about,
            **_names(kind),
        },
        *(
            {
                "name": f"{resource.plural}/{name}",
                "singularName": "",
                "kind": other,
                "verbs": verbs,
                **about,
            }
            for name, (other, verbs) in subresources(kind).items()
        ),
    ]


def _aggregated(kind: ServedKind) -> Document:
    resource = kind.resource
    where = {"group": resource.group, "version": resource.version}
    below = [
        {"subresource": name, "responseKind": {**where, "kind": other}, "verbs": verbs}
        for name, (other, verbs) in subresources(kind).items()
    ]
    return {
        "resource": resource.plural,
        "responseKind": {**where, "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.kind.lower(),
        "verbs": _VERBS,
        **_names(kind),
        **({"subresources": below} if below else {}),
    }
