"""The only place that knows every class: wires API, controller, agent and command line."""

import sys

INTERRUPTED = 130
"""Exit status after Ctrl-C, as of a shell."""


def main() -> None:
    """Run the `squall` command."""
    try:
        # Loading takes a moment, in which Ctrl-C must be as quiet as later.
        from squall.app.doors import Doors  # noqa: PLC0415
        from squall.cli import main as run_verb  # noqa: PLC0415

        status = run_verb(Doors())
    except KeyboardInterrupt:
        status = INTERRUPTED
    sys.exit(status)
