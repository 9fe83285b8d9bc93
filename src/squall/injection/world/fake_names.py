"""Names that targets look up, in memory."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from squall.errors import TargetGone
from squall.injection.world.fake import Fake, Fate
from squall.injection.world.names import ADDRESS_TYPES, NameCounters, NameRule, Reply
from squall.injection.world.target import Target


class FakeNames(Fake):
    """Answers as the rules in force call for; of what chance decides, all is hit or nothing."""

    def __init__(self, fate: Fate | None = None) -> None:
        super().__init__(fate)
        self.states: dict[str, tuple[NameRule, ...]] = {}
        """What is in force, by target id; without an entry, nothing."""
        self.counted: dict[str, dict[str, NameCounters]] = {}
        """Counters by target id and source; sources in force start at zero."""
        self.others: dict[str, str] = {}
        """Rules of somebody else, by target id; nothing here ever touches them."""
        self.gone: set[str] = set()
        """Ids of targets that have ended."""
        self.served: dict[str, tuple[str, ...]] = {}
        """Addresses that the real server knows, by name."""
        self.reachable = True
        """Can queries be sent at all?"""
        self.deaf = False
        """Does every fault act on nothing, whatever is in force?"""
        self.asked = 0
        """Queries sent so far."""

    async def state(self, target: Target) -> Sequence[NameRule]:
        """Read what is in force."""
        self._check(target)
        return self.states.get(target.id, ())

    async def apply(self, target: Target, wanted: Sequence[NameRule]) -> None:
        """Put `wanted` in force, as one change; none where it is in force already."""
        self._check(target)
        if tuple(wanted) == self.states.get(target.id, ()):
            return
        self.fate.change()
        if wanted:
            self.states[target.id] = tuple(wanted)
        else:
            del self.states[target.id]
            self.counted.pop(target.id, None)

    async def counters(self, target: Target) -> Mapping[str, NameCounters]:
        """Read what was counted for the sources in force."""
        self._check(target)
        counted = self.counted.get(target.id, {})
        rules = self.states.get(target.id, ())
        return {rule.source: counted.get(rule.source, NameCounters()) for rule in rules}

    async def ask(
        self, target: Target, name: str, record_type: int, *, within_seconds: float
    ) -> Reply | None:
        """Let a query pass the rules, oldest first, and count as they do."""
        self._check(target)
        if not self.reachable:
            return None
        self.asked += 1
        rules = () if self.deaf else self.states.get(target.id, ())
        after_ms = 0.0
        for rule in rules:
            if not _fits(rule, name, record_type) or not rule.percent:
                continue
            after_ms += rule.delay_us / 1000
            self._count(target, rule)
            if rule.answer.kind == "nothing":
                return Reply(after_ms=within_seconds * 1000)
            if rule.answer.kind != "relayed":
                return _reply(rule, after_ms)
        if after_ms > within_seconds * 1000 or name not in self.served:
            return Reply(after_ms=within_seconds * 1000)
        return Reply(0, addresses=self.served[name], after_ms=after_ms + 0.2)

    def snapshot(self) -> object:
        """Describe what is in force, and what is somebody else's."""
        return dict(self.states), dict(self.others)

    def foreign(self) -> object:
        """Describe what is somebody else's."""
        return dict(self.others)

    def _check(self, target: Target) -> None:
        if target.id in self.gone:
            raise TargetGone(f"{target.id}: process {target.pid} has ended")

    def _count(self, target: Target, rule: NameRule) -> None:
        counted = self.counted.setdefault(target.id, {})
        so_far = counted.get(rule.source, NameCounters())
        swallowed, answered = rule.answer.kind == "nothing", rule.answer.kind != "relayed"
        counted[rule.source] = replace(
            so_far,
            matched=so_far.matched + 1,
            hit=so_far.hit + 1,
            answered=so_far.answered + (answered and not swallowed),
            swallowed=so_far.swallowed + swallowed,
            delayed=so_far.delayed + bool(rule.delay_us),
            delay_us_sum=so_far.delay_us_sum + rule.delay_us,
        )


def _fits(rule: NameRule, name: str, record_type: int) -> bool:
    if rule.types and record_type not in rule.types:
        return False
    if rule.answer.kind == "addresses" and record_type not in ADDRESS_TYPES:
        return False
    return not rule.patterns or any(_matches(pattern, name) for pattern in rule.patterns)


def _matches(pattern: str, name: str) -> bool:
    wild = {"*": ".*", "?": "."}
    expression = "".join(wild.get(c, re.escape(c)) for c in pattern.rstrip("."))
    return re.fullmatch(expression, name.rstrip("."), re.IGNORECASE) is not None


def _reply(rule: NameRule, after_ms: float) -> Reply:
    answer = rule.answer
    if answer.kind == "addresses":
        return Reply(0, addresses=answer.addresses or ("198.18.0.1",), after_ms=after_ms)
    return Reply(answer.code, truncated=answer.kind == "truncated", after_ms=after_ms)
