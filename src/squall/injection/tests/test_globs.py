import pytest

from squall.injection.world.globs import compiled, is_literal, literal, matches


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("", "/anything/at all", True),
        ("/data/x", "/data/x", True),
        ("/data/x", "/data/x/y", False),
        ("/data/*", "/data/x", True),
        ("/data/*", "/data/x/y", False),
        ("/data/*.log", "/data/.log", True),
        ("/data/?", "/data/x", True),
        ("/data/?", "/data/", False),
        ("/data?x", "/data/x", False),
        ("/data/**/*", "/data/x", True),
        ("/data/**/*", "/data/x/y/z", True),
        ("/data/**/*", "/data", False),
        ("/data/**/wal/*", "/data/wal/1", True),
        ("/data/**/wal/*", "/data/a/b/wal/1", True),
        ("/data/**/wal/*", "/data/a/xwal/1", False),
        ("/data/**", "/data/a/b", True),
        ("**/*.log", "/data/a.log", True),
        ("/data/[a-c]", "/data/b", True),
        ("/data/[a-c]", "/data/d", False),
        ("/data/[!a-c]", "/data/d", True),
        ("/data/[!a-c]", "/data/a", False),
        ("/data[!a]x", "/data/x", False),
        ("/data[/]x", "/data/x", False),
        ("/data/[]]", "/data/]", True),
        ("/data/[*]", "/data/*", True),
        ("/data/[*]", "/data/x", False),
        ("/data/[c-a]", "/data/b", False),
        ("/data/a.b", "/data/axb", False),
        ("/data/new\nline*", "/data/new\nline\n", True),
    ],
)
def test_a_pattern_means_what_upstream_means(pattern, path, expected):
    assert matches(pattern, path) is expected


@pytest.mark.parametrize("pattern", ["/a/***", "/a/x**", "/a/**x", "/a/[b", "/a/[]", "/a/[!]"])
def test_what_is_no_pattern_is_told(pattern):
    with pytest.raises(ValueError, match="is not a pattern"):
        compiled(pattern)


def test_what_every_path_begins_with():
    assert literal("/data/wal-*/x") == "/data/wal-"
    assert literal("/data/x") == "/data/x"
    assert is_literal("/data/x")
    assert not is_literal("/data/[x]")
