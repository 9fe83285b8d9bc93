"""How exact and how fast the packet path is, without netem.

    python bench/packets.py [--samples 1000] [--rounds 3]

Needs root, iperf3 and squall-node. Each figure stands beside a limit measured in the same run:
a bare sleep for exactness, the plain veth for throughput. Exit status 1 when a bound is missed.
"""

import argparse
import asyncio
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from squall.injection.world.network import Impairment
from squall.linux.packets import Held, Lane, PacketsProcess, Rule
from squall.linux.tests.two_namespaces import TwoNamespaces

FAR = TwoNamespaces.FAR[0]
DELAY_MS = 10
SECONDS = 3  # of one run of iperf3
NO_LIMIT = 10_000_000  # packets per second that no machine sends one by one
PR_SET_TIMERSLACK = 29


def percentile(values: list[float], percent: float) -> float:
    return sorted(values)[min(int(len(values) * percent / 100), len(values) - 1)]


class Report:
    def __init__(self) -> None:
        self.missed = False

    def row(self, what: str, value: str, bound: str, holds: bool) -> None:
        self.missed |= not holds
        print(f"{what:<44} {value:>26}   {bound:<34} {'ok' if holds else 'MISSED'}", flush=True)


def exactness(net: TwoNamespaces, samples: int, report: Report) -> None:
    """Felt delay of single datagrams, in turns with bare sleeps, so both meet the same machine."""
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1)
    felt, slept = [], []
    for _ in range(samples):
        felt.append(net.one_way_ms(FAR, 1) - DELAY_MS)
        start = time.perf_counter()
        time.sleep(DELAY_MS / 1000)
        slept.append((time.perf_counter() - start) * 1000 - DELAY_MS)
    p50, p99, sleep99 = percentile(felt, 50), percentile(felt, 99), percentile(slept, 99)
    least = f"min {min(felt):+.3f}; sleep p50 {percentile(slept, 50):+.3f}"
    report.row("error of a 10 ms delay, p50", f"{p50:+.3f} ms", "<= +0.2 ms", p50 <= 0.2)
    bound = f"<= sleep's p99 {sleep99:+.3f} + 0.5 ms"
    report.row("error of a 10 ms delay, p99", f"{p99:+.3f} ms", bound, p99 <= sleep99 + 0.5)
    report.row("never early", least, ">= 0", min(felt) >= 0)


def losses(net: TwoNamespaces, report: Report) -> None:
    sent, batch = 100_000, 2_000  # in batches, so that the receiving socket never overflows
    arrived = 0
    for _ in range(sent // batch):
        arrived += net.burst(FAR, batch)
    lost = 100 * (1 - arrived / sent)
    report.row("loss of 10 %", f"{lost:.2f} %", "10 +- 0.5 %", abs(lost - 10) <= 0.5)


def iperf(net: TwoNamespaces, *arguments: str) -> dict:
    inside = ("nsenter", f"--net={net.far}")
    server = subprocess.Popen(
        (*inside, "iperf3", "-s", "-1", "-J"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while (
        subprocess.run(
            (*inside, "ss", "-Hltn", "sport = 5201"), capture_output=True, check=True
        ).stdout
        == b""
    ):
        time.sleep(0.02)
    client = ("nsenter", f"--net={net.near}", "iperf3", "-c", FAR, "-t", str(SECONDS), "-J")
    done = subprocess.run((*client, *arguments), capture_output=True, check=True, timeout=60)
    server.wait(timeout=10)
    return json.loads(done.stdout)["end"]


def flood(net: TwoNamespaces, offered_pps: float) -> tuple[float, float]:
    """Packets per second that arrived, and percent lost."""
    rate = f"{int(offered_pps * 64 * 8)}"
    end = iperf(net, "-u", "-l", "64", "-w", "4M", "-b", rate)["sum"]
    arrived = end["packets"] - end["lost_packets"]
    return arrived / end["seconds"], end["lost_percent"]


def stream(net: TwoNamespaces) -> float:
    """Gbit/s of one TCP stream."""
    received: float = iperf(net)["sum_received"]["bits_per_second"]
    return received / 1e9


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


async def in_turns(
    process: PacketsProcess, delay: Held, measure: Callable[[], float], rounds: int
) -> tuple[list[float], list[float]]:
    """Measure plain and delayed, one after the other, so that both meet the same machine."""
    plain, delayed = [], []
    for _ in range(rounds):
        await process.set(Held())
        plain.append(await asyncio.to_thread(measure))
        await process.set(delay)
        delayed.append(await asyncio.to_thread(measure))
    return plain, delayed


def median_ratio(plain: list[float], delayed: list[float]) -> float:
    return median(b / a for a, b in zip(plain, delayed, strict=True))


async def packets_per_second(
    net: TwoNamespaces, process: PacketsProcess, delay: Held, rounds: int, report: Report
) -> None:
    lost: list[float] = []

    def pps() -> float:
        arrived, percent = flood(net, NO_LIMIT)
        lost.append(percent)
        return arrived

    plain, delayed = await in_turns(process, delay, pps, rounds)
    ratio = median_ratio(plain, delayed)
    report.row(
        "UDP 64 B, as fast as it is sent, received",
        f"{median(delayed) / 1000:.0f}k/s, {ratio:.2f} of plain",
        f"plain {median(plain) / 1000:.0f}k/s; lost {median(lost[1::2]):.1f} %",
        holds=True,
    )
    half = median(plain) / 2
    runs = [await asyncio.to_thread(flood, net, half) for _ in range(rounds)]
    arrived, percent = median(run[0] for run in runs), median(run[1] for run in runs)
    report.row(
        f"UDP 64 B, offered {half / 1000:.0f}k/s, received",
        f"{arrived / median(plain):.2f} of plain, {percent:.2f} % lost",
        ">= 0.5, 0 % lost",
        arrived >= 0.99 * half and percent == 0,
    )


async def bits_per_second(
    net: TwoNamespaces, process: PacketsProcess, delay: Held, rounds: int, report: Report
) -> None:
    before = cpu_seconds(process.pid)
    plain, delayed = await in_turns(process, delay, lambda: stream(net), rounds)
    cpu = (cpu_seconds(process.pid) - before) / (sum(delayed) * SECONDS / 8)
    report.row(
        "TCP through the delay",
        f"{median(delayed):.1f} Gbit/s, {median_ratio(plain, delayed):.2f} of plain",
        f">= 5; plain {median(plain):.1f}",
        median(delayed) >= 5,
    )
    print(f"{cpu:.2f} CPU s per GB; most memory {resident_mb(process.pid):.1f} MB")


async def main(samples: int, rounds: int) -> int:
    report = Report()
    net = TwoNamespaces()
    net.let_windows_grow()
    delay = Held(lanes=(Lane("eth0", (Rule("a", None, Impairment(delay_us=DELAY_MS * 1000)),)),))
    loss = Held(lanes=(Lane("eth0", (Rule("a", None, Impairment(loss=10)),)),))
    try:
        with tempfile.TemporaryDirectory() as directory:
            start = time.perf_counter()
            process = await PacketsProcess.start(
                net.near, Path(directory) / "packets", lease_seconds=60
            )
            started = time.perf_counter()
            await process.set(delay)
            ready = time.perf_counter()
            print(f"start {(started - start) * 1000:.1f} ms, set {(ready - started) * 1000:.1f} ms")
            await asyncio.to_thread(exactness, net, samples, report)
            await packets_per_second(net, process, delay, rounds, report)
            await bits_per_second(net, process, delay, rounds, report)
            print(f"{(await process.state()).unsent} frames lost unasked in the last lane")
            await process.set(loss)
            await asyncio.to_thread(losses, net, report)
            await process.quit()
    finally:
        net.close()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    return int(report.missed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    sys.exit(asyncio.run(main(asked.samples, asked.rounds)))
