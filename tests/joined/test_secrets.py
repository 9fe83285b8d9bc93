"""Values of Secrets on their way: read by the controller, sealed, opened by one agent alone."""

import asyncio
import base64
import json
from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from squall.api.cluster import NODE_FAULT, SECRET, ApiError
from squall.controller.loop import Controller
from squall.controller.secrets import LOOK_AGAIN_SECONDS
from squall.injection.kind import SecretKey
from squall.node.tests.bench import LEASE_SECONDS
from squall.node.tests.paint import PaintInjector
from squall.sealing import new_key, public_of, seal, unseal
from tests.joined.test_controller_and_agent import KIND, House

SHADE = SecretKey("vault", "palette", "shade")
VALUE = b"ultramarine"
SEEN = []


class SecretPainter(PaintInjector):
    """Remembers what came beside its faults."""

    async def converge(self, target, live, memory):
        SEEN[:] = [dict(one.secrets) for one in live]
        await super().converge(target, live, memory)


class Vault(House):
    kind = replace(
        KIND,
        secrets=lambda _: (SHADE,),
        injector="tests.joined.test_secrets:SecretPainter",
    )
    key = None

    def __init__(self, folder):
        super().__init__(folder)
        self.kinds = {"PaintChaos": self.kind}

    async def lead(self):
        controller = Controller(
            self.cluster, self.clock, {"PaintChaos": self.kind},
            lease_seconds=LEASE_SECONDS, identity="c", registry=CollectorRegistry(),
            sealing_key=public_of(self.key or self.journal.sealing_key),
        )  # fmt: skip
        self.control = asyncio.create_task(controller.run())
        await self.rest()

    async def keep(self, **data):
        data = {name: base64.b64encode(value).decode() for name, value in data.items()}
        meta = {"name": "palette", "namespace": "vault"}
        await self.cluster.create(SECRET, {"metadata": meta, "data": data})

    def node_fault(self):
        (found,) = (obj for key, obj in self.cluster.objects.items() if key[0] == NODE_FAULT)
        return found

    def record(self):
        status = self.cluster.objects[KIND.resource, "default", "x"]["status"]
        return status["experiment"]["containerRecords"][0]

    def said(self):
        return [event["message"] for event in self.record()["events"] if "message" in event]


@pytest.fixture
async def vault(tmp_path):
    SEEN.clear()
    vault = Vault(tmp_path)
    await vault.runs()
    await vault.open()
    yield vault
    await vault.close()


async def test_a_value_reaches_the_injector_and_is_nowhere_in_the_clear(vault):
    await vault.keep(shade=VALUE)
    await vault.apply()
    await vault.let(1)
    assert [{str(SHADE): VALUE}] == SEEN
    for key, obj in vault.cluster.objects.items():
        text = json.dumps(obj)
        assert key[0] == SECRET or VALUE.decode() not in text
        assert key[0] == SECRET or base64.b64encode(VALUE).decode() not in text
    journal = b"".join(path.read_bytes() for path in vault.folder.glob("journal*"))
    assert VALUE not in journal
    await vault.drop()
    assert vault.colors() == []


async def test_nothing_is_written_while_nothing_changes(vault):
    await vault.keep(shade=VALUE)
    await vault.apply(selection="live")
    await vault.let(1)
    before = vault.node_fault()["metadata"]["generation"]
    await vault.let(3 * LOOK_AGAIN_SECONDS)
    assert vault.node_fault()["metadata"]["generation"] == before


async def test_a_value_that_changes_is_followed_and_one_that_goes_is_kept(vault):
    await vault.keep(shade=VALUE)
    await vault.apply(selection="live")
    await vault.let(1)
    await vault.cluster.delete(SECRET, "vault", "palette")
    await vault.let(LOOK_AGAIN_SECONDS + 1)
    assert [{str(SHADE): VALUE}] == SEEN
    assert vault.colors() == ["red"]
    await vault.keep(shade=b"cobalt")
    await vault.let(LOOK_AGAIN_SECONDS + 1)
    assert [{str(SHADE): b"cobalt"}] == SEEN
    assert vault.record()["phase"] == "Injected"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "there is no Secret vault/palette"),
        ({"other": b"x"}, "the Secret vault/palette has no shade; it has other"),
    ],
)
async def test_what_is_missing_is_told_and_nothing_is_injected_until_it_is_there(vault, data, said):
    if data is not None:
        await vault.keep(**data)
    await vault.apply()
    await vault.let(1)
    assert vault.colors() == []
    assert vault.record()["phase"] == "Not Injected"
    assert any(said in message for message in vault.said())
    if data is not None:
        await vault.cluster.delete(SECRET, "vault", "palette")
    await vault.keep(shade=VALUE)
    await vault.let(LOOK_AGAIN_SECONDS + 1)
    assert [{str(SHADE): VALUE}] == SEEN
    assert vault.record()["phase"] == "Injected"


async def test_a_secret_that_may_not_be_read_is_told_with_the_way_out(vault):
    read = vault.cluster.get

    async def refuse(resource, namespace, name):
        if resource == SECRET:
            raise ApiError(403, "Forbidden", "secrets is forbidden")
        return await read(resource, namespace, name)

    vault.cluster.get = refuse
    await vault.apply()
    await vault.let(1)
    assert any("add vault to secretNamespaces" in message for message in vault.said())
    assert vault.colors() == []


async def test_an_experiment_whose_secret_never_came_can_be_deleted(vault):
    await vault.apply()
    await vault.let(1)
    await vault.drop()
    assert not vault.there()


async def test_a_box_for_another_agent_is_no_use_to_this_one(tmp_path):
    vault = Vault(tmp_path)
    vault.key = new_key()
    await vault.runs()
    await vault.open()
    await vault.keep(shade=VALUE)
    await vault.apply()
    await vault.let(1)
    assert any("sealed for another key" in message for message in vault.said())
    assert vault.colors() == []
    await vault.resign()
    vault.key = None
    await vault.lead()
    await vault.let(LOOK_AGAIN_SECONDS + LEASE_SECONDS)
    assert vault.colors() == ["red"]
    await vault.close()


def test_a_box_opens_with_its_key_in_its_place_and_nowhere_else():
    key = new_key()
    box = seal(public_of(key), {"a": b"\x00\xff"}, "here")
    assert unseal(key, box, "here") == {"a": b"\x00\xff"}
    assert seal(public_of(key), {"a": b"\x00\xff"}, "here") != box
    broken = base64.b64encode(base64.b64decode(box)[:-1] + b"\x00").decode()
    for wrong in ((new_key(), box, "here"), (key, box, "there"), (key, broken, "here")):
        with pytest.raises(ValueError, match="sealed for another key, or for another place"):
            unseal(*wrong)
    with pytest.raises(ValueError):  # noqa: PT011  (whatever is wrong with it)
        seal("no key", {}, "here")
