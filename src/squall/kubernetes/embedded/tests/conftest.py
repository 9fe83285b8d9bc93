"""An embedded API on a port of its own, in the test's own event loop."""

import secrets
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from squall.faults import kinds
from squall.injection.served import served_kinds
from squall.kubernetes.embedded.certificates import certificates
from squall.kubernetes.embedded.core_kinds import core_kinds
from squall.kubernetes.embedded.fake_runtime import FakeRuntime
from squall.kubernetes.embedded.kinds import Kinds
from squall.kubernetes.embedded.objects import Objects
from squall.kubernetes.embedded.serve import Server
from squall.kubernetes.embedded.store import Store

TOKEN = secrets.token_hex()


@dataclass
class Running:
    """A server, and a client that it trusts."""

    objects: Objects
    server: Server
    runtime: FakeRuntime
    tls: ssl.SSLContext
    url: str
    token: str
    client: httpx2.AsyncClient


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory):
    return certificates(tmp_path_factory.mktemp("pki"), ["127.0.0.1", "localhost"])


@pytest.fixture
async def api(tmp_path: Path, pki) -> AsyncIterator[Running]:
    store = Store(tmp_path / "squall.db")
    objects = Objects(store, Kinds([*core_kinds(), *served_kinds(kinds())]))
    runtime = FakeRuntime()
    server = Server(objects, TOKEN, pki.server_context(), runtime)
    port = await server.start("127.0.0.1", 0)
    tls = ssl.create_default_context(cafile=str(pki.authority))
    url = f"https://127.0.0.1:{port}"
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with httpx2.AsyncClient(base_url=url, headers=headers, verify=tls) as client:
        yield Running(objects, server, runtime, tls, url, TOKEN, client)
    await server.stop()
    store.close()
