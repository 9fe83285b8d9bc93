import json

from squall.injection.world.network import Counters, Cut, Peers
from squall.linux import nftables
from squall.linux.nftables import Classified

CUT = Cut("a/.", "out", (Peers("10.0.0.7/32"), Peers("fd00::7/128", 443)), "eth0")


def listed(*parts, chain="output", comment="a/."):
    """What `nft -j list table` says of one rule."""
    rule = {"chain": chain, "comment": comment, "expr": list(parts)}
    return json.dumps({"nftables": [{"metainfo": {}}, {"rule": rule}]})


def match(left, right, op="=="):
    return {"match": {"op": op, "left": left, "right": right}}


OUT_OF_ETH0 = match({"meta": {"key": "oifname"}}, "eth0")
DROP = {"drop": None}


def to(right):
    return match({"payload": {"protocol": "ip", "field": "daddr"}}, right)


def test_nothing_asked_is_no_table():
    assert nftables.script(()) == ""


def test_a_table_is_owned_and_replaced_as_one_transaction():
    text = nftables.script((CUT,))
    assert text.count("flags owner") == 2
    assert text.index("delete table inet squall_network") < text.index("chain output")


PORTED = "meta l4proto { tcp, udp, sctp } th dport 443"


def test_each_family_and_port_has_a_rule_with_the_name_of_its_fault():
    rules = [line.strip() for line in nftables.script((CUT,)).splitlines() if "counter" in line]
    assert rules == [
        'oifname "eth0" ip daddr { 10.0.0.7/32 } counter drop comment "a/."',
        f'oifname "eth0" ip6 daddr {{ fd00::7/128 }} {PORTED} counter drop comment "a/."',
    ]


def test_a_cut_inwards_looks_at_where_packets_come_from():
    text = nftables.script((Cut("a/.", "in", (Peers("10.0.0.7/32", 80),)),))
    assert (
        'iifname != "lo" ip saddr { 10.0.0.7/32 } meta l4proto { tcp, udp, sctp } th sport 80'
        in text
    )


def test_a_whole_family_is_named_since_sets_refuse_it():
    text = nftables.script((Cut("a/.", "out", (Peers("::/0"),)),))
    assert "meta nfproto ipv6 counter drop" in text


def test_neighbours_stay_found():
    text = nftables.script((CUT,), [Classified("eth0", None, 0, "5c00:2")])
    assert text.count("nd-neighbor-solicit") == 2


def test_every_way_nft_writes_networks_is_read():
    ranged = {"range": ["10.0.0.6", "10.0.0.9"]}
    prefix = {"prefix": {"addr": "10.1.0.0", "len": 16}}
    [cut] = nftables.cuts(listed(OUT_OF_ETH0, to({"set": ["10.9.9.9", ranged, prefix]}), DROP))
    assert cut.peers == tuple(
        Peers(cidr) for cidr in ("10.0.0.6/31", "10.0.0.8/31", "10.1.0.0/16", "10.9.9.9/32")
    )
    assert (cut.source, cut.way, cut.device) == ("a/.", "out", "eth0")


def test_a_rule_that_drops_nothing_is_no_cut():
    assert nftables.cuts(listed(OUT_OF_ETH0, to("10.0.0.7"))) == ()
    assert nftables.cuts(listed(DROP, chain="somebody")) == ()
    assert nftables.cuts("") == ()


def test_counters_are_added_up_by_fault():
    counter = {"counter": {"packets": 3, "bytes": 99}}
    assert nftables.cut_counters(listed(counter, DROP)) == {"a/.": Counters(3, dropped=3)}
