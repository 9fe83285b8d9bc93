"""The last lines of a log."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from squall.linux import logs as module
from squall.linux.logs import LogFiles


async def _never(_id):
    await asyncio.Event().wait()


async def _read(path, **asked):
    options = {"follow": False, "tail_lines": None, "limit_bytes": None} | asked
    files = LogFiles(lambda _: path, _never)
    return b"".join([block async for block in files.read("id", **options)])


@given(text=st.text("ab\n", max_size=30), lines=st.integers(0, 6), block=st.integers(1, 40))
def test_the_last_lines_are_those_that_a_reader_would_count(tmp_path_factory, text, lines, block):
    path = tmp_path_factory.mktemp("logs") / "log"
    path.write_text(text)
    before, module._BLOCK = module._BLOCK, block
    try:
        found = asyncio.run(_read(path, tail_lines=lines)).decode()
    finally:
        module._BLOCK = before
    every = text.splitlines(keepends=True)
    assert found == "".join(every[len(every) - lines :] if lines < len(every) else every)


@given(limit=st.integers(0, 12))
def test_a_limit_is_kept(tmp_path_factory, limit):
    path = tmp_path_factory.mktemp("logs") / "log"
    path.write_bytes(b"0123456789")
    assert asyncio.run(_read(path, limit_bytes=limit)) == b"0123456789"[:limit]
