"""What this host can do to files, found out in a mount namespace that ends with the trial."""

from collections.abc import Awaitable, Callable, Mapping
from errno import EIO
from types import MappingProxyType

from squall.injection.world.files import FileRule, FilesState, Volume
from squall.linux import throw_away
from squall.linux.container_capabilities import TRIAL_SECONDS, bounded
from squall.linux.files import LinuxFiles
from squall.node.doctor import Ability, Capability

VISIT_SECONDS = 2.0


async def _filter() -> Capability:
    name = "files:filter"
    with throw_away.folder() as folder:
        volume = folder / "volume"
        volume.mkdir()
        (volume / "file").write_text("true")
        rule = FileRule("trial/.", str(volume), methods=("read",), errno=EIO)
        wanted = FilesState((Volume(str(volume), (rule,)),))
        files = LinuxFiles(folder / "run", lease_seconds=TRIAL_SECONDS)
        try:
            async with throw_away.process("--mount", "--propagation", "private") as target:
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


FILE_TRIALS: Mapping[str, Callable[[], Awaitable[Capability]]] = MappingProxyType(
    {"files:filter": bounded("files:filter", _filter)}
)
"""Trials by the name of the need; each gives what came of it, and never raises."""
