"""The HTTP exchanges of targets, in memory."""

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase

from squall.errors import TargetGone, TryAgain
from squall.injection.world.fake import Fake, Fate
from squall.injection.world.http import Answer, Counters, HttpState, Rule
from squall.injection.world.target import Target


class FakeHttp(Fake):
    """Remembers what is in force for each target, and lets requests of ours feel it."""

    def __init__(self, fate: Fate | None = None) -> None:
        super().__init__(fate)
        self.states: dict[str, HttpState] = {}
        """What is in force, by target id; without an entry, nothing."""
        self.counted: dict[str, dict[str, Counters]] = {}
        """Counters by target id and source; sources in force start at zero."""
        self.others: dict[str, str] = {}
        """Proxies of somebody else, by target id; nothing here ever touches them."""
        self.gone: set[str] = set()
        """Ids of targets that have ended."""
        self.listening = True
        """Does a server answer?"""
        self.loyal = True
        """Does what is in force act?"""
        self.answer_seconds = 0.002
        self.requests: list[tuple[str, str]] = []
        """Method and path of requests that were sent."""

    async def state(self, target: Target) -> HttpState:
        """Read what is in force."""
        self._check(target)
        return self.states.get(target.id, HttpState())

    async def apply(self, target: Target, wanted: HttpState) -> None:
        """Put `wanted` in force, as one change; none where it is in force already."""
        self._check(target)
        if wanted == self.states.get(target.id, HttpState()):
            return
        self.fate.change()
        if wanted == HttpState():
            del self.states[target.id]
            self.counted.pop(target.id, None)
        else:
            self.states[target.id] = wanted

    async def counters(self, target: Target) -> Mapping[str, Counters]:
        """Read what was counted for the sources in force."""
        self._check(target)
        counted = self.counted.get(target.id, {})
        rules = self.states.get(target.id, HttpState()).rules
        return {rule.source: counted.get(rule.source, Counters()) for rule in rules}

    async def request(
        self,
        target: Target,
        port: int,
        *,
        method: str,
        path: str,
        headers: Mapping[str, str],
        within_seconds: float,
    ) -> Answer:
        """Answer 200 as the rules call for, and count it as a real one."""
        self._check(target)
        if not self.listening:
            raise TryAgain(f"{target.id}: nobody listens on port {port}")
        self.requests.append((method, path))
        answer = Answer(self.answer_seconds, 200)
        for rule in self.states.get(target.id, HttpState()).rules:
            if rule.port != port or rule.outgoing:
                continue
            hit = self.loyal and _hits(rule, method, path, headers)
            self._count(target, rule, hit=hit)
            if hit and answer.status is not None:
                answer = _hit(rule, answer)
        if answer.seconds > within_seconds:
            return Answer(within_seconds, failure=f"no answer within {within_seconds:g} s")
        return answer

    def snapshot(self) -> object:
        """Describe what is in force, and what is somebody else's; of authorities, whose."""
        states = {
            id_: (state.rules, state.certificates, [one.source for one in state.authorities])
            for id_, state in self.states.items()
        }
        return states, dict(self.others)

    def foreign(self) -> object:
        """Describe what is somebody else's."""
        return dict(self.others)

    def _check(self, target: Target) -> None:
        if target.id in self.gone:
            raise TargetGone(f"{target.id}: process {target.pid} has ended")

    def _count(self, target: Target, rule: Rule, *, hit: bool) -> None:
        counted = self.counted.setdefault(target.id, {})
        now = counted.get(rule.source, Counters())
        now = replace(now, exchanges=now.exchanges + 1)
        if hit:
            now = replace(
                now,
                matched=now.matched + 1,
                aborted=now.aborted + rule.abort,
                delayed=now.delayed + bool(rule.delay_us),
                delay_us_sum=now.delay_us_sum + rule.delay_us,
                replaced=now.replaced + bool(rule.replace),
                patched=now.patched + bool(rule.patch),
            )
        counted[rule.source] = now


def _hits(rule: Rule, method: str, path: str, headers: Mapping[str, str]) -> bool:
    return (
        fnmatchcase(path, rule.path or "*")
        and rule.method in {None, method}
        and rule.request_headers.items() <= headers.items()
    )


def _hit(rule: Rule, answer: Answer) -> Answer:
    if rule.abort:
        return Answer(answer.seconds, failure="reset")
    code = rule.replace.code if rule.replace else None
    return Answer(answer.seconds + rule.delay_us / 1e6, code or answer.status)
