"""How much the file filter costs, and how exact its latency is.

    python bench/files.py [--seconds 0.5] [--rounds 5] [--targets 20]

Needs root, fio, squall-node, and for the comparison Debian's libfuse3-dev with its examples and
gcc. Every figure is the best of some rounds, for whoever else is busy only takes away from it, and
stands beside its limit, measured in turns in the same run: the directory itself (tmpfs), and
libfuse's example passthrough_ll over the same directory, without the kernel's cache. Where requests
go to a program, figures of several CPUs have two modes (who is woken where), so the bound holds for
all on one CPU; the others are shown.
Exit status 1 when a bound is missed.
"""

import argparse
import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from testbed.filters import Filter, in_own_mounts

EXAMPLE = Path("/usr/share/doc/libfuse3-dev/examples/passthrough_ll.c")
FILE_MIB = 256
DELAY_MS = 10
MOST_MIB_EACH = 3.0
WORKLOADS = {
    "4k random read": ("randread", "4k"),
    "4k random write": ("randwrite", "4k"),
    "1 MB sequential read": ("read", "1m"),
    "1 MB sequential write": ("write", "1m"),
}
OF_NATIVE = {"4k random read": 0.9, "1 MB sequential read": 0.9}
"""Of the directory itself, where no rule names the file. Writes are shown without a bound."""
OF_LIBFUSE = 0.9
PR_SET_TIMERSLACK = 29


class Report:
    def __init__(self) -> None:
        self.missed = False

    def row(self, what: str, value: str, bound: str = "", *, holds: bool = True) -> None:
        self.missed |= not holds
        verdict = "" if not bound else "ok" if holds else "MISSED"
        print(f"{what:<44} {value:>34}   {bound:<30} {verdict}", flush=True)


def operations(directory: Path, workload: str, seconds: float) -> float:
    """Operations per second of one process that does one after the other."""
    pattern, size = WORKLOADS[workload]
    asked = ("--ioengine=psync", "--thread", f"--rw={pattern}", f"--bs={size}", "--time_based")
    file = ("--name=data", f"--filename={directory}/data", f"--size={FILE_MIB}m")
    done = subprocess.run(
        ("fio", *asked, *file, f"--runtime={seconds}", "--output-format=json"),
        capture_output=True,
        check=True,
        timeout=60,
    )
    job = json.loads(done.stdout)["jobs"][0]
    figure: float = job["write" if "write" in pattern else "read"]["iops"]
    return figure


def pin(processes: list[int], cpus: set[int]) -> None:
    """Have all their threads, and all that is started from here, run there."""
    for pid in processes:
        for task in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(task.name), cpus)
    os.sched_setaffinity(0, cpus)


@contextmanager
def libfuse(directory: Path, program: Path) -> Iterator[tuple[Path, int]]:
    """Mount libfuse's example; the same path of data: each request goes to the program."""
    point = directory.with_name("libfuse")
    point.mkdir(exist_ok=True)
    options = f"source={directory},cache=never,allow_other"
    process = subprocess.Popen((program, "-f", "-o", options, point))
    while not os.path.ismount(point):
        time.sleep(0.02)
    try:
        yield point, process.pid
    finally:
        subprocess.run(("umount", point), check=True)
        process.wait(timeout=10)


def built_example(into: Path) -> Path | None:
    flags = shutil.which("pkg-config") and subprocess.run(
        ("pkg-config", "--cflags", "--libs", "fuse3"), capture_output=True, text=True, check=False
    )
    if not EXAMPLE.exists() or not flags or flags.returncode:
        return None
    program = into / "passthrough_ll"
    subprocess.run(("gcc", "-O2", "-o", program, EXAMPLE, *flags.stdout.split()), check=True)
    return program


Found = dict[str, float]
"""Operations per second, by what served them."""


def best(places: dict[str, Path], workload: str, seconds: float, rounds: int) -> Found:
    """Measure all in turns, so that they meet the same machine."""
    found: Found = dict.fromkeys(places, 0.0)
    for _ in range(rounds):
        for name, directory in places.items():
            found[name] = max(found[name], operations(directory, workload, seconds))
    print(f"{workload}: " + ", ".join(f"{name} {each:,.0f}/s" for name, each in found.items()))
    return found


def passed_on(found: Found, workload: str, report: Report) -> None:
    ratio, least = found["no rule"] / found["native"], OF_NATIVE.get(workload)
    bound = f">= {least} of native" if least else ""
    report.row(
        "  no rule on the file", f"{ratio:.2f} of native", bound, holds=ratio >= (least or 0)
    )


def through_us(found: Found, report: Report, *, bound: bool) -> None:
    if "libfuse" in found:
        ratio = found["rule"] / found["libfuse"]
        told, least = f"{ratio:.2f} of libfuse", f">= {OF_LIBFUSE} of libfuse" if bound else ""
        holds = not bound or ratio >= OF_LIBFUSE
        report.row("  a rule that does not fire", told, least, holds=holds)


def speed(
    places: dict[str, Path], served_by: list[int], seconds: float, rounds: int, report: Report
) -> None:
    for workload in WORKLOADS:
        found = best(places, workload, seconds, rounds)
        passed_on(found, workload, report)
        through_us(found, report, bound=False)
    everywhere = os.sched_getaffinity(0)
    pin(served_by, {min(everywhere)})
    print("all on one CPU")
    asking = {name: place for name, place in places.items() if name in ("rule", "libfuse")}
    for workload in WORKLOADS:
        through_us(best(asking, workload, seconds, rounds), report, bound=True)
    pin(served_by, everywhere)


def exactness(directory: Path, filtered: Filter, samples: int, report: Report) -> None:
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1)
    filtered.set(rule("slow", path="**/data", methods=["read"], latency_us=DELAY_MS * 1000))
    felt, slept = [], []
    with (directory / "data").open("rb", buffering=0) as file:
        for _ in range(samples):
            start = time.perf_counter()
            os.pread(file.fileno(), 4096, 0)
            felt.append((time.perf_counter() - start) * 1000 - DELAY_MS)
            start = time.perf_counter()
            time.sleep(DELAY_MS / 1000)
            slept.append((time.perf_counter() - start) * 1000 - DELAY_MS)
    value = f"{median(felt):+.3f} ms (sleep {median(slept):+.3f})"
    report.row("error of a 10 ms latency, p50", value, "<= +0.3 ms", holds=median(felt) <= 0.3)
    report.row("never early", f"{min(felt):+.3f} ms", ">= 0", holds=min(felt) >= 0)


def memory(parent: Path, targets: int, report: Report) -> None:
    """What one helper more costs, after it has moved some megabytes."""
    with ExitStack() as stack:
        filters = []
        for number in range(targets):
            directory = parent / f"target{number}"
            directory.mkdir()
            filtered = stack.enter_context(Filter.over(directory))
            filtered.set(rule("idle", path="**/data", errno=5, percent=0))
            (directory / "data").write_bytes(bytes(4 << 20))
            (directory / "data").read_bytes()
            filters.append(filtered)
        time.sleep(1.5)  # large buffers are given back after a second without requests
        each = sum(filtered.resident_mib() for filtered in filters) / targets
    bound = f"<= {MOST_MIB_EACH} MiB"
    report.row(
        f"memory of each of {targets} helpers",
        f"{each:.2f} MiB",
        bound,
        holds=each <= MOST_MIB_EACH,
    )


def rule(source: str, **what: object) -> dict[str, object]:
    return {"source": source, **what}


def main(seconds: float, rounds: int, targets: int, samples: int) -> int:
    report = Report()
    with tempfile.TemporaryDirectory(prefix="squall-files") as temporary, ExitStack() as stack:
        place = Path(temporary)
        subprocess.run(("mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", place), check=True)
        native = place / "native"
        native.mkdir()
        (native / "data").write_bytes(bytes(1 << 20) * FILE_MIB)
        filters = {}
        for name in ("no rule", "rule"):
            point = place / name.replace(" ", "-")
            point.mkdir()
            subprocess.run(("mount", "--bind", native, point), check=True)
            filtered = stack.enter_context(Filter.over(point))
            path = "**/data" if name == "rule" else "**/others"
            filtered.set(rule("idle", path=path, errno=5, percent=0))
            filters[name] = (point, filtered)
        places = {"native": native, **{name: point for name, (point, _) in filters.items()}}
        served_by = [filtered.process.pid for _, filtered in filters.values()]
        if example := built_example(place):
            places["libfuse"], pid = stack.enter_context(libfuse(native, example))
            served_by.append(pid)
        else:
            print("libfuse3-dev, pkg-config or gcc is missing: nothing to compare with")
        speed(places, served_by, seconds, rounds, report)
        exactness(*filters["rule"], samples, report)
        memory(place, targets, report)
        stack.close()
        subprocess.run(("umount", "-R", place), check=True)
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    return int(report.missed)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--targets", type=int, default=20)
    parser.add_argument("--samples", type=int, default=200)
    asked = parser.parse_args()
    in_own_mounts()
    sys.exit(main(asked.seconds, asked.rounds, asked.targets, asked.samples))
