"""stress-ng in the cgroups of targets, held and steered by `squall-node stress`."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from squall.clock import Clock
from squall.errors import TryAgain, Unsupported
from squall.injection.world.stressors import Stressor, Taken, Usage
from squall.injection.world.target import Target
from squall.linux import cgroups
from squall.linux.holder import program
from squall.linux.processes import PROC, send, started

MARK = "SQUALL_STRESSOR"
"""Environment variable of a stress-ng run of ours: the whole `Stressor`, as JSON."""
_HOLDER, _PROGRAM = "squall-node", "stress-ng"
_START_SECONDS = 5.0
_STOP_SECONDS = 2.0
"""The holder gives stress-ng one second to clean up."""
_OVERHEAD_BYTES, _OVERHEAD_PER_WORKER_BYTES = 1_000_000, 500_000
"""What stress-ng 0.15 itself takes beside the memory it was told to hold, as measured."""
# Forever, silent, and killed for good when memory runs out: stress-ng would make itself the first
# choice of the kernel, and start again.
_ALWAYS = ("--timeout", "0", "--quiet", "--oomable", "--no-oom-adjust")


@dataclass(frozen=True, slots=True)
class _Run:
    """One stress-ng of ours, seen from outside."""

    stressor: Stressor
    pid: int
    started: int
    """Clock ticks after boot."""
    holder: int
    members: tuple[int, ...]
    """All its processes."""


class LinuxStressors:
    """Runs of stress-ng on this host; nothing is remembered, the kernel is asked each time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def running(self, target: Target) -> Sequence[Stressor]:
        """List ours, by the environment of the processes in the cgroup."""
        return [run.stressor for run in await asyncio.to_thread(_runs, target)]

    async def start(self, target: Target, stressor: Stressor) -> None:
        """Start one; it outlives this process, and ends with the target's init process."""
        await asyncio.to_thread(self._start, target, stressor)

    async def stop(self, target: Target, name: str) -> None:
        """End one with all its processes, whoever of them is left."""
        for run in await asyncio.to_thread(_runs, target):
            if run.stressor.name == name:
                await asyncio.to_thread(_end, target, run)

    async def taken(self, target: Target) -> Mapping[str, Taken]:
        """Measure ours, by name."""
        runs = await asyncio.to_thread(_runs, target)
        return {
            run.stressor.name: Taken(
                cpu_seconds=sum(map(_cpu_seconds, run.members)),
                memory_bytes=sum(map(_held_bytes, run.members)),
                waited_seconds=sum(map(_waited_seconds, run.members)),
            )
            for run in runs
        }

    async def usage(self, target: Target) -> Usage:
        """Read the target's cgroups."""
        counted = cgroups.count(cgroups.of(target))
        confined = counted.cpu_seconds is not None and counted.memory_bytes is not None
        return Usage(
            cpu_seconds=counted.cpu_seconds or 0.0,
            memory_bytes=counted.memory_bytes or 0,
            cpu_limit=counted.cpu_limit,
            memory_limit=counted.memory_limit,
            oom_kills=counted.oom_kills,
            at=self._clock.boottime(),
            confined=confined,
        )

    def _start(self, target: Target, stressor: Stressor) -> None:
        cgroups.of(target)  # raises TargetGone with the better words
        try:
            holder = subprocess.run(
                self._command(target, stressor),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                env={**os.environ, MARK: json.dumps(asdict(stressor))},
                timeout=_START_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as slow:
            message = f"{target.id}: stress-ng did not start within {_START_SECONDS:g} s"
            raise TryAgain(f"{message}; is its cgroup frozen?") from slow
        if holder.returncode == 0:
            return
        said = holder.stderr.decode(errors="replace").strip()
        if shutil.which("stress-ng") is None:
            raise Unsupported(f"{target.id}: stress-ng is not installed on this node; install it")
        if "oom_score_adj" in said:
            raise Unsupported(
                f"{target.id}: oomScoreAdj {stressor.oom_score_adj} is below the agent's own; "
                "that takes CAP_SYS_RESOURCE: grant it, or leave oomScoreAdj out"
            )
        raise TryAgain(f"{target.id}: {said}")

    @staticmethod
    def _command(target: Target, stressor: Stressor) -> Sequence[str]:
        command = [program(), "stress", "--pid", str(target.pid)]
        command += ["--started", str(target.started)]
        if stressor.oom_score_adj:
            command += ["--oom-score-adj", str(stressor.oom_score_adj)]
        if stressor.cpu_percent is not None:
            command += ["--cpu", str(stressor.cpu_percent)]
        command += ["--", "stress-ng", *_ALWAYS, *stressor.arguments]
        if stressor.memory_bytes is not None:
            command += ["--vm-bytes", str(_to_map(stressor))]
        return command


def _to_map(stressor: Stressor) -> int:
    """Bytes to map, so that with what stress-ng itself needs the stressor holds what it shall."""
    overhead = _OVERHEAD_BYTES + _OVERHEAD_PER_WORKER_BYTES * stressor.workers
    least = os.sysconf("SC_PAGE_SIZE") * stressor.workers
    return max(least, (stressor.memory_bytes or 0) - overhead)


def _runs(target: Target) -> list[_Run]:
    """Find ours in the cgroup of a target.

    Raises:
        TargetGone: its init process is no more; what was in its cgroup ends with it.
    """
    # Any hierarchy will do: stress-ng is put into all of them.
    pids = cgroups.members(next(iter(cgroups.of(target).values())))
    groups = {pid: _group(pid) for pid in pids}
    found = []
    for pid in pids:
        stressor, ticks = _mark(pid), started(pid)
        # Only the first process is asked; stress-ng's workers overwrite their environment. One
        # that is about to become stress-ng, maybe in a frozen cgroup, is none of its group yet.
        first = groups[pid] == pid or _comm(pid) == _HOLDER
        if stressor and ticks is not None and first:
            members = (pid, *(other for other, group in groups.items() if group == pid != other))
            found.append(_Run(stressor, pid, ticks, _parent(pid), members))
    return found


def _mark(pid: int) -> Stressor | None:
    try:
        environment = (PROC / str(pid) / "environ").read_bytes()
    except PermissionError as refused:
        if not _comm(pid).startswith((_PROGRAM, _HOLDER)):
            return None
        # Whoever cannot see what runs would start it again and again, and never stop it.
        what = f"whose {_PROGRAM} process {pid} is, cannot be read"
        raise Unsupported(
            f"{what}; grant CAP_SYS_PTRACE and CAP_DAC_OVERRIDE to the agent"
        ) from refused
    except OSError:
        return None
    prefix = f"{MARK}=".encode()
    for variable in environment.split(b"\0"):
        if variable.startswith(prefix):
            fields = json.loads(variable.removeprefix(prefix))
            return Stressor(**{**fields, "arguments": tuple(fields["arguments"])})
    return None


def _end(target: Target, run: _Run) -> None:
    """Ask the holder, which cleans up; then kill what is left."""
    if _comm(run.holder).startswith(_HOLDER[:15]):
        ticks = started(run.holder)
        if ticks is not None:
            send(run.holder, ticks, signal.SIGTERM)
    if _wait(run):
        return
    send(run.pid, run.started, signal.SIGKILL)
    for pid in run.members:
        if _group(pid) == run.pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    if not _wait(run):
        raise TryAgain(f"{target.id}: stress-ng {run.pid} does not end; is its cgroup frozen?")


def _wait(run: _Run) -> bool:
    until = time.monotonic() + _STOP_SECONDS
    while any(_runs_in(run)):
        if time.monotonic() > until:
            return False
        time.sleep(0.005)  # nothing tells when all processes of a group are gone
    return True


def _runs_in(run: _Run) -> Iterator[int]:
    groups = {pid: _group(pid) for pid in run.members if _state(pid) not in "ZX"}
    return (pid for pid, group in groups.items() if run.pid in {pid, group})


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on; empty when there is no such process."""
    with suppress(OSError):
        return (PROC / str(pid) / "stat").read_text().rpartition(") ")[2].split()
    return []


def _state(pid: int) -> str:
    return next(iter(_stat(pid)), "X")


def _parent(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[1]) if fields else 0


def _group(pid: int) -> int:
    fields = _stat(pid)
    return int(fields[2]) if fields else 0


def _comm(pid: int) -> str:
    with suppress(OSError):
        return (PROC / str(pid) / "comm").read_text().strip()
    return ""


def _cpu_seconds(pid: int) -> float:
    """Read the clock of a process; clock_getcpuclockid(3) makes its number this way."""
    with suppress(OSError):
        return time.clock_gettime((~pid << 3) | 2)
    return 0.0


def _waited_seconds(pid: int) -> float:
    """Read the run delay of a process; /proc/PID/schedstat, second field, in nanoseconds."""
    with suppress(OSError, IndexError):
        return int((PROC / str(pid) / "schedstat").read_text().split()[1]) / 1e9
    return 0.0


def _held_bytes(pid: int) -> int:
    held = 0
    with suppress(OSError):
        for line in Path(PROC, str(pid), "status").read_text().splitlines():
            if line.startswith(("RssAnon:", "RssShmem:")):
                held += int(line.split()[1]) * 1024
    return held
