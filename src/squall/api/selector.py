"""Which pods, and how many of them."""

import re
from collections.abc import Iterator
from typing import Literal

from pydantic import Field

from squall.api.wire import Flaw, Wire

Mode = Literal["one", "all", "fixed", "fixed-percent", "random-max-percent"]

_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_NEEDS_VALUES = {"In", "NotIn"}
_MOST = 100


class Requirement(Wire):
    """One condition on the labels of a pod."""

    key: str
    """Label that is looked at."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the label and `values` are compared."""
    values: list[str] = Field(default_factory=list)
    """What In and NotIn compare with; empty for Exists and DoesNotExist."""

    def flaws(self) -> Iterator[Flaw]:
        """Selecting by such a condition would fail for ever."""
        if self.operator in _NEEDS_VALUES and not self.values:
            yield Flaw("values", f"{self.operator} needs at least one value")
        if self.operator not in _NEEDS_VALUES and self.values:
            yield Flaw("values", f"{self.operator} takes no values")


class PodSelectorSpec(Wire):
    """Conditions that a pod must all meet; with `pods`, these pods and nothing else."""

    namespaces: list[str] = Field(default_factory=list)
    """Namespaces to look in; the experiment's own by default."""
    field_selectors: dict[str, str] = Field(default_factory=dict)
    """Fields of the pod and the value each must have, as `status.phase: Running`."""
    label_selectors: dict[str, str] = Field(default_factory=dict)
    """Labels of the pod and the value each must have."""
    expression_selectors: list[Requirement] = Field(default_factory=list)
    """Conditions on labels."""
    annotation_selectors: dict[str, str] = Field(default_factory=dict)
    """Annotations of the pod and the value each must have."""
    nodes: list[str] = Field(default_factory=list)
    """Names of nodes; pods on any of these, or on one that `nodeSelectors` finds."""
    node_selectors: dict[str, str] = Field(default_factory=dict)
    """Labels of nodes and the value each must have."""
    pods: dict[str, list[str]] = Field(default_factory=dict)
    """Names of pods by namespace; every other condition is then ignored."""
    pod_phase_selectors: list[str] = Field(default_factory=list)
    """Phases, as `Running`; with `!` in front, a phase to leave out."""


class PodSelector(Wire):
    """Pods that fit, and how many of them to take."""

    selector: PodSelectorSpec
    """Which pods fit."""
    mode: Mode
    """How many of them: `one` or `all`, or as `value` says: a number (`fixed`), a percentage
    (`fixed-percent`), or a random one up to that (`random-max-percent`)."""
    value: str = ""
    """The number or percentage that `mode` asks for; `one` and `all` take none."""

    def number(self) -> int:
        """Read `value` as the number that the mode needs; 0 where it needs none."""
        return int(self.value) if self.mode not in {"one", "all"} else 0

    def flaws(self) -> Iterator[Flaw]:
        """Check `value` against `mode`, in upstream's words."""
        if self.mode in {"one", "all"}:
            return
        if not _WHOLE.fullmatch(self.value):
            yield Flaw("value", f"parse value field error:{self.value!r} is not a whole number")
        elif self.mode == "fixed" and self.number() <= 0:
            yield Flaw("value", "value must be greater than 0 with mode:fixed")
        elif self.mode != "fixed" and not 0 < self.number() <= _MOST:
            yield Flaw(
                "value",
                f"value of {self.number()} is invalid, Must be (0,100] with mode:{self.mode}",
            )


class ContainerSelector(PodSelector):
    """Containers of the pods that are taken."""

    container_names: list[str] = Field(default_factory=list)
    """Names of containers in each pod; none means the first one. A pod that has none of them
    is passed over."""
