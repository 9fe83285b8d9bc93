"""Lists of trusted authorities below the root of a process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from squall.errors import TargetGone
from squall.injection.world.target import Target
from squall.linux import namespaces
from squall.linux.trust import LISTS, LinuxTrust

pytestmark = pytest.mark.host

SLEEPER = "import os, sys, time; os.chroot(sys.argv[1]); print(flush=True); time.sleep(600)"
THEIRS = b"-----BEGIN CERTIFICATE-----\ntheirs\n-----END CERTIFICATE-----\n"
A = "-----BEGIN CERTIFICATE-----\na\n-----END CERTIFICATE-----\n"
B = A.replace("a\n", "b\n")


@pytest.fixture
def root(tmp_path):
    if os.geteuid():
        pytest.skip("needs root")
    for path in LISTS:
        (tmp_path / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "own.pem").write_bytes(b"own")
    return tmp_path


@pytest.fixture
def target(root):
    command = (sys.executable, "-c", SLEEPER, str(root))
    environment = {**os.environ, "SSL_CERT_FILE": "/own.pem"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield Target("default/web", "", "", process.pid, namespaces.started(process.pid))
        process.kill()


@pytest.fixture
def debian(root):
    path = root / LISTS[0].lstrip("/")
    path.write_bytes(THEIRS)
    return path


@pytest.mark.parametrize("before", [THEIRS, b"", b"no end of line", b"\n\n"])
async def test_what_is_added_is_taken_out_to_the_byte(target, debian, before):
    debian.write_bytes(before)
    debian.chmod(0o640)
    inode, trust = debian.stat().st_ino, LinuxTrust()
    await trust.apply(target, {"a/.": A})
    await trust.apply(target, {"a/.": A, "b/.": B})
    assert A in debian.read_text()
    assert debian.read_bytes().startswith(before)
    assert await trust.ours(target) == {"a/.": A, "b/.": B}
    await LinuxTrust().apply(target, {"b/.": B})
    assert A not in debian.read_text()
    assert B in debian.read_text()
    await trust.apply(target, {})
    assert debian.read_bytes() == before
    assert (debian.stat().st_ino, debian.stat().st_mode & 0o777) == (inode, 0o640)


async def test_whom_it_trusts_is_told_without_us(target, debian):
    trust = LinuxTrust()
    before = await trust.roots(target)
    assert "theirs" in before
    assert "own" in before
    await trust.apply(target, {"a/.": A})
    assert await trust.roots(target) == before


async def test_the_same_again_writes_nothing(target, debian):
    trust = LinuxTrust()
    await trust.apply(target, {"a/.": A})
    os.utime(debian, (1, 1))
    await trust.apply(target, {"a/.": A})
    assert debian.stat().st_mtime == 1


async def test_what_others_do_to_a_list_meanwhile_stays(target, debian):
    trust = LinuxTrust()
    await trust.apply(target, {"a/.": A})
    with debian.open("ab") as file:
        file.write(b"more of theirs\n")
    await trust.apply(target, {})
    assert debian.read_bytes() == THEIRS + b"more of theirs\n"


async def test_a_list_that_a_program_was_told_of_is_one(target, root):
    await LinuxTrust().apply(target, {"a/.": A})
    assert A in (root / "own.pem").read_text()
    await LinuxTrust().apply(target, {})
    assert (root / "own.pem").read_bytes() == b"own"


async def test_links_lead_nowhere_outside_of_the_root(target, root, debian, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "ca.crt"
    outside.write_bytes(b"outside")
    link = root / LISTS[4].lstrip("/")
    link.symlink_to(outside)
    (root / LISTS[1].lstrip("/")).symlink_to(f"{'../' * 20}{outside}")
    (root / LISTS[3].lstrip("/")).symlink_to(LISTS[0])
    await LinuxTrust().apply(target, {"a/.": A})
    assert outside.read_bytes() == b"outside"
    assert debian.read_text().count(A) == 1


async def test_what_is_no_file_is_no_list(target, root):
    os.mkfifo(root / LISTS[0].lstrip("/"))
    (root / LISTS[3].lstrip("/")).mkdir()
    await LinuxTrust().apply(target, {"a/.": A})
    assert await LinuxTrust().ours(target) == {"a/.": A}  # in the one that was named


@pytest.fixture
def reader(root):
    """Somebody who waits for a pipe to be written to; whoever opens and closes it ends that."""
    pipe = root / LISTS[0].lstrip("/")
    os.mkfifo(pipe)
    with subprocess.Popen(("cat", pipe), stdout=subprocess.DEVNULL) as process:
        yield process
        process.kill()


async def test_what_is_no_file_is_not_even_opened(target, reader):
    await LinuxTrust().apply(target, {"a/.": A})
    await LinuxTrust().apply(target, {})
    with pytest.raises(subprocess.TimeoutExpired):
        reader.wait(timeout=0.5)


HOSTS = next((path for path in map(Path, LISTS) if path.exists()), Path("none"))
"""The list of this host."""


@pytest.fixture
def shown_the_hosts(root):
    """A target that has the list of the host as one of its own, under a name of its own."""
    mounting = f'mount --bind {HOSTS.resolve()} {root}/own.pem && exec "$@"'
    sleeper = (sys.executable, "-c", SLEEPER, str(root))
    command = ("unshare", "--mount", "sh", "-c", mounting, "sh", *sleeper)
    environment = {**os.environ, "SSL_CERT_FILE": "/own.pem"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield Target("default/web", "", "", process.pid, namespaces.started(process.pid))
        process.kill()


async def test_a_list_of_the_host_is_not_touched_by_another_name(shown_the_hosts, debian):
    before = HOSTS.read_bytes()
    try:
        await LinuxTrust().apply(shown_the_hosts, {"a/.": A})
        assert HOSTS.read_bytes() == before
        assert A in debian.read_text()
    finally:
        await LinuxTrust().apply(shown_the_hosts, {})


@pytest.fixture
def rootless():
    """A target that sees the files of the host, as a local workload does."""
    with subprocess.Popen(("sleep", "600")) as process:
        yield Target("default/web", "", "", process.pid, namespaces.started(process.pid))
        process.kill()


async def test_the_lists_of_the_host_itself_are_never_touched(rootless, debian):
    lists = [path for path in map(Path, LISTS) if path.exists()]
    before = {path: path.read_bytes() for path in lists}
    assert before, "this host has no list to be spared"
    await LinuxTrust().apply(rootless, {"a/.": A})
    assert {path: path.read_bytes() for path in lists} == before
    assert await LinuxTrust().roots(rootless) == ""


async def test_a_target_that_has_ended_is_told(target):
    os.kill(target.pid, 9)
    while namespaces.alive(target):
        pass
    with pytest.raises(TargetGone):
        await LinuxTrust().apply(target, {})
