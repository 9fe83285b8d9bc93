"""A stack of faults on one target: every kind, what it must feel of each, and what it feels."""

import asyncio
import json
import socket
import sys
import time
from collections.abc import Callable, Mapping
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import yaml

from squall.api.cluster import Object
from testbed import stacked_program as program
from testbed.stacked_program import INCOMING, TRUE_ADDRESS

SLACK_MS = 20.0
"""How much later than asked is still on time; less than the smallest delay, so that one that is
there twice is found."""
ALL_DELAY_MS = 25
_APART_MS = 80.0
"""How far apart three packets come where only 20 kB may leave in a second."""
_WELL = 200

_EXPERIMENTS = """
all delay: {kind: NetworkChaos, spec: {action: delay, delay: {latency: 25ms},
    target: {mode: all, selector: {labelSelectors: {app: peer}}}}}
delay: {kind: NetworkChaos, spec: {action: delay, delay: {latency: 40ms},
    externalTargets: ["PEER:7000", "PEER:7001"]}}
other delay: {kind: NetworkChaos, spec: {action: delay, delay: {latency: 60ms},
    externalTargets: ["PEER:7001", "PEER:7002"]}}
loss: {kind: NetworkChaos, spec: {action: loss, loss: {loss: "100"},
    externalTargets: ["PEER:7003"]}}
cut: {kind: NetworkChaos, spec: {action: partition, externalTargets: ["PEER:7004"]}}
limit: {kind: NetworkChaos, spec: {action: bandwidth, externalTargets: ["PEER:7005"],
    bandwidth: {rate: 20kbps, limit: 100000, buffer: 1600}}}
processor: {kind: StressChaos, spec: {stressors: {cpu: {workers: 1, load: 10}}}}
memory: {kind: StressChaos, spec: {stressors: {memory: {workers: 1, size: 16MB}}}}
slow reads: {kind: IOChaos, spec: {action: latency, volumePath: SLOW, methods: [read],
    delay: 40ms}}
slow syncs: {kind: IOChaos, spec: {action: latency, volumePath: SLOW, methods: [fsync],
    delay: 60ms}}
permissions: {kind: IOChaos, spec: {action: attrOverride, volumePath: SLOW, attr: {perm: 72}}}
failing writes: {kind: IOChaos, spec: {action: fault, volumePath: BROKEN, methods: [write],
    errno: 28}}
slow pages: {kind: HTTPChaos, spec: {target: Request, port: 8080, path: /slow, delay: 80ms}}
refused pages: {kind: HTTPChaos, spec: {target: Response, port: 8080, path: /refused,
    replace: {code: 503}}}
aborted pages: {kind: HTTPChaos, spec: {target: Request, port: 8081, abort: true}}
fetched pages: {kind: HTTPChaos, spec: {target: Response, port: 8090, outgoing: true,
    replace: {code: 404}}}
failing names: {kind: DNSChaos, spec: {action: error, patterns: ["*.gone.example"]}}
misleading names: {kind: DNSChaos, spec: {action: random, patterns: ["*.lost.example"],
    addresses: [198.51.100.9]}}
"""
NAMES = tuple(yaml.safe_load(_EXPERIMENTS))
"""Every experiment of the stack."""
UNPROVEN = ("limit", "loss")
"""What is proven only by more traffic than looking is."""


def kind_of(name: str) -> str:
    """Name the kind of an experiment."""
    kind: str = yaml.safe_load(_EXPERIMENTS)[name]["kind"]
    return kind


class Stack:
    """The folders, the command and the experiments of one target, and what it feels."""

    def __init__(self, folder: Path) -> None:
        self.slow, self.broken = folder / "slow", folder / "broken"
        for volume in (self.slow, self.broken):
            volume.mkdir(parents=True)
            (volume / "file").write_text("content")
        self._listening = folder / "felt"
        self.peer_address = self.address = ""

    def peer_command(self) -> tuple[str, ...]:
        """What the other one runs."""
        return sys.executable, program.__file__, "peer"

    def command(self) -> tuple[str, ...]:
        """What the target runs, once the other one's address is known."""
        volumes = str(self.slow), str(self.broken)
        where = str(self._listening)
        return sys.executable, program.__file__, "web", where, *volumes, self.peer_address

    def experiment(self, name: str) -> Object:
        """Give one as it is applied."""
        text = _EXPERIMENTS.replace("PEER", self.peer_address)
        text = text.replace("SLOW", str(self.slow)).replace("BROKEN", str(self.broken))
        asked = yaml.safe_load(text)[name]
        selector = {"mode": "all", "selector": {"labelSelectors": {"app": "web"}}}
        return {
            "apiVersion": "chaos-mesh.org/v1alpha1",
            "kind": asked["kind"],
            "metadata": {"name": name.replace(" ", "-"), "namespace": "default"},
            "spec": {**selector, **asked["spec"]},
        }

    async def felt(self, company: Mapping[int, str]) -> set[str]:
        """Look from inside, from outside and at the target's cgroups; says what acts, once.

        Args:
            company: the processes in the target's cgroups beside its own, by their id.

        Raises:
            AssertionError: something is felt that no experiment asks for.
        """
        inside, outside = await asyncio.gather(
            asyncio.to_thread(self._inside), asyncio.to_thread(self._outside)
        )
        others = [name for name in company.values() if not name.startswith("stress-ng")]
        _must(not others, f"counted into the target: {others}")
        seen = {**inside, **outside, "workers": " ".join(company.values())}
        try:
            return _read(seen)
        except TypeError as unlike:  # a look has failed, and says how
            raise AssertionError(f"{seen}") from unlike

    def _inside(self) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(20)
            asking.connect(str(self._listening))
            with asking.makefile("rw") as lines:
                lines.write("look\n")
                lines.flush()
                told: dict[str, Any] = json.loads(lines.readline())
        return told

    def _outside(self) -> dict[str, Any]:
        first, second = INCOMING
        asked = {"slow page": (first, "/slow"), "refused page": (first, "/refused")}
        asked |= {"plain page": (first, "/"), "other port": (second, "/")}
        return {name: _fetched(self.address, *where) for name, where in asked.items()}


def _fetched(address: str, port: int, path: str) -> tuple[int, float]:
    """Code of a page, 0 where there is none, and how long it took at best."""
    found = []
    for _ in range(program.TRIES):
        client = HTTPConnection(address, port, timeout=5)
        began = time.perf_counter()
        try:
            client.request("GET", path)
            answer = client.getresponse()
            answer.read()
        except (OSError, HTTPException):
            return 0, 0.0
        finally:
            client.close()
        found.append((time.perf_counter() - began) * 1000)
    return answer.status, min(found)


def _read(seen: Mapping[str, Any]) -> set[str]:
    """Say which experiments explain what was seen.

    Raises:
        AssertionError: none do.
    """
    common = _all_delay(seen)
    first = _held("delayed", seen["delayed"], common, 40)
    second = _held("otherwise delayed", seen["otherwise delayed"], common, 60)
    _held("twice delayed", seen["twice delayed"], common + 40 * first + 60 * second)
    _must(seen["plain page"][0] == seen["slow page"][0] == _WELL, seen)
    _must(seen["page over kept"][0] == seen["page"][0], seen)
    answers = {
        "all delay": common > 0,
        "delay": first,
        "other delay": second,
        "loss": seen["lost"] is None,
        "cut": seen["cut"] is None,
        "limit": _one_of(seen["limited"] > _APART_MS, no=False, yes=True),
        "processor": "stress-ng-cpu" in seen["workers"],
        "memory": "stress-ng-vm" in seen["workers"],
        "slow reads": _held("read", seen["read"], 0, 40),
        "slow syncs": _held("sync", seen["sync"], 0, 60),
        "permissions": _one_of(seen["permissions"], 0o644, 0o110),
        "failing writes": _one_of(seen["write"], 0, 28),
        "slow pages": _held("slow page", seen["slow page"][1], 0, 80),
        "refused pages": _one_of(seen["refused page"][0], _WELL, 503),
        "aborted pages": _one_of(seen["other port"][0], _WELL, 0),
        "fetched pages": _one_of(seen["page"][0], _WELL, 404),
        "failing names": _one_of(seen["failing name"][0], TRUE_ADDRESS, "code 2"),
        "misleading names": _one_of(seen["misled name"][0], TRUE_ADDRESS, "198.51.100.9"),
    }
    return {name for name, yes in answers.items() if yes}


def _all_delay(seen: Mapping[str, Any]) -> int:
    """Read what every packet to the other one is held: once, whatever else it passes."""
    _must(seen["other name"][0] == TRUE_ADDRESS, seen)
    common = ALL_DELAY_MS * _held("other name", seen["other name"][1], 0, ALL_DELAY_MS)
    # A new connection is one packet there, its request another; nothing is doubled by a proxy.
    _held("page", seen["page"][1], 2 * common)
    return common


def _held(what: str, ms: float, always: int, more: int = 0) -> bool:
    """Is it as late as `always` and `more` together, or as `always` alone?"""
    late = more > 0 and always + more <= ms < always + more + SLACK_MS
    _must(late or always <= ms < always + SLACK_MS, f"{what}: {ms} ms, not {always} or {more} more")
    return late


def _one_of(what: object, no: object, yes: object) -> bool:
    _must(what in (no, yes), f"{what!r} is neither {no!r} nor {yes!r}")
    return what == yes


def _must(holds: bool, what: object) -> None:
    if not holds:
        raise AssertionError(what)


async def settled(look: Callable[[], Any], wanted: set[str], seconds: float = 20.0) -> None:
    """Wait until exactly what is wanted is felt.

    Raises:
        AssertionError: it never was; says what was felt instead.
    """
    ends = time.monotonic() + seconds
    while True:
        try:
            felt, strange = await look(), ""
        except (AssertionError, OSError) as unexplained:
            felt, strange = None, f"{type(unexplained).__name__}: {unexplained}"
        if felt == wanted:
            return
        if time.monotonic() > ends:
            less, more = (wanted - felt, felt - wanted) if felt is not None else ("?", "?")
            raise AssertionError(f"missing {less}, too much {more}; {strange}")
        await asyncio.sleep(0.05)
