"""Live faults of one target, put together into one state of its files. Pure."""

from collections.abc import Collection, Sequence

from squall.faults.file_io.model import FileFault
from squall.injection.contract import Live
from squall.injection.world.files import FileRule, FilesState, Volume


def merge(live: Sequence[Live[FileFault]]) -> FilesState:
    """Gather the rules of each directory, the oldest first.

    A directory inside of another one has no filter of its own: two filters, one over the other,
    could not be taken away in any order. Its rules go to the outer one, and hit what is below it.
    """
    asked = {one.fault.volume for one in live}
    rules: dict[str, list[FileRule]] = {}
    for one in live:
        rules.setdefault(_outermost(one.fault.volume, asked), []).append(rule(one))
    return FilesState(tuple(Volume(path, tuple(found)) for path, found in rules.items()))


def rule(one: Live[FileFault]) -> FileRule:
    """Say what one fault does to requests."""
    fault = one.fault
    return FileRule(
        source=one.source,
        below=fault.volume,
        path=fault.path,
        methods=fault.methods,
        percent=fault.percent,
        latency_us=fault.delay_us,
        errno=fault.errno,
        attributes=fault.attributes,
        mistake=fault.mistake,
        space=fault.space,
        power_loss=fault.action == "powerLoss",
    )


def _outermost(path: str, asked: Collection[str]) -> str:
    return min((other for other in asked if f"{path}/".startswith(f"{other}/")), key=len)
