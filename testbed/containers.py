"""Containers of ours for a test: an installation of its own, and everything that bears its mark."""

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from squall.linux.sandboxes import LinuxSandboxes, Places
from squall.node.sandboxes import Order, PodName

PROGRAM = str(Path(sys.executable).with_name("squall-node"))
WEB, DB = PodName("default", "web"), PodName("default", "db")


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Name an installation that nobody else has."""
    mark = f"squall-{secrets.token_hex(4)}"
    return Places(mark, tmp_path / mark, tmp_path / "logs")


@pytest.fixture
async def sandboxes(places: Places) -> AsyncIterator[LinuxSandboxes]:
    """Be up, and down again afterwards."""
    ours = LinuxSandboxes(places, PROGRAM)
    await ours.up()
    yield ours
    await ours.down()


def order(pod: PodName, *command: str, **environment: str) -> Order:
    """Order a container with an id of its own."""
    return Order(secrets.token_hex(32), pod, "uid-1", command, environment)


async def until(condition: Callable[[], Any]) -> None:
    """Look at the kernel until it shows what is waited for."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  (a kernel tells nobody)
            await asyncio.sleep(0.005)


def of(pid: int, name: str) -> str:
    """Read a file of a process."""
    return Path(f"/proc/{pid}/{name}").read_text()
