"""The only place that knows every class: wires API, controller, agent and command line."""


def main() -> None:
    """Run the `squall` command."""
