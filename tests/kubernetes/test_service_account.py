"""The API as a pod reaches it: by a service account whose token is replaced and expires."""

import asyncio
import ssl

import httpx2
import pytest

from squall.api.cluster import LEASE, NODE_FAULT, POD, ApiError
from squall.app.metrics_page import metrics_served
from squall.clock import FakeClock
from squall.kubernetes.client import HttpCluster
from squall.kubernetes.connection import Connection
from squall.kubernetes.server import chosen
from testbed.controller import ControllerProcess
from testbed.installation import eventually
from tests.kubernetes.accounts import Account
from tests.kubernetes.conftest import new_namespace
from tests.kubernetes.objects import agent_lease
from tests.kubernetes.test_controller_process import apply, assigned, leads, show_pod

pytestmark = [pytest.mark.kubernetes, pytest.mark.timeout(90)]

EVERYTHING = ["get", "list", "watch", "create", "patch", "delete"]
IN_A_POD = (
    "unshare", "--mount", "--", "sh", "-ec",
    'mount -t tmpfs none /run; mkdir -p "$TO"; mount --bind "$FROM" "$TO"; exec "$@"', "pod",
)  # fmt: skip


@pytest.fixture
async def api(real):
    async with HttpCluster.from_kubeconfig(real.kubeconfig) as cluster:
        yield cluster


@pytest.fixture
async def account(real, api, tmp_path):
    account = Account(api, real, await new_namespace(api), tmp_path / "account")
    await account.make()
    return account


def connected(account):
    config = chosen(None, account.environment, account.folder / "none", account.folder)
    return HttpCluster(Connection(config))


async def refused(account, token):
    """Does the API server know the token no more?"""
    headers = {"Authorization": f"Bearer {token}"}
    authority = ssl.create_default_context(cafile=account.server.authority)
    async with httpx2.AsyncClient(verify=authority, trust_env=False) as http:
        answer = await http.get(f"{account.server.url}/version", headers=headers)
    return answer.status_code == 401


async def test_a_token_that_was_replaced_and_expired_is_not_noticed(account):
    await account.allow([{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}])
    async with connected(account) as cluster:
        assert await cluster.list(POD, account.namespace) == []
        first = (account.folder / "token").read_text()
        account.show(await account.token())
        await account.end(1)
        await eventually(lambda: refused(account, first), "the first token has expired")
        assert await cluster.list(POD, account.namespace) == []


async def test_a_token_that_expired_and_was_not_replaced_is_an_error_that_says_so(account):
    async with connected(account) as cluster:
        await account.end(1)
        token = (account.folder / "token").read_text()
        await eventually(lambda: refused(account, token), "the token has expired")
        with pytest.raises(ApiError, match="Unauthorized") as error:
            await cluster.list(POD, account.namespace)
    assert error.value.code == 401


async def test_a_controller_with_roles_alone_finds_its_way_and_works(account, api, tmp_path):
    namespace = account.namespace
    await account.allow(
        [
            {"apiGroups": [""], "resources": ["pods", "events"], "verbs": EVERYTHING},
            {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": EVERYTHING},
            {
                "apiGroups": ["squall.dev", "chaos-mesh.org"],
                "resources": ["*"],
                "verbs": EVERYTHING,
            },
        ],
        namespace,
    )
    await account.allow(
        [{"apiGroups": ["squall.dev"], "resources": ["halts"], "verbs": ["list", "watch"]}]
    )
    policy = tmp_path / "policy.yaml"
    policy.write_text(f"targetNamespace: {namespace}\n")
    place = "/run/secrets/kubernetes.io/serviceaccount"
    controller = ControllerProcess(
        tmp_path, "controller-0", namespace, lease_seconds=6,
        prefix=IN_A_POD, options=("--policy", str(policy)),
        environment={**account.environment, "FROM": str(account.folder), "TO": place},
    )  # fmt: skip
    with controller:
        await eventually(lambda: leads(api, controller), "it leads")
        await show_pod(api, namespace, "web-0", "node-9")
        await api.create(LEASE, agent_lease(namespace, "node-9"))
        await apply(api, namespace)
        await eventually(lambda: assigned(api, namespace), "the experiment is carried out")
        account.show(await account.token())
        await account.end(1)
        before = (await api.get(LEASE, namespace, "squall-controller"))["spec"]["renewTime"]

        async def renewed():
            spec = (await api.get(LEASE, namespace, "squall-controller"))["spec"]
            return spec["renewTime"] != before

        await eventually(renewed, "the lease is renewed with the new token")
    assert [f["spec"]["nodeName"] for f in await api.list(NODE_FAULT, namespace)] == ["node-9"]


async def test_metrics_are_shown_to_accounts_that_may_read_them(account, api):
    token, rule = await account.token(), {"nonResourceURLs": ["/metrics"], "verbs": ["get"]}
    async with metrics_served("127.0.0.1:0", api, FakeClock()) as port:
        assert await asked(port, "made.up.token") == 401
        assert await asked(port, token) == 403
    await account.allow([rule])
    async with metrics_served("127.0.0.1:0", api, FakeClock()) as port:
        assert await asked(port, token) == 200


async def asked(port, token):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    question = f"GET /metrics HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {token}\r\n\r\n"
    writer.write(question.encode())
    answer = await reader.read()
    writer.close()
    return int(answer.split()[1])
