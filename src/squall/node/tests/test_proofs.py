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


async def test_a_fault_that_was_away_and_is_back_is_not_said_to_be_away(bench):
    await bench.start()
    await bench.fault()
    await bench.pass_seconds(4)
    bench.walls.coats.clear()
    for _ in range(50):
        await bench.pass_seconds(0.1)
        if verdict(bench) == "Mismatch":
            break
    assert verdict(bench) == "Mismatch"
    bench.walls.dark = True
    await bench.pass_seconds(12)
    assert bench.record()["proof"]["measured"] == "it is dark"
    assert verdict(bench) == "Inconclusive"


async def test_what_is_not_seen_from_the_start_proves_nothing_until_it_is(bench):
    bench.walls.dark = True
    await bench.start()
    await bench.fault()
    await bench.pass_seconds(12)
    assert verdict(bench) == "Inconclusive"
    bench.walls.dark = False
    await bench.pass_seconds(5)
    assert verdict(bench) == "Confirmed"
