"""How targets find each other by name."""

from squall.linux.names import hosts_of, write_in_place
from squall.node.sandboxes import PodName

WEB, DB, FAR = PodName("default", "web"), PodName("default", "db"), PodName("other", "web")
PODS = {
    WEB: ("10.192.0.2", "fd00::2"),
    DB: ("10.192.0.3", "fd00::3"),
    FAR: ("10.192.0.4", "fd00::4"),
}


def resolve(text, name):
    return {line.split()[0] for line in text.splitlines() if name in line.split()[1:]}


def test_a_name_leads_to_every_address_in_its_own_namespace():
    seen = hosts_of(WEB, PODS)
    assert resolve(seen, "db") == {"10.192.0.3", "fd00::3"}
    assert resolve(seen, "web") == {"10.192.0.2", "fd00::2"}
    assert resolve(hosts_of(FAR, PODS), "web") == {"10.192.0.4", "fd00::4"}
    assert resolve(hosts_of(FAR, PODS), "db") == set()


def test_another_namespace_is_reached_by_the_long_name():
    assert resolve(hosts_of(WEB, PODS), "web.other") == {"10.192.0.4", "fd00::4"}
    assert resolve(hosts_of(FAR, PODS), "db.default") == {"10.192.0.3", "fd00::3"}


def test_a_pod_comes_first_in_its_own_file():
    lines = hosts_of(WEB, PODS).splitlines()
    assert lines[2] == "10.192.0.2\tweb web.default"


def test_the_file_that_containers_have_mounted_stays_the_same(tmp_path):
    path = tmp_path / "hosts"
    write_in_place(path, "long content\n")
    inode, moment = path.stat().st_ino, path.stat().st_mtime_ns
    write_in_place(path, "long content\n")
    assert path.stat().st_mtime_ns == moment
    write_in_place(path, "short\n")
    assert (path.stat().st_ino, path.read_text()) == (inode, "short\n")
