"""Slow down, fail or falsify what targets do with their files."""

from squall.api.cluster import Resource
from squall.faults.file_io.model import FileFault, IOChaosSpec, share
from squall.injection.kind import FaultKind

KIND = FaultKind(
    resource=Resource("chaos-mesh.org", "v1alpha1", "IOChaos", "iochaos"),
    spec=IOChaosSpec,
    fault=FileFault,
    share=share,
    needs=("files:filter",),
    injector="squall.faults.file_io.injector:FileInjector",
    probe="squall.faults.file_io.probe:FileProbe",
    per_container=lambda _: True,
    columns=(("action", ".spec.action"), ("duration", ".spec.duration")),
)
