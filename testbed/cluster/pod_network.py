"""How a node's container runtime connects pods: configuration and plugins of CNI."""

import json
from collections.abc import Mapping
from pathlib import Path

from testbed.cluster.layout import Node

PLUGINS = Path("/usr/lib/cni")

_VERSION = "1.0.0"
_AT_ONCE = f"""#!/bin/sh
# First of the chain. Without it the kernel asks for a second or two whether somebody has the
# pod's IPv6 address already, and the pod waits for that.
case $CNI_COMMAND in
VERSION) echo '{{"cniVersion": "{_VERSION}", "supportedVersions": ["{_VERSION}"]}}' ;;
ADD)
    no=net.ipv6.conf.default.accept_dad=0
    nsenter --net="$CNI_NETNS" sysctl -qw $no net.ipv6.conf.all.accept_dad=0 >&2 || exit
    echo '{{"cniVersion": "{_VERSION}"}}' ;;
esac
"""


def folders(node: Node) -> tuple[Path, Path]:
    """Say where a node's plugins are, and what they are told."""
    return node.folder / "cni-plugins", node.folder / "cni"


def configure(node: Node) -> None:
    """Write what the container runtime reads."""
    programs, settings = folders(node)
    programs.mkdir(parents=True)
    for program in PLUGINS.iterdir():
        (programs / program.name).symlink_to(program)
    at_once = programs / "at-once"
    at_once.write_text(_AT_ONCE)
    at_once.chmod(0o755)
    settings.mkdir(parents=True)
    (settings / "10-pods.conflist").write_text(json.dumps(_chain(node), indent=1))


def _chain(node: Node) -> Mapping[str, object]:
    addresses = {
        "type": "host-local",
        "dataDir": str(node.folder / "addresses"),
        "ranges": [[{"subnet": node.pods}], [{"subnet": node.pods_six}]],
        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
    }
    # Not a bridge: without br_netfilter, answers of a Service's pod on the same node would go
    # past the node's address translation, and the caller would not know who speaks.
    cables = {"type": "ptp", "ipMasq": False, "ipam": addresses}
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": _VERSION, "name": "pods", "plugins": [{"type": "at-once"}, cables, ports]}
