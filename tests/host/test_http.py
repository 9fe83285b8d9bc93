"""An HTTPChaos through a running `squall up`, as a user applies it."""

import base64
import os
import ssl
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from squall.api.cluster import SECRET
from squall.certificates import make_authority, make_server
from testbed.installation import Installation, eventually, ready_pod, records, resource_of

pytestmark = [pytest.mark.host, pytest.mark.timeout(120)]

LASTS = timedelta(days=1)
PORT = 8080


@pytest.fixture
def installation(tmp_path):
    with Installation(tmp_path / "squall", lease_seconds=60) as up:
        yield up
    assert "Traceback" not in up.log, up.log


@pytest.fixture
async def cluster(installation):
    async with installation.cluster() as cluster:
        yield cluster


def experiment(**spec):
    selector = {"labelSelectors": {"app": "web"}}
    return {
        "apiVersion": "chaos-mesh.org/v1alpha1",
        "kind": "HTTPChaos",
        "metadata": {"name": "http", "namespace": "default"},
        "spec": {"mode": "all", "selector": selector, "port": PORT, **spec},
    }


async def served(installation, cluster, *tls):
    """Run a web server as a target; returns its address once it listens."""
    echoing = Path(__file__).parents[2] / "src/squall/linux/tests/echoing.py"
    command = ("env", f"PYTHONPATH={os.environ.get('PYTHONPATH', '')}", sys.executable)
    run = ("run", "--name", "web", "--label", "app=web", "--", *command, str(echoing), str(PORT))
    installation.squall(*run, *tls)
    pod = await ready_pod(cluster, "web")
    return pod["status"]["podIP"]


def code(url, context=None):
    try:
        with urlopen(url, timeout=5, context=context) as answer:  # noqa: S310  (one of ours)
            return answer.status
    except HTTPError as refused:
        return refused.code
    except OSError:
        return 0


async def confirmed(cluster, obj):
    async def holds():
        seen = records(await cluster.get(resource_of(obj), "default", "http"))
        return seen and all(r.get("proof", {}).get("verdict") == "Confirmed" for r in seen)

    await eventually(holds, "it is confirmed")


async def gone(cluster, obj):
    await cluster.delete(resource_of(obj), "default", "http")

    async def holds():
        return not await cluster.list(resource_of(obj), "default")

    await eventually(holds, "it is gone")


async def test_an_experiment_acts_is_proved_outlives_its_agent_and_is_taken_back(
    installation, cluster
):
    url = f"http://{await served(installation, cluster)}:{PORT}/"
    await eventually(lambda: code(url) == 200, "the server answers")
    obj = experiment(target="Response", replace={"code": 503})
    await cluster.create(resource_of(obj), obj)
    await confirmed(cluster, obj)
    assert code(url) == 503
    installation.kill()
    assert code(url) == 503
    installation.start()
    async with installation.cluster() as again:
        await confirmed(again, obj)
        assert code(url) == 503
        await gone(again, obj)
    assert code(url) == 200


async def test_recovering_without_an_agent_takes_it_back(installation, cluster):
    url = f"http://{await served(installation, cluster)}:{PORT}/"
    await eventually(lambda: code(url) == 200, "the server answers")
    obj = experiment(target="Request", abort=True)
    await cluster.create(resource_of(obj), obj)
    await confirmed(cluster, obj)
    assert code(url) == 0
    installation.kill()
    told = installation.squall("recover", "--all", "--data-dir", str(installation.directory))
    assert "HTTPChaos default/web: restored" in told.stdout
    assert code(url) == 200


@pytest.fixture
def certified(tmp_path):
    """A server's certificate and key, as files, and who vouches for it."""
    now = datetime.now(UTC)
    authority = make_authority("tests", now, LASTS)
    issued = make_server(authority, "web", ["web"], now, LASTS)
    files = tmp_path / "web.pem", tmp_path / "web.key"
    files[0].write_bytes(issued.certificate)
    files[1].write_bytes(issued.key)
    return authority, issued, [str(file) for file in files]


def holding(directory, octets):
    """Name the files that hold some text."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {path.name.partition("-")[0] for path in files if octets in path.read_bytes()}


async def test_the_key_of_a_servers_tls_opens_it_and_is_in_no_object_but_its_secret(
    installation, cluster, certified
):
    authority, issued, files = certified
    context = ssl.create_default_context(cadata=authority.certificate.decode())
    context.check_hostname = False
    url = f"https://{await served(installation, cluster, *files)}:{PORT}/"
    await eventually(lambda: code(url, context) == 200, "the server answers")
    where = {"secretName": "web", "secretNamespace": "default"}
    tls = {**where, "certName": "tls.crt", "keyName": "tls.key"}
    obj = experiment(target="Response", replace={"code": 503}, tls=tls)
    await cluster.create(resource_of(obj), obj)

    async def told():
        seen = records(await cluster.get(resource_of(obj), "default", "http"))
        return "there is no Secret default/web" in str(seen)

    await eventually(told, "it is told that the Secret is missing")
    assert code(url, context) == 200
    values = {"tls.crt": issued.certificate, "tls.key": issued.key}
    data = {name: base64.b64encode(value).decode() for name, value in values.items()}
    meta = {"name": "web", "namespace": "default"}
    await cluster.create(SECRET, {"metadata": meta, "data": data})
    await eventually(lambda: code(url, context) == 503, "it acts")
    line = issued.key.splitlines()[1]
    assert holding(installation.directory, line) == set()
    assert holding(installation.directory, base64.b64encode(issued.key)[:60]) == {"objects.db"}
    await gone(cluster, obj)
    assert code(url, context) == 200
