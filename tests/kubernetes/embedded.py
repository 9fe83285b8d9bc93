"""The embedded API on a port of its own, in a thread beside the tests."""

import asyncio
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from squall.faults import kinds
from squall.injection.served import served_kinds
from squall.kubernetes.embedded.certificates import certificates
from squall.kubernetes.embedded.core_kinds import core_kinds
from squall.kubernetes.embedded.fake_runtime import FakeRuntime
from squall.kubernetes.embedded.kinds import Kinds
from squall.kubernetes.embedded.objects import Objects
from squall.kubernetes.embedded.serve import Server
from squall.kubernetes.embedded.store import Store
from testbed.apiserver import ApiServer, write_kubeconfig

KEPT_CHANGES = 100
"""Enough for any test's watch, and soon forgotten where a test wants that."""


def embedded_objects(store: Store) -> Objects:
    """All that `squall up` serves, over a store."""
    return Objects(store, Kinds([*core_kinds(), *served_kinds(kinds())]))


@contextmanager
def embedded_server(folder: Path) -> Iterator[ApiServer]:
    """Serve until the end of the block."""
    files = certificates(folder / "tls", ["127.0.0.1"])
    token = secrets.token_hex(16)
    started = threading.Event()
    loop = asyncio.new_event_loop()
    found: list[int] = []

    async def serve(leave: asyncio.Event) -> None:
        store = Store(folder / "squall.db", kept_changes=KEPT_CHANGES)
        server = Server(embedded_objects(store), token, files.server_context(), FakeRuntime())
        found.append(await server.start("127.0.0.1", 0))
        started.set()
        await leave.wait()
        await server.stop()
        store.close()

    leave = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(leave),))
    thread.start()
    try:
        if not started.wait(20):
            raise RuntimeError("the embedded API did not start in 20 s")
        server = ApiServer(
            url=f"https://127.0.0.1:{found[0]}",
            token=token,
            authority=files.authority,
            folder=folder,
            kubeconfig=folder / "kubeconfig",
        )
        write_kubeconfig(server)
        yield server
    finally:
        loop.call_soon_threadsafe(leave.set)
        thread.join(20)
        loop.close()
