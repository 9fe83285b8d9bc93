from dataclasses import replace

from squall.node.doctor import Ability, Capability, Finding, examine, findings, usable
from squall.node.tests.paint import PAINT

BRUSH = Capability("paint:brush", Ability.OK, "brush")
SPRAY = Capability("paint:spray", Ability.FALLBACK, "brush", "no spray can; a brush is slower")
GOLD = Capability("paint:gold", Ability.MISSING, why="no gold; buy some")


class FakeCapabilities:
    def __init__(self):
        self.asked = []

    async def examine(self, names):
        self.asked += names
        return {c.name: c for c in (BRUSH, SPRAY, GOLD) if c.name in self.asked}


KINDS = {
    "B": replace(PAINT, needs=("paint:gold",)),
    "A": replace(PAINT, needs=("paint:spray", "paint:brush", "paint:air")),
}


async def test_every_need_of_every_kind_is_tried_once():
    capabilities = FakeCapabilities()
    await examine(capabilities, {**KINDS, "C": KINDS["A"]})
    assert capabilities.asked == ["paint:air", "paint:brush", "paint:gold", "paint:spray"]


async def test_findings_name_what_is_missing_and_what_takes_its_place():
    found = await examine(FakeCapabilities(), KINDS)
    assert [f.capability.ability.value for f in found] == ["fallback", "ok", "missing", "missing"]
    assert found[0] == Finding("A", SPRAY)
    assert found[2].capability.why, "what nobody could try is missing, with a reason"


def test_a_kind_is_usable_when_one_of_its_actions_is():
    found = findings({c.name: c for c in (BRUSH, SPRAY, GOLD)}, KINDS)
    assert usable("A", found)
    assert not usable("B", found)
    assert usable("needs nothing", found)
