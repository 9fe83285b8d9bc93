import pytest

from squall.api.cluster import ApiError
from squall.kubernetes.embedded.selectors import field_test, label_test


def labelled(**labels):
    return {"metadata": {"name": "x", "labels": labels}}


@pytest.mark.parametrize(
    ("selector", "labels", "selected"),
    [
        ("app=web", {"app": "web"}, True),
        ("app==web", {"app": "db"}, False),
        ("app!=web", {}, True),
        ("app in (web, db)", {"app": "db"}, True),
        ("app notin (web)", {}, True),
        ("app", {"app": ""}, True),
        ("!app", {"app": ""}, False),
        ("app=web,!old", {"app": "web"}, True),
        ("app=", {"app": ""}, True),
    ],
)
def test_label_selectors_choose(selector, labels, selected):
    assert label_test(selector)(labelled(**labels)) is selected


@pytest.mark.parametrize("selector", ["a=b=c", "=", "app in web", "a b", "app in (a", "-=1", "a>1"])
def test_a_label_selector_that_cannot_be_read_is_refused(selector):
    with pytest.raises(ApiError) as refused:
        label_test(selector)
    assert refused.value.code == 400


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        ("metadata.name=x", True),
        ("spec.node!=a", False),
        ("spec.node=a,spec.on=true", True),
        ("spec.gone=", True),
    ],
)
def test_field_selectors_choose(selector, selected):
    obj = {"metadata": {"name": "x"}, "spec": {"node": "a", "on": True}}
    fields = ("spec.node", "spec.on", "spec.gone")
    assert field_test(selector, fields)(obj) is selected


@pytest.mark.parametrize("selector", ["spec.color=red", "spec.node", "=a"])
def test_a_field_that_is_not_selectable_is_refused(selector):
    with pytest.raises(ApiError):
        field_test(selector, ("spec.node",))


def test_nothing_asked_selects_everything():
    assert label_test(" ") is None
    assert field_test("", ()) is None
