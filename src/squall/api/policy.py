"""What an installation lets experiments do, whoever made them; read by controller and agents."""

from collections.abc import Mapping

from pydantic import Field

from squall.api.metadata import INJECT, INJECT_ENABLED
from squall.api.wire import Wire

EVERYTHING = 100
"""Percent: no limit on how much of what a selector matches may be hit."""


class Extent(Wire):
    """How much of what one selector matches is hit."""

    hit: int
    """Pods that are hit."""
    of: int
    """Pods that the selector matches."""


class Policy(Wire):
    """Limits of one installation. Everybody who acts checks them: nobody relies on the one before.

    The controller passes over what is refused and says why; an agent refuses it even when it is
    told to do it.
    """

    target_namespace: str = ""
    """The only namespace whose pods may be hit; empty: any."""
    protected_namespaces: list[str] = Field(default_factory=list)
    """Namespaces whose pods are never hit."""
    opt_in_namespaces: bool = False
    """Hit only pods in namespaces annotated `chaos-mesh.org/inject: enabled`."""
    opt_in_labels: dict[str, str] = Field(default_factory=dict)
    """Labels that a pod must carry to be hit; none: any pod."""
    most_percent: int = Field(default=EVERYTHING, ge=1, le=EVERYTHING)
    """Refuse an experiment that hits more of the pods that a selector matches."""
    allow_host_network: bool = False
    """Let network faults hit pods that share the network of their node."""

    def refuses(
        self,
        namespace: str,
        labels: Mapping[str, str],
        namespace_annotations: Mapping[str, str] | None,
    ) -> str:
        """Say why a pod must not be hit; empty when it may.

        Args:
            namespace: of the pod.
            labels: of the pod.
            namespace_annotations: of its namespace; None where nobody knows them.
        """
        if self.target_namespace and namespace != self.target_namespace:
            return f"is outside of {self.target_namespace}, the namespace of this installation"
        if namespace in self.protected_namespaces:
            return f"is in {namespace}, which this installation protects"
        if self.opt_in_namespaces:
            found = (namespace_annotations or {}).get(INJECT)
            if found != INJECT_ENABLED:
                return f"is in {namespace}, which is not annotated {INJECT}: {INJECT_ENABLED}"
        for label, value in self.opt_in_labels.items():
            if labels.get(label) != value:
                return f"lacks the label {label}={value} that this installation asks for"
        return ""

    def refuses_extent(self, extent: Extent) -> str:
        """Say why so many pods must not be hit; empty when they may."""
        if extent.hit * EVERYTHING <= extent.of * self.most_percent:
            return ""
        share = f"{extent.hit} of {extent.of} pods"
        return f"would hit {share}; this installation allows {self.most_percent} %"
