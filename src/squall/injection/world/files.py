"""What an injector may do to the files of a target, and try on them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Literal, Protocol

from squall.injection.world.target import Target

Filling = Literal["zero", "random"]
FileKind = Literal[
    "namedPipe", "charDevice", "blockDevice", "directory", "regularFile", "symlink", "socket"
]

Call = Literal["stat", "open", "read", "close", "list", "statfs", "listxattr"]


@dataclass(frozen=True, slots=True)
class Moment:
    """A time of a file, counted from 1970."""

    sec: int
    nsec: int


@dataclass(frozen=True, slots=True)
class Attributes:
    """What stat(2) is told in place of the truth; None: the truth."""

    ino: int | None = None
    size: int | None = None
    blocks: int | None = None
    atime: Moment | None = None
    mtime: Moment | None = None
    ctime: Moment | None = None
    kind: FileKind | None = None
    perm: int | None = None
    """The low twelve bits of the mode."""
    nlink: int | None = None
    uid: int | None = None
    gid: int | None = None
    rdev: int | None = None


@dataclass(frozen=True, slots=True)
class Mistake:
    """Wrong bytes in what is read, and in what is written."""

    filling: Filling = "zero"
    max_occurrences: int = 1
    """Places in one request at most."""
    max_length: int = 1
    """Bytes in one place at most."""


@dataclass(frozen=True, slots=True)
class FileRule:
    """What happens to requests for some files; zero and None mean: does not.

    A request that several rules match waits for all their latencies; then it suffers the rest of
    each, in order, until one fails it.
    """

    source: str
    """Which live fault asked for it; names its counters."""
    below: str
    """Directory that was asked for, absolute: that of the volume, or one in it. Nothing outside of
    it is hit; it is itself."""
    path: str = ""
    """Pattern over absolute paths (`globs.py`); empty: everything below."""
    methods: tuple[str, ...] = ()
    """Requests as FUSE names them, in lower case, as `read`; none: all."""
    percent: int = 100
    """How many of the requests that match are hit."""
    latency_us: int = 0
    errno: int = 0
    """The number of the error that a request fails with."""
    attributes: Attributes | None = None
    mistake: Mistake | None = None
    space: int | None = None
    """Bytes that may still be added to files since the rule began; then writes fail (ENOSPC)."""
    power_loss: bool = False
    """What is written stays in memory until it is synced, and is lost if the target ends before;
    given back when the rule goes while the target runs."""

    def __post_init__(self) -> None:
        """Sort what order says nothing about, so that equal rules compare equal."""
        object.__setattr__(self, "methods", tuple(sorted(set(self.methods))))


@dataclass(frozen=True, slots=True)
class Volume:
    """One directory of a target, whose requests are filtered; none is inside of another one."""

    path: str
    """Absolute, in the target's mount namespace."""
    rules: tuple[FileRule, ...]
    """Oldest first; at least one."""


@dataclass(frozen=True, slots=True)
class FilesState:
    """Everything of ours that is in force in one mount namespace."""

    volumes: tuple[Volume, ...] = ()
    """Each path at most once."""

    def __post_init__(self) -> None:
        """Sort by path, so that equal states compare equal."""
        volumes = tuple(sorted(self.volumes, key=lambda volume: volume.path))
        object.__setattr__(self, "volumes", volumes)


@dataclass(frozen=True, slots=True)
class FileCounters:
    """What the filter did for one source since its rule was put there."""

    matched: int = 0
    """Requests that the rule fits: file and method."""
    delayed: int = 0
    delay_us_sum: int = 0
    """Time that delayed requests were held, summed: mean delay = delay_us_sum / delayed."""
    failed: int = 0
    """Requests that got the rule's error."""
    overridden: int = 0
    """Answers whose attributes were replaced."""
    mistaken: int = 0
    """Reads and writes that got wrong bytes."""
    lost_bytes: int = 0
    """Written, never synced, and gone."""

    def __sub__(self, earlier: "FileCounters") -> "FileCounters":
        """Count between two looks."""
        pairs = zip(astuple(self), astuple(earlier), strict=True)
        return FileCounters(*(now - then for now, then in pairs))


@dataclass(frozen=True, slots=True)
class Access:
    """One system call of ours on a file of a target, as a process of the target would feel it."""

    call: Call
    seconds: float
    """How long it took; where `errno` is None and it has not returned, how long so far."""
    errno: int | None = 0
    """0: it succeeded. None: it has not returned in time."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A few accesses to one file; nothing in it is changed."""

    path: str = ""
    """The file; empty where none was found."""
    accesses: Sequence[Access] = field(default_factory=tuple)
    attributes: Attributes | None = None
    """What stat(2) said, all of it; None where it was not asked or failed."""


class Files(Protocol):
    """The files of a target, as its mount namespace shows them; foreign mounts stay as they are."""

    async def state(self, target: Target) -> FilesState:
        """Read what of ours is in force: from its holder, as far as its mounts are there."""

    async def apply(self, target: Target, wanted: FilesState) -> None:
        """Make exactly `wanted` be in force; an empty state leaves nothing of ours behind.

        Files that the target has open, working directories and mappings are hit as well, and go on
        without a gap when it is taken back. Requests of an unchanged rule go on waiting.

        Raises:
            TargetGone: its process has ended.
            InvalidFault: a path that is no directory there.
            Unsupported: the host lacks something.
            TryAgain: not now.
        """

    async def counters(self, target: Target) -> Mapping[str, FileCounters]:
        """Read counters by source; a source that is not in force is absent."""

    async def visit(
        self,
        target: Target,
        volume: str,
        path: str,
        methods: Collection[str],
        *,
        within_seconds: float,
    ) -> Visit:
        """Find a file that a rule fits, and read from it as the target would.

        Args:
            target: in whose mount namespace.
            volume: where to look.
            path: glob, as in a rule.
            methods: only calls that make one of these requests; none: any.
            within_seconds: after that, an access that has not returned is given up.
        """
