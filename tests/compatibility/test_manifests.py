"""Manifests written for Chaos Mesh are accepted as they are, and keep their meaning."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from squall.api.schema_check import problems
from squall.faults import kinds
from squall.injection.kind import Peer
from squall.injection.served import served_kinds

HERE = Path(__file__).parent
ROOMS = HERE.parents[1] / "src/squall/faults"
SERVED = {kind.resource.kind: kind for kind in served_kinds(kinds())}
MANIFESTS = [
    pytest.param(manifest, id=f"{path.parent.name}/{manifest['metadata']['name']}")
    for path in [*sorted(HERE.glob("manifests/*.yaml")), *sorted(ROOMS.glob("*/example.yaml"))]
    for manifest in yaml.safe_load_all(path.read_text())
]


def stored(manifest):
    manifest = {**manifest, "metadata": {"namespace": "default", **manifest["metadata"]}}
    return SERVED[manifest["kind"]].default(manifest)


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_manifest_is_accepted_with_and_without_defaults(manifest):
    assert SERVED[manifest["kind"]].validate(manifest, None) == []
    assert SERVED[manifest["kind"]].validate(stored(manifest), None) == []
    assert stored(stored(manifest)) == stored(manifest)


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_a_spec_means_the_same_after_a_round_trip(manifest):
    model = kinds()[manifest["kind"]].spec
    spec = model.model_validate(stored(manifest)["spec"])
    wire = spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    assert model.model_validate(wire) == spec
    assert problems(SERVED[manifest["kind"]].schema, {"spec": wire}) == []


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_what_agents_are_told_survives_the_wire(manifest):
    kind = kinds()[manifest["kind"]]
    spec = kind.spec.model_validate(stored(manifest)["spec"])
    peers = {key: [Peer("d/x", ("10.0.0.1",))] for key in spec.selectors()}
    for key in peers:
        fault = kind.share(spec, key, peers)
        if fault is not None:
            assert kind.fault.model_validate(fault.model_dump(mode="json", by_alias=True)) == fault


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


def spoiled(value, data):
    """Replace one part of a value, anywhere inside it, by any JSON."""
    members = (
        list(value)
        if isinstance(value, dict)
        else range(len(value) if isinstance(value, list) else 0)
    )
    if not isinstance(value, dict | list) or not members or data.draw(st.booleans()):
        return data.draw(JSON)
    one = data.draw(st.sampled_from(members))
    copy = value.copy()
    copy[one] = spoiled(value[one], data)
    return copy


@given(st.sampled_from([parameter.values[0] for parameter in MANIFESTS]), st.data())
def test_a_spoiled_manifest_is_accepted_or_refused_and_never_raises(manifest, data):
    kind = SERVED[manifest["kind"]]
    obj = kind.default({**manifest, "spec": spoiled(manifest["spec"], data)})
    causes = kind.validate(obj, None)
    if not causes:
        kinds()[manifest["kind"]].spec.model_validate(obj["spec"])
    assert all(cause.field.startswith("spec") and cause.message for cause in causes)
