"""Two namespaces to measure in, and a list of what was measured at the end of the run."""

import pytest

from squall.linux.tests.conftest import cables, network, shaping  # noqa: F401  (fixtures)

MEASURED = pytest.StashKey[list[str]]()


@pytest.fixture
def tell(request):
    """Note a figure, to be shown after the last test."""
    return request.config.stash.setdefault(MEASURED, []).append


def pytest_terminal_summary(terminalreporter, config):
    if lines := config.stash.get(MEASURED, []):
        terminalreporter.section("measured on this kernel")
        for line in sorted(lines):
            terminalreporter.line(line)
