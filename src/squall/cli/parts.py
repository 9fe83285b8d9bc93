"""What the verbs need from the rest of the house; `squall.app` provides it."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from squall.api.cluster import Cluster
from squall.clock import Clock
from squall.node.doctor import Finding

DEFAULT_DATA_DIRECTORY = Path("/var/lib/squall")
"""Where an installation on one host keeps its store, journal and kubeconfig."""


@dataclass(frozen=True, slots=True)
class UpSettings:
    """How `squall up` shall run."""

    data_directory: Path
    host: str
    port: int
    """0 lets the kernel choose; the kubeconfig names what it chose."""
    lease_seconds: float
    allow_host_network: bool
    containers: bool
    """Show containers of other runtimes on this host as Pods."""


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """How `squall controller` shall run in a cluster."""

    namespace: str
    """Of the installation."""
    identity: str
    """Name of its pod: who holds the lease."""
    lease_seconds: float
    policy: Path | None
    """YAML file of `squall.api.policy.Policy`; None: no limits."""
    webhook: str
    """`ADDRESS:PORT` of the admission webhook; empty: none."""
    service: str
    """Name of the Service in front of the webhook, of its Secret and its configurations."""
    metrics: str
    """`ADDRESS:PORT` of /metrics; empty: none."""
    health: Path | None
    """Unix socket that answers /healthz and /readyz; None: none."""
    pause_image: str
    """What containers run while a `pod-failure` is live."""
    kubeconfig: Path | None
    """None: the service account of the pod."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """How `squall agent` shall run on a node."""

    namespace: str
    node_name: str
    lease_seconds: float
    data_directory: Path
    """Of the journal; survives the pod and a reboot."""
    policy: Path | None
    health: Path | None
    metrics: str
    """`ADDRESS:PORT` of /metrics, which asks for a token (TokenReview); empty: no open port."""
    kubeconfig: Path | None


@dataclass(frozen=True, slots=True)
class Access:
    """Which API to speak to."""

    kubeconfig: Path | None = None
    """None: the variable KUBECONFIG, then the default data directory's."""
    namespace: str = "default"


class Parts(Protocol):
    """The doors through which a verb leaves the command line."""

    def cluster(self, access: Access) -> AbstractAsyncContextManager[Cluster]:
        """Connect to the API that `access` finds.

        Raises:
            FileNotFoundError: no kubeconfig anywhere; the message lists where it was sought.
        """

    def clock(self) -> Clock:
        """Give the clock of this host."""

    async def up(self, settings: UpSettings, ready: Callable[[str], None]) -> None:
        """Run API, controller, agent and local workloads until SIGTERM or SIGINT.

        Args:
            settings: where and how.
            ready: called once with the address when requests are answered.
        """

    async def agent(self, settings: AgentSettings, ready: Callable[[], None]) -> None:
        """Act on one node of a cluster until SIGTERM or SIGINT, then restore every target.

        Args:
            settings: where and how.
            ready: called once when the agent has begun.
        """

    async def controller(self, settings: ControllerSettings, ready: Callable[[], None]) -> None:
        """Choose targets and order faults, with others in turn, until SIGTERM or SIGINT.

        Args:
            settings: where and how.
            ready: called once when the caches are filled.
        """

    async def execute(
        self, access: Access, pod: str, container: str | None, command: Sequence[str]
    ) -> int:
        """Run a command inside a target with this process's own streams; return its status."""

    async def diagnose(self) -> Sequence[Finding]:
        """Try every capability that fault kinds need, in throw-away namespaces."""

    def recover(self, data_directory: Path) -> AsyncIterator[str]:
        """Take back everything the journal of this host knows; yield a line for each target."""

    async def preview(self, access: Access, manifest: dict[str, Any]) -> Sequence[str]:
        """Name exactly the targets an experiment would hit, a line each."""
