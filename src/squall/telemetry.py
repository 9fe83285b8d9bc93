"""What Squall tells about itself: one registry of metrics, one way to log."""

import logging

from prometheus_client import CollectorRegistry

REGISTRY = CollectorRegistry()
"""Every metric of this process; `/metrics` shows it."""


def logger(name: str) -> logging.Logger:
    """Give the logger of one module, below `squall`."""
    return logging.getLogger(name)
