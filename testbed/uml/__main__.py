"""Build the kernel unless it is there, and run the tests that are marked for it inside.

`python -m testbed.uml [ARGUMENTS OF PYTEST...]`
"""

import sys

from testbed.uml.build import kernel
from testbed.uml.run import run

TIMEOUT_SECONDS = 600.0
"""Three minutes on a quiet machine."""

ROOMS = ("tests/kernel", "src/squall/linux", "src/squall/faults")

program = kernel()
print(f"kernel: {program}", flush=True)
tests = (sys.executable, "-m", "pytest", "-m", "kernel", "-p", "no:cacheprovider")
sys.exit(
    run(
        (*tests, *(sys.argv[1:] or ROOMS)),
        timeout_seconds=TIMEOUT_SECONDS,
        environment={"SQUALL_TEST_KERNEL": "user-mode"},
        program=program,
    )
)
