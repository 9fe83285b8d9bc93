"""What faults may leave on a host, read from the kernel, to be compared with what was there."""

import os
import re
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from squall.app.places import Places

READ_SECONDS = 10.0
FOREIGN_TABLE = "theirs"
_CGROUPS = Path("/sys/fs/cgroup")

# What the kernel counts or draws anew says nothing about what somebody left there.
_FLEETING = re.compile(r"(packets \d+ bytes \d+|# handle \d+|valid_lft \S+|preferred_lft \S+)")


class Namespace:
    """One network namespace, held open: it can be read after all of its processes are gone."""

    def __init__(self, source: int | Path) -> None:
        """Open that of a process, or that which a file holds."""
        path = Path(f"/proc/{source}/ns/net") if isinstance(source, int) else source
        self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.inode = os.fstat(self._handle).st_ino

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._handle)

    def run(self, *command: str, given: str = "") -> str:
        """Run a command inside; returns what it wrote."""
        inside = ["nsenter", f"--net=/proc/self/fd/{self._handle}", *command]
        done = subprocess.run(
            inside,
            check=True,
            capture_output=True,
            text=True,
            input=given,
            timeout=READ_SECONDS,
            pass_fds=[self._handle],
        )
        return done.stdout

    def plant(self) -> None:
        """Put rules there that are none of ours."""
        script = f"""
            table inet {FOREIGN_TABLE} {{
                set friends {{ type ipv4_addr; elements = {{ 192.0.2.1, 192.0.2.7 }} }}
                chain out {{
                    type filter hook output priority 5; policy accept;
                    ip daddr @friends udp dport 4242 counter drop
                }}
            }}"""
        self.run("nft", "-f", "-", given=script)
        self.run("tc", "qdisc", "add", "dev", "lo", "root", "handle", "77:", "pfifo", "limit", "33")

    def foreign(self) -> str:
        """Read what was planted, to the byte, with its handles."""
        table = self.run("nft", "-a", "list", "table", "inet", FOREIGN_TABLE)
        return table + self.run("tc", "qdisc", "show", "dev", "lo")

    def traces(self) -> Mapping[str, str]:
        """Read rules, queues, filters, devices and addresses."""
        devices = self.run("ip", "-o", "link", "show")
        names = sorted(re.findall(r"^\d+: ([^:@\s]+)", devices, re.MULTILINE))
        sides = [(name, side) for name in names for side in ("root", "ingress", "egress")]
        asked = "\n".join(f"filter show dev {name} {side}" for name, side in sides)
        filters = self.run("tc", "-batch", "-", given=asked)
        read = {
            "nft": self.run("nft", "-s", "list", "ruleset"),
            "tc qdisc": self.run("tc", "qdisc", "show"),
            "tc filter": filters,
            "devices": " ".join(names),
            "addresses": self.run("ip", "-o", "addr", "show", "scope", "global"),
        }
        return {name: _FLEETING.sub("", text) for name, text in read.items()}


class Host:
    """What one installation has on this host."""

    def __init__(self, directory: Path) -> None:
        self._places = Places(directory)

    def processes(self) -> Iterator[tuple[int, str]]:
        """Find (pid, command line) of every process that belongs to the installation."""
        marks = (self._places.mark, str(self._places.directory), str(self._places.run))
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            with suppress(OSError):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                cgroup = (entry / "cgroup").read_text()
                if any(mark in command for mark in marks) or self._places.mark in cgroup:
                    yield int(entry.name), command.strip()

    def holders(self) -> list[int]:
        """List the processes that hold faults in a target."""
        modules = ("dns", "files", "http", "packets")
        holds = (*(f"squall-node {module}" for module in modules), "stress-ng")
        return sorted(pid for pid, command in self.processes() if any(h in command for h in holds))

    def traces(self, pid: int) -> Mapping[str, str]:
        """Read what is on one target apart from its network: mounts, company, cgroups."""
        cgroup = Path(f"/proc/{pid}/cgroup").read_text()
        # What anybody mounts on this host comes into every mount namespace, and goes again.
        mounts = _mount_points(pid) - _mount_points(os.getpid())
        return {
            "mounts": "\n".join(sorted(mounts.elements())),
            "processes": "\n".join(sorted(self._company(cgroup))),
            "cgroups": "\n".join(_cgroup_traces(cgroup)),
        }

    def end_all(self) -> None:
        """SIGKILL everything that belongs to the installation, as a loss of power would."""
        for pid, _ in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def empty_run_directory(self) -> None:
        """Take away what does not survive a reboot."""
        run = self._places.run
        mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        for mount in sorted((m for m in mounts if m.startswith(f"{run}/")), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False, timeout=READ_SECONDS)
        subprocess.run(["rm", "-rf", "--one-file-system", str(run)], check=True, timeout=60)

    def _company(self, cgroup: str) -> Iterator[str]:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    if (entry / "cgroup").read_text() == cgroup:
                        yield (entry / "comm").read_text().strip()


def _mount_points(pid: int) -> Counter[str]:
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    return Counter(line.split()[4] for line in lines)


def _cgroup_traces(cgroup: str) -> Iterator[str]:
    """Read below a container's cgroups, and whether they are frozen; names of containers vary."""
    for line in sorted(cgroup.splitlines()):
        _, controllers, path = line.split(":", 2)
        for root in (_CGROUPS / controllers.removeprefix("name="), _CGROUPS / "unified", _CGROUPS):
            where = root / path.lstrip("/")
            if "squall-" in path and where.is_dir():
                for file in ("freezer.state", "cgroup.freeze"):
                    with suppress(OSError):
                        yield f"{controllers} {file} {(where / file).read_text().strip()}"
                children = sum(1 for each in where.iterdir() if each.is_dir())
                yield f"{controllers} children {children}"
                break


def difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Say what differs between two readings; empty when nothing does."""
    return "\n".join(_differing(before, now))


def _differing(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in before.keys() | now.keys():
        was, is_ = before.get(name, ""), now.get(name, "")
        if was != is_:
            yield f"{name}\n  was: {_short(was, is_)}\n  is:  {_short(is_, was)}"


def _short(text: str, other: str) -> str:
    lines: Sequence[str] = [line for line in text.splitlines() if line not in other.splitlines()]
    return " | ".join(lines) or "(nothing more)"
