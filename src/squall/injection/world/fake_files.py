"""The files of targets, in memory."""

from collections.abc import Collection, Mapping
from dataclasses import replace

from squall.errors import TargetGone
from squall.injection.world.fake import Fake, Fate
from squall.injection.world.files import (
    Access,
    Attributes,
    Call,
    FileCounters,
    FileRule,
    FilesState,
    Visit,
)
from squall.injection.world.globs import matches
from squall.injection.world.target import Target

CALLS: Mapping[Call, frozenset[str]] = {
    "stat": frozenset({"lookup", "getattr"}),
    "open": frozenset({"open"}),
    "read": frozenset({"read"}),
}
"""What requests a system call of ours makes."""


class FakeFiles(Fake):
    """Remembers what is in force for each target; what it counts is set by hand, or by visits."""

    def __init__(self, fate: Fate | None = None) -> None:
        super().__init__(fate)
        self.states: dict[str, FilesState] = {}
        """What is in force, by target id; without an entry, nothing."""
        self.counted: dict[str, dict[str, FileCounters]] = {}
        """Counters by target id and source; sources in force start at zero."""
        self.others: dict[str, str] = {}
        """Mounts of somebody else, by target id; nothing here ever touches them."""
        self.gone: set[str] = set()
        """Ids of targets that have ended."""
        self.paths: list[str] = []
        """Files that every target has."""
        self.truth = Attributes(ino=7, size=4096, perm=0o644, uid=0, gid=0)
        """What stat(2) says of each where nobody lies."""
        self.seconds = 0.0001
        """How long a call takes that nothing delays."""
        self.visits = 0
        """How often somebody went there."""

    async def state(self, target: Target) -> FilesState:
        """Read what is in force."""
        self._check(target)
        return self.states.get(target.id, FilesState())

    async def apply(self, target: Target, wanted: FilesState) -> None:
        """Put `wanted` in force, as one change; none where it is in force already."""
        self._check(target)
        if wanted == self.states.get(target.id, FilesState()):
            return
        self.fate.change()
        if wanted == FilesState():
            del self.states[target.id]
            self.counted.pop(target.id, None)
        else:
            self.states[target.id] = wanted

    async def counters(self, target: Target) -> Mapping[str, FileCounters]:
        """Read what was set for the sources in force."""
        self._check(target)
        counted = self.counted.get(target.id, {})
        return {rule.source: counted.get(rule.source, FileCounters()) for rule in self._all(target)}

    async def visit(
        self,
        target: Target,
        volume: str,
        path: str,
        methods: Collection[str],
        *,
        within_seconds: float,
    ) -> Visit:
        """Call what the rules call for: each delays, then the first error wins; all is counted."""
        self._check(target)
        self.visits += 1
        found = [name for name in self.paths if name.startswith(f"{volume}/")]
        name = next((name for name in found if matches(path, name)), "")
        if not name:
            return Visit()
        accesses, told = [], self.truth
        for call, made in CALLS.items():
            if methods and not made & set(methods):
                continue
            access = Access(call, self.seconds)
            for rule in self._all(target):
                if matches(rule.path, name) and (not rule.methods or made & set(rule.methods)):
                    access = self._felt(target, rule, access, within_seconds)
                    told = _told(told, rule) if call == "stat" else told
            accesses.append(access)
        return Visit(name, tuple(accesses), told)

    def snapshot(self) -> object:
        """Describe what is in force, and what is somebody else's."""
        return dict(self.states), dict(self.others)

    def foreign(self) -> object:
        """Describe what is somebody else's."""
        return dict(self.others)

    def _felt(self, target: Target, rule: FileRule, access: Access, within: float) -> Access:
        counted = self.counted.setdefault(target.id, {})
        was = counted.get(rule.source, FileCounters())
        delayed = 1 if rule.latency_us else 0
        counted[rule.source] = replace(
            was,
            matched=was.matched + 1,
            delayed=was.delayed + delayed,
            delay_us_sum=was.delay_us_sum + rule.latency_us,
            failed=was.failed + (1 if rule.errno else 0),
            overridden=was.overridden + (1 if rule.attributes else 0),
            mistaken=was.mistaken + (1 if rule.mistake and access.call == "read" else 0),
        )
        seconds = access.seconds + rule.latency_us / 1e6
        if seconds > within:
            return replace(access, seconds=within, errno=None)
        return replace(access, seconds=seconds, errno=access.errno or rule.errno)

    def _all(self, target: Target) -> list[FileRule]:
        volumes = self.states.get(target.id, FilesState()).volumes
        return [rule for volume in volumes for rule in volume.rules]

    def _check(self, target: Target) -> None:
        if target.id in self.gone:
            raise TargetGone(f"{target.id}: process {target.pid} has ended")


def _told(truth: Attributes, rule: FileRule) -> Attributes:
    asked = {
        name: value
        for name in Attributes.__slots__
        if (value := getattr(rule.attributes, name, None)) is not None
    }
    return replace(truth, **asked)
