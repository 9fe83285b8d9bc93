"""Manifests written for Chaos Mesh are accepted as they are, and keep their meaning."""

from pathlib import Path

import pytest
import yaml

from squall.api.conformity import violations
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
    assert not list(violations(SERVED[manifest["kind"]].schema, {"spec": wire}))


@pytest.mark.parametrize("manifest", MANIFESTS)
def test_what_agents_are_told_survives_the_wire(manifest):
    kind = kinds()[manifest["kind"]]
    spec = kind.spec.model_validate(stored(manifest)["spec"])
    peers = {key: [Peer("d/x", ("10.0.0.1",))] for key in spec.selectors()}
    for key in peers:
        fault = kind.share(spec, key, peers)
        if fault is not None:
            assert kind.fault.model_validate(fault.model_dump(mode="json", by_alias=True)) == fault
