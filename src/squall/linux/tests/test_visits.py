import asyncio
import errno
import os

import pytest

from squall.errors import TargetGone
from squall.injection.world.target import Target
from squall.linux.processes import started
from squall.linux.visits import Visits

HERE = Target("d/here/app", "uid", "", os.getpid(), started(os.getpid()) or 0)


async def visit(volume, path="", methods=(), target=HERE):
    return await Visits().visit(target, str(volume), path, methods, within_seconds=5)


async def test_the_first_file_that_fits_is_read_and_nothing_is_changed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.log").write_text("true")
    (tmp_path / "b.txt").write_text("other")
    was = (tmp_path / "a/x.log").stat()
    seen = await visit(tmp_path, f"{tmp_path}/**/*.log")
    assert seen.path == f"{tmp_path}/a/x.log"
    assert [(one.call, one.errno) for one in seen.accesses] == [
        ("stat", 0),
        ("open", 0),
        ("read", 0),
        ("listxattr", 0),
        ("close", 0),
        ("statfs", 0),
    ]
    assert (seen.attributes.size, seen.attributes.kind) == (4, "regularFile")
    now = (tmp_path / "a/x.log").stat()
    assert (now.st_mtime_ns, now.st_ctime_ns, now.st_atime_ns) == (
        was.st_mtime_ns,
        was.st_ctime_ns,
        was.st_atime_ns,
    )


@pytest.mark.parametrize(
    ("methods", "calls"),
    [
        (["read"], ["read"]),
        (["getattr", "flush"], ["stat", "close"]),
        (["readdir"], ["list"]),
        (["statfs"], ["statfs"]),
        (["write", "fsync", "unlink"], []),
        (["release"], []),
    ],
)
async def test_only_what_a_rule_names_is_looked_at(tmp_path, methods, calls):
    (tmp_path / "x").write_text("true")
    seen = await visit(tmp_path, "", methods)
    assert [one.call for one in seen.accesses] == calls


async def test_a_file_that_is_named_is_gone_to_without_looking_around(tmp_path):
    (tmp_path / "x").write_text("true")
    seen = await visit(tmp_path, f"{tmp_path}/x")
    assert seen.path == f"{tmp_path}/x"
    assert "list" not in [one.call for one in seen.accesses]
    missing = await visit(tmp_path, f"{tmp_path}/y", ["lookup"])
    assert [(one.call, one.errno) for one in missing.accesses] == [("stat", errno.ENOENT)]


async def test_a_link_at_the_end_is_not_followed(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "secret").write_text("ours")
    (tmp_path / "data/link").symlink_to(tmp_path / "secret")
    seen = await visit(tmp_path / "data", f"{tmp_path}/data/link", ["read", "open", "getattr"])
    assert [one.call for one in seen.accesses] == ["stat"]
    assert seen.attributes.kind == "symlink"


async def test_a_pattern_that_fits_nothing_is_no_visit(tmp_path):
    seen = await visit(tmp_path, f"{tmp_path}/*.log", ["read"])
    assert (seen.path, seen.accesses) == ("", ())


async def test_a_target_that_has_ended_is_told(tmp_path):
    other = Target("d/x/app", "uid", "", HERE.pid, HERE.started + 1)
    with pytest.raises(TargetGone):
        await visit(tmp_path, target=other)


async def test_a_call_that_is_held_is_told_as_such_and_not_made_twice(tmp_path, monkeypatch):
    visits = Visits()
    (tmp_path / "x").write_text("true")
    held = asyncio.Event()
    loop, pread = asyncio.get_running_loop(), os.pread
    calls = []

    def slow(*arguments):
        calls.append(arguments)
        asyncio.run_coroutine_threadsafe(held.wait(), loop).result()
        return pread(*arguments)

    monkeypatch.setattr(os, "pread", slow)
    for _ in range(2):
        seen = await visits.visit(HERE, str(tmp_path), "", ["read"], within_seconds=0.1)
        assert [one.errno for one in seen.accesses] == [None]
        assert seen.accesses[0].seconds >= 0.09
    held.set()
    seen = await visits.visit(HERE, str(tmp_path), "", ["read"], within_seconds=5)
    assert [one.errno for one in seen.accesses] == [0]
    assert len(calls) == 1
