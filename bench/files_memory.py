"""What it takes to have file faults in many containers at once.

    python bench/files_memory.py [--targets 100] [--open 20]

Needs root and squall-node. Each target is a process in a mount namespace of its own, with some
files open. Memory is proportional (PSS) and of all helpers together. Exit status 1 when a bound is
missed.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from squall.injection.world.files import FileRule, FilesState, Volume
from squall.linux.files import LinuxFiles
from squall.linux.tests.clerk import Clerk, clerk

MOST_MIB = 300


def helpers(run: Path) -> dict[int, float]:
    """MiB of every `squall-node` process that was started for sockets in a folder, by pid."""
    found: dict[int, float] = {}
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            command = (process / "cmdline").read_bytes()
            if b"squall-node" in command and str(run).encode() in command:
                rollup = (process / "smaps_rollup").read_text().splitlines()
                [pss] = [int(line.split()[1]) for line in rollup if line.startswith("Pss:")]
                found[int(process.name)] = pss / 1024
        except OSError:
            continue
    return found


async def measure(targets: list[Clerk], run: Path) -> bool:
    """Put a rule on every target, use it, weigh the helpers, and take all back."""
    files = LinuxFiles(run, lease_seconds=30)

    async def begin(target: Clerk) -> float:
        rule = FileRule("bench/.", str(target.data), methods=("fsync",), latency_us=1000)
        begun = time.perf_counter()
        await files.apply(target.target, FilesState((Volume(str(target.data), (rule,)),)))
        return time.perf_counter() - begun

    async def end(target: Clerk) -> None:
        await files.apply(target.target, FilesState())

    begun = time.perf_counter()
    each = sorted(await asyncio.gather(*(begin(target) for target in targets)))
    all_s = time.perf_counter() - begun
    for target in targets:
        target.do("[(os.pwrite(fd, b'x' * 65536, 0), os.fsync(fd)) for fd in held]")
    weighed = helpers(run)
    total = sum(weighed.values())
    begun = time.perf_counter()
    await asyncio.gather(*(end(target) for target in targets))
    back_s = time.perf_counter() - begun
    left = len(helpers(run))
    await files.end_all()
    holds = total <= MOST_MIB and left == 0
    print(f"targets {len(targets)}, helpers {len(weighed)}")
    print(
        f"begun   {all_s:.2f} s in all, median {each[len(each) // 2]:.2f} s for one beside others"
    )
    print(f"memory  {total:.0f} MiB   <= {MOST_MIB} MiB   {'ok' if holds else 'MISSED'}")
    print(f"back    {back_s:.2f} s, {left} helpers left")
    return holds


def main(count: int, opened: int) -> int:
    with tempfile.TemporaryDirectory(prefix="squall-bench-") as made, ExitStack() as stack:
        folder = Path(made)
        (folder / "run").mkdir()
        targets = [stack.enter_context(clerk(folder / f"{n}", f"d/{n}/app")) for n in range(count)]
        for target in targets:
            names = [str(target.data / str(number)) for number in range(opened)]
            target.do(f"held = [os.open(name, os.O_RDWR | os.O_CREAT) for name in {names!r}]")
        return 0 if asyncio.run(measure(targets, folder / "run")) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--targets", type=int, default=100)
    parser.add_argument("--open", type=int, default=20, help="files that each holds open")
    asked = parser.parse_args()
    sys.exit(main(asked.targets, asked.open))
