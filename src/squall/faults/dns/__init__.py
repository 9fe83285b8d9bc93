"""Let names that targets look up fail, come late, or lead elsewhere."""

from squall.api.cluster import Resource
from squall.faults.dns.model import DNSChaosSpec, DNSFault, share
from squall.injection.kind import FaultKind

KIND = FaultKind(
    resource=Resource("chaos-mesh.org", "v1alpha1", "DNSChaos", "dnschaos"),
    spec=DNSChaosSpec,
    fault=DNSFault,
    share=share,
    needs=("dns:answers",),
    injector="squall.faults.dns.injector:DNSInjector",
    probe="squall.faults.dns.probe:DNSProbe",
    per_container=lambda _: True,
    columns=(("action", ".spec.action"), ("duration", ".spec.duration")),
)
