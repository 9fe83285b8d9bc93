"""What a fault in names costs those that it does not mean, and how many it answers.

    python bench/names.py [--queries 20000] [--rounds 5]

Needs root and squall-node. Every figure through the fault stands beside the same one without it,
taken in turns in the same run. Exit status 1 when a bound is missed.
"""

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import dns.message

from squall.injection.world.names import Answer, NameRule
from squall.injection.world.target import Target
from squall.linux.name_faults import LinuxNames
from squall.linux.processes import started
from squall.linux.tests.two_namespaces import TwoNamespaces, inside

FAR = TwoNamespaces.FAR[0]
SO_RCVBUFFORCE = 33
WINDOW = 64
"""Queries under way at once, where it is about how many there are."""
HIT, SPARED = "www.example.com", "example.org"
RULES = [
    *(NameRule(f"{n}/.", (f"*.n{n}.example",), (), Answer("code", 2)) for n in range(20)),
    NameRule("hit/.", ("*.example.com",), (), Answer("code", 2)),
]
"""What an experiment with some age looks like: the name that is hit is the last of many."""
MOST_MORE_MS, LEAST_PER_SECOND, MOST_MB = 0.2, 20_000, 12


class Report:
    def __init__(self) -> None:
        self.missed = False

    def row(self, what: str, value: str, bound: str, *, holds: bool) -> None:
        self.missed |= not holds
        print(f"{what:<40} {value:>44}   {bound:<22} {'ok' if holds else 'MISSED'}", flush=True)


def serve() -> None:
    """Answer every query with itself, marked as an answer, over UDP and TCP."""
    listener = socket.create_server((FAR, 53))
    if os.fork() == 0:
        while True:
            led, _ = listener.accept()
            led.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while query := led.recv(4096):
                led.send(query[:4] + bytes([query[4] | 0x80]) + query[5:])
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    udp.bind((FAR, 53))
    print("ready", flush=True)
    while True:
        query, sender = udp.recvfrom(4096)
        udp.sendto(query[:2] + bytes([query[2] | 0x80]) + query[3:], sender)


def opened(net: TwoNamespaces, kind: int) -> socket.socket:
    with inside(net.near):
        made = socket.socket(socket.AF_INET, kind)
    if kind == socket.SOCK_DGRAM:
        made.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20)
    else:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.settimeout(2)
    made.connect((FAR, 53))
    return made


def round_trip_ms(net: TwoNamespaces, name: str, kind: int, count: int) -> float:
    """Median of `count` look-ups, one after the other."""
    query = dns.message.make_query(name, "A").to_wire()
    if kind == socket.SOCK_STREAM:
        query = len(query).to_bytes(2) + query
    times = []
    with opened(net, kind) as over:
        for _ in range(count):
            began = time.perf_counter()
            over.send(query)
            over.recv(4096)
            times.append(time.perf_counter() - began)
    return median(times) * 1000


def per_second(net: TwoNamespaces, name: str, count: int) -> tuple[float, int]:
    """Look-ups answered in a second, and how many never were."""
    query = dns.message.make_query(name, "A").to_wire()[2:]
    replies = 0
    with opened(net, socket.SOCK_DGRAM) as over:
        began = time.perf_counter()
        try:
            for number in range(count):
                over.send((number & 0xFFFF).to_bytes(2) + query)
                if number >= WINDOW:
                    over.recv(4096)
                    replies += 1
            while replies < count:
                over.recv(4096)
                replies += 1
        except TimeoutError:
            pass
        return replies / (time.perf_counter() - began), count - replies


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


async def measure(
    net: TwoNamespaces, sleeper: subprocess.Popen, options: argparse.Namespace, report: Report
) -> None:
    target = Target("bench/near", "near", "", sleeper.pid, started(sleeper.pid) or 0)
    figures: dict[str, list[float]] = {}
    lost = 0

    def note(name: str, value: float) -> None:
        figures.setdefault(name, []).append(value)

    with tempfile.TemporaryDirectory() as run:
        names = LinuxNames(Path(run), lease_seconds=60)
        few = max(options.queries // 10, 100)
        for _ in range(options.rounds):
            for way, kind in (("udp", socket.SOCK_DGRAM), ("tcp", socket.SOCK_STREAM)):
                note(f"{way} direct", round_trip_ms(net, SPARED, kind, few))
            note("direct", per_second(net, SPARED, options.queries)[0])
            await names.apply(target, RULES)
            for way, kind in (("udp", socket.SOCK_DGRAM), ("tcp", socket.SOCK_STREAM)):
                note(f"{way} spared", round_trip_ms(net, SPARED, kind, few))
            for what, name in (("spared", SPARED), ("hit", HIT)):
                speed, missing = per_second(net, name, options.queries)
                note(what, speed)
                lost += missing
            holder = next(iter(names._holders._holds.values())).process  # noqa: SLF001
            memory = resident_mb(holder.pid)
            await names.apply(target, [])
        await names.end_all()

    middle = {name: median(values) for name, values in figures.items()}
    for way in ("udp", "tcp"):
        direct, spared = middle[f"{way} direct"], middle[f"{way} spared"]
        said = f"{spared:.3f} ms, direct {direct:.3f}: {spared - direct:+.3f} ms"
        holds = spared - direct <= MOST_MORE_MS
        report.row(f"a name that is spared, {way}, p50", said, "<= +0.2 ms", holds=holds)
    for what in ("spared", "hit"):
        speed, direct = middle[what], middle["direct"]
        said = f"{speed:,.0f}/s, direct {direct:,.0f}: {speed / direct:.2f}"
        holds = speed >= LEAST_PER_SECOND
        report.row(f"look-ups of a name that is {what}", said, ">= 20,000/s", holds=holds)
    report.row("look-ups that were lost", f"{lost}", "0", holds=lost == 0)
    report.row(
        "memory of squall-node dns", f"{memory:.1f} MB", f"<= {MOST_MB} MB", holds=memory <= MOST_MB
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
    net, report = TwoNamespaces(), Report()
    sleeper = subprocess.Popen(
        ("nsenter", f"--net={net.near}", "sh", "-c", "echo; exec sleep 600"),
        stdout=subprocess.PIPE,
    )
    server = subprocess.Popen(
        ("nsenter", f"--net={net.far}", sys.executable, __file__, "--serve"),
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert server.stdout is not None
        if not server.stdout.readline():
            raise SystemExit("the name server did not start")
        assert sleeper.stdout is not None
        sleeper.stdout.readline()
        asyncio.run(measure(net, sleeper, options, report))
    finally:
        sleeper.kill()
        sleeper.wait()
        os.killpg(server.pid, 9)
        server.wait()
        net.close()
    return 1 if report.missed else 0


if __name__ == "__main__":
    sys.exit(main())
