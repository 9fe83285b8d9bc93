"""The network of a cluster: a bridge in a namespace of its own, a cable from it to each node."""

import subprocess
from collections.abc import Iterable

from testbed.cluster.layout import SERVICES, Layout, Node


def run(*command: str) -> str:
    """Run a command and return what it prints; raises `RuntimeError` with its complaint."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def inside(netns: str, *command: str) -> list[str]:
    """Say how to run a command in a network namespace.

    Not with `ip netns exec`: that makes a mount namespace, and what a kubelet mounts for its pods
    would be hidden from the container runtime.
    """
    return ["nsenter", f"--net=/run/netns/{netns}", "--", *command]


def make(layout: Layout) -> None:
    """Make the namespaces and connect them with each other and with this machine."""
    world = layout.netns
    run("ip", "netns", "add", world)
    _batch(
        world,
        "link set lo up",
        "link add br0 type bridge",
        f"addr add {layout.address}/24 dev br0",
        f"addr add {layout.dns_address}/32 dev br0",
        "link set br0 up",
    )
    run(*inside(world, "sysctl", "-qw", "net.ipv4.ip_forward=1"))
    _connect_host(layout)
    for node in layout.nodes:
        _connect(layout, node)
    route_services(layout, layout.nodes)


def _connect_host(layout: Layout) -> None:
    device, far = layout.host_device, "v-host"
    _batch(
        None,
        f"link add {device} type veth peer name {far} netns {layout.netns}",
        f"addr add {layout.host_address}/24 dev {device}",
        f"link set {device} up",
    )
    _batch(layout.netns, f"link set {far} master br0 up")


def _connect(layout: Layout, node: Node) -> None:
    run("ip", "netns", "add", node.netns)
    _batch(
        layout.netns,
        f"link add {node.uplink} type veth peer name eth0 netns {node.netns}",
        f"link set {node.uplink} master br0 up",
        f"route add {node.pods} via {node.address}",
    )
    others = [other for other in layout.nodes if other != node]
    _batch(
        node.netns,
        "link set lo up",
        f"addr add {node.address}/24 dev eth0",
        "link set eth0 up",
        f"route add default via {layout.address}",
        *(f"route add {other.pods} via {other.address}" for other in others),
    )
    run(*inside(node.netns, "sysctl", "-qw", "net.ipv4.ip_forward=1"))


def route_services(layout: Layout, usable: Iterable[Node]) -> None:
    """Lead the API server to Services, which only nodes know: webhooks are behind them."""
    gateway = next(iter(usable), None)
    if gateway is not None:
        _batch(layout.netns, f"route replace {SERVICES} via {gateway.address}")


def cut(layout: Layout, node: Node) -> None:
    """Pull a node's cable out of the bridge's side: nothing gets there or away any more."""
    _batch(layout.netns, f"link set {node.uplink} down")


def mend(layout: Layout, node: Node) -> None:
    """Plug it in again."""
    _batch(layout.netns, f"link set {node.uplink} up")


def is_cut(layout: Layout, node: Node) -> bool:
    """Say whether a node's cable is pulled."""
    shown = run(*inside(layout.netns, "ip", "-o", "link", "show", node.uplink))
    return ",UP" not in shown and "<UP" not in shown


def remove(layout: Layout) -> None:
    """Take away the namespaces and the machine's end of the cable, as far as they are there."""
    prefix = f"testbed-{layout.name}-"
    for line in run("ip", "netns", "list").splitlines():
        name = line.split()[0]
        if name == layout.netns or name.removeprefix(prefix).startswith("node"):
            run("ip", "netns", "delete", name)
    subprocess.run(["ip", "link", "delete", layout.host_device], check=False, capture_output=True)


def _batch(netns: str | None, *lines: str) -> None:
    command = ["ip", "-batch", "-"]
    done = subprocess.run(
        inside(netns, *command) if netns else command,
        input="\n".join(lines),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"ip, in {netns or 'this machine'}: {done.stderr.strip()}")
