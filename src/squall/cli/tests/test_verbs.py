import sys
from contextlib import asynccontextmanager

import pytest

from squall.api.fake_cluster import FakeCluster
from squall.cli import main
from squall.cli.resources import resource_named

DELAY = """
apiVersion: chaos-mesh.org/v1alpha1
kind: NetworkChaos
metadata: {name: slow}
spec:
  action: delay
  mode: all
  selector: {labelSelectors: {app: web}}
  delay: {latency: 100ms}
"""
CHAOS = resource_named("networkchaos")


class Connected:
    """Parts whose API is a fake."""

    def __init__(self):
        self.api = FakeCluster()

    @asynccontextmanager
    async def cluster(self, _):
        yield self.api


@pytest.fixture
def squall(monkeypatch, capsys):
    """Runs a verb against one fake API; gives exit status and what was printed."""
    parts = Connected()

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["squall", *map(str, arguments)])
        status = main(parts)
        return status, capsys.readouterr()

    return run


@pytest.fixture
def manifest(tmp_path):
    file = tmp_path / "delay.yaml"
    file.write_text(DELAY)
    return file


def test_the_version_is_told(squall):
    status, said = squall("--version")
    assert (status, said.out.split()[0]) == (0, "squall")


def test_what_is_applied_is_listed_and_deleted(squall, manifest):
    assert squall("apply", "-f", manifest)[1].out == "networkchaos.chaos-mesh.org/slow created\n"
    assert squall("apply", "-f", manifest)[1].out == "networkchaos.chaos-mesh.org/slow configured\n"
    assert "slow" in squall("get", "NetworkChaos")[1].out
    assert squall("delete", "-f", manifest)[1].out == "networkchaos.chaos-mesh.org/slow deleted\n"
    status, said = squall("get", "networkchaos")
    assert (status, said.out) == (0, "")
    assert said.err == "no networkchaos in namespace default\n"


def test_one_object_is_deleted_by_kind_and_name(squall):
    squall("run", "--name", "web", "--label", "app=web", "--", "sleep", "9")
    assert "sleep 9" in squall("get", "workloads")[1].out
    assert squall("delete", "workload", "web")[1].out == "workload.squall.dev/web deleted\n"


@pytest.mark.parametrize(
    "arguments", [(), ("workload",), ("workload", "web", "-f", "delay.yaml")], ids=len
)
def test_a_delete_that_leaves_open_what_is_meant_is_refused(squall, arguments):
    assert squall("delete", *arguments)[0] == 2


def test_what_is_not_there_is_an_error_unless_that_is_fine(squall):
    assert squall("delete", "workload", "web")[0] == 1
    status, said = squall("delete", "workload", "web", "--ignore-not-found")
    assert (status, said.out) == (0, "workload.squall.dev/web not found\n")


def test_a_name_that_is_taken_is_refused_with_the_way_out(squall):
    squall("run", "--name", "web", "--", "sleep", "9")
    status, said = squall("run", "--name", "web", "--", "sleep", "9")
    assert status == 2
    assert "squall delete workload web" in said.err


def test_an_empty_manifest_is_refused(squall, manifest):
    manifest.write_text("# nothing\n")
    status, said = squall("apply", "-f", manifest)
    assert status == 2
    assert said.err.endswith("holds no object\n")


@pytest.mark.parametrize("verb", ["apply", "preview", "explain-privileges"])
def test_a_field_that_the_kind_does_not_have_is_refused_and_nothing_is_done(squall, manifest, verb):
    # Left out without a word, this selector would mean every pod.
    fine, misspelt = (
        DELAY.replace("slow", "fine"),
        DELAY.replace("labelSelectors", "labelselectors"),
    )
    manifest.write_text(f"{fine}---{misspelt}")
    status, said = squall(verb, "-f", manifest)
    assert (status, said.out) == (2, "")
    assert "NetworkChaos/slow: there is no field spec.selector.labelselectors;" in said.err
    assert squall("get", "networkchaos")[1].out == ""


def test_a_manifest_with_a_status_and_of_any_kind_is_applied(squall, manifest):
    manifest.write_text(
        f"{DELAY}status: {{instances: {{web: 1}}}}\n---\n"
        "{apiVersion: squall.dev/v1alpha1, kind: Halt, metadata: {name: now}, spec: {reason: x}}\n"
    )
    assert squall("apply", "-f", manifest)[0] == 0


def test_a_missing_manifest_is_named_without_error_numbers(squall, tmp_path):
    status, said = squall("apply", "-f", tmp_path / "nowhere.yaml")
    assert status == 1
    assert said.err == f"squall: {tmp_path}/nowhere.yaml: No such file or directory\n"


def test_a_halt_is_shown_and_released(squall):
    squall("halt", "--reason", "launch [at noon]")
    assert "launch [at noon]" in squall("get", "halts")[1].out
    assert "already" in squall("halt")[1].out
    squall("halt", "--release")
    assert "nothing" in squall("halt", "--release")[1].out


def test_every_namespace_is_listed_where_that_is_asked(squall):
    for namespace in ("default", "shop"):
        squall("run", "--name", "web", "-n", namespace, "--", "sleep", "9")
    assert "shop" not in squall("get", "workloads")[1].out
    said = squall("get", "workloads", "-A")[1].out
    assert "NAMESPACE" in said
    assert "shop" in said
