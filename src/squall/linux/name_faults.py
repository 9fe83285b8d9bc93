"""The port of names on Linux: one `squall-node dns` process for each network namespace.

It answers in the place of whatever server the target asks. Whatever ends it, names resolve as they
did before; resolv.conf and the servers themselves are never touched.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from squall.errors import TryAgain
from squall.injection.world.names import Answer, NameCounters, NameRule, Reply
from squall.injection.world.target import Target
from squall.linux import name_queries, namespaces, resolver
from squall.linux.namespace_holders import NamespaceHolder, NamespaceHolders

_Wire = dict[str, Any]


class DnsProcess(NamespaceHolder):
    """One running `squall-node dns`."""

    module = "dns"

    async def rules(self) -> list[_Wire]:
        """Read what was last set."""
        rules: list[_Wire] = (await self.ask("state"))["rules"]
        return rules

    async def set(self, rules: Sequence[_Wire], *, lease_seconds: float) -> None:
        """Make exactly `rules` be in force; on an error nothing has changed."""
        await self.ask("set", {"rules": rules, "lease": lease_seconds, "deadline": None})


class _Holders(NamespaceHolders[DnsProcess]):
    """Containers of one pod share a process, and end one by one."""

    async def _let_go_of_the_gone(self) -> None:
        """Take back what containers have left that are gone; what others have stays."""
        for inode, hold in list(self._holds.items()):
            async with self._lock(inode):
                if hold.process.gone.is_set():
                    continue
                rules = await hold.process.rules()
                others = [rule for rule in rules if _is_there(rule["for"])]
                if not others:
                    await self._end(inode, hold.process)
                elif others != rules:
                    await hold.process.set(others, lease_seconds=self.lease_seconds)


class LinuxNames:
    """Changes what targets are told about names, seen from the node they run on.

    Args:
        run: folder for the sockets of the processes that hold the faults; theirs alone.
        lease_seconds: how long those outlive the agent.
    """

    def __init__(self, run: Path, *, lease_seconds: float) -> None:
        self._holders = _Holders(DnsProcess, run, lease_seconds=lease_seconds)

    async def state(self, target: Target) -> Sequence[NameRule]:
        """Read what is in force, from the process that makes it so."""
        async with self._holders.inside(target) as namespace:
            process = await self._holders.connected(namespace, target)
            rules = await process.rules() if process else []
        return tuple(_read(rule) for rule in rules if rule["for"] == _whom(target))

    async def apply(self, target: Target, wanted: Sequence[NameRule]) -> None:
        """Make exactly `wanted` be in force; without any, end the process that held it."""
        async with self._holders.inside(target) as namespace:
            process = await self._holders.connected(namespace, target)
            try:
                rules = await process.rules() if process else []
            except TryAgain:
                if wanted:
                    raise
                rules = []  # it hangs, and no name resolves as long as it is there
            whom = _whom(target)
            others = [r for r in rules if r["for"] != whom and _is_there(r["for"])]
            joined = _joined(others, [_written(rule, target) for rule in wanted])
            if joined:
                process = process or await self._holders.start(namespace, target)
                await process.set(joined, lease_seconds=self._holders.lease_seconds)
            else:
                await self._holders.end(namespace, process)

    async def counters(self, target: Target) -> Mapping[str, NameCounters]:
        """Read counters by source."""
        async with self._holders.inside(target) as namespace:
            process = await self._holders.connected(namespace, target)
            state = await process.ask("state") if process else {"rules": ()}
        whom = _whom(target)
        sources = {rule["source"] for rule in state["rules"] if rule["for"] == whom}
        return {source: NameCounters(**state["counters"][source]) for source in sources}

    async def ask(
        self, target: Target, name: str, record_type: int, *, within_seconds: float
    ) -> Reply | None:
        """Ask the first name server of the target's resolv.conf."""
        namespace = namespaces.of(target)
        servers = name_queries.servers(resolver.read_inside(target, "/etc/resolv.conf"))
        return await name_queries.ask(
            namespace, servers[0], name, record_type, within_seconds=within_seconds
        )

    async def close(self) -> None:
        """Drop every connection; what is in force stays for one lease."""
        await self._holders.close()

    async def end_all(self) -> None:
        """End every process in the folder, those of agents before us too."""
        await self._holders.end_all()


def _whom(target: Target) -> str:
    """Say for whom a rule is, so that any agent can tell later whether that one is still there."""
    return f"{target.id} {target.pid} {target.started}"


def _is_there(whom: str) -> bool:
    try:
        _, pid, ticks = whom.rsplit(" ", 2)
        return namespaces.lives(int(pid), int(ticks))
    except ValueError:  # of a version that said less
        return False


def _joined(others: list[_Wire], ours: list[_Wire]) -> list[_Wire]:
    """Put the rules of other containers between ours: one experiment's stand side by side."""
    joined, at = list(ours), 0
    for rule in others:
        same = (n for n, one in enumerate(joined) if one["source"] == rule["source"])
        at = next(same, at)
        joined.insert(at, rule)
        at += 1
    return joined


def _written(rule: NameRule, target: Target) -> _Wire:
    answer: _Wire = {"kind": rule.answer.kind}
    if rule.answer.kind == "code":
        answer["code"] = rule.answer.code
    elif rule.answer.kind == "addresses":
        answer["addresses"] = list(rule.answer.addresses)
    written = asdict(rule) | {"answer": answer, "for": _whom(target)}
    if rule.seed is None:  # processes of an agent before this one may not know it
        del written["seed"]
    return {name: list(v) if isinstance(v, tuple) else v for name, v in written.items()}


def _read(received: Mapping[str, Any]) -> NameRule:
    answer = received["answer"]
    return NameRule(
        source=received["source"],
        patterns=tuple(received["patterns"]),
        types=tuple(received["types"]),
        answer=Answer(answer["kind"], answer.get("code", 0), tuple(answer.get("addresses", ()))),
        percent=received["percent"],
        seed=received.get("seed"),
        delay_us=received["delay_us"],
        jitter_us=received["jitter_us"],
    )
