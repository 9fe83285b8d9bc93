import pytest

from squall.linux.packets import PacketsProcess
from squall.linux.tests.packet_faults import end
from squall.linux.tests.two_namespaces import TwoNamespaces


@pytest.fixture
def net():
    made = TwoNamespaces()
    yield made
    made.close()


@pytest.fixture
async def process(net, tmp_path):
    started = await PacketsProcess.start(net.near, tmp_path / "packets", lease_seconds=5)
    yield started
    if not started.gone.is_set():
        started.close()
    end(started)
