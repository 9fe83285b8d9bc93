import asyncio

import pytest

from squall.clock import FakeClock
from squall.faults.http_traffic.injector import HTTPInjector
from squall.faults.http_traffic.probe import HTTPProbe
from squall.faults.http_traffic.tests.faults import TARGET, fault, live, world
from squall.injection.contract import Sample, Verdict, Way
from squall.injection.laws import Notes
from squall.injection.world.fake_http import FakeHttp
from squall.injection.world.http import Counters

SECONDS = 0.5


class Scene:
    """A target with one fault, and what its probe finds."""

    def __init__(self, **fields):
        self.clock, self.http = FakeClock(), FakeHttp()
        self.world = world(self.http, self.clock)
        self.live = live(fault(**fields))
        self.probe = HTTPProbe(self.world)

    async def inject(self):
        await HTTPInjector(self.world).converge(TARGET, [self.live], Notes())

    async def sample(self, **counted):
        """Measure while so much is counted."""
        measuring = asyncio.ensure_future(self.probe.sample(TARGET, self.live))
        await asyncio.sleep(0)
        if counted:
            self.http.counted[TARGET.id] = {self.live.source: Counters(**counted)}
        await self.clock.advance(SECONDS)
        return await measuring

    async def judged(self, before=None, **counted):
        await self.inject()
        sample = await self.sample(**counted)
        return self.probe.judge(self.live.fault, before, sample), sample


async def test_what_the_proxy_did_in_traffic_confirms_a_fault():
    judged, sample = await Scene(target="Response", replace={"code": 503}).judged(
        exchanges=9, matched=4, replaced=4
    )
    assert judged.verdict is Verdict.CONFIRMED
    assert judged.asked == "responses, replace on port 80"
    assert judged.measured == "4 of 4 replaced (passive)"
    assert (sample.way, sample.values["exchanges"]) == (Way.PASSIVE, 9)


async def test_where_nothing_flows_a_request_of_ours_shows_it():
    scene = Scene(delay="100ms", path="/api/*")
    before = await scene.probe.sample(TARGET, scene.live)
    assert (before.values["in_force"], before.values["request_status"]) == (0, 200)
    judged, sample = await scene.judged(before)
    assert scene.http.requests[-1] == ("GET", "/api/")
    assert (judged.verdict, sample.way) == (Verdict.CONFIRMED, Way.ACTIVE)
    assert judged.measured == (
        "delay 100.0 ms, mean of 1; a request of ours took 102.0 ms, 2.0 ms before (active)"
    )


async def test_a_delay_that_only_the_proxy_knows_of_is_a_mismatch():
    values = {"in_force": 1, "matched": 1, "delayed": 1, "delay_ms": 100, "request_status": 200}
    sample = Sample(Way.ACTIVE, {**values, "request_ms": 2.0})
    judged = HTTPProbe(world(FakeHttp())).judge(fault(delay="100ms"), None, sample)
    assert judged.verdict is Verdict.MISMATCH


async def test_a_request_of_ours_that_is_broken_off_shows_an_abort():
    judged, sample = await Scene(abort=True).judged()
    assert (judged.verdict, judged.measured) == (Verdict.CONFIRMED, "1 of 1 aborted (active)")
    assert sample.values["request_status"] == 0


async def test_a_fault_that_does_not_act_is_a_mismatch():
    scene = Scene(abort=True)
    scene.http.loyal = False
    judged, _ = await scene.judged()
    assert judged.verdict is Verdict.MISMATCH
    assert judged.measured == "a request of ours was answered as if nothing had happened (active)"


async def test_what_is_not_in_force_is_a_mismatch():
    scene = Scene(abort=True)
    sample = await scene.sample()
    judged = scene.probe.judge(scene.live.fault, None, sample)
    assert judged.verdict is Verdict.MISMATCH
    assert judged.measured == "nothing of it is in force in the target"


async def test_what_came_before_we_looked_confirms_a_fault_that_nothing_of_ours_may_try():
    scene = Scene(abort=True, method="POST")
    await scene.inject()
    scene.http.counted[TARGET.id] = {scene.live.source: Counters(exchanges=1, matched=1, aborted=1)}
    judged = scene.probe.judge(scene.live.fault, None, await scene.sample())
    assert (judged.verdict, judged.measured) == (Verdict.CONFIRMED, "1 of 1 aborted (passive)")
    scene.http.counted[TARGET.id] = {scene.live.source: Counters(exchanges=1, matched=1)}
    judged = scene.probe.judge(scene.live.fault, None, await scene.sample())
    assert judged.verdict is Verdict.MISMATCH


@pytest.mark.parametrize(
    "fields",
    [
        {"method": "POST"},
        {"outgoing": True},
        {"grpc": {"status": 14}, "abort": False},
        {"delay": "10s"},
        {"percent": 50},
    ],
)
async def test_no_request_is_sent_that_could_do_harm_or_tell_nothing(fields):
    scene = Scene(**{"abort": True, **fields})
    judged, sample = await scene.judged()
    assert scene.http.requests == []
    assert (judged.verdict, sample.way) == (Verdict.INCONCLUSIVE, Way.PASSIVE)
    assert judged.measured == "no request came (passive)"


@pytest.mark.parametrize(
    ("counted", "said"),
    [
        ({"exchanges": 7}, "none of 7 exchanges was one that is meant"),
        ({"foreign": 2}, "2 connections, none of which spoke HTTP"),
        (
            {"sealed": 3},
            (
                "no request could be read; 3 TLS connections could not be opened: the client "
                "trusts only what it pins, or no certificate was given for its name; of these, "
                "whole connections are hit, or none"
            ),
        ),
    ],
)
async def test_why_nothing_was_hit_is_said(counted, said):
    scene = Scene(abort=True, method="POST")
    judged, _ = await scene.judged(**counted)
    assert judged.verdict is Verdict.INCONCLUSIVE
    assert judged.measured == f"{said} (passive)"


@pytest.mark.parametrize(
    ("mean_ms", "verdict"),
    [
        (100.4, Verdict.CONFIRMED),
        (89, Verdict.MISMATCH),
        (111, Verdict.MISMATCH),
        (91, Verdict.CONFIRMED),
    ],
)
async def test_a_delay_is_held_against_its_mean(mean_ms, verdict):
    judged, _ = await Scene(delay="100ms").judged(
        exchanges=10, matched=10, delayed=10, delay_us_sum=int(mean_ms * 10_000)
    )
    assert judged.verdict is verdict
    assert judged.measured == f"delay {mean_ms:.1f} ms, mean of 10 (passive)"


async def test_one_exchange_that_was_late_may_be_a_busy_host():
    judged, _ = await Scene(delay="10ms", method="POST").judged(
        exchanges=1, matched=1, delayed=1, delay_us_sum=90_000
    )
    assert judged.verdict is Verdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("counted", "verdict"),
    [
        ({"exchanges": 100, "matched": 52}, Verdict.CONFIRMED),
        ({"exchanges": 100, "matched": 90}, Verdict.MISMATCH),
    ],
)
async def test_a_share_is_held_against_chance(counted, verdict):
    judged, _ = await Scene(abort=True, percent=50).judged(aborted=counted["matched"], **counted)
    assert judged.verdict is verdict
    assert judged.asked == "50 % of requests, abort on port 80"


async def test_the_share_of_some_exchanges_cannot_be_told_from_all():
    judged, _ = await Scene(abort=True, percent=50, path="/a").judged(
        exchanges=100, matched=5, aborted=5
    )
    assert judged.verdict is Verdict.CONFIRMED


async def test_bodies_that_cannot_be_patched_spoil_it():
    patch = {"body": {"type": "JSON", "value": "{}"}}
    judged, _ = await Scene(target="Response", patch=patch).judged(
        exchanges=3, matched=3, patched=2, unpatchable=1
    )
    assert judged.verdict is Verdict.MISMATCH
    assert "1 bodies are no JSON" in judged.measured
    judged, _ = await Scene(target="Response", patch=patch).judged(
        exchanges=3, matched=3, patched=3, crowded=2
    )
    assert judged.verdict is Verdict.MISMATCH
    assert "2 bodies passed unchanged: too much of others was held" in judged.measured


async def test_calls_that_got_another_end_are_told():
    judged, _ = await Scene(target="Response", grpc={"status": 14, "afterMessages": 3}).judged(
        exchanges=3, matched=3, ended=2
    )
    assert judged.verdict is Verdict.CONFIRMED
    assert judged.measured == "2 gRPC calls given another end (passive)"


async def test_a_target_without_a_server_on_that_port_says_nothing():
    scene = Scene(abort=True)
    scene.http.listening = False
    judged, sample = await scene.judged()
    assert (judged.verdict, sample.way) == (Verdict.INCONCLUSIVE, Way.PASSIVE)


def test_what_was_counted_before_a_restart_of_the_proxy_is_not_taken_off():
    assert Counters(matched=2).since(Counters(matched=5)) == Counters()


def test_a_sample_without_anything_is_no_proof():
    judged = HTTPProbe(world(FakeHttp())).judge(fault(abort=True), None, Sample(Way.PASSIVE))
    assert judged.verdict is Verdict.MISMATCH
