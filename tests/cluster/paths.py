"""The path between two pods, measured from inside them."""

import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from testbed.cluster.waiting import until
from tests.cluster.installed import Installed

_PING = re.compile(r"(\d+) packets transmitted, (\d+) received")
_TIME = re.compile(r"time=([\d.]+) ms( \(DUP!\))?")

_RECEIVE = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
port = socket.socket(family, socket.SOCK_DGRAM)
port.bind((sys.argv[1], 4242))
port.settimeout(2)
print("bound", flush=True)
try:
    print(port.recv(99).decode())
except TimeoutError:
    print("nothing")
"""

_SEND = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
port = socket.socket(family, socket.SOCK_DGRAM)
for _ in range(5):
    try:
        port.sendto(b"datagram", (sys.argv[1], 4242))
    except PermissionError:
        pass
"""


@dataclass(frozen=True, slots=True)
class Pings:
    """What came back of some pings."""

    sent: int
    received: int
    duplicates: int
    times_ms: tuple[float, ...]
    """Of the first answer to each."""

    @property
    def lost(self) -> float:
        """Share of pings without an answer."""
        return 1 - self.received / self.sent

    @property
    def middle_ms(self) -> float:
        """Median round trip."""
        return sorted(self.times_ms)[len(self.times_ms) // 2]


@dataclass(frozen=True, slots=True)
class Path:
    """From one pod to an address of another."""

    installed: Installed
    namespace: str
    source: str
    """Name of the pod that asks."""
    address: str
    """Of the other, or of a Service in front of it, or its name."""

    def ping(self, count: int = 5) -> Pings:
        """Send pings, 10 ms apart; they wait a second for their answers."""
        shell = f"ping -n -i 0.01 -c {count} -W 1 {self.address} 2>&1 || true"
        text = self.installed.run(self.namespace, self.source, "sh", "-c", shell)
        if (summary := _PING.search(text)) is None:
            raise RuntimeError(text)
        answers = _TIME.findall(text)
        times = tuple(float(time) for time, again in answers if not again)
        return Pings(
            int(summary[1]), int(summary[2]), sum(bool(again) for _, again in answers), times
        )

    def fetch(self, seconds: float = 2.0) -> float | None:
        """GET a page by HTTP; gives the seconds it took, None where no answer came in time."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        shown = "%{http_code} %{time_total}"
        shell = f"curl -s -o /dev/null -m {seconds} -w '{shown}' http://{host}/ || true"
        code, took = self.installed.run(self.namespace, self.source, "sh", "-c", shell).split()
        return None if code == "000" else float(took)

    def megabits(self, seconds: int = 2) -> float:
        """Send as fast as TCP can to iperf3; gives megabits per second that arrived."""
        command = ("iperf3", "--client", self.address, "--time", str(seconds), "--json")
        report = json.loads(self.installed.run(self.namespace, self.source, *command))
        return float(report["end"]["sum_received"]["bits_per_second"]) / 1e6

    def datagram_arrives(self, receiver: str) -> bool:
        """Does a datagram come through, in this direction alone?"""
        with self._listening(receiver) as heard:
            self.installed.run(self.namespace, self.source, "python3", "-c", _SEND, self.address)
            return heard.communicate(timeout=60)[0].strip() == "datagram"

    @contextmanager
    def _listening(self, receiver: str) -> Iterator["subprocess.Popen[str]"]:
        listening = ["exec", f"-n={self.namespace}", receiver, "--", "python3", "-c", _RECEIVE]
        command = self.installed.cluster.kubectl_command(*listening, self.address)
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as heard:
            if heard.stdout is None or heard.stdout.readline() != "bound\n":
                raise RuntimeError(f"{receiver} does not listen")
            yield heard


def serves(path: Path) -> None:
    """Wait until the other end answers by HTTP."""
    until(f"{path.address} for {path.source}", lambda: path.fetch(1.0) is not None, 60)
