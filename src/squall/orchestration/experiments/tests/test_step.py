from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from squall.api.metadata import RECORDS_FINALIZER
from squall.api.node_fault import NodeFaultRecord, NodeFaultStatus
from squall.faults import kinds
from squall.injection.kind import FaultKind
from squall.orchestration.experiments.draw import quota
from squall.orchestration.experiments.facts import Announcement, Assigned, Decision, Facts, Seen
from squall.orchestration.experiments.pods import Container, Inventory, Pod
from squall.orchestration.experiments.records import MOST_DETAILED, TOUCHED
from squall.orchestration.experiments.step import step

NETWORK, POD_KILL = kinds()["NetworkChaos"], kinds()["PodChaos"]
START = datetime(2026, 1, 1, 12, tzinfo=UTC)
LEASE = 60.0
DELAY = {"action": "delay", "delay": {"latency": "10ms"}}


def spec_of(kind, **spec):
    action = DELAY if kind is NETWORK else {"action": "pod-kill"}
    return kind.spec.model_validate({"selector": {}, "mode": "all"} | action | spec)


def pod_of(name, turn=0, node="n1"):
    container = Container("main", f"x://{name}-{turn}", running=True)
    return Pod("default", name, uid=f"{name}-uid", node=node, containers=(container,))


@dataclass
class World:
    """An experiment with pods and honest agents, driven by hand."""

    seen: Seen
    kind: FaultKind = NETWORK
    pods: dict[str, Pod] = field(default_factory=dict)
    assigned: dict[str, Assigned] = field(default_factory=dict)
    now: datetime = START
    halt: str | None = None
    hit: set[tuple[str, str]] = field(default_factory=set)
    """(record id, container id) of everything that carries the fault."""
    released: bool = False
    let_go: bool = False
    announced: list[Announcement] = field(default_factory=list)
    last: Decision | None = None

    def step(self):
        if self.released:
            return
        nodes: dict[str, dict[str, str]] = {"n1": {}, "n2": {}}
        facts = Facts(
            self.kind, self.seen, list(self.assigned.values()),
            Inventory(list(self.pods.values()), nodes), self.halt, LEASE,
        )  # fmt: skip
        decided = self.last = step(facts, self.now)
        assert step(facts, self.now) == decided
        if decided.hold:
            self.seen = replace(self.seen, finalizers=(*self.seen.finalizers, RECORDS_FINALIZER))
        if decided.status:
            self.seen = replace(self.seen, status=decided.status)
        for name, spec in decided.put:
            old = self.assigned.get(name)
            generation = old.generation + 1 if old else 1
            status = old.status if old else NodeFaultStatus()
            self.assigned[name] = Assigned(name, generation, self.now, spec, status)
        for name in decided.remove:
            self.assigned.pop(name, None)
        self.announced += decided.announcements
        if decided.release:
            self.released = True
            self.let_go = any("let go" in said.message for said in decided.announcements)

    def agents(self, refuse=""):
        """Every agent does what it is told, and says so."""
        self.hit.clear()
        for name, one in self.assigned.items():
            runs = one.spec.desired_phase == "Run" and not refuse
            records = []
            for target in one.spec.targets:
                if runs:
                    self.hit.add((target.id, target.container_id))
                records.append(
                    NodeFaultRecord(
                        id=target.id,
                        selector_key=target.selector_key,
                        incarnation=target.incarnation,
                        phase="Injected" if runs else "Not Injected",
                        message=refuse,
                        final=bool(refuse),
                    )
                )
            status = NodeFaultStatus(observed_generation=one.generation, targets=records)
            self.assigned[name] = replace(one, status=status)

    def settle(self):
        for _ in range(4):
            self.step()
            self.agents()

    def phases(self):
        records = self.seen.status.experiment.container_records
        return None if records is None else {r.id: r.phase for r in records}


def world(kind=NETWORK, pods=2, **spec):
    seen = Seen(
        kind.resource.kind, "default", "x", "uid-1234-5678", START, spec=spec_of(kind, **spec)
    )
    found = [pod_of(f"p{n}", node=f"n{n % 2 + 1}") for n in range(pods)]
    return World(seen, kind, {pod.id: pod for pod in found})


def test_one_step_chooses_writes_and_orders():
    one = world()
    one.step()
    assert one.phases() == {"default/p0": "Not Injected/Wait", "default/p1": "Not Injected/Wait"}
    assert sorted(one.assigned) == ["networkchaos-uid-1234-n1", "networkchaos-uid-1234-n2"]
    assert [said.reason for said in one.announced] == ["FinalizerInited", "Started"]


def test_nothing_changes_when_nothing_happened():
    one = world()
    one.settle()
    one.step()
    assert one.last.status is None
    assert not one.last.put
    assert not one.last.remove
    assert not one.last.announcements


def test_peers_are_the_addresses_of_the_other_end():
    target = {"selector": {"pods": {"default": ["p1"]}}, "mode": "all"}
    one = world(selector={"pods": {"default": ["p0"]}}, target=target, direction="to")
    one.pods["default/p1"] = replace(one.pods["default/p1"], addresses=("10.0.0.9", "fd00::9"))
    one.step()
    (fault,) = one.assigned.values()
    hosts = [peer["host"] for peer in fault.spec.faults["."]["shape"]["peers"]]
    assert hosts == ["10.0.0.9/32", "fd00::9/128"]


def test_a_role_that_gets_nothing_is_left_alone_and_counts_as_injected():
    target = {"selector": {"pods": {"default": ["p1"]}}, "mode": "all"}
    one = world(selector={"pods": {"default": ["p0"]}}, target=target, direction="to")
    one.settle()
    assert list(one.assigned) == ["networkchaos-uid-1234-n1"]
    assert one.phases() == {"default/p0": "Injected", "default/p1": "Injected"}
    one.seen = replace(one.seen, deleted=one.now)
    one.settle()
    assert one.released
    assert not one.hit


def test_an_unreadable_spec_is_reported_and_can_be_deleted():
    one = world()
    one.seen = replace(one.seen, spec=None, flaw="spec.mode: is required")
    one.step()
    assert one.seen.status.conditions[0].reason == "spec.mode: is required"
    one.seen = replace(one.seen, deleted=one.now)
    one.step()
    assert one.released


def test_a_lost_node_fault_of_a_touched_target_is_asked_for_again():
    one = world(pods=1)
    one.settle()
    one.assigned.clear()
    one.seen = replace(one.seen, deleted=one.now)
    one.step()
    assert not one.released
    assert [fault.spec.desired_phase for fault in one.assigned.values()] == ["Stop"]
    one.settle()
    assert one.released
    assert not one.let_go


def test_an_object_waits_for_the_agent_even_where_nothing_seems_injected():
    one = world(pods=1)
    one.step()
    one.agents("busy")
    one.step()
    assert one.phases() == {"default/p0": "Not Injected"}
    one.seen = replace(one.seen, deleted=one.now)
    one.step()
    assert not one.released
    one.agents()
    one.step()
    assert one.released


def test_above_a_thousand_targets_node_faults_ask_for_no_proof():
    one = world(pods=MOST_DETAILED + 1)
    one.settle()
    assert all(not fault.spec.proof for fault in one.assigned.values())
    assert all(not r.events for r in one.seen.status.experiment.container_records)


def test_agents_heal_shortly_after_the_controller_would():
    one = world(duration="30s")
    one.step()
    deadlines = {fault.spec.deadline for fault in one.assigned.values()}
    assert deadlines == {START + timedelta(seconds=30.5)}
    assert one.last.wake_at == START + timedelta(seconds=30)
    one.step()
    assert one.last.wake_at == START + timedelta(seconds=10)


def test_a_wake_up_is_never_in_the_past():
    one = world(duration="30s")
    one.now = START + timedelta(seconds=29)
    one.settle()
    assert one.last.wake_at == START + timedelta(seconds=30)
    one.now = START + timedelta(seconds=31)
    one.settle()
    assert one.last.wake_at is None


actions = st.lists(
    st.sampled_from(
        ["agents", "agents", "refuse", "pause", "resume", "halt", "unhalt", "wait", "delete"]
        + [f"{verb} {n}" for verb in ("add", "restart", "remove", "finish") for n in range(4)]
    ),
    max_size=25,
)
specs = st.fixed_dictionaries(
    {},
    optional={
        "duration": st.sampled_from(["5s", "40s"]),
        "selection": st.just("live"),
        "direction": st.sampled_from(["to", "both"]),
        "target": st.just({"selector": {"pods": {"default": ["p1"]}}, "mode": "all"}),
    },
)
modes = st.sampled_from([("one", ""), ("all", ""), ("fixed", "2"), ("fixed-percent", "50")])


def do(one, action):  # noqa: C901  (a table of what may happen)
    verb, _, number = action.partition(" ")
    name = f"default/p{number}"
    match verb:
        case "agents":
            one.agents()
        case "refuse":
            one.agents("no such thing here")
        case "pause" | "resume":
            one.seen = replace(one.seen, paused=verb == "pause")
        case "halt" | "unhalt":
            one.halt = "stop" if verb == "halt" else None
        case "wait":
            one.now += timedelta(seconds=7)
        case "delete" if one.seen.deleted is None:
            one.seen = replace(one.seen, deleted=one.now)
        case "add" if name not in one.pods:
            one.pods[name] = pod_of(
                f"p{number}", turn=one.now.second, node=f"n{int(number) % 2 + 1}"
            )
        case "restart" if name in one.pods:
            turn = hash((one.pods[name].containers[0].container_id, 1)) % 10**6
            one.pods[name] = pod_of(f"p{number}", turn=turn, node=one.pods[name].node)
            one.hit = {h for h in one.hit if h[0] != name}
        case "finish" if name in one.pods:
            one.pods[name] = replace(one.pods[name], phase="Succeeded")
            one.hit = {h for h in one.hit if h[0] != name}
        case "remove":
            one.pods.pop(name, None)
            one.hit = {h for h in one.hit if h[0] != name}


@given(st.sampled_from([NETWORK, POD_KILL]), specs, modes, st.integers(0, 4), actions)
def test_whatever_happens_no_touched_target_is_forgotten_and_the_work_ends(
    kind, spec, mode, pods, happenings
):
    if kind is POD_KILL:
        spec = {k: v for k, v in spec.items() if k in {"duration", "selection"}}
    one = world(kind, pods, mode=mode[0], value=mode[1], **spec)
    one.step()
    for action in happenings:
        do(one, action)
        one.step()
        check(one)
    if one.seen.deleted is None:
        one.seen = replace(one.seen, deleted=one.now)
    one.settle()
    assert one.released
    assert not one.let_go
    one.agents()
    assert not one.hit


def check(one):
    types = [condition.type for condition in one.seen.status.conditions]
    assert types == ["Selected", "AllInjected", "AllRecovered", "Paused"] or not types
    if one.released and not one.let_go and one.kind is NETWORK:
        assert not one.hit
    records = one.seen.status.experiment.container_records or ()
    for record in records:
        assert record.recovered_count <= record.injected_count
    if one.kind is NETWORK:
        known = {(r.id) for r in records if r.phase in TOUCHED}
        assert {target for target, _ in one.hit} <= known


@given(st.lists(st.sampled_from(["pause", "resume", "agents", "wait", "halt"]), max_size=8))
def test_with_silent_agents_deleting_still_ends_and_names_who_is_left(happenings):
    one = world()
    one.step()
    for action in happenings:
        do(one, action)
        one.step()
    touched = [name for name, phase in one.phases().items() if phase in TOUCHED]
    one.seen = replace(one.seen, deleted=one.now)
    one.step()
    one.now += timedelta(seconds=LEASE + 9)
    one.step()
    assert one.released == (not touched)
    one.now += timedelta(seconds=1)
    one.step()
    assert one.released
    assert all(name in one.announced[-1].message for name in touched)


@given(
    modes,
    st.lists(
        st.sampled_from(
            [f"{v} {n}" for v in ("add", "remove", "finish", "restart") for n in range(8)]
        ),
        max_size=30,
    ),
    st.lists(st.booleans(), min_size=30, max_size=30),
)
def test_a_live_selection_never_adds_beyond_its_mode(mode, churn, answers):
    one = world(pods=2, mode=mode[0], value=mode[1], selection="live")
    one.settle()
    for action, answered in zip(churn, answers, strict=False):
        before = set(one.phases() or ())
        do(one, action)
        one.step()
        after = set(one.phases() or ())
        standing = [p for p in one.pods.values() if p.phase == "Running"]
        if after - before:
            assert len(after) <= quota(mode[0], mode[1], len(standing), "uid-1234-5678", ".")
        if answered:
            one.agents()
    one.settle()
    one.settle()
    standing = [p for p in one.pods.values() if p.phase == "Running"]
    assert len(one.hit) == quota(mode[0], mode[1], len(standing), "uid-1234-5678", ".")
