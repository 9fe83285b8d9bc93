"""Containers found by the cgroups of their processes."""

import asyncio
import os

import pytest

from squall.linux.processes import (
    Init,
    Membership,
    Processes,
    gone,
    inits,
    membership,
    pods,
    send,
    started,
)

A, B = "a1" * 32, "b2" * 32
POD = "pod2f3c8a5e_7c1d_4b0e_9a53_1d2e3f4a5b6c"
USER = "/user.slice/user-1000.slice/user@1000.service"

LINES = {
    "docker, v1": (f"12:memory:/docker/{A}\n1:name=systemd:/docker/{A}", "docker"),
    "docker, v2 by systemd": (f"0::/system.slice/docker-{A}.scope", "docker"),
    "seen from a sibling's namespace, so that no runtime is named": (f"0::/../{A}", "containerd"),
    "docker, rootless": (f"0::{USER}/user.slice/docker-{A}.scope", "docker"),
    "docker with systemd inside": (f"0::/docker/{A}/init.scope", "docker"),
    "containerd, v1 by directories": (
        f"11:cpu,cpuacct:/kubepods/burstable/{POD}/{A}\n10:pids:/kubepods/burstable/{POD}/{A}",
        "containerd",
    ),
    "containerd, v2 by systemd": (
        (
            f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-{POD}.slice/"
            f"cri-containerd-{A}.scope"
        ),
        "containerd",
    ),
    "containerd, systemd's notation taken for a path": (
        (
            f"5:memory:/system.slice/containerd.service/kubepods-besteffort-{POD}.slice:"
            f"cri-containerd:{A}"
        ),
        "containerd",
    ),
    "containerd in a node that is a docker container": (
        f"0::/docker/{B}/kubelet/kubepods/besteffort/{POD}/{A}",
        "docker",
    ),
    "containerd, v1 by systemd": (
        f"3:cpu,cpuacct:/kubepods.slice/kubepods-{POD}.slice/cri-containerd-{A}.scope",
        "containerd",
    ),
    "containerd below a kubelet's own root, with our processes beside": (
        f"9:name=systemd:/tb-node1/kubepods/besteffort/{POD}/{A}\n0::/squall-0a1b2c3d-agent",
        "containerd",
    ),
    "seen from the agent's own cgroup namespace": (
        (
            f"0::/../../kubepods-burstable.slice/kubepods-burstable-{POD}.slice/"
            f"cri-containerd-{A}.scope"
        ),
        "containerd",
    ),
    "docker below a kubelet, v2 by systemd": (
        f"0::/kubepods.slice/kubepods-{POD}.slice/docker-{A}.scope",
        "docker",
    ),
    "CRI-O, v1 by cgroupfs": (f"4:memory:/kubepods/burstable/{POD}/crio-{A}", "cri-o"),
    "CRI-O, v2": (
        f"0::/kubepods.slice/kubepods-{POD}.slice/crio-{A}.scope",
        "cri-o",
    ),
    "CRI-O with a container cgroup below": (
        f"0::/kubepods.slice/kubepods-{POD}.slice/crio-{A}.scope/container",
        "cri-o",
    ),
    "podman, v2 by systemd": (f"0::/machine.slice/libpod-{A}.scope/container", "podman"),
    "podman, v1 by cgroupfs": (
        f"9:name=systemd:/\n4:memory:/libpod_parent/libpod-{A}\n0::/libpod_parent/libpod-{A}",
        "podman",
    ),
    "podman in a pod": (
        f"0::/machine.slice/machine-libpod_pod_{B}.slice/libpod-{A}.scope",
        "podman",
    ),
    "podman, rootless, v2": (f"0::{USER}/user.slice/libpod-{A}.scope/container", "podman"),
    "podman, rootless, v1": (
        (
            f"4:memory:/user.slice/user-1000.slice/session-3.scope\n"
            f"1:name=systemd:{USER}/user.slice/libpod-{A}.scope"
        ),
        "podman",
    ),
    "podman, rootless, v2 by cgroupfs": (f"0::{USER}/libpod_parent/libpod-{A}", "podman"),
    "ours": (f"4:memory:/squall-0a1b2c3d/{A}\n0::/squall-0a1b2c3d/{A}", "squall"),
}


@pytest.mark.parametrize(("lines", "runtime"), LINES.values(), ids=LINES)
def test_a_container_is_found_in_its_cgroup(lines, runtime):
    assert membership(lines) == Membership(A, runtime)


@pytest.mark.parametrize(
    "lines",
    [
        "",
        "0::/",
        "0::/init.scope",
        f"0::/machine.slice/libpod-conmon-{A}.scope",
        f"0::/kubepods.slice/kubepods-{POD}.slice/crio-conmon-{A}.scope",
        f"0::/machine.slice/machine-libpod_pod_{A}.slice",
        f"0::/system.slice/{A[:-1]}",
        f"0::/system.slice/{A}0",
        "0::/squall-0a1b2c3d-agent",
        f"0::/kubepods.slice/kubepods-{POD}.slice",
    ],
)
def test_what_is_beside_a_container_is_not_in_it(lines):
    assert membership(lines) is None


def process(proc, pid, parent, ticks, cgroup, name="app"):
    directory = proc / str(pid)
    directory.mkdir()
    (directory / "cgroup").write_text(cgroup)
    middle = " ".join(["0"] * 17)
    (directory / "stat").write_text(f"{pid} ({name}) S {parent} {middle} {ticks} 0 0\n")


def test_the_init_is_the_oldest_process_whose_parent_is_outside(tmp_path):
    inside, other = f"0::/docker/{A}", f"0::/docker/{B}"
    process(tmp_path, 10, 1, 50, "0::/system.slice/containerd.service")
    process(tmp_path, 20, 10, 100, inside)
    process(tmp_path, 21, 20, 100, inside)
    process(tmp_path, 15, 10, 180, inside)  # a command started from outside; its number is lower
    process(tmp_path, 30, 10, 90, other, name="a ) S 1 (b")
    (tmp_path / "self").mkdir()
    (tmp_path / "40").mkdir()  # ended between listing and reading
    assert inits(tmp_path) == {A: Init(20, 100, "docker"), B: Init(30, 90, "docker")}


def test_a_container_inside_another_has_an_init_of_its_own(tmp_path):
    process(tmp_path, 20, 1, 100, f"0::/docker/{A}")
    process(tmp_path, 30, 20, 200, f"0::/docker/{A}/kubepods/{B}")
    assert {id_: init.pid for id_, init in inits(tmp_path).items()} == {A: 20, B: 30}


async def test_what_does_not_run_is_absent(tmp_path):
    process(tmp_path, 20, 1, 100, f"0::/docker/{A}")
    assert await Processes(tmp_path).resolve([A, B]) == {A: (20, 100)}


async def test_a_signal_reaches_only_the_process_that_was_meant():
    child = await asyncio.create_subprocess_exec("sleep", "60")
    ticks = started(child.pid)
    assert not send(child.pid, ticks + 1, 9)
    async with asyncio.timeout(5):
        await gone(child.pid, ticks + 1)
    assert started(child.pid) == ticks
    assert send(child.pid, ticks, 9)
    async with asyncio.timeout(5):
        await gone(child.pid, ticks)
    await child.wait()
    assert not send(child.pid, ticks, 9)
    assert started(os.getpid())


UID = "2f3c8a5e-7c1d-4b0e-9a53-1d2e3f4a5b6c"
OTHER = "9" + UID[1:]


@pytest.mark.parametrize("case", [case for case in LINES if POD in LINES[case][0]])
def test_the_pod_of_a_process_is_read_as_every_runtime_writes_it(case):
    assert pods(LINES[case][0]) == {UID}


@pytest.mark.parametrize(
    ("cgroup", "found"),
    [
        (f"0::/kubepods/pod{UID}/{A}", {UID}),
        (f"0::/kubepods/burstable/pod{'3f' * 16}/{A}", {"3f" * 16}),
        (f"0::/kubepods/pod{UID}/{A}/docker/{B}", {UID}),
        (f"1:memory:/kubepods/pod{UID}/{A}\n0::/kubepods/pod{OTHER}/{A}", {UID, OTHER}),
        (f"0::/docker/{A}", set()),
        (f"0::/kubepods/pods{UID}/{A}", set()),
    ],
)
def test_a_process_may_be_in_no_pod_or_in_several(cgroup, found):
    assert pods(cgroup) == found


def test_only_what_the_kernel_says_makes_a_process_one_of_a_pod(tmp_path):
    (tmp_path / "7").mkdir()
    (tmp_path / "7/cgroup").write_text(f"0::/kubepods/pod{UID}/{A}\n")
    (tmp_path / "8").mkdir()
    (tmp_path / "8/cgroup").write_text(f"0::/docker/{A}\n")
    kubelets = Processes(tmp_path, of_kubelet=True)
    assert kubelets.in_pod(7, (UID, "x"))
    assert kubelets.in_pod(8, (UID,))
    assert not kubelets.in_pod(7, (OTHER,))
    assert not kubelets.in_pod(9, (UID,))
    assert Processes(tmp_path).in_pod(7, (OTHER,))
