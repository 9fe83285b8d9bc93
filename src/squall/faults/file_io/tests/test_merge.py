from hypothesis import given
from hypothesis import strategies as st

from squall.faults.file_io.merge import merge
from squall.faults.file_io.tests.faults import blackout, failing, full, latency, live, lying
from squall.injection.world.files import Attributes, FilesState

places = st.sampled_from(["/a", "/a/b", "/a/b/c", "/ab", "/d"])
lives = st.lists(places, max_size=6).map(
    lambda found: [live(latency(volume=path), f"{at}/.") for at, path in enumerate(found)]
)


def test_nothing_live_is_nothing_in_force():
    assert merge([]) == FilesState()


def test_each_directory_has_its_rules_the_oldest_first():
    one, two, three = latency(volume="/b"), failing(volume="/a"), latency(5, volume="/b")
    state = merge([live(one, "1/."), live(two, "2/."), live(three, "3/.")])
    assert [(v.path, [r.source for r in v.rules]) for v in state.volumes] == [
        ("/a", ["2/."]),
        ("/b", ["1/.", "3/."]),
    ]


def test_a_directory_in_another_one_is_served_by_the_filter_of_the_outer_one():
    inner, outer = failing(volume="/data/wal"), latency(volume="/data")
    for found in (
        [live(inner, "i/."), live(outer, "o/.")],
        [live(outer, "o/."), live(inner, "i/.")],
    ):
        [volume] = merge(found).volumes
        assert volume.path == "/data"
        assert {rule.source: rule.below for rule in volume.rules} == {
            "i/.": "/data/wal",
            "o/.": "/data",
        }
    [alone] = merge([live(inner, "i/.")]).volumes
    assert (alone.path, alone.rules[0].below) == ("/data/wal", "/data/wal")


def test_names_that_only_begin_alike_are_not_inside_each_other():
    state = merge([live(latency(volume="/data"), "1/."), live(latency(volume="/data2"), "2/.")])
    assert [volume.path for volume in state.volumes] == ["/data", "/data2"]


def test_every_part_of_a_fault_is_in_its_rule():
    faults = [
        latency(7, path="/var/lib/data/x", methods=("read",), percent=30),
        failing(28),
        lying(size=1),
        full(9),
        blackout(),
    ]
    [volume] = merge([live(fault, f"{at}/.") for at, fault in enumerate(faults)]).volumes
    slow, broken, false, tight, dark = volume.rules
    assert (slow.latency_us, slow.path, slow.methods, slow.percent) == (
        7000,
        "/var/lib/data/x",
        ("read",),
        30,
    )
    assert broken.errno == 28
    assert false.attributes == Attributes(size=1)
    assert (tight.space, tight.power_loss) == (9, False)
    assert (dark.space, dark.power_loss) == (None, True)


@given(lives)
def test_no_filter_is_inside_another_and_no_rule_is_lost_or_moved(found):
    state = merge(found)
    paths = [volume.path for volume in state.volumes]
    assert not [a for a in paths for b in paths if a != b and f"{a}/".startswith(f"{b}/")]
    rules = [(rule.source, rule.below, v.path) for v in state.volumes for rule in v.rules]
    assert sorted((source, below) for source, below, _ in rules) == sorted(
        (one.source, one.fault.volume) for one in found
    )
    assert all(f"{below}/".startswith(f"{path}/") for _, below, path in rules)


@given(lives, st.randoms())
def test_peeling_in_any_order_leads_where_a_straight_way_leads(found, chance):
    left = list(found)
    while left:
        left.remove(chance.choice(left))
        again = [one for one in found if one in left]
        assert merge(again) == merge(list(again))
        assert {r.source for v in merge(again).volumes for r in v.rules} == {o.source for o in left}
