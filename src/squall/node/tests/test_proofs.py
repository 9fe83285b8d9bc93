import pytest

from squall.node.tests.bench import Bench


@pytest.fixture
async def bench(tmp_path):
    bench = Bench(tmp_path)
    await bench.renew()
    await bench.pod()
    yield bench
    await bench.close()


def verdict(bench):
    return bench.record()["proof"]["verdict"]


async def test_a_quiet_moment_does_not_take_a_verdict_away(bench):
    await bench.start()
    await bench.fault()
    await bench.pass_seconds(4)
    bench.walls.dark = True
    await bench.pass_seconds(12)
    assert verdict(bench) == "Confirmed"


async def test_what_is_not_seen_from_the_start_proves_nothing_until_it_is(bench):
    bench.walls.dark = True
    await bench.start()
    await bench.fault()
    await bench.pass_seconds(12)
    assert verdict(bench) == "Inconclusive"
    bench.walls.dark = False
    await bench.pass_seconds(5)
    assert verdict(bench) == "Confirmed"
