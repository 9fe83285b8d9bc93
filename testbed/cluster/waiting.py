"""Wait for conditions that nobody announces."""

import time
from collections.abc import Callable

from testbed.cluster.processes import Process

START_SECONDS = 90.0
"""How long any part may take to come; all together take 10 s on a quiet machine."""

_POLL_SECONDS = 0.05


def until(
    what: str,
    ready: Callable[[], object],
    seconds: float = START_SECONDS,
    runs: Process | None = None,
) -> None:
    """Ask until the answer is yes.

    Args:
        what: what is waited for, for the complaint.
        ready: is true once it is there; a `RuntimeError` of it means not yet.
        seconds: for how long.
        runs: without this process it will never come.

    Raises:
        RuntimeError: it did not come, and what it last complained of.
    """
    deadline = time.monotonic() + seconds
    complaint = "it does not say why"
    while time.monotonic() < deadline and (runs is None or runs.alive):
        try:
            if ready():
                return
        except RuntimeError as refused:
            complaint = str(refused)
        time.sleep(_POLL_SECONDS)
    state = f"is not there after {seconds:.0f} s" if runs is None or runs.alive else "ended"
    raise RuntimeError(f"{what} {state}: {complaint}")
