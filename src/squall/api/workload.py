"""A program of this host, run as a target of its own: `squall.dev/v1alpha1`, Workload."""

import re
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from squall.api.wire import Flaw, Wire, written

_LABEL_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_SUBDOMAIN = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_LABEL = re.compile(rf"({_SUBDOMAIN}/)?{_LABEL_NAME}=({_LABEL_NAME})?")
_VARIABLE = re.compile(r"[^=\0]+=[^\0]*")


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

    def flaws(self) -> Iterator[Flaw]:
        """No Pod could be made of it, or no process."""
        if not self.command or not self.command[0] or any("\0" in word for word in self.command):
            yield Flaw("command", "must begin with a program, and no word may have a NUL in it")
        for name, value in self.labels.items():
            if not _LABEL.fullmatch(f"{name}={value}"):
                yield Flaw("labels", f"{name!r}: {value!r} is no label of a Pod")
        for name, value in self.env.items():
            if "=" in name or not _VARIABLE.fullmatch(f"{name}={value}"):
                yield Flaw("env", f"{name!r} cannot be set in an environment")


class WorkloadStatus(Wire):
    """How the program stands."""

    phase: Literal["Pending", "Running", "Succeeded", "Failed"] = "Pending"
    """As of its Pod."""
    restarts: int = 0
    """How often it was started again."""
    message: str = ""
    """Why it does not run; empty when it does."""
