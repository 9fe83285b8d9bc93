"""What this host can do to containers, found out on a throw-away one."""

import asyncio
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from types import MappingProxyType

from squall.errors import SquallError
from squall.injection.world.stressors import Stressor
from squall.injection.world.target import Target
from squall.linux import cgroups
from squall.linux.clock import SystemClock
from squall.linux.containers import LinuxContainers
from squall.linux.processes import PROC, started
from squall.linux.sandbox_cgroups import SandboxCgroups, hierarchies
from squall.linux.stressors import LinuxStressors
from squall.node.doctor import Ability, Capability

NOBODY = 65534
"""User and group that stress-ng runs as."""
_PREFIX = "squall-trial-"
_LONG_OVER_SECONDS = 60.0
"""No trial lasts so long, whoever makes it and wherever its process is counted."""
TRIAL_SECONDS = 10.0
"""For one trial; each takes tens of milliseconds."""


async def _freeze() -> Capability:
    name, containers = "pod:freeze", LinuxContainers()
    async with _container() as target:
        await containers.freeze(target)
        stood = await containers.frozen(target)
        await containers.thaw(target)
        hierarchies = cgroups.of(target)
    if not stood:
        return Capability(name, Ability.MISSING, why="a freeze was accepted, but nothing froze")
    if "freezer" in hierarchies:
        return Capability(name, Ability.OK, "freezer of cgroup v1")
    if cgroups.UNIFIED in hierarchies:
        return Capability(name, Ability.OK, "freezer of cgroup v2")
    why = "no freezer for containers; every process is sent SIGSTOP instead, which it can notice"
    return Capability(name, Ability.FALLBACK, "SIGSTOP", why)


async def _cpu() -> Capability:
    return await _stress("stress:cpu", ("--cpu", "1"), "cpuacct")


async def _memory() -> Capability:
    return await _stress("stress:memory", ("--vm", "1", "--vm-bytes", "8m"), "memory")


async def _stress(name: str, arguments: tuple[str, ...], controller: str) -> Capability:
    if shutil.which("stress-ng") is None:
        why = "stress-ng is not installed; install it (Debian: apt install stress-ng)"
        return Capability(name, Ability.MISSING, why=why)
    if refused := await _helpless():
        return Capability(name, Ability.MISSING, why=refused)
    stressors = LinuxStressors(SystemClock())
    async with _container() as target:
        try:
            await stressors.start(target, Stressor("trial", arguments))
            runs = await stressors.running(target)
        finally:
            await stressors.stop(target, "trial")
        hierarchies = cgroups.of(target)
        counted = cgroups.count(hierarchies)
    if not runs:
        return Capability(name, Ability.MISSING, why="stress-ng started, and ended at once")
    number = counted.cpu_seconds if controller == "cpuacct" else counted.memory_bytes
    if number is None:
        why = f"no {controller} controller for containers: load acts, but on the whole host"
        return Capability(name, Ability.FALLBACK, "stress-ng, not confined", why)
    version = "v1" if controller in hierarchies else "v2"
    return Capability(name, Ability.OK, f"stress-ng in cgroup {version}")


async def _helpless() -> str:
    """Say why we could not end what runs as nobody: tried on what ends by itself, not on a load."""
    try:
        other = await asyncio.create_subprocess_exec(
            "cat", stdin=asyncio.subprocess.PIPE, user=NOBODY, group=NOBODY, extra_groups=()
        )
    except OSError as refused:
        return f"nothing can run as nobody ({refused.strerror}); grant CAP_SETUID and CAP_SETGID"
    if other.stdin is None:
        raise AssertionError("it is a pipe")
    try:
        os.kill(other.pid, 0)
    except PermissionError:
        return "processes of other users cannot be ended; grant CAP_KILL"
    finally:
        other.stdin.close()
        await other.wait()
    return ""


def _sweep() -> None:
    """Remove what trials have left whose process was killed in the middle."""
    for root in hierarchies((PROC / "self/mountinfo").read_text()):
        for left in root.glob(f"{_PREFIX}*"):
            pid = left.name.removeprefix(_PREFIX).partition("-")[0]
            with suppress(OSError):
                old = time.time() - left.stat().st_mtime > _LONG_OVER_SECONDS
                if old and pid.isdigit() and not (PROC / pid).exists():
                    SandboxCgroups(left.name).remove_all()


@asynccontextmanager
async def _container() -> AsyncIterator[Target]:
    """Give a process that sleeps in cgroups of its own; both end with the trial."""
    await asyncio.to_thread(_sweep)
    made = SandboxCgroups(f"{_PREFIX}{os.getpid()}-{secrets.token_hex(4)}")
    id_ = secrets.token_hex(32)
    sleeper = await asyncio.create_subprocess_exec("sleep", f"{TRIAL_SECONDS * 2:g}")
    try:
        for path in await asyncio.to_thread(made.create, id_):
            (path / "cgroup.procs").write_text(str(sleeper.pid))
        ticks = started(sleeper.pid) or 0
        yield Target("trial/trial/trial", "trial", id_, sleeper.pid, ticks)
    finally:
        sleeper.kill()
        await sleeper.wait()
        await asyncio.to_thread(made.remove_all)


def bounded(
    name: str, trial: Callable[[], Awaitable[Capability]]
) -> Callable[[], Awaitable[Capability]]:
    """Make a trial that ends in time and never raises."""

    async def tried() -> Capability:
        try:
            async with asyncio.timeout(TRIAL_SECONDS):
                return await trial()
        except SquallError as refused:
            return Capability(name, Ability.MISSING, why=str(refused))
        except (OSError, TimeoutError) as failed:
            return Capability(name, Ability.MISSING, why=f"{type(failed).__name__}: {failed}")

    return tried


CONTAINER_TRIALS: Mapping[str, Callable[[], Awaitable[Capability]]] = MappingProxyType(
    {
        name: bounded(name, trial)
        for name, trial in (
            ("pod:freeze", _freeze),
            ("stress:cpu", _cpu),
            ("stress:memory", _memory),
        )
    }
)
"""Trials by the name of the need; each gives what came of it, and never raises."""
