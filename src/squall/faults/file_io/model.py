"""IOChaos: what may be asked, and what each target gets of it."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Annotated, Literal, get_args

from pydantic import BeforeValidator, Field

from squall.api.experiment import ExperimentSpec
from squall.api.selector import ContainerSelector
from squall.api.units import Duration, Int64, MemorySize, Size
from squall.api.wire import Fault, Flaw, Wire, written
from squall.faults.file_io.methods import FELT, METHODS
from squall.injection.kind import Peers
from squall.injection.world.files import Attributes, FileKind, Filling, Mistake, Moment
from squall.injection.world.globs import compiled, literal

Action = Literal["latency", "fault", "attrOverride", "mistake", "noSpace", "powerLoss"]
UInt32 = Annotated[int, Field(json_schema_extra={"format": "int32"})]

HIGHEST_ERRNO = 511
"""The kernel takes no higher number from a file system in user space; errno(3) ends at 133."""
ALL_PERCENT = 100
_UINT32, _UINT64, _PERM = 2**32, 2**64, 0o10000


class Time(Wire):
    """A moment, counted from the beginning of 1970."""

    sec: Int64
    """Whole seconds."""
    nsec: Int64
    """Nanoseconds beyond them."""

    def flaws(self) -> Iterator[Flaw]:
        """Check that it is written in one way only."""
        if not 0 <= self.nsec < 10**9:
            yield Flaw("nsec", "must be from 0 to 999999999")


class AttrOverride(Wire):
    """What is told about files in place of the truth; what is left out stays true."""

    ino: Int64 | None = None
    """Number of the inode."""
    size: Int64 | None = None
    """Bytes."""
    blocks: Int64 | None = None
    """Blocks of 512 bytes."""
    atime: Time | None = None
    """Last access."""
    mtime: Time | None = None
    """Last change of the content."""
    ctime: Time | None = None
    """Last change of content or attributes."""
    kind: str | None = None
    """Sort of file: namedPipe, charDevice, blockDevice, directory, regularFile, symlink, socket."""
    perm: int | None = None
    """Permissions as one number: 72 is 0110 of chmod(1)."""
    nlink: UInt32 | None = None
    """Hard links."""
    uid: UInt32 | None = None
    """Owner."""
    gid: UInt32 | None = None
    """Group."""
    rdev: UInt32 | None = None
    """Device that the file stands for."""

    def flaws(self) -> Iterator[Flaw]:
        """Check that every number fits into what stat(2) gives, and that something is told."""
        if self == AttrOverride():
            yield Flaw("", "names no attribute, so it would change nothing")
        bounds = {"ino": _UINT64, "size": _UINT64 // 2, "blocks": _UINT64 // 2, "perm": _PERM}
        bounds |= dict.fromkeys(("nlink", "uid", "gid", "rdev"), _UINT32)
        for name, beyond in bounds.items():
            number = getattr(self, name)
            if number is not None and not 0 <= number < beyond:
                yield Flaw(name, f"must be from 0 to {beyond - 1}")
        if self.kind is not None and self.kind not in get_args(FileKind):
            yield Flaw("kind", f"is no sort of file; write one of {', '.join(get_args(FileKind))}")

    def attributes(self) -> Attributes:
        """Give the same for the agent."""
        told = {name: getattr(self, name) for name in type(self).model_fields}
        for name in ("atime", "mtime", "ctime"):
            told[name] = Moment(told[name].sec, told[name].nsec) if told[name] else None
        return Attributes(**told)


class MistakeSpec(Wire):
    """Wrong bytes in what is read, and in what is written. Written ones stay in the files."""

    filling: Filling = "zero"
    """What the wrong bytes are: `zero`, or `random`."""
    max_occurrences: Annotated[Int64, Field(ge=1)] = 1
    """How many places of one request are wrong at most."""
    max_length: Annotated[Int64, Field(ge=1)] = 1
    """How many bytes one such place has at most."""


class IOChaosSpec(ExperimentSpec, ContainerSelector):
    """Slow down, fail or falsify what containers do with the files of a directory."""

    action: Action
    """What is done: `latency` holds requests for `delay`, `fault` fails them with `errno`,
    `attrOverride` lies about attributes (`attr`), `mistake` puts wrong bytes into what is read and
    written. `noSpace` lets `space` be written and fails what comes then; `powerLoss` loses what was
    not synced if the container ends."""
    volume_path: str
    """Directory in the container whose files are hit, as `/var/lib/data`; often where a volume is
    mounted."""
    path: str = ""
    """Which files in it, as a pattern over the whole path: `/var/lib/data/**/*.log`. Without it,
    all."""
    methods: list[str] = Field(default_factory=list)
    """Which requests, as FUSE names them: `read`, `write`, `fsync`, `getattr`. None means all."""
    percent: int = written(ALL_PERCENT)
    """How many of these requests are hit, in percent."""
    delay: Annotated[Duration | None, BeforeValidator(lambda value: value or None)] = None
    """How long each request is held, for action `latency`."""
    errno: UInt32 = 0
    """Number of the error that requests fail with, for action `fault`: 5 is EIO, 28 ENOSPC."""
    attr: AttrOverride | None = None
    """What is told about files, for action `attrOverride`."""
    mistake: MistakeSpec | None = None
    """What is wrong, for action `mistake`."""
    space: Annotated[MemorySize | None, BeforeValidator(lambda value: value or None)] = None
    """Bytes that may still be added to files, for action `noSpace`: `64MB`, which is 64,000,000, as
    is `64MiB`; none by default."""

    def flaws(self) -> Iterator[Flaw]:
        """Check what upstream checks, and what could never act."""
        yield from super().flaws()
        yield from self._place_flaws()
        if not 0 <= self.percent <= ALL_PERCENT:
            yield Flaw("percent", "percent field should be in 0-100")
        if self.delay is not None and self.delay < timedelta(0):
            yield Flaw("delay", "is negative: nothing is done before it is asked for")
        if self.action == "fault" and self.errno == 0:
            yield Flaw("errno", f"action {self.action}: errno 0 is not supported")
        elif not 0 <= self.errno <= HIGHEST_ERRNO:
            yield Flaw(
                "errno", "is no error number; errno(3) lists those from 1 to 133, as 5 (EIO)"
            )
        needs = {"latency": "delay", "attrOverride": "attr", "mistake": "mistake"}
        if (part := needs.get(self.action)) and not getattr(self, part):
            shortest = "; the shortest is 1us" if part == "delay" else ""
            yield Flaw(part, f"action {self.action} does nothing without it{shortest}")
        if self.space is not None and self.space.percent is not None:
            yield Flaw("space", "must be bytes, as 64MB: of what it would be a share, nobody knows")
        if self.action == "powerLoss" and self.percent != ALL_PERCENT:
            yield Flaw("percent", "power goes for all or for nobody; leave it out")
        yield from self._method_flaws()

    def _place_flaws(self) -> Iterator[Flaw]:
        volume = self.volume_path
        parts = volume.split("/")
        if not volume.startswith("/") or "." in parts or ".." in parts or "\0" in volume:
            yield Flaw("volumePath", "must be an absolute path, as /var/lib/data")
            return
        if not any(parts):
            yield Flaw("volumePath", "cannot be the root of the container; name a directory in it")
            return
        try:
            compiled(self.path)
        except ValueError as wrong:
            yield Flaw("path", str(wrong))
            return
        if any(name in {"", ".", ".."} for name in self.path.split("/")[1:]):
            yield Flaw(
                "path", "fits no path: they have no `//`, `.` and `..`, and no `/` at the end"
            )
            return
        inside, begins = f"{self.volume()}/", literal(self.path)
        fits = begins.startswith(inside) or inside.startswith(begins)
        if not fits and self.path != self.volume():
            yield Flaw(
                "path", f"matches nothing in {self.volume()}; it is a pattern over the whole path"
            )

    def _method_flaws(self) -> Iterator[Flaw]:
        for at, name in enumerate(self.methods):
            if name.lower() not in METHODS:
                yield Flaw(f"methods[{at}]", f"is no request; write some of {', '.join(METHODS)}")
        felt = FELT.get(self.action)
        if self.methods and felt is not None and not self.requests():
            names = ", ".join(name for name in METHODS if name in felt)
            yield Flaw("methods", f"action {self.action} acts on none of these, but on {names}")
        if self.methods and self.action == "powerLoss":
            yield Flaw("methods", "power goes whatever is asked; leave them out")

    def requests(self) -> tuple[str, ...]:
        """Give `methods` as the filter names them: those that the action can act on; none: all."""
        named = {name.lower() for name in self.methods}
        if self.action not in FELT or (self.action == "latency" and not named):
            return ()
        return tuple(sorted(FELT[self.action] & named if named else FELT[self.action]))

    def volume(self) -> str:
        """Give `volumePath` as the kernel writes it: one slash between names, none at the end."""
        return "/" + "/".join(part for part in self.volume_path.split("/") if part)


class FileFault(Fault):
    """What one container suffers."""

    action: Action
    """As in the experiment."""
    volume: str
    """Absolute path of the directory."""
    path: str = ""
    """Pattern over absolute paths; empty: all in it."""
    methods: tuple[str, ...] = ()
    """Requests that are hit, as far as the action can act on them; none: all."""
    percent: int = ALL_PERCENT
    """How many of them."""
    delay_us: int = 0
    """Microseconds that each is held."""
    errno: int = 0
    """Error that each fails with."""
    attributes: Attributes | None = None
    """What is told about files."""
    mistake: Mistake | None = None
    """What is wrong in what is read and written."""
    space: int | None = None
    """Bytes that may still be added to files."""


def share(spec: IOChaosSpec, selector_key: str, peers: Peers) -> FileFault:  # noqa: ARG001
    """Give every target the same: the part that its action needs, and no other."""
    fault = FileFault(
        action=spec.action,
        volume=spec.volume(),
        path=spec.path,
        methods=spec.requests(),
        percent=spec.percent,
    )
    match spec.action:
        case "latency":
            delay = spec.delay or timedelta(0)
            return fault.model_copy(update={"delay_us": delay // timedelta(microseconds=1)})
        case "fault":
            return fault.model_copy(update={"errno": spec.errno})
        case "attrOverride":
            told = spec.attr.attributes() if spec.attr else None
            return fault.model_copy(update={"attributes": told})
        case "mistake":
            asked = spec.mistake or MistakeSpec()
            wrong = Mistake(asked.filling, asked.max_occurrences, asked.max_length)
            return fault.model_copy(update={"mistake": wrong})
        case "noSpace":
            return fault.model_copy(update={"space": (spec.space or Size()).bytes})
        case "powerLoss":
            return fault
