"""Slow down, lose, damage or cut what targets send each other."""

from squall.api.cluster import Resource
from squall.faults.network.model import NetworkChaosSpec, NetworkFault, needed, share
from squall.injection.kind import FaultKind

KIND = FaultKind(
    resource=Resource("chaos-mesh.org", "v1alpha1", "NetworkChaos", "networkchaos"),
    spec=NetworkChaosSpec,
    fault=NetworkFault,
    share=share,
    needs=("network:partition", "network:shape"),
    needed=needed,
    injector="squall.faults.network.injector:NetworkInjector",
    probe="squall.faults.network.probe:NetworkProbe",
    columns=(("action", ".spec.action"), ("duration", ".spec.duration")),
)
