"""PodChaos: what may be asked, and what each target gets of it."""

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from squall.api.experiment import ExperimentSpec
from squall.api.selector import ContainerSelector
from squall.api.units import Int64
from squall.api.wire import Fault, Flaw
from squall.injection.kind import Peers

Action = Literal["pod-kill", "pod-failure", "container-kill"]


class PodChaosSpec(ExperimentSpec, ContainerSelector):
    """Kill pods and containers, or make pods stand still."""

    action: Action
    """`pod-kill` deletes the pod, `container-kill` kills the containers in `containerNames`, each
    once; `pod-failure` makes the pod stand still and be not ready, until the end."""
    grace_period: Annotated[Int64, Field(ge=0)] = 0
    """Seconds that `pod-kill` gives the pod to end by itself; 0 kills it at once."""

    def flaws(self) -> Iterator[Flaw]:
        """Check that the action knows its containers."""
        yield from super().flaws()
        if self.action == "container-kill" and not self.container_names:
            yield Flaw("containerNames", f"the name of container is empty on {self.action} action")


class PodFault(Fault):
    """What one pod or container suffers."""

    action: Action
    """As in the experiment."""
    grace_period: int = 0
    """Seconds that `pod-kill` gives the pod to end by itself."""


def share(spec: PodChaosSpec, selector_key: str, peers: Peers) -> PodFault:  # noqa: ARG001
    """Give every target the same; there is one role, and nobody has to know the others."""
    return PodFault(action=spec.action, grace_period=spec.grace_period)


def one_shot(spec: PodChaosSpec) -> bool:
    """Tell kills, which nobody can undo."""
    return spec.action != "pod-failure"


def by_api(spec: PodChaosSpec) -> bool:
    """Tell what needs nobody on the node: an API server deletes pods and changes their images."""
    return spec.action != "container-kill"


def per_container(spec: PodChaosSpec) -> bool:
    """Tell the one action that hits single containers."""
    return spec.action == "container-kill"


def needed(spec: PodChaosSpec) -> tuple[str, ...]:
    """Tell what an agent needs beside what it always has, where it is one that acts."""
    return ("pod:freeze",) if spec.action == "pod-failure" else ()
