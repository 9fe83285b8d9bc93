"""How fast and how exact the HTTP proxy is, beside HAProxy in the same place.

    python bench/http_proxy.py [--seconds 5] [--rounds 3] [--requests 1000000]

Needs root, haproxy, nginx, wrk and squall-node. In one network namespace stand nginx with a reply
of 31 bytes, one-threaded HAProxy in front of it, and `squall-node http` with a rule that matches no
request; wrk with 32 connections stands in another. They take turns, so all meet the same machine.
Exit status 1 when a bound is missed.
"""

import argparse
import asyncio
import contextlib
import http.client
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from squall.linux.holder import Holder
from squall.linux.tests.http_servers import dialled, ordered, rule
from squall.linux.tests.two_namespaces import TwoNamespaces

TARGET = "10.9.0.1"
DIRECT, PROXIED, HAPROXY, ONE_BY_ONE = 80, 8080, 8081, 8082
CONNECTIONS = 32
REPLY = "hello, this is thirty-one bytes"
DELAY_MS = 10
SLOW = "/slow"

NGINX = """
worker_processes 1; daemon off; pid {folder}/nginx.pid; error_log stderr crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000000;
  server {{ listen {direct}; listen {proxied}; location / {{ return 200 "{reply}"; }} }}
}}
"""

HAPROXY_CONFIG = """
global
  nbthread 1
defaults
  mode http
  timeout client 60s
  timeout server 60s
  timeout connect 5s
  http-reuse always
frontend clients
  bind :{haproxy}
  default_backend servers
backend servers
  server one 127.0.0.1:{direct}
frontend one_by_one
  bind :{one_by_one}
  default_backend servers_one_by_one
backend servers_one_by_one
  http-reuse never
  option httpclose
  server one 127.0.0.1:{direct}
"""


@dataclass(frozen=True)
class Load:
    """What wrk saw."""

    per_second: float
    requests: int
    failed: int


class Report:
    def __init__(self) -> None:
        self.missed = False

    def row(self, what: str, value: str, bound: str, *, holds: bool) -> None:
        self.missed |= not holds
        print(f"{what:<44} {value:>26}   {bound:<34} {'ok' if holds else 'MISSED'}", flush=True)


def load(net: TwoNamespaces, port: int, seconds: float, *headers: str) -> Load:
    inside = ("nsenter", f"--net={net.far}")
    more = [word for header in headers for word in ("-H", header)]
    url = f"http://{TARGET}:{port}/"
    wrk = ("wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:.0f}s", *more, url)
    said = subprocess.run((*inside, *wrk), capture_output=True, text=True, check=True).stdout
    failed = sum(int(count) for count in re.findall(r"(?:connect|read|write|timeout) (\d+)", said))
    failed += sum(int(count) for count in re.findall(r"Non-2xx or 3xx responses: (\d+)", said))
    requests = re.search(r"(\d+) requests in", said)
    per_second = re.search(r"Requests/sec:\s+([\d.]+)", said)
    assert requests, said
    assert per_second, said
    return Load(float(per_second[1]), int(requests[1]), failed)


@contextlib.contextmanager
def servers(net: TwoNamespaces, folder: Path) -> Iterator[int]:
    """Start them; gives the process id of HAProxy."""
    words = {"folder": folder, "reply": REPLY, "direct": DIRECT, "proxied": PROXIED}
    (folder / "nginx.conf").write_text(NGINX.format(**words))
    (folder / "haproxy.cfg").write_text(
        HAPROXY_CONFIG.format(haproxy=HAPROXY, direct=DIRECT, one_by_one=ONE_BY_ONE)
    )
    inside = ("nsenter", f"--net={net.near}")
    with contextlib.ExitStack() as stack:
        for command in (
            ("nginx", "-c", str(folder / "nginx.conf")),
            ("haproxy", "-db", "-q", "-f", str(folder / "haproxy.cfg")),
        ):
            started = subprocess.Popen((*inside, *command))
            stack.callback(started.wait)
            stack.callback(started.terminate)
        deadline = time.monotonic() + 10
        for port in (DIRECT, PROXIED, HAPROXY, ONE_BY_ONE):
            while True:
                with contextlib.suppress(OSError), dialled(net.far, TARGET, port):
                    break
                assert time.monotonic() < deadline, f"nobody listens on {port}"
        yield started.pid


def latencies(net: TwoNamespaces, count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of delayed requests; and of a bare sleep as long, then a plain one; in turns.

    A plain request alone is no measure: it runs on what is awake and in the caches, and after ten
    idle milliseconds nothing is. On a busy machine whoever has slept waits for a processor, too.
    """
    client = http.client.HTTPConnection(TARGET, PROXIED, timeout=5)
    client.sock = dialled(net.far, TARGET, PROXIED)

    def took_ms(path: str, sleep_seconds: float) -> float:
        start = time.perf_counter()
        time.sleep(sleep_seconds)
        client.request("GET", path)
        client.getresponse().read()
        return (time.perf_counter() - start) * 1000

    slowed, slept = [], []
    for _ in range(count):
        slept.append(took_ms("/", DELAY_MS / 1000))
        slowed.append(took_ms(SLOW, 0))
    client.close()
    return slowed, slept


def processor_seconds(pid: int) -> float:
    """Of all its threads: what it takes, however busy the machine is with other things."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


async def measure(
    net: TwoNamespaces, proxy: Holder, haproxy_pid: int, options: Any, report: Report
) -> None:
    never = rule(path="/never", port=PROXIED)
    await ordered(proxy, never)
    ratios, costs, sent, failed = [], [], 0, 0
    for _ in range(options.rounds):
        seen, cost = [], []
        for port, pid in ((DIRECT, proxy.pid), (HAPROXY, haproxy_pid), (PROXIED, proxy.pid)):
            before = processor_seconds(pid)
            seen.append(await asyncio.to_thread(load, net, port, options.seconds))
            cost.append((processor_seconds(pid) - before) / seen[-1].requests)
        direct, haproxy, ours = seen
        ratios.append(ours.per_second / haproxy.per_second)
        costs.append(cost[2] / cost[1])
        sent, failed = sent + ours.requests, failed + ours.failed
        print(
            f"  direct {direct.per_second:,.0f}/s, HAProxy {haproxy.per_second:,.0f}/s, "
            f"squall {ours.per_second:,.0f}/s",
            flush=True,
        )
    ratio = statistics.median(ratios)
    report.row("requests/s, of HAProxy's", f"{ratio:.2f}", ">= 0.80", holds=ratio >= 0.8)
    dear = statistics.median(costs)
    report.row("processor time of one, of HAProxy's", f"{dear:.2f}", "<= 1.25", holds=dear <= 1.25)
    # Each of our connections has one of its own to the server, so that this sees its client.
    closing = []
    for _ in range(options.rounds):
        pair: list[Load] = [
            await asyncio.to_thread(load, net, port, options.seconds, "Connection: close")
            for port in (ONE_BY_ONE, PROXIED)
        ]
        closing.append(pair[1].per_second / pair[0].per_second)
    ratio = statistics.median(closing)
    what = "connections/s, of HAProxy's without reuse"
    report.row(what, f"{ratio:.2f}", ">= 0.50", holds=ratio >= 0.5)
    while sent < options.requests:
        more = await asyncio.to_thread(load, net, PROXIED, options.seconds)
        sent, failed = sent + more.requests, failed + more.failed
    report.row(f"failed of {sent:,} requests", str(failed), "0", holds=failed == 0)

    await ordered(proxy, never, rule(path=SLOW, port=PROXIED, delay_us=DELAY_MS * 1000))
    slowed, slept = await asyncio.to_thread(latencies, net, options.samples)
    for nth in (1, 5):  # tenths: without those that had to wait for a processor, and the median
        delayed, bare = (statistics.quantiles(taken, n=10)[nth - 1] for taken in (slowed, slept))
        report.row(
            f"a {DELAY_MS} ms delay, beside a bare sleep, p{nth}0",
            f"{delayed - bare:+.3f} ms ({delayed / bare:.2f})",
            "<= 0.5 ms",
            holds=delayed - bare <= 0.5,
        )
    resident = resident_mib(proxy.pid)
    report.row("most memory resident", f"{resident:.1f} MiB", "<= 20 MiB", holds=resident <= 20)


async def run(options: Any) -> int:
    missing = [name for name in ("haproxy", "nginx", "wrk") if shutil.which(name) is None]
    if missing:
        print(
            f"not installed: {' '.join(missing)}; apt-get install haproxy nginx-light wrk",
            file=sys.stderr,
        )
        return 1
    report = Report()
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(TwoNamespaces()) as net,
        servers(net, Path(folder)) as haproxy_pid,
    ):
        path = Path(folder) / "http"
        proxy = await Holder.begin("http", {"netns": net.near}, path, lease_seconds=60)
        try:
            await measure(net, proxy, haproxy_pid, options, report)
        finally:
            await proxy.quit()
    return int(report.missed)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--samples", type=int, default=300)
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
