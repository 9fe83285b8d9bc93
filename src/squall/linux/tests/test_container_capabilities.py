import asyncio
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from squall.faults import kinds
from squall.linux.container_capabilities import CONTAINER_TRIALS
from squall.linux.sandbox_cgroups import SandboxCgroups
from squall.node.doctor import Ability
from testbed.entered import wait

pytestmark = [pytest.mark.host, pytest.mark.kernel]


EVERY_TRIAL = """
import asyncio, json
from squall.linux.capabilities import LinuxCapabilities
from squall.linux.trials import TRIALS
from squall.faults import kinds
needs = sorted({need for kind in kinds().values() for need in kind.needs})
found = asyncio.run(LinuxCapabilities(TRIALS).examine(needs))
print(json.dumps({name: [one.ability, one.why] for name, one in found.items()}))
"""
NETWORK = ("http:proxy", "network:partition", "network:shape")
STRESS = ("stress:cpu", "stress:memory")
FILES = ("files:filter",)


def left_by(pid):
    """Name cgroups of trials of a process, and who is in them: other trials run meanwhile.

    What was killed is in them until its parent, which has to end too, has asked what became of it.
    """
    root, name = Path("/sys/fs/cgroup"), f"squall-trial-{pid}-"
    found = {str(path) for path in [*root.glob(f"{name}*"), *root.glob(f"*/{name}*")]}
    for path in Path("/proc").glob("[0-9]*/cgroup"):
        with suppress(OSError):
            found |= {path.parent.name} if name in path.read_text() else set()
    return found


@pytest.mark.parametrize(
    ("lacking", "names", "way_out"),
    [
        ("sys_admin", (*NETWORK, "dns:answers"), "CAP_SYS_ADMIN"),
        ("sys_ptrace", (*NETWORK, "dns:answers"), "CAP_SYS_PTRACE"),
        ("net_admin", NETWORK, "not permitted"),
        ("dac_override", ("pod:freeze", *STRESS), "denied"),
        ("sys_admin", FILES, "CAP_SYS_ADMIN"),
        ("sys_chroot", FILES, "not permitted"),
        ("kill", STRESS, "CAP_KILL"),
        ("setuid", STRESS, "CAP_SETUID"),
        ("setgid", STRESS, "CAP_SETGID"),
    ],
)
def test_what_a_missing_right_takes_away_is_told_and_no_trial_leaves_a_trace(
    lacking, names, way_out
):
    without = ["setpriv", f"--bounding-set=-{lacking}", f"--inh-caps=-{lacking}", "--"]
    command = [*without, sys.executable, "-c", EVERY_TRIAL]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as trying:
        said, _ = trying.communicate()
    found = json.loads(said)
    assert set(found) == {need for kind in kinds().values() for need in kind.needs}
    for name in names:
        ability, why = found[name]
        assert ability == Ability.MISSING, name
        assert way_out in why
    wait(lambda: not left_by(trying.pid))


@pytest.mark.parametrize("name", CONTAINER_TRIALS)
async def test_what_this_host_can_do_is_found_out_without_a_trace(name):
    capability = await CONTAINER_TRIALS[name]()
    assert capability.name == name
    assert capability.ability is Ability.OK, capability.why
    assert "cgroup v" in capability.path
    wait(lambda: not left_by(os.getpid()))


def test_a_trial_that_was_killed_in_the_middle_is_cleared_away_by_the_next():
    gone = subprocess.Popen(["true"])
    gone.wait()
    left = SandboxCgroups(f"squall-trial-{gone.pid}-test")
    made = left.create("one")
    for path in {path.parent for path in made}:
        os.utime(path, (0, 0))
    asyncio.run(CONTAINER_TRIALS["pod:freeze"]())
    assert left_by(gone.pid) == set()


async def test_a_missing_stress_ng_is_named_with_the_way_out(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    capability = await CONTAINER_TRIALS["stress:cpu"]()
    assert capability.ability is Ability.MISSING
    assert "apt install stress-ng" in capability.why
