import pytest

from squall.api.cluster import Change, Event
from squall.api.node_fault import NodeFaultTarget
from squall.errors import TargetGone, TryAgain
from squall.node.fake_processes import FakeProcesses
from squall.node.notes import LaneKey
from squall.node.targets import Targets, bare, container_ids, lane_key

POD = LaneKey("K", "d/web", "u1", "")
CONTAINER = LaneKey("K", "d/web/main", "u1", "aa")


def pod(change=Change.MODIFIED, *containers, phase="Running"):
    statuses = [{"containerID": f"containerd://{c}", "state": {"running": {}}} for c in containers]
    meta = {"uid": "u1", "name": "web"}
    return Event(
        change, {"metadata": meta, "status": {"phase": phase, "containerStatuses": statuses}}
    )


@pytest.fixture
def processes():
    return FakeProcesses({"aa": (7, 70), "bb": (8, 80)})


@pytest.fixture
def targets(processes):
    return Targets(processes)


def find(targets, key, container_id="aa"):
    return targets.find(key, container_id, host_network=False)


@pytest.mark.parametrize(
    ("id_", "container"), [("d/web", ""), ("d/web/main", "aa")], ids=["pod", "container"]
)
def test_faults_merge_on_a_pod_or_on_one_incarnation_of_a_container(id_, container):
    target = NodeFaultTarget(id=id_, selector_key=".", pod_uid="u1", container_id="containerd://aa")
    assert lane_key("K", target) == LaneKey("K", id_, "u1", container)


def test_a_container_id_loses_the_prefix_of_its_runtime():
    assert [bare("cri-o://aa"), bare("squall://aa"), bare("aa"), bare("")] == ["aa", "aa", "aa", ""]


@pytest.mark.parametrize("of", ["initContainerStatuses", "ephemeralContainerStatuses"])
async def test_sidecars_and_ephemeral_containers_are_containers_of_the_pod(targets, of):
    status = {"containerID": "cri-o://bb", "state": {"running": {}}}
    ended = {"containerID": "cri-o://aa", "state": {"terminated": {"exitCode": 0}}}
    found = {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {}}}]}
    meta = {"uid": "u1", "name": "web"}
    targets.saw(Event(Change.ADDED, {"metadata": meta, "status": found | {of: [ended, status]}}))
    assert targets.containers_of("u1") == ("bb",)
    assert (await find(targets, POD, "")).pid == 8


async def test_a_container_of_the_pod_itself_comes_before_its_sidecar(targets):
    event = pod(Change.ADDED, "bb")
    sidecar = {"containerID": "cri-o://aa", "state": {"running": {}}}
    event.object["status"]["initContainerStatuses"] = [sidecar]
    targets.saw(event)
    assert (await find(targets, POD, "")).pid == 8


async def test_a_process_is_looked_up_once(targets, processes):
    assert (await find(targets, POD)).pid == 7
    assert (await find(targets, POD)).started == 70
    assert len(processes.asked) == 1


async def test_a_forgotten_process_is_looked_up_again(targets, processes):
    target = await find(targets, POD)
    processes.running["aa"] = (9, 90)
    targets.forget(target)
    assert (await find(targets, POD)).pid == 9


async def test_a_pod_is_found_by_the_container_that_runs_now(targets):
    targets.saw(pod(Change.ADDED, "aa"))
    assert targets.saw(pod(Change.MODIFIED, "bb")) == "u1"
    assert (await find(targets, POD)).container_id == "bb"


async def test_a_container_is_not_followed_into_its_next_life(targets, processes):
    targets.saw(pod(Change.ADDED, "bb"))
    del processes.running["aa"]
    with pytest.raises(TargetGone, match="d/web/main"):
        await find(targets, CONTAINER)


async def test_a_pod_between_two_containers_is_waited_for(targets, processes):
    targets.saw(pod(Change.ADDED))
    processes.running.clear()
    with pytest.raises(TryAgain):
        await find(targets, POD)


async def test_a_pod_that_was_deleted_is_gone(targets, processes):
    targets.saw(pod(Change.ADDED, "aa"))
    targets.saw(pod(Change.DELETED, "aa"))
    processes.running.clear()
    with pytest.raises(TargetGone):
        await find(targets, POD)


async def test_a_pod_that_has_finished_is_gone(targets, processes):
    targets.saw(pod(Change.ADDED, "aa"))
    targets.saw(pod(Change.MODIFIED, phase="Succeeded"))
    processes.running.clear()
    with pytest.raises(TargetGone):
        await find(targets, POD)


def test_a_pod_that_says_what_it_said_before_changes_nothing(targets):
    assert targets.saw(pod(Change.ADDED, "aa")) == "u1"
    assert targets.saw(pod(Change.MODIFIED, "aa")) == ""
    assert targets.saw(Event(Change.SYNCED, {})) == ""


def test_the_container_before_the_last_restart_is_one_of_its_pod():
    ended = {"terminated": {"containerID": "containerd://old"}}
    status = {"containerID": "containerd://new", "lastState": ended}
    pod = {"status": {"containerStatuses": [status, {"lastState": {}}]}}
    assert container_ids(pod) == ("new", "old")


async def test_a_container_that_the_status_of_another_pod_claims_is_no_target(targets, processes):
    """Who may write the status of their own pod could else hit anybody's on its node."""
    processes.elsewhere.add(7)
    targets.saw(pod(Change.MODIFIED, "aa"))
    with pytest.raises(TargetGone, match="aa is in the cgroup of another pod"):
        await find(targets, POD)
    with pytest.raises(TargetGone, match="aa is in the cgroup of another pod"):
        await find(targets, CONTAINER)


class Asked(FakeProcesses):
    """Notes under which uids a process is looked for."""

    uids: tuple[set[str], ...] = ()

    def in_pod(self, pid, uids):
        self.uids += (set(uids),)
        return super().in_pod(pid, uids)


async def test_a_static_pod_is_known_by_the_hash_of_its_file(processes):
    asked = Asked(processes.running)
    targets = Targets(asked)
    event = pod(Change.MODIFIED, "aa")
    event.object["metadata"]["annotations"] = {"kubernetes.io/config.mirror": "3f" * 16}
    targets.saw(event)
    assert (await find(targets, POD)).pid == 7
    targets.saw(pod(Change.DELETED))
    assert (await find(targets, POD)).pid == 7
    assert asked.uids == ({"u1", "3f" * 16}, {"u1"})
