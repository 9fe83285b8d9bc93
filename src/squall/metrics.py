"""What Squall counts of itself. Only who shows metrics imports it: the library takes 2 MB."""

from prometheus_client import CollectorRegistry

REGISTRY = CollectorRegistry()
"""Every metric of this process; `/metrics` shows it."""
