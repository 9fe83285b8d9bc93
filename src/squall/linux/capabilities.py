"""What this host can do, found out by doing it in namespaces that end with the trial."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from functools import partial

from squall.errors import SquallError
from squall.injection.world.network import Cut, Impairment, NetworkState, Peers, Shape
from squall.injection.world.target import Target
from squall.linux import throw_away
from squall.linux.http_trial import proxied
from squall.linux.lanes import Lanes
from squall.linux.name_trial import answered
from squall.linux.network import LinuxNetwork
from squall.linux.processes import PROC
from squall.linux.qdiscs import Qdiscs
from squall.linux.shaping import Shaping
from squall.node.doctor import Ability, Capability

TRIAL_SECONDS = 10.0
"""For one trial; each takes tens of milliseconds."""

_DEVICE = "squall-trial"
_PEER = "192.0.2.2"
"""TEST-NET-1: nobody's address."""


class LinuxCapabilities:
    """Tries the means of every fault kind.

    Args:
        more: trials of other rooms' needs, by name; each returns what came of it.
    """

    def __init__(
        self, more: Mapping[str, Callable[[], Awaitable[Capability]]] | None = None
    ) -> None:
        self._trials: dict[str, Callable[[], Awaitable[Capability]]] = {
            "dns:answers": partial(_inside, "dns:answers", answered),
            "http:proxy": partial(_inside, "http:proxy", proxied),
            "network:partition": _partition,
            "network:shape": _shape,
            **(more or {}),
        }

    async def examine(self, names: Iterable[str]) -> Mapping[str, Capability]:
        """Try each; a name that nobody here knows is absent."""
        return {name: await self._trials[name]() for name in names if name in self._trials}


async def shaping() -> Shaping:
    """Choose the path of shapes: the kernel's own qdiscs where they work, else lanes."""
    return Lanes() if await _failure(Qdiscs(), _SHAPED) else Qdiscs()


_CUT = NetworkState(cuts=(Cut("trial/.", "out", (Peers(f"{_PEER}/32"),)),))
_SHAPED = NetworkState(
    shapes=(
        Shape(
            "trial/.",
            (Peers(f"{_PEER}/32"),),
            Impairment(
                delay_us=1000, bandwidth_rate=10**6, bandwidth_buffer=10**4, bandwidth_limit=10**5
            ),
            _DEVICE,
        ),
    )
)


async def _inside(name: str, trial: Callable[[str, Target], Awaitable[Capability]]) -> Capability:
    """Try something in a target that ends with the trial."""
    if refused := _blind():
        return Capability(name, Ability.MISSING, "", refused)
    try:
        async with asyncio.timeout(TRIAL_SECONDS), _target() as target:
            return await trial(name, target)
    except SquallError as refused_it:
        return Capability(name, Ability.MISSING, "", str(refused_it))
    except (OSError, TimeoutError) as failed:
        return Capability(name, Ability.MISSING, "", f"{type(failed).__name__}: {failed}")


async def _partition() -> Capability:
    failed = await _failure(Lanes(), _CUT)
    path = "nftables, table inet with flags owner"
    if failed:
        return Capability("network:partition", Ability.MISSING, "", failed)
    return Capability("network:partition", Ability.OK, path)


async def _shape() -> Capability:
    name = "network:shape"
    without_netem = await _failure(Qdiscs(), _SHAPED)
    if not without_netem:
        return Capability(name, Ability.OK, "sch_netem and sch_tbf")
    without_lanes = await _failure(Lanes(), _SHAPED)
    if without_lanes:
        why = f"sch_netem: {without_netem}; squall-node packets: {without_lanes}"
        return Capability(name, Ability.MISSING, "", why)
    why = f"{without_netem}; a packet scheduler in user space does it instead"
    return Capability(name, Ability.FALLBACK, "squall-node packets", why)


async def _failure(path: Shaping, state: NetworkState) -> str:
    """Put a state in force in a throw-away namespace; returns why that failed, or nothing."""
    if refused := _blind():
        return refused
    with throw_away.folder() as run:
        network = LinuxNetwork(run, lease_seconds=TRIAL_SECONDS, shaping=path)
        try:
            async with asyncio.timeout(TRIAL_SECONDS), _target() as target:
                try:
                    await network.apply(target, state)
                    in_force = await network.state(target)
                finally:
                    await network.end_all()
        except SquallError as refused:
            return str(refused)
        except (OSError, TimeoutError) as failed:
            return f"{type(failed).__name__}: {failed}"
    return "" if in_force == state else "it was accepted, but is not in force"


def _blind() -> str:
    """Say why namespaces of others cannot be seen; seeing that of our own child proves nothing.

    A container may have rights that we have not. So has the kernel's own thread, which is there on
    every host.
    """
    thread = PROC / "2"
    try:
        if (thread / "comm").read_text().strip() == "kthreadd":
            (thread / "ns/net").stat()
    except PermissionError as refused:
        return f"{thread}/ns/net: {refused.strerror}; grant CAP_SYS_PTRACE"
    except OSError:
        pass  # not the process table of a host: whoever is seen there is no less than we are
    return ""


@contextlib.asynccontextmanager
async def _target() -> AsyncIterator[Target]:
    """A process that waits in a network namespace of its own, with one device."""
    async with throw_away.process("--net") as target:
        enter = ("nsenter", f"--net=/proc/{target.pid}/ns/net", "--", "ip", "link")
        await _run(*enter, "add", _DEVICE, "type", "veth", "peer", "name", f"{_DEVICE}1")
        await _run(*enter, "set", _DEVICE, "up")
        await _run(*enter, "set", "lo", "up")
        yield target


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    if process.returncode:
        raise OSError(f"{' '.join(command)}: {said.decode().strip()}")
