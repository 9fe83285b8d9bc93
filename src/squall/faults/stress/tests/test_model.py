import pytest

from squall.api.units import Size
from squall.faults.stress import KIND
from squall.faults.stress.model import StressChaosSpec, StressFault, share
from squall.injection.served import served_kinds

SERVED = served_kinds({"StressChaos": KIND})[0]
SELECTOR = {"selector": {}, "mode": "one"}
BOTH = {"cpu": {"workers": 2, "load": 50}, "memory": {"workers": 1, "size": "70%"}}


def refused(**fields):
    obj = {"metadata": {"namespace": "d"}, "spec": {**SELECTOR, **fields}}
    return [str(cause) for cause in SERVED.validate(SERVED.default(obj), None)]


def test_every_target_is_told_what_to_use_up():
    spec = StressChaosSpec.model_validate({**SELECTOR, "stressors": BOTH})
    fault = share(spec, ".", {})
    assert (fault.cpu.workers, fault.cpu.load) == (2, 50)
    assert fault.memory.size == Size(percent=70)
    assert StressFault.model_validate(fault.model_dump(mode="json", by_alias=True)) == fault


def test_arguments_of_stress_ng_stand_in_place_of_stressors():
    spec = StressChaosSpec.model_validate(
        {**SELECTOR, "stressors": BOTH, "stressngStressors": "--cpu 1 --temp-path '/a b'"}
    )
    assert share(spec, ".", {}) == StressFault(arguments=("--cpu", "1", "--temp-path", "/a b"))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "spec.stressors: Required value: missing stressors"),
        ({"stressngStressors": " "}, "spec.stressors: Required value: missing stressors"),
        ({"stressors": {}}, 'spec.stressors: Invalid value: "object": missing stressors'),
        (
            {"stressors": {"cpu": {"workers": 0}}},
            "spec.stressors.cpu.workers: Invalid value: 0: workers should always be positive",
        ),
        (
            {"stressors": {"memory": {"workers": -1}}},
            "spec.stressors.memory.workers: Invalid value: -1: workers should always be positive",
        ),
        (
            {"stressors": {"cpu": {"workers": 8193}}},
            (
                "spec.stressors.cpu.workers: Invalid value: 8193: "
                "spec.stressors.cpu.workers in body should be less than or equal to 8192"
            ),
        ),
        (
            {"stressors": {"memory": {"workers": 1, "size": "101%"}}},
            (
                'spec.stressors.memory.size: Invalid value: "101%": illegal proportion: '
                "it must be from 0% to 100%"
            ),
        ),
        (
            {"stressngStressors": "--cpu '1"},
            (
                'spec.stressngStressors: Invalid value: "--cpu \'1": '
                "cannot be split into arguments: No closing quotation"
            ),
        ),
    ],
)
def test_what_could_never_act_is_refused_with_its_path(fields, said):
    assert refused(**fields) == [said]


def test_an_empty_size_leaves_it_to_the_stressor():
    memory = {"workers": 1, "size": ""}
    assert refused(stressors={"memory": memory}) == []
    spec = StressChaosSpec.model_validate({**SELECTOR, "stressors": {"memory": memory}})
    assert share(spec, ".", {}).memory.size is None
