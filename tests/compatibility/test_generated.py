"""What is generated is checked in, and fresh."""

from pathlib import Path

import pytest

from testbed.generate import generated, main

ROOT = Path(__file__).parents[2]
FILES = dict(generated())


@pytest.mark.parametrize("path", FILES)
def test_a_generated_file_is_as_the_models_say(path):
    assert (ROOT / path).read_text() == FILES[path], "run `make generate`"


def test_no_generated_file_is_left_of_a_kind_that_is_gone():
    there = {
        str(path.relative_to(ROOT))
        for directory in ("deploy/crds", "deploy/helm/squall/files/crds", "docs/reference")
        for path in (ROOT / directory).iterdir()
    }
    assert there == set(FILES)


def test_generating_writes_every_file(tmp_path):
    main(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")} == set(FILES)
