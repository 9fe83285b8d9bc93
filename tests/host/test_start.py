"""What `squall up` says where it cannot start, and what it leaves alone then."""

import pytest

from testbed.installation import Installation

pytestmark = [pytest.mark.host, pytest.mark.timeout(60)]


@pytest.fixture
def installation(tmp_path):
    with Installation(tmp_path / "squall", lease_seconds=2) as up:
        yield up


def test_a_second_one_on_the_same_directory_is_refused_and_disarms_nobody(installation):
    in_charge = (installation.directory / "watcher.lock").read_text()
    listen = ("--listen", "127.0.0.1:0", "--no-containers")
    second = installation.squall(
        "up", "--data-dir", str(installation.directory), *listen, check=False
    )
    assert second.returncode == 75
    assert "another squall up" in second.stderr
    assert installation.alive
    assert (installation.directory / "watcher.lock").read_text() == in_charge


def test_a_port_in_use_is_named(installation, tmp_path):
    port = installation.kubeconfig.read_text().partition("https://127.0.0.1:")[2].split()[0]
    listen = ("--listen", f"127.0.0.1:{port}", "--lease-seconds", "1", "--no-containers")
    second = installation.squall("up", "--data-dir", str(tmp_path / "b"), *listen, check=False)
    assert second.returncode == 1
    assert f"127.0.0.1:{port}" in second.stderr
