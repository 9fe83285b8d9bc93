"""Build the kernel unless it is there, try its runner, and run the tests marked for it inside.

`python -m testbed.uml [ARGUMENTS OF PYTEST...]`
"""

import subprocess
import sys

from testbed.uml.build import kernel
from testbed.uml.run import run

TIMEOUT_SECONDS = 600.0
"""For a machine that is busy; the tests take two minutes on a quiet one."""

TRIES = 2
"""Of the runner: now and then a machine hangs, as it comes up or goes down."""

RUNNER = "testbed/uml"
ROOMS = ("tests/kernel", "src/squall/linux")


def main(arguments: list[str]) -> int:
    """Return the exit status of the tests."""
    program = kernel()
    print(f"kernel: {program}", flush=True)
    tests = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider")
    if not arguments:
        print("the runner, from this host:", flush=True)
        trying = (subprocess.run((*tests, RUNNER), check=False).returncode for _ in range(TRIES))
        if failed := next((status for status in trying if not status), 1):
            return failed
        print("inside:", flush=True)
    inside = (*tests, "-m", "kernel", *(arguments or ROOMS))
    return run(inside, timeout_seconds=TIMEOUT_SECONDS, program=program)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
