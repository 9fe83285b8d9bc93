"""Faults in names beside rules of the target's own."""

import socket
import struct

import pytest

from squall.errors import Unsupported
from squall.injection.world.names import Answer, NameRule
from squall.linux.tests.conftest import FAR
from squall.linux.tests.name_server import ADDRESS, asked, netns, says, serving
from squall.linux.tests.two_namespaces import inside

pytestmark = [pytest.mark.host]

NETLINK_NETFILTER = 12
HIT, SPARED = "www.example.com", "example.org"
FAILS = NameRule("fails/.", ("*.example.com",), (), Answer("code", 2))
LATE = NameRule("late/.", ("late.example.org",), (), Answer("relayed"), delay_us=50_000)
ways = pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])

STRICT = """
table inet firewall {
  chain output {
    type filter hook output priority filter; policy drop;
    ct state established,related accept
    udp dport 53 accept
    tcp dport 53 accept
    counter drop
  }

  chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    counter drop
  }
}
"""

PROXIED = """
table ip sidecar {
  chain raw_output {
    type filter hook output priority raw;
    udp dport 53 ct zone set 2
    udp sport 15053 ct zone set 2
  }
  chain output {
    type nat hook output priority -100;
    udp dport 53 meta skuid != 1337 redirect to :15053
    tcp dport 53 meta skuid != 1337 redirect to :15053
  }
}
"""


def ruled(cables, rules, tmp_path):
    path = tmp_path / "rules.nft"
    path.write_text(rules)
    cables.run(cables.target, "nft", "-f", str(path))


@pytest.fixture
def sidecar(cables):
    """A proxy of names inside the target, as those of service meshes: on behalf of user 1337."""
    with serving(cables.target, "127.0.0.1", port=15053) as found:
        yield found["127.0.0.1"]


@ways
async def test_names_fail_before_a_proxy_of_the_target_hears_of_them(
    cables, names, server, sidecar, tmp_path, tcp
):
    ruled(cables, PROXIED, tmp_path)
    before = cables.snapshot()
    assert says(asked(cables.target, FAR[4], HIT, tcp=tcp)) == ADDRESS
    assert len(sidecar.seen) == 1
    await names.apply(cables.target, [FAILS, LATE])
    assert says(asked(cables.target, FAR[4], HIT, tcp=tcp)) == "SERVFAIL"
    assert len(sidecar.seen) == 1
    for name in (SPARED, "late.example.org"):
        assert says(asked(cables.target, FAR[4], name, tcp=tcp)) == ADDRESS
    assert len(sidecar.seen) == 3
    assert not server.seen
    await names.apply(cables.target, [])
    assert says(asked(cables.target, FAR[4], HIT, tcp=tcp)) == ADDRESS
    assert cables.snapshot() == before


@ways
async def test_a_firewall_that_knows_the_addresses_of_loopback_is_in_nobodys_way(
    cables, names, server, tmp_path, tcp
):
    open_ = "ip daddr 127.0.0.0/8 accept\n    oif lo accept\n    iif lo accept"
    ruled(cables, STRICT.replace("counter drop", open_), tmp_path)
    await names.apply(cables.target, [FAILS, LATE])
    assert says(asked(cables.target, FAR[4], HIT, tcp=tcp)) == "SERVFAIL"
    for name in (SPARED, "late.example.org"):
        assert says(asked(cables.target, FAR[4], name, tcp=tcp)) == ADDRESS


async def test_streams_that_a_firewall_would_cut_off_are_let_alone(cables, names, server, tmp_path):
    # To these rules a stream that is led to us goes out by its first device, to another port.
    ruled(cables, STRICT.replace("counter drop", "oif lo accept\n    iif lo accept"), tmp_path)
    before = cables.snapshot()
    await names.apply(cables.target, [FAILS, LATE])
    assert says(asked(cables.target, FAR[4], HIT)) == "SERVFAIL"
    for name in (SPARED, "late.example.org"):
        assert says(asked(cables.target, FAR[4], name)) == ADDRESS
        assert says(asked(cables.target, FAR[4], name, tcp=True)) == ADDRESS
    assert says(asked(cables.target, FAR[4], HIT, tcp=True)) == ADDRESS
    await names.apply(cables.target, [])
    assert cables.snapshot() == before


@pytest.mark.parametrize("chain", ["output", "input"])
async def test_where_a_firewall_would_drop_our_answers_nothing_is_done(
    cables, names, server, tmp_path, chain
):
    other = {"output": "input", "input": "output"}[chain]
    rules = STRICT.replace(f"hook {other} priority filter; policy drop", f"hook {other} priority 0")
    ruled(cables, rules.replace("counter drop", ""), tmp_path)
    before = cables.snapshot()
    with pytest.raises(Unsupported, match="loopback"):
        await names.apply(cables.target, [FAILS])
    for tcp in (False, True):
        assert says(asked(cables.target, FAR[4], HIT, tcp=tcp)) == ADDRESS
    assert cables.snapshot() == before


async def test_a_queue_of_somebody_else_is_left_to_him(cables, names, server):
    def queues():
        table = cables.run(cables.target, "cat", "/proc/net/netfilter/nfnetlink_queue")
        return {int(line.split()[0]) for line in table.splitlines()}

    with inside(netns(cables.target)):
        his = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    with his:
        bind = struct.pack("=BBH", 0, 0, socket.htons(5300)) + struct.pack("=HHBBH", 8, 1, 1, 0, 0)
        his.send(struct.pack("=IHHII", 16 + len(bind), 0x302, 5, 0, 0) + bind)
        assert his.recv(100)[16:20] == bytes(4)
        await names.apply(cables.target, [FAILS])
        assert queues() == {5300, 5301}
        assert says(asked(cables.target, FAR[4], HIT)) == "SERVFAIL"
        await names.apply(cables.target, [])
        assert queues() == {5300}
