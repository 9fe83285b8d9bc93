"""A real Kubernetes of several nodes on one machine: every node is a network namespace."""

from testbed.cluster.cluster import Cluster
from testbed.cluster.lifetime import attach, down, missing, running, up

__all__ = ["Cluster", "attach", "down", "missing", "running", "up"]
