"""A real Kubernetes of several nodes on one machine: every node is a network namespace."""
