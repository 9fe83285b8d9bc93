from hypothesis import given
from hypothesis import strategies as st

from squall.faults.network.merge import merge, names
from squall.faults.network.tests.faults import delay, live, partition, shaping
from squall.injection.world.network import Cut, Impairment, NetworkState, Peers, Shape

ADDRESSES = {"db": ("10.0.0.9/32", "fd00::9/128")}


def test_nothing_live_is_nothing():
    assert merge([], {}) == NetworkState()


def test_cuts_stand_beside_each_other():
    state = merge([live(partition(["10.0.0.7"])), live(partition(way="in"), "b/.")], {})
    assert state.cuts == (
        Cut("a/.", "out", (Peers("10.0.0.7/32"),)),
        Cut("b/.", "in", None),
    )


def test_shapes_keep_the_order_of_their_faults():
    state = merge([live(delay(delay_us=2), "b/."), live(delay(delay_us=1), "a/.")], {})
    assert state.shapes == (
        Shape("b/.", None, Impairment(delay_us=2)),
        Shape("a/.", None, Impairment(delay_us=1)),
    )


def test_a_name_stands_for_all_of_its_addresses_with_its_port():
    state = merge([live(partition(["db:80"]))], ADDRESSES)
    assert state.cuts[0].peers == (Peers("10.0.0.9/32", 80), Peers("fd00::9/128", 80))
    assert names([live(partition(["db:80", "10.0.0.7"])), live(shaping(["api"]))]) == {"db", "api"}


def test_another_end_without_address_is_not_everybody():
    assert merge([live(partition(["db"])), live(delay(["db"]))], {"db": ()}) == NetworkState()
    assert merge([live(partition([])), live(delay([]))], {}) == NetworkState()


def test_networks_that_overlap_are_joined_port_by_port():
    hosts = ["10.0.0.0/24", "10.0.0.7", "10.0.1.0/24", "10.0.0.7:80"]
    [cut] = merge([live(partition(hosts))], {}).cuts
    assert cut.peers == (Peers("10.0.0.0/23"), Peers("10.0.0.7/32", 80))


@given(st.permutations(["10.0.0.7", "10.0.0.8", "fd00::7", "10.0.0.0/8", "db"]))
def test_the_order_of_peers_says_nothing(hosts):
    usual = merge([live(partition(sorted(hosts)))], ADDRESSES)
    assert merge([live(partition(hosts))], ADDRESSES) == usual


def test_the_same_faults_in_another_order_are_the_same_cuts():
    one, other = live(partition(), "a/."), live(partition(), "b/.")
    assert merge([one, other], {}) == merge([other, one], {})
