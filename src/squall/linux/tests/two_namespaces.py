"""Two network namespaces with a veth between them, and sockets inside either."""

import ctypes
import os
import secrets
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_CLONE_NEWNET = 0x40000000
_SO_RCVBUFFORCE = 33
_LIBC = ctypes.CDLL(None, use_errno=True)


def run(*arguments: str) -> str:
    return subprocess.run(arguments, check=True, capture_output=True, text=True, timeout=10).stdout


@contextmanager
def inside(netns: str) -> Iterator[None]:
    """Let this thread open sockets in a namespace; they stay there."""
    with Path("/proc/thread-self/ns/net").open() as back, Path(netns).open() as there:
        assert _LIBC.setns(there.fileno(), _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        try:
            yield
        finally:
            assert _LIBC.setns(back.fileno(), _CLONE_NEWNET) == 0


class TwoNamespaces:
    """`near` holds the target; `far` answers at two IPv4 and two IPv6 addresses."""

    NEAR, NEAR_V6 = "10.9.0.1", "fd09::1"
    FAR = ("10.9.0.2", "10.9.0.3", "fd09::2", "fd09::3")
    PORT = 7000

    def __init__(self, mtu: int = 1500) -> None:
        mark = secrets.token_hex(4)
        self._names = near, far = f"pair-near-{mark}", f"pair-far-{mark}"
        self.near, self.far = f"/run/netns/{near}", f"/run/netns/{far}"
        self.listeners: dict[str, socket.socket] = {}
        try:
            self._build(mtu)
        except BaseException:
            self.close()
            raise

    def _build(self, mtu: int) -> None:
        near, far = self._names
        run("ip", "netns", "add", near)
        run("ip", "netns", "add", far)
        veth = ("type", "veth", "peer", "name", "eth0", "netns", far)
        run("ip", "link", "add", "eth0", "netns", near, *veth)
        for name in self._names:
            # Without duplicate address detection there is nothing to wait for.
            dad = "net.ipv6.conf.eth0.accept_dad=0"
            run("ip", "netns", "exec", name, "sysctl", "-qw", dad)
            run("ip", "-n", name, "link", "set", "eth0", "mtu", str(mtu), "up")
            run("ip", "-n", name, "link", "set", "lo", "up")
        for name, ends in (
            (near, (f"{self.NEAR}/24", f"{self.NEAR_V6}/64")),
            (far, self._far_networks()),
        ):
            for address in ends:
                nodad = ("nodad",) if ":" in address else ()
                run("ip", "-n", name, "address", "add", address, "dev", "eth0", *nodad)
        for address in self.FAR:
            self.listeners[address] = self._udp(self.far, address, self.PORT)

    def _far_networks(self) -> tuple[str, ...]:
        return tuple(f"{end}/64" if ":" in end else f"{end}/24" for end in self.FAR)

    def close(self) -> None:
        for listener in self.listeners.values():
            listener.close()
        for name in self._names:
            run("ip", "netns", "delete", name)

    @staticmethod
    def _udp(netns: str, address: str = "", port: int = 0) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with inside(netns):
            opened = socket.socket(family, socket.SOCK_DGRAM)
            if port:
                opened.bind((address, port))
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)
        opened.settimeout(2)
        return opened

    def one_way_ms(self, address: str, count: int = 5) -> float:
        """Median time of a datagram from near to far."""
        times = []
        listener = self.listeners[address]
        with self._udp(self.near, address) as sender:
            for _ in range(count):
                start = time.perf_counter()
                sender.sendto(b"x" * 64, (address, self.PORT))
                listener.recv(2048)
                times.append((time.perf_counter() - start) * 1000)
        return sorted(times)[count // 2]

    def received(self, address: str, count: int, *, pause: float = 0.0) -> list[bytes]:
        """Send `count` numbered datagrams and give those that arrive within 0.3 s of the last."""
        listener = self.listeners[address]
        with self._udp(self.near, address) as sender:
            for number in range(count):
                with suppress(PermissionError):
                    sender.sendto(number.to_bytes(4) * 16, (address, self.PORT))
                if pause:
                    time.sleep(pause)
        arrived = []
        listener.settimeout(0.3)
        with suppress(TimeoutError):
            while True:
                arrived.append(listener.recv(2048))
        listener.settimeout(2)
        return arrived

    def burst(self, address: str, count: int) -> int:
        """Send `count` datagrams as fast as it goes, and count those that arrive within 20 ms."""
        listener = self.listeners[address]
        with self._udp(self.near, address) as sender:
            for _ in range(count):
                sender.sendto(bytes(64), (address, self.PORT))
        arrived = 0
        listener.settimeout(0.02)
        with suppress(TimeoutError):
            while listener.recv(2048):
                arrived += 1
        listener.settimeout(2)
        return arrived

    def let_windows_grow(self) -> None:
        """Let one TCP stream fill a long fast path."""
        for name in self._names:
            for which in ("rmem", "wmem"):
                setting = f"net.ipv4.tcp_{which}=4096 131072 134217728"
                run("ip", "netns", "exec", name, "sysctl", "-qw", setting)

    def stream(self, address: str, sent: bytes) -> tuple[bytes, float]:
        """Send bytes over TCP; give what arrives, and the seconds it took."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with inside(self.far):
            listener = socket.create_server((address, self.PORT), family=family)
        with inside(self.near):
            sender = socket.socket(family)
        sender.settimeout(20)
        start = time.perf_counter()
        sender.connect((address, self.PORT))
        accepted, _ = listener.accept()
        accepted.settimeout(20)

        def send() -> None:
            sender.sendall(sent)
            sender.shutdown(socket.SHUT_WR)

        sending = threading.Thread(target=send)
        sending.start()
        arrived = bytearray()
        while chunk := accepted.recv(1 << 20):
            arrived += chunk
        took = time.perf_counter() - start
        sending.join()
        for opened in (accepted, listener, sender):
            opened.close()
        return bytes(arrived), took

    def add_device(self, device: str) -> None:
        """Give near one more Ethernet device, that leads nowhere."""
        near = self._names[0]
        run("ip", "-n", near, "link", "add", device, "type", "veth", "peer", "name", "end")
        run("ip", "-n", near, "link", "set", device, "up")

    def delete_device(self, device: str) -> None:
        """Take a device away from near."""
        run("ip", "-n", self._names[0], "link", "delete", device)

    def links(self) -> str:
        """Devices of near."""
        return run("ip", "-n", self._names[0], "-o", "link")

    def neighbours(self) -> str:
        """Addresses that near has found on the wire."""
        found = run("ip", "-n", self._names[0], "neighbour").splitlines()
        return "".join(line for line in found if "lladdr" in line)

    def ruleset(self) -> str:
        return run("ip", "netns", "exec", self._names[0], "nft", "list", "ruleset")
