import pytest

from squall.api.cluster import ApiError
from squall.kubernetes.kubeconfig import find, load


@pytest.fixture
def files(tmp_path):
    for name in ("named", "first", "second", "kubeconfig"):
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("explicit", "variable", "found"),
    [
        ("named", "first", "named"),
        (None, "first", "first"),
        (None, "none:second:first", "second"),
        (None, "", "kubeconfig"),
    ],
)
def test_the_nearest_word_says_which_kubeconfig(files, explicit, variable, found):
    environ = {"KUBECONFIG": ":".join(str(files / name) for name in variable.split(":") if name)}
    assert find(files / explicit if explicit else None, environ, files) == files / found


@pytest.mark.parametrize(
    ("explicit", "variable"), [("none", "first"), (None, "none"), (None, "no:none")]
)
def test_what_was_named_is_not_replaced_by_something_else(files, explicit, variable):
    environ = {"KUBECONFIG": ":".join(str(files / name) for name in variable.split(":"))}
    with pytest.raises(FileNotFoundError, match="none") as missing:
        find(files / explicit if explicit else None, environ, files)
    assert "--kubeconfig" in str(missing.value)


def test_without_any_kubeconfig_the_way_out_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="start `squall up`"):
        find(None, {}, tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        "clusters: []\ncontexts: []",
        "clusters: []\ncontexts: []\ncurrent-context: none",
        "clusters: []\ncontexts: [{name: a, context: {cluster: b}}]\ncurrent-context: a",
    ],
)
def test_a_file_that_is_no_kubeconfig_is_named(tmp_path, text):
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(ApiError, match=f"{path} is no usable kubeconfig"):
        load(path)
