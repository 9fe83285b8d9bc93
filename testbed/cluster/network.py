"""The network of a cluster: a bridge in a namespace of its own, a cable from it to each node."""

import subprocess
from collections.abc import Iterable
from pathlib import Path

from testbed.cluster.layout import SERVICES, SERVICES_SIX, Layout, Node
from testbed.cluster.namespaces import inside, run


def make(layout: Layout) -> None:
    """Connect the cluster's namespaces with each other and with this machine."""
    world = layout.net
    _forward(world)
    _batch(
        world,
        "link set lo up",
        "link add br0 type bridge",
        f"addr add {layout.address}/24 dev br0",
        f"addr add {layout.dns_address}/32 dev br0",
        f"addr add {layout.address_six}/64 dev br0",
        f"addr add {layout.dns_address_six}/128 dev br0",
        "link set br0 up",
    )
    _connect_host(layout)
    for node in layout.nodes:
        _connect(layout, node)
    route_services(layout, layout.nodes)


def _connect_host(layout: Layout) -> None:
    device, far = layout.host_device, "v-host"
    _batch(
        None,
        f"link add {device} type veth peer name {far} netns {layout.net}",
        f"addr add {layout.host_address}/24 dev {device}",
        f"link set {device} up",
    )
    _batch(layout.net, f"link set {far} master br0 up")


def _connect(layout: Layout, node: Node) -> None:
    _forward(node.net)
    _batch(
        layout.net,
        f"link add {node.uplink} type veth peer name eth0 netns {node.net}",
        f"link set {node.uplink} master br0 up",
        f"route add {node.pods} via {node.address}",
        f"route add {node.pods_six} via {node.address_six}",
    )
    others = [other for other in layout.nodes if other != node]
    _batch(
        node.net,
        "link set lo up",
        f"addr add {node.address}/24 dev eth0",
        f"addr add {node.address_six}/64 dev eth0",
        "link set eth0 up",
        f"route add default via {layout.address}",
        f"route add default via {layout.address_six}",
        *(f"route add {other.pods} via {other.address}" for other in others),
        *(f"route add {other.pods_six} via {other.address_six}" for other in others),
    )


def _forward(net: Path) -> None:
    """Make a router of a namespace, and new IPv6 addresses in it of use at once.

    Devices that are there already go on asking for a second whether somebody has theirs.
    """
    settings = [f"net.ipv6.conf.{which}.accept_dad=0" for which in ("all", "default")]
    settings += ["net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1"]
    run(*inside(net, "sysctl", "-qw", *settings))


def route_services(layout: Layout, usable: Iterable[Node]) -> None:
    """Lead the API server to Services, which only nodes know: webhooks are behind them."""
    gateway = next(iter(usable), None)
    if gateway is not None:
        _batch(
            layout.net,
            f"route replace {SERVICES} via {gateway.address}",
            f"route replace {SERVICES_SIX} via {gateway.address_six}",
        )


def cut(layout: Layout, node: Node) -> None:
    """Pull a node's cable out of the bridge's side: nothing gets there or away any more."""
    _batch(layout.net, f"link set {node.uplink} down")


def mend(layout: Layout, node: Node) -> None:
    """Plug it in again."""
    _batch(layout.net, f"link set {node.uplink} up")


def is_cut(layout: Layout, node: Node) -> bool:
    """Say whether a node's cable is pulled."""
    shown = run(*inside(layout.net, "ip", "-o", "link", "show", node.uplink))
    return ",UP" not in shown and "<UP" not in shown


def remove(layout: Layout) -> None:
    """Take away the machine's end of the cable, if it is there."""
    subprocess.run(["ip", "link", "delete", layout.host_device], check=False, capture_output=True)


def _batch(net: Path | None, *lines: str) -> None:
    command = ["ip", "-batch", "-"]
    run(*(command if net is None else inside(net, *command)), stdin="\n".join(lines))
