"""How long a running program stands still while its open files are moved to a filter and back.

    python bench/file_entry.py [--files 10000]

Needs root and squall-node. The program measures itself: the longest gap between two beats of a
thread that sleeps half a millisecond, against 200 ms. Exit status 1 when a bound is missed.
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

from testbed.entered import Faults, Program, volume, wait

LIMIT_MS = 200
GONE_WITHIN = 10.0
BEATS = """
def beat():
  global worst
  while going:
    t = time.monotonic(); time.sleep(0.0005); worst = max(worst, time.monotonic() - t)
"""


class Report:
    def __init__(self) -> None:
        self.missed = False

    def row(self, what: str, value: float, unit: str, limit: float) -> None:
        holds = value <= limit
        self.missed |= not holds
        ratio = f"{value / limit:.2f} of {limit:g} {unit}"
        print(f"{what:<52} {value:>10.1f} {unit}   {ratio:<22} {'ok' if holds else 'MISSED'}")


def felt_ms(program: Program) -> float:
    """The longest gap since this was asked last."""
    worst = float(program.ask("worst"))
    program.ask("worst = 0")
    return worst * 1000


def memory_kib(pid: int) -> int:
    """Of which nobody else has a share."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))


def measure(directory: Path, files: int, report: Report) -> None:
    (directory / "data").mkdir()
    program = Program(directory / "data")
    try:
        program.ask(
            f"files = [os.open(d + str(i), os.O_RDWR | os.O_CREAT) for i in range({files})]"
        )
        program.ask("[os.write(f, b'0123456789') for f in files]")
        program.ask("going, worst = True, 0")
        program.ask(BEATS.strip())
        program.ask("threading.Thread(target=beat, daemon=True).start()")
        time.sleep(1)
        print(f"{'without us':<52} {felt_ms(program):>10.1f} ms")
        held = Faults(program, directory / "1.files")
        fault = volume(program.directory, latency_us=1000, methods=["read"], percent=1)
        began = time.monotonic()
        held.set(fault)
        took = time.monotonic() - began
        entered = held.ask("state")["ok"]["entered"][str(program.directory)]
        report.row(f"in: longest stop, {files} descriptors", felt_ms(program), "ms", LIMIT_MS)
        print(f"{'':<4}{entered['stops']} stops in {took:.1f} s, {entered['descriptors']} moved")
        sizes = [memory_kib(pid) for pid in held.processes()]
        print(f"{'':<4}filter and guardian: {sizes} KiB")
        began = time.monotonic()
        held.set()
        report.row("out: longest stop", felt_ms(program), "ms", LIMIT_MS)
        print(f"{'':<4}in {time.monotonic() - began:.1f} s")
        held.set(fault)
        felt_ms(program)
        os.kill(held.processes()[0], signal.SIGKILL)
        gone = wait(lambda: not program.mounts(), within=30)
        report.row("filter killed: until the mount is gone", gone * 1000, "ms", GONE_WITHIN * 1000)
        print(f"{'':<4}longest stop then: {felt_ms(program):.1f} ms")
        held.close()
    finally:
        program.end()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=10_000)
    files = parser.parse_args().files
    report = Report()
    with tempfile.TemporaryDirectory() as directory:
        measure(Path(directory), files, report)
    return report.missed


if __name__ == "__main__":
    sys.exit(main())
