import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.api.cluster import ApiError
from squall.kubernetes.embedded.patches import json_patch, merge_patch
from squall.kubernetes.embedded.strategic import strategic_patch

values = st.recursive(
    st.none() | st.booleans() | st.integers(0, 9) | st.text("ab", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abc", min_size=1, max_size=1), inner, max_size=3)
    ),
    max_leaves=8,
)


def outcome(action):
    """The code of a refusal; None where there is none."""
    try:
        action()
    except ApiError as refused:
        return refused.code
    return None


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # RFC 7386, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"a": "foo"}, None, None),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patches_do_what_the_standard_says(target, patch, result):
    assert merge_patch(target, patch) == result


@given(values, values)
def test_a_merge_patch_leaves_its_target_alone_and_twice_is_once(target, patch):
    before = repr(target)
    once = merge_patch(target, patch)
    assert repr(target) == before
    assert merge_patch(once, patch) == once


@pytest.mark.parametrize(
    ("operations", "result"),
    [
        ([{"op": "add", "path": "/b", "value": 1}], {"a": [1, 2], "b": 1}),
        ([{"op": "add", "path": "/a/-", "value": 3}], {"a": [1, 2, 3]}),
        ([{"op": "add", "path": "/a/0", "value": 0}], {"a": [0, 1, 2]}),
        ([{"op": "remove", "path": "/a/1"}], {"a": [1]}),
        ([{"op": "replace", "path": "", "value": {}}], {}),
        ([{"op": "move", "from": "/a", "path": "/b"}], {"b": [1, 2]}),
        ([{"op": "copy", "from": "/a/0", "path": "/a/-"}], {"a": [1, 2, 1]}),
        ([{"op": "test", "path": "/a/0", "value": 1}], {"a": [1, 2]}),
        ([{"op": "add", "path": "/m~0n~1o", "value": 1}], {"a": [1, 2], "m~n/o": 1}),
    ],
)
def test_json_patches_do_what_the_standard_says(operations, result):
    assert json_patch({"a": [1, 2]}, operations) == result


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "test", "path": "/a/0", "value": True},
        {"op": "remove", "path": "/b"},
        {"op": "replace", "path": "/a/2", "value": 1},
        {"op": "add", "path": "/a/3", "value": 1},
        {"op": "add", "path": "/a/-1", "value": 1},
        {"op": "add", "path": "a", "value": 1},
        {"op": "move", "from": "/a", "path": "/a/0"},
        {"op": "nothing", "path": "/a"},
        {"op": "add", "path": "/b"},
        {},
    ],
)
def test_a_json_patch_that_does_not_apply_is_refused(operation):
    with pytest.raises(ApiError) as refused:
        json_patch({"a": [1, 2]}, [operation])
    assert refused.value.code == 422


def test_a_json_patch_cannot_fill_the_memory():
    doubling = [{"op": "copy", "from": "", "path": f"/{n}"} for n in range(64)]
    with pytest.raises(ApiError):
        json_patch({"a": 1}, doubling)


@given(values, values)
def test_a_json_patch_either_applies_or_is_refused(target, operations):
    assert outcome(lambda: json_patch(target, operations)) in (None, 400, 422)


CONTAINERS = {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}


@pytest.mark.parametrize(
    ("patch", "result"),
    [
        ([{"name": "b", "image": "3"}], [{"name": "a", "image": "1"}, {"name": "b", "image": "3"}]),
        ([{"name": "c"}], [*CONTAINERS["containers"], {"name": "c"}]),
        ([{"name": "a", "$patch": "delete"}], [{"name": "b", "image": "2"}]),
        ([{"$patch": "replace"}, {"name": "c"}], [{"name": "c"}]),
        ([{"name": "a", "image": None}], [{"name": "a"}, {"name": "b", "image": "2"}]),
    ],
)
def test_strategic_patches_merge_lists_by_key(patch, result):
    assert strategic_patch(CONTAINERS, {"containers": patch}) == {"containers": result}


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": {"x": 1}}, {"a": {"$patch": "replace", "y": 2}}, {"a": {"y": 2}}),
        ({"a": 1, "b": 2}, {"$retainKeys": ["a"], "a": 3}, {"a": 3}),
        (
            {"finalizers": ["a", "b"]},
            {"$deleteFromPrimitiveList/finalizers": ["a"]},
            {"finalizers": ["b"]},
        ),
        ({"finalizers": ["a"]}, {"finalizers": ["b"]}, {"finalizers": ["a", "b"]}),
        (
            CONTAINERS,
            {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]},
            {"containers": CONTAINERS["containers"][::-1]},
        ),
    ],
)
def test_strategic_directives_are_followed(target, patch, result):
    assert strategic_patch(target, patch) == result


@given(values, values)
def test_a_strategic_patch_either_applies_or_is_refused(target, patch):
    there, asked = {"containers": target}, {"containers": patch}
    assert outcome(lambda: strategic_patch(there, asked)) in (None, 400)
