"""Delay, break off and change HTTP requests and responses."""

from squall.api.cluster import Resource
from squall.faults.http_traffic.model import HTTPChaosSpec, HTTPFault, secrets, share
from squall.injection.kind import FaultKind

KIND = FaultKind(
    resource=Resource("chaos-mesh.org", "v1alpha1", "HTTPChaos", "httpchaos"),
    spec=HTTPChaosSpec,
    fault=HTTPFault,
    share=share,
    needs=("http:proxy",),
    injector="squall.faults.http_traffic.injector:HTTPInjector",
    probe="squall.faults.http_traffic.probe:HTTPProbe",
    secrets=secrets,
    columns=(("duration", ".spec.duration"),),
)
