"""The manifests of `squall install` are the chart's."""

from pathlib import Path

import pytest

from testbed import helm
from testbed.manifests import FOLDER, rendered

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.kubernetes


@pytest.fixture(scope="module")
def fresh() -> dict[str, str]:
    if not helm.built():  # takes longer than any test may
        pytest.fail("helm is not built yet; run `python -m testbed.helm`")
    return dict(rendered())


def test_the_manifests_are_as_the_chart_says(fresh: dict[str, str]):
    there = {
        str(path.relative_to(ROOT)): path.read_text() for path in (ROOT / FOLDER).glob("*.yaml")
    }
    assert there == fresh, "run `make generate`"
