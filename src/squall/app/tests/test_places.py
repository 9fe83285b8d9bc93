"""What an agent leaves in its folders when it ends well."""

from contextlib import closing
from pathlib import Path

import pytest

from squall.app import places as module
from squall.app.places import Places, alone, boot_id, tidied
from squall.node.journal import Journal, Noted


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.setattr(module, "RUN", tmp_path / "run")
    found = Places(tmp_path / "data")
    for folder in (found.directory, found.run):
        folder.mkdir(parents=True)
    return found


def live(places: Places, *noted: str) -> None:
    """Live an agent's life, at whose end so many NodeFaults are known."""
    with alone(places), tidied(places), closing(Journal(places.journal, boot_id())) as journal:
        places.watcher.write_text("7")
        places.watcher.with_suffix(".log").touch()
        journal.note(Noted({"metadata": {"uid": uid}}) for uid in noted)


def test_nothing_is_left_where_nothing_is_needed(places: Places, tmp_path: Path) -> None:
    live(places)
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "run"]


def test_a_journal_that_names_something_stays(places: Places) -> None:
    live(places, "live")
    with closing(Journal(places.journal, boot_id())) as journal:
        assert [fault.uid for fault in journal.faults()] == ["live"]
    assert not places.run.exists()


def test_nothing_is_removed_after_a_failure(places: Places) -> None:
    places.watcher.write_text("7")
    with alone(places), pytest.raises(RuntimeError), tidied(places):
        raise RuntimeError
    assert places.watcher.exists()


def test_what_somebody_else_put_there_stays(places: Places) -> None:
    (places.directory / "notes").touch()
    live(places)
    assert [path.name for path in places.directory.iterdir()] == ["notes"]
