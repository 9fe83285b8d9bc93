"""What Squall says of itself: one way to log."""

import logging


def logger(name: str) -> logging.Logger:
    """Give the logger of one module, below `squall`."""
    return logging.getLogger(name)


def log_to_stderr() -> None:
    """Write what Squall has to say to stderr, a line each, and only warnings of libraries."""
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("squall").setLevel(logging.INFO)
