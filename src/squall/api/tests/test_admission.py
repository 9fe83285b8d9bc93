import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.api.cluster import Resource
from squall.api.crd import own_kinds, served_experiment
from squall.api.experiment import ExperimentSpec

KIND = served_experiment(Resource("example.org", "v1", "Anything", "anythings"), ExperimentSpec)
OWN = {kind.resource.kind: kind for kind in own_kinds()}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
FIELDS = st.sampled_from(sorted(KIND.schema["properties"]["spec"]["properties"]))


def experiment(**spec):
    return {
        "metadata": {"name": "x", "namespace": "here"},
        "spec": {"selector": {}, "mode": "all", **spec},
    }


def refused(**spec):
    return [str(cause) for cause in KIND.validate(KIND.default(experiment(**spec)), None)]


def test_a_selector_without_namespaces_looks_in_its_own():
    assert KIND.default(experiment())["spec"]["selector"] == {"namespaces": ["here"]}
    second = {"selector": {"namespaces": []}, "mode": "all"}
    filled = KIND.default(experiment(target=second))["spec"]
    assert filled["target"]["selector"] == {"namespaces": ["here"]}


def test_namespaces_that_are_named_stay():
    selector = {"namespaces": ["there"]}
    assert KIND.default(experiment(selector=selector))["spec"]["selector"] == selector


def test_defaults_change_nothing_in_the_object_that_was_given():
    obj = experiment()
    KIND.default(obj)
    assert obj == experiment()


@pytest.mark.parametrize(
    ("mode", "value"),
    [
        ("one", ""),
        ("all", "nonsense"),
        ("fixed", "1"),
        ("fixed", "1000000"),
        ("fixed-percent", "100"),
        ("random-max-percent", "+1"),
    ],
)
def test_a_value_that_fits_its_mode_is_accepted(mode, value):
    assert refused(mode=mode, value=value) == []


@pytest.mark.parametrize(
    ("mode", "value", "said"),
    [
        ("fixed", "", "Required value: parse value field error:'' is not a whole number"),
        ("fixed", "x", "parse value field error:'x' is not a whole number"),
        ("fixed", "0", "value must be greater than 0 with mode:fixed"),
        ("fixed-percent", "0", "value of 0 is invalid, Must be (0,100] with mode:fixed-percent"),
        (
            "random-max-percent",
            "101",
            "value of 101 is invalid, Must be (0,100] with mode:random-max-percent",
        ),
    ],
)
def test_a_value_that_does_not_fit_its_mode_is_refused_in_upstreams_words(mode, value, said):
    (message,) = refused(mode=mode, value=value)
    assert message.startswith("spec.value: ")
    assert message.endswith(said)


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"duration": "soon"}, 'spec.duration: Invalid value: "soon": is not a duration'),
        ({"duration": "0s"}, 'spec.duration: Invalid value: "0s": would be over before it begins'),
        ({"duration": "-1m"}, "would be over before it begins"),
        ({"whenCutOff": "hold"}, "spec.duration: Required value: whenCutOff: hold needs it"),
        ({"remoteCluster": "eu"}, 'spec.remoteCluster: Invalid value: "eu": no remote clusters'),
        ({"selection": "twice"}, 'spec.selection: Unsupported value: "twice": supported values'),
        (
            {"seed": -1},
            "spec.seed: Invalid value: -1: spec.seed in body should be greater than or equal to 0",
        ),
        ({"mode": "two"}, 'spec.mode: Unsupported value: "two": supported values: "one", "all"'),
        (
            {"selector": {"expressionSelectors": [{"key": "a", "operator": "In"}]}},
            "spec.selector.expressionSelectors[0].values: Required value: In needs at least one",
        ),
        (
            {
                "selector": {
                    "expressionSelectors": [
                        {"key": "a", "operator": "Exists"},
                        {"key": "a", "operator": "Exists", "values": ["b"]},
                    ]
                }
            },
            'spec.selector.expressionSelectors[1].values: Invalid value: "array": Exists takes no',
        ),
    ],
)
def test_what_could_never_act_is_refused_with_its_path(spec, said):
    (message,) = refused(**spec)
    assert said in message


def test_an_empty_duration_means_no_end():
    assert refused(duration="") == []
    assert ExperimentSpec.model_validate(experiment(duration="")["spec"]).duration is None


def test_every_cause_is_found_at_once():
    fields = [text.partition(":")[0] for text in refused(mode="two", duration="x", seed="y")]
    assert fields == ["spec.mode", "spec.seed", "spec.duration"]


def test_a_missing_spec_is_one_clear_cause():
    assert [str(cause) for cause in KIND.validate({"metadata": {}}, None)] == [
        "spec: Required value"
    ]


def test_a_spec_never_changes():
    old = KIND.default(experiment(duration="1m"))
    (cause,) = KIND.validate(KIND.default(experiment(duration="2m")), old)
    assert cause.field == "spec"
    assert cause.message.endswith("Cannot update chaos spec")
    assert KIND.validate(KIND.default(experiment(duration="1m")), old) == []


def test_an_experiment_that_was_accepted_can_always_be_annotated_and_released():
    # Rules may become stricter from one version to the next.
    old = experiment(duration="0s")
    assert KIND.validate(old, old) == []


def test_a_workload_restarts_by_default_and_needs_a_command():
    kind = OWN["Workload"]
    assert kind.default({"spec": {"command": ["sh"]}})["spec"]["restartPolicy"] == "Always"
    assert [str(cause) for cause in kind.validate({"spec": {"command": []}}, None)] == [
        "spec.command: Invalid value: 0: spec.command in body should have at least 1 items"
    ]


def test_a_halt_needs_no_reason():
    assert OWN["Halt"].validate({"metadata": {"name": "now"}}, None) == []


@given(st.dictionaries(FIELDS | st.text(), JSON) | JSON, JSON)
def test_nonsense_is_refused_and_never_raises(spec, metadata):
    obj = {"metadata": metadata, "spec": spec}
    for kind in (KIND, *OWN.values()):
        filled = kind.default(obj)
        for cause in kind.validate(filled, None):
            assert cause.field.partition(".")[0].partition("[")[0] in {"spec", "metadata"}
            assert cause.message
        kind.validate(filled, obj)


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"command": [""]}, "spec.command"),
        ({"command": ["a\0b"]}, "spec.command"),
        ({"command": ["a"], "labels": {"a b": "c"}}, "spec.labels"),
        ({"command": ["a"], "labels": {"app": "c" * 64}}, "spec.labels"),
        ({"command": ["a"], "labels": {"a": "b=c"}}, "spec.labels"),
        ({"command": ["a"], "env": {"A=B": "c"}}, "spec.env"),
        ({"command": ["a"], "env": {"": "c"}}, "spec.env"),
        ({"command": ["a"], "env": {"A": "b\0"}}, "spec.env"),
    ],
)
def test_a_workload_that_could_never_run_is_refused(spec, field):
    kind = OWN["Workload"]
    assert [cause.field for cause in kind.validate({"spec": spec}, None)] == [field]


def test_a_workload_with_labels_and_environment_is_accepted():
    labels = {"app": "web", "example.org/tier": "", "v": "1.2_3"}
    spec = {"command": ["sh", "-c", ""], "labels": labels, "env": {"A": "b=c\nd", "E": ""}}
    assert OWN["Workload"].validate({"spec": spec}, None) == []
