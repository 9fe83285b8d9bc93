"""What a fault kind promises; everything else is plumbing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, Protocol, TypeVar, runtime_checkable

from squall.injection.world.target import Target

F = TypeVar("F", contravariant=True)
T_co = TypeVar("T_co", covariant=True)


class Memory(Protocol):
    """Notes about one target that survive a crash of the agent."""

    def keep(self, key: str, value: bytes) -> bytes:
        """Store `value` under `key` unless something is there; return what is there.

        On disk before it returns, so it is called before the change it describes.
        """

    def recall(self, key: str) -> bytes | None:
        """Read what `keep` stored, or None."""


@dataclass(frozen=True, slots=True)
class Live(Generic[T_co]):
    """One fault that should act on a target now."""

    source: str
    """uid of the experiment and, after a slash, its selector key: unique on one target."""
    fault: T_co
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False, hash=False)
    """Values of Secrets that the room has asked for, by `str(SecretKey)`."""


class Injector(Protocol[F]):
    """Keeps one target in the state its live faults call for.

    Written once per fault kind. The node agent calls it, never twice at once
    for the same target: at every change of `live`, and again after a restart.
    """

    async def converge(self, target: Target, live: "Sequence[Live[F]]", memory: Memory) -> None:
        """Make the target feel exactly `live`; an empty sequence restores it.

        May be killed at any line and called again: it reads what is there,
        compares, and changes only the difference. What it did not put there
        itself it must not remove.

        Args:
            target: resolved just now on this node.
            live: every fault of this kind on this target, oldest first.
            memory: notes on this target, empty at the first touch.

        Raises:
            TargetGone: the target no longer exists; counts as restored.
            Unsupported: this host can never do it; reported, not retried.
            TryAgain: not now; the agent calls again with backoff.
        """


@runtime_checkable
class Renewing(Protocol[F]):
    """An injector whose faults hang on what may change outside, such as host names."""

    def again_after(self, live: "Sequence[Live[F]]") -> float | None:
        """Seconds after which to converge again though nothing was asked; None: no need."""


@runtime_checkable
class Marking(Protocol):
    """An injector whose marks outlive every journal, such as those on an object of the API.

    An agent without a lasting journal asks for them before it does anything else.
    """

    async def marked(self) -> "Sequence[Target]":
        """Find every target that carries a mark of ours; `TryAgain` when nobody can tell now."""


class Striker(Protocol[F]):
    """Does one thing that cannot be undone: kill, restart, reboot."""

    async def strike(self, target: Target, fault: F) -> None:
        """Strike once. Raises as `Injector.converge` does."""


class Way(StrEnum):
    """How a number was come by."""

    PASSIVE = "passive"
    """Counted by the means of the fault itself, in the target's own traffic."""
    ACTIVE = "active"
    """Measured by a small probe of ours inside the target."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a probe saw inside a target at one moment; names carry their unit, as `rtt_ms`."""

    way: Way
    values: Mapping[str, float] = field(default_factory=dict)


class Verdict(StrEnum):
    """Was the fault felt?"""

    CONFIRMED = "Confirmed"
    MISMATCH = "Mismatch"
    INCONCLUSIVE = "Inconclusive"
    INTERRUPTED = "Interrupted"
    """The agent took the fault back by itself: silence of the controller, a halt, its deadline."""
    UNKNOWN = "Unknown"
    """A strike was found unfinished after a crash; it is not repeated."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a probe makes of its samples, in words a user reads."""

    verdict: Verdict
    asked: str
    """As `delay 100 ms ± 10 ms`."""
    measured: str
    """As `delay 100.3 ms (active, 5 pings)`, or why nothing could be measured."""


class Probe(Protocol[F]):
    """Measures, inside the target, whether one fault is felt."""

    async def sample(self, target: Target, live: "Live[F]") -> Sample:
        """Measure now; called before, during and after the fault.

        Takes at most a few round trips before a fault (it delays the injection), and may look
        for up to a second during one. Raises as `Injector.converge` does.
        """

    def judge(self, fault: F, before: Sample | None, during: Sample) -> Judgement:
        """Compare what was asked with what was measured. Pure."""
