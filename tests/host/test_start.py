"""What `squall up` says where it cannot start, and what it leaves alone then."""

import pytest

from squall.app.places import Places
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
    assert not Places(tmp_path / "b").run.exists()


def test_what_is_kept_is_for_root_alone(tmp_path):
    directory = tmp_path / "shared"
    directory.mkdir(mode=0o755)
    with Installation(directory) as up:
        up.squall("halt", "--reason", "a test")
        kept = [path for path in directory.iterdir() if path.suffix not in {".lock", ".log"}]
        assert {path.name for path in kept} >= {"objects.db", "objects.db-wal", "journal.db"}
        assert [path for path in kept if path.is_file() and path.stat().st_mode & 0o077] == []


def test_stores_that_cannot_be_read_are_said_in_words_and_stop_no_recovery(tmp_path):
    up = Installation(tmp_path / "squall", lease_seconds=1)
    up.start()
    up.stop()
    (up.directory / "objects.db").write_bytes(b"garbage " * 999)
    given = ("--data-dir", str(up.directory))
    started = up.squall("up", *given, "--listen", "127.0.0.1:0", check=False)
    recovered = up.squall("recover", "--all", *given, check=False)
    (up.directory / "journal.db").write_bytes(b"garbage " * 999)
    lost = up.squall("recover", "--all", *given, check=False)
    assert (started.returncode, recovered.returncode, lost.returncode) == (75, 0, 75)
    assert "objects.db cannot be opened: file is not a database" in started.stderr
    assert "nothing to take back" in recovered.stdout
    assert "nobody knows what it named" in lost.stderr
    assert "Traceback" not in started.stderr + recovered.stderr + lost.stderr
    assert not Places(up.directory).run.exists()


def test_one_that_is_given_up_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr("testbed.installation.PATIENCE_SECONDS", 0.0)
    late = Installation(tmp_path / "squall")
    with pytest.raises(RuntimeError, match="did not come up"):
        late.start()
    assert not late.alive
