"""The kinds of objects an installation is made of, in the order in which they are put in."""

from squall.api.cluster import LEASE, NAMESPACE, POD, SERVICE, Object, Resource
from squall.errors import Unsupported

_RBAC = ("rbac.authorization.k8s.io", "v1")
_ADMISSION = ("admissionregistration.k8s.io", "v1")

CUSTOM_RESOURCE_DEFINITION = Resource(
    "apiextensions.k8s.io",
    "v1",
    "CustomResourceDefinition",
    "customresourcedefinitions",
    namespaced=False,
)
CONFIG_MAP = Resource("", "v1", "ConfigMap", "configmaps")
SECRET = Resource("", "v1", "Secret", "secrets")
DEPLOYMENT = Resource("apps", "v1", "Deployment", "deployments")
DAEMON_SET = Resource("apps", "v1", "DaemonSet", "daemonsets")

STAGES: tuple[tuple[str, tuple[Resource, ...]], ...] = (
    ("namespace", (NAMESPACE,)),
    ("definitions of kinds", (CUSTOM_RESOURCE_DEFINITION,)),
    (
        "rights",
        (
            Resource("", "v1", "ServiceAccount", "serviceaccounts"),
            Resource(*_RBAC, "ClusterRole", "clusterroles", namespaced=False),
            Resource(*_RBAC, "ClusterRoleBinding", "clusterrolebindings", namespaced=False),
            Resource(*_RBAC, "Role", "roles"),
            Resource(*_RBAC, "RoleBinding", "rolebindings"),
        ),
    ),
    (
        "admission policies",
        (
            Resource(
                *_ADMISSION,
                "ValidatingAdmissionPolicy",
                "validatingadmissionpolicies",
                namespaced=False,
            ),
            Resource(
                *_ADMISSION,
                "ValidatingAdmissionPolicyBinding",
                "validatingadmissionpolicybindings",
                namespaced=False,
            ),
        ),
    ),
    (
        "settings",
        (
            CONFIG_MAP,
            SECRET,
            SERVICE,
            LEASE,
            Resource("networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies"),
            Resource("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
            Resource(
                "scheduling.k8s.io", "v1", "PriorityClass", "priorityclasses", namespaced=False
            ),
        ),
    ),
    ("processes", (DEPLOYMENT, DAEMON_SET)),
    (
        "webhooks",
        (
            Resource(
                *_ADMISSION,
                "MutatingWebhookConfiguration",
                "mutatingwebhookconfigurations",
                namespaced=False,
            ),
            Resource(
                *_ADMISSION,
                "ValidatingWebhookConfiguration",
                "validatingwebhookconfigurations",
                namespaced=False,
            ),
        ),
    ),
)
"""What stands on what: each stage needs the ones before it, and goes before them."""

_KNOWN = {
    (resource.api_version, resource.kind): (rank, resource)
    for rank, resource in enumerate(r for _, resources in STAGES for r in resources)
}


def resource_of(obj: Object) -> Resource:
    """Say as what an object of a manifest is served.

    Raises:
        Unsupported: this version does not know the kind.
    """
    return _place_of(obj)[1]


def rank_of(obj: Object) -> int:
    """Say when an object is put in, lowest first; raises as `resource_of` does."""
    return _place_of(obj)[0]


def called(resource: Resource, name: str) -> str:
    """Name an object as kubectl does: `deployment.apps/squall-controller`."""
    return ".".join(filter(None, (resource.kind.lower(), resource.group))) + f"/{name}"


def _place_of(obj: Object) -> tuple[int, Resource]:
    found = _KNOWN.get((obj["apiVersion"], obj["kind"]))
    if found is None:
        raise Unsupported(
            f"the manifests hold a {obj['kind']} ({obj['apiVersion']}), which this version of "
            "squall does not know; use the squall that they came with"
        )
    return found


__all__ = [
    "CONFIG_MAP",
    "CUSTOM_RESOURCE_DEFINITION",
    "DAEMON_SET",
    "DEPLOYMENT",
    "NAMESPACE",
    "POD",
    "SECRET",
    "STAGES",
    "called",
    "rank_of",
    "resource_of",
]
