"""`squall-node http` and the certificates and keys it is given."""

import functools
import ssl
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from squall.errors import InvalidFault
from squall.linux.tests.http_servers import encrypted, mirror, ordered, rule
from squall.linux.tests.http_tls import (
    NAME,
    TEAPOT,
    Identity,
    as_pem,
    context_of,
    made,
    opened,
    own,
    status,
)
from squall.linux.tests.two_namespaces import TwoNamespaces

pytestmark = pytest.mark.host

NEAR = TwoNamespaces.NEAR


@pytest.fixture(scope="module")
def server() -> Identity:
    return made(NAME)


@pytest.fixture
def serving(serving: Callable[..., None]) -> Callable[..., None]:
    return functools.partial(serving, port=443)


async def test_a_name_that_has_another_certificate_is_left_to_its_server(
    net, serving, proxy, server, tmp_path
):
    other = made("other.test")
    context = context_of(server, tmp_path)
    (tmp_path / "other").mkdir()
    second = context_of(other, tmp_path / "other")

    def choose(opened: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        if name == "other.test":
            opened.context = second

    context.sni_callback = choose
    serving(encrypted(context, mirror))
    await ordered(proxy, rule("Response", 443, **TEAPOT), **own(server))
    for _ in range(2):
        with opened(net.far, NEAR, other, name="other.test") as client:
            assert status(client) == b"200"
    with opened(net.far, NEAR, server) as client:
        assert status(client) == b"418"
    assert (await proxy.ask("state"))["sealed"] == {"other.test": 2}


async def test_a_certificate_that_is_not_the_servers_own_may_stand_for_its_name(
    net, serving, proxy, server, tmp_path
):
    serving(encrypted(context_of(server, tmp_path), mirror))
    renewed = made(NAME)
    await ordered(proxy, rule("Response", 443, **TEAPOT), **own(renewed))
    with opened(net.far, NEAR, renewed) as client:
        assert status(client) == b"418"


WRONG: list[tuple[str, str]] = [
    ("sEcReT", "no PEM of a private key"),
    (as_pem(ec.generate_private_key(ec.SECP256R1()), passphrase=b"x"), "is encrypted"),
    (as_pem(ec.generate_private_key(ec.SECP521R1())), "P-256, P-384 and Ed25519 can"),
    (as_pem(ec.generate_private_key(ec.SECP256R1())), "not that of its certificate"),
]


@pytest.mark.parametrize(("key", "reason"), WRONG, ids=[reason for _, reason in WRONG])
async def test_a_key_that_is_of_no_use_is_refused_with_the_reason_and_not_told(
    proxy, server, key, reason
):
    wrong = [{"port": 443, "certificate": server.certificate, "key": key}]
    with pytest.raises(InvalidFault, match=f"port 443: .*{reason}") as told:
        await ordered(proxy, rule("Response", 443), certificates=wrong)
    assert key.splitlines()[-1] not in str(told.value)
