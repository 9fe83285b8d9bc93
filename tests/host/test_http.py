"""An HTTPChaos through a running `squall up`, as a user applies it."""

import os
import sys
from datetime import timedelta
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from testbed.installation import Installation, eventually, ready_pod, records, resource_of

pytestmark = [pytest.mark.host, pytest.mark.timeout(120)]

LASTS = timedelta(days=1)
PORT = 8080


@pytest.fixture
def installation(tmp_path):
    with Installation(tmp_path / "squall", lease_seconds=2) as up:
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
