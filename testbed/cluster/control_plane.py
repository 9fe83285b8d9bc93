"""How the components that a cluster has once are started."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from testbed import coredns
from testbed.cluster.layout import DNS, DNS_SIX, SERVICES, SERVICES_SIX, Layout
from testbed.kubernetes.build import programs

STORE = "http://127.0.0.1:2379"
_PEERS = "http://127.0.0.1:2380"

NAMES_PORT = 8181
"""Where CoreDNS says whether it is ready."""

COMPONENTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "coredns")
"""In the order they are started in."""

AUDIT_POLICY: Mapping[str, object] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        # Kubernetes' own components ask all the time, and nobody counts that here.
        {
            "level": "None",
            "users": [
                "system:apiserver",
                "system:coredns",
                "system:kube-controller-manager",
                "system:kube-proxy",
                "system:kube-scheduler",
            ],
        },
        {
            "level": "None",
            "userGroups": ["system:nodes", "system:serviceaccounts:kube-system"],
        },
        {"level": "Metadata"},
    ],
}


def commands(layout: Layout) -> Mapping[str, Sequence[str]]:
    """Say how each is called, in the cluster's folder."""
    return {
        "etcd": _etcd(layout),
        "kube-apiserver": _apiserver(layout),
        "kube-controller-manager": _controller_manager(),
        "kube-scheduler": [
            str(programs() / "kube-scheduler"),
            "--kubeconfig=kube-scheduler.kubeconfig",
            "--leader-elect=false",
        ],
        "coredns": [str(coredns.program()), "-conf=Corefile"],
    }


def configure(layout: Layout) -> None:
    """Write what they read."""
    layout.memory.mkdir(mode=0o700)
    (layout.folder / "audit.json").write_text(json.dumps(AUDIT_POLICY))
    (layout.folder / "Corefile").write_text(_names(layout))


def manifests(layout: Layout) -> str:
    """Write what a cluster has before anybody uses it."""
    text = Path(__file__).with_name("manifests.yaml").read_text()
    for placeholder, address in {
        "SERVICE_ADDRESS_SIX": DNS_SIX,
        "SERVICE_ADDRESS": DNS,
        "SERVER_ADDRESS_SIX": layout.dns_address_six,
        "SERVER_ADDRESS": layout.dns_address,
    }.items():
        text = text.replace(placeholder, address)
    return text


def _names(layout: Layout) -> str:
    """Answer names of the cluster, and say of all others that there is no such name."""
    return f""".:53 {{
    bind {layout.dns_address} {layout.dns_address_six}
    ready {layout.address}:{NAMES_PORT}
    errors
    loadbalance
    cache 2
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        kubeconfig {layout.kubeconfig("coredns")}
        pods insecure
        ttl 2
    }}
    template ANY ANY . {{
        rcode NXDOMAIN
    }}
}}
"""


def _etcd(layout: Layout) -> list[str]:
    return [
        "etcd",
        f"--data-dir={layout.memory}/etcd",
        f"--listen-client-urls={STORE}",
        f"--advertise-client-urls={STORE}",
        f"--listen-peer-urls={_PEERS}",
        f"--initial-advertise-peer-urls={_PEERS}",
        f"--initial-cluster=default={_PEERS}",
        "--log-level=warn",
    ]


def _apiserver(layout: Layout) -> list[str]:
    return [
        str(programs() / "kube-apiserver"),
        f"--etcd-servers={STORE}",
        f"--advertise-address={layout.address}",
        "--bind-address=0.0.0.0",
        "--secure-port=6443",
        "--tls-cert-file=keys/kube-apiserver.crt",
        "--tls-private-key-file=keys/kube-apiserver.key",
        "--client-ca-file=keys/ca.crt",
        "--service-account-key-file=keys/accounts.key",
        "--service-account-signing-key-file=keys/accounts.key",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-cluster-ip-range={SERVICES},{SERVICES_SIX}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged",
        "--kubelet-client-certificate=keys/admin.crt",
        "--kubelet-client-key=keys/admin.key",
        "--kubelet-preferred-address-types=InternalIP",
        "--audit-policy-file=audit.json",
        f"--audit-log-path={layout.memory}/audit.log",
    ]


def _controller_manager() -> list[str]:
    return [
        str(programs() / "kube-controller-manager"),
        "--kubeconfig=kube-controller-manager.kubeconfig",
        "--service-account-private-key-file=keys/accounts.key",
        "--root-ca-file=keys/ca.crt",
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--allocate-node-cidrs=false",
        "--node-monitor-grace-period=16s",
        "--node-monitor-period=2s",
    ]
