"""Client of `squall-node http`, the HTTP proxy of one network namespace.

Whatever ends it, SIGKILL included, connections go straight to their servers again.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from squall.errors import InvalidFault, TryAgain
from squall.injection.world.http import (
    Authority,
    Certificate,
    Counters,
    Grpc,
    HttpState,
    Patch,
    Replace,
    Rule,
)
from squall.linux.namespace_holders import NamespaceHolder

LONGEST_STREAM_SECONDS = 600.0
"""How long a stream goes on through a proxy that has nothing else to do any more."""


@dataclass(frozen=True, slots=True)
class ProxyState:
    """What a process holds, and what it did so far."""

    held: HttpState
    """Without keys."""
    counters: Mapping[str, Counters]
    """By source."""
    sealed: Mapping[str, int] = field(default_factory=dict)
    """TLS connections that could not be opened, by the name of their server."""
    address_kept: bool = True
    """Do servers see their clients' own addresses?"""


class HttpProcess(NamespaceHolder):
    """One running `squall-node http`."""

    module = "http"

    async def set(self, held: HttpState, *, lease_seconds: float) -> None:
        """Make exactly `held` be in force; on an error nothing has changed.

        Raises:
            InvalidFault: a rule that makes no sense, with its reason.
            Unsupported: the kernel lacks something; the message says what.
            TryAgain: not now, or the process is gone.
        """
        await self.ask("set", {**asdict(held), "lease": lease_seconds, "deadline": None})

    async def let_go(self) -> bool:
        """Let no rule be in force; True once the process has ended.

        It stays for exchanges that are under way, and passes them on, as streams and downloads.
        """
        # It hangs, and then is killed, or it is of an agent before us that knows no such thing.
        with suppress(TryAgain, InvalidFault):
            if (await self.ask("leave", {"within": LONGEST_STREAM_SECONDS}))["busy"]:
                return False
        return await super().let_go()

    async def state(self) -> ProxyState:
        """Read what was last set, and the counters.

        Raises:
            TryAgain: the process is gone.
        """
        answer = await self.ask("state")
        return ProxyState(
            HttpState(
                tuple(_rule(rule) for rule in answer["rules"]),
                tuple(Certificate(**certificate) for certificate in answer["certificates"]),
                tuple(Authority(**authority) for authority in answer["authorities"]),
            ),
            {source: Counters(**counted) for source, counted in answer["counters"].items()},
            answer["sealed"],
            answer["address_kept"],
        )


def _rule(received: Mapping[str, Any]) -> Rule:
    parts = {
        "replace": _replace(received["replace"]) if received.get("replace") else None,
        "patch": _patch(received["patch"]) if received.get("patch") else None,
        "grpc": Grpc(**received["grpc"]) if received.get("grpc") else None,
    }
    return Rule(**{**received, **parts})


def _replace(received: Mapping[str, Any]) -> Replace:
    return Replace(**received)


def _patch(received: Mapping[str, Any]) -> Patch:
    return Patch(
        headers=tuple((name, value) for name, value in received["headers"]),
        queries=tuple((name, value) for name, value in received["queries"]),
        body=received["body"],
    )
