"""The only place that knows every class: wires API, controller, agent and command line."""

import sys

from squall.cli import main as run_verb


def main() -> None:
    """Run the `squall` command."""
    from squall.app.doors import Doors  # noqa: PLC0415  (`squall --help` needs none of it)

    sys.exit(run_verb(Doors()))
