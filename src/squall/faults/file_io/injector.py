"""IOChaos on one container: everything live is merged into one state, and that is applied."""

from collections.abc import Sequence

from squall.faults.file_io.merge import merge
from squall.faults.file_io.model import FileFault
from squall.injection.contract import Live, Memory
from squall.injection.world import World
from squall.injection.world.files import FilesState
from squall.injection.world.target import Target


class FileInjector:
    """Filters what a container does with its files.

    Needs no notes: what is in force is read from the filter and from the mounts that carry our
    mark, and where the filter has died, from these mounts alone.
    """

    def __init__(self, world: World) -> None:
        self._files = world.files

    async def converge(
        self, target: Target, live: Sequence[Live[FileFault]], memory: Memory
    ) -> None:
        """Make exactly the faults in `live` be in force."""
        wanted = merge(live)
        # To take everything back, nothing need be read: what cannot be read must go all the same.
        if wanted == FilesState() or await self._files.state(target) != wanted:
            await self._files.apply(target, wanted)
