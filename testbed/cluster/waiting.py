"""Wait for conditions that nobody announces."""

import time
from collections.abc import Callable

START_SECONDS = 90.0
"""How long any part may take to come; all together take 10 s on a quiet machine."""

_POLL_SECONDS = 0.05


def until(what: str, ready: Callable[[], object], seconds: float = START_SECONDS) -> None:
    """Ask until the answer is yes.

    Args:
        what: what is waited for, for the complaint.
        ready: is true once it is there; a `RuntimeError` of it means not yet.
        seconds: for how long.

    Raises:
        RuntimeError: it did not come, and what it last complained of.
    """
    deadline = time.monotonic() + seconds
    complaint = "it does not say why"
    while time.monotonic() < deadline:
        try:
            if ready():
                return
        except RuntimeError as refused:
            complaint = str(refused)
        time.sleep(_POLL_SECONDS)
    raise RuntimeError(f"{what}: not there after {seconds:.0f} s: {complaint}")
