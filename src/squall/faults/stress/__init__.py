"""Use up the processor and the memory that containers are given."""

from squall.api.cluster import Resource
from squall.faults.stress.model import StressChaosSpec, StressFault, needed, share
from squall.injection.kind import FaultKind

KIND = FaultKind(
    resource=Resource("chaos-mesh.org", "v1alpha1", "StressChaos", "stresschaos"),
    spec=StressChaosSpec,
    fault=StressFault,
    share=share,
    needs=("stress:cpu", "stress:memory"),
    needed=needed,
    injector="squall.faults.stress.injector:StressInjector",
    probe="squall.faults.stress.probe:StressProbe",
    per_container=lambda _: True,
    columns=(("duration", ".spec.duration"),),
)
