"""`squall-node http` and TLS, HTTP/2 and gRPC, between real sockets."""

import functools
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import pytest

from squall.linux.tests.http_servers import (
    MESSAGE,
    call,
    calls,
    counted,
    dialled,
    encrypted,
    mirror,
    ordered,
    rule,
)
from squall.linux.tests.http_tls import (
    NAME,
    TEAPOT,
    Identity,
    context_of,
    made,
    opened,
    own,
    status,
)
from squall.linux.tests.two_namespaces import TwoNamespaces

pytestmark = pytest.mark.host

NEAR = TwoNamespaces.NEAR
FAR = TwoNamespaces.FAR[0]


@pytest.fixture(scope="module")
def server() -> Identity:
    return made(NAME)


@pytest.fixture(scope="module")
def authority() -> Identity:
    return made("squall", authority=True)


@pytest.fixture
def serving(serving: Callable[..., None]) -> Callable[..., None]:
    """As others have it, at the port of HTTPS unless told otherwise."""
    return functools.partial(serving, port=443)


async def test_a_server_whose_key_is_given_is_answered_for(net, serving, proxy, server, tmp_path):
    serving(encrypted(context_of(server, tmp_path), mirror))
    await ordered(proxy, rule("Response", 443, **TEAPOT), **own(server))
    with opened(net.far, NEAR, server) as client:
        assert status(client) == b"418"
    state = await proxy.ask("state")
    assert state["certificates"] == [{"port": 443, "certificate": server.certificate}]
    assert "PRIVATE KEY" not in str(state)


async def test_without_a_key_tls_passes_and_is_told(net, serving, proxy, server, tmp_path):
    serving(encrypted(context_of(server, tmp_path), mirror))
    await ordered(proxy, rule("Response", 443, **TEAPOT))
    with opened(net.far, NEAR, server) as client:
        assert status(client) == b"200"
    assert (await counted(proxy))["sealed"] == 1


async def test_a_server_that_wants_to_know_its_client_is_left_to_it(
    net, serving, proxy, server, tmp_path
):
    context = context_of(server, tmp_path)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=server.certificate)
    serving(encrypted(context, mirror))
    await ordered(proxy, rule("Response", 443, **TEAPOT), **own(server))
    with opened(net.far, NEAR, server) as client:
        assert status(client) == b"200"
    assert (await proxy.ask("state"))["sealed"] == {NAME: 1}


def minting(authority: Identity, roots: Identity) -> dict[str, Any]:
    one = {"source": "a", "certificate": authority.certificate, "key": authority.key}
    return {"authorities": [{**one, "roots": roots.certificate}]}


async def test_outgoing_tls_is_opened_where_the_client_trusts_us(
    net, serving, proxy, server, authority, tmp_path
):
    serving(encrypted(context_of(server, tmp_path), mirror), where=net.far)
    teapot = rule("Response", 443, outgoing=True, **TEAPOT)
    await ordered(proxy, teapot, **minting(authority, server))
    with opened(net.near, FAR, authority) as client:
        assert client.getpeername()[0] == FAR
        assert status(client) == b"418"


async def test_a_client_that_does_not_trust_us_is_told_of_and_then_left_alone(
    net, serving, proxy, server, authority, tmp_path
):
    serving(encrypted(context_of(server, tmp_path), mirror), where=net.far)
    teapot = rule("Response", 443, outgoing=True, **TEAPOT)
    await ordered(proxy, teapot, **minting(authority, server))
    with pytest.raises(ssl.SSLCertVerificationError), opened(net.near, FAR, server):
        pass
    deadline = time.monotonic() + 5
    while (await proxy.ask("state"))["sealed"] != {NAME: 1}:
        assert time.monotonic() < deadline
    with opened(net.near, FAR, server) as client:
        assert status(client) == b"200"


async def test_a_server_that_the_target_would_not_trust_is_shown_as_it_is(
    net, serving, proxy, server, authority, tmp_path
):
    serving(encrypted(context_of(server, tmp_path), mirror), where=net.far)
    teapot = rule("Response", 443, outgoing=True, **TEAPOT)
    await ordered(proxy, teapot, **minting(authority, authority))
    with opened(net.near, FAR, server) as client:
        assert client.getpeercert(binary_form=True) == ssl.PEM_cert_to_DER_cert(server.certificate)
        assert status(client) == b"200"


async def test_calls_of_grpc_over_tls_and_in_the_clear_are_the_servers_own_until_a_rule_takes_them(
    net, serving, proxy, server, tmp_path
):
    serving(encrypted(context_of(server, tmp_path, "h2"), calls))
    serving(calls, port=80)
    never = [rule(port=port, path="/never") for port in (80, 443)]
    await ordered(proxy, *never, **own(server))
    with opened(net.far, NEAR, server, "h2", "http/1.1") as client:
        assert client.selected_alpn_protocol() == "h2"
        [over_tls] = call(client, "/p.S/M")
    with dialled(net.far, NEAR, 80) as client:
        in_the_clear = call(client, "/p.S/M", "/p.S/N")
    for called, path in [(over_tls, "M"), (in_the_clear[0], "M"), (in_the_clear[1], "N")]:
        assert called.headers == {
            ":status": "200",
            "content-type": "application/grpc",
            "x-path": f"/p.S/{path}",
        }
        assert called.data == MESSAGE * 5
        assert called.trailers == {"grpc-status": "0", "x-own": "1"}
    assert (await counted(proxy))["exchanges"] == 3


ENDS: list[tuple[str, dict[str, Any], bytes, dict[str, str]]] = [
    ("Response", {"status": 14, "after_messages": 3}, MESSAGE * 3, {"grpc-status": "14"}),
    (
        "Response",
        {"status": 14, "after_messages": 9},
        MESSAGE * 5,
        {"grpc-status": "0", "x-own": "1"},
    ),
    (
        "Response",
        {"trailers": {"x-own": "2", "x-new": "3"}},
        MESSAGE * 5,
        {"grpc-status": "0", "x-own": "2", "x-new": "3"},
    ),
]


@pytest.mark.parametrize(("target", "grpc", "data", "trailers"), ENDS)
async def test_a_call_ends_as_a_rule_says(net, serving, proxy, target, grpc, data, trailers):
    serving(calls, port=80)
    await ordered(proxy, rule(target, path="/p.S/M", grpc=grpc))
    with dialled(net.far, NEAR, 80) as client:
        taken, spared = call(client, "/p.S/M", "/p.S/N")
    assert (taken.data, taken.trailers) == (data, trailers)
    assert (spared.data, spared.trailers["grpc-status"]) == (MESSAGE * 5, "0")


async def test_a_call_can_be_answered_without_its_server(net, serving, proxy):
    serving(calls, port=80)
    await ordered(proxy, rule(grpc={"status": 8, "message": "full"}))
    with dialled(net.far, NEAR, 80) as client:
        [called] = call(client, "/p.S/M")
    assert (called.headers["grpc-status"], called.headers["grpc-message"]) == ("8", "full")
    assert "x-path" not in called.headers
    assert (await counted(proxy))["ended"] == 1


async def test_streams_are_aborted_and_changed_one_by_one(net, serving, proxy):
    serving(calls, port=80)
    patched = {"replace": {"path": "/new"}, "patch": {"headers": [["x-a", "1"]]}}
    await ordered(
        proxy,
        rule(path="/abort", abort=True),
        rule(path="/old", **patched),
        rule("Response", **TEAPOT),
    )
    with dialled(net.far, NEAR, 80) as client:
        aborted, changed = call(client, "/abort", "/old")
    assert aborted.reset == 2  # INTERNAL_ERROR
    assert (changed.headers[":status"], changed.headers["x-path"]) == ("418", "/new")
    assert changed.data == MESSAGE * 5


OLD_HELLO = (
    bytes.fromhex("1603010035 01000031 0303")
    + bytes(32)
    + bytes.fromhex("00 000a c02bc02f002f000a00ff 0100")
)
"""TLS 1.2 without a single extension, as old clients begin."""


@pytest.mark.parametrize("said", [OLD_HELLO, b"\x16\x03\x01\x00\x05hello, no TLS"])
async def test_a_beginning_that_we_cannot_read_reaches_the_server_as_it_is(
    net, serving, proxy, server, said
):
    def echo(connection: socket.socket) -> None:
        heard = b""
        while len(heard) < len(said) and (part := connection.recv(65536)):
            heard += part
        connection.sendall(heard)

    serving(echo)
    await ordered(proxy, rule("Response", 443, **TEAPOT), **own(server))
    with dialled(net.far, NEAR, 443) as client:
        client.sendall(said)
        heard = b""
        while part := client.recv(65536):
            heard += part
    assert heard == said
    assert (await counted(proxy))["sealed"] == 1


async def test_a_client_whose_ciphers_we_do_not_know_is_left_to_its_server(
    net, serving, proxy, server, tmp_path
):
    ciphers = "ECDHE-ECDSA-AES128-SHA256"
    context = context_of(server, tmp_path)
    context.set_ciphers(f"{ciphers}:ECDHE-ECDSA-AES128-GCM-SHA256")
    serving(encrypted(context, mirror))
    await ordered(proxy, rule("Response", 443, **TEAPOT), **own(server))
    old = ssl.create_default_context(cadata=server.certificate)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    old.set_ciphers(ciphers)
    with (
        dialled(net.far, NEAR, 443) as plain,
        old.wrap_socket(plain, server_hostname=NAME) as client,
    ):
        assert status(client) == b"200"
    with opened(net.far, NEAR, server) as client:
        assert status(client) == b"418"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_session_from_before_the_fault_is_begun_anew(
    net, serving, proxy, server, tmp_path, version
):
    serving(encrypted(context_of(server, tmp_path), mirror))
    context = ssl.create_default_context(cadata=server.certificate)
    context.maximum_version = context.minimum_version = version

    def visit(session: ssl.SSLSession | None) -> tuple[bytes, ssl.SSLSession | None]:
        with (
            dialled(net.far, NEAR, 443) as plain,
            context.wrap_socket(plain, server_hostname=NAME, session=session) as client,
        ):
            return status(client), client.session

    code, session = visit(None)
    assert (code, session is not None) == (b"200", True)
    await ordered(proxy, rule("Response", 443, **TEAPOT), **own(server))
    assert visit(session)[0] == b"418"
