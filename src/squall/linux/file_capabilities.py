"""What this host can do to files, found out in a mount namespace that ends with the trial."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from errno import EIO
from pathlib import Path
from types import MappingProxyType

from squall.injection.world.files import FileRule, FilesState, Volume
from squall.injection.world.target import Target
from squall.linux.container_capabilities import TRIAL_SECONDS, bounded
from squall.linux.files import LinuxFiles
from squall.linux.processes import started
from squall.node.doctor import Ability, Capability

VISIT_SECONDS = 2.0


async def _filter() -> Capability:
    name = "files:filter"
    with tempfile.TemporaryDirectory(prefix="squall-trial-") as made:
        folder = Path(made)
        volume = folder / "volume"
        volume.mkdir()
        (volume / "file").write_text("true")
        rule = FileRule("trial/.", str(volume), methods=("read",), errno=EIO)
        wanted = FilesState((Volume(str(volume), (rule,)),))
        files = LinuxFiles(folder / "run", lease_seconds=TRIAL_SECONDS)
        try:
            async with _target() as target:
                await files.apply(target, wanted)
                in_force = await files.state(target)
                felt = await files.visit(
                    target, str(volume), "", ("read",), within_seconds=VISIT_SECONDS
                )
                await files.apply(target, FilesState())
                after = await files.visit(
                    target, str(volume), "", ("read",), within_seconds=VISIT_SECONDS
                )
        finally:
            await files.end_all()
    if in_force != wanted or [access.errno for access in felt.accesses] != [EIO]:
        return Capability(name, Ability.MISSING, why="it was accepted, but is not felt")
    if [access.errno for access in after.accesses] != [0]:
        return Capability(name, Ability.MISSING, why="it could not be taken back")
    return Capability(name, Ability.OK, "FUSE, a mount over the volume in the container alone")


@contextlib.asynccontextmanager
async def _target() -> AsyncIterator[Target]:
    """A process that waits in a mount namespace of its own."""
    waiting = await asyncio.create_subprocess_exec(
        *("unshare", "--mount", "--propagation", "private", "--", "cat"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    if waiting.stdin is None or waiting.stdout is None or waiting.stderr is None:
        raise AssertionError("all are pipes")
    try:
        waiting.stdin.write(b"\n")
        if not await waiting.stdout.readline():  # else an echo: it has got its namespace and runs
            said = (await waiting.stderr.read()).decode().strip()
            raise PermissionError(f"no mount namespace can be made ({said}); grant CAP_SYS_ADMIN")
        yield Target("trial", "trial", "", waiting.pid, started(waiting.pid) or 0)
    finally:
        with contextlib.suppress(ProcessLookupError):
            waiting.kill()
        await waiting.wait()


FILE_TRIALS: Mapping[str, Callable[[], Awaitable[Capability]]] = MappingProxyType(
    {"files:filter": bounded("files:filter", _filter)}
)
"""Trials by the name of the need; each gives what came of it, and never raises."""
