"""The generated CRDs say what upstream's say, and no more than `compatibility.md` admits.

The tables are upstream's, as data: JSON path below `spec`, type with its format, required, then
constraints of the schema. `[]` is a list, `{}` a map.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from squall.api.crd import definition
from squall.faults import kinds
from squall.injection.served import served_kinds

MODES = ["one", "all", "fixed", "fixed-percent", "random-max-percent"]
TC_DURATION = r"^[0-9]+(\.[0-9]+)?(ns|us|ms|s|m|h)$"


class Field(NamedTuple):
    path: str
    type: str
    required: bool = False
    constraints: Mapping[str, Any] = MappingProxyType({})


def pod_selector(at: str = "") -> list[Field]:
    """The block that every experiment has, and a NetworkChaos once more below `target`."""
    return [
        Field(f"{at}mode", "string", True, {"enum": MODES}),
        Field(f"{at}value", "string"),
        Field(f"{at}selector", "object", True),
        Field(f"{at}selector.annotationSelectors{{}}", "string"),
        Field(f"{at}selector.expressionSelectors[]", "object"),
        Field(f"{at}selector.expressionSelectors[].key", "string", True),
        Field(f"{at}selector.expressionSelectors[].operator", "string", True),
        Field(f"{at}selector.expressionSelectors[].values[]", "string"),
        Field(f"{at}selector.fieldSelectors{{}}", "string"),
        Field(f"{at}selector.labelSelectors{{}}", "string"),
        Field(f"{at}selector.namespaces[]", "string"),
        Field(f"{at}selector.nodeSelectors{{}}", "string"),
        Field(f"{at}selector.nodes[]", "string"),
        Field(f"{at}selector.podPhaseSelectors[]", "string"),
        Field(f"{at}selector.pods{{}}[]", "string"),
    ]


EVERY_EXPERIMENT = [*pod_selector(), Field("duration", "string"), Field("remoteCluster", "string")]
OURS = {"seed", "selection", "whenCutOff"}
"""Optional fields that upstream does not have, in every experiment."""
"""And in some kinds alone."""

PODCHAOS = [
    *EVERY_EXPERIMENT,
    Field("action", "string", True, {"enum": ["pod-kill", "pod-failure", "container-kill"]}),
    Field("containerNames[]", "string"),
    Field("gracePeriod", "integer(int64)", False, {"minimum": 0}),
]

NETWORKCHAOS = [
    *EVERY_EXPERIMENT,
    Field(
        "action",
        "string",
        True,
        {"enum": ["netem", "delay", "loss", "duplicate", "corrupt", "partition", "bandwidth"]},
    ),
    Field("bandwidth", "object"),
    Field("bandwidth.buffer", "integer(int32)", True, {"minimum": 1}),
    Field("bandwidth.limit", "integer(int32)", True, {"minimum": 1}),
    Field("bandwidth.minburst", "integer(int32)", False, {"minimum": 0}),
    Field("bandwidth.peakrate", "integer(int64)", False, {"minimum": 0}),
    Field("bandwidth.rate", "string", True),
    Field("corrupt", "object"),
    Field("corrupt.correlation", "string", False, {"default": "0"}),
    Field("corrupt.corrupt", "string", True),
    Field("delay", "object"),
    Field("delay.correlation", "string", False, {"default": "0"}),
    Field("delay.jitter", "string", False, {"pattern": TC_DURATION, "default": "0ms"}),
    Field("delay.latency", "string", True, {"pattern": TC_DURATION}),
    Field("delay.reorder", "object"),
    Field("delay.reorder.correlation", "string", False, {"default": "0"}),
    Field("delay.reorder.gap", "integer", True),
    Field("delay.reorder.reorder", "string", True),
    Field("device", "string"),
    Field("direction", "string", False, {"enum": ["to", "from", "both"], "default": "to"}),
    Field("duplicate", "object"),
    Field("duplicate.correlation", "string", False, {"default": "0"}),
    Field("duplicate.duplicate", "string", True),
    Field("externalTargets[]", "string"),
    Field("loss", "object"),
    Field("loss.correlation", "string", False, {"default": "0"}),
    Field("loss.loss", "string", True),
    Field("rate", "object"),
    Field("rate.rate", "string", True),
    Field("target", "object"),
    *pod_selector("target."),
    Field("targetDevice", "string"),
]

STRESSCHAOS = [
    *EVERY_EXPERIMENT,
    Field("containerNames[]", "string"),
    Field("stressngStressors", "string"),
    Field("stressors", "object"),
    Field("stressors.cpu", "object"),
    Field("stressors.cpu.load", "integer", False, {"minimum": 0, "maximum": 100}),
    Field("stressors.cpu.options[]", "string"),
    Field("stressors.cpu.workers", "integer", True, {"maximum": 8192}),
    Field("stressors.memory", "object"),
    Field("stressors.memory.options[]", "string"),
    Field(
        "stressors.memory.oomScoreAdj",
        "integer",
        False,
        {"minimum": -1000, "maximum": 1000, "default": 0},
    ),
    Field("stressors.memory.size", "string"),
    Field("stressors.memory.workers", "integer", True, {"maximum": 8192}),
]

DNSCHAOS = [
    *EVERY_EXPERIMENT,
    Field("action", "string", True, {"enum": ["error", "random"]}),
    Field("containerNames[]", "string"),
    Field("patterns[]", "string"),
]

HTTPCHAOS = [
    *EVERY_EXPERIMENT,
    Field("abort", "boolean"),
    Field("code", "integer(int32)"),
    Field("delay", "string"),
    Field("method", "string"),
    Field("patch", "object"),
    Field("patch.body", "object"),
    Field("patch.body.type", "string", True),
    Field("patch.body.value", "string", True),
    Field("patch.headers[][]", "string"),
    Field("patch.queries[][]", "string"),
    Field("path", "string"),
    Field("port", "integer(int32)"),
    Field("replace", "object"),
    Field("replace.body", "string(byte)"),
    Field("replace.code", "integer(int32)"),
    Field("replace.headers{}", "string"),
    Field("replace.method", "string"),
    Field("replace.path", "string"),
    Field("replace.queries{}", "string"),
    Field("request_headers{}", "string"),
    Field("response_headers{}", "string"),
    Field("target", "string", True, {"enum": ["Request", "Response"]}),
    Field("tls", "object"),
    Field("tls.caName", "string"),
    Field("tls.certName", "string", True),
    Field("tls.keyName", "string", True),
    Field("tls.secretName", "string", True),
    Field("tls.secretNamespace", "string", True),
]

TIMES = [
    Field(f"attr.{name}{part}", *rest)
    for name in ("atime", "ctime", "mtime")
    for part, *rest in (
        ("", "object"),
        (".nsec", "integer(int64)", True),
        (".sec", "integer(int64)", True),
    )
]
IO_ACTIONS = ["latency", "fault", "attrOverride", "mistake", "noSpace", "powerLoss"]  # two ours
IOCHAOS = [
    *EVERY_EXPERIMENT,
    *TIMES,
    Field("action", "string", True, {"enum": IO_ACTIONS}),
    Field("attr", "object"),
    Field("attr.blocks", "integer(int64)"),
    Field("attr.gid", "integer(int32)"),
    Field("attr.ino", "integer(int64)"),
    Field("attr.kind", "string"),
    Field("attr.nlink", "integer(int32)"),
    Field("attr.perm", "integer"),
    Field("attr.rdev", "integer(int32)"),
    Field("attr.size", "integer(int64)"),
    Field("attr.uid", "integer(int32)"),
    Field("containerNames[]", "string"),
    Field("delay", "string"),
    Field("errno", "integer(int32)"),
    Field("methods[]", "string"),
    Field("mistake", "object"),
    Field("mistake.filling", "string", False, {"enum": ["zero", "random"]}),
    Field("mistake.maxLength", "integer(int64)", False, {"minimum": 1}),
    Field("mistake.maxOccurrences", "integer(int64)", False, {"minimum": 1}),
    Field("path", "string"),
    Field("percent", "integer", False, {"default": 100}),
    Field("volumePath", "string", True),
]

OURS_IN_KIND = {
    "DNSChaos": {"addresses[]", "delay", "error", "jitter", "percent", "types[]"},
    "HTTPChaos": {
        *("percent", "outgoing", "grpc", "grpc.status", "grpc.message", "grpc.trailers{}"),
        *("grpc.afterMessages", "openTls"),
    },
    "IOChaos": {"space"},
}
"""More of them, in one kind alone."""

KINDS = {
    "DNSChaos": DNSCHAOS,
    "HTTPChaos": HTTPCHAOS,
    "IOChaos": IOCHAOS,
    "PodChaos": PODCHAOS,
    "NetworkChaos": NETWORKCHAOS,
    "StressChaos": STRESSCHAOS,
}
COLUMNS = {
    "DNSChaos": [("action", ".spec.action"), ("duration", ".spec.duration")],
    "HTTPChaos": [("duration", ".spec.duration")],
    "IOChaos": [("action", ".spec.action"), ("duration", ".spec.duration")],
    "PodChaos": [],
    "NetworkChaos": [("action", ".spec.action"), ("duration", ".spec.duration")],
    "StressChaos": [("duration", ".spec.duration")],
}

STATUS = [
    Field("conditions[]", "object"),
    Field("conditions[].reason", "string"),
    Field("conditions[].status", "string", True),
    Field("conditions[].type", "string", True),
    Field("experiment", "object", True),
    Field("experiment.containerRecords[]", "object"),
    Field("experiment.containerRecords[].events[]", "object"),
    Field("experiment.containerRecords[].events[].message", "string"),
    Field("experiment.containerRecords[].events[].operation", "string", True),
    Field("experiment.containerRecords[].events[].timestamp", "string(date-time)", True),
    Field("experiment.containerRecords[].events[].type", "string", True),
    Field("experiment.containerRecords[].id", "string", True),
    Field("experiment.containerRecords[].injectedCount", "integer", True),
    Field("experiment.containerRecords[].phase", "string", True),
    Field("experiment.containerRecords[].recoveredCount", "integer", True),
    Field("experiment.containerRecords[].selectorKey", "string", True),
    Field("experiment.desiredPhase", "string", False, {"enum": ["Run", "Stop"]}),
]

CRDS = {kind.resource.kind: definition(kind) for kind in served_kinds(kinds())}
CONSTRAINTS = ("enum", "pattern", "minimum", "maximum", "default")
# Enumerations of ours where upstream's schema takes any string and fails later.
STRICTER = {"operator", "conditions[].type", "conditions[].status", "events[].type"}


def version(kind):
    (only,) = CRDS[kind]["spec"]["versions"]
    return only


def flat(schema, at="", *, required=False):
    """Every field below a schema, in the notation of the tables."""
    if at and schema["type"] != "array" and "additionalProperties" not in schema:
        known = {name: schema[name] for name in CONSTRAINTS if name in schema}
        form = f"({schema['format']})" if "format" in schema else ""
        yield Field(at, schema["type"] + form, required, known)
    for name, child in schema.get("properties", {}).items():
        path = f"{at}.{name}" if at else name
        yield from flat(child, path, required=name in schema.get("required", ()))
    if "items" in schema:
        yield from flat(schema["items"], f"{at}[]", required=required)
    if "additionalProperties" in schema:
        yield from flat(schema["additionalProperties"], f"{at}{{}}", required=required)


def without_stricter(fields):
    for field in fields:
        known = dict(field.constraints)
        if field.path.endswith(tuple(STRICTER | {"events[].operation"})):
            known.pop("enum", None)
        yield field.path, field._replace(constraints=known)


@pytest.mark.parametrize("kind", KINDS)
def test_a_spec_has_upstreams_fields_and_only_the_extras_we_admit(kind):
    schema = version(kind)["schema"]["openAPIV3Schema"]["properties"]["spec"]
    ours = dict(without_stricter(flat(schema)))
    theirs = {field.path: field for field in KINDS[kind]}
    assert set(ours) - set(theirs) == OURS | OURS_IN_KIND.get(kind, set())
    assert {path: ours[path] for path in theirs} == theirs


@pytest.mark.parametrize("kind", KINDS)
def test_a_status_has_upstreams_fields_and_a_proof(kind):
    schema = version(kind)["schema"]["openAPIV3Schema"]["properties"]["status"]
    ours = dict(without_stricter(flat(schema)))
    theirs = {field.path: field for field in STATUS}
    proof = "experiment.containerRecords[].proof"
    added = {path for path in set(ours) - set(theirs) if not path.startswith(proof)}
    assert added == {"experiment.interrupted"}
    assert {path: ours[path] for path in theirs} == theirs


@pytest.mark.parametrize("kind", KINDS)
def test_names_columns_and_rules_are_upstreams(kind):
    crd = CRDS[kind]
    assert crd["metadata"]["name"] == f"{kind.lower()}.chaos-mesh.org"
    assert crd["spec"]["names"]["plural"] == crd["spec"]["names"]["singular"] == kind.lower()
    assert crd["spec"]["scope"] == "Namespaced"
    shown = version(kind).get("additionalPrinterColumns", [])
    assert [(column["name"], column["jsonPath"]) for column in shown] == COLUMNS[kind]
    spec = version(kind)["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert spec["x-kubernetes-validations"] == [
        {"rule": "self == oldSelf", "message": "Cannot update chaos spec"}
    ]


def test_the_status_has_a_subresource_and_node_faults_are_found_by_node():
    assert all("status" in version(kind)["subresources"] for kind in KINDS)
    assert version("NodeFault")["selectableFields"] == [{"jsonPath": ".spec.nodeName"}]
