"""Which networks the pods of an installation get."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from squall.errors import Unsupported
from squall.linux.bridge import choose_subnets
from squall.linux.sandbox_cgroups import hierarchies

_IN_POOL = st.builds(
    lambda bits, length: f"10.{192 + (bits >> 16)}.{bits >> 8 & 255}.{bits & 255}/{length}",
    st.integers(0, 2**22 - 1),
    st.integers(14, 32),
)


@given(st.text(min_size=1), st.lists(_IN_POOL, max_size=8))
def test_no_route_of_the_host_is_overlapped(mark, taken):
    chosen = ip_network(choose_subnets(mark, taken).four)
    assert not any(chosen.overlaps(ip_network(each, strict=False)) for each in taken)


def test_two_installations_rarely_meet():
    assert choose_subnets("squall-1", []) != choose_subnets("squall-2", [])
    assert choose_subnets("squall-1", []) == choose_subnets("squall-1", [])


def test_an_address_is_the_same_number_in_both_families():
    subnets = choose_subnets("squall-1", [])
    four, six = subnets.addresses(7)
    assert int(ip_network(subnets.four)[7]) - int(ip_network(subnets.four)[0]) == 7
    assert (six.startswith("fd"), six.endswith("::7")) == (True, True)
    assert [length for _, length in subnets.with_prefix(7)] == [22, 64]
    assert choose_subnets("squall-1", [], six=False).addresses(7) == (four,)


def test_a_host_without_a_free_network_says_so():
    with pytest.raises(Unsupported, match=r"10\.192\.0\.0/10"):
        choose_subnets("squall-1", ["10.0.0.0/8"])


def test_hierarchies_are_found_on_v1_v2_and_hybrid():
    mounts = (
        "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
        "31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
        "32 30 0:27 / /mnt/again rw - cgroup cgroup rw,cpu,cpuacct\n"
        "33 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "34 30 0:29 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
        "35 30 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"
        "36 30 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n"
    )
    assert [str(path) for path in hierarchies(mounts)] == [
        "/sys/fs/cgroup/cpu,cpuacct",
        "/sys/fs/cgroup/memory",
        "/sys/fs/cgroup/unified",
    ]
