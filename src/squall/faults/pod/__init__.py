"""Kill pods and containers, or make pods stand still."""

from squall.api.cluster import Resource
from squall.faults.pod.model import (
    PodChaosSpec,
    PodFault,
    by_api,
    needed,
    one_shot,
    per_container,
    share,
)
from squall.injection.kind import FaultKind

KIND = FaultKind(
    resource=Resource("chaos-mesh.org", "v1alpha1", "PodChaos", "podchaos"),
    spec=PodChaosSpec,
    fault=PodFault,
    share=share,
    needs=("pod:freeze",),
    needed=needed,
    injector="squall.faults.pod.injector:PodInjector",
    striker="squall.faults.pod.striker:PodStriker",
    probe="squall.faults.pod.probe:PodProbe",
    one_shot=one_shot,
    per_container=per_container,
    by_api=by_api,
)
