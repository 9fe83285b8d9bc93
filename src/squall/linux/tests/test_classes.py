from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from squall.injection.world.network import Impairment, Peers, Shape
from squall.linux.classes import combinations, matches

CIDRS = ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "0.0.0.0/0", "fd00::/8",
         "fd00::1/128", "::/0"]  # fmt: skip
ADDRESSES = [
    "10.1.2.3",
    "10.1.2.4",
    "10.1.3.3",
    "10.2.0.1",
    "11.0.0.1",
    "fd00::1",
    "fd00::2",
    "fe80::1",
]
PORTS = [0, 80, 443]

peers = st.none() | st.lists(
    st.builds(Peers, st.sampled_from(CIDRS), st.sampled_from(PORTS)), min_size=1, max_size=4
).map(tuple)
shapes = st.lists(st.builds(Shape, st.just("a/."), peers, st.just(Impairment())), max_size=4)


def passes(shape, address, port):
    return shape.peers is None or any(
        ip_address(address) in ip_network(peer.cidr) and peer.port in {0, port}
        for peer in shape.peers
    )


def first_match(rules, address, port):
    for rule in rules:
        here = rule.networks is None or any(
            ip_address(address) in ip_network(cidr) for cidr in rule.networks
        )
        if here and rule.port in {0, port}:
            return rule.shapes
    return ()


@given(shapes, st.sampled_from(ADDRESSES), st.sampled_from([80, 443, 8080]))
def test_the_first_match_is_every_shape_that_the_packet_passes(found, address, port):
    wanted = tuple(at for at, shape in enumerate(found) if passes(shape, address, port))
    assert first_match(matches(found), address, port) == wanted


@given(shapes)
def test_every_rule_leads_to_some_shape(found):
    rules = matches(found)
    assert all(rule.shapes for rule in rules)
    assert set(combinations(rules)) == {rule.shapes for rule in rules}


def test_addresses_alone_need_one_rule():
    many = tuple(Peers(f"10.0.0.{n}/32") for n in range(1, 100))
    assert len(matches([Shape("a/.", many, Impairment())])) == 1
