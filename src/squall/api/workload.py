"""A program of this host, run as a target of its own: `squall.dev/v1alpha1`, Workload."""

from typing import Literal

from pydantic import Field

from squall.api.wire import Wire, written


class WorkloadSpec(Wire):
    """What to run; shown as a Pod of the same name."""

    command: list[str] = Field(min_length=1)
    """Program and arguments; no shell reads them."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels of its Pod, by which experiments select it."""
    env: dict[str, str] = Field(default_factory=dict)
    """Environment, added to that of `squall up`."""
    restart_policy: Literal["Always", "OnFailure", "Never"] = written("Always")
    """When to start it again after it ended."""


class WorkloadStatus(Wire):
    """How the program stands."""

    phase: Literal["Pending", "Running", "Succeeded", "Failed"] = "Pending"
    """As of its Pod."""
    restarts: int = 0
    """How often it was started again."""
    message: str = ""
    """Why it does not run; empty when it does."""
