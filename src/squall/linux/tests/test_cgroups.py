from pathlib import Path

import pytest

from squall.linux.cgroups import UNIFIED, count, directories, mounts, owned

HYBRID = """\
30 23 0:26 / /sys/fs/cgroup/unified rw,nosuid - cgroup2 cgroup2 rw
31 23 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 23 0:28 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory
33 23 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
34 23 0:30 / /proc rw - proc proc rw
"""
PURE = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
PART = "30 23 0:26 /kubepods /host/cgroup rw - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("mountinfo", "cgroup", "found"),
    [
        (
            HYBRID,
            "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n2:pids:/x\n1:name=systemd:/s\n0::/u\n",
            {
                "memory": "/sys/fs/cgroup/memory/docker/abc",
                "cpu": "/sys/fs/cgroup/cpu,cpuacct/docker/abc",
                "cpuacct": "/sys/fs/cgroup/cpu,cpuacct/docker/abc",
                "systemd": "/sys/fs/cgroup/systemd/s",
                UNIFIED: "/sys/fs/cgroup/unified/u",
            },
        ),
        (PURE, "0::/kubepods/pod1/abc\n", {UNIFIED: "/sys/fs/cgroup/kubepods/pod1/abc"}),
        (PART, "0::/kubepods/pod1/abc\n", {UNIFIED: "/host/cgroup/pod1/abc"}),
        (PART, "0::/system.slice/x\n", {}),
        (HYBRID, "4:memory:/\n0::/\n", {}),
    ],
)
def test_the_cgroups_of_a_process_are_found_where_they_are_mounted(mountinfo, cgroup, found):
    expected = {name: Path(path) for name, path in found.items()}
    assert directories(cgroup, mounts(mountinfo)) == expected


def make(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_version_2_counts_and_limits(tmp_path):
    make(
        tmp_path,
        {
            "pod/app/cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
            "pod/app/memory.current": "3000000\n",
            "pod/app/memory.stat": "anon 1\ninactive_file 1000000\n",
            "pod/app/memory.events": "low 0\noom 3\noom_kill 2\n",
            "pod/app/cpu.max": "max 100000\n",
            "pod/app/memory.max": "max\n",
            "pod/cpu.max": "50000 100000\n",
            "pod/memory.max": "9000000\n",
        },
    )
    counted = count({UNIFIED: tmp_path / "pod/app"})
    assert counted.cpu_seconds == 2.5
    assert counted.memory_bytes == 2_000_000
    assert counted.oom_kills == 2
    assert counted.cpu_limit == 0.5
    assert counted.memory_limit == 9_000_000


def test_version_1_counts_and_limits(tmp_path):
    make(
        tmp_path,
        {
            "a/cpuacct.usage": "1500000000\n",
            "a/cpu.cfs_quota_us": "150000\n",
            "a/cpu.cfs_period_us": "100000\n",
            "a/memory.usage_in_bytes": "3000000\n",
            "a/memory.stat": "cache 5\ntotal_inactive_file 1000000\n",
            "a/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 4\n",
            "a/memory.limit_in_bytes": "8000000\n",
            "memory.limit_in_bytes": "9223372036854771712\n",
        },
    )
    counted = count(dict.fromkeys(("cpu", "cpuacct", "memory"), tmp_path / "a"))
    assert counted.cpu_seconds == 1.5
    assert counted.memory_bytes == 2_000_000
    assert counted.oom_kills == 4
    assert counted.cpu_limit == 1.5
    assert counted.memory_limit == 8_000_000


def test_without_a_controller_nothing_is_counted(tmp_path):
    make(tmp_path, {"a/cgroup.procs": ""})
    counted = count({UNIFIED: tmp_path / "a"})
    assert counted.cpu_seconds is None
    assert counted.memory_bytes is None
    assert counted.memory_limit > 10**8


def test_the_time_of_version_2_counts_where_version_1_has_none(tmp_path):
    make(tmp_path, {"u/cpu.stat": "usage_usec 1000000\n", "m/memory.usage_in_bytes": "5\n"})
    counted = count({UNIFIED: tmp_path / "u", "memory": tmp_path / "m"})
    assert counted.cpu_seconds == 1.0
    assert counted.memory_bytes == 5


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("/c/docker/abc", "/c/docker/abc"),
        ("/c/kubepods/pod1/cri-abc.scope/init.scope", "/c/kubepods/pod1/cri-abc.scope"),
        ("/c/shared", None),
    ],
)
def test_only_a_cgroup_that_names_the_container_is_its_own(path, own):
    assert owned(Path(path), "abc") == (own and Path(own))
    assert owned(Path(path), "") is None
